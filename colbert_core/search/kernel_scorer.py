"""Scores of one query against the segments of a snapshot: which windows may be good, how good roughly, and how good exactly.

PLAID (Santhanam et al., CIKM 2022): query vectors probe their nearest centroids, inverted lists give candidate windows, and
centroids alone rank these roughly. What is left is scored over residuals as bytes, and the best of that in float32.
"""

from __future__ import annotations

import functools
import math
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core import kernels
from colbert_core.kernels import LONG, QueryBlocks, float_blocks, plain, scoring, scratch
from colbert_core.threads import spread
from colbert_core.vectors.codec import SHIFT_STEP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from colbert_core.vectors.codec import ResidualCodec
    from colbert_core.vectors.segment import Segment

# What rounding a query and a window's vectors to bytes changes in a cosine: four times the standard deviation that was
# measured, .0027. Errors of different query vectors partly cancel out.
_BYTE_ERROR = 0.011
# What float32 rounds in a cosine, and what 16 bits round in that of a centroid and in the length of a vector.
_ROUNDINGS = 2e-4
# Of windows that tie by their centroids, at most so many times as many as were asked for are scored further.
_MOST_TIED = 4
# Up to here the nearest are kept in order as they come; what comes later is rarely among them.
_FEW_CELLS = 64
# Sums of cosines are made for so many windows at a time, in 128 kB, which stay in the second-level cache. Over a million
# windows, 2**18 at a time take 1.2 times as long.
_RANGE = 2**15
# Sums are counted by their value in so many classes, to leave out early what cannot be among the highest.
_CLASSES = 2**13
# Which tokens of the windows scored roughly decide is remembered in at most so many bytes.
_MOST_REMEMBERED = 2**24
# Of a query that is scored by parts, a part's table of cosines with all centroids has at most so many numbers: 50 MB.
_LARGEST_PART = 2**24
# Windows that a thread scores at a time.
_WINDOWS_AT_A_TIME = 2**12


class KernelScorer:
    """Scores with the compiled kernels.

    Attributes:
        margin: how far the rough scores of two windows are wrong to each other, which is rarely exceeded.
    """

    def __init__(self, segments: Sequence[Segment], codec: ResidualCodec | None, query: NDArray[np.float32]) -> None:
        self._segments = segments
        self._codec = codec
        self._query = plain(query)
        self._isa = kernels.instruction_set()
        self.margin = _BYTE_ERROR * math.sqrt(len(query))
        self._near: dict[int, tuple[NDArray[np.int32], NDArray[np.uint8]]] = {}

    @cached_property
    def largest_error(self) -> float:
        """The most that ``roughly`` may be wrong by."""
        if self._codec is None:
            error = max(segment.byte_rows.largest_error for segment in self._segments)
            return float(self._errors(error).sum())
        return float(
            self._errors(self._codec.largest_byte_error, max(segment.largest_stretch for segment in self._segments)).sum()
        )

    def _errors(self, error: float, stretch: float = 1.0) -> NDArray[np.float32]:
        """The most that each query vector's cosine in bytes may be wrong by. *Shape:* (n_q,), float32.

        With errors e of a query vector q and e' of what it is multiplied with, |(q + e)(x + e') - qx| <= |e| |x| + |q + e| |e'|
        by Cauchy and Schwarz. A vector x is centroid plus residual over their length, and the errors of both add up.

        Args:
            error: how far what the query is multiplied with may be from what is kept of it in bytes.
            stretch: the largest factor that scales that to length 1.
        """
        blocks, n_q = self._blocks, len(self._query)
        numbers = blocks.bytes.transpose(0, 2, 1, 3).reshape(blocks.scales.size, -1)[:n_q, : self._query.shape[1]]
        in_bytes = numbers * blocks.scales.reshape(-1, 1)[:n_q]
        off, long = (np.linalg.norm(vectors, axis=1) for vectors in (self._query - in_bytes, in_bytes))
        errors: NDArray[np.float32] = off * 1.02 + long * stretch * (error + _ROUNDINGS)
        return errors

    @cached_property
    def _blocks(self) -> QueryBlocks:
        return QueryBlocks.of(self._query, -(-self._query.shape[1] // 16) * 16)

    @cached_property
    def _below(self) -> NDArray[np.float32]:
        """How far below the largest cosine in bytes that of the nearest token may be. *Shape:* (n_blocks, 32), float32."""
        assert self._codec is not None
        below = np.full(self._blocks.scales.shape, -4, np.float32)  # no token is near to what fills up a block
        below.reshape(-1)[: len(self._query)] = 2 * self._errors(self._codec.largest_byte_error, LONG / 32768)
        return below

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
        query = blocks.bytes, blocks.scales, blocks.starts
        scoring.score_centroids(self._isa, centroids.rows, centroids.scale, *query, _sums(), shorts, bytes_)
        return shorts, bytes_

    @cached_property
    def _sum(self) -> tuple[NDArray[np.int8], np.float32]:
        """The sum of the query vectors in bytes, and what its product with a byte of a shift adds to a rough score."""
        total = self._query.sum(axis=0)
        scale = max(float(np.abs(total).max()), 1e-20) / 127
        return np.rint(total / scale).astype(np.int8), np.float32(scale * SHIFT_STEP * scoring.BYTE)

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
        candidates = self.candidates(allowed, nprobe, n_candidates, open_centroids)
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

    def candidates(
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
        assert self._codec is not None
        _, bytes_ = self._tables
        all_firsts, all_scores = [], []
        for number, candidates in enumerate(windows):
            segment, scores = self._segments[number], np.empty(len(candidates), np.int32)
            scoring.interact(bytes_, self._codes(number), segment.offsets, candidates, scores)
            scoring.add_shifts(self._isa, segment.plain_shifts(self._codec), candidates, *self._sum, scores)
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
        """Score some windows of a segment over bytes, and remember the tokens that decide. *Shape:* (n,), float32."""
        if self._codec is None or len(windows) * self._segments[number].longest > _MOST_REMEMBERED:
            return self.roughly_alone(number, windows)
        near = np.empty((len(windows), self._segments[number].longest), np.uint8)
        self._near[number] = windows, near
        return self._roughly(number, windows, near)

    def roughly_alone(self, number: int, windows: NDArray[np.int32]) -> NDArray[np.float32]:
        """Score some windows of a segment over bytes. *Shape:* (n,), float32."""
        return self._roughly(number, windows, np.empty((len(windows), 0), np.uint8))

    def _roughly(self, number: int, windows: NDArray[np.int32], near: NDArray[np.uint8]) -> NDArray[np.float32]:
        scores = np.empty(len(windows), np.float32)
        score = self._over_bytes(number) if self._codec is None else self._over_residuals(number)

        def piece(start: int) -> None:
            chunk = slice(start, start + _WINDOWS_AT_A_TIME)
            score(windows[chunk], near[chunk], scores[chunk])

        spread(piece, range(0, len(windows), _WINDOWS_AT_A_TIME))
        return scores

    def _near_tokens(self, number: int, windows: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Which tokens of these windows may be the nearest of a query vector; *Shape:* (n, 0) if any may.

        Where ``roughly`` was called for the segment, they are among the windows that it scored last.
        """
        known, near = self._near.get(number, (windows, np.empty((len(windows), 0), np.uint8)))
        return near[np.searchsorted(known, windows)]

    def _over_bytes(self, number: int) -> Callable[[NDArray[np.int32], NDArray[np.uint8], NDArray[np.float32]], None]:
        segment, blocks = self._segments[number], self._blocks
        rows = segment.byte_rows

        def score(windows: NDArray[np.int32], _near: NDArray[np.uint8], scores: NDArray[np.float32]) -> None:
            scoring.score_bytes(
                self._isa,
                rows.rows,
                rows.scale,
                segment.offsets,
                windows,
                blocks.bytes,
                blocks.scales,
                blocks.starts,
                _sums(),
                scores,
            )

        return score

    def _over_residuals(self, number: int) -> Callable[[NDArray[np.int32], NDArray[np.uint8], NDArray[np.float32]], None]:
        assert self._codec is not None
        segment, blocks, codec = self._segments[number], self._blocks, self._codec
        codes, (shorts, _), (levels, scale) = self._codes(number), self._tables, codec.byte_levels
        width = blocks.bytes.shape[1] * 4

        def score(windows: NDArray[np.int32], near: NDArray[np.uint8], scores: NDArray[np.float32]) -> None:
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
                scratch.array("rows", (16, width), np.uint8),
                _sums(),
                self._below,
                scratch.array("cosines", (segment.longest, kernels.BLOCK), np.float32),
                near,
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
        codec, codes, near = self._codec, self._codes(number), self._near_tokens(number, windows)
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
                near[chunk],
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


class BoundedScorer:
    """Scores with the compiled kernels, and knows how wrong a rough score is at most.

    A query of very many vectors is scored by parts, whose scores add up, so that tables of centroids stay small.
    """

    def __init__(self, segments: Sequence[Segment], codec: ResidualCodec | None, query: NDArray[np.float32]) -> None:
        n = len(query) if codec is None else max(_LARGEST_PART // len(codec.centroids), kernels.BLOCK)
        parts = [query[start : start + n] for start in range(0, len(query), n)]
        only = KernelScorer(segments, codec, parts[0])
        # All parts keep their tables at the same place, so those of several parts are made again for each segment.
        self._scorers: Callable[[], Iterable[KernelScorer]] = lambda: (
            [only] if len(parts) == 1 else (KernelScorer(segments, codec, part) for part in parts)
        )

    @cached_property
    def margin(self) -> float:
        """How far the rough scores of two windows may be wrong to each other. It is a bound, not an estimate."""
        return 2 * sum(scorer.largest_error for scorer in self._scorers())

    def roughly(self, number: int, windows: NDArray[np.int32]) -> NDArray[np.float32]:
        """Score some windows of a segment over bytes. *Shape:* (n,), float32."""
        return _added(scorer.roughly_alone(number, windows) for scorer in self._scorers())

    def exactly(self, number: int, windows: NDArray[np.int32]) -> NDArray[np.float32]:
        """Score some windows of a segment in float32, each the same whatever is scored beside it. *Shape:* (n,), float32."""
        return _added(scorer.exactly(number, windows) for scorer in self._scorers())


def _sums() -> NDArray[np.int32]:
    """Room for the products of 16 rows and a block of query vectors."""
    return scratch.array("products", (16, kernels.BLOCK), np.int32)


def _added(scores: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    total: NDArray[np.float32] = functools.reduce(np.add, scores)
    return total


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
