"""The kernels of a search, by hand and against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from builders.kernels import OF_ANY, OF_EITHER, Plain, each_instruction_set, each_of, floats, ints, longs, worlds
from hypothesis import given, settings

from colbert_core.kernels import BLOCK, NOWHERE, ByteRows, QueryBlocks, float_blocks, scoring

SUMS = np.empty((16, BLOCK), np.int32)  # room for a kernel's products


@each_instruction_set
def test_cosines_of_centroids_by_hand(isa):
    rows, query = ByteRows.of(floats([1, 0], [0.5, 0], [-1, 0], [-0.2, 0])), QueryBlocks.of(floats([1, 0]), 16)
    shorts, bytes_ = np.empty((1, 4, BLOCK), np.int16), np.empty((1, 4, BLOCK), np.uint8)
    scoring.score_centroids(isa, rows.rows, rows.scale, query.bytes, query.scales, query.starts, SUMS, shorts, bytes_)
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
    live, marked, listed = np.ones(10, np.uint8), np.zeros(10, np.uint8), np.empty(11, np.int32)
    live[8] = 0
    assert listed[: scoring.listed_windows(ints(2, -1, 0, 2), offsets, windows, live, marked, listed)].tolist() == [0, 1, 9]
    assert not marked.any()
    assert scoring.listed_windows(ints(1, -1), offsets, windows, live, marked, listed) == 0


def test_windows_and_passages_by_hand():
    rows = longs(4, 4, 4, 7, 8, 8)
    firsts, best = np.empty(4, np.int32), np.empty(4, np.int32)
    assert scoring.passages_of(ints(1, 2, 4, 5), rows, ints(3, 6, 2, 1), firsts, best) == 2
    assert (firsts[:2].tolist(), best[:2].tolist()) == ([1, 4], [6, 2])
    windows = np.empty(7, np.int32)
    assert scoring.windows_of(ints(1, 4), rows, np.array([1, 0, 1, 1, 1, 1], np.uint8), windows) == 4
    assert windows[:4].tolist() == [0, 2, 4, 5]


def collected(n, *, live=(1, 1, 1, 1), windows=(0, 0, 1, 2), shift=0, width=4):
    """What is collected of four windows and three lists: 0 | 0, 1 | 2."""
    cells, cosines = np.full((2, 3), -1, np.int32), np.full((2, 3), NOWHERE, np.int16)
    cells[0], cosines[0] = [1, 0, -1], [50, 20, NOWHERE]
    cells[1], cosines[1] = [2, 0, 1], [9, 8, -4]
    found, scores = np.empty(4, np.int32), np.empty(4, np.int64)
    room = np.empty((2, 3), np.int64), np.empty(width, np.int32), np.zeros(100, np.int64), np.zeros(2, np.int64)
    lists = longs(0, 1, 3, 4), ints(*windows)
    count = scoring.accumulate(cells, cosines, *lists, np.array(live, np.uint8), n, 18, shift, *room, found, scores)
    return count if count < 0 else list(zip(found[:count].tolist(), scores[:count].tolist(), strict=True))


def test_sums_over_lists_by_hand():
    # 20 - 1 is nothing to the first query vector, -4 - 1 to the second; window 0 counts by its nearest cell only.
    sums = [(0, (50 - 19) + (8 + 5)), (1, (50 - 19) + (-4 + 5)), (2, 9 + 5)]
    assert collected(4) == collected(3) == sums
    assert collected(4, width=1) == collected(4, width=3) == sums
    assert collected(4, live=(1, 0, 1, 1)) == [sums[0], sums[2]]


def test_windows_that_cannot_be_among_the_highest_are_left_out():
    assert collected(1) == [(0, 44)]
    assert collected(2) == [(0, 44), (1, 32)]
    assert collected(1, shift=5) == [(0, 44), (1, 32)]  # both are 1 when shifted


@pytest.mark.parametrize("windows", [(-1, 0, 1, 2), (0, 0, 4, 2), (0, 2, 1, 2), (0, 0, 1, 2**31 - 1), (-(2**31), 0, 1, 2)])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_list_that_names_no_window_or_descends_is_no_list(windows, width):
    if width < 4 or min(windows) < 0 or max(windows) > 3:  # within one range any order is the same
        assert collected(4, windows=windows, width=width) == -1


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


@each_instruction_set
@pytest.mark.parametrize(("n_q", "below", "near"), [(1, 0.12, [1, 0]), (1, 0.13, [1, 1]), (2, 0, [1, 1]), (2, 0, [])])
def test_the_score_of_residuals_by_hand(isa, n_q, below, near):
    query, scores = QueryBlocks.of(floats([1], [-1]), 16), np.empty(1, np.float32)
    below = np.where(np.arange(BLOCK) < n_q, np.float32(below), np.float32(-4))
    marks = np.empty((1, len(near)), np.uint8)
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
        np.empty((16, 16), np.uint8),
        SUMS,
        below[None],
        np.empty((2, BLOCK), np.float32),
        marks,
        scores,
    )
    # Vectors (.5 + .25) / 2 and (.5 - .25) / 1: the first is nearer to 1, the second to -1, by .125.
    assert scores == pytest.approx([0.375 - 0.25], abs=1e-6)
    assert marks.tolist() == [near]


@each_instruction_set
def test_the_score_of_vectors_by_hand(isa):
    """The example of ``maxsim``."""
    query, vectors, offsets = floats([1, 0], [0, 1]), floats([1, 0], [0.6, 0.8], [-1, 0]), longs(0, 2, 3)
    scores = np.empty(3, np.float32)
    scoring.score_floats(isa, vectors, offsets, ints(0, 1, 0), float_blocks(query), scores)
    assert scores == pytest.approx([1.8, -1, 1.8])
    rows, blocks = ByteRows.of(vectors), QueryBlocks.of(query, 16)
    query = blocks.bytes, blocks.scales, blocks.starts
    scoring.score_bytes(isa, rows.rows, rows.scale, offsets, ints(0, 1, 0), *query, SUMS, scores)
    assert scores == pytest.approx([1.8, -1, 1.8], abs=0.01)


@each_instruction_set
@each_of(scoring, OF_EITHER)
@given(world=worlds)
@settings(max_examples=40)
def test_a_kernel_of_either_instruction_set_is_its_definition(check, isa, world):
    check(isa, world, Plain())


@each_of(scoring, OF_ANY)
@given(world=worlds)
@settings(max_examples=40)
def test_a_kernel_is_its_definition(check, world):
    check(None, world, Plain())


@each_instruction_set
@given(world=worlds)
@settings(max_examples=20)
def test_a_windows_score_does_not_depend_on_its_company(isa, world):
    vectors, blocks = world.decoded.astype(np.float32), world.float_blocks
    room, all_near = np.empty((world.longest, world.dim), np.float32), np.empty((len(world.windows), 0), np.uint8)

    def score(windows):
        floats, exact = np.empty(len(windows), np.float32), np.empty(len(windows), np.float32)
        scoring.score_floats(isa, vectors, world.offsets, windows, blocks, floats)
        packed = world.codes, world.residuals, world.offsets, windows
        scoring.score_exactly(isa, world.nbits, *packed, world.centroids, world.padded_levels, blocks, room, all_near, exact)
        return np.stack([floats, exact], axis=1)

    together = score(world.windows)
    for place in range(len(world.windows)):
        assert score(world.windows[place : place + 1]).tolist() == together[place : place + 1].tolist()
