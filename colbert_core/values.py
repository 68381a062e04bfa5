"""Passages, hits and figures as JSON holds them: what the command line prints and what the service answers."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from colbert_core.index.reports import IndexStats
    from colbert_core.types import Hit, Passage


def hit_as_json(hit: Hit, *, full: bool = False) -> dict[str, Any]:
    """Return a hit as values that JSON can hold.

    Args:
        hit: what was found.
        full: with all that its evidence knows, from which ``Evidence.from_dict`` makes it again.
    """
    return {
        "rank": hit.rank,
        "id": hit.passage.id,
        "score": hit.score,
        "relevance": hit.relevance,
        **({} if hit.coverage is None else {"coverage": hit.coverage, "hybrid_relevance": hit.hybrid_relevance}),
        "span": hit.span,
        "text": hit.passage.text,
        "metadata": hit.passage.metadata,
        **({} if hit.evidence is None else {"evidence": hit.evidence.to_dict(full=full)}),
    }


def passage_as_json(passage: Passage) -> dict[str, Any]:
    """Return a passage as values that JSON can hold."""
    return {"id": passage.id, "text": passage.text, "metadata": passage.metadata}


def stats_as_json(stats: IndexStats) -> dict[str, Any]:
    """Return the figures of an index as values that JSON can hold."""
    return {**asdict(stats), "bytes_per_token": round(stats.bytes_per_token, 2)}
