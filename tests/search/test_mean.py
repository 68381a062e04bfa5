"""The best passages by the mean over several queries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbert_core.search.hits import Ranked
from colbert_core.search.mean import rank_by_mean


def ranker(scores):
    """Ranks passages for queries that are the numbers of rows in ``scores``."""

    def rank(number, k, pids):
        of_query = scores[number]
        chosen = range(len(of_query)) if pids is None else pids.tolist()
        best = sorted(chosen, key=lambda pid: (-of_query[pid], pid))[:k]
        return Ranked(best, [float(of_query[pid]) for pid in best], [(number, 9)] * len(best))

    return rank


def test_means_scores_and_spans_by_hand():
    scores = np.array([[0.9, 0.1, 0.8], [0.2, 0.6, 0.5]])
    ranking, relevances = rank_by_mean(ranker(scores), [1, 1], 2, None, list)
    assert ranking.pids == [2, 0]  # .65, .55, and .35 for passage 1
    assert ranking.scores == pytest.approx([0.65, 0.55])
    assert relevances == pytest.approx([0.65, 0.55])
    assert ranking.spans == [(0, 9), (0, 9)]  # both match the first query best


def test_nothing_has_no_mean():
    assert rank_by_mean(ranker(np.zeros((2, 0))), [1, 1], 3, None, list) == (Ranked([], [], []), [])


@given(st.integers(1, 4), st.integers(1, 300), st.integers(1, 5), st.integers(0, 2**31))
def test_the_threshold_algorithm_finds_what_looking_at_everything_finds(n_queries, n, k, seed):
    scores = np.random.default_rng(seed).integers(0, 33, size=(n_queries, n)) / 32  # sums are exact
    ranking, relevances = rank_by_mean(ranker(scores), [1] * n_queries, k, None, list)
    means = scores.mean(axis=0)
    assert relevances == pytest.approx(sorted(means, reverse=True)[:k])
    assert ranking.pids == sorted(range(n), key=lambda pid: (-means[pid], pid))[:k]
