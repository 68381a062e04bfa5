"""Encoding: the recipe written out by hand, then that batches, threads and windows change nothing."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import string
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from builders.encoders import VOCABULARY, write_stanford
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertConfig, BertModel

from colbert_core import CheckpointError, Encoder

IDS = {token: number for number, token in enumerate(dict.fromkeys(VOCABULARY))}
TEXTS = [
    "the cat sat on a mat",
    "dogs bark.",
    "what sound does a cat make?",
    "",
    "rust is a language of systems; happy pets purr and bark, or sat on the mat and purr!",
    "cats",
]


def reference(folder, ids, attention):
    """Unit vectors of one sequence by the plain transformers model and the projection, nothing of ours."""
    weights = load_file(folder / "model.safetensors")
    backbone = BertModel(BertConfig.from_pretrained(folder), add_pooling_layer=False).eval()
    backbone.load_state_dict({k.removeprefix("bert."): v for k, v in weights.items() if k != "linear.weight"})
    with torch.inference_mode():
        hidden = backbone(input_ids=torch.tensor([ids]), attention_mask=torch.tensor([attention])).last_hidden_state[0]
        vectors = hidden @ weights["linear.weight"].T if "linear.weight" in weights else hidden
    return torch.nn.functional.normalize(vectors, dim=-1).numpy()


def ids_of(tokens):
    return [IDS[token] for token in tokens.split()]


def test_a_query_is_cls_marker_text_sep_and_masks_that_score_but_are_not_attended_to(stanford, stanford_folder):
    (vectors,) = stanford.encode_queries(["  What sound does a cat make?\n"])
    ids = ids_of("[CLS] [unused0] what sound does a cat make ? [SEP] [MASK] [MASK]")
    assert vectors.shape == (12, 16)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, reference(stanford_folder, ids, [1] * 10 + [0] * 2), atol=1e-5)


def test_masks_are_attended_to_where_the_recipe_says_so(tmp_path):
    folder = write_stanford(tmp_path / "attending", metadata={"attend_to_mask_tokens": True})
    (vectors,) = Encoder.from_pretrained(str(folder), device="cpu", dtype="float32").encode_queries(["cat"])
    ids = ids_of("[CLS] [unused0] cat [SEP]" + " [MASK]" * 8)
    np.testing.assert_allclose(vectors, reference(folder, ids, [1] * 12), atol=1e-5)


def test_markers_and_augmentation_can_be_turned_off_by_the_recipe(tmp_path):
    recipe = {"query_token_id": None, "doc_token_id": None, "query_augmentation": False}
    folder = write_stanford(tmp_path / "plain", metadata=recipe)
    encoder = Encoder.from_pretrained(str(folder), device="cpu", dtype="float32")
    (vectors,) = encoder.encode_queries(["cat purr"])
    np.testing.assert_allclose(vectors, reference(folder, ids_of("[CLS] cat purr [SEP]"), [1] * 4), atol=1e-5)


def test_a_passage_is_cls_marker_text_sep_less_its_punctuation(stanford, stanford_folder):
    found = stanford.encode_passages(["Cats, dogs: purr."])
    ids = ids_of("[CLS] [unused1] cats , dogs : purr . [SEP]")
    kept = [i for i, number in enumerate(ids) if number not in ids_of(", : .")]
    np.testing.assert_allclose(found.vectors, reference(stanford_folder, ids, [1] * 9)[kept], atol=1e-5)
    assert found.doclens.tolist() == [6]
    assert found.token_spans.tolist() == [[0, 0], [0, 0], [0, 4], [6, 10], [12, 16], [17, 17]]
    assert found.window_spans.tolist() == [[0, 17]]


def test_every_ascii_punctuation_character_is_skipped(stanford):
    assert stanford.encode_passages([" ".join(string.punctuation[:15])]).doclens.tolist() == [3]


def test_punctuation_stays_where_the_recipe_says_so(tmp_path):
    folder = write_stanford(tmp_path / "all", metadata={"mask_punctuation": False})
    encoder = Encoder.from_pretrained(str(folder), device="cpu", dtype="float32")
    assert encoder.encode_passages(["Cats, dogs: purr."]).doclens.tolist() == [9]


def test_an_untrained_model_uses_its_own_tokens_and_hidden_states(untrained, untrained_folder):
    (query,) = untrained.encode_queries(["cat purr"])
    np.testing.assert_allclose(query, reference(untrained_folder, ids_of("[CLS] cat purr [SEP]"), [1] * 4), atol=1e-5)
    passage = untrained.encode_passages(["cat purr"]).vectors
    np.testing.assert_allclose(passage, query, atol=1e-5)


def test_the_tokens_are_those_of_the_checkpoints_own_tokenizer(stanford_folder, stanford):
    tokenizer = AutoTokenizer.from_pretrained(stanford_folder)
    text = "The CAT sat; happy zebras purr?"
    assert stanford._tokenizer.encode([text])[0].ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_batches_give_the_same_as_one_by_one(stanford, monkeypatch):
    monkeypatch.setattr("colbert_core.model.forward._CPU_BATCH_TOKENS", 64)
    together = stanford.encode_passages(TEXTS)
    alone = [stanford.encode_passages([text]) for text in TEXTS]
    np.testing.assert_allclose(together.vectors, np.concatenate([one.vectors for one in alone]), atol=1e-5)
    for name in ("token_spans", "doclens", "window_spans"):
        np.testing.assert_array_equal(getattr(together, name), np.concatenate([getattr(one, name) for one in alone]))
    assert together.owners.tolist() == [i for i, one in enumerate(alone) for _ in one.owners]

    queries = [text for text in TEXTS if text]
    for vectors, query in zip(stanford.encode_queries(queries), queries, strict=True):
        np.testing.assert_allclose(vectors, stanford.encode_queries([query])[0], atol=1e-5)


def test_threads_give_the_same_as_one_after_the_other(stanford):
    expected = stanford.encode_passages(TEXTS).vectors
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: stanford.encode_passages(TEXTS).vectors, range(24)):
            np.testing.assert_array_equal(found, expected)


def test_all_vectors_have_length_one(stanford, untrained):
    for encoder in (stanford, untrained):
        rows = np.concatenate([encoder.encode_passages(TEXTS).vectors, *encoder.encode_queries(["cat", "what sound"])])
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_bfloat16_is_close_to_float32(stanford, stanford_folder):
    rough = Encoder.from_pretrained(str(stanford_folder), device="cpu", dtype="bfloat16")
    cosines = (rough.encode_passages(TEXTS).vectors * stanford.encode_passages(TEXTS).vectors).sum(axis=1)
    assert rough.dtype == torch.bfloat16
    assert np.mean(cosines) > 0.995


# Long texts


def test_a_long_passage_becomes_overlapping_windows_that_cover_it(stanford):
    text = " ".join(["the cat sat on a mat"] * 10)
    found = stanford.encode_passages(["dogs", text])
    assert found.owners.tolist() == [0, *[1] * (len(found.owners) - 1)]
    spans = found.window_spans[1:]
    assert (spans[0][0], spans[-1][1]) == (0, len(text))
    assert (spans[1:, 0] < spans[:-1, 1]).all()  # each overlaps the one before
    assert found.doclens.max() <= 20
    covered = {tuple(span) for span in found.token_spans[found.doclens[0] :]} - {(at, at) for at in range(len(text) + 1)}
    assert covered == {(at, at + len(word)) for at, word in words_of(text)}


def words_of(text):
    at = 0
    for word in text.split():
        at = text.index(word, at)
        yield at, word
        at += len(word)


def test_a_window_is_encoded_exactly_like_a_passage_of_its_text(stanford):
    text = " ".join(["the cat sat on a mat, what sound does it make;"] * 4)
    found = stanford.encode_passages([text])
    assert len(found.owners) > 2
    starts = np.cumsum(found.doclens) - found.doclens
    for start, length, (first, last) in zip(starts, found.doclens, found.window_spans, strict=True):
        alone = stanford.encode_passages([text[first:last]]).vectors
        np.testing.assert_allclose(found.vectors[start : start + length], alone, atol=1e-5)


def test_a_passage_of_a_megabyte_is_encoded_whole(tmp_path, stanford_folder):
    encoder = Encoder.from_pretrained(str(stanford_folder), device="cpu", dtype="float32", passage_length=64)
    text = "the cat sat on a mat and purr " * 35_000
    assert len(text) > 1_000_000
    found = encoder.encode_passages([text])
    assert found.window_spans[0, 0] == 0
    assert found.window_spans[-1, 1] == len(text)
    assert (found.window_spans[1:, 0] < found.window_spans[:-1, 1]).all()


@settings(max_examples=30)
@given(text=st.text(max_size=120))
def test_token_spans_are_inside_their_window_on_any_unicode(stanford, text):
    found = stanford.encode_passages([text])
    windows = np.repeat(found.window_spans, found.doclens, axis=0)
    assert (windows[:, 0] <= found.token_spans[:, 0]).all()
    assert (found.token_spans[:, 0] <= found.token_spans[:, 1]).all()
    assert (found.token_spans[:, 1] <= windows[:, 1]).all()
    assert found.window_spans[0, 0] == 0
    assert found.window_spans[-1, 1] == len(text)


def test_emoji_and_accents_keep_character_offsets(stanford):
    text = "🐈 cat é purr"
    spans = {text[a:b] for a, b in stanford.encode_passages([text]).token_spans}
    assert {"cat", "purr"} <= spans


def test_a_query_longer_than_the_model_is_cut_and_says_so(stanford, caplog):
    with caplog.at_level(logging.WARNING, logger="colbert_core"):
        vectors = stanford.encode_queries(["cat", "the cat sat on a mat and the dog sat on a mat"])
    assert [len(v) for v in vectors] == [12, 12]
    assert "1 of 2 queries are longer than query_length=12 tokens and were cut" in caplog.text


# Odd and bad input


def test_no_texts_have_no_vectors(stanford):
    found = stanford.encode_passages([])
    assert found.vectors.shape == (0, 16)
    assert found.token_spans.shape == found.window_spans.shape == (0, 2)
    assert stanford.encode_queries([]) == []


def test_an_empty_passage_has_the_models_own_tokens(stanford):
    assert stanford.encode_passages([""]).doclens.tolist() == [3]


def test_a_tokenizer_without_tokens_of_its_own_is_refused(tmp_path):
    folder = write_stanford(tmp_path / "bare")
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(content | {"post_processor": None}))
    with pytest.raises(CheckpointError, match=r"adds no tokens of its own, such as \[CLS\]"):
        Encoder.from_pretrained(folder, device="cpu")


def test_control_characters_are_encoded_as_the_tokenizer_sees_them(stanford):
    found = stanford.encode_passages(["\x00\x01cat\x07 \x1b[31mdog\x7f"])
    assert found.doclens[0] > 3
    assert stanford.encode_queries(["\x00"])[0].shape == (12, 16)


@pytest.mark.parametrize("query", ["", "  ", "\n\t"])
def test_a_blank_query_is_refused(stanford, query):
    with pytest.raises(ValueError, match="Query 1 is empty; give it at least one word"):
        stanford.encode_queries(["cat", query])


@pytest.mark.parametrize("bad", [None, 3, b"cat", ["cat"]])
def test_what_is_no_string_is_refused_by_position(stanford, bad):
    with pytest.raises(TypeError, match=r"Query 1 must be a str, got"):
        stanford.encode_queries(["cat", bad])
    with pytest.raises(TypeError, match=r"Passage 0 must be a str, got"):
        stanford.encode_passages([bad])


def test_one_string_for_a_list_is_refused(stanford):
    with pytest.raises(TypeError, match=r"must be a list of strings, got one str; write \['cat'\]"):
        stanford.encode_queries("cat")
    with pytest.raises(TypeError, match="must be a list of strings"):
        stanford.encode_passages("cat")


def test_a_lone_surrogate_is_refused_with_its_place(stanford):
    with pytest.raises(ValueError, match=r"Query 0 has a lone surrogate '\\ud800' at character 3"):
        stanford.encode_queries(["cat\ud800"])
    with pytest.raises(ValueError, match="Passage 0 has a lone surrogate"):
        stanford.encode_passages(["\udfff"])
    with pytest.raises(ValueError, match="text has a lone surrogate"):
        stanford.split("\udfff", "a")


DOCUMENT = (
    "# Pets\n\nThe cat sat on a mat. The dog sat on a mat.\n\n## Sounds\n\nWhat sound does a cat make? Cats purr, dogs bark.\n\n"
    "```\nrust is a\n\nlanguage of\n```\n\n" + "purr " * 30
)


def test_split_cuts_a_document_into_passages_the_model_reads_whole(stanford):
    passages = stanford.split(DOCUMENT, "pets.md", metadata={"lang": "en"})
    assert len(passages) > 2
    assert [passage.id for passage in passages] == [f"pets.md#{number}" for number in range(1, len(passages) + 1)]
    assert len(stanford.encode_passages([passage.text for passage in passages]).owners) == len(passages)
    assert " ".join(passage.text for passage in passages).split() == DOCUMENT.split()
    for passage in passages:
        start, end = passage.metadata["start"], passage.metadata["end"]
        assert passage.text == DOCUMENT[start:end] == DOCUMENT[start:end].strip()
        assert passage.metadata == {"document_id": "pets.md", "start": start, "end": end, "lang": "en"}


def test_split_keeps_headings_with_their_text_and_code_whole(stanford):
    texts = [passage.text for passage in stanford.split(DOCUMENT, "a")]
    assert not any(text.splitlines()[-1].startswith("#") for text in texts)
    assert any("```\nrust is a\n\nlanguage of\n```" in text for text in texts)


def test_split_takes_a_size_and_an_overlap(stanford):
    small = stanford.split("the cat sat on a mat and the dog sat on a mat", "a", size=6, overlap=2)
    assert [passage.text for passage in small] == ["the cat sat on a mat", "a mat and the dog sat", "dog sat on a mat"]
    with pytest.raises(ValueError, match="size=18 must be from 1 to 17 tokens"):
        stanford.split("cat", "a", size=18)
    with pytest.raises(ValueError, match="overlap 6"):
        stanford.split("cat", "a", size=6, overlap=6)
    assert stanford.split(" \n", "a") == []


def test_split_loses_no_character_that_the_tokenizer_drops(default_encoder):
    text = "cafe\u0301 " * 100  # the accent by itself, as macOS writes it
    passages = default_encoder.split(text, "a", size=5)
    assert all(text[a.metadata["end"] : b.metadata["start"]].isspace() for a, b in pairwise(passages))
    assert sum(passage.text.count("\u0301") for passage in passages) == 100


def test_split_names_wrong_arguments(stanford):
    for arguments, error, message in (
        ({"size": 2.5}, TypeError, "size must be a whole number of tokens, got 2.5"),
        ({"size": True}, TypeError, "size must be a whole number"),
        ({"size": 5, "overlap": "3"}, TypeError, "overlap must be a whole number"),
    ):
        with pytest.raises(error, match=message):
            stanford.split("cat", "a", **arguments)
    with pytest.raises(TypeError, match="document_id must be a str"):
        stanford.split("cat", None)
    with pytest.raises(ValueError, match="document_id is empty"):
        stanford.split("cat", "")
    assert stanford.split("cat", "a", metadata={"start": 99})[0].metadata["start"] == 0


@settings(max_examples=30)
@given(text=st.text(max_size=200))
def test_split_slices_any_unicode_back(stanford, text):
    for passage in stanford.split(text, "a", size=5):
        assert passage.text == text[passage.metadata["start"] : passage.metadata["end"]] == passage.text.strip() != ""


# Late chunking


@pytest.fixture(scope="module")
def late(stanford_folder):
    return Encoder.from_pretrained(stanford_folder, device="cpu", dtype="float32", late_chunking=True)


def test_late_chunking_cuts_the_vectors_of_one_long_sequence(late, stanford_folder):
    text = "the cat sat on a mat , what sound does it make ; the dog sat on a mat and the cats purr and the dogs bark"
    found = late.encode_passages([text])
    ids = ids_of(f"[CLS] [unused1] {text.replace('it', 'i ##t')} [SEP]")
    whole = reference(stanford_folder, ids, [1] * len(ids))  # all of it fits into the 64 tokens of the backbone
    assert len(found.owners) > 1
    starts = np.cumsum(found.doclens) - found.doclens
    own = {0, 1, len(ids) - 1}
    covered = set()
    for start, length in zip(starts, found.doclens, strict=True):
        rows = found.vectors[start : start + length]
        places = (rows @ whole.T).argmax(axis=1)
        np.testing.assert_allclose(rows, whole[places], atol=1e-5)
        assert own <= set(places.tolist())  # every window has the model's own tokens
        covered |= set(places.tolist())
    assert covered == {i for i, number in enumerate(ids) if number not in ids_of(", ;")}


def test_late_chunking_leaves_short_texts_alone(late, stanford):
    texts = ["the cat sat", "", "dogs bark."]
    np.testing.assert_array_equal(late.encode_passages(texts).vectors, stanford.encode_passages(texts).vectors)


def test_late_chunking_of_more_than_the_backbone_reads_covers_the_text(late, stanford):
    text = " ".join(["the cat sat on a mat."] * 60)
    found = late.encode_passages(["dogs", text, "cats"])
    spans = found.window_spans[found.owners == 1]
    assert (spans[0][0], spans[-1][1]) == (0, len(text))
    assert (spans[1:, 0] <= spans[:-1, 1]).all()
    assert (np.diff(spans, axis=0) > 0).all()
    assert found.doclens.max() <= 20
    assert found.owners.tolist() == sorted(found.owners.tolist())
    plain = stanford.encode_passages(["dogs", text, "cats"])  # the same windows, read with more around them
    np.testing.assert_array_equal(found.window_spans, plain.window_spans)
    np.testing.assert_array_equal(found.token_spans, plain.token_spans)
    assert np.abs(found.vectors - plain.vectors).max() > 0.01


def test_late_chunking_of_a_megabyte_takes_no_quadratic_time(late):
    assert len(list(late._inputs.passages(["the cat sat on a mat.\n\n" * 40_000]))) > 1000  # an hour, if it were


def test_late_chunking_without_more_context_than_a_window_is_refused(stanford_folder):
    with pytest.raises(ValueError, match="it reads 64 tokens and passage_length is 64; pass a smaller passage_length"):
        Encoder.from_pretrained(stanford_folder, device="cpu", passage_length=64, late_chunking=True)


# Progress, copies


def test_progress_is_shown_on_request_and_silent_otherwise(stanford, capfd):
    for progress in (None, False):
        stanford.encode_passages(TEXTS, progress=progress)
    assert capfd.readouterr().err == ""
    stanford.encode_passages(TEXTS, progress=True)
    assert "Encoding: 100%" in capfd.readouterr().err


def test_a_copy_shares_the_model_and_a_pickle_loads_it_again(stanford):
    assert copy.deepcopy(stanford) is stanford
    again = pickle.loads(pickle.dumps(stanford))
    assert len(pickle.dumps(stanford)) < 1000
    np.testing.assert_array_equal(again.encode_queries(["cat"])[0], stanford.encode_queries(["cat"])[0])
