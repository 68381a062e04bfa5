"""Ranked passages, and the hits that users get of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from colbert_core.types import Hit, Passage

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Ranked:
    """The best passages, best first.

    Attributes:
        pids: their numbers inside the index.
        scores: MaxSim of the best window of each.
        spans: characters of that window, half-open.
    """

    pids: list[int]
    scores: list[float]
    spans: list[tuple[int, int]]


def relevance_of(score: float, n_q: int) -> float:
    """Turn a MaxSim of ``n_q`` query vectors into a number from 0 to 1, which queries of any length share."""
    return min(max(score / n_q, 0.0), 1.0)


def to_hits(passages: Sequence[Passage], ranking: Ranked, n_q: int, min_relevance: float | None) -> list[Hit]:
    """Give ranked passages their ranks and relevances, down to ``min_relevance``.

    Args:
        passages: the passages of ``ranking.pids``.
        ranking: their scores and spans.
        n_q: number of query vectors that were scored.
        min_relevance: least relevance of a hit, None for no threshold.
    """
    hits = [
        Hit(passage, score, relevance_of(score, n_q), rank, span)
        for rank, (passage, score, span) in enumerate(zip(passages, ranking.scores, ranking.spans, strict=True), 1)
    ]
    return hits if min_relevance is None else [hit for hit in hits if hit.relevance >= min_relevance]
