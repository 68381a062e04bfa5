"""What an index on one machine and one in shards have in common."""

from __future__ import annotations

import numpy as np
import pytest

from colbert_core import Index, Passage
from colbert_core.index.searching import check_unit_matrices


@pytest.fixture
def index(words):
    made = Index.create(None, words)
    made.add([Passage("a", "cats purr"), Passage("b", "dogs bark"), Passage("c", "cats and dogs")])
    return made


def test_vectors_as_an_encoder_made_them_find_what_the_text_finds(index, words):
    queries = ["cats", "dogs bark"]
    assert index.search_vectors(words.encode_queries(queries), 2) == index.search_many(queries, 2)
    assert index.search_vectors(words.encode_queries(queries), 2, mean=True) == [index.search_mean(queries, 2)]
    assert index.search_vectors(words.encode_queries(["cats"]), ids=["b"]) == [index.search("cats", ids=["b"])]


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((1, 4)), r"Query 0 must be float32 of shape \(n, 4\) with n >= 1, got float64 \(1, 4\)"),
        (np.ones((1, 3), np.float32), r"got float32 \(1, 3\)"),
        (np.empty((0, 4), np.float32), r"got float32 \(0, 4\)"),
        ("cats", "got str"),
        (np.full((2, 4), 1.0, np.float32), "rows of length 1, got lengths from 2 to 2; use search_many, which scales them"),
    ],
)
def test_vectors_that_no_encoder_made_are_refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        check_unit_matrices([matrix], 4)


def test_a_single_query_where_several_belong_is_refused(index, words):
    for single in ("cats", words.encode_queries(["cats"])[0]):
        for search in (index.search_many, index.search_mean):
            with pytest.raises(TypeError, match="queries must be a list, got one"):
                search(single)


def test_an_index_is_closed_when_its_block_ends(words):
    with Index.create(None, words) as index:
        assert len(index) == 0
    with pytest.raises(ValueError, match="closed"):
        len(index)
