"""Hits that differ from each other, by maximal marginal relevance."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


def diversify(relevances: Sequence[float], windows: Sequence[NDArray[np.float32]], k: int, weight: float) -> list[int]:
    """Choose passages by maximal marginal relevance; their places, in the order in which they are chosen.

    Carbonell and Goldstein (SIGIR 1998), equation 1, with the mean of MaxSim per vector, both ways, as likeness.

    Args:
        relevances: of each passage, from 0 to 1, the greatest first.
        windows: vectors of the best window of each passage, *Shape:* (n, dim), float32, unit rows.
        k: most passages to choose.
        weight: of relevance, from 0 to 1; the rest is the weight of being unlike what is chosen already.
    """
    left, chosen = list(range(len(relevances))), list[int]()
    likeness = dict.fromkeys(left, -1.0)  # to the most similar one that is chosen; before that, no difference
    while left and len(chosen) < k:
        best = max(left, key=lambda place: weight * relevances[place] - (1 - weight) * likeness[place])
        left.remove(best)
        chosen.append(best)
        for place in left:
            likeness[place] = max(likeness[place], _likeness(windows[place], windows[best]))
    return chosen


def _likeness(window: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    cosines = window @ other.T  # (n, n_other)
    return float(cosines.max(axis=1).mean() + cosines.max(axis=0).mean()) / 2
