"""Compiled loops that compress vectors. Arrays are C-contiguous; the caller has checked that their shapes fit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from colbert_core.kernels.compiling import compiled
from colbert_core.kernels.vector import (
    as_bytes,
    as_ints,
    bits_at,
    chosen_ints,
    counted_larger,
    dots,
    larger,
    load_bytes_16,
    load_floats_16,
    look_up_floats,
    plus,
    prefetch,
    same_floats,
    same_ints,
    store,
    sum_of_floats,
    times,
    times_plus,
)

_AHEAD = 4
"""Fetch the centroid of so many vectors ahead: 4 MB of centroids are not in the cache."""


@compiled
def to_bytes(vectors: Any, scale: Any, rows: Any) -> None:
    """Round components to multiples of a scale, from -127 to 127, and add an offset of 128.

    Args:
        vectors: *Shape:* (n, dim), float32.
        scale: the value of one step of a byte.
        rows: *Shape:* (n, width), uint8; is filled, with 128 beyond dim.
    """
    n, dim = vectors.shape
    whole = dim // 32 * 32
    by, offset, least = same_floats(np.float32(1) / scale), same_floats(np.float32(128)), same_floats(np.float32(1))
    for i in range(n):
        source, target = vectors.ctypes.data + i * dim * 4, rows.ctypes.data + i * rows.shape[1]
        for d in range(0, whole, 32):
            one, other = load_floats_16(source + d * 4), load_floats_16(source + d * 4 + 64)
            one, other = larger(times_plus(one, by, offset), least), larger(times_plus(other, by, offset), least)
            store(target + d, as_bytes(one, other))
        for d in range(whole, dim):
            value = np.rint(vectors[i, d] * (np.float32(1) / scale))
            rows[i, d] = np.uint8(min(max(value, np.float32(-127)), np.float32(127)) + np.float32(128))
        for d in range(dim, rows.shape[1]):
            rows[i, d] = 128


@compiled
def nearest_rows(isa: Any, vectors: Any, rows: Any, nearest: Any) -> None:
    """Find for each vector the row of greatest dot product, by the bytes of both; of equal ones the lowest.

    Each vector is quantized by a scale of its own, which uses its bytes to the full and changes no comparison.

    Args:
        isa: the instruction set.
        vectors: *Shape:* (n, dim), float32.
        rows: *Shape:* (n_rows, width), uint8; n_rows is a multiple of 4 (the last row is repeated), and width one of 16.
        nearest: *Shape:* (n,), int32; is filled.
    """
    n, dim = vectors.shape
    n_rows, width = rows.shape
    block = np.zeros((width // 4, 32, 4), np.int8)
    starts = np.zeros(32, np.int32)  # the offset of the rows adds the same to all products of a vector
    found = np.empty(32, np.int32)
    for first in range(0, n, 32):
        for i in range(min(32, n - first)):
            largest = np.float32(0)
            for d in range(dim):
                largest = max(largest, abs(vectors[first + i, d]))
            scale = np.float32(127) / max(largest, np.float32(1e-20))
            for d in range(dim):
                block[d // 4, i, d % 4] = int(np.rint(vectors[first + i, d] * scale))
        best, best_other = same_ints(np.int32(-(2**31))), same_ints(np.int32(-(2**31)))
        which, which_other = same_ints(np.int32(0)), same_ints(np.int32(0))
        query, start = block.ctypes.data, starts.ctypes.data
        for number in range(0, n_rows, 4):
            row = rows.ctypes.data + number * width
            a0, b0, a1, b1, a2, b2, a3, b3 = dots(isa, row, row + width, row + 2 * width, row + 3 * width, query, width, start)
            best, which = _nearer(best, which, a0, number)
            best, which = _nearer(best, which, a1, number + 1)
            best, which = _nearer(best, which, a2, number + 2)
            best, which = _nearer(best, which, a3, number + 3)
            best_other, which_other = _nearer(best_other, which_other, b0, number)
            best_other, which_other = _nearer(best_other, which_other, b1, number + 1)
            best_other, which_other = _nearer(best_other, which_other, b2, number + 2)
            best_other, which_other = _nearer(best_other, which_other, b3, number + 3)
        store(found.ctypes.data, which)
        store(found.ctypes.data + 64, which_other)
        for i in range(min(32, n - first)):
            nearest[first + i] = found[i]


@njit(forceinline=True)
def _nearer(best: Any, which: Any, products: Any, number: int) -> Any:
    return larger(best, products), chosen_ints(products, best, same_ints(np.int32(number)), which)


@compiled
def add_up(vectors: Any, groups: Any, sums: Any, counts: Any) -> None:
    """Add up the vectors of each group, and count them.

    Args:
        vectors: *Shape:* (n, dim), float32.
        groups: *Shape:* (n,), int32.
        sums: *Shape:* (n_groups, dim), float32; is added to.
        counts: *Shape:* (n_groups,), int64; is added to.
    """
    for i in range(len(groups)):
        group = groups[i]
        counts[group] += 1
        for d in range(vectors.shape[1]):
            sums[group, d] += vectors[i, d]


@compiled
def stretch(
    isa: Any, vectors: Any, nearest: Any, centroids: Any, levels: Any, nbits: int, lengths: Any, stretched: Any
) -> None:
    """Scale each vector to the length at which ``pack_residuals`` keeps its direction best; of equal ones the first.

    Args:
        isa: the instruction set.
        vectors: *Shape:* (n, dim), float32, unit rows.
        nearest: *Shape:* (n,), int32.
        centroids: *Shape:* (n_centroids, dim), float32.
        levels: *Shape:* (16 or more,), float32; of which those beyond 2**nbits are not used.
        nbits: 1, 2 or 4.
        lengths: *Shape:* (m,), float32; to choose from.
        stretched: *Shape:* (n, dim), float32; is filled.
    """
    dim = vectors.shape[1]
    whole = dim // 16 * 16
    cuts = (levels[1 : 1 << nbits] + levels[: (1 << nbits) - 1]) / np.float32(2)
    table, minus = load_floats_16(levels.ctypes.data), same_floats(np.float32(-1))
    for i in range(len(nearest)):
        vector, centroid = vectors[i], centroids[nearest[i]]
        best, chosen = np.float32(-2), np.float32(1)
        for length in lengths:
            along, square = same_floats(np.float32(0)), same_floats(np.float32(0))
            for d in range(0, whole, 16):
                one = load_floats_16(vector.ctypes.data + d * 4)
                near = load_floats_16(centroid.ctypes.data + d * 4)
                rest = times_plus(one, same_floats(length), times(near, minus))
                number = same_ints(np.int32(0))
                for cut in cuts:
                    number = counted_larger(rest, same_floats(cut), number)
                value = plus(near, look_up_floats(isa, table, number))
                along, square = times_plus(value, one, along), times_plus(value, value, square)
            product, total = sum_of_floats(along), sum_of_floats(square)
            for d in range(whole, dim):
                place = 0
                for cut in cuts:
                    place += vector[d] * length - centroid[d] > cut
                last = centroid[d] + levels[place]
                product += last * vector[d]
                total += last * last
            cosine = product / np.sqrt(max(total, np.float32(1e-12)))
            if cosine > best:
                best, chosen = cosine, length
        for d in range(dim):
            stretched[i, d] = vector[d] * chosen


@compiled
def pack_residuals(vectors: Any, nearest: Any, centroids: Any, levels: Any, nbits: int, residuals: Any) -> None:
    """Subtract from each vector its centroid, and pack the number of the level that is nearest to each component.

    Args:
        vectors: *Shape:* (n, dim), float32.
        nearest: *Shape:* (n,), int32.
        centroids: *Shape:* (n_centroids, dim), float32.
        levels: *Shape:* (2**nbits,), float32, ascending.
        nbits: 1, 2, 4 or 8.
        residuals: *Shape:* (n, packed), uint8, zeros; is filled.
    """
    dim, packed = vectors.shape[1], residuals.shape[1]
    cuts = (levels[1:] + levels[:-1]) / np.float32(2)
    rest = np.empty(dim, np.float32)
    numbers = np.empty(dim, np.int32)
    for i in range(len(nearest)):
        centroid = centroids[nearest[i]]
        for d in range(dim):
            rest[d] = vectors[i, d] - centroid[d]
        if nbits < 8:
            _count_below(rest, cuts, numbers)
        else:
            for d in range(dim):
                numbers[d] = np.searchsorted(cuts, rest[d])
        for d in range(dim):
            residuals[i, d % packed] |= numbers[d] << (d // packed * nbits)


@njit(forceinline=True)
def _count_below(values: Any, cuts: Any, numbers: Any) -> None:
    """Count for each value the cuts below it, 16 values at a time."""
    whole = len(values) // 16 * 16
    for d in range(0, whole, 16):
        lanes = load_floats_16(values.ctypes.data + d * 4)
        count = same_ints(np.int32(0))
        for cut in cuts:
            count = counted_larger(lanes, same_floats(cut), count)
        store(numbers.ctypes.data + d * 4, count)
    for d in range(whole, len(values)):
        numbers[d] = 0
        for cut in cuts:
            numbers[d] += values[d] > cut


@njit(forceinline=True)
def inverse_length(total: Any) -> int:
    """Return 1 / sqrt(total) in 32768ths, at most 65535 (a factor of 2, which compressed vectors of length 1 rarely need)."""
    return min(int(np.float32(32768) / np.sqrt(max(total, np.float32(1e-12))) + np.float32(0.5)), 65535)


@compiled
def measure(codes: Any, residuals: Any, centroids: Any, levels: Any, nbits: int, lengths: Any) -> None:
    """Compute the factor that scales centroid plus residual to length 1, by ``inverse_length``.

    Args:
        codes: *Shape:* (n,), uint16 or uint32.
        residuals: *Shape:* (n, packed), uint8.
        centroids: *Shape:* (n_centroids, dim), float32.
        levels: *Shape:* (2**nbits,), float32.
        nbits: 1, 2, 4 or 8.
        lengths: *Shape:* (n,), uint16; is filled.
    """
    dim, packed, mask = centroids.shape[1], residuals.shape[1], (1 << nbits) - 1
    for i in range(len(codes)):
        centroid = centroids[codes[i]]
        total = np.float32(0)
        for d in range(dim):
            value = centroid[d] + levels[(residuals[i, d % packed] >> (d // packed * nbits)) & mask]
            total += value * value
        lengths[i] = inverse_length(total)


@compiled
def decompress(isa: Any, codes: Any, residuals: Any, centroids: Any, levels: Any, nbits: int, vectors: Any) -> None:
    """Compute the vectors of codes and residuals: centroid plus residual, scaled to length 1.

    Args:
        isa: the instruction set.
        codes: *Shape:* (n,), uint16 or uint32.
        residuals: *Shape:* (n, packed), uint8.
        centroids: *Shape:* (n_centroids, dim), float32.
        levels: *Shape:* (2**nbits,) or more, float32; at least 16, of which those beyond 2**nbits are not used.
        nbits: 1, 2, 4 or 8.
        vectors: *Shape:* (n or more, dim), float32; is filled.
    """
    decompress_some(isa, codes, residuals, np.arange(len(codes)), centroids, levels, nbits, vectors)


@njit
def decompress_some(
    isa: Any, codes: Any, residuals: Any, tokens: Any, centroids: Any, levels: Any, nbits: int, vectors: Any
) -> None:
    """Compute the vectors of some of the codes and residuals, those at ``tokens``, *Shape:* (n,), int64."""
    dim, packed, mask = centroids.shape[1], residuals.shape[1], (1 << nbits) - 1
    table = load_floats_16(levels.ctypes.data)
    for i in range(len(tokens)):
        token = tokens[i]
        if i + _AHEAD < len(tokens):
            ahead = centroids.ctypes.data + int(codes[tokens[i + _AHEAD]]) * dim * 4
            for line in range(0, dim * 4, 64):
                prefetch(ahead + line)
        centroid, row = centroids[codes[token]], vectors[i]
        total = same_floats(np.float32(0))
        rest = np.float32(0)
        for slot in range(8 // nbits):
            first = slot * packed
            n = max(min(packed, dim - first), 0)
            whole = n // 16 * 16 if nbits < 8 else 0
            for place in range(0, whole, 16):
                packed_bytes = load_bytes_16(residuals.ctypes.data + token * packed + place)
                places = as_ints(bits_at(packed_bytes, slot * nbits, mask))
                here = (first + place) * 4
                value = plus(load_floats_16(centroid.ctypes.data + here), look_up_floats(isa, table, places))
                total = times_plus(value, value, total)
                store(row.ctypes.data + here, value)
            for place in range(whole, n):
                one = centroid[first + place] + levels[(residuals[token, place] >> (slot * nbits)) & mask]
                rest += one * one
                row[first + place] = one
        # Where centroid and residual cancel out, there is no direction: such a row stays a row of zeros.
        inverse = np.float32(1) / max(np.sqrt(sum_of_floats(total) + rest), np.float32(1e-12))
        for d in range(dim):
            row[d] *= inverse
