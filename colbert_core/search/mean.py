"""The passages that match several queries best on average."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from colbert_core.search.hits import Ranked, relevance_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


def rank_by_mean(
    rank: Callable[[int, int, NDArray[np.int64] | None], Ranked],
    lengths: Sequence[int],
    k: int,
    pids: NDArray[np.int64] | None,
    sort_keys: Callable[[list[int]], Sequence[Any]],
) -> tuple[Ranked, list[float]]:
    """Rank the ``k`` passages of the highest mean relevance to several queries.

    The threshold algorithm of Fagin, Lotem and Naor (PODS 2001, section 4): look at the best of each query, and at twice as
    many each time, until no other passage can have a higher mean.

    Args:
        rank: finds the best ``k`` passages for the query of a number, among some pids or all; where words alone rank, only
            those that have one.
        lengths: number of vectors of each query.
        k: most passages.
        pids: *Shape:* (n,), ascending; only these passages. None for all.
        sort_keys: gives a sort key for each pid of a list, to order equal means.

    Returns:
        The ranking, by mean scores, coverages and sums, and the mean relevance of each passage.
    """
    depth = max(4 * k, 64)
    while True:
        heads = [rank(number, depth, pids) for number in range(len(lengths))]
        seen = sorted({pid for head in heads for pid in head.pids})
        if not seen:
            return Ranked([], [], []), []
        matches: dict[int, list[_Match]] = {pid: [] for pid in seen}
        for number, n_q in enumerate(lengths):
            ranking = rank(number, len(seen), np.array(seen, np.int64))
            coverages = ranking.coverages or [0.0] * len(ranking.pids)
            columns = zip(ranking.pids, ranking.values(n_q), ranking.scores, ranking.spans, coverages, strict=True)
            for pid, value, score, span, coverage in columns:
                matches[pid].append(_Match(value, relevance_of(score, n_q), score, coverage, span))
        n = len(lengths)
        means = {pid: sum(match.value for match in found) / n for pid, found in matches.items()}
        keys = dict(zip(seen, sort_keys(seen), strict=True))
        order = sorted(seen, key=lambda pid: (-means[pid], keys[pid]))[:k]
        # A passage that was not seen is at most as good for each query as the last of its head.
        is_left = [len(head.pids) == depth for head in heads]
        lasts = [head.values(n_q)[-1] if left else 0.0 for head, n_q, left in zip(heads, lengths, is_left, strict=True)]
        if not any(is_left) or (len(order) == k and means[order[-1]] > sum(lasts) / n):
            break
        depth *= 2
    of_words = heads[0].sums is not None
    ranked = Ranked(
        order,
        [sum(match.score for match in matches[pid]) / n for pid in order],
        [max(matches[pid], key=lambda match: match.value).span for pid in order],
        [sum(match.coverage for match in matches[pid]) / n for pid in order] if of_words else None,
        [means[pid] for pid in order] if of_words else None,
    )
    return ranked, [sum(match.relevance for match in matches[pid]) / n for pid in order]


class _Match(NamedTuple):
    """How well a passage matches one of the queries."""

    value: float
    relevance: float
    score: float
    coverage: float
    span: tuple[int, int]
