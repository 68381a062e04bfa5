"""The encoder of an index: loaded when it is needed, checked, and named in errors."""

from __future__ import annotations

import json
import shutil
import sqlite3

import numpy as np
import pytest
from builders.encoders import WordEncoder
from builders.indexes import THREE, ids

from colbert_core import (
    DamagedIndexError,
    Encoder,
    EncoderMismatchError,
    Index,
    Passage,
    Reranker,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.idx"


def test_the_encoder_an_index_was_made_with_is_loaded_when_it_is_needed(path, stanford_folder):
    encoder = Encoder.from_pretrained(stanford_folder, passage_length=15)
    with Index.create(path, encoder) as index:
        index.add([Passage("a", "the cat sat on the mat"), Passage("b", "rust is a language of systems")])
        before = index.search("cat", k=2)
    with Index.open(path) as index:
        assert ids(index.search("cat", k=2)) == ids(before)
        assert index.encoder.config.passage_length == 15
        index.add([Passage("c", "dogs bark")])
        assert len(index) == 3


def test_the_same_encoder_in_another_place_or_precision_is_welcome(path, tmp_path, stanford_folder):
    Index.create(path, stanford_folder).close()
    moved = shutil.copytree(stanford_folder, tmp_path / "moved")
    for dtype in ("float32", "bfloat16"):
        with Index.open(path, Encoder.from_pretrained(moved, dtype=dtype, device="cpu")) as index:
            index.add([Passage(dtype, "the cat sat")])
    assert len(Index.open(path)) == 2


def test_another_encoder_is_an_error_that_names_both(path, words, stanford, untrained):
    Index.create(path, words).close()
    with pytest.raises(
        EncoderMismatchError, match=r"made with the encoder 'words', of dim 64, but the encoder '.*stanford.*' has dim 16"
    ):
        Index.open(path, stanford)

    class Other(WordEncoder):
        name = "other words"

        def vector(self, word):
            return super().vector(word + "!")

    with pytest.raises(
        EncoderMismatchError, match="made with the encoder 'words', and the encoder 'other words' gives other vectors"
    ):
        Index.open(path, Other())
    with pytest.raises(ValueError, match="other words"):
        Index.open(path, Other())
    Index.open(path, words).close()


def test_a_model_folder_whose_content_has_changed_is_noticed(path, tmp_path, stanford_folder):
    from builders.encoders import write_stanford

    model = shutil.copytree(stanford_folder, tmp_path / "model")
    with Index.create(path, str(model)) as index:
        index.add([Passage("a", "the cat sat")])
    shutil.rmtree(model)
    with Index.open(path) as index:
        assert len(index.search(np.ones((1, 16), np.float32))) == 1
        with pytest.raises(EncoderMismatchError, match="was made with the encoder '.*model', which cannot be loaded; pass it"):
            index.search("cat")
    import torch

    write_stanford(model, weights={"linear.weight": -torch.ones(16, 32)})
    problem = (
        "made with the encoder '.*model', and what has that name now gives other vectors for the same text; .* make a new index"
    )
    with Index.open(path) as index, pytest.raises(EncoderMismatchError, match=problem):
        index.search("cat")


def test_an_encoder_without_a_name_is_not_taken_for_the_one_of_an_index_without_one(path, words):
    Index.create(path, dim=5).close()
    words.name = None
    with pytest.raises(EncoderMismatchError, match="made with vectors from elsewhere, of dim 5, but the encoder None has dim"):
        Index.open(path, words)


def test_an_encoder_without_a_name_to_load_it_by_has_to_be_passed(path, words):
    Index.create(path, words).close()
    with Index.open(path) as index:
        assert len(index) == 0
        with pytest.raises(EncoderMismatchError, match="'words', which has no name to load it by; pass it to Index.open"):
            index.search("cat")
        with pytest.raises(EncoderMismatchError):
            index.add(THREE)


def test_an_index_of_vectors_from_elsewhere_takes_no_texts_until_it_has_an_encoder(path, words):
    with Index.create(path, dim=64) as index:
        for call in (lambda: index.search("cat"), lambda: index.add(THREE)):
            with pytest.raises(EncoderMismatchError, match="made for vectors from elsewhere, without an encoder"):
                call()
    with Index.open(path, words) as index:
        index.add(THREE)
        assert ids(index.search("dog barks", k=1)) == ["b"]
    with pytest.raises(EncoderMismatchError, match="vectors from elsewhere, of dim 64, but the encoder 'words' has dim 8"):
        Index.open(path, WordEncoder(dim=8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 3}, "dim is 3, but the encoder 'words' makes vectors of dim 64"),
        ({"nbits": 3}, "nbits must be 1, 2, 4, 8, or 32"),
        ({"nbits": True}, "nbits must be 1, 2, 4, 8, or 32"),
        ({"dim": 0}, "dim must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_make_no_index(path, words, options, message):
    with pytest.raises(ValueError, match=message):
        Index.create(path, words, **options)
    assert not path.exists()


def test_a_hostile_index_cannot_ask_for_code_to_be_run(path, stanford_folder):
    Index.create(path, stanford_folder).close()
    for origin in ({"name": "x/y", "trust_remote_code": True}, {"name": 3}, ["x"], "x", {"late_chunking": 1}):
        connection = sqlite3.connect(path / "index.sqlite")
        connection.execute("UPDATE about SET value = ? WHERE key = 'encoder'", (json.dumps({"name": "x", "origin": origin}),))
        connection.commit()
        connection.close()
        with Index.open(path) as index, pytest.raises(DamagedIndexError, match="what no version of this package writes"):
            index.search("cat")


class Wrong(WordEncoder):
    answer = None

    def encode_queries(self, texts):
        return self.answer


@pytest.mark.parametrize(
    "answer",
    [
        [],
        [np.empty((0, 64), np.float32)],
        [np.full((2, 64), np.nan, np.float32)],
        [np.ones((2, 64), np.float32)],
        [np.ones((2, 8), np.float32)],
        [[[1.0] * 64]],
        [np.eye(64)],
    ],
    ids=["none", "empty", "nan", "long", "narrow", "list", "double"],
)
def test_an_encoder_whose_query_vectors_are_wrong_is_named(answer):
    encoder = Wrong()
    encoder.answer = answer
    index = Index.create(None, encoder)
    index.add(THREE)
    for call in (lambda: index.search("cat"), lambda: Reranker(encoder).rank("cat", THREE)):
        with pytest.raises(ValueError, match="The encoder's query vectors cannot be used"):
            call()
