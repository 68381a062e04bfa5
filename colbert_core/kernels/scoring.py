"""Compiled loops of a search. Arrays are C-contiguous; the caller has checked that shapes fit and numbers are in range.

A query comes in blocks of 32 vectors. The last block is filled up with zeros, whose cosine with everything is 0, so they add
nothing to a score. The bytes of rows are unsigned with an offset of 128 and those of queries are signed, because one
instruction multiplies four such pairs and adds the products.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from colbert_core.kernels.building import decompress_some
from colbert_core.kernels.compiling import compiled
from colbert_core.kernels.vector import (
    any_not_below,
    as_bytes,
    as_floats,
    as_shorts,
    bits_at,
    byte_at,
    dot,
    dot_floats,
    first_16,
    first_floats,
    four_times,
    has_tiles,
    larger,
    last_floats,
    less,
    load_bytes_16,
    load_bytes_32,
    load_bytes_64,
    load_floats_16,
    load_ints_16,
    load_shorts_32,
    look_up,
    lowest_bit,
    plus,
    prefetch,
    products,
    release_tiles,
    same_floats,
    same_ints,
    set_byte,
    store,
    sum_of_bytes,
    sum_of_floats,
    sum_of_ints,
    times,
    times_plus,
    use_tiles,
    where_larger,
)

BLOCK = 32
"""Query vectors in a block."""
SHORT = 16384.0
"""A cosine times this is kept in 16 bits. They hold cosines up to 2; rounding makes some larger than 1."""
BYTE, ZERO = 200.0, 55.0
"""A cosine times ``BYTE`` plus ``ZERO`` is kept in a byte, which holds -.275 to 1. Rough scores need no more."""
_AHEAD = 4096
"""Fetch memory so many bytes ahead of what is computed on."""
_LINES_AHEAD = 2
"""Cache lines of a list that are fetched ahead of the next range."""
LONG = 45875
"""A factor of 1.4 in 32768ths. Factors that scale centroid plus residual to length 1 are rarely larger."""
NOWHERE = -32768
"""The similarity of a centroid that must not be probed."""


@compiled
def quantize_query(query: Any, blocks: Any, scales: Any, starts: Any) -> None:
    """Quantize query vectors to signed bytes, each vector by a scale of its own.

    Args:
        query: *Shape:* (n_q, dim), float32.
        blocks: *Shape:* (n_blocks, width / 4, 32, 4), int8, zeros; is filled.
        scales: *Shape:* (n_blocks, 32), float32, zeros; filled: a sum of products times this and the rows' scale is a cosine.
        starts: *Shape:* (n_blocks, 32), int32, zeros; filled: sums of products start here, which undoes the rows' offset.
    """
    for i in range(query.shape[0]):
        largest = np.float32(0)
        for d in range(query.shape[1]):
            largest = max(largest, abs(query[i, d]))
        scale = max(largest, np.float32(1e-20)) / np.float32(127)
        total = 0
        for d in range(query.shape[1]):
            value = int(np.rint(query[i, d] / scale))
            blocks[i // 32, d // 4, i % 32, d % 4] = value
            total += value
        scales[i // 32, i % 32] = scale
        starts[i // 32, i % 32] = -128 * total


@compiled
def score_centroids(
    isa: Any, rows: Any, row_scale: Any, blocks: Any, scales: Any, starts: Any, sums: Any, shorts: Any, bytes_: Any
) -> None:
    """Compute the cosines of query vectors and centroids twice: in 16 bits for exact scores, in a byte for rough ones.

    Args:
        isa: the instruction set.
        rows: *Shape:* (n_rows, width), uint8; width is a multiple of 16.
        row_scale: the value of one step of a row's byte.
        blocks, scales, starts: the query, as ``quantize_query`` fills them.
        sums: *Shape:* (16, 32), int32; is overwritten.
        shorts: *Shape:* (n_blocks, n_rows, 32), int16; is filled.
        bytes_: *Shape:* (n_blocks, n_rows, 32), uint8; is filled.
    """
    n, width = rows.shape
    scale = np.empty(32, np.float32)
    use_tiles(isa)
    for block in range(blocks.shape[0]):
        for i in range(32):
            scale[i] = scales[block, i] * row_scale
        one, other = load_floats_16(scale.ctypes.data), load_floats_16(scale.ctypes.data + 64)
        query, start = blocks.ctypes.data + block * width * 32, starts.ctypes.data + block * 128
        to_shorts, to_bytes = shorts.ctypes.data + block * n * 64, bytes_.ctypes.data + block * n * 32
        for first in range(0, n, 16):
            count = min(16, n - first)
            products(isa, rows.ctypes.data + first * width, count, query, width, start, sums.ctypes.data)
            for i in range(count):
                a, b = load_ints_16(sums.ctypes.data + i * 128), load_ints_16(sums.ctypes.data + i * 128 + 64)
                to_short, to_byte = to_shorts + (first + i) * 64, to_bytes + (first + i) * 32
                _write_cosines(times(as_floats(a), one), times(as_floats(b), other), to_short, to_byte)
    release_tiles(isa)


@njit(forceinline=True)
def _write_cosines(one: Any, other: Any, to_shorts: int, to_bytes: int) -> None:
    short, byte, zero = same_floats(np.float32(SHORT)), same_floats(np.float32(BYTE)), same_floats(np.float32(ZERO))
    store(to_shorts, as_shorts(times(one, short), times(other, short)))
    store(to_bytes, as_bytes(times_plus(one, byte, zero), times_plus(other, byte, zero)))


@compiled
def nearest_cells(shorts: Any, block: int, first: int, last: int, n_q: int, cells: Any, cosines: Any) -> None:
    """Find for each query vector of a block its nearest centroids from ``first`` to ``last``, nearest first.

    Of equal ones the lower comes first.

    Args:
        shorts: cosines, as ``score_centroids`` fills them.
        block: number of the block.
        first, last: the centroids to look at, half-open.
        n_q: query vectors of the block.
        cells: *Shape:* (32, nprobe), int32; is filled with centroids, and with -1 where there are too few.
        cosines: *Shape:* (32, nprobe), int16; is filled with their cosines.
    """
    nprobe = cells.shape[1]
    bars = np.full(32, 32767, np.int16)  # a cosine above its bar is among the nearest; none is above this one
    for q in range(n_q):
        bars[q] = NOWHERE
    cells[:] = -1
    cosines[:] = NOWHERE
    address = shorts.ctypes.data + block * shorts.shape[1] * 64
    for cell in range(first, last):
        passed = where_larger(load_shorts_32(address + cell * 64), load_shorts_32(bars.ctypes.data))
        while passed:
            q = lowest_bit(passed)
            passed &= passed - 1
            cosine = shorts[block, cell, q]
            place = nprobe - 1
            while place > 0 and cosines[q, place - 1] < cosine:
                cosines[q, place], cells[q, place] = cosines[q, place - 1], cells[q, place - 1]
                place -= 1
            cosines[q, place], cells[q, place] = cosine, cell
            bars[q] = cosines[q, nprobe - 1]


@compiled
def listed_windows(cells: Any, offsets: Any, windows: Any, live: Any, marked: Any, found: Any) -> int:
    """Collect the live windows in the lists of these cells, ascending.

    Args:
        cells: *Shape:* (n,), int32; -1 is ignored, and a cell may be named several times.
        offsets: *Shape:* (n_centroids + 1,), int64; where the list of each centroid begins.
        windows: *Shape:* (offsets[-1],), int32; the lists.
        live: *Shape:* (n_windows,), uint8, 0 or 1.
        marked: *Shape:* (n_windows,), uint8, zeros; is zeros again afterwards.
        found: *Shape:* (n_windows + 1,), int32; its beginning is filled.

    Returns:
        The number of windows.
    """
    for cell in cells:
        if cell >= 0:
            for place in range(offsets[cell], offsets[cell + 1]):
                marked[windows[place]] = 1
    n, count = len(marked), 0
    words = marked[: n // 8 * 8].view(np.uint64)
    for word in range(len(words)):
        if words[word]:
            for window in range(word * 8, word * 8 + 8):
                found[count] = window
                count += marked[window] & live[window]
            words[word] = 0
    for window in range(n // 8 * 8, n):
        found[count] = window
        count += marked[window] & live[window]
        marked[window] = 0
    return count


@compiled
def passages_of(windows: Any, rows: Any, scores: Any, firsts: Any, heights: Any) -> int:
    """Find the first of each passage's windows and the highest of their scores.

    Args:
        windows: *Shape:* (n,), int32, ascending.
        rows: *Shape:* (n_windows,), int64; the passage of each window, ascending.
        scores: *Shape:* (n,), int32.
        firsts, heights: *Shape:* (n,), int32; their beginnings are filled.

    Returns:
        The number of passages.
    """
    count = 0
    for place in range(len(windows)):
        if count and rows[windows[place]] == rows[firsts[count - 1]]:
            heights[count - 1] = max(heights[count - 1], scores[place])
        else:
            firsts[count], heights[count] = windows[place], scores[place]
            count += 1
    return count


@compiled
def windows_of(firsts: Any, rows: Any, live: Any, found: Any) -> int:
    """Collect all live windows of the passages that these windows belong to, ascending.

    Args:
        firsts: *Shape:* (n,), int32, ascending; one window of each passage.
        rows: *Shape:* (n_windows,), int64, ascending.
        live: *Shape:* (n_windows,), uint8, 0 or 1.
        found: *Shape:* (n_windows + 1,), int32; its beginning is filled.

    Returns:
        The number of windows.
    """
    count = 0
    for window in firsts:
        row = rows[window]
        while window > 0 and rows[window - 1] == row:
            window -= 1
        while window < len(rows) and rows[window] == row:
            found[count] = window
            count += live[window]
            window += 1
    return count


@compiled
def accumulate(
    cells: Any,
    cosines: Any,
    offsets: Any,
    windows: Any,
    live: Any,
    n: int,
    sum_bits: int,
    shift: int,
    places: Any,
    sums: Any,
    counts: Any,
    bar: Any,
    found: Any,
    scores: Any,
) -> int:
    """Add up for each window the cosines of the nearest cells that list it, and collect the windows whose sums may be highest.

    This is XTR's sum over retrieved tokens (Lee et al., NeurIPS 2023, section 3.2), with centroids in place of tokens. A window
    that no probed cell lists counts as if its cosine were just below that of the last cell. Windows are taken in ranges whose
    sums stay in the cache; lists are read side by side, each from where the range before has ended.

    Args:
        cells, cosines: *Shape:* (n_q, nprobe), cells and their cosines, as ``nearest_cells`` fills them.
        offsets, windows: the inverted lists.
        live: *Shape:* (n_windows,), uint8, 0 or 1; only live windows are collected.
        n: how many windows are wanted, at least 1.
        sum_bits: how many bits a sum has: enough for 2**16 times ``n_q``.
        shift: sums are counted by their value shifted right by so many bits.
        places: *Shape:* (n_q, nprobe), int64; is overwritten.
        sums: *Shape:* (size of a range,), int32 or int64; is overwritten. The lower ``sum_bits`` are the sum, and those above
            the last query vector, counted from 1, so one access to memory reads both.
        counts: *Shape:* (m,), int64; zeros before the first segment: how many windows were collected by their shifted sum.
        bar: *Shape:* (2,), int64; zeros before the first segment: no sum of a lower shifted value is among the ``n`` highest,
            and how many were collected at or above it.
        found: *Shape:* (n_windows,), int32; its beginning is filled with windows, ascending: the ``n`` of highest sums above 0
            and those that tie with the last, and others.
        scores: *Shape:* (n_windows,), int64; its beginning is filled with their sums.

    Returns:
        The number of windows collected; -1 if a list names a window that there is not, or does not ascend.
    """
    n_windows, width, count = len(live), len(sums), 0
    mask = (1 << sum_bits) - 1
    lowest, collected, last = bar[0], bar[1], len(counts) - 1
    least = max(lowest << shift, 1)
    for q in range(cells.shape[0]):
        for i in range(cells.shape[1]):
            places[q, i] = offsets[cells[q, i]] if cells[q, i] >= 0 else -1
    for start in range(0, n_windows, width):
        size = min(width, n_windows - start)
        sums[:size] = 0
        for q in range(cells.shape[0]):
            m = 0
            while m < cells.shape[1] and cells[q, m] >= 0:
                m += 1
            now = (q + 1) << sum_bits
            for i in range(m):
                place, end = places[q, i], offsets[cells[q, i] + 1]
                gain = int(cosines[q, i]) - int(cosines[q, m - 1]) + 1
                while place < end:
                    inside = np.uint64(windows[place]) - np.uint64(start)  # of one before the range it wraps around
                    if inside >= np.uint64(size):
                        break
                    before = np.int64(sums[inside])
                    # A product instead of a branch, because the processor could not predict the branch.
                    sums[inside] = (before & mask) + now + gain * ((before >> sum_bits) != q + 1)
                    place += 1
                places[q, i] = place
                for line in range(_LINES_AHEAD):  # what the next range begins with
                    prefetch(windows.ctypes.data + place * 4 + line * 64)
        for window in range(size):
            score = sums[window] & mask
            if score >= least and live[start + window]:
                found[count], scores[count] = start + window, score
                count += 1
                collected += 1
                counts[min(score >> shift, last)] += 1
                while collected - counts[lowest] >= n:
                    collected -= counts[lowest]
                    lowest += 1
                    least = lowest << shift
    bar[0], bar[1] = lowest, collected
    for q in range(cells.shape[0]):
        for i in range(cells.shape[1]):
            if places[q, i] >= 0 and places[q, i] != offsets[cells[q, i] + 1]:
                return -1
    return count


@compiled
def interact(bytes_: Any, codes: Any, offsets: Any, windows: Any, scores: Any) -> None:
    """Score windows as if every token were its centroid: sums of the largest bytes. PLAID (CIKM 2022), section 4.3.

    Args:
        bytes_: cosines, as ``score_centroids`` fills them.
        codes: *Shape:* (n_tokens,), uint16 or uint32.
        offsets: *Shape:* (n_windows + 1,), int64; where each window's tokens begin.
        windows: *Shape:* (n,), int32; fastest if they ascend, as memory does.
        scores: *Shape:* (n,), int32; is filled.
    """
    n_blocks, n_rows, _ = bytes_.shape
    table, item = bytes_.ctypes.data, codes.itemsize
    for place in range(len(windows)):
        # Fetch the codes of the window eight places ahead: 2.7 times as fast where they are not in the cache.
        if place + 16 < len(windows):
            prefetch(offsets.ctypes.data + 8 * windows[place + 16])
        if place + 8 < len(windows):
            ahead = codes.ctypes.data + offsets[windows[place + 8]] * item
            for line in range(4):
                prefetch(ahead + 64 * line)
        first, last = offsets[windows[place]], offsets[windows[place] + 1]
        total = 0
        for block in range(n_blocks):
            rows = table + block * n_rows * 32
            best = load_bytes_32(rows + int(codes[first]) * 32)
            for token in range(first + 1, last):
                best = larger(best, load_bytes_32(rows + int(codes[token]) * 32))
            total += sum_of_bytes(best)
        scores[place] = total


@compiled
def add_shifts(isa: Any, shifts: Any, windows: Any, query: Any, scale: Any, scores: Any) -> None:
    """Add to the score of each window what its vectors' mean distance from their centroids adds, but leave no score below 0.

    Args:
        isa: the instruction set.
        shifts: *Shape:* (n_windows, dim), uint8, with an offset of 128.
        windows: *Shape:* (n,), int32.
        query: *Shape:* (dim,), int8; the sum of the query vectors.
        scale: what a product of two such bytes adds to a score.
        scores: *Shape:* (n,), int32; is changed.
    """
    dim = shifts.shape[1]
    whole = dim // 64 * 64
    start = 0
    for d in range(dim):
        start -= 128 * int(query[d])
    for place in range(len(windows)):
        if place + 16 < len(windows):
            for line in range(0, dim, 64):
                prefetch(shifts.ctypes.data + windows[place + 16] * dim + line)
        row = shifts.ctypes.data + windows[place] * dim
        sums = same_ints(np.int32(0))
        for d in range(0, whole, 64):
            sums = dot(isa, sums, load_bytes_64(row + d), load_bytes_64(query.ctypes.data + d))
        total = start + sum_of_ints(sums)
        for d in range(whole, dim):
            total += int(shifts[windows[place], d]) * int(query[d])
        scores[place] = max(scores[place] + int(np.rint(np.float32(total) * scale)), 0)


@compiled
def best_of(scores: Any, n: int, most: int, chosen: Any, counts: Any) -> int:
    """Collect the places of the ``n`` highest scores, ascending, and of scores equal to the last, but at most ``most``.

    Args:
        scores: *Shape:* (m,), int32, at least 0 and below ``len(counts)``.
        n: how many to take, from 1 to m.
        most: most places in all, at least n.
        chosen: *Shape:* (m,), int32; its beginning is filled.
        counts: *Shape:* (above the highest score,), int32; is overwritten.

    Returns:
        The number of places.
    """
    top = 0
    for score in scores:
        top = max(top, score)
    counts[: top + 1] = 0
    for score in scores:
        counts[score] += 1
    bar, above = top, 0
    while above + counts[bar] < n:
        above += counts[bar]
        bar -= 1
    left = min(counts[bar], most - above)
    count = 0
    for place in range(len(scores)):
        score = scores[place]
        if score > bar or (score == bar and left > 0):
            left -= score == bar
            chosen[count] = place
            count += 1
    return count


@njit(forceinline=True)
def _unpack(isa: Any, packed: int, width: int, nbits: int, table: Any, table_address: int, row: int) -> None:
    """Unpack one residual: write the levels, as bytes, of the ``width`` bytes at ``packed`` to the address ``row``.

    ``table`` has 256 entries: the levels, repeated.
    """
    mask = (1 << nbits) - 1
    if nbits < 8 and width >= 16:
        levels = load_bytes_64(table_address)
        if width % 64 == 0:
            for place in range(0, width, 64):
                wide = load_bytes_64(packed + place)
                if nbits == 4:  # without the loop it takes a third of the time
                    store(row + place, look_up(isa, levels, bits_at(wide, 0, 15)))
                    store(row + width + place, look_up(isa, levels, bits_at(wide, 4, 15)))
                else:
                    for slot in range(8 // nbits):
                        store(row + slot * width + place, look_up(isa, levels, bits_at(wide, slot * nbits, mask)))
        else:
            # The last 16 bytes may overlap those before them, so nothing is read beyond the row.
            for start in range(0, width, 16):
                place = min(start, width - 16)
                repeated = four_times(load_bytes_16(packed + place))
                for slot in range(8 // nbits):
                    entries = look_up(isa, levels, bits_at(repeated, slot * nbits, mask))
                    store(row + slot * width + place, first_16(entries))
    else:
        for place in range(width):
            byte = byte_at(packed + place)
            for slot in range(8 // nbits):
                set_byte(row + slot * width + place, table[(byte >> (slot * nbits)) & mask])


@compiled
def score_residuals(
    isa: Any,
    nbits: int,
    codes: Any,
    residuals: Any,
    lengths: Any,
    offsets: Any,
    windows: Any,
    table: Any,
    level_scale: Any,
    blocks: Any,
    scales: Any,
    starts: Any,
    shorts: Any,
    rows: Any,
    sums: Any,
    below: Any,
    cosines: Any,
    near: Any,
    scores: Any,
) -> None:
    """Score compressed windows by MaxSim in bytes: each cosine is right to about .001.

    A token's cosine is (query . centroid + query . residual) / length. The first product is in ``shorts``, the second one is
    computed from the levels as bytes.

    Args:
        isa: the instruction set.
        nbits: 1, 2, 4 or 8.
        codes: *Shape:* (n_tokens,), uint16 or uint32.
        residuals: *Shape:* (n_tokens, packed), uint8.
        lengths: *Shape:* (n_tokens,), uint16; 1 / length of centroid plus residual, in 32768ths.
        offsets: *Shape:* (n_windows + 1,), int64.
        windows: *Shape:* (n,), int32.
        table: *Shape:* (256,), uint8; levels as bytes.
        level_scale: the value of one step of such a byte.
        blocks, scales, starts: the query, as ``quantize_query`` fills them.
        shorts: cosines, as ``score_centroids`` fills them.
        rows: *Shape:* (16, width), uint8, room for 16 unpacked residuals.
        sums: *Shape:* (16, 32), int32; is overwritten.
        below: *Shape:* (n_blocks, 32), float32; how far below the largest cosine a token may be and still count as near.
        cosines: *Shape:* (m, 32), float32; room for those of the longest window's tokens.
        near: *Shape:* (n, m), uint8; its beginning is filled: which tokens of each window are near to a query vector. m is 0 if
            nobody asks.
        scores: *Shape:* (n,), float32; is filled.
    """
    packed, width, item = residuals.shape[1], rows.shape[1], codes.itemsize
    row, address = rows.ctypes.data, residuals.ctypes.data
    unit = same_floats(np.float32(1 / SHORT))
    scale = np.empty(32, np.float32)
    use_tiles(isa)
    for place in range(len(windows)):
        first, last = offsets[windows[place]], offsets[windows[place] + 1]
        if place + 1 < len(windows):
            ahead = offsets[windows[place + 1]]
            n_ahead = offsets[windows[place + 1] + 1] - ahead
            if ahead != last:  # else it is what the loop over tokens fetches anyway
                for line in range(0, min(n_ahead * packed, _AHEAD), 64):
                    prefetch(address + ahead * packed + line)
            for line in range(0, n_ahead * item, 64):
                prefetch(codes.ctypes.data + ahead * item + line)
            for line in range(0, n_ahead * 2, 64):
                prefetch(lengths.ctypes.data + ahead * 2 + line)
        total = np.float32(0)
        near[place] = 0
        for block in range(blocks.shape[0]):
            for i in range(32):
                scale[i] = scales[block, i] * level_scale
            one, other = load_floats_16(scale.ctypes.data), load_floats_16(scale.ctypes.data + 64)
            query, start = blocks.ctypes.data + block * width * 32, starts.ctypes.data + block * 128
            centroids = shorts.ctypes.data + block * shorts.shape[1] * 64
            best, best_other = same_floats(np.float32(-1e9)), same_floats(np.float32(-1e9))
            for token in range(first, last, 16):
                count = min(16, last - token)
                for line in range(_AHEAD, _AHEAD + count * packed, 64):
                    prefetch(address + token * packed + line)
                for i in range(count):
                    _unpack(isa, address + (token + i) * packed, packed, nbits, table, table.ctypes.data, row + i * width)
                products(isa, row, 16 if has_tiles(isa) else count, query, width, start, sums.ctypes.data)
                for i in range(count):
                    a, b = load_ints_16(sums.ctypes.data + i * 128), load_ints_16(sums.ctypes.data + i * 128 + 64)
                    a, b = _cosines(a, b, one, other, unit, centroids, codes[token + i], lengths[token + i])
                    best, best_other = larger(best, a), larger(best_other, b)
                    if near.shape[1]:
                        to = cosines.ctypes.data + (token - first + i) * 128
                        store(to, a)
                        store(to + 64, b)
            total += sum_of_floats(plus(best, best_other))
            if near.shape[1]:
                under = below.ctypes.data + block * 128
                bar, bar_other = less(best, load_floats_16(under)), less(best_other, load_floats_16(under + 64))
                for token in range(last - first):
                    at = cosines.ctypes.data + token * 128
                    near[place, token] |= any_not_below(load_floats_16(at), bar, load_floats_16(at + 64), bar_other)
        scores[place] = total
        if near.shape[1]:
            for token in range(first, last):
                if lengths[token] > LONG:  # the errors of such a token may be larger
                    near[place, : last - first] = 1
    release_tiles(isa)


@njit(forceinline=True)
def _cosines(a: Any, b: Any, one: Any, other: Any, unit: Any, centroids: int, code: int, length: int) -> Any:
    """Return the cosines of 32 query vectors and a token, from the products with its residual in bytes."""
    cosines = load_shorts_32(centroids + int(code) * 64)
    length_ = same_floats(np.float32(length) * np.float32(1 / 32768))
    first = times(times_plus(as_floats(a), one, times(first_floats(cosines), unit)), length_)
    last = times(times_plus(as_floats(b), other, times(last_floats(cosines), unit)), length_)
    return first, last


@compiled
def score_bytes(
    isa: Any,
    rows: Any,
    row_scale: Any,
    offsets: Any,
    windows: Any,
    blocks: Any,
    scales: Any,
    starts: Any,
    sums: Any,
    scores: Any,
) -> None:
    """Score windows of vectors that are kept as bytes, by MaxSim: each cosine is right to about .001.

    Args:
        isa: the instruction set.
        rows: *Shape:* (n_tokens, width), uint8.
        row_scale: the value of one step of such a byte.
        offsets: *Shape:* (n_windows + 1,), int64.
        windows: *Shape:* (n,), int32.
        blocks, scales, starts: the query, as ``quantize_query`` fills them.
        sums: *Shape:* (16, 32), int32; is overwritten.
        scores: *Shape:* (n,), float32; is filled.
    """
    width = rows.shape[1]
    scale = np.empty(32, np.float32)
    use_tiles(isa)
    for place in range(len(windows)):
        first, last = offsets[windows[place]], offsets[windows[place] + 1]
        if place + 1 < len(windows):
            ahead = offsets[windows[place + 1]]
            if ahead != last:  # else it is what the loop over tokens fetches anyway
                for line in range(0, min((offsets[windows[place + 1] + 1] - ahead) * width, _AHEAD), 64):
                    prefetch(rows.ctypes.data + ahead * width + line)
        total = np.float32(0)
        for block in range(blocks.shape[0]):
            for i in range(32):
                scale[i] = scales[block, i] * row_scale
            query, start = blocks.ctypes.data + block * width * 32, starts.ctypes.data + block * 128
            best, best_other = same_ints(np.int32(-(2**31))), same_ints(np.int32(-(2**31)))
            for token in range(first, last, 16):
                # Tiles take 16 rows: the last ones with some before them once more, if the window has so many.
                at = max(min(token, last - 16), first) if has_tiles(isa) else token
                row, count = rows.ctypes.data + at * width, min(16, last - at)
                for line in range(_AHEAD, _AHEAD + count * width, 64):
                    prefetch(row + line)
                products(isa, row, count, query, width, start, sums.ctypes.data)
                for i in range(count):
                    best = larger(best, load_ints_16(sums.ctypes.data + i * 128))
                    best_other = larger(best_other, load_ints_16(sums.ctypes.data + i * 128 + 64))
            one, other = load_floats_16(scale.ctypes.data), load_floats_16(scale.ctypes.data + 64)
            total += sum_of_floats(plus(times(as_floats(best), one), times(as_floats(best_other), other)))
        scores[place] = total
    release_tiles(isa)


@compiled
def score_exactly(
    isa: Any,
    nbits: int,
    codes: Any,
    residuals: Any,
    offsets: Any,
    windows: Any,
    centroids: Any,
    levels: Any,
    blocks: Any,
    vectors: Any,
    near: Any,
    scores: Any,
) -> None:
    """Score compressed windows by MaxSim in float32. A window's score does not depend on the windows scored beside it.

    Args:
        isa: the instruction set.
        nbits, codes, residuals, offsets, windows: as for ``score_residuals``.
        centroids: *Shape:* (n_centroids, dim), float32.
        levels: *Shape:* (2**nbits,) or more, float32; at least 16, of which those beyond 2**nbits are not used.
        blocks: *Shape:* (n_blocks, dim, 32), float32; the query.
        vectors: *Shape:* (n, dim), float32, room for the tokens of the longest window.
        near: *Shape:* (n, m), uint8; which tokens of each window may be the nearest of a query vector, as ``score_residuals``
            finds them. All of them if m is 0.
        scores: *Shape:* (n,), float32; is filled.
    """
    tokens = np.empty(len(vectors) + 1, np.int64)
    for place in range(len(windows)):
        first, last = offsets[windows[place]], offsets[windows[place] + 1]
        count = 0
        for token in range(first, last):
            tokens[count] = token
            count += 1 if near.shape[1] == 0 else near[place, token - first]
        decompress_some(isa, codes, residuals, tokens[:count], centroids, levels, nbits, vectors)
        scores[place] = _maxsim(isa, vectors.ctypes.data, count, vectors.shape[1], blocks)


@compiled
def score_floats(isa: Any, vectors: Any, offsets: Any, windows: Any, blocks: Any, scores: Any) -> None:
    """Score windows by MaxSim in float32. A window's score does not depend on the windows scored beside it.

    Args:
        isa: the instruction set.
        vectors: *Shape:* (n_tokens, dim), float32.
        offsets: *Shape:* (n_windows + 1,), int64.
        windows: *Shape:* (n,), int32.
        blocks: *Shape:* (n_blocks, dim, 32), float32; the query.
        scores: *Shape:* (n,), float32; is filled.
    """
    dim = vectors.shape[1]
    for place in range(len(windows)):
        first, last = offsets[windows[place]], offsets[windows[place] + 1]
        scores[place] = _maxsim(isa, vectors.ctypes.data + first * dim * 4, last - first, dim, blocks)


@njit(forceinline=True)
def _maxsim(isa: Any, address: int, n: int, dim: int, blocks: Any) -> Any:
    """Return MaxSim of a query and the ``n`` rows of float32 at an address."""
    total = np.float32(0)
    for block in range(blocks.shape[0]):
        query = blocks.ctypes.data + block * dim * 128
        best, best_other = same_floats(np.float32(-1e9)), same_floats(np.float32(-1e9))
        for token in range(0, n, 4):
            row = address + token * dim * 4
            row_1 = row + dim * 4 if token + 1 < n else row
            row_2 = row + dim * 8 if token + 2 < n else row
            row_3 = row + dim * 12 if token + 3 < n else row
            a0, b0, a1, b1, a2, b2, a3, b3 = dot_floats(isa, row, row_1, row_2, row_3, query, dim)
            best = larger(larger(best, larger(a0, a1)), larger(a2, a3))
            best_other = larger(larger(best_other, larger(b0, b1)), larger(b2, b3))
        total += sum_of_floats(plus(best, best_other))
    return total
