"""Rank by relevance and coverage together, or by coverage alone. Every coverage is known, so the best are proved to be so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.search.hits import Ranked, relevance_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    SortKeys = Callable[[list[int]], Sequence[Any]]
    Rank = Callable[[int, NDArray[np.int64] | None, bool], Ranked]

# Of so many passages beyond the head all MaxSims are computed at once; with more, a longer head is cheaper.
_MOST_BEYOND = 256
# The first head, in terms of k, and at least.
_HEAD, _SHORTEST_HEAD = 2, 32


def rank_hybrid(
    rank: Rank,
    n_q: int,
    k: int,
    *,
    weight: float,
    rows: NDArray[np.int64],
    coverage: NDArray[np.float64],
    pids: NDArray[np.int64] | None,
    sort_keys: SortKeys,
) -> Ranked:
    """Rank the ``k`` passages of the greatest ``relevance + weight * coverage``.

    The threshold algorithm of Fagin, Lotem and Naor (PODS 2001, section 4) over two rankings, one of which is known whole: no
    passage outside the head by MaxSim is more relevant than the last of it, so those whose coverage could lift them from there
    to the best ``k`` are scored as well. Where too many could, a longer head lowers the bar.

    Args:
        rank: finds the best ``k`` passages by MaxSim among some pids or all; exactly, or as usual.
        n_q: number of query vectors.
        k: most passages.
        weight: of the coverage, from 0 to 1.
        rows: pids of all passages with words, *Shape:* (n,), ascending.
        coverage: of each of them, *Shape:* (n,), from 0 to 1.
        pids: *Shape:* (m,), ascending; only these passages. None for all.
        sort_keys: gives a sort key for each pid of a list, to order equal sums.
    """
    covered = np.flatnonzero(coverage > 0)
    if pids is not None:
        covered = covered[np.isin(rows[covered], pids, assume_unique=True)]
    depth = max(_HEAD * k, _SHORTEST_HEAD)
    while True:
        head = rank(depth, pids, False)
        values = _sums(head, n_q, weight, rows, coverage)
        is_all = len(head.pids) < depth
        last = relevance_of(head.scores[-1], n_q) if head.scores else 0.0
        bar = sorted(values, reverse=True)[k - 1] if len(values) >= k else -1.0
        beyond = covered[last + weight * coverage[covered] >= bar]
        beyond = beyond[~np.isin(rows[beyond], head.pids)]
        if is_all or (last < bar and len(beyond) <= _MOST_BEYOND):
            break
        depth *= 4
    pids_, scores, spans = [*head.pids], [*head.scores], [*head.spans]
    if len(beyond) and not is_all:
        more = rank(len(beyond), rows[beyond], True)
        pids_, scores, spans = pids_ + more.pids, scores + more.scores, spans + more.spans
        values += _sums(more, n_q, weight, rows, coverage)
    order = _best(pids_, values, k, sort_keys)
    found = _coverages([pids_[place] for place in order], rows, coverage)
    return Ranked(
        [pids_[place] for place in order],
        [scores[place] for place in order],
        [spans[place] for place in order],
        found,
        [values[place] for place in order],
    )


def rank_by_coverage(
    k: int,
    *,
    rows: NDArray[np.int64],
    coverage: NDArray[np.float64],
    pids: NDArray[np.int64] | None,
    sort_keys: SortKeys,
) -> tuple[list[int], list[float]]:
    """Rank the ``k`` passages of the greatest coverage, of those that have a word of the query; the arguments are as above.

    Returns:
        Their pids and coverages.
    """
    places = np.flatnonzero(coverage > 0)
    if pids is not None:
        places = places[np.isin(rows[places], pids, assume_unique=True)]
    values = coverage[places]
    if k < len(places):
        top = values >= np.partition(values, len(values) - k)[len(values) - k]  # with all that tie with the last
        places, values = places[top], values[top]
    found, listed = rows[places].tolist(), values.tolist()
    order = _best(found, listed, k, sort_keys)
    return [found[place] for place in order], [listed[place] for place in order]


def _best(pids: list[int], values: list[float], k: int, sort_keys: SortKeys) -> list[int]:
    keys = sort_keys(pids) if len(set(values)) < len(values) else pids
    return sorted(range(len(pids)), key=lambda place: (-values[place], keys[place]))[:k]


def _sums(ranking: Ranked, n_q: int, weight: float, rows: NDArray[np.int64], coverage: NDArray[np.float64]) -> list[float]:
    covered = _coverages(ranking.pids, rows, coverage)
    return [relevance_of(score, n_q) + weight * share for score, share in zip(ranking.scores, covered, strict=True)]


def _coverages(pids: list[int], rows: NDArray[np.int64], coverage: NDArray[np.float64]) -> list[float]:
    """The coverage of each passage, 0 of one without words."""
    if not len(rows):
        return [0.0] * len(pids)
    wanted = np.array(pids, np.int64)
    places = np.minimum(np.searchsorted(rows, wanted), len(rows) - 1)
    return np.where(rows[places] == wanted, coverage[places], 0.0).tolist()  # type: ignore[no-any-return]
