"""The kernels of compression, by hand and against their definitions."""

from __future__ import annotations

import numpy as np
from builders.kernels import OF_ANY, OF_EITHER, Plain, each_instruction_set, each_of, floats, ints, longs, worlds
from hypothesis import given, settings

from colbert_core.kernels import building


def quantized(*vectors):
    words, scales = np.empty((len(vectors), 4), np.uint32), np.empty(len(vectors), np.float32)
    building.quantize(floats(*vectors), words, scales)
    return words, scales


def some_rows():
    rows = np.full((8, 16), 128, np.uint8)
    rows[:, :2] = [[228, 128], [128, 228], [228, 128], [128, 28], [0, 0], [0, 0], [0, 0], [0, 0]]
    return rows


def test_vectors_as_bytes_by_hand():
    words, scales = quantized([1, 0], [0, -1e-9], [-3, 1.5], [0, 0])
    assert words.view(np.int8)[:, :3].tolist() == [[127, 0, 0], [0, -127, 0], [-127, 64, 0], [0, 0, 0]]
    assert np.allclose(scales[:3] * 127, [1, 1e-9, 3])


@each_instruction_set
def test_the_nearest_row_by_hand(isa):
    nearest = np.empty(4, np.int32)
    building.nearest_rows(isa, quantized([1, 0], [0, -1e-9], [-3, -3], [0, 0])[0], some_rows(), nearest)
    assert nearest.tolist() == [0, 4, 4, 0]  # row 4 has -128, row 3 has -100; the lowest of equals


@each_instruction_set
def test_a_vector_is_stretched_to_where_its_direction_is_kept_by_hand(isa):
    levels = floats(*[-0.5, 0.5], *[0] * 14)
    stretched = np.empty((2, 2), np.float32)
    vectors, centroids = floats([0.8, 0.6], [0, 1]), floats([0.5, 0.5])
    building.stretch(isa, vectors, ints(0, 0), centroids, levels, 1, floats(1, 0.8, 0.7), stretched)
    # (.8, .6) becomes (1, 1), (1, 0) because .48 is below .5, and (1, 0). (0, 1) becomes (0, 1) at any length.
    assert stretched.tolist() == floats([0.8, 0.6], [0, 1]).tolist()
    building.stretch(isa, floats([1, 0]), ints(0), floats([0.5, -0.4]), levels, 1, floats(0.5, 1.5), stretched[:1])
    # (.5, 0) leaves (0, .4): (0, .1); (1.5, 0) leaves (1, .4): (1, .1).
    assert stretched[0].tolist() == [1.5, 0]


@each_instruction_set
def test_near_rows_by_hand(isa):
    words, scales = quantized([1, 0], [0, -1])
    near, numbers, counts = np.empty(6, np.uint16), np.empty(6, np.int32), np.empty(2, np.int32)
    n = building.near_rows(isa, words, scales, some_rows(), np.float32(0.01), np.float32(0.3), near, numbers, counts)
    # 1.28 is the most of the second vector; 1 of row 3 is near, of more than three rows the lowest are given.
    assert sorted(zip(numbers[:n].tolist(), near[:n].tolist(), strict=True)) == [(0, 0), (0, 2), (1, 3), (1, 4), (1, 5)]
    assert counts.tolist() == [2, 5]


@each_instruction_set
def test_the_nearest_of_listed_rows_by_hand(isa):
    words, _ = quantized([1, 0], [0, -1], [0, 1])
    best, nearest = np.full(3, -(2**31), np.int32), np.full(3, -1, np.int32)
    lists = longs(0, 4, 4, 8), ints(1, 2, 3, 3, 0, 2, 4, 5)
    building.nearest_listed(isa, words, ints(0, 1, 2, 1, 0), longs(2, 3, 5), *lists, some_rows(), best, nearest)
    # The first vector has row 2 and then row 0, which is equal and lower; the third is in a group that lists nothing.
    assert nearest.tolist() == [0, 4, -1]
    assert best.tolist() == [127 * 228, 0, -(2**31)]  # with an offset of 128


def test_residuals_by_hand():
    packed = np.zeros((1, 2), np.uint8)
    vectors, centroids = floats([1.5, 1.25, 2.5, 0.75, 0.5]), floats([9] * 5, [1] * 5)
    building.pack_residuals(vectors, ints(1), centroids, floats(-0.4, -0.2, 0, 1), 2, packed)
    # Cuts -.3, -.1 and .5; rests .5, which is not above .5, .25, 1.5, -.25 and -.5.
    assert packed.tolist() == [[2 | 3 << 2 | 0 << 4, 2 | 1 << 2]]


@each_instruction_set
def test_sums_and_lengths_by_hand(isa):
    sums, counts = np.ones((3, 2), np.float32), np.zeros(3, np.int64)
    building.add_up(floats([1, 2], [3, 4], [5, 6]), ints(2, 0, 2), sums, counts)
    assert (sums.tolist(), counts.tolist()) == ([[4, 5], [1, 1], [7, 9]], [1, 0, 2])
    lengths = np.empty(3, np.uint16)
    centroids = floats([0.5, -0.5], [2, 2], [1.5, -0.5])
    residuals = np.array([[0b10], [0b00], [0b11]], np.uint8)
    levels = np.resize(floats(-0.5, 0.5), 16)
    building.measure(isa, np.array([0, 1, 2], np.uint16), residuals, centroids, levels, 1, lengths)
    # Vectors (0, 0), (1.5, 1.5) and (2, 0).
    assert lengths.tolist() == [65535, round(32768 / 4.5**0.5), 16384]


@each_instruction_set
@each_of(building, OF_EITHER)
@given(world=worlds)
@settings(max_examples=40)
def test_a_kernel_of_either_instruction_set_is_its_definition(check, isa, world):
    check(isa, world, Plain())


@each_of(building, OF_ANY)
@given(world=worlds)
@settings(max_examples=40)
def test_a_kernel_is_its_definition(check, world):
    check(None, world, Plain())
