"""Japanese checkpoints, whose tokenizer is written in Python: its ids, and the characters of each token, told by us."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
from builders.checkpoints import edit_json, japanese
from builders.parity import assert_parity, assert_same, first_pieces, load, published_rule_rows, rows_of
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import BertJapaneseTokenizer

from colbert_core import CheckpointError, UnsupportedCheckpointError
from colbert_core.model.japanese import JapaneseBackend
from colbert_core.model.tokenizer import Tokenizer

VOCABULARY = [
    *(
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[unused0]",
        "日本",
        "##語",
        "語",
        "を",
        "勉強",
        "する",
        "東京",
        "大",
        "##学",
    ),
    *("a", "b", "##c", "平", "##成", "ガ", "##ラ", "##ス", "ka", "##fe", "か", "が", "。", "、", "1", "##2"),
]


@pytest.fixture
def mecab(monkeypatch):
    """MeCab, as far as transformers calls it: here words end where the kind of letter changes."""

    def words(text):
        kinds = r"[\u4e00-\u9fff]{1,2}|[\u3041-\u309f]+|[\u30a0-\u30ff]+|[A-Za-z]+|[0-9]+|\S"
        return [SimpleNamespace(surface=word) for word in re.findall(kinds, text)]

    for name, content in {"fugashi": {"GenericTagger": lambda option: words}, "unidic_lite": {"DICDIR": "dictionary"}}.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def without_mecab(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name in ("fugashi", "unidic_lite", "ipadic") else find_spec(name, *a),
    )


def vocabulary_file(folder):
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    return str(folder / "vocab.txt")


def cut(tokenizer, text):
    return [text[start:end] for start, end in tokenizer.encode([text])[0].spans]


def test_pieces_have_the_characters_they_were_made_of(tmp_path, mecab):
    tokenizer = Tokenizer(BertJapaneseTokenizer(vocabulary_file(tmp_path), word_tokenizer_type="mecab"))
    text = "日本語を  勉強する。\n大学、平成12"
    assert cut(tokenizer, text) == ["日本", "語", "を", "勉強", "する", "。", "大", "学", "、", "平", "成", "1", "2"]
    starts = tokenizer.encode([text])[0].word_starts.astype(int).tolist()
    assert starts == [1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 0, 1, 0]


def test_characters_that_are_normalized_keep_their_place(tmp_path, mecab):
    tokenizer = Tokenizer(BertJapaneseTokenizer(vocabulary_file(tmp_path), word_tokenizer_type="mecab"))
    assert cut(tokenizer, "㍻ ｶﾞﾗｽ") == ["㍻", "㍻", "ｶﾞ", "ﾗ", "ｽ"]  # 平成 in one character, ガラス in four
    assert cut(tokenizer, "か\u3099。") == ["か\u3099", "。"]


def test_an_unknown_word_is_whole_and_an_unknown_character_is_one(tmp_path, mecab):
    path = vocabulary_file(tmp_path)
    words = Tokenizer(BertJapaneseTokenizer(path, word_tokenizer_type="mecab"))
    assert cut(words, "東京 abc xyz") == ["東京", "abc", "xyz"]
    letters = Tokenizer(BertJapaneseTokenizer(path, word_tokenizer_type="mecab", subword_tokenizer_type="character"))
    assert cut(letters, "xaｂ 大x") == ["x", "a", "ｂ", "大", "x"]


def test_an_added_token_in_a_text_is_one(tmp_path):
    tokenizer = Tokenizer(BertJapaneseTokenizer(vocabulary_file(tmp_path), do_lower_case=True))
    assert cut(tokenizer, "KAfe [MASK] 大学") == ["KA", "fe", "[MASK]", "大", "学"]


@given(st.text(alphabet="日本語大学かがカガｶﾞ゛\u3099㍻ﬁÉßİaB 1、。\n\t\0[MASK]\N{CAT FACE}", max_size=30))
def test_ids_are_the_tokenizers_own_and_spans_go_forward_within_the_text(tmp_path_factory, text):
    if "tokenizer" not in CACHE:
        path = vocabulary_file(tmp_path_factory.mktemp("japanese"))
        CACHE["tokenizer"] = [
            BertJapaneseTokenizer(path, do_lower_case=lower, subword_tokenizer_type=kind)
            for lower in (False, True)
            for kind in ("wordpiece", "character")
        ]
    for own in CACHE["tokenizer"]:
        tokens = Tokenizer(own).encode([text])[0]
        assert tokens.ids.tolist() == own.encode(text, add_special_tokens=False)
        spans = tokens.spans.tolist()
        assert all(0 <= start < end <= len(text) for start, end in spans)
        assert [start for start, _ in spans] == sorted(start for start, _ in spans)


CACHE: dict = {}


def test_a_tokenizer_answers_what_others_answer(tmp_path):
    own = BertJapaneseTokenizer(vocabulary_file(tmp_path))
    tokenizer = Tokenizer(own)
    assert (tokenizer.prefix_ids, tokenizer.suffix_ids) == ([own.cls_token_id], [own.sep_token_id])
    assert (tokenizer.mask_id, tokenizer.pad_id, tokenizer.unknown_id) == (
        own.mask_token_id,
        own.pad_token_id,
        own.unk_token_id,
    )
    assert (tokenizer.size, tokenizer.n_ids) == (len(VOCABULARY), len(VOCABULARY))
    assert tokenizer.pieces()[5:9] == ["[unused0]", "日本", "語", "語"]
    assert tokenizer.tokens_of([tokenizer.token_id("[unused0]"), 7]) == ["[unused0]", "##語"]
    assert tokenizer.first_piece_ids(["。", "、", ""]) == [VOCABULARY.index("。"), VOCABULARY.index("、")]


def test_lower_casing_beside_the_tokenizer_keeps_places(tmp_path):
    own = BertJapaneseTokenizer(vocabulary_file(tmp_path))
    assert cut(Tokenizer(own, lowercase=True), "İ KAFE") == ["İ", "KA", "FE"]
    assert own.tokenize("KAFE") == ["[UNK]"]


def test_vectors_are_those_of_stanfords_rules(tmp_path):
    folder = japanese(tmp_path / "ja")
    weights = load_file(folder / "model.safetensors")
    expected = published_rule_rows(
        folder,
        weight=weights["linear.weight"],
        markers=["[unused0]", "[unused1]"],
        lengths=[24, 60],
        skipped=first_pieces,
        prefix="bert.",
    )
    assert_parity(rows_of(load(folder)), expected)


@pytest.mark.parametrize("format", ["stanford", "pylate", "sentence-transformers"])
def test_a_copy_gives_the_same_vectors(tmp_path, format):
    encoder = load(japanese(tmp_path / "ja"))
    encoder.save(tmp_path / "copy", format=format)
    assert_same(load(tmp_path / "copy"), encoder)


def test_a_checkpoint_with_mecab_is_read(tmp_path, mecab):
    folder = japanese(tmp_path / "ja", word_tokenizer_type="mecab", mecab_kwargs={"mecab_dic": "unidic_lite"})
    encoder = load(folder)
    assert encoder.query_spans("cat, dog").tolist()[2:5] == [[0, 3], [3, 4], [5, 8]]


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"mecab_kwargs": {"mecab_dic": "unidic_lite"}}, "pip install fugashi unidic-lite (or colbert-retrievers[japanese])"),
        ({"mecab_kwargs": {"mecab_dic": "ipadic"}}, "pip install fugashi ipadic"),
        ({"mecab_kwargs": {"mecab_dic": None}}, "pip install fugashi"),
    ],
)
def test_missing_packages_are_named_in_one_line(tmp_path, without_mecab, settings, advice):
    folder = japanese(tmp_path / "ja", word_tokenizer_type="mecab", **settings)
    with pytest.raises(
        CheckpointError, match=re.escape(f"by mecab and needs packages that are not installed: {advice}") + "$"
    ) as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_a_dictionary_that_is_not_named_is_said(tmp_path, mecab, caplog):
    load(japanese(tmp_path / "ja", word_tokenizer_type="mecab"))
    assert "names no dictionary for MeCab; it is read with unidic_lite" in caplog.text


def test_another_tokenizer_in_python_is_refused_by_name(tmp_path):
    folder = japanese(tmp_path / "ja")
    edit_json(folder / "tokenizer_config.json", tokenizer_class="ByT5Tokenizer", word_tokenizer_type=..., do_lower_case=...)
    with pytest.raises(UnsupportedCheckpointError, match="ByT5Tokenizer is written in Python .* read are .*tokenizer.json"):
        load(folder)


def test_threads_take_turns(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    backend = JapaneseBackend(BertJapaneseTokenizer(vocabulary_file(tmp_path)))
    texts = ["大学 か が 東京", "語 を", "a b a b a b a b"] * 20
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: backend.encode(text, add_special_tokens=False), texts))
    assert found == [backend.encode(text, add_special_tokens=False) for text in texts]
