"""Maximal marginal relevance."""

from __future__ import annotations

import numpy as np

from colbert_core.search.diversity import diversify


def test_diverse_by_hand():
    east, north, up = np.eye(3, dtype=np.float32)[:, None]
    windows = [east, east, north, up]
    assert diversify([0.9, 0.8, 0.7, 0.1], windows, 3, 1.0) == [0, 1, 2]
    assert diversify([0.9, 0.8, 0.7, 0.1], windows, 3, 0.5) == [0, 2, 3]  # .4 - .5, .35 - 0, .05 - 0
    assert diversify([0.9, 0.8, 0.7, 0.1], windows, 9, 0.9) == [0, 2, 1, 3]
