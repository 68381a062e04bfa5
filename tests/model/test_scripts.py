"""A model is not asked in a script that it does not read without a word."""

from __future__ import annotations

import logging

import pytest

from colbert_core import Encoder, Index, Passage
from colbert_core.model import encoder
from colbert_core.model.scripts import Scripts, script_of
from colbert_core.model.sharing import Shared
from colbert_core.model.tokenizer import Tokenizer

FOREIGN = {
    "Han": "\u732b\u54aa\u9ad8\u5174\u7684\u65f6\u5019\u4f1a\u53d1\u51fa\u547c\u565c\u58f0",
    "Hangul": "\uace0\uc591\uc774\ub294 \ub9cc\uc871\ud558\uba74 \uac00\ub974\ub791\uac70\ub9b0\ub2e4",
    "Cyrillic": "\u041a\u043e\u0448\u043a\u0438 \u043c\u0443\u0440\u043b\u044b\u043a\u0430\u044e\u0442",
    "Greek": "\u039f\u03b9 \u03b3\u03ac\u03c4\u03b5\u03c2",
    "Arabic": "\u0627\u0644\u0642\u0637\u0637 \u062a\u062e\u0631\u062e\u0631",
    "Thai": "\u0e41\u0e21\u0e27\u0e08\u0e30\u0e2a\u0e48\u0e07",
}
READ = (
    "Why do cats purr?",
    "\u00dcnic\u00f6de na\u00efve caf\u00e9",
    "\u201cQuotes\u201d \u2013 and \u2192 arrows \u2026",
    "cats \N{CAT FACE}\N{CAT FACE}",
    "the angle \u03b1 and \u03c0 of 3",
    "\u03b1 + \u03b2",
    "The character \u732b means cat in Chinese.",
)


@pytest.fixture(autouse=True)
def unshared(monkeypatch):
    """Encoders of their own: one that other tests have may have said everything already."""
    monkeypatch.setattr(encoder, "_shared", Shared())


@pytest.fixture
def box():
    return Encoder.from_pretrained()


@pytest.mark.parametrize(("script", "text"), FOREIGN.items())
def test_queries_and_passages_in_a_script_that_is_not_read_are_said_once(box, script, text, caplog, monkeypatch):
    index = Index.create(None, box)
    index.add([Passage("a", text), Passage("b", "Cats purr.")])
    index.search(text)
    index.add([Passage("c", text)])
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"does not read the {script} script, in which 1 of 2 passages are written (it reads Latin)" in said
    assert "jinaai/jina-colbert-v2" in said
    caplog.clear()
    assert Encoder.from_pretrained() is box  # which has said it
    monkeypatch.setattr(encoder, "_shared", Shared())
    Encoder.from_pretrained().encode_queries([text, "cats"])
    assert f"{script} script, in which 1 of 2 queries are written" in caplog.text


def test_the_figures_are_those_of_the_tokens(box, caplog):
    box.encode_queries(["\u5317\u4eac\u7684\u600e\u4e48"])  # four characters are in the vocabulary, one is not
    (tokens,) = box._inputs.tokenizer.encode(["\u5317\u4eac\u7684\u600e\u4e48"])
    unknown = int((tokens.ids == box._inputs.tokenizer.unknown_id).sum())
    assert (
        f"{100 * unknown / 5:.0f} % are unknown to it and {100 * (5 - unknown) / 5:.0f} % are single characters" in caplog.text
    )


@pytest.mark.parametrize("text", READ)
def test_latin_texts_with_signs_formulas_and_a_foreign_word_are_read(box, text, caplog):
    box.encode_queries([text])
    box.encode_passages([text])
    assert caplog.text == ""


def wordpiece(words):
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    backend = Backend(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, **names))


def bytelevel(texts):
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = ["<pad>", "<s>", "</s>"]
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=1500, initial_alphabet=alphabet, special_tokens=specials, show_progress=False)
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>"))


def pairs(first, n):
    letters = [chr(first + number) for number in range(n)]
    return [a + b for a in letters for b in letters]


def test_a_vocabulary_made_for_a_script_reads_it(caplog):
    han = [chr(0x4E00 + number) for number in range(3000)]
    scripts = Scripts(wordpiece([*han, *pairs(0x430, 20), *pairs(0x61, 20), "\u03b1\u03b2"]), "many")
    assert scripts.read == ("Cyrillic", "Han", "Latin")
    scripts.warn([FOREIGN["Han"], FOREIGN["Cyrillic"]], "queries")
    assert caplog.text == ""
    scripts.warn([FOREIGN["Greek"]], "queries")
    assert "does not read the Greek script, in which 1 of 1 queries are written (it reads Cyrillic, Han, Latin)" in caplog.text


def test_the_pieces_of_a_byte_level_vocabulary_are_read_as_characters(caplog):
    words = pairs(0x430, 30)
    scripts = Scripts(bytelevel([" ".join(words)] * 3), "bytes")
    assert "Cyrillic" in scripts.read
    scripts.warn([FOREIGN["Thai"]], "passages")  # three bytes for each character: three tokens of one
    assert "0 % are unknown to it and 100 % are single characters" in caplog.text


def test_letters_have_the_scripts_that_unicode_names():
    assert [script_of(letter) for letter in "a\u00e9\u0431\u732b\u3042\u30a2\uff71\uff21\ue000"] == [
        *("Latin", "Latin", "Cyrillic", "Han", "Han", "Han", "Han", "Latin", "")
    ]


def test_a_description_says_which_scripts_are_read(box):
    assert box.describe()["scripts"] == ["Latin"]
    assert "scripts     Latin" in repr(box)
