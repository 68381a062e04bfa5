"""Mistakes in calls, and calls within calls."""

from __future__ import annotations

import numpy as np
import pytest
from builders.indexes import THREE

from colbert_core import (
    Index,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.idx"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda index: index.add(THREE[0]), TypeError, r"got one Passage; write \[passage\]"),
        (lambda index: index.search("cat", ids=5), TypeError, "ids must be a list of strings, got int"),
        (lambda index: index.delete(None), TypeError, "ids must be a list of strings, got NoneType"),
        (lambda index: index.get(["\ud800"]), ValueError, "Id 0 has a lone surrogate"),
        (lambda index: index.search("cat", k=True), TypeError, "k must be a whole number of passages, got True"),
        (lambda index: index.search("cat", min_relevance=[1]), TypeError, "min_relevance is a relevance from 0 to 1"),
        (
            lambda index: index.search_diverse("cat", lambda_mult=None),
            TypeError,
            "lambda_mult is a number from 0 to 1, got None",
        ),
        (lambda index: index.search("cat", config={"nprobe": 3}), TypeError, "config must be a SearchConfig, got dict"),
        (lambda index: index.search(np.array([["a"]])), ValueError, "Query 0 must be real numbers"),
        (lambda index: index.search(np.ones((1, 64)) * 1j), ValueError, "Query 0 must be real numbers"),
        (lambda _: Index.create(None, dim=2**70), ValueError, "dim must be at most 65536"),
        (lambda _: Index.create(None, dim=2.5), TypeError, "dim must be a whole number of components"),
    ],
)
def test_mistakes_in_calls_are_named(words, call, error, message):
    index = Index.create(None, words)
    index.add(THREE)
    with pytest.raises(error, match=message):
        call(index)
    assert "\ud800" not in index
    assert len(index) == 3


def test_a_filter_of_a_delete_may_use_the_index(path, words):
    with Index.create(path, words) as index:
        index.add(THREE)
        assert index.delete_where(lambda passage: len(index.search("cat", k=9)) == 3 and passage.id != "a") == 2
        assert index.ids() == ["a"]
        assert index.ids({"n": 7}) == []
