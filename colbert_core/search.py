"""Find the best passages for one query matrix in one snapshot. Functions only: nothing is remembered between searches."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from colbert_core.maxsim import maxsim
from colbert_core.types import Hit, Passage, TokenEmbeddings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from numpy.typing import NDArray


# What float32 may lose of one cosine of a few hundred terms; scores closer than this per query vector may change places.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What an index held at one moment. It never changes, so a search needs no lock.

    Attributes:
        passages: by row; may grow behind the rows of this snapshot.
        live: *Shape:* (n_rows,), bool, False where the passage was deleted or replaced.
        embeddings: the windows of all rows, live or not; ``owners`` are rows, each with at least one window.
    """

    passages: list[Passage]
    live: NDArray[np.bool_]
    embeddings: TokenEmbeddings


def search_exact(snapshot: Snapshot, query: NDArray[np.float32], k: int, min_relevance: float | None) -> list[Hit]:
    """Score every window and return the ``k`` best live passages, equal scores by id.

    Args:
        snapshot: what to search.
        query: *Shape:* (n_q, dim), float32, unit rows.
        k: most hits, at least 1; fewer only where there are fewer live passages or ``min_relevance`` drops some.
        min_relevance: least relevance of a hit, None for no threshold.
    """
    passages = snapshot.passages
    best = ranked(query, snapshot.embeddings, np.flatnonzero(snapshot.live), k, tie=lambda row: passages[row].id)
    return to_hits([passages[row] for row in best.rows], best, len(query), min_relevance)


@dataclass(frozen=True, slots=True)
class Ranked:
    """The best rows of a collection, best first.

    Attributes:
        rows: which ones.
        scores: MaxSim of their best windows.
        spans: characters of those windows, half-open.
    """

    rows: list[int]
    scores: list[float]
    spans: list[tuple[int, int]]


def ranked(
    query: NDArray[np.float32], embeddings: TokenEmbeddings, rows: NDArray[np.intp], k: int, *, tie: Callable[[int], Any]
) -> Ranked:
    """The ``k`` of the given rows whose best window scores highest; rows of equal score in the order of ``tie(row)``.

    The matrix product over many windows rounds equal windows differently in their last bits, so it only chooses
    candidates; each of those is scored again by itself, in double precision, and equal passages tie.

    Args:
        query: *Shape:* (n_q, dim), float32, unit rows.
        embeddings: windows, whose ``owners`` are the rows.
        rows: *Shape:* (m,), the rows to choose from.
        k: most rows, at least 1.
        tie: sort key among equals.
    """
    rough, windows = best_windows(maxsim(query, embeddings.vectors, embeddings.doclens), embeddings.owners)
    if k < len(rows):
        kth_best = np.partition(rough[rows], len(rows) - k)[len(rows) - k]
        rows = rows[rough[rows] >= kth_best - _ROUNDING * len(query)]
    ends = np.cumsum(embeddings.doclens)
    double = query.astype(np.float64)

    def score(row: int) -> float:
        window = windows[row]
        doclen = embeddings.doclens[window : window + 1]
        vectors = embeddings.vectors[ends[window] - doclen[0] : ends[window]].astype(np.float64)
        return float(maxsim(double, vectors, doclen)[0])

    scores = {row: score(row) for row in rows.tolist()}
    best = sorted(scores, key=lambda row: (-scores[row], tie(row)))[:k]
    spans = embeddings.window_spans[windows[best]].tolist()
    return Ranked(best, [scores[row] for row in best], [(start, end) for start, end in spans])


def best_windows(scores: NDArray[np.float32], owners: NDArray[np.int32]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """The score of each owner's best window, and which window that is (the first of equals).

    Args:
        scores: *Shape:* (n_windows,), float32.
        owners: *Shape:* (n_windows,), int32, ascending, every number from 0 to the last at least once.

    Returns:
        *Shape:* (n_owners,) each, float32 and intp.
    """
    # Sorted by owner, then by falling score; the sort is stable, so of equal windows the first comes first.
    order = np.lexsort((-scores, owners))
    firsts = np.flatnonzero(np.diff(owners, prepend=-1))  # (n_owners,)
    windows = order[firsts]
    return scores[windows], windows


def to_hits(passages: Sequence[Passage], best: Ranked, n_q: int, min_relevance: float | None) -> list[Hit]:
    """Give ranked passages their ranks and relevances, down to ``min_relevance``.

    Args:
        passages: those of ``best.rows``.
        best: their scores and spans.
        n_q: query vectors that were scored.
        min_relevance: least relevance of a hit, None for no threshold.
    """
    hits = [
        Hit(passage, score, min(max(score / n_q, 0.0), 1.0), rank, span)
        for rank, (passage, score, span) in enumerate(zip(passages, best.scores, best.spans, strict=True), 1)
    ]
    return hits if min_relevance is None else [hit for hit in hits if hit.relevance >= min_relevance]


def check_passages(items: Iterable[object]) -> list[Passage]:
    """Return the items as a list if all are passages.

    Raises:
        TypeError: one is not.
    """
    checked: list[Passage] = []
    for position, item in enumerate(items):
        if not isinstance(item, Passage):
            raise TypeError(f"Item {position} is a {type(item).__name__}, not a Passage; write Passage(id, text).")
        checked.append(item)
    return checked


def check_count(value: object, name: str) -> int:
    """Return a number of results that makes sense.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is below 1.
    """
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be a whole number of passages, got {value!r}.") from None
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}.")
    return count


def check_relevance(value: float | None, name: str) -> float | None:
    """Return a relevance threshold that makes sense.

    Raises:
        ValueError: it is not from 0 to 1.
    """
    if value is not None and (isinstance(value, str) or not 0 <= value <= 1):
        raise ValueError(f"{name} is a relevance from 0 to 1, got {value!r}; raw MaxSim scores are not thresholds.")
    return value
