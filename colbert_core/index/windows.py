"""Vectors and evidence of windows that a search has found, for whoever merges the hits of several parts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from colbert_core.search.explain import evidence_of
from colbert_core.storage.changes import StaleRead
from colbert_core.types import Passage
from colbert_core.vectors.segment import merged_segment
from colbert_core.vectors.snapshot import vectors_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from colbert_core.evidence.evidence import Evidence
    from colbert_core.index.view import View
    from colbert_core.vectors.background import Background
    from colbert_core.vectors.segment import Segment


@dataclass(frozen=True)
class Window:
    """A window as it was when a search found it.

    Attributes:
        passage_id: of which passage.
        text: of the passage, which has changed since if it is another one.
        span: characters of the window, half-open.
        token_spans: characters of each of its tokens, *Shape:* (n, 2), int32; None where they are not asked for.
    """

    passage_id: str
    text: str
    span: tuple[int, int]
    token_spans: NDArray[np.int32] | None = None


@dataclass(frozen=True)
class Question:
    """A query, and the windows that are to be compared with it.

    Attributes:
        query: its words.
        vectors: *Shape:* (n_q, dim), float32, unit rows.
        spans: characters of each of its vectors, *Shape:* (n_q, 2), int32.
        windows: with their ``token_spans``.
    """

    query: str
    vectors: NDArray[np.float32]
    spans: NDArray[np.int32]
    windows: list[Window]


def window_vectors(view: View, windows: Sequence[Window]) -> list[NDArray[np.float32] | None]:
    """The vectors of windows. *Shape:* (n, dim) each, float32; None for one that has changed since it was found."""
    with view.reader.moment():  # in memory a writer could come between the reads
        snapshot, rows = view.state.snapshot, view.reader.rows_of([window.passage_id for window in windows])
        texts = {passage.id: passage.text for passage in view.reader.passages(list(rows.values()))}
    found: list[NDArray[np.float32] | None] = []
    for window in windows:
        try:
            is_same = texts.get(window.passage_id) == window.text
            found.append(vectors_of(snapshot, rows[window.passage_id], window.span) if is_same else None)
        except KeyError:  # the same text was added again, in other windows
            found.append(None)
    return found


def unchanged(vectors: Sequence[NDArray[np.float32] | None]) -> list[NDArray[np.float32]]:
    """Return the vectors of windows.

    Raises:
        StaleRead: a window has changed since it was found.
    """
    if any(each is None for each in vectors):
        raise StaleRead("windows")
    return [each for each in vectors if each is not None]


def evidence_of_windows(
    questions: Sequence[Question],
    vectors: Sequence[NDArray[np.float32]],
    min_similarity: float | None,
    background: Background | None,
) -> list[list[Evidence | None]]:
    """Match the words of queries with those of windows, by vectors that an index keeps.

    Args:
        questions: each with its windows.
        vectors: of all windows of all questions, *Shape:* (n, dim) each, float32.
        min_similarity: cosine from which a match counts as found; None leaves that to the lifts.
        background: the vectors of the whole collection; None where there is none.

    Returns:
        For each window of each question its evidence; None where the vectors are not one for each token, as pooled ones.
    """
    left = iter(vectors)
    return [
        [_evidence(question, window, next(left), min_similarity, background) for window in question.windows]
        for question in questions
    ]


def _evidence(
    question: Question,
    window: Window,
    vectors: NDArray[np.float32],
    min_similarity: float | None,
    background: Background | None,
) -> Evidence | None:
    spans = window.token_spans
    if spans is None or len(spans) != len(vectors):
        return None
    passage = Passage(window.passage_id, window.text)
    return evidence_of(
        question.query, question.vectors, question.spans, passage, window.span, vectors, spans, min_similarity, background
    )


def take_files(view: View, names: Sequence[str]) -> tuple[list[str], list[Passage], Segment | None]:
    """The passages of some files: the name of the file of each, the passages, and their windows with pids that count from 0."""
    with view.reader.moment():
        snapshot, rows = view.state.snapshot, view.reader.sources.rows_of(names)
        owners, passages = view.reader.sources.owners(rows), view.reader.passages(rows)
    pids = np.array(rows, np.int64)
    chosen = [(part.segment, part.live & part.segment.find(pids)) for part in snapshot.parts]
    chosen = [(segment, kept) for segment, kept in chosen if kept.any()]
    if snapshot.codec is not None:
        chosen = [(segment.with_shifts(snapshot.codec), kept) for segment, kept in chosen]
    segment = merged_segment(chosen) if chosen else None
    numbered = segment and replace(segment, pids=np.searchsorted(pids, segment.pids).astype(np.int64))
    return [owners[row] for row in rows], passages, numbered
