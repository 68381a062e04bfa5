"""The passages that match several queries best on average."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

from colbert_core.search.hits import Ranked, relevance_of


def averaged(
    ranked: Callable[[NDArray[np.float32], int, NDArray[np.int64] | None], Ranked],
    queries: Sequence[NDArray[np.float32]],
    k: int,
    rows: NDArray[np.int64] | None,
    tie: Callable[[list[int]], Sequence[Any]],
) -> tuple[Ranked, list[float]]:
    """The ``k`` passages of the highest mean relevance to several queries, with mean scores, and these relevances.

    Args:
        ranked: finds the best ``k`` passages for a query, of some rows or of all.
        queries: *Shape:* (n_q, dim) each; n_q may differ.
        k: most passages.
        rows: *Shape:* (n,), ascending; only these passages. None for all.
        tie: sort keys among equals, for a list of rows.
    """
    depth = max(4 * k, 64)
    while True:
        heads = [ranked(query, depth, rows) for query in queries]
        found = sorted({row for head in heads for row in head.rows})
        if not found:
            return Ranked([], [], []), []
        whole = [ranked(query, len(found), np.array(found, np.int64)) for query in queries]
        matches: dict[int, list[tuple[float, float, tuple[int, int]]]] = {row: [] for row in found}
        for query, head in zip(queries, whole, strict=True):
            for row, score, span in zip(head.rows, head.scores, head.spans, strict=True):
                matches[row].append((relevance_of(score, len(query)), score, span))
        means = {row: sum(relevance for relevance, _, _ in some) / len(some) for row, some in matches.items()}
        keys = dict(zip(found, tie(found), strict=True))
        order = sorted(found, key=lambda row: (-means[row], keys[row]))[:k]
        # A passage that was not found is at most as good for each query as the last of its head.
        bar = sum(relevance_of(head.scores[-1], len(query)) for query, head in zip(queries, heads, strict=True)) / len(queries)
        if len(heads[0].rows) < depth or means[order[-1]] > bar:
            scores = [sum(score for _, score, _ in matches[row]) / len(queries) for row in order]
            spans = [max(matches[row], key=lambda match: match[0])[2] for row in order]
            return Ranked(order, scores, spans), [means[row] for row in order]
        depth *= 2
