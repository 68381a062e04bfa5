"""Inverted lists: by hand, then against the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbert_core.vectors.inverted_lists import InvertedLists


def test_lists_by_hand():
    codes = np.array([5, 2, 5, 2, 2, 9], np.uint16)
    lists = InvertedLists.build(codes, np.array([3, 1, 2], np.int32))
    assert lists.centroids.tolist() == [2, 5, 9]
    assert lists.offsets.tolist() == [0, 3, 4, 5]
    assert lists.windows.tolist() == [0, 1, 2, 0, 2]
    offsets, windows = lists.by_centroid(12, 3)
    assert offsets.tolist() == [0, 0, 0, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5]
    assert windows.tolist() == [0, 1, 2, 0, 2]
    assert lists.reaching(np.array([False, False, True])).tolist() == [2, 9]


def test_lists_of_nothing_are_empty():
    lists = InvertedLists.build(np.empty(0, np.uint16), np.empty(0, np.int32))
    assert lists.by_centroid(2, 0)[0].tolist() == [0, 0, 0]
    assert lists.reaching(np.zeros(0, np.bool_)).tolist() == []


@pytest.mark.parametrize(
    ("centroids", "offsets", "windows"),
    [
        ([9], [0, 1], [0]),
        ([0], [0, 1], [3]),
        ([0], [0, 1], [-1]),
        ([0, 1], [0, 2, 1], [0]),
        ([0], [0, 9], [0]),
        ([0, 1, 2, 3], [0, 2**63 - 1, -(2**63), -1, 1], [0]),
    ],
)
def test_lists_that_lead_nowhere_are_refused(centroids, offsets, windows):
    lists = InvertedLists(np.array(centroids, np.uint16), np.array(offsets, np.int64), np.array(windows, np.int32))
    with pytest.raises(IndexError, match="list"):
        lists.by_centroid(4, 3)


@given(
    doclens=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    n_centroids=st.integers(1, 9),
    seed=st.integers(0, 999),
)
def test_lists_hold_the_windows_of_every_centroid(doclens, n_centroids, seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(n_centroids, size=sum(doclens)).astype(np.uint16)
    owners = np.repeat(np.arange(len(doclens)), doclens)
    lists = InvertedLists.build(codes, np.array(doclens, np.int32))
    allowed = rng.random(len(doclens)) < 0.5
    offsets, windows = lists.by_centroid(n_centroids + 1, len(doclens))
    for centroid in range(n_centroids + 1):
        listed = windows[offsets[centroid] : offsets[centroid + 1]]
        assert listed.tolist() == sorted(set(owners[codes == centroid].tolist()))
    assert lists.reaching(allowed).tolist() == sorted(set(codes[allowed[owners]].tolist()))
