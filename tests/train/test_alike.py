"""Texts that a model reads alike."""

from __future__ import annotations

import numpy as np

from colbert_core.train import alike
from colbert_core.train.alike import first_alike


def test_the_first_of_equal_texts_stands_for_all_of_them(monkeypatch):
    texts = [[5, 6], [6, 5], [5, 6, 0], [5, 6], [0], [6, 5], [0, 0]]
    tokens = np.array([token for text in texts for token in text], np.uint16)
    offsets = np.cumsum([0, *map(len, texts)])
    assert first_alike(tokens, offsets).tolist() == [0, 1, 2, 0, 4, 1, 6]
    monkeypatch.setattr(alike, "_AT_A_TIME", 2)
    assert first_alike(tokens, offsets).tolist() == [0, 1, 2, 0, 4, 1, 6]
    assert first_alike(np.empty(0, np.uint16), np.zeros(1, np.int64)).tolist() == []


def test_many_texts_are_alike_where_they_are_equal():
    rng = np.random.default_rng(0)
    texts = [tuple(rng.integers(0, 3, rng.integers(1, 6)).tolist()) for _ in range(2000)]
    tokens = np.array([token for text in texts for token in text], np.int32)
    firsts: dict[tuple[int, ...], int] = {}
    expected = [firsts.setdefault(text, number) for number, text in enumerate(texts)]
    assert first_alike(tokens, np.cumsum([0, *map(len, texts)])).tolist() == expected
