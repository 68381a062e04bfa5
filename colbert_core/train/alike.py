"""Texts that a model reads alike: those of the same tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Texts whose tokens are in memory together, some 5 million.
_AT_A_TIME = 2**16


def first_alike(tokens: NDArray[Any], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find for each text the first one with the same tokens.

    Such texts differ in blanks, in capitals that the model does not read, or behind its first window. They are compared by a
    sum of 64 bits: the token at each place times a random odd number of this place.

    Args:
        tokens: token ids of all texts, one text behind the other. *Shape:* (n_tokens,), whole numbers.
        offsets: where each text begins, and the end; no text is empty. *Shape:* (n_texts + 1,), int64.

    Returns:
        Number of the first such text, its own if there is none before. *Shape:* (n_texts,), int64.
    """
    n_texts = len(offsets) - 1
    if not n_texts:
        return np.empty(0, np.int64)
    longest = int(np.diff(offsets).max())
    factors = np.random.default_rng(0).integers(0, 2**64, longest, np.uint64) | np.uint64(1)
    sums = np.empty(n_texts, np.uint64)
    for first in range(0, n_texts, _AT_A_TIME):
        bounds = np.asarray(offsets[first : first + _AT_A_TIME + 1])
        starts = bounds[:-1] - bounds[0]
        places = np.arange(bounds[-1] - bounds[0]) - np.repeat(starts, np.diff(bounds))
        numbers = tokens[bounds[0] : bounds[-1]].astype(np.uint64) + np.uint64(1)
        sums[first : first + len(starts)] = np.add.reduceat(numbers * factors[places], starts)
    _, firsts, inverse = np.unique(sums, return_index=True, return_inverse=True)
    numbers_of_first: NDArray[np.int64] = firsts[inverse.reshape(-1)]
    return numbers_of_first
