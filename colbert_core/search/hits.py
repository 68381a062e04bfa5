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
        coverages: how well each covers the words of the query; None where only vectors rank.
        sums: of relevance and weighted coverage, by which they are ranked; None likewise.
    """

    pids: list[int]
    scores: list[float]
    spans: list[tuple[int, int]]
    coverages: list[float] | None = None
    sums: list[float] | None = None

    def values(self, n_q: int) -> list[float]:
        """What thresholds and means are about: the sums, or else the relevance of each to a query of ``n_q`` vectors."""
        return [relevance_of(score, n_q) for score in self.scores] if self.sums is None else self.sums


def relevance_of(score: float, n_q: int) -> float:
    """Turn a MaxSim of ``n_q`` query vectors into a number from 0 to 1, which queries of any length share."""
    return min(max(score / n_q, 0.0), 1.0)


def to_hits(passages: Sequence[Passage], ranking: Ranked, n_q: int, min_relevance: float | None) -> list[Hit]:
    """Give ranked passages their ranks and relevances, down to ``min_relevance``.

    Args:
        passages: the passages of ``ranking.pids``.
        ranking: their scores and spans.
        n_q: number of query vectors that were scored.
        min_relevance: least relevance of a hit, or least sum where words rank as well; None for no threshold.
    """
    absent = [None] * len(passages)
    columns = (passages, ranking.scores, ranking.spans, ranking.coverages or absent, ranking.sums or absent)
    hits = [
        Hit(passage, score, relevance_of(score, n_q), rank, span, None, coverage, hybrid)
        for rank, (passage, score, span, coverage, hybrid) in enumerate(zip(*columns, strict=True), 1)
    ]
    return [hit for hit in hits if is_relevant(hit, min_relevance)]


def is_relevant(hit: Hit, min_relevance: float | None) -> bool:
    """Tell if a hit reaches a threshold; None is no threshold."""
    return min_relevance is None or hit.value >= min_relevance
