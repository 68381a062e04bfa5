"""How commands print hits and figures: as lines for people, as values of JSON for programs."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from colbert_core.evidence.evidence import Evidence
    from colbert_core.index.reports import IndexStats
    from colbert_core.types import Hit

# Characters of a passage in a line.
_LONGEST = 140


def hit_as_line(hit: Hit) -> str:
    """Show rank, score, relevance, id and the matched window of a hit, or its evidence where it has some."""
    if hit.evidence is not None:
        shown = hit.evidence.to_terminal(color=has_colors())
    else:
        text = printable(" ".join(hit.text.split()))
        shown = f"{text[:_LONGEST]}{'…' if len(text) > _LONGEST else ''}"
    return f"{hit.rank:>4}. {hit.score:6.2f}  {hit.relevance:.3f}  [{printable(hit.passage.id)}] {shown}"


def hit_as_json(hit: Hit) -> dict[str, Any]:
    """Return a hit as values that JSON can hold."""
    return {
        "rank": hit.rank,
        "id": hit.passage.id,
        "score": hit.score,
        "relevance": hit.relevance,
        "span": hit.span,
        "text": hit.passage.text,
        "metadata": hit.passage.metadata,
        **({} if hit.evidence is None else {"evidence": hit.evidence.to_dict()}),
    }


def evidence_as_lines(evidence: Evidence, number: int) -> str:
    """Show a passage with the words that match the query, and which words of the query it lacks."""
    missing = f"  not found: {printable(', '.join(evidence.unmatched))}" if evidence.unmatched else ""
    return (
        f"{number:>4}. {evidence.score:6.2f}  {evidence.relevance:.3f}  [{printable(evidence.passage_id)}]{missing}\n"
        f"      {evidence.to_terminal(color=has_colors())}"
    )


def stats_as_sentence(stats: IndexStats) -> str:
    """Tell the size of an index in a sentence."""
    return f"The index has {stats.passages} passages of {stats.tokens} tokens, {stats.bytes_per_token:.1f} bytes each."


def stats_as_json(stats: IndexStats) -> dict[str, Any]:
    """Return the figures of an index as values that JSON can hold."""
    return {**asdict(stats), "bytes_per_token": round(stats.bytes_per_token, 2)}


def has_colors() -> bool:
    """Tell whether standard output shows colours; https://no-color.org turns them off."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def printable(text: str) -> str:
    """Replace by blanks what would move a terminal's cursor or forge another line."""
    return "".join(character if character.isprintable() else " " for character in text)


def keep_silent(*_: object) -> None:
    """Print nothing: takes the place of ``print`` when a program reads the output."""
