"""Scoring by NumPy alone."""

from __future__ import annotations

import numpy as np
from builders.vectors import unit

from colbert_core.search.plain_scorer import PlainScorer
from colbert_core.vectors.segment import Segment


def segment_of(vectors, doclens):
    n = len(doclens)
    return Segment(np.arange(n), np.zeros((n, 2), np.int32), np.array(doclens, np.int32), vectors=vectors)


def test_scores_by_hand():
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    query = np.array([[1, 0], [0, 1]], np.float32)
    scorer = PlainScorer([segment_of(vectors, [2, 1])], query)
    windows = np.array([0, 1], np.int32)
    assert scorer.exactly(0, windows).round(6).tolist() == [2.0, 1.4]  # 1 + 1, .6 + .8
    assert np.abs(scorer.roughly(0, windows) - scorer.exactly(0, windows)).max() <= scorer.margin


def test_equal_windows_have_equal_exact_scores_whatever_is_beside_them():
    rng = np.random.default_rng(0)
    vectors, query = unit(rng, 7, 48), unit(rng, 5, 48)
    others = unit(rng, 90, 48)
    segment = segment_of(np.concatenate([vectors, others, vectors]), [7, *[3] * 30, 7])
    first, last = PlainScorer([segment], query).exactly(0, np.array([0, 31], np.int32)).tolist()
    assert first == last
    assert PlainScorer([segment], query).exactly(0, np.array([31], np.int32)).tolist() == [last]
