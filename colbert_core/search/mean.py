"""The passages that match several queries best on average."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.search.hits import Ranked, relevance_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


def rank_by_mean(
    rank: Callable[[NDArray[np.float32], int, NDArray[np.int64] | None], Ranked],
    queries: Sequence[NDArray[np.float32]],
    k: int,
    pids: NDArray[np.int64] | None,
    sort_keys: Callable[[list[int]], Sequence[Any]],
) -> tuple[Ranked, list[float]]:
    """Rank the ``k`` passages of the highest mean relevance to several queries.

    The threshold algorithm of Fagin, Lotem and Naor (PODS 2001, section 4): look at the best of each query, and at twice as
    many each time, until no other passage can have a higher mean.

    Args:
        rank: finds the best ``k`` passages for a query, among some pids or all.
        queries: *Shape:* (n_q, dim) each; n_q may differ.
        k: most passages.
        pids: *Shape:* (n,), ascending; only these passages. None for all.
        sort_keys: gives a sort key for each pid of a list, to order equal means.

    Returns:
        The ranking, by mean scores, and the mean relevance of each passage.
    """
    depth = max(4 * k, 64)
    while True:
        heads = [rank(query, depth, pids) for query in queries]
        seen = sorted({pid for head in heads for pid in head.pids})
        if not seen:
            return Ranked([], [], []), []
        matches: dict[int, list[tuple[float, float, tuple[int, int]]]] = {pid: [] for pid in seen}
        for query in queries:
            ranking = rank(query, len(seen), np.array(seen, np.int64))
            for pid, score, span in zip(ranking.pids, ranking.scores, ranking.spans, strict=True):
                matches[pid].append((relevance_of(score, len(query)), score, span))
        means = {pid: sum(relevance for relevance, _, _ in found) / len(found) for pid, found in matches.items()}
        keys = dict(zip(seen, sort_keys(seen), strict=True))
        order = sorted(seen, key=lambda pid: (-means[pid], keys[pid]))[:k]
        # A passage that was not seen is at most as good for each query as the last of its head.
        bar = sum(relevance_of(head.scores[-1], len(query)) for query, head in zip(queries, heads, strict=True)) / len(queries)
        if len(heads[0].pids) < depth or means[order[-1]] > bar:
            scores = [sum(score for _, score, _ in matches[pid]) / len(queries) for pid in order]
            spans = [max(matches[pid], key=lambda match: match[0])[2] for pid in order]
            return Ranked(order, scores, spans), [means[pid] for pid in order]
        depth *= 2
