"""Scores of one query against the segments of a snapshot: which windows may be good, how good roughly, and how good exactly.

PLAID (Santhanam et al., CIKM 2022): query vectors probe their nearest centroids, inverted lists give candidate windows, and
centroids alone rank these roughly. What is left is scored over residuals as bytes, and the best of that in float32.
"""

from __future__ import annotations

import math
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core import kernels
from colbert_core.kernels import QueryBlocks, float_blocks, plain, scoring, scratch
from colbert_core.threads import spread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from colbert_core.vectors.codec import ResidualCodec
    from colbert_core.vectors.segment import Segment

# What rounding a query and a window's vectors to bytes may change in a cosine: four times the standard deviation that was
# measured, .0027. Errors of different query vectors partly cancel out, those of equal ones add up.
_BYTE_ERROR = 0.011
# Of windows that tie by their centroids, at most so many times as many as were asked for are scored further.
_MOST_TIED = 4
# Up to here the nearest are kept in order as they come; what comes later is rarely among them.
_FEW_CELLS = 64
# Sums of cosines are made for so many windows at a time, in 128 kB, which stay in the second-level cache. Over a million
# windows, 2**18 at a time take 1.2 times as long.
_RANGE = 2**15
# Sums are counted by their value in so many classes, to leave out early what cannot be among the highest.
_CLASSES = 2**13
# Windows that a thread scores at a time.
_WINDOWS_AT_A_TIME = 2**12


class KernelScorer:
    """Scores with the compiled kernels.

    Attributes:
        margin: how much ``roughly`` may be wrong by.
    """

    def __init__(self, segments: Sequence[Segment], codec: ResidualCodec | None, query: NDArray[np.float32]) -> None:
        self._segments = segments
        self._codec = codec
        self._query = plain(query)
        self._isa = kernels.instruction_set()
        # Where nothing else is approximate, errors that add up are provided for; for queries of ColBERT models that is three
        # times as much.
        together = 0.0 if codec is not None else float(np.linalg.norm(query.sum(axis=0)))
        self.margin = _BYTE_ERROR * max(math.sqrt(len(query)), together)

    @cached_property
    def _blocks(self) -> QueryBlocks:
        return QueryBlocks.of(self._query, -(-self._query.shape[1] // 16) * 16)

    @cached_property
    def _floats(self) -> NDArray[np.float32]:
        return float_blocks(self._query)

    @cached_property
    def _tables(self) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        """Cosines of query vectors and centroids, at 16 bits and at 8 bits. They lie in this thread's scratch memory."""
        assert self._codec is not None
        centroids, blocks = self._codec.rows, self._blocks
        shape = (len(blocks.bytes), len(centroids.rows), kernels.BLOCK)
        shorts = scratch.array("shorts", shape, np.int16)
        bytes_ = scratch.array("bytes", shape, np.uint8)
        scoring.score_centroids(
            self._isa, centroids.rows, centroids.scale, blocks.bytes, blocks.scales, blocks.starts, shorts, bytes_
        )
        return shorts, bytes_

    def shortlist(
        self,
        allowed: Sequence[NDArray[np.bool_]],
        nprobe: int,
        n_candidates: int | None,
        n: int,
        k: int,
        open_centroids: NDArray[np.intp] | None,
    ) -> list[NDArray[np.int32]]:
        """Choose the ``n`` passages that score highest by their centroids, of those that the lists lead to; all their windows.

        Args:
            allowed: which windows may be found, for each segment *Shape:* (n_windows,), bool.
            nprobe: number of centroids of each layer to probe for each query vector.
            n_candidates: about how many listed windows to rank, those at the nearest centroids first; None for all.
            n: number of passages; some that tie with the last come as well.
            k: number of passages that are found in any case.
            open_centroids: centroids whose lists hold an allowed window; None for all.

        Returns:
            For each segment the numbers of its windows, ascending.
        """
        candidates = self._candidates(allowed, nprobe, n_candidates, open_centroids)
        if sum(map(len, candidates)) < k:
            candidates = [np.flatnonzero(live).astype(np.int32) for live in allowed]
        firsts, scores = self._passages(candidates)
        if sum(map(len, firsts)) < k:
            firsts, scores = self._passages([np.flatnonzero(live).astype(np.int32) for live in allowed])
        together = scores[0] if len(scores) == 1 else np.concatenate(scores)
        best = _divide(self._best(together, min(n, len(together))), [len(of_segment) for of_segment in scores])
        return [
            self._windows_of(number, windows[places], allowed[number])
            for number, (windows, places) in enumerate(zip(firsts, best, strict=True))
        ]

    def _candidates(
        self,
        allowed: Sequence[NDArray[np.bool_]],
        nprobe: int,
        n_candidates: int | None,
        open_centroids: NDArray[np.intp] | None,
    ) -> list[NDArray[np.int32]]:
        """Find the allowed windows that are listed at the nearest centroids of the query vectors.

        Each layer of the codec is probed by itself: older vectors belong to the wider centroids of their time, which later
        centroids would crowd out.
        """
        assert self._codec is not None
        shorts, _ = self._tables
        if open_centroids is not None:
            closed = np.ones(shorts.shape[1], np.bool_)
            closed[open_centroids] = False
            shorts[:, closed] = kernels.NOWHERE  # no token of an allowed window is there
        bounds = list(pairwise([*self._codec.layers, len(self._codec.centroids)]))
        probed = []
        for block in range(len(shorts)):
            n_q = min(self._blocks.n_q - block * kernels.BLOCK, kernels.BLOCK)
            probed += [_nearest(shorts, block, first, last, n_q, nprobe) for first, last in bounds]
        if n_candidates is not None:
            return self._most_listed(*_side_by_side(probed), allowed, n_candidates)
        cells = probed[0][0].ravel() if len(probed) == 1 else np.concatenate([centroids.ravel() for centroids, _ in probed])
        return [self._listed(number, cells, live) for number, live in enumerate(allowed)]

    def _listed(self, number: int, cells: NDArray[np.int32], allowed: NDArray[np.bool_]) -> NDArray[np.int32]:
        offsets, windows = self._lists(number)
        marked = scratch.array("marked", allowed.shape, np.uint8, zeros=True)
        listed = scratch.array("found", (len(allowed) + 1,), np.int32)
        return listed[: scoring.listed_windows(cells, offsets, windows, allowed.view(np.uint8), marked, listed)].copy()

    def _most_listed(
        self, cells: NDArray[np.int32], cosines: NDArray[np.int16], allowed: Sequence[NDArray[np.bool_]], n: int
    ) -> list[NDArray[np.int32]]:
        """Find about ``n`` windows, those that are listed at the nearest centroids.

        Args:
            cells: the nearest centroids of each query vector and layer, *Shape:* (m, nprobe).
            cosines: theirs.
            allowed: which windows may be found.
            n: how many.
        """
        sizes = [len(live) for live in allowed]
        total = sum(sizes)
        found, scores = scratch.array("found", (total,), np.int32), scratch.array("scores", (total,), np.int64)
        places, n_q = scratch.array("places", cells.shape, np.int64), len(cells)
        sum_bits = (n_q << 16).bit_length()  # a cosine adds at most 2**16
        sums = (
            scratch.array("sums", (min(total, _RANGE),), np.int32)
            if sum_bits + n_q.bit_length() < 32
            else scratch.array("long_sums", (min(total, _RANGE),), np.int64)
        )
        counts, bar = np.zeros(_CLASSES, np.int64), np.zeros(2, np.int64)
        shift = max(sum_bits - _CLASSES.bit_length(), 0)
        count, ends = 0, []
        for number, live in enumerate(allowed):
            lists, live_bytes = self._lists(number, checked=False), live.view(np.uint8)
            how, rooms = (min(n, total), sum_bits, shift), (places, sums, counts, bar, found[count:], scores[count:])
            added = scoring.accumulate(cells, cosines, *lists, live_bytes, *how, *rooms)
            if added < 0:
                self._lists(number)  # says what is wrong
            count += added
            ends.append(count)
        chosen = _highest(scores[:count], n, _MOST_TIED * n)
        bounds = np.searchsorted(chosen, [0, *ends])
        return [found[chosen[first:last]] for first, last in pairwise(bounds)]

    def _passages(self, windows: Sequence[NDArray[np.int32]]) -> tuple[list[NDArray[np.int32]], list[NDArray[np.int32]]]:
        """The first window of each passage, and the score of its best window with every token taken for its centroid."""
        _, bytes_ = self._tables
        all_firsts, all_scores = [], []
        for number, candidates in enumerate(windows):
            segment, scores = self._segments[number], np.empty(len(candidates), np.int32)
            scoring.interact(bytes_, self._codes(number), segment.offsets, candidates, scores)
            if segment.has_one_window_each:
                all_firsts.append(candidates)
                all_scores.append(scores)
            else:
                firsts, best = np.empty_like(candidates), np.empty_like(scores)
                count = scoring.passages_of(candidates, segment.plain_pids, scores, firsts, best)
                all_firsts.append(firsts[:count])
                all_scores.append(best[:count])
        return all_firsts, all_scores

    def _windows_of(self, number: int, firsts: NDArray[np.int32], allowed: NDArray[np.bool_]) -> NDArray[np.int32]:
        """All windows of these passages: the best one need not be among the candidates."""
        segment = self._segments[number]
        if segment.has_one_window_each:
            return firsts
        windows = scratch.array("found", (len(allowed) + 1,), np.int32)
        return windows[: scoring.windows_of(firsts, segment.plain_pids, allowed.view(np.uint8), windows)].copy()

    def _best(self, scores: NDArray[np.int32], n: int) -> NDArray[np.int32]:
        """The places of the ``n`` highest scores, and of some that tie with the last, ascending."""
        if not n:
            return np.empty(0, np.int32)
        chosen = scratch.array("chosen", (len(scores),), np.int32)
        counts = scratch.array("counts", (int(scores.max()) + 1,), np.int32)
        return chosen[: scoring.best_of(scores, n, min(_MOST_TIED * n, len(scores)), chosen, counts)].copy()

    def roughly(self, number: int, windows: NDArray[np.int32]) -> NDArray[np.float32]:
        """Score some windows of a segment over bytes. *Shape:* (n,), float32."""
        scores = np.empty(len(windows), np.float32)
        score = self._over_bytes(number) if self._codec is None else self._over_residuals(number)

        def piece(start: int) -> None:
            chunk = slice(start, start + _WINDOWS_AT_A_TIME)
            score(windows[chunk], scores[chunk])

        spread(piece, range(0, len(windows), _WINDOWS_AT_A_TIME))
        return scores

    def _over_bytes(self, number: int) -> Callable[[NDArray[np.int32], NDArray[np.float32]], None]:
        segment, blocks = self._segments[number], self._blocks
        rows = segment.byte_rows

        def score(windows: NDArray[np.int32], scores: NDArray[np.float32]) -> None:
            scoring.score_bytes(
                self._isa,
                rows.rows,
                rows.scale,
                segment.offsets,
                windows,
                blocks.bytes,
                blocks.scales,
                blocks.starts,
                scores,
            )

        return score

    def _over_residuals(self, number: int) -> Callable[[NDArray[np.int32], NDArray[np.float32]], None]:
        assert self._codec is not None
        segment, blocks, codec = self._segments[number], self._blocks, self._codec
        codes, (shorts, _), (levels, scale) = self._codes(number), self._tables, codec.byte_levels
        width = blocks.bytes.shape[1] * 4

        def score(windows: NDArray[np.int32], scores: NDArray[np.float32]) -> None:
            scoring.score_residuals(
                self._isa,
                codec.nbits,
                codes,
                segment.plain_residuals,
                segment.plain_lengths,
                segment.offsets,
                windows,
                levels,
                scale,
                blocks.bytes,
                blocks.scales,
                blocks.starts,
                shorts,
                scratch.array("rows", (4, width), np.uint8),
                scores,
            )

        return score

    def exactly(self, number: int, windows: NDArray[np.int32]) -> NDArray[np.float32]:
        """Score some windows of a segment in float32, each the same whatever is scored beside it. *Shape:* (n,), float32."""
        segment = self._segments[number]
        scores = np.empty(len(windows), np.float32)
        if segment.vectors is not None:
            vectors = segment.plain_vectors

            def piece(start: int) -> None:
                chunk = slice(start, start + _WINDOWS_AT_A_TIME)
                scoring.score_floats(self._isa, vectors, segment.offsets, windows[chunk], self._floats, scores[chunk])

            spread(piece, range(0, len(windows), _WINDOWS_AT_A_TIME))
            return scores
        codec, codes = self._codec, self._codes(number)
        assert codec is not None

        def part(start: int) -> None:
            chunk = slice(start, start + _WINDOWS_AT_A_TIME)
            scoring.score_exactly(
                self._isa,
                codec.nbits,
                codes,
                segment.plain_residuals,
                segment.offsets,
                windows[chunk],
                codec.centroids,
                codec.padded_levels,
                self._floats,
                scratch.array("vectors", (segment.longest, codec.dim), np.float32),
                scores[chunk],
            )

        spread(part, range(0, len(windows), _WINDOWS_AT_A_TIME))
        return scores

    def _codes(self, number: int) -> NDArray[Any]:
        """The codes of a segment.

        Raises:
            IndexError: there is no centroid for one.
        """
        segment = self._segments[number]
        assert self._codec is not None
        segment.check_codes(len(self._codec.centroids))
        return segment.plain_codes

    def _lists(self, number: int, *, checked: bool = True) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        assert self._codec is not None
        lists = self._segments[number].lists
        assert lists is not None
        return lists.by_centroid(len(self._codec.centroids), len(self._segments[number].pids), checked=checked)


def _nearest(
    shorts: NDArray[np.int16], block: int, first: int, last: int, n_q: int, nprobe: int
) -> tuple[NDArray[np.int32], NDArray[np.int16]]:
    """Find the nearest centroids of each query vector of a block, nearest first; -1 where there are too few.

    Returns:
        The centroids and their cosines, *Shape:* (32, n) each.
    """
    n = min(nprobe, last - first)
    cells, cosines = np.empty((kernels.BLOCK, n), np.int32), np.empty((kernels.BLOCK, n), np.int16)
    if n <= _FEW_CELLS:
        scoring.nearest_cells(shorts, block, first, last, n_q, cells, cosines)
        return cells, cosines
    of_layer = shorts[block, first:last].T  # (32, n_centroids)
    order = np.argsort(-of_layer.astype(np.int32), axis=1, kind="stable")[:, :n]
    cosines[:] = np.take_along_axis(of_layer, order, axis=1)
    cells[:] = np.where(cosines == kernels.NOWHERE, -1, first + order)
    cells[n_q:] = -1
    return cells, cosines


def _side_by_side(
    probed: list[tuple[NDArray[np.int32], NDArray[np.int16]]],
) -> tuple[NDArray[np.int32], NDArray[np.int16]]:
    """Put what ``_nearest`` gave for several blocks and layers one below the other. *Shape:* (m, nprobe) each."""
    if len(probed) == 1:
        return probed[0]
    shape = 32 * len(probed), max(cells.shape[1] for cells, _ in probed)
    all_cells, all_cosines = np.full(shape, -1, np.int32), np.full(shape, kernels.NOWHERE, np.int16)
    for turn, (cells, cosines) in enumerate(probed):
        here = slice(turn * kernels.BLOCK, (turn + 1) * kernels.BLOCK), slice(cells.shape[1])
        all_cells[here], all_cosines[here] = cells, cosines
    return all_cells, all_cosines


def _highest(scores: NDArray[np.int64], n: int, most: int) -> NDArray[np.intp]:
    """The places of the ``n`` highest scores, and of the first of those that tie with the last, ``most`` at most; ascending."""
    if len(scores) <= n:
        return np.arange(len(scores))
    bar = np.partition(scores, len(scores) - n)[len(scores) - n]
    chosen = np.flatnonzero(scores >= bar)
    if len(chosen) > most:
        ties = np.flatnonzero(scores[chosen] == bar)
        chosen = np.delete(chosen, ties[len(ties) - (len(chosen) - most) :])
    return chosen


def _divide(places: NDArray[Any], sizes: Sequence[int]) -> list[NDArray[Any]]:
    """Turn ascending places in several segments, one after the other, into places in each of them."""
    if len(sizes) == 1:
        return [places]
    starts = np.cumsum([0, *sizes])
    bounds = np.searchsorted(places, starts)
    return [
        (places[first:last] - start).astype(np.int32) for first, last, start in zip(bounds, bounds[1:], starts, strict=False)
    ]
