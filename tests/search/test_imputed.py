"""XTR's score."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbert_core.search.imputed import imputed_scores


def test_what_was_not_found_has_the_lowest_similarity_that_was():
    query = np.array([[1, 0], [0, 1]], np.float32)
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 1], [-1, 0]], np.float32)
    owners = np.array([0, 1, 1, 2])
    # Of the first query vector 1 and .8 are found, bar .8; of the second 1 and .6, bar .6.
    expected = [(1 + 0.6) / 2, (0.8 + 1) / 2, -np.inf]
    np.testing.assert_allclose(imputed_scores(query, vectors, owners, 2, 3), expected, rtol=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 30))
def test_with_all_tokens_found_it_is_maxsim_and_no_bar_is_below_a_similarity(seed, n_q, n):
    random = np.random.default_rng(seed)
    query, vectors = (random.normal(size=(rows, 4)).astype(np.float32) for rows in (n_q, n))
    owners = np.sort(random.integers(0, 5, n))
    similarities = query @ vectors.T
    maxsim = np.array([similarities[:, owners == i].max(axis=1).mean() if (owners == i).any() else -np.inf for i in range(5)])
    np.testing.assert_allclose(imputed_scores(query, vectors, owners, n, 5), maxsim, rtol=1e-4, atol=1e-5)
    some = imputed_scores(query, vectors, owners, max(n // 3, 1), 5)
    assert (some[np.isfinite(some)] >= maxsim[np.isfinite(some)] - 1e-4).all()


def test_nothing_is_found_of_nothing():
    empty = imputed_scores(np.ones((1, 2), np.float32), np.empty((0, 2), np.float32), np.empty(0, np.int64), 5, 2)
    assert empty.tolist() == [-np.inf, -np.inf]


def test_the_number_of_tokens_is_checked():
    with pytest.raises(ValueError, match="n_tokens"):
        imputed_scores(np.ones((1, 2), np.float32), np.ones((1, 2), np.float32), np.zeros(1, np.int64), 0, 1)
