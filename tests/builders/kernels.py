"""The definitions of all compiled kernels in NumPy, and memory that ends a process that reads or writes beyond an array."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import subprocess
import sys
from functools import cached_property
from pathlib import Path

import llvmlite.binding
import numpy as np
import pytest
from hypothesis import strategies as st

import colbert_core
from builders.processes import environment
from colbert_core import kernels
from colbert_core.kernels import AMX, BLOCK, LONG, NOWHERE, PORTABLE, VNNI, building, scoring
from colbert_core.vectors.codec import NBITS, pack, row_bytes

PACKAGE = Path(colbert_core.__file__).parent
needs_vnni = pytest.mark.skipif(kernels.instruction_set() is PORTABLE, reason="this processor has no AVX-512 VNNI")
needs_amx = pytest.mark.skipif(kernels.instruction_set() is not AMX, reason="this processor has no AMX")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="guard pages are made with Linux's mprotect")
each_instruction_set = pytest.mark.parametrize(
    "isa",
    [
        pytest.param(PORTABLE, id="PORTABLE"),
        pytest.param(VNNI, id="VNNI", marks=needs_vnni),
        pytest.param(AMX, id="AMX", marks=needs_amx),
    ],
)


def floats(*values):
    return np.array(values, np.float32)


def ints(*values):
    return np.array(values, np.int32)


def longs(*values):
    return np.array(values, np.int64)


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
        copy, protect = self._make(array.shape, array.dtype)
        copy[...] = array
        protect(mmap.PROT_READ)
        return copy

    def room(self, shape, dtype, value=None):
        array, _ = self._make(shape, np.dtype(dtype))
        array[...] = 77 if value is None else value
        return array

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
        self.chosen = np.flatnonzero(rng.random(n_windows) < share).astype(np.int32)
        any_order = rng.integers(n_windows, size=rng.integers(0, 9)) if n_windows else []
        self.windows = np.concatenate([self.chosen, any_order, [n_windows - 1] * bool(n_windows)]).astype(np.int32)
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
        memory.room((16, BLOCK), np.int32),
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
        of_query = shorts[1, first:last, q].astype(int)
        order = [int(cell) for cell in np.argsort(-of_query, kind="stable") if of_query[cell] != NOWHERE][:nprobe] * (q < n_q)
        missing = nprobe - len(order)
        assert cells[q].tolist() == [first + cell for cell in order] + [-1] * missing
        assert cosines[q].tolist() == [of_query[cell] for cell in order] + [NOWHERE] * missing


def check_listed_windows(isa, world, memory):
    cells = world.rng.integers(-1, world.n_centroids, size=world.rng.integers(0, 12)).astype(np.int32)
    marked, windows = memory.room(world.n_windows, np.uint8, 0), memory.room(world.n_windows + 1, np.int32)
    count = scoring.listed_windows(
        memory.given(cells),
        memory.given(world.list_offsets),
        memory.given(world.list_windows),
        memory.given(world.live),
        marked,
        windows,
    )
    listed = {int(window) for cell in cells if cell >= 0 for window in world.lists[cell]}
    assert windows[:count].tolist() == sorted(window for window in listed if world.live[window])
    assert not marked.any()


def check_passages_of(isa, world, memory):
    n = len(world.chosen)
    scores = world.rng.integers(0, 50, size=n).astype(np.int32)
    firsts, best = memory.room(n, np.int32), memory.room(n, np.int32)
    count = scoring.passages_of(memory.given(world.chosen), memory.given(world.passages), memory.given(scores), firsts, best)
    owners = world.passages[world.chosen]
    passages = sorted(set(owners.tolist()))
    assert firsts[:count].tolist() == [world.chosen[owners == passage].min() for passage in passages]
    assert best[:count].tolist() == [scores[owners == passage].max() for passage in passages]


def check_windows_of(isa, world, memory):
    by_passage = dict(zip(world.passages[world.chosen].tolist(), world.chosen.tolist(), strict=True))
    firsts = np.array(sorted(by_passage.values()), np.int32)
    windows = memory.room(world.n_windows + 1, np.int32)
    count = scoring.windows_of(memory.given(firsts), memory.given(world.passages), memory.given(world.live), windows)
    wanted = np.isin(world.passages, list(by_passage)) & (world.live == 1)
    assert windows[:count].tolist() == np.flatnonzero(wanted).tolist()


def check_accumulate(isa, world, memory):
    rng, nprobe, m = world.rng, min(world.n_centroids, 5), world.n_windows
    shape = BLOCK * int(rng.integers(1, 4)), nprobe
    cells, cosines = np.full(shape, -1, np.int32), np.full(shape, NOWHERE, np.int16)
    sums = np.zeros(m, np.int64)
    for q in range(len(cells)):
        n = rng.integers(0, nprobe + 1)
        cells[q, :n] = rng.permutation(world.n_centroids)[:n]
        cosines[q, :n] = np.sort(rng.integers(-32767, 32768, size=n))[::-1]
        gains = np.zeros(m, np.int64)
        for cell, cosine in zip(cells[q, :n], cosines[q, :n], strict=True):
            gains[world.lists[cell]] = np.maximum(gains[world.lists[cell]], int(cosine) - int(cosines[q, n - 1]) + 1)
        sums += gains
    n, shift, width = int(rng.integers(1, m + 2)), int(rng.choice([0, 3, 12, 30])), int(rng.choice([1, 7, 64]))
    sum_bits = (len(cells) << 16).bit_length()
    wide = sum_bits + len(cells).bit_length() >= 32 or rng.random() < 0.5
    room = memory.room(shape, np.int64), memory.room(min(width, m), np.int64 if wide else np.int32)
    counts, bar = memory.room(int(rng.choice([1, 5, 5000])), np.int64, 0), memory.room(2, np.int64, 0)
    found, scores = memory.room(m, np.int32), memory.room(m, np.int64)
    count = 0
    if m:
        count = scoring.accumulate(
            memory.given(cells),
            memory.given(cosines),
            memory.given(world.list_offsets),
            memory.given(world.list_windows),
            memory.given(world.live),
            n,
            sum_bits,
            shift,
            *room,
            counts,
            bar,
            found,
            scores,
        )
    assert (np.diff(found[:count]) > 0).all()
    assert scores[:count].tolist() == sums[found[:count]].tolist()
    possible = np.flatnonzero((sums > 0) & (world.live == 1))
    assert set(found[:count].tolist()) <= set(possible.tolist())
    nth = np.sort(sums[possible])[::-1][:n][-1:].tolist()
    assert {window for window in possible if sums[window] >= min(nth, default=0)} <= set(found[:count].tolist())


def check_interact(isa, world, memory):
    bytes_ = world.rng.integers(256, size=(len(world.blocks), world.n_centroids, BLOCK)).astype(np.uint8)
    scores = memory.room(len(world.windows), np.int32)
    scoring.interact(
        memory.given(bytes_), memory.given(world.codes), memory.given(world.offsets), memory.given(world.windows), scores
    )
    lanes = of_lanes(bytes_[:, world.codes]).astype(int)
    assert scores.tolist() == sums_of_best(lanes, world.offsets, world.windows).tolist()


def check_add_shifts(isa, world, memory):
    shifts, query = world.any_bytes(world.n_windows).astype(np.uint8), world.rng.integers(-127, 128, world.dim).astype(np.int8)
    before, scale = (
        world.rng.integers(0, 5000, len(world.windows)).astype(np.int32),
        np.float32(world.rng.choice([1e-4, 0.1, 1])),
    )
    scores = memory.room(len(world.windows), np.int32)
    scores[:] = before
    scoring.add_shifts(isa, memory.given(shifts), memory.given(world.windows), memory.given(query), scale, scores)
    products = (shifts.astype(np.int64) - 128) @ query.astype(np.int64)
    added = np.rint(products.astype(np.float32) * scale).astype(np.int64)
    assert scores.tolist() == np.maximum(before + added[world.windows], 0).tolist()


def check_best_of(isa, world, memory):
    m = world.n_windows + 1
    scores = world.rng.integers(0, world.rng.choice([1, 4, 1000]), size=m).astype(np.int32)
    n = int(world.rng.integers(1, m + 1))
    limit = int(world.rng.integers(n, m + 1))
    chosen, counts = memory.room(m, np.int32), memory.room(int(scores.max()) + 1, np.int32)
    count = scoring.best_of(memory.given(scores), n, limit, chosen, counts)
    bar = np.sort(scores)[-n]
    above, equal = np.flatnonzero(scores > bar), np.flatnonzero(scores == bar)
    assert chosen[:count].tolist() == sorted([*above, *equal[: limit - len(above)]])


def residual_arguments(world, memory):
    packed = [memory.given(array) for array in (world.codes, world.residuals)]
    return packed, [memory.given(world.offsets), memory.given(world.windows)]


def check_score_residuals(isa, world, memory):
    rng = world.rng
    (codes, residuals), of_windows = residual_arguments(world, memory)
    level_bytes, level_scale = rng.integers(1, 256, size=2**world.nbits).astype(np.uint8), np.float32(0.3 / 127)
    lengths = rng.integers(10_000, rng.choice([40_000, 65_536]), size=world.n_tokens).astype(np.uint16)
    below = rng.uniform(0, 0.5, size=world.scales.shape).astype(np.float32)
    near = memory.room((len(world.windows), rng.choice([0, world.longest])), np.uint8)
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
        memory.room((16, world.width), np.uint8),
        memory.room((16, BLOCK), np.int32),
        memory.given(below),
        memory.room((world.longest, BLOCK), np.float32),
        near,
        scores,
    )
    rows = np.full((world.n_tokens, world.width), 128, np.uint8)
    rows[:, : world.dim] = level_bytes[world.residual_numbers]
    scales = world.scales.astype(np.float64).reshape(-1, 1) * level_scale
    of_centroids = of_lanes(shorts[:, world.codes]) / 16384
    cosines = (world.products(rows) * scales + of_centroids) * (lengths / 32768)
    expected = sums_of_best(cosines, world.offsets, world.windows)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-3)
    for window, marks in zip(world.windows, near, strict=True):
        of_window = slice(world.offsets[window], world.offsets[window + 1])
        over = cosines[:, of_window] - cosines[:, of_window].max(axis=1, keepdims=True) + below.reshape(-1, 1)
        if (lengths[of_window] > LONG).any():
            over[:] = 1
        found = marks[: over.shape[1]]
        assert len(found) == over.shape[1] * bool(near.shape[1])
        assert found[over.max(axis=0)[: len(found)] > 1e-3].all() and not found[over.max(axis=0)[: len(found)] < -1e-3].any()


def check_score_bytes(isa, world, memory):
    rows, row_scale = world.byte_rows(world.n_tokens), np.float32(1 / 127)
    _, of_windows = residual_arguments(world, memory)
    scores = memory.room(len(world.windows), np.float32)
    query = [memory.given(array) for array in (world.blocks, world.scales, world.starts)]
    scoring.score_bytes(isa, memory.given(rows), row_scale, *of_windows, *query, memory.room((16, BLOCK), np.int32), scores)
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
    near = (world.rng.random((len(world.windows), world.longest)) < 0.7).astype(np.uint8)
    near[:, 0] = 1
    near = near[:, : world.rng.choice([0, world.longest])]
    scoring.score_exactly(isa, world.nbits, *packed, *of_windows, *of_codec, vectors, memory.given(near), scores)
    cosines = world.query.astype(np.float64) @ world.decoded.T
    lens = np.diff(world.offsets)[world.windows]
    nearest = [near[place, :n].astype(bool) if near.shape[1] else slice(None) for place, n in enumerate(lens)]
    of_windows = [cosines[:, world.offsets[window] : world.offsets[window + 1]] for window in world.windows]
    expected = [some[:, marks].max(axis=1).sum() for some, marks in zip(of_windows, nearest, strict=True)]
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
    building.nearest_rows(isa, memory.given(words_of(vectors, world.width)), memory.given(rows), nearest)
    products = quantized_rows(vectors) @ (rows[:, : world.dim].astype(np.int64) - 128).T
    np.testing.assert_array_equal(nearest, products.argmax(axis=1))


def check_nearest_listed(isa, world, memory):
    rng, n, n_rows, n_groups = world.rng, world.n_tokens, -(-world.n_centroids // 4) * 4, int(world.rng.integers(1, 6))
    rows, vectors = world.byte_rows(n_rows), unit_rows(rng, n, world.dim)
    lists = [np.sort(rng.choice(n_rows, 4 * rng.integers(0, n_rows // 4 + 1), replace=False)) for _ in range(n_groups)]
    members = [np.flatnonzero(rng.random(n) < 0.4) for _ in range(n_groups)]
    best, nearest = memory.room(n, np.int32, -(2**31)), memory.room(n, np.int32, -1)
    building.nearest_listed(
        isa,
        memory.given(words_of(vectors, world.width)),
        memory.given(np.concatenate(members).astype(np.int32)),
        memory.given(np.cumsum([len(numbers) for numbers in members])),
        memory.given(np.cumsum([0, *map(len, lists)])),
        memory.given(np.concatenate(lists).astype(np.int32)),
        memory.given(rows),
        best,
        nearest,
    )
    products = quantized_rows(vectors) @ rows[:, : world.dim].astype(np.int64).T  # with an offset of 128
    seen = np.zeros(products.shape, np.bool_)
    for numbers, listed in zip(members, lists, strict=True):
        seen[np.ix_(numbers, listed)] = True
    products[~seen] = -(2**31)
    np.testing.assert_array_equal(nearest, np.where(seen.any(axis=1), products.argmax(axis=1), -1))
    np.testing.assert_array_equal(best, products.max(axis=1))


def quantized_rows(vectors):
    """Whole numbers from -127 to 127, each row by a scale of its own."""
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    by = np.float32(127) / np.maximum(largest, np.float32(1e-20))
    return np.rint(vectors * by + np.float32(128)).astype(np.int64) - 128


def check_add_up(isa, world, memory):
    vectors, groups = unit_rows(world.rng, world.n_tokens, world.dim), world.codes.astype(np.int32)
    shape = (world.n_centroids, world.dim)
    sums, counts = memory.room(shape, np.float32, 1), memory.room(world.n_centroids, np.int64, 2)
    building.add_up(memory.given(vectors), memory.given(groups), sums, counts)
    expected = np.ones(shape, np.float64)
    np.add.at(expected, groups, vectors)
    np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(counts, 2 + np.bincount(groups, minlength=world.n_centroids))


def check_stretch(isa, world, memory):
    nbits = min(world.nbits, 4)
    levels, nearest = world.levels[: 2**nbits], world.codes.astype(np.int32)
    vectors = unit_rows(world.rng, world.n_tokens, world.dim)
    lengths = floats(1, 0.7, 1.4)
    stretched = memory.room((world.n_tokens, world.dim), np.float32)
    padded = np.concatenate([levels, np.zeros(16 - len(levels), np.float32)])
    of_codec = memory.given(world.centroids), memory.given(padded)
    building.stretch(isa, memory.given(vectors), memory.given(nearest), *of_codec, nbits, memory.given(lengths), stretched)
    cosines = []
    for length in lengths:
        numbers = np.searchsorted((levels[1:] + levels[:-1]) / np.float32(2), vectors * length - world.centroids[nearest])
        values = world.centroids[nearest].astype(np.float64) + levels[numbers]
        cosines.append((values * vectors).sum(axis=1) / np.maximum(np.linalg.norm(values, axis=1), 1e-6))
    chosen = np.abs(stretched[None] - vectors[None] * lengths[:, None, None]).max(axis=2, initial=0).argmin(axis=0)
    np.testing.assert_array_equal(stretched, vectors * lengths[chosen, None])
    # A component that lies at a cut may be rounded to either side.
    assert (np.max(cosines, axis=0) - np.choose(chosen, cosines)).max(initial=0) < 0.01


def check_count_listed(isa, world, memory):
    last, counts = memory.room(world.n_centroids, np.int32, -1), memory.room(world.n_centroids, np.int64, 3)
    building.count_listed(memory.given(world.codes), memory.given(doclens_of(world)), last, counts)
    np.testing.assert_array_equal(counts, [3 + len(windows) for windows in windows_by_code(world)])


def check_list_windows(isa, world, memory):
    expected = windows_by_code(world)
    last, places = memory.room(world.n_centroids, np.int32, -1), memory.room(world.n_centroids, np.int64)
    places[:] = np.cumsum([0, *map(len, expected)])[:-1]
    windows = memory.room(sum(map(len, expected)), np.int32)
    building.list_windows(memory.given(world.codes), memory.given(doclens_of(world)), last, places, windows)
    assert windows.tolist() == [window for listed in expected for window in listed]


def doclens_of(world):
    return np.diff(world.offsets).astype(np.int32)


def windows_by_code(world):
    owners = np.repeat(np.arange(world.n_windows), np.diff(world.offsets))
    return [np.unique(owners[world.codes == code]).tolist() for code in range(world.n_centroids)]


def check_quantize(isa, world, memory):
    vectors = unit_rows(world.rng, world.n_tokens, world.dim) * np.float32(world.rng.choice([1e-3, 1, 1e3]))
    words, scales = memory.room((world.n_tokens, world.width // 4), np.uint32), memory.room(world.n_tokens, np.float32)
    building.quantize(memory.given(vectors), words, scales)
    np.testing.assert_array_equal(words, words_of(vectors, world.width))
    np.testing.assert_allclose(scales, np.abs(vectors).max(axis=1, initial=0) / 127, rtol=1e-6)


def words_of(vectors, width):
    """Vectors as ``quantize`` gives them to the kernels."""
    bytes_ = np.zeros((len(vectors), width), np.int8)
    bytes_[:, : vectors.shape[1]] = quantized_rows(vectors)
    return bytes_.view(np.uint32)


def check_near_rows(isa, world, memory):
    n_rows = -(-world.n_centroids // 4) * 4
    rows, vectors = world.byte_rows(n_rows), unit_rows(world.rng, world.n_tokens, world.dim)
    scales, row_scale, farther = np.abs(vectors).max(axis=1, initial=0) / np.float32(127), np.float32(1 / 127), np.float32(0.3)
    most = int(world.rng.integers(1, 9))
    near, numbers = memory.room(world.n_tokens * most, np.uint16), memory.room(world.n_tokens * most, np.int32)
    counts = memory.room(world.n_tokens, np.int32)
    words = memory.given(words_of(vectors, world.width))
    n = building.near_rows(isa, words, memory.given(scales), memory.given(rows), row_scale, farther, near, numbers, counts)
    products = quantized_rows(vectors) @ (rows[:, : world.dim].astype(np.int64) - 128).T
    below = (products.max(axis=1, initial=-(10**9), keepdims=True) - products) * (scales[:, None] * float(row_scale))
    step = scales * float(row_scale)
    for vector in range(world.n_tokens):
        here = near[:n][numbers[:n] == vector].tolist()
        assert here == sorted(set(here)) and len(here) == min(counts[vector], most)
        sure, possible = (np.flatnonzero(below[vector] <= 0.3 + by * step[vector]) for by in (-0.01, 2.01))
        assert len(sure) <= counts[vector] <= len(possible)
        assert set(here) <= set(possible.tolist())
        assert counts[vector] > most or set(sure.tolist()) <= set(here)


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
    of_codec = memory.given(world.centroids), memory.given(world.padded_levels)
    building.measure(isa, *packed, *of_codec, world.nbits, lengths)
    vectors = world.centroids[world.codes].astype(np.float64) + world.levels[world.residual_numbers]
    exact = np.minimum(32768 / np.maximum(np.linalg.norm(vectors, axis=1), 1e-6), 65535)
    assert np.abs(lengths - exact).max(initial=0) < 0.7


def check_decompress(isa, world, memory):
    packed, _ = residual_arguments(world, memory)
    vectors = memory.room((world.n_tokens, world.dim), np.float32)
    of_codec = memory.given(world.centroids), memory.given(world.padded_levels)
    building.decompress(isa, *packed, *of_codec, world.nbits, vectors)
    np.testing.assert_allclose(vectors, world.decoded, rtol=1e-5, atol=1e-6)


def check_mean_shifts(isa, world, memory):
    packed = [memory.given(array) for array in (world.codes, world.residuals, doclens_of(world))]
    of_codec, step = [memory.given(array) for array in (world.centroids, world.padded_levels)], np.float32(1 / 256)
    shifts = memory.room((world.n_windows, world.dim), np.uint8)
    building.mean_shifts(isa, *packed, *of_codec, world.nbits, step, shifts)
    rests = np.split(world.decoded - world.centroids[world.codes], world.offsets[1:-1])
    means = np.array([rest.mean(axis=0) for rest in rests[: world.n_windows]]).reshape(shifts.shape)
    np.testing.assert_allclose(shifts, np.clip(means * 256 + 128, 1, 255), atol=0.51)


OF_EITHER = [
    check_score_centroids,
    check_score_residuals,
    check_score_bytes,
    check_score_floats,
    check_score_exactly,
    check_add_shifts,
    check_nearest_rows,
    check_stretch,
    check_near_rows,
    check_nearest_listed,
    check_measure,
    check_mean_shifts,
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
    check_quantize,
    check_count_listed,
    check_list_windows,
    check_add_up,
    check_pack_residuals,
]


def each_of(module, checks):
    """A parameter for each check of a kernel that this module defines."""
    checks = [check for check in checks if hasattr(module, kernel_of(check))]
    return pytest.mark.parametrize("check", checks, ids=[kernel_of(check) for check in checks])


def kernel_of(check):
    return check.__name__.removeprefix("check_")


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


# In processes of their own


def run_python(code, **variables):
    """Run code in a process of its own, which finds these builders; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment(**variables), capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, f"it ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def check_the_ends_of_memory(isa, *, at_end):
    isa = {"Amx": AMX, "Vnni": VNNI, "Portable": PORTABLE}[isa]
    assert isa is not AMX or kernels.instruction_set() is AMX  # which asks the system for the tiles
    for seed, dim in enumerate([1, 7, 16, 33, 48, 64, 100, 128]):
        for nbits in NBITS:
            for n_q, n_windows, longest, wide_codes in (
                (1, 1, 1, False),
                (5, 9, 1, True),
                (33, 24, 7, False),
                (32, 6, 40, False),
            ):
                world = World(seed, dim, n_q, n_windows, longest, 5, nbits, wide_codes=wide_codes)
                for check in OF_EITHER + OF_ANY * (isa is PORTABLE):
                    print(check.__name__, world, file=sys.stderr, flush=True)
                    check(isa, world, Guarded(at_end=at_end))
    print("done")


def has_avx2():
    features = llvmlite.binding.get_host_cpu_features()
    return platform.machine() in ("x86_64", "AMD64") and all(features.get(name) for name in ("avx2", "fma", "bmi2", "f16c"))


def check_on_avx2():
    checks = {
        check_score_centroids: scoring.score_centroids,
        check_interact: scoring.interact,
        check_add_shifts: scoring.add_shifts,
        check_score_residuals: scoring.score_residuals,
        check_score_bytes: scoring.score_bytes,
        check_score_floats: scoring.score_floats,
        check_nearest_rows: building.nearest_rows,
        check_nearest_listed: building.nearest_listed,
    }
    for seed, (dim, n_q) in enumerate([(1, 1), (33, 40), (48, 32), (128, 32), (300, 70)]):
        for nbits in NBITS:
            for check in checks:
                check(PORTABLE, World(seed, dim, n_q, 20, 9, 30, nbits, sharp=seed % 2 == 1), Plain())
    for kernel in checks.values():
        (assembly,) = kernel.inspect_asm().values()
        assert "ymm" in assembly and "zmm" not in assembly, kernel
    print("done")
