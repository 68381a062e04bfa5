"""The compiled kernels: by hand, against their definitions in NumPy, at the ends of memory, and from their cache on disk."""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import llvmlite.binding
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import colbert_core
from colbert_core import Index, Passage, kernels, maxsim
from colbert_core.kernels import BLOCK, NOWHERE, PORTABLE, VNNI, ByteRows, QueryBlocks, building, float_blocks, plain, scoring
from colbert_core.vectors.codec import NBITS, pack, row_bytes

HERE, PACKAGE = Path(__file__).parent, Path(colbert_core.__file__).parent
needs_vnni = pytest.mark.skipif(kernels.instruction_set() is not VNNI, reason="this processor has no AVX-512 VNNI")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="guard pages are made with Linux's mprotect")
both_instruction_sets = pytest.mark.parametrize(
    "isa", [pytest.param(PORTABLE, id="PORTABLE"), pytest.param(VNNI, id="VNNI", marks=needs_vnni)]
)


def floats(*values):
    return np.array(values, np.float32)


def ints(*values):
    return np.array(values, np.int32)


def longs(*values):
    return np.array(values, np.int64)


# By hand


def test_a_query_as_bytes_by_hand():
    blocks = QueryBlocks.of(floats([1, -0.5, 0], [0, 0, 0], [0, 0, -2]), 16)
    assert blocks.bytes.shape == (1, 4, BLOCK, 4)
    assert blocks.bytes[0, 0, :3].tolist() == [[127, -64, 0, 0], [0, 0, 0, 0], [0, 0, -127, 0]]
    assert not blocks.bytes[0, 1:].any() and not blocks.bytes[0, :, 3:].any()
    assert blocks.scales[0, [0, 2, 3]] == pytest.approx([1 / 127, 2 / 127, 0])
    assert blocks.starts[0, :4].tolist() == [-128 * 63, 0, 128 * 127, 0]


def test_rows_as_bytes_by_hand():
    rows = ByteRows.of(floats([1, -0.5], [-1, 0.1]), multiple=4)
    assert rows.scale == pytest.approx(1 / 127)
    assert rows.rows.shape == (4, 16)
    assert rows.rows[:, :3].tolist() == [[255, 64, 128], [1, 141, 128], [1, 141, 128], [1, 141, 128]]
    assert (ByteRows.of(np.zeros((2, 3), np.float32)).rows == 128).all()


@both_instruction_sets
def test_cosines_of_centroids_by_hand(isa):
    rows, query = ByteRows.of(floats([1, 0], [0.5, 0], [-1, 0], [-0.2, 0])), QueryBlocks.of(floats([1, 0]), 16)
    shorts, bytes_ = np.empty((1, 4, BLOCK), np.int16), np.empty((1, 4, BLOCK), np.uint8)
    scoring.score_centroids(isa, rows.rows, rows.scale, query.bytes, query.scales, query.starts, shorts, bytes_)
    # .5 and -.2 are 64 and -25 in 127ths; a cosine below -.275 is the byte 0.
    assert shorts[0, :, 0].tolist() == [16384, round(16384 * 64 / 127), -16384, round(-16384 * 25 / 127)]
    assert bytes_[0, :, 0].tolist() == [255, round(55 + 200 * 64 / 127), 0, round(55 - 200 * 25 / 127)]
    assert not shorts[0, :, 1:].any() and (bytes_[0, :, 1:] == 55).all()


def test_nearest_cells_by_hand():
    shorts = np.zeros((1, 5, BLOCK), np.int16)
    shorts[0, :, 0] = [9, 5, 7, 5, NOWHERE]
    shorts[0, :, 1] = [9, NOWHERE, NOWHERE, -3, NOWHERE]
    cells, cosines = np.empty((BLOCK, 3), np.int32), np.empty((BLOCK, 3), np.int16)
    scoring.nearest_cells(shorts, 0, 1, 5, 2, cells, cosines)
    assert cells[:3].tolist() == [[2, 1, 3], [3, -1, -1], [-1, -1, -1]]
    assert cosines[:2].tolist() == [[7, 5, 5], [-3, NOWHERE, NOWHERE]]


def test_listed_windows_by_hand():
    offsets, windows = longs(0, 2, 2, 5), ints(0, 9, 1, 8, 9)
    live, marked, found = np.ones(10, np.uint8), np.zeros(10, np.uint8), np.empty(11, np.int32)
    live[8] = 0
    assert found[: scoring.listed_windows(ints(2, -1, 0, 2), offsets, windows, live, marked, found)].tolist() == [0, 1, 9]
    assert not marked.any()
    assert scoring.listed_windows(ints(1, -1), offsets, windows, live, marked, found) == 0


def test_windows_and_passages_by_hand():
    rows = longs(4, 4, 4, 7, 8, 8)
    firsts, heights = np.empty(4, np.int32), np.empty(4, np.int32)
    assert scoring.passages_of(ints(1, 2, 4, 5), rows, ints(3, 6, 2, 1), firsts, heights) == 2
    assert (firsts[:2].tolist(), heights[:2].tolist()) == ([1, 4], [6, 2])
    found = np.empty(7, np.int32)
    assert scoring.windows_of(ints(1, 4), rows, np.array([1, 0, 1, 1, 1, 1], np.uint8), found) == 4
    assert found[:4].tolist() == [0, 2, 4, 5]


def test_sums_over_lists_by_hand():
    offsets, windows = longs(0, 1, 3, 4), ints(0, 0, 1, 2)
    cells, cosines = np.full((BLOCK, 3), -1, np.int32), np.full((BLOCK, 3), NOWHERE, np.int16)
    cells[0], cosines[0] = [1, 0, -1], [50, 20, NOWHERE]
    cells[1], cosines[1] = [2, 0, 1], [9, 8, -4]
    sums = np.zeros(4, np.int64)
    scoring.accumulate(cells, cosines, offsets, windows, 1, sums)
    # 20 - 1 is nothing to the first query vector, -4 - 1 to the second; window 0 counts by its nearest cell only.
    assert (sums % 2**32).tolist() == [(50 - 19) + (8 + 5), (50 - 19) + (-4 + 5), 9 + 5, 0]
    assert (sums >> 32).tolist() == [2, 2, 2, 0]  # the last turns


def test_rough_scores_by_hand():
    bytes_ = np.zeros((2, 3, BLOCK), np.uint8)
    bytes_[0, :, 0], bytes_[0, :, 31], bytes_[1, :, 7] = [5, 9, 200], [255, 1, 0], [0, 3, 1]
    codes, offsets, scores = np.array([0, 1, 2, 1], np.uint16), longs(0, 2, 3, 4), np.empty(2, np.int32)
    scoring.interact(bytes_, codes, offsets, ints(0, 2), scores)
    assert scores.tolist() == [9 + 255 + 3, 9 + 1 + 3]


@pytest.mark.parametrize(
    ("n", "most", "best"), [(1, 1, [0]), (1, 2, [0, 2]), (3, 3, [0, 1, 2]), (3, 4, [0, 1, 2, 3]), (3, 6, [0, 1, 2, 3, 4])]
)
def test_the_best_by_hand(n, most, best):
    chosen, counts = np.empty(6, np.int32), np.empty(6, np.int32)
    assert chosen[: scoring.best_of(ints(5, 3, 5, 3, 3, 1), n, most, chosen, counts)].tolist() == best


@both_instruction_sets
def test_the_score_of_residuals_by_hand(isa):
    query, scores = QueryBlocks.of(floats([1], [-1]), 16), np.empty(1, np.float32)
    table, shorts = np.resize(np.array([1, 255], np.uint8), 256), np.zeros((1, 1, BLOCK), np.int16)
    shorts[0, 0, :2] = [8192, -8192]
    scoring.score_residuals(
        isa,
        1,
        np.zeros(2, np.uint16),
        np.array([[1], [0]], np.uint8),
        np.array([16384, 32768], np.uint16),
        longs(0, 2),
        ints(0),
        table,
        np.float32(0.25 / 127),
        query.bytes,
        query.scales,
        query.starts,
        shorts,
        np.empty((4, 16), np.uint8),
        scores,
    )
    # Vectors (.5 + .25) / 2 and (.5 - .25) / 1: the first is nearer to 1, the second to -1.
    assert scores == pytest.approx([0.375 - 0.25], abs=1e-6)


@both_instruction_sets
def test_the_score_of_vectors_by_hand(isa):
    """The example of ``maxsim``."""
    query, vectors, offsets = floats([1, 0], [0, 1]), floats([1, 0], [0.6, 0.8], [-1, 0]), longs(0, 2, 3)
    scores = np.empty(3, np.float32)
    scoring.score_floats(isa, vectors, offsets, ints(0, 1, 0), float_blocks(query), scores)
    assert scores == pytest.approx([1.8, -1, 1.8])
    rows, blocks = ByteRows.of(vectors), QueryBlocks.of(query, 16)
    scoring.score_bytes(isa, rows.rows, rows.scale, offsets, ints(0, 1, 0), blocks.bytes, blocks.scales, blocks.starts, scores)
    assert scores == pytest.approx([1.8, -1, 1.8], abs=0.01)


@both_instruction_sets
def test_the_nearest_row_by_hand(isa):
    rows = np.full((8, 16), 128, np.uint8)
    rows[:, :2] = [[228, 128], [128, 228], [228, 128], [128, 28], [0, 0], [0, 0], [0, 0], [0, 0]]
    nearest = np.empty(4, np.int32)
    building.nearest_rows(isa, floats([1, 0], [0, -1e-9], [-3, -3], [0, 0]), rows, nearest)
    assert nearest.tolist() == [0, 4, 4, 0]  # row 4 has -128, row 3 has -100; the lowest of equals


def test_residuals_by_hand():
    packed = np.zeros((1, 2), np.uint8)
    vectors, centroids = floats([1.5, 1.25, 2.5, 0.75, 0.5]), floats([9] * 5, [1] * 5)
    building.pack_residuals(vectors, ints(1), centroids, floats(-0.4, -0.2, 0, 1), 2, packed)
    # Cuts -.3, -.1 and .5; rests .5, which is not above .5, .25, 1.5, -.25 and -.5.
    assert packed.tolist() == [[2 | 3 << 2 | 0 << 4, 2 | 1 << 2]]


def test_sums_and_lengths_by_hand():
    sums, counts = np.ones((3, 2), np.float32), np.zeros(3, np.int64)
    building.add_up(floats([1, 2], [3, 4], [5, 6]), ints(2, 0, 2), sums, counts)
    assert (sums.tolist(), counts.tolist()) == ([[4, 5], [1, 1], [7, 9]], [1, 0, 2])
    lengths = np.empty(3, np.uint16)
    centroids = floats([0.5, -0.5], [2, 2], [1.5, -0.5])
    residuals = np.array([[0b10], [0b00], [0b11]], np.uint8)
    building.measure(np.array([0, 1, 2], np.uint16), residuals, centroids, floats(-0.5, 0.5), 1, lengths)
    # Vectors (0, 0), (1.5, 1.5) and (2, 0).
    assert lengths.tolist() == [65535, round(32768 / 4.5**0.5), 16384]


# Definitions


def query_blocks(query, width):
    """Numbers, *Shape:* (n_blocks * 32, width), and the arrays that kernels read."""
    n_blocks = -(-len(query) // BLOCK)
    largest = np.abs(query).max(axis=1, initial=0)
    numbers, scales = np.zeros((n_blocks * BLOCK, width), np.int8), np.zeros(n_blocks * BLOCK, np.float32)
    scales[: len(query)] = np.maximum(largest, np.float32(1e-20)) / np.float32(127)
    numbers[: len(query), : query.shape[1]] = np.rint(query / scales[: len(query), None])
    blocks = np.ascontiguousarray(numbers.reshape(n_blocks, BLOCK, width // 4, 4).transpose(0, 2, 1, 3))
    starts = -128 * numbers.sum(axis=1, dtype=np.int32)
    return numbers, blocks, scales.reshape(n_blocks, BLOCK), starts.reshape(n_blocks, BLOCK)


def by_block(values):
    """From (n_blocks * 32, n) to (n_blocks, n, 32)."""
    return values.reshape(len(values) // BLOCK, BLOCK, values.shape[1]).transpose(0, 2, 1)


def of_lanes(values):
    """From (n_blocks, n, 32) to (n_blocks * 32, n)."""
    return values.transpose(0, 2, 1).reshape(len(values) * BLOCK, values.shape[1])


def sums_of_best(cosines, offsets, windows):
    """MaxSim of windows, for cosines of *Shape:* (n_q, n_tokens)."""
    return np.array([cosines[:, offsets[window] : offsets[window + 1]].max(axis=1).sum() for window in windows])


def unit_rows(rng, n, dim):
    vectors = rng.standard_normal((n, dim)).astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-6))


class Plain:
    """Memory from NumPy."""

    def given(self, array):
        """An array for a kernel to read."""
        return np.array(array, order="C")

    def room(self, shape, dtype, value=None):
        """An array for a kernel to write to."""
        return np.empty(shape, dtype) if value is None else np.full(shape, value, dtype)


class Guarded:
    """Memory between two pages that may not be touched, arrays right before the second or right after the first.

    What a kernel is given to read may not be written to either.
    """

    def __init__(self, *, at_end):
        self._at_end = at_end
        self._mprotect = ctypes.CDLL(None, use_errno=True).mprotect
        self._mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

    def given(self, array):
        array = np.asarray(array)
        mine, protect = self._make(array.shape, array.dtype)
        mine[...] = array
        protect(mmap.PROT_READ)
        return mine

    def room(self, shape, dtype, value=None):
        mine, _ = self._make(shape, np.dtype(dtype))
        mine[...] = 77 if value is None else value
        return mine

    def _make(self, shape, dtype):
        page, n_bytes = mmap.PAGESIZE, int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        size = max(-(-n_bytes // page), 1) * page
        pages = mmap.mmap(-1, size + 2 * page)
        address = np.frombuffer(pages, np.uint8).ctypes.data

        def protect(start, length, how):
            assert self._mprotect(address + start, length, how) == 0, os.strerror(ctypes.get_errno())

        protect(0, page, 0)
        protect(page + size, page, 0)
        array = np.ndarray(shape, dtype, pages, page + (size - n_bytes if self._at_end else 0))
        return array, lambda how: protect(page, size, how)


class World:
    """Random arrays of one set of shapes, as kernels read them."""

    def __init__(self, seed, dim, n_q, n_windows, longest, n_centroids, nbits, *, wide_codes=False, sharp=False, share=0.7):
        rng = self.rng = np.random.default_rng(seed)
        self.dim, self.n_q, self.nbits, self.n_centroids = dim, n_q, nbits, n_centroids
        self.width = -(-dim // 16) * 16
        self.query = unit_rows(rng, n_q, dim)
        if sharp:  # the largest sums of products there can be
            self.query = np.sign(self.query)
        self.numbers, self.blocks, self.scales, self.starts = query_blocks(self.query, self.width)
        lengths = rng.integers(1, longest + 1, size=n_windows)
        self.offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.n_windows, self.n_tokens, self.longest = n_windows, int(self.offsets[-1]), longest
        self.some = np.flatnonzero(rng.random(n_windows) < share).astype(np.int32)
        any_order = rng.integers(n_windows, size=rng.integers(0, 9)) if n_windows else []
        self.windows = np.concatenate([self.some, any_order, [n_windows - 1] * bool(n_windows)]).astype(np.int32)
        self.codes = rng.integers(n_centroids, size=self.n_tokens).astype(np.uint32 if wide_codes else np.uint16)
        self.levels = np.sort(rng.standard_normal(2**nbits) * 0.3 / dim**0.5).astype(np.float32)
        self.residual_numbers = rng.integers(2**nbits, size=(self.n_tokens, dim), dtype=np.uint8)
        self.residuals = pack(self.residual_numbers, nbits)
        self.centroids = unit_rows(rng, n_centroids, dim)
        self.passages = np.sort(rng.integers(max(n_windows // 2, 1), size=n_windows)).astype(np.int64)
        self.live = (rng.random(n_windows) < 0.8).astype(np.uint8)
        lists = [np.flatnonzero(rng.random(n_windows) < 0.3) for _ in range(n_centroids)]
        self.lists = lists
        self.list_offsets = np.cumsum([0, *map(len, lists)]).astype(np.int64)
        self.list_windows = np.concatenate(lists).astype(np.int32)

    def __repr__(self):
        return f"World({self.dim=}, {self.n_q=}, {self.n_windows=}, {self.longest=}, {self.n_centroids=}, {self.nbits=})"

    def byte_rows(self, n):
        rows = np.full((n, self.width), 128, np.uint8)
        rows[:, : self.dim] = self.rng.choice([0, 255], (n, self.dim)) if self.rng.random() < 0.3 else self.any_bytes(n)
        return rows

    def any_bytes(self, n):
        return self.rng.integers(256, size=(n, self.dim))

    @cached_property
    def float_blocks(self):
        filled = np.zeros((len(self.blocks) * BLOCK, self.dim), np.float32)
        filled[: self.n_q] = self.query
        return by_block(filled.T.copy().T).copy()

    @cached_property
    def padded_levels(self):
        return np.concatenate([self.levels, np.zeros(max(16 - len(self.levels), 0), np.float32)])

    @cached_property
    def decoded(self):
        vectors = self.centroids[self.codes].astype(np.float64) + self.levels[self.residual_numbers]
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def products(self, rows):
        """Of query vectors and rows of bytes. *Shape:* (n_blocks * 32, n)."""
        return self.numbers.astype(np.int64) @ (rows.astype(np.int64) - 128).T


def check_quantize_query(isa, world, memory):
    n_blocks = len(world.blocks)
    blocks = memory.room((n_blocks, world.width // 4, BLOCK, 4), np.int8, 0)
    scales, starts = memory.room((n_blocks, BLOCK), np.float32, 0), memory.room((n_blocks, BLOCK), np.int32, 0)
    scoring.quantize_query(memory.given(world.query), blocks, scales, starts)
    np.testing.assert_array_equal(blocks, world.blocks)
    np.testing.assert_array_equal(scales, world.scales)
    np.testing.assert_array_equal(starts, world.starts)


def check_score_centroids(isa, world, memory):
    n_rows = -(-world.n_centroids // 4) * 4
    rows, row_scale = world.byte_rows(n_rows), np.float32(world.rng.choice([0.2, 1, 5]) / 127)
    shape = (len(world.blocks), n_rows, BLOCK)
    shorts, bytes_ = memory.room(shape, np.int16), memory.room(shape, np.uint8)
    scoring.score_centroids(
        isa,
        memory.given(rows),
        row_scale,
        memory.given(world.blocks),
        memory.given(world.scales),
        memory.given(world.starts),
        shorts,
        bytes_,
    )
    scales = (world.scales * row_scale).reshape(-1, 1)
    cosines = by_block(world.products(rows).astype(np.float32) * scales)
    assert cosines.dtype == np.float32
    np.testing.assert_array_equal(shorts, np.rint(np.clip(cosines * np.float32(16384), -32768, 32767)))
    # The product and the sum are rounded once or twice, as the processor has it: a half may go either way.
    exact = np.clip(cosines.astype(np.float64) * 200 + 55, 0, 255)
    assert np.abs(bytes_ - exact).max(initial=0) < 0.5001


def check_nearest_cells(isa, world, memory):
    rng, n = world.rng, world.n_centroids
    shorts = rng.integers(-5, 6, size=(2, n, BLOCK)).astype(np.int16)
    shorts[:, rng.random(n) < 0.3] = NOWHERE
    first, last = sorted(rng.integers(0, n + 1, size=2).tolist())
    n_q, nprobe = min(world.n_q, BLOCK), int(rng.integers(1, 9))
    cells, cosines = memory.room((BLOCK, nprobe), np.int32), memory.room((BLOCK, nprobe), np.int16)
    scoring.nearest_cells(memory.given(shorts), 1, first, last, n_q, cells, cosines)
    for q in range(BLOCK):
        mine = shorts[1, first:last, q].astype(int)
        order = [int(cell) for cell in np.argsort(-mine, kind="stable") if mine[cell] != NOWHERE][:nprobe] * (q < n_q)
        missing = nprobe - len(order)
        assert cells[q].tolist() == [first + cell for cell in order] + [-1] * missing
        assert cosines[q].tolist() == [mine[cell] for cell in order] + [NOWHERE] * missing


def check_listed_windows(isa, world, memory):
    cells = world.rng.integers(-1, world.n_centroids, size=world.rng.integers(0, 12)).astype(np.int32)
    marked, found = memory.room(world.n_windows, np.uint8, 0), memory.room(world.n_windows + 1, np.int32)
    count = scoring.listed_windows(
        memory.given(cells),
        memory.given(world.list_offsets),
        memory.given(world.list_windows),
        memory.given(world.live),
        marked,
        found,
    )
    listed = {int(window) for cell in cells if cell >= 0 for window in world.lists[cell]}
    assert found[:count].tolist() == sorted(window for window in listed if world.live[window])
    assert not marked.any()


def check_passages_of(isa, world, memory):
    n = len(world.some)
    scores = world.rng.integers(0, 50, size=n).astype(np.int32)
    firsts, heights = memory.room(n, np.int32), memory.room(n, np.int32)
    count = scoring.passages_of(memory.given(world.some), memory.given(world.passages), memory.given(scores), firsts, heights)
    mine = world.passages[world.some]
    passages = sorted(set(mine.tolist()))
    assert firsts[:count].tolist() == [world.some[mine == passage].min() for passage in passages]
    assert heights[:count].tolist() == [scores[mine == passage].max() for passage in passages]


def check_windows_of(isa, world, memory):
    by_passage = dict(zip(world.passages[world.some].tolist(), world.some.tolist(), strict=True))
    firsts = np.array(sorted(by_passage.values()), np.int32)
    found = memory.room(world.n_windows + 1, np.int32)
    count = scoring.windows_of(memory.given(firsts), memory.given(world.passages), memory.given(world.live), found)
    wanted = np.isin(world.passages, list(by_passage)) & (world.live == 1)
    assert found[:count].tolist() == np.flatnonzero(wanted).tolist()


def check_accumulate(isa, world, memory):
    rng, nprobe = world.rng, min(world.n_centroids, 5)
    cells, cosines = np.full((BLOCK, nprobe), -1, np.int32), np.full((BLOCK, nprobe), NOWHERE, np.int16)
    expected = rng.integers(0, 9, size=world.n_windows).astype(np.int32)
    before = expected.copy()
    for q in range(BLOCK):
        n = rng.integers(0, nprobe + 1)
        cells[q, :n] = rng.permutation(world.n_centroids)[:n]
        cosines[q, :n] = np.sort(rng.integers(-32767, 32768, size=n))[::-1]
        gains = np.zeros(world.n_windows, np.int64)
        for cell, cosine in zip(cells[q, :n], cosines[q, :n], strict=True):
            gains[world.lists[cell]] = np.maximum(gains[world.lists[cell]], int(cosine) - int(cosines[q, n - 1]) + 1)
        expected += gains.astype(np.int32)
    sums = memory.room(world.n_windows, np.int64, 0)
    sums[:] = before + (rng.integers(0, 65, size=world.n_windows) << 32)  # of two blocks before
    lists = memory.given(world.list_offsets), memory.given(world.list_windows)
    scoring.accumulate(memory.given(cells), memory.given(cosines), *lists, 65, sums)
    np.testing.assert_array_equal(sums % 2**32, expected)


def check_interact(isa, world, memory):
    bytes_ = world.rng.integers(256, size=(len(world.blocks), world.n_centroids, BLOCK)).astype(np.uint8)
    scores = memory.room(len(world.windows), np.int32)
    scoring.interact(
        memory.given(bytes_), memory.given(world.codes), memory.given(world.offsets), memory.given(world.windows), scores
    )
    lanes = of_lanes(bytes_[:, world.codes]).astype(int)
    assert scores.tolist() == sums_of_best(lanes, world.offsets, world.windows).tolist()


def check_best_of(isa, world, memory):
    m = world.n_windows + 1
    scores = world.rng.integers(0, world.rng.choice([1, 4, 1000]), size=m).astype(np.int32)
    n = int(world.rng.integers(1, m + 1))
    most = int(world.rng.integers(n, m + 1))
    chosen, counts = memory.room(m, np.int32), memory.room(int(scores.max()) + 1, np.int32)
    count = scoring.best_of(memory.given(scores), n, most, chosen, counts)
    bar = np.sort(scores)[-n]
    above, equal = np.flatnonzero(scores > bar), np.flatnonzero(scores == bar)
    assert chosen[:count].tolist() == sorted([*above, *equal[: most - len(above)]])


def residual_arguments(world, memory):
    packed = [memory.given(array) for array in (world.codes, world.residuals)]
    return packed, [memory.given(world.offsets), memory.given(world.windows)]


def check_score_residuals(isa, world, memory):
    rng = world.rng
    (codes, residuals), of_windows = residual_arguments(world, memory)
    level_bytes, level_scale = rng.integers(1, 256, size=2**world.nbits).astype(np.uint8), np.float32(0.3 / 127)
    lengths = rng.integers(10_000, 65_536, size=world.n_tokens).astype(np.uint16)
    shorts = rng.integers(-20_000, 20_000, size=(len(world.blocks), world.n_centroids, BLOCK)).astype(np.int16)
    scores = memory.room(len(world.windows), np.float32)
    scoring.score_residuals(
        isa,
        world.nbits,
        codes,
        residuals,
        memory.given(lengths),
        *of_windows,
        memory.given(np.resize(level_bytes, 256)),
        level_scale,
        memory.given(world.blocks),
        memory.given(world.scales),
        memory.given(world.starts),
        memory.given(shorts),
        memory.room((4, world.width), np.uint8),
        scores,
    )
    rows = np.full((world.n_tokens, world.width), 128, np.uint8)
    rows[:, : world.dim] = level_bytes[world.residual_numbers]
    scales = world.scales.astype(np.float64).reshape(-1, 1) * level_scale
    of_centroids = of_lanes(shorts[:, world.codes]) / 16384
    cosines = (world.products(rows) * scales + of_centroids) * (lengths / 32768)
    expected = sums_of_best(cosines, world.offsets, world.windows)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-3)


def check_score_bytes(isa, world, memory):
    rows, row_scale = world.byte_rows(world.n_tokens), np.float32(1 / 127)
    _, of_windows = residual_arguments(world, memory)
    scores = memory.room(len(world.windows), np.float32)
    query = [memory.given(array) for array in (world.blocks, world.scales, world.starts)]
    scoring.score_bytes(isa, memory.given(rows), row_scale, *of_windows, *query, scores)
    cosines = world.products(rows) * (world.scales.astype(np.float64).reshape(-1, 1) * row_scale)
    expected = sums_of_best(cosines, world.offsets, world.windows)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5 * world.n_q)


def check_score_floats(isa, world, memory):
    vectors = unit_rows(world.rng, world.n_tokens, world.dim)
    _, of_windows = residual_arguments(world, memory)
    scores = memory.room(len(world.windows), np.float32)
    scoring.score_floats(isa, memory.given(vectors), *of_windows, memory.given(world.float_blocks), scores)
    expected = sums_of_best(world.query.astype(np.float64) @ vectors.T, world.offsets, world.windows)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5 * world.n_q)


def check_score_exactly(isa, world, memory):
    packed, of_windows = residual_arguments(world, memory)
    scores = memory.room(len(world.windows), np.float32)
    of_codec = [memory.given(array) for array in (world.centroids, world.padded_levels, world.float_blocks)]
    vectors = memory.room((int(np.diff(world.offsets).max(initial=0)), world.dim), np.float32)
    scoring.score_exactly(isa, world.nbits, *packed, *of_windows, *of_codec, vectors, scores)
    expected = sums_of_best(world.query.astype(np.float64) @ world.decoded.T, world.offsets, world.windows)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5 * world.n_q)


def check_to_bytes(isa, world, memory):
    vectors, scale = unit_rows(world.rng, world.n_tokens, world.dim), np.float32(world.rng.choice([0.2, 1]) / 127)
    rows = memory.room((world.n_tokens, world.width), np.uint8)
    building.to_bytes(memory.given(vectors), scale, rows)
    np.testing.assert_allclose(rows[:, : world.dim], np.clip(vectors / scale, -127, 127) + 128, atol=0.5001)
    assert (rows[:, world.dim :] == 128).all()


def check_nearest_rows(isa, world, memory):
    n_rows = -(-world.n_centroids // 4) * 4
    rows = world.byte_rows(n_rows)
    rows[world.n_centroids :] = rows[world.n_centroids - 1]
    vectors = unit_rows(world.rng, world.n_tokens, world.dim) * np.float32(world.rng.choice([1e-3, 1, 1e3]))
    vectors[world.rng.random(world.n_tokens) < 0.1] = 0
    nearest = memory.room(world.n_tokens, np.int32)
    building.nearest_rows(isa, memory.given(vectors), memory.given(rows), nearest)
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    numbers = np.rint(vectors * (np.float32(127) / np.maximum(largest, np.float32(1e-20)))).astype(np.int64)
    products = numbers @ (rows[:, : world.dim].astype(np.int64) - 128).T
    np.testing.assert_array_equal(nearest, products.argmax(axis=1))


def check_add_up(isa, world, memory):
    vectors, groups = unit_rows(world.rng, world.n_tokens, world.dim), world.codes.astype(np.int32)
    shape = (world.n_centroids, world.dim)
    sums, counts = memory.room(shape, np.float32, 1), memory.room(world.n_centroids, np.int64, 2)
    building.add_up(memory.given(vectors), memory.given(groups), sums, counts)
    expected = np.ones(shape, np.float64)
    np.add.at(expected, groups, vectors)
    np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(counts, 2 + np.bincount(groups, minlength=world.n_centroids))


def check_pack_residuals(isa, world, memory):
    spread = world.rng.standard_normal((world.n_tokens, world.dim)).astype(np.float32) * 0.3 / np.float32(world.dim) ** 0.5
    nearest = world.codes.astype(np.int32)
    vectors = (world.centroids[nearest] + spread).astype(np.float32)
    residuals = memory.room((world.n_tokens, row_bytes(world.dim, world.nbits)), np.uint8, 0)
    of_codec = memory.given(world.centroids), memory.given(world.levels)
    building.pack_residuals(memory.given(vectors), memory.given(nearest), *of_codec, world.nbits, residuals)
    cuts = (world.levels[1:] + world.levels[:-1]) / np.float32(2)
    numbers = np.searchsorted(cuts, vectors - world.centroids[nearest]).astype(np.uint8)
    np.testing.assert_array_equal(residuals, pack(numbers, world.nbits))


def check_measure(isa, world, memory):
    packed, _ = residual_arguments(world, memory)
    lengths = memory.room(world.n_tokens, np.uint16)
    building.measure(*packed, memory.given(world.centroids), memory.given(world.levels), world.nbits, lengths)
    vectors = world.centroids[world.codes].astype(np.float64) + world.levels[world.residual_numbers]
    exact = np.minimum(32768 / np.maximum(np.linalg.norm(vectors, axis=1), 1e-6), 65535)
    assert np.abs(lengths - exact).max(initial=0) < 0.7


def check_decompress(isa, world, memory):
    packed, _ = residual_arguments(world, memory)
    vectors = memory.room((world.n_tokens, world.dim), np.float32)
    of_codec = memory.given(world.centroids), memory.given(world.padded_levels)
    building.decompress(isa, *packed, *of_codec, world.nbits, vectors)
    np.testing.assert_allclose(vectors, world.decoded, rtol=1e-5, atol=1e-6)


OF_EITHER = [
    check_score_centroids,
    check_score_residuals,
    check_score_bytes,
    check_score_floats,
    check_score_exactly,
    check_nearest_rows,
    check_decompress,
]
OF_ANY = [
    check_quantize_query,
    check_nearest_cells,
    check_listed_windows,
    check_passages_of,
    check_windows_of,
    check_accumulate,
    check_interact,
    check_best_of,
    check_to_bytes,
    check_add_up,
    check_pack_residuals,
    check_measure,
]


def named(checks):
    return pytest.mark.parametrize("check", checks, ids=[check.__name__.removeprefix("check_") for check in checks])


worlds = st.builds(
    World,
    seed=st.integers(0, 10**6),
    dim=st.integers(1, 300) | st.sampled_from([1, 15, 16, 17, 48, 64, 96, 128, 256]),
    n_q=st.integers(1, 100) | st.sampled_from([32, 33, 64]),
    n_windows=st.integers(0, 30),
    longest=st.sampled_from([1, 2, 5, 40]),
    n_centroids=st.integers(1, 50),
    nbits=st.sampled_from(NBITS),
    wide_codes=st.booleans(),
    sharp=st.booleans(),
    share=st.sampled_from([0, 0.5, 1]),
)


@both_instruction_sets
@named(OF_EITHER)
@given(world=worlds)
@settings(max_examples=40)
def test_a_kernel_of_either_instruction_set_is_its_definition(check, isa, world):
    check(isa, world, Plain())


@named(OF_ANY)
@given(world=worlds)
@settings(max_examples=40)
def test_a_kernel_is_its_definition(check, world):
    check(None, world, Plain())


@needs_vnni
@given(world=worlds)
@settings(max_examples=40)
def test_both_instruction_sets_give_the_same_integers(world):
    rows, vectors = world.byte_rows(-(-world.n_centroids // 4) * 4), unit_rows(world.rng, world.n_tokens, world.dim)
    found = []
    for isa in (PORTABLE, VNNI):
        shape = (len(world.blocks), len(rows), BLOCK)
        shorts, bytes_, nearest = np.empty(shape, np.int16), np.empty(shape, np.uint8), np.empty(len(vectors), np.int32)
        query = world.blocks, world.scales, world.starts
        scoring.score_centroids(isa, rows, np.float32(1 / 127), *query, shorts, bytes_)
        building.nearest_rows(isa, vectors, rows, nearest)
        found.append((shorts.tolist(), bytes_.tolist(), nearest.tolist()))
    assert found[0] == found[1]


@both_instruction_sets
@given(world=worlds)
@settings(max_examples=20)
def test_a_windows_score_does_not_depend_on_its_company(isa, world):
    vectors, blocks = world.decoded.astype(np.float32), world.float_blocks
    room = np.empty((world.longest, world.dim), np.float32)

    def score(windows):
        floats, exact = np.empty(len(windows), np.float32), np.empty(len(windows), np.float32)
        scoring.score_floats(isa, vectors, world.offsets, windows, blocks, floats)
        packed = world.codes, world.residuals, world.offsets, windows
        scoring.score_exactly(isa, world.nbits, *packed, world.centroids, world.padded_levels, blocks, room, exact)
        return np.stack([floats, exact], axis=1)

    together = score(world.windows)
    for place in range(len(world.windows)):
        assert score(world.windows[place : place + 1]).tolist() == together[place : place + 1].tolist()


@given(
    n=st.integers(1, 9),
    dim=st.integers(1, 70),
    n_q=st.integers(1, 70),
    multiple=st.sampled_from([1, 4]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_what_kernels_read_is_made_by_the_definitions(n, dim, n_q, multiple, seed):
    rng = np.random.default_rng(seed)
    vectors, query = unit_rows(rng, n, dim), unit_rows(rng, n_q, dim)
    rows = ByteRows.of(vectors, multiple)
    width = -(-dim // 16) * 16
    assert rows.rows.shape == (-(-n // multiple) * multiple, width)
    assert np.abs((rows.rows[:n, :dim] - 128.0) * rows.scale - vectors).max() <= rows.scale * 0.501
    assert rows.rows[n:].tolist() == [rows.rows[n - 1].tolist()] * (len(rows.rows) - n)
    blocks, (_, bytes_, scales, starts) = QueryBlocks.of(query, width), query_blocks(query, width)
    for mine, wanted in ((blocks.bytes, bytes_), (blocks.scales, scales), (blocks.starts, starts)):
        np.testing.assert_array_equal(mine, wanted)
    in_floats = float_blocks(query).transpose(0, 2, 1).reshape(-1, dim)
    np.testing.assert_array_equal(in_floats[:n_q], query)
    assert not in_floats[n_q:].any()


def test_an_array_for_the_kernels_is_the_same_memory(tmp_path):
    np.save(tmp_path / "rows.npy", np.arange(12, dtype=np.float32).reshape(3, 4))
    mapped, usual = np.load(tmp_path / "rows.npy", mmap_mode="r"), np.ones((3, 4), np.float32)
    assert np.shares_memory(plain(mapped), mapped)
    assert plain(usual) is usual
    for array in (mapped, mapped[:0], np.broadcast_to(np.float32(1), (3, 4)), usual.T, usual[:, ::2]):
        made = plain(array)
        assert made.flags.writeable and made.flags.c_contiguous and made.flags.aligned
        assert made.tolist() == array.tolist()
    off = np.frombuffer(b"x" + np.arange(3, dtype=np.float32).tobytes(), np.uint8)[1:].view(np.float32)
    assert not off.flags.aligned and plain(off).flags.aligned
    assert plain(off).tolist() == [0, 1, 2]


def test_every_thread_has_scratch_memory_of_its_own():
    def ask(size):
        array = kernels.scratch.array("of a test", (size, 2), np.int32)
        assert array.shape == (size, 2)
        return array, kernels.scratch.array("of a test", (3,), np.int32)

    mine, again = ask(5)
    assert np.shares_memory(mine, again)
    with ThreadPoolExecutor(1) as pool:
        assert not np.shares_memory(mine, pool.submit(ask, 5).result()[0])
    assert not kernels.scratch.array("zeros of a test", (100,), np.uint8, zeros=True).any()


# In processes of their own


def run_python(code, **environment):
    """Run code in a process of its own, which finds this module as ``test_kernels``; returns what it prints."""
    changed = os.environ | {"PYTHONPATH": f"{HERE}{os.pathsep}{PACKAGE.parent}"} | environment
    done = subprocess.run([sys.executable, "-P", "-c", code], env=changed, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"it ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@needs_linux
@both_instruction_sets
@pytest.mark.parametrize("at_end", [True, False], ids=["at the end", "at the start"])
def test_no_kernel_touches_memory_beyond_its_arrays(isa, at_end):
    code = f"import test_kernels; test_kernels.check_the_ends_of_memory({type(isa).__name__!r}, at_end={at_end})"
    assert run_python(code).strip() == "done"


def check_the_ends_of_memory(isa, *, at_end):
    isa = {"Vnni": VNNI, "Portable": PORTABLE}[isa]
    for seed, dim in enumerate([1, 7, 16, 33, 48, 100, 128]):
        for nbits in NBITS:
            for n_q, n_windows, longest, wide_codes in ((1, 1, 1, False), (5, 9, 1, True), (33, 24, 7, False)):
                world = World(seed, dim, n_q, n_windows, longest, 5, nbits, wide_codes=wide_codes)
                for check in OF_EITHER + OF_ANY * (isa is PORTABLE):
                    print(check.__name__, world, file=sys.stderr, flush=True)
                    check(isa, world, Guarded(at_end=at_end))
    print("done")


@needs_linux
@pytest.mark.parametrize("touch", ["array[-1:].ctypes.data + 4", "array.ctypes.data - 4"], ids=["after", "before"])
def test_a_guard_page_ends_the_process_that_touches_it(touch):
    """Else the tests above would show nothing."""
    code = f"""
import ctypes, numpy as np, test_kernels
array = test_kernels.Guarded(at_end={"+" in touch}).given(np.arange(9, dtype=np.float32))
print(ctypes.c_float.from_address(array.ctypes.data + 8).value, flush=True)
ctypes.c_float.from_address({touch}).value
"""
    with pytest.raises(AssertionError, match=r"ended with -(11|10|7):\s+2.0"):
        run_python(code)


HASWELL = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+avx2,+avx,+fma,+bmi,+bmi2,+lzcnt,+popcnt,+f16c,+sse4.2,+sse4.1,+ssse3,+sse3",
}


def has_avx2():
    features = llvmlite.binding.get_host_cpu_features()
    return platform.machine() in ("x86_64", "AMD64") and all(features.get(name) for name in ("avx2", "fma", "bmi2", "f16c"))


@pytest.mark.skipif(not has_avx2(), reason="this processor has no AVX2")
def test_the_portable_kernels_work_on_a_processor_with_avx2(tmp_path):
    code = "import test_kernels; test_kernels.check_on_avx2()"
    assert run_python(code, NUMBA_CACHE_DIR=str(tmp_path), **HASWELL).strip().endswith("done")


def check_on_avx2():
    checks = {
        check_score_centroids: scoring.score_centroids,
        check_interact: scoring.interact,
        check_score_residuals: scoring.score_residuals,
        check_score_bytes: scoring.score_bytes,
        check_score_floats: scoring.score_floats,
        check_nearest_rows: building.nearest_rows,
    }
    for seed, (dim, n_q) in enumerate([(1, 1), (33, 40), (48, 32), (128, 32), (300, 70)]):
        for nbits in NBITS:
            for check in checks:
                check(PORTABLE, World(seed, dim, n_q, 20, 9, 30, nbits, sharp=seed % 2 == 1), Plain())
    for kernel in checks.values():
        (assembly,) = kernel.inspect_asm().values()
        assert "ymm" in assembly and "zmm" not in assembly, kernel
    print("done")


# The cache on disk


def lowest_kernel(code=""):
    return f"""
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
import numpy as np
from colbert_core.kernels import compiling, scoring
table = np.repeat(np.array([[[3], [1], [2]]], np.uint8), 32, axis=2)
def score(kernel):
    scores = np.zeros(1, np.int32)
    kernel(table, np.array([0, 1, 2], np.uint16), np.array([0, 3]), np.zeros(1, np.int32), scores)
    return scores[0]
{code}
print(score(scoring.interact))
"""


SCORED, COMPILED = "96\n", "Compiling for this processor what searches and builds indexes; this takes some seconds, once.\n96\n"


def content(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_what_one_process_compiled_the_next_one_loads(tmp_path):
    assert run_python(lowest_kernel(), NUMBA_CACHE_DIR=str(tmp_path)) == COMPILED
    files = content(tmp_path)
    assert [name.split("-")[0] for name in files] == ["interact"]
    assert all(path.stat().st_mode & 0o044 for path in tmp_path.rglob("*.kernel"))  # others may read them
    assert run_python(lowest_kernel(), NUMBA_CACHE_DIR=str(tmp_path)) == SCORED
    assert content(tmp_path) == files


def copied(tmp_path):
    """A copy of the package, and the environment of a process that imports it and has nothing compiled yet."""
    copy = tmp_path / "copy" / "colbert_core"
    hidden = shutil.ignore_patterns("__pycache__", "default_model", "quickstart")
    shutil.copytree(PACKAGE, copy, ignore=hidden)
    return copy, {"PYTHONPATH": str(copy.parent), "XDG_CACHE_HOME": str(tmp_path / "home"), "NUMBA_CACHE_DIR": ""}


def test_changed_sources_are_compiled_anew(tmp_path):
    copy, environment = copied(tmp_path)
    assert run_python(lowest_kernel(), **environment) == COMPILED
    vocabulary = copy / "kernels" / "vector.py"
    text = vocabulary.read_text()
    assert text.count('types.uint8: "umax"') == 1
    vocabulary.write_text(text.replace('types.uint8: "umax"', 'types.uint8: "umin"'))
    assert run_python(lowest_kernel(), **environment) == COMPILED.replace("96", "32")


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the user's cache is elsewhere")
def test_kernels_lie_beside_their_source_or_else_in_the_users_cache(tmp_path):
    copy, environment = copied(tmp_path)
    beside, home = copy / "kernels" / "__pycache__", tmp_path / "home"
    assert run_python(lowest_kernel(), **environment) == COMPILED
    assert len(list(beside.glob("*.kernel"))) == 1
    assert not home.exists()
    shutil.rmtree(beside)
    beside.write_text("in the way")
    assert run_python(lowest_kernel(), **environment) == COMPILED
    assert [path.suffix for path in (home / "colbert-retrievers").iterdir()] == [".kernel"]
    assert run_python(lowest_kernel(), **environment) == SCORED


def test_kernels_work_where_nothing_can_be_written(tmp_path):
    copy, environment = copied(tmp_path)
    for path in (copy / "kernels" / "__pycache__", tmp_path / "home"):
        path.write_text("in the way")
    for folder in ("", str(tmp_path / "home" / "deeper")):
        assert run_python(lowest_kernel(), **environment | {"NUMBA_CACHE_DIR": folder}) == COMPILED


POWERLESS = """
import ctypes, tempfile
libc = ctypes.CDLL(None)
header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()  # root may write anywhere, else
assert libc.capset(header, nothing) == 0
try:
    tempfile.TemporaryFile(dir={folder!r})
except PermissionError:
    print("not to be written")
"""


@needs_linux
def test_a_filled_folder_that_cannot_be_written_to_is_used(tmp_path):
    folder = tmp_path / "colbert_core"
    powerless = lowest_kernel(POWERLESS.format(folder=str(folder)))
    folder.mkdir(mode=0o555)
    assert run_python(powerless, NUMBA_CACHE_DIR=str(tmp_path)) == "not to be written\n" + COMPILED
    assert content(tmp_path) == {}
    folder.chmod(0o755)
    assert run_python(lowest_kernel(), NUMBA_CACHE_DIR=str(tmp_path)) == COMPILED
    folder.chmod(0o555)
    files = content(tmp_path)
    assert run_python(powerless, NUMBA_CACHE_DIR=str(tmp_path)) == "not to be written\n" + SCORED
    assert content(tmp_path) == files
    folder.chmod(0o755)


def test_damaged_files_are_compiled_over(tmp_path):
    code = """
from pathlib import Path
score(scoring.interact)
(path,) = Path(compiling._folders()[0]).iterdir()
whole = path.read_bytes()
n = len(whole)
flipped = [bytes([*whole[:at], whole[at] ^ 1, *whole[at + 1 :]]) for at in (5, n // 2, n - 1)]
for damaged in (b"", whole[:100], whole[: n // 2], whole[:-1], bytes(n), b"N.", *flipped):
    path.write_bytes(damaged)
    assert score(compiling.compiled(scoring.interact.py_func)) == 96
    before = path.stat().st_mtime_ns
    assert len(path.read_bytes()) > n // 2 and path.read_bytes() != damaged, damaged[:9]
    assert score(compiling.compiled(scoring.interact.py_func)) == 96
    assert path.stat().st_mtime_ns == before and len(list(path.parent.iterdir())) == 1
"""
    assert run_python(lowest_kernel(code), NUMBA_CACHE_DIR=str(tmp_path)) == COMPILED


def test_processes_may_compile_at_once(tmp_path):
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(run_python, lowest_kernel(), NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(3)]
        assert all(run.result() in (COMPILED, SCORED) for run in runs)
    assert len(content(tmp_path)) == 1
    assert run_python(lowest_kernel(), NUMBA_CACHE_DIR=str(tmp_path)) == SCORED


# In an index


def random_collection(n, dim, seed, low=5, high=30):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(low, high, size=n)
    vectors = np.split(unit_rows(rng, int(lengths.sum()), dim), np.cumsum(lengths)[:-1])
    return [Passage(f"{i:05}", f"passage {i}") for i in range(n)], vectors, rng


def test_a_small_index_needs_neither_numba_nor_torch():
    code = """
import sys
import numpy as np
from colbert_core import Index, Passage
with Index.create(None, dim=8) as index:
    vectors = np.random.default_rng(0).standard_normal((30, 4, 8))
    index.add([Passage(str(i), "text") for i in range(30)], embeddings=list(vectors))
    print([hit.passage.id for hit in index.search(vectors[7], k=3)][0])
print([name for name in ("numba", "llvmlite", "torch", "faiss") if name in sys.modules])
"""
    assert run_python(code).split("\n")[:2] == ["7", "[]"]


@pytest.mark.parametrize("dim", [8, 33, 128])
def test_a_larger_index_finds_what_the_formula_does(dim):
    passages, vectors, rng = random_collection(800, dim, seed=dim)
    assert sum(map(len, vectors)) >= 8192
    with Index.create(None, dim=dim) as index:
        index.add(passages[:500], embeddings=vectors[:500])
        index.add(passages[500:], embeddings=vectors[500:])
        for n_q in (1, 32, 40):
            query = unit_rows(rng, n_q, dim)
            scores = np.array([(query.astype(np.float64) @ some.T).max(axis=1).sum() for some in vectors])
            best = np.argsort(-scores, kind="stable")[:10]
            hits = index.search(query, k=10)
            assert [hit.passage.id for hit in hits] == [passages[place].id for place in best]
            assert [hit.score for hit in hits] == pytest.approx(scores[best], rel=1e-5)
            everything = maxsim(query, np.concatenate(vectors), np.array([len(some) for some in vectors]))
            assert [hit.score for hit in hits] == pytest.approx(everything[best], rel=1e-5)


@pytest.mark.parametrize("nbits", [None, 4])
def test_searching_from_eight_threads_finds_what_one_does(nbits):
    passages, vectors, rng = random_collection(1500, 32, seed=5)
    with Index.create(None, dim=32, nbits=nbits) as index:
        index.add(passages, embeddings=vectors)
        index.compact()
        queries = [unit_rows(rng, int(n_q), 32) for n_q in rng.integers(1, 70, size=40)]
        alone = [index.search(query, k=10) for query in queries]
        with ThreadPoolExecutor(8) as pool:
            for _ in range(3):
                assert list(pool.map(lambda query: index.search(query, k=10), queries)) == alone


# Threads


def all_kernels():
    found = {
        name: each for module in (scoring, building) for name, each in vars(module).items() if hasattr(each, "targetoptions")
    }
    return {name: each for name, each in found.items() if type(each._cache).__name__ == "_KernelCache"}


def test_every_kernel_is_tested_and_runs_without_the_gil():
    found = all_kernels()
    assert set(found) == {check.__name__.removeprefix("check_") for check in OF_EITHER + OF_ANY}
    assert all(kernel.targetoptions["nogil"] for kernel in found.values())


def test_python_goes_on_while_a_kernel_runs():
    vectors, blocks = unit_rows(np.random.default_rng(0), 2000, 128), np.ones((1, 128, BLOCK), np.float32)
    offsets, scores = longs(0, 2000), np.empty(2000, np.float32)
    arguments = kernels.instruction_set(), vectors, offsets
    scoring.score_floats(*arguments, np.zeros(1, np.int32), blocks, scores[:1])
    turns, started, done = [0], threading.Event(), threading.Event()

    def count():
        while not done.is_set():
            turns[0] += 1
            started.set()
            time.sleep(0.001)  # which gives the GIL away

    counter = threading.Thread(target=count)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(100)  # no thread gives it away unasked
    try:
        counter.start()
        started.wait()
        before = turns[0]
        scoring.score_floats(*arguments, np.zeros(2000, np.int32), blocks, scores)
        after = turns[0]
    finally:
        sys.setswitchinterval(interval)
        done.set()
        counter.join()
    assert after > before


def test_compiling_is_announced_once(caplog, tmp_path, monkeypatch):
    from colbert_core.kernels import compiling

    monkeypatch.setattr(compiling.numba.config, "CACHE_DIR", str(tmp_path))
    compiling._announce.cache_clear()
    with caplog.at_level(logging.INFO):
        for kernel in (scoring.best_of, scoring.passages_of):
            scores, rows, room = ints(3, 1), longs(0, 1), (np.empty(2, np.int32), np.empty(4, np.int32))
            fresh = compiling.compiled(kernel.py_func)
            assert fresh(scores, 1, 1, *room) == 1 if kernel is scoring.best_of else fresh(ints(0, 1), rows, scores, *room) == 2
    assert [record.name for record in caplog.records] == ["colbert_core.kernels.compiling"]
