"""Find the best passages for one query matrix in one snapshot. Functions only: nothing is remembered between searches.

PLAID (Santhanam et al., CIKM 2022): query vectors probe their nearest centroids, inverted lists give candidate windows,
centroids alone rank these roughly, and the best are scored exactly over their decompressed vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from colbert_core.vectors.segment import Segment
    from colbert_core.vectors.snapshot import Part, Snapshot
from colbert_core.search.config import SearchConfig, default_config
from colbert_core.search.hits import Ranked
from colbert_core.search.plain_scorer import PlainScorer

# Uncompressed collections of fewer tokens are scored by NumPy: it takes 2 ms at most, and nothing has to be compiled.
_SMALL = 2**13
# From so many tokens on, vectors are scored as bytes before the best are scored as they are; 5 times as fast.
_WORTH_BYTES = 2**16


class Scorer(Protocol):
    """Scores windows against one query. ``margin`` is what ``roughly`` may be wrong by."""

    margin: float

    def roughly(self, number: int, windows: NDArray[np.int32]) -> NDArray[np.float32]:
        """Scores of some windows of segment ``number``. *Shape:* (n,), float32."""
        ...

    def exactly(self, number: int, windows: NDArray[np.int32]) -> NDArray[np.floating[Any]]:
        """The same, and equal windows have equal scores whatever is scored beside them."""
        ...


def search(
    snapshot: Snapshot,
    query: NDArray[np.float32],
    k: int,
    *,
    tie: Callable[[list[int]], Sequence[Any]],
    rows: NDArray[np.int64] | None = None,
    config: SearchConfig | None = None,
    exact: bool = False,
    device: str | None = None,
) -> Ranked:
    """The ``k`` live passages whose best window scores highest; there are fewer only where there are fewer.

    Args:
        snapshot: what to search.
        query: *Shape:* (n_q, dim), float32, unit rows.
        k: most passages, at least 1.
        tie: sort keys among equals, for a list of rows.
        rows: *Shape:* (n,), ascending; only these passages. None for all.
        config: how much to look at; None chooses by k and the size of the collection.
        exact: score every passage.
        device: of PyTorch, such as "cuda", which then scores every passage and needs no config; None for the CPU.

    Raises:
        IndexError: a file is damaged, so that a code or a list leads nowhere.
    """
    if not isinstance(config, SearchConfig | None):
        raise TypeError(f"config must be a SearchConfig, got {type(config).__name__}: {config!r:.80}")
    parts, codec = snapshot.parts, snapshot.codec
    segments = [part.segment for part in parts]
    n_tokens = sum(segment.n_tokens for segment in segments)
    if device is not None:
        from colbert_core.search.torch_scorer import TorchScorer  # here, because it imports torch

        return _rank(parts, TorchScorer(segments, codec, query, device), _all_windows(parts, rows), k, tie)
    if codec is None and n_tokens < _SMALL:
        return _rank(parts, PlainScorer(segments, query), _all_windows(parts, rows), k, tie)
    from colbert_core.search.kernel_scorer import KernelScorer  # here, because a small index needs no kernels

    scorer = KernelScorer(segments, codec, query)
    if exact or codec is None:
        roughly = not exact and n_tokens >= _WORTH_BYTES
        return _rank(parts, scorer, _all_windows(parts, rows), k, tie, roughly=roughly)
    config = config or default_config(k, sum(len(segment.rows) for segment in segments), len(query))
    n_exact = max(config.n_exact, k)
    n_found = sum(part.n_passages for part in parts) if rows is None else len(rows)
    if n_found <= n_exact:
        return _rank(parts, scorer, _all_windows(parts, rows), k, tie)
    allowed = [part.live if rows is None else part.live & part.segment.find(rows) for part in parts]
    reaching = None
    if rows is not None:
        lists = [_lists(segment).reaching(some) for segment, some in zip(segments, allowed, strict=True)]
        reaching = np.concatenate(lists).astype(np.intp)
    windows = scorer.shortlist(allowed, config.nprobe, config.n_candidates, n_exact, k, reaching)
    return _rank(parts, scorer, windows, k, tie)


def _all_windows(parts: Sequence[Part], rows: NDArray[np.int64] | None) -> list[NDArray[np.int32]]:
    """The windows that count, of these passages or all."""
    if rows is None:
        return [np.flatnonzero(part.live).astype(np.int32) for part in parts]
    return [_windows_of(part.segment, rows, part.live) for part in parts]


def _windows_of(segment: Segment, rows: NDArray[np.int64], live: NDArray[np.bool_]) -> NDArray[np.int32]:
    windows = segment.windows_of(rows)
    return windows[live[windows]].astype(np.int32)


def _rows_of(segments: Sequence[Segment], windows: Sequence[NDArray[np.int32]]) -> list[NDArray[np.int64]]:
    return [segment.rows[some] for segment, some in zip(segments, windows, strict=True)]


def _firsts(rows: NDArray[np.int64]) -> NDArray[np.intp]:
    """Where each passage begins in an ascending row of windows."""
    return np.flatnonzero(np.concatenate([rows[:1] >= 0, rows[1:] != rows[:-1]]))


def _greatest(scores: NDArray[Any], firsts: NDArray[np.intp]) -> NDArray[Any]:
    return np.maximum.reduceat(scores, firsts) if len(firsts) else scores


def _lists(segment: Segment) -> Any:
    assert segment.lists is not None
    return segment.lists


def _rank(
    parts: Sequence[Part],
    scorer: Scorer,
    windows: list[NDArray[np.int32]],
    k: int,
    tie: Callable[[list[int]], Sequence[Any]],
    *,
    roughly: bool = True,
) -> Ranked:
    """Keep the best ``k`` passages of these windows, chosen by rough scores if wanted, ordered by exact ones."""
    if not any(map(len, windows)):
        return Ranked([], [], [])
    segments = [part.segment for part in parts]
    if roughly:
        rough = [scorer.roughly(number, some) for number, some in enumerate(windows)]
        heights = np.concatenate(
            [_greatest(some, _firsts(rows)) for some, rows in zip(rough, _rows_of(segments, windows), strict=True)]
        )
        if k < len(heights):
            bar = np.partition(heights, len(heights) - k)[len(heights) - k] - scorer.margin
            windows = [some[scores >= bar] for some, scores in zip(windows, rough, strict=True)]
    exact = [scorer.exactly(number, some) for number, some in enumerate(windows)]
    found = [
        best_windows(scores, rows) for scores, rows in zip(exact, _rows_of(segments, windows), strict=True)
    ]  # of each part: rows, scores, places
    rows = np.concatenate([rows for rows, _, _ in found])
    scores = np.concatenate([scores for _, scores, _ in found])
    spans = np.concatenate(
        [segment.spans[some[places]] for segment, some, (_, _, places) in zip(segments, windows, found, strict=True)]
    )
    if k < len(rows):
        near = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
        rows, scores, spans = rows[near], scores[near], spans[near]
    heights = scores.tolist()
    keys = tie(rows.tolist()) if len(set(heights)) < len(heights) else rows.tolist()
    order = sorted(range(len(rows)), key=lambda place: (-heights[place], keys[place]))[:k]
    return Ranked(
        [int(rows[place]) for place in order],
        [heights[place] for place in order],
        [(int(spans[place][0]), int(spans[place][1])) for place in order],
    )


def best_windows(
    scores: NDArray[np.floating[Any]], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]], NDArray[np.intp]]:
    """The score of each passage's best window, and which window that is (the first of equals).

    Args:
        scores: *Shape:* (n_windows,), float32.
        rows: *Shape:* (n_windows,), ascending, each window's passage.

    Returns:
        *Shape:* (n_passages,) each: the rows, the scores, and the places of the windows in ``scores``.
    """
    if len(rows) < 2 or bool((rows[1:] > rows[:-1]).all()):
        return rows, scores, np.arange(len(rows))
    # Sorted by row, then by falling score; the sort is stable, so of equal windows the first comes first.
    order = np.lexsort((-scores, rows))
    places = order[_firsts(rows)]
    return rows[places], scores[places], places
