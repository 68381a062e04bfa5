"""Hits that differ from each other, by maximal marginal relevance."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


def diversified(relevances: Sequence[float], windows: Sequence[NDArray[np.float32]], k: int, weight: float) -> list[int]:
    """Which passages to take, by maximal marginal relevance, in the order they are taken.

    Carbonell and Goldstein (SIGIR 1998), equation 1, with the mean of MaxSim per vector, both ways, as likeness.

    Args:
        relevances: of each passage, from 0 to 1, the greatest first.
        windows: the vectors of its best window.
        k: how many to take at most.
        weight: of relevance, from 0 to 1; the rest is that of being unlike.
    """
    left, taken = list(range(len(relevances))), list[int]()
    likeness = dict.fromkeys(left, -1.0)  # to the most similar one taken; before that, no difference
    while left and len(taken) < k:
        best = max(left, key=lambda place: weight * relevances[place] - (1 - weight) * likeness[place])
        left.remove(best)
        taken.append(best)
        for place in left:
            likeness[place] = max(likeness[place], _likeness(windows[place], windows[best]))
    return taken


def _likeness(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    cosines = one @ other.T
    return float(cosines.max(axis=1).mean() + cosines.max(axis=0).mean()) / 2
