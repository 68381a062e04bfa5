"""Compiled loops that compress vectors. Arrays are C-contiguous; the caller has checked that their shapes fit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from colbert_core.kernels.compiling import compiled
from colbert_core.kernels.vector import (
    as_bytes,
    as_floats,
    as_ints,
    bits_at,
    chosen_ints,
    counted_larger,
    dots,
    larger,
    largest_of_floats,
    load_bytes_16,
    load_floats_16,
    load_ints_16,
    look_up_floats,
    lowest_bit,
    plus,
    prefetch,
    same_floats,
    same_ints,
    store,
    store_of_four,
    sum_of_floats,
    times,
    times_plus,
    where_larger_ints,
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
def quantize(vectors: Any, words: Any, scales: Any) -> None:
    """Quantize vectors to signed bytes, each by a scale of its own, which uses its bytes to the full.

    Args:
        vectors: *Shape:* (n, dim), float32.
        words: *Shape:* (n, width / 4), uint32; is filled with four bytes each, zeros beyond dim. Width is a multiple of 16.
        scales: *Shape:* (n,), float32; is filled with the value of one step of a byte.
    """
    n, dim = vectors.shape
    whole, minus = dim // 32 * 32, same_floats(np.float32(-1))
    row = np.full(words.shape[1] * 4, 128, np.uint8)
    row_words, address = row.view(np.uint32), row.ctypes.data
    for i in range(n):
        source = vectors.ctypes.data + i * dim * 4
        high = same_floats(np.float32(0))
        for d in range(0, whole, 32):
            one, other = load_floats_16(source + d * 4), load_floats_16(source + d * 4 + 64)
            high = larger(high, larger(larger(one, times(one, minus)), larger(other, times(other, minus))))
        largest = max(largest_of_floats(high), np.float32(1e-20))
        for d in range(whole, dim):
            largest = max(largest, abs(vectors[i, d]))
        scales[i] = largest / np.float32(127)
        by, offset = np.float32(127) / largest, np.float32(128)
        bys, offsets = same_floats(by), same_floats(offset)
        for d in range(0, whole, 32):
            one, other = times(load_floats_16(source + d * 4), bys), times(load_floats_16(source + d * 4 + 64), bys)
            store(address + d, as_bytes(plus(one, offsets), plus(other, offsets)))
        for d in range(whole, dim):
            row[d] = np.uint8(np.rint(vectors[i, d] * by + offset))
        for word in range(len(row_words)):
            words[i, word] = row_words[word] ^ np.uint32(0x80808080)  # less the offset


@compiled
def nearest_rows(isa: Any, words: Any, rows: Any, nearest: Any) -> None:
    """Find for each vector the row of greatest dot product, by the bytes of both; of equal ones the lowest.

    Args:
        isa: the instruction set.
        words: *Shape:* (n, width / 4), uint32; the vectors, as ``quantize`` fills them.
        rows: *Shape:* (n_rows, width), uint8; n_rows is a multiple of 4 (the last row is repeated), and width one of 16.
        nearest: *Shape:* (n,), int32; is filled.
    """
    n, (n_rows, width) = len(words), rows.shape
    block, starts = np.zeros((width // 4, 32), np.uint32), np.zeros(32, np.int32)
    found, address = np.empty(32, np.int32), rows.ctypes.data
    for first in range(0, n, 32):
        count = min(32, n - first)
        for i in range(count):
            for word in range(width // 4):
                block[word, i] = words[first + i, word]
        best, best_other = same_ints(np.int32(-(2**31))), same_ints(np.int32(-(2**31)))
        which, which_other = same_ints(np.int32(0)), same_ints(np.int32(0))
        for number in range(0, n_rows, 4):
            row = address + number * width
            best, best_other, which, which_other = _nearest_of_four(
                isa, row, row + width, row + 2 * width, row + 3 * width, block.ctypes.data, width, starts.ctypes.data,
                number, best, best_other, which, which_other,
            )  # fmt: skip
        store(found.ctypes.data, which)
        store(found.ctypes.data + 64, which_other)
        nearest[first : first + count] = found[:count]


@compiled
def near_rows(
    isa: Any, words: Any, scales: Any, rows: Any, row_scale: Any, distance: Any, near: Any, numbers: Any, counts: Any
) -> int:
    """Find for each vector the rows whose dot product is at most ``distance`` below the greatest, by the bytes of both.

    Args:
        isa: the instruction set.
        words: *Shape:* (n, width / 4), uint32; the vectors, as ``quantize`` fills them.
        scales: *Shape:* (n,), float32; the value of one step of their bytes.
        rows: *Shape:* (n_rows, width), uint8; n_rows is a multiple of 4 (the last row is repeated), and width one of 16.
        row_scale: the value of one step of a row's byte.
        distance: how far below.
        near: *Shape:* (n * most,), uint16; its beginning is filled with rows.
        numbers: *Shape:* (n * most,), int32; its beginning is filled with the vectors that these are near to. To one row they
            ascend. Of a vector that more than ``most`` rows are near to, the lowest are there.
        counts: *Shape:* (n,), int32; is filled with the number of rows that are near to each vector.

    Returns:
        How many pairs of a row and a vector there are.
    """
    n, (n_rows, width) = len(words), rows.shape
    block, starts = np.zeros((width // 4, 32), np.uint32), np.zeros(32, np.int32)
    products = np.empty((n_rows, 32), np.int32)
    bars, most = np.empty(32, np.int32), len(near) // max(n, 1)
    address, n_pairs = rows.ctypes.data, 0
    for first in range(0, n, 32):
        count = min(32, n - first)
        for i in range(count):
            for word in range(width // 4):
                block[word, i] = words[first + i, word]
        best, best_other = same_ints(np.int32(-(2**31))), same_ints(np.int32(-(2**31)))
        for number in range(0, n_rows, 4):
            row, kept = address + number * width, products.ctypes.data + number * 128
            a0, b0, a1, b1, a2, b2, a3, b3 = dots(
                isa, row, row + width, row + 2 * width, row + 3 * width, block.ctypes.data, width, starts.ctypes.data
            )
            store_of_four(kept, a0, b0, a1, b1, a2, b2, a3, b3)
            best = larger(larger(best, larger(a0, a1)), larger(a2, a3))
            best_other = larger(larger(best_other, larger(b0, b1)), larger(b2, b3))
        store(bars.ctypes.data, best)
        store(bars.ctypes.data + 64, best_other)
        for i in range(32):
            if i < count:
                bars[i] -= np.int32(min(distance / (scales[first + i] * row_scale), np.float32(2**30))) + 1
                counts[first + i] = 0
            else:
                bars[i] = 2**31 - 1
        low, high = load_ints_16(bars.ctypes.data), load_ints_16(bars.ctypes.data + 64)
        for number in range(n_rows):
            kept = products.ctypes.data + number * 128
            passed = where_larger_ints(load_ints_16(kept), low) | where_larger_ints(load_ints_16(kept + 64), high) << 16
            while passed:
                i = lowest_bit(passed)
                passed &= passed - 1
                if counts[first + i] < most:
                    near[n_pairs], numbers[n_pairs] = number, first + i
                    n_pairs += 1
                counts[first + i] += 1
    return n_pairs


@compiled
def nearest_listed(
    isa: Any, words: Any, order: Any, ends: Any, offsets: Any, listed: Any, rows: Any, best: Any, nearest: Any
) -> None:
    """Find for each vector the row of greatest dot product among those that its groups list; of equal ones the lowest.

    Args:
        isa: the instruction set.
        words: *Shape:* (n, width / 4), uint32; the vectors, as ``quantize`` fills them.
        order: *Shape:* (m,), int32; the numbers of vectors, those of the first group first. A vector may be in several.
        ends: *Shape:* (n_groups,), int64; where the numbers of each group end in ``order``.
        offsets: *Shape:* (n_groups + 1,), int64; where the list of each group begins, multiples of 4.
        listed: *Shape:* (offsets[-1],), int32; the rows to look at. Each list ascends.
        rows: *Shape:* (n_rows, width), uint8; width is a multiple of 16.
        best: *Shape:* (n,), int32, -2**31 at first; is filled with the greatest products, those of the rows' bytes with offset.
        nearest: *Shape:* (n,), int32; is filled, but not where no group of a vector lists a row.
    """
    width = rows.shape[1]
    block, starts = np.zeros((width // 4, 32), np.uint32), np.zeros(32, np.int32)
    found, products, address = np.empty(32, np.int32), np.empty(32, np.int32), rows.ctypes.data
    start = 0
    for group in range(len(ends)):
        if offsets[group] == offsets[group + 1]:
            start = ends[group]
            continue
        for first in range(start, ends[group], 32):
            count = min(32, ends[group] - first)
            for i in range(count):
                vector = order[first + i]
                for word in range(width // 4):
                    block[word, i] = words[vector, word]
            high, high_other = same_ints(np.int32(-(2**31))), same_ints(np.int32(-(2**31)))
            which, which_other = same_ints(np.int32(0)), same_ints(np.int32(0))
            for place in range(offsets[group], offsets[group + 1], 4):
                high, high_other, which, which_other = _nearest_of_four(
                    isa,
                    address + listed[place] * width,
                    address + listed[place + 1] * width,
                    address + listed[place + 2] * width,
                    address + listed[place + 3] * width,
                    block.ctypes.data, width, starts.ctypes.data, place, high, high_other, which, which_other,
                )  # fmt: skip
            store(found.ctypes.data, which)
            store(found.ctypes.data + 64, which_other)
            store(products.ctypes.data, high)
            store(products.ctypes.data + 64, high_other)
            for i in range(count):
                vector, row = order[first + i], listed[found[i]]
                if products[i] > best[vector] or (products[i] == best[vector] and row < nearest[vector]):
                    best[vector], nearest[vector] = products[i], row
        start = ends[group]


@njit(forceinline=True)
def _nearest_of_four(
    isa: Any, row_0: int, row_1: int, row_2: int, row_3: int, block: int, width: int, start: int, number: int,
    best: Any, best_other: Any, which: Any, which_other: Any,
) -> Any:  # fmt: skip
    """Compare the greatest products so far with those of four more rows, which are numbered from ``number``."""
    a0, b0, a1, b1, a2, b2, a3, b3 = dots(isa, row_0, row_1, row_2, row_3, block, width, start)
    best, which = _nearer(best, which, a0, number)
    best, which = _nearer(best, which, a1, number + 1)
    best, which = _nearer(best, which, a2, number + 2)
    best, which = _nearer(best, which, a3, number + 3)
    best_other, which_other = _nearer(best_other, which_other, b0, number)
    best_other, which_other = _nearer(best_other, which_other, b1, number + 1)
    best_other, which_other = _nearer(best_other, which_other, b2, number + 2)
    best_other, which_other = _nearer(best_other, which_other, b3, number + 3)
    return best, best_other, which, which_other


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
def count_listed(codes: Any, doclens: Any, last: Any, counts: Any) -> None:
    """Count for each centroid the windows with a token of its code.

    Args:
        codes: *Shape:* (n_tokens,), uint16 or uint32, below ``len(counts)``.
        doclens: *Shape:* (n_windows,), int32; the number of tokens of each window.
        last: *Shape:* (n_centroids,), int32, all -1; is overwritten.
        counts: *Shape:* (n_centroids,), int64; is added to.
    """
    token = 0
    for window in range(len(doclens)):
        for _ in range(doclens[window]):
            code = codes[token]
            counts[code] += last[code] != window
            last[code] = window
            token += 1


@compiled
def list_windows(codes: Any, doclens: Any, last: Any, places: Any, windows: Any) -> None:
    """Write for each centroid the windows with a token of its code, ascending, each once.

    Args:
        codes, doclens, last: as for ``count_listed``.
        places: *Shape:* (n_centroids,), int64; where the list of each centroid begins; is overwritten.
        windows: *Shape:* (n,), int32; is filled.
    """
    token = 0
    for window in range(len(doclens)):
        for _ in range(doclens[window]):
            code = codes[token]
            if last[code] != window:
                windows[places[code]] = window
                places[code] += 1
                last[code] = window
            token += 1


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
    n_slots = 8 // nbits
    is_whole = nbits < 8 and packed % 32 == 0 and dim == packed * n_slots
    for i in range(len(nearest)):
        centroid = centroids[nearest[i]]
        for d in range(dim):
            rest[d] = vectors[i, d] - centroid[d]
        if is_whole:
            _pack_whole(rest.ctypes.data, cuts, nbits, packed, residuals.ctypes.data + i * packed)
            continue
        if nbits < 8:
            _count_below(rest, cuts, numbers)
        else:
            for d in range(dim):
                numbers[d] = np.searchsorted(cuts, rest[d])
        for d in range(dim):
            residuals[i, d % packed] |= numbers[d] << (d // packed * nbits)


@njit(forceinline=True)
def _pack_whole(rest: int, cuts: Any, nbits: int, packed: int, target: int) -> None:
    """Count the cuts below each component and pack the counts, 32 bytes at a time; all bytes are full.

    Bytes are put together as floats, which hold whole numbers up to 255 and become bytes in one step.
    """
    for place in range(0, packed, 32):
        one, other = same_floats(np.float32(0)), same_floats(np.float32(0))
        for slot in range(8 // nbits):
            source = rest + (slot * packed + place) * 4
            lanes, more = load_floats_16(source), load_floats_16(source + 64)
            count, count_more = same_ints(np.int32(0)), same_ints(np.int32(0))
            for cut in cuts:
                bar = same_floats(cut)
                count, count_more = counted_larger(lanes, bar, count), counted_larger(more, bar, count_more)
            unit = same_floats(np.float32(1 << (slot * nbits)))
            one, other = times_plus(as_floats(count), unit, one), times_plus(as_floats(count_more), unit, other)
        store(target + place, as_bytes(one, other))


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
def measure(isa: Any, codes: Any, residuals: Any, centroids: Any, levels: Any, nbits: int, lengths: Any) -> None:
    """Compute the factor that scales centroid plus residual to length 1, by ``inverse_length``.

    Args:
        isa, codes, residuals, centroids, levels, nbits: as for ``decompress``.
        lengths: *Shape:* (n,), uint16; is filled.
    """
    row = np.empty(centroids.shape[1], np.float32)
    for i in range(len(codes)):
        total = _add_residual(isa, centroids[codes[i]], residuals, i, levels, nbits, row)
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
    dim = centroids.shape[1]
    for i in range(len(tokens)):
        token = tokens[i]
        if i + _AHEAD < len(tokens):
            ahead = centroids.ctypes.data + int(codes[tokens[i + _AHEAD]]) * dim * 4
            for line in range(0, dim * 4, 64):
                prefetch(ahead + line)
        row = vectors[i]
        total = _add_residual(isa, centroids[codes[token]], residuals, token, levels, nbits, row)
        # Where centroid and residual cancel out, there is no direction: such a row stays a row of zeros.
        inverse = np.float32(1) / max(np.sqrt(total), np.float32(1e-12))
        for d in range(len(row)):
            row[d] *= inverse


@compiled
def mean_shifts(
    isa: Any, codes: Any, residuals: Any, doclens: Any, centroids: Any, levels: Any, nbits: int, step: Any, shifts: Any
) -> None:
    """Compute how far the vectors of each window lie from their centroids in the mean, as bytes with an offset of 128.

    Args:
        isa, codes, residuals, centroids, levels, nbits: as for ``decompress``.
        doclens: *Shape:* (n_windows,), int32, at least 1.
        step: the value of one step of a byte.
        shifts: *Shape:* (n_windows, dim), uint8; is filled with numbers from 1 to 255.
    """
    dim = centroids.shape[1]
    row, sums = np.empty(dim, np.float32), np.empty(dim, np.float32)
    token = 0
    for window in range(len(doclens)):
        sums[:] = 0
        for _ in range(doclens[window]):
            centroid = centroids[codes[token]]
            total = _add_residual(isa, centroid, residuals, token, levels, nbits, row)
            inverse = np.float32(1) / max(np.sqrt(total), np.float32(1e-12))
            for d in range(dim):
                sums[d] += row[d] * inverse - centroid[d]
            token += 1
        by = np.float32(1) / (step * np.float32(doclens[window]))
        for d in range(dim):
            shifts[window, d] = min(max(np.rint(sums[d] * by) + np.float32(128), np.float32(1)), np.float32(255))


@njit(forceinline=True)
def _add_residual(isa: Any, centroid: Any, residuals: Any, i: int, levels: Any, nbits: int, row: Any) -> Any:
    """Write centroid plus residual to a row, and return the square of its length."""
    dim, packed, mask = len(row), residuals.shape[1], (1 << nbits) - 1
    table = load_floats_16(levels.ctypes.data)
    total = same_floats(np.float32(0))
    rest = np.float32(0)
    for slot in range(8 // nbits):
        first = slot * packed
        n = max(min(packed, dim - first), 0)
        whole = n // 16 * 16 if nbits < 8 else 0
        for place in range(0, whole, 16):
            packed_bytes = load_bytes_16(residuals.ctypes.data + i * packed + place)
            places = as_ints(bits_at(packed_bytes, slot * nbits, mask))
            here = (first + place) * 4
            value = plus(load_floats_16(centroid.ctypes.data + here), look_up_floats(isa, table, places))
            total = times_plus(value, value, total)
            store(row.ctypes.data + here, value)
        for place in range(whole, n):
            one = centroid[first + place] + levels[(residuals[i, place] >> (slot * nbits)) & mask]
            rest += one * one
            row[first + place] = one
    return sum_of_floats(total) + rest
