"""Encoding: the recipe written out by hand, then that batches, threads and windows change nothing."""

from __future__ import annotations

import copy
import logging
import pickle

import numpy as np
import pytest
from builders.parity import ids_of, load, reference

from colbert_core import (
    Encoder,
)

TEXTS = [
    "the cat sat on a mat",
    "dogs bark.",
    "what sound does a cat make?",
    "",
    "rust is a language of systems; happy pets purr and bark, or sat on the mat and purr!",
    "cats",
]


def test_a_query_is_cls_marker_text_sep_and_masks_that_score_but_are_not_attended_to(stanford, stanford_folder):
    (vectors,) = stanford.encode_queries(["  What sound does a cat make?\n"])
    ids = ids_of("[CLS] [unused0] what sound does a cat make ? [SEP] [MASK] [MASK]")
    assert vectors.shape == (12, 16)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, reference(stanford_folder, ids, [1] * 10 + [0] * 2), atol=1e-5)


def test_a_passage_is_cls_marker_text_sep_less_its_punctuation(stanford, stanford_folder):
    found = stanford.encode_passages(["Cats, dogs: purr."])
    ids = ids_of("[CLS] [unused1] cats , dogs : purr . [SEP]")
    kept = [i for i, number in enumerate(ids) if number not in ids_of(", : .")]
    np.testing.assert_allclose(found.vectors, reference(stanford_folder, ids, [1] * 9)[kept], atol=1e-5)
    assert found.doclens.tolist() == [6]
    assert found.token_spans.tolist() == [[0, 0], [0, 0], [0, 4], [6, 10], [12, 16], [17, 17]]
    assert found.window_spans.tolist() == [[0, 17]]


def test_an_untrained_model_uses_its_own_tokens_and_hidden_states(untrained, untrained_folder):
    (query,) = untrained.encode_queries(["cat purr"])
    np.testing.assert_allclose(query, reference(untrained_folder, ids_of("[CLS] cat purr [SEP]"), [1] * 4), atol=1e-5)
    passage = untrained.encode_passages(["cat purr"]).vectors
    np.testing.assert_allclose(passage, query, atol=1e-5)


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


def test_a_query_longer_than_the_model_is_cut_and_says_so(stanford, caplog):
    with caplog.at_level(logging.WARNING, logger="colbert_core"):
        vectors = stanford.encode_queries(["cat", "the cat sat on a mat and the dog sat on a mat"])
    assert [len(v) for v in vectors] == [12, 12]
    assert "1 of 2 queries are longer than query_length=12 tokens and were cut" in caplog.text


def test_no_texts_have_no_vectors(stanford):
    found = stanford.encode_passages([])
    assert found.vectors.shape == (0, 16)
    assert found.token_spans.shape == found.window_spans.shape == (0, 2)
    assert stanford.encode_queries([]) == []


def test_an_empty_passage_has_the_models_own_tokens(stanford):
    assert stanford.encode_passages([""]).doclens.tolist() == [3]


def test_control_characters_are_encoded_as_the_tokenizer_sees_them(stanford):
    found = stanford.encode_passages(["\x00\x01cat\x07 \x1b[31mdog\x7f"])
    assert found.doclens[0] > 3


@pytest.mark.parametrize("query", ["", "  ", "\n\t", "\x00", "\u200b", " \ufeff\u00ad", "\ue000", "\u3164", "\ufe0f"])
def test_a_query_with_nothing_to_read_is_refused(stanford, query):
    with pytest.raises(ValueError, match=r"Query 1 \(of 2, counted from 0\) is empty.*; ask with at least one word"):
        stanford.encode_queries(["cat", query])
    with pytest.raises(ValueError, match="^The query is empty"):
        stanford.encode_queries([query])
    with pytest.raises(ValueError, match="^The query is empty"):
        stanford.query_spans(query)


def test_a_query_of_which_the_tokenizer_leaves_nothing_is_refused(stanford):
    with pytest.raises(ValueError, match=r"The query is empty: '\\ufffd' has no character that can be read"):
        stanford.encode_queries(["\ufffd"])


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


def test_lengths_can_be_chosen_at_loading(stanford_folder):
    config = load(stanford_folder, query_length=9, passage_length=30).config
    assert (config.query_length, config.passage_length) == (9, 30)


def test_an_unknown_keyword_is_an_error(stanford_folder):
    with pytest.raises(TypeError, match="max_length"):
        Encoder.from_pretrained(str(stanford_folder), max_length=12)
