"""Compiled loops of a search. Arrays are C-contiguous; who calls has checked that shapes fit and that numbers are in range.

A query comes in blocks of 32 vectors, rows of zeros filling the last: these have the cosine 0 with everything and add nothing.
Bytes of rows are unsigned with an offset of 128, those of queries signed, so that one instruction multiplies and adds four
pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from colbert_core.kernels.building import decompress
from colbert_core.kernels.compiling import compiled
from colbert_core.kernels.vector import (
    as_bytes,
    as_floats,
    as_shorts,
    bits_at,
    byte_at,
    dot_floats,
    dots,
    first_16,
    first_floats,
    four_times,
    larger,
    last_floats,
    load_bytes_16,
    load_bytes_32,
    load_bytes_64,
    load_floats_16,
    load_shorts_32,
    look_up,
    lowest_bit,
    plus,
    prefetch,
    same_floats,
    same_ints,
    set_byte,
    store,
    sum_of_bytes,
    sum_of_floats,
    times,
    times_plus,
    where_larger,
)

BLOCK = 32
"""Query vectors in a block."""
SHORT = 16384.0
"""What a cosine is multiplied by to be 16 bits: up to 2, beyond what rounding makes of 1."""
BYTE, ZERO = 200.0, 55.0
"""What a cosine is multiplied by, and what is added, to be a byte: -.275 to 1. Coarser than that matters to no ranking."""
_AHEAD = 4096
"""Bytes between what is computed on and what is fetched."""
NOWHERE = -32768
"""The similarity of a centroid that must not be probed."""


@compiled
def quantize_query(query: Any, blocks: Any, scales: Any, starts: Any) -> None:
    """Signed bytes of query vectors, each vector by its own scale.

    Args:
        query: *Shape:* (n_q, dim), float32.
        blocks: *Shape:* (n_blocks, width / 4, 32, 4), int8, zeros; is filled.
        scales: *Shape:* (n_blocks, 32), float32, zeros; what a product of bytes stands for, but for the scale of the rows.
        starts: *Shape:* (n_blocks, 32), int32, zeros; what undoes the offset of the rows.
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
    isa: Any, rows: Any, row_scale: Any, blocks: Any, scales: Any, starts: Any, shorts: Any, bytes_: Any
) -> None:
    """Cosines of query vectors and centroids, twice: at 16 bits for the exact scores, in a byte for the rough ones.

    Args:
        isa: the instruction set.
        rows: *Shape:* (n_rows, width), uint8, n_rows a multiple of 4, width of 16.
        row_scale: what a row's byte stands for.
        blocks, scales, starts: of the query.
        shorts: *Shape:* (n_blocks, n_rows, 32), int16; is filled.
        bytes_: *Shape:* (n_blocks, n_rows, 32), uint8; is filled.
    """
    n, width = rows.shape
    scale = np.empty(32, np.float32)
    for block in range(blocks.shape[0]):
        for i in range(32):
            scale[i] = scales[block, i] * row_scale
        one, other = load_floats_16(scale.ctypes.data), load_floats_16(scale.ctypes.data + 64)
        query, start = blocks.ctypes.data + block * width * 32, starts.ctypes.data + block * 128
        to_shorts, to_bytes = shorts.ctypes.data + block * n * 64, bytes_.ctypes.data + block * n * 32
        for i in range(0, n, 4):
            row = rows.ctypes.data + i * width
            a0, b0, a1, b1, a2, b2, a3, b3 = dots(isa, row, row + width, row + 2 * width, row + 3 * width, query, width, start)
            to_short, to_byte = to_shorts + i * 64, to_bytes + i * 32
            _write_cosines(times(as_floats(a0), one), times(as_floats(b0), other), to_short, to_byte)
            _write_cosines(times(as_floats(a1), one), times(as_floats(b1), other), to_short + 64, to_byte + 32)
            _write_cosines(times(as_floats(a2), one), times(as_floats(b2), other), to_short + 128, to_byte + 64)
            _write_cosines(times(as_floats(a3), one), times(as_floats(b3), other), to_short + 192, to_byte + 96)


@njit(forceinline=True)
def _write_cosines(one: Any, other: Any, to_shorts: int, to_bytes: int) -> None:
    short, byte, zero = same_floats(np.float32(SHORT)), same_floats(np.float32(BYTE)), same_floats(np.float32(ZERO))
    store(to_shorts, as_shorts(times(one, short), times(other, short)))
    store(to_bytes, as_bytes(times_plus(one, byte, zero), times_plus(other, byte, zero)))


@compiled
def nearest_cells(shorts: Any, block: int, first: int, last: int, n_q: int, cells: Any, cosines: Any) -> None:
    """For each query vector of a block the nearest of the centroids ``first`` to ``last``, nearest first, the lower of equals.

    Args:
        shorts: of ``score_centroids``.
        block: which.
        first, last: half-open.
        n_q: query vectors of the block.
        cells: *Shape:* (32, nprobe), int32; is filled, with -1 where there are too few.
        cosines: *Shape:* (32, nprobe), int16; their cosines.
    """
    nprobe = cells.shape[1]
    bars = np.full(32, 32767, np.int16)  # to be passed to get among the nearest; nothing passes this one
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
    """The live windows in the lists of these cells, ascending.

    Args:
        cells: *Shape:* (n,), int32; -1 is none, and one may stand there several times.
        offsets: *Shape:* (n_centroids + 1,), int64; where the list of each centroid begins.
        windows: *Shape:* (offsets[-1],), int32; the lists.
        live: *Shape:* (n_windows,), uint8, 0 or 1.
        marked: *Shape:* (n_windows,), uint8, zeros; is left so.
        found: *Shape:* (n_windows + 1,), int32; its beginning is filled.

    Returns:
        How many there are.
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
    """The first of each passage's windows and the highest of their scores.

    Args:
        windows: *Shape:* (n,), int32, ascending.
        rows: *Shape:* (n_windows,), int64; the passage of each window, ascending.
        scores: *Shape:* (n,), int32.
        firsts, heights: *Shape:* (n,), int32; their beginnings are filled.

    Returns:
        How many passages there are.
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
    """All live windows of the passages that these windows belong to, ascending.

    Args:
        firsts: *Shape:* (n,), int32, ascending; one window of each passage.
        rows: *Shape:* (n_windows,), int64, ascending.
        live: *Shape:* (n_windows,), uint8, 0 or 1.
        found: *Shape:* (n_windows + 1,), int32; its beginning is filled.

    Returns:
        How many there are.
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
def accumulate(cells: Any, cosines: Any, offsets: Any, windows: Any, turn: int, sums: Any) -> None:
    """Add to each window the nearest of the cells it is listed in, for each query vector of a block.

    XTR's sum over retrieved tokens (Lee et al., NeurIPS 2023, section 3.2) with centroids for tokens: what is not in any list
    counts as just below the last cell probed.

    Args:
        cells, cosines: of ``nearest_cells``, nearest first.
        offsets, windows: inverted lists.
        turn: a number for each query vector, at least 1, that ``sums`` has not had yet; the next 31 are used as well.
        sums: *Shape:* (n_windows,), int64, zeros at first; the sum in the lower half, the last turn above it, so that both come
            from memory at once.
    """
    for q in range(cells.shape[0]):
        n = 0
        while n < cells.shape[1] and cells[q, n] >= 0:
            n += 1
        now = (turn + q) << 32
        for i in range(n):
            cell, gain = cells[q, i], int(cosines[q, i]) - int(cosines[q, n - 1]) + 1
            for place in range(offsets[cell], offsets[cell + 1]):
                window = np.uint64(windows[place])
                before = sums[window]
                # Not a branch, because nobody can tell which way it would go.
                sums[window] = (before & 0xFFFFFFFF) + now + gain * ((before >> 32) != (now >> 32))


@compiled
def interact(bytes_: Any, codes: Any, offsets: Any, windows: Any, scores: Any) -> None:
    """Score windows with every token taken for its centroid: sums of the largest bytes. PLAID (CIKM 2022), section 4.3.

    Args:
        bytes_: of ``score_centroids``.
        codes: *Shape:* (n_tokens,), uint16 or uint32.
        offsets: *Shape:* (n_windows + 1,), int64; where each window's tokens begin.
        windows: *Shape:* (n,), int32; best ascending, for the sake of memory.
        scores: *Shape:* (n,), int32; is filled.
    """
    n_blocks, n_rows, _ = bytes_.shape
    table, item = bytes_.ctypes.data, codes.itemsize
    for place in range(len(windows)):
        # What comes in eight windows is fetched meanwhile; this makes it 2.7 times as fast where codes are not in the cache.
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
def best_of(scores: Any, n: int, most: int, chosen: Any, counts: Any) -> int:
    """The places of the ``n`` highest scores, ascending, and of what equals the last of them; ``most`` at most.

    Args:
        scores: *Shape:* (m,), int32, at least 0 and below ``len(counts)``.
        n: at least 1, at most m.
        most: at least n.
        chosen: *Shape:* (m,), int32; its beginning is filled.
        counts: int32, room for one number per score.

    Returns:
        How many there are.
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
    """The levels, as bytes, of one packed residual of ``width`` bytes at an address, to the address ``row``.

    ``table`` has 256 entries; those of a residual of fewer bits come first, 16 times over.
    """
    mask = (1 << nbits) - 1
    if nbits < 8 and width >= 16:
        levels = load_bytes_64(table_address)
        if width % 64 == 0:
            for place in range(0, width, 64):
                some = load_bytes_64(packed + place)
                if nbits == 4:  # spelled out, for a third of the time
                    store(row + place, look_up(isa, levels, bits_at(some, 0, 15)))
                    store(row + width + place, look_up(isa, levels, bits_at(some, 4, 15)))
                else:
                    for slot in range(8 // nbits):
                        store(row + slot * width + place, look_up(isa, levels, bits_at(some, slot * nbits, mask)))
        else:
            # The last 16 may overlap those before: nothing is read beyond the row.
            for start in range(0, width, 16):
                place = min(start, width - 16)
                some = four_times(load_bytes_16(packed + place))
                for slot in range(8 // nbits):
                    found = look_up(isa, levels, bits_at(some, slot * nbits, mask))
                    store(row + slot * width + place, first_16(found))
    else:
        for place in range(width):
            some = byte_at(packed + place)
            for slot in range(8 // nbits):
                set_byte(row + slot * width + place, table[(some >> (slot * nbits)) & mask])


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
    scores: Any,
) -> None:
    """MaxSim of windows over centroids and residuals, in bytes: right to about .001 of each cosine.

    A token's cosine is (query . centroid + query . residual) / length; the first is in ``shorts``, the second is computed over
    the levels as bytes.

    Args:
        isa: the instruction set.
        nbits: 1, 2, 4 or 8.
        codes: *Shape:* (n_tokens,), uint16 or uint32.
        residuals: *Shape:* (n_tokens, packed), uint8.
        lengths: *Shape:* (n_tokens,), uint16; of what a token decompresses to, inverted, in 32768ths.
        offsets: *Shape:* (n_windows + 1,), int64.
        windows: *Shape:* (n,), int32.
        table: *Shape:* (256,), uint8; levels as bytes.
        level_scale: what such a byte stands for.
        blocks, scales, starts: of the query.
        shorts: of ``score_centroids``.
        rows: *Shape:* (4, width), uint8, room for four unpacked residuals.
        scores: *Shape:* (n,), float32; is filled.
    """
    packed, width, item = residuals.shape[1], rows.shape[1], codes.itemsize
    row, address = rows.ctypes.data, residuals.ctypes.data
    unit = same_floats(np.float32(1 / SHORT))
    scale = np.empty(32, np.float32)
    for place in range(len(windows)):
        first, last = offsets[windows[place]], offsets[windows[place] + 1]
        if place + 1 < len(windows):
            ahead = offsets[windows[place + 1]]
            n_ahead = offsets[windows[place + 1] + 1] - ahead
            if ahead != last:  # else what is fetched below comes next
                for line in range(0, min(n_ahead * packed, _AHEAD), 64):
                    prefetch(address + ahead * packed + line)
            for line in range(0, n_ahead * item, 64):
                prefetch(codes.ctypes.data + ahead * item + line)
            for line in range(0, n_ahead * 2, 64):
                prefetch(lengths.ctypes.data + ahead * 2 + line)
        total = np.float32(0)
        for block in range(blocks.shape[0]):
            for i in range(32):
                scale[i] = scales[block, i] * level_scale
            one, other = load_floats_16(scale.ctypes.data), load_floats_16(scale.ctypes.data + 64)
            query, start = blocks.ctypes.data + block * width * 32, starts.ctypes.data + block * 128
            centroids = shorts.ctypes.data + block * shorts.shape[1] * 64
            best, best_other = same_floats(np.float32(-1e9)), same_floats(np.float32(-1e9))
            for token in range(first, last, 4):
                # Beyond the last token the last one again, which changes no maximum.
                t1, t2, t3 = min(token + 1, last - 1), min(token + 2, last - 1), min(token + 3, last - 1)
                for line in range(_AHEAD, _AHEAD + 4 * packed, 64):
                    prefetch(address + token * packed + line)
                _unpack(isa, address + token * packed, packed, nbits, table, table.ctypes.data, row)
                _unpack(isa, address + t1 * packed, packed, nbits, table, table.ctypes.data, row + width)
                _unpack(isa, address + t2 * packed, packed, nbits, table, table.ctypes.data, row + 2 * width)
                _unpack(isa, address + t3 * packed, packed, nbits, table, table.ctypes.data, row + 3 * width)
                a0, b0, a1, b1, a2, b2, a3, b3 = dots(
                    isa, row, row + width, row + 2 * width, row + 3 * width, query, width, start
                )
                best, best_other = _better(best, best_other, a0, b0, one, other, unit, centroids, codes[token], lengths[token])
                best, best_other = _better(best, best_other, a1, b1, one, other, unit, centroids, codes[t1], lengths[t1])
                best, best_other = _better(best, best_other, a2, b2, one, other, unit, centroids, codes[t2], lengths[t2])
                best, best_other = _better(best, best_other, a3, b3, one, other, unit, centroids, codes[t3], lengths[t3])
            total += sum_of_floats(plus(best, best_other))
        scores[place] = total


@njit(forceinline=True)
def _better(
    best: Any, best_other: Any, a: Any, b: Any, one: Any, other: Any, unit: Any, centroids: int, code: int, length: int
) -> Any:
    """The largest cosines so far, with one more token."""
    cosines = load_shorts_32(centroids + int(code) * 64)
    length_ = same_floats(np.float32(length) * np.float32(1 / 32768))
    first = times(times_plus(as_floats(a), one, times(first_floats(cosines), unit)), length_)
    last = times(times_plus(as_floats(b), other, times(last_floats(cosines), unit)), length_)
    return larger(best, first), larger(best_other, last)


@compiled
def score_bytes(
    isa: Any, rows: Any, row_scale: Any, offsets: Any, windows: Any, blocks: Any, scales: Any, starts: Any, scores: Any
) -> None:
    """MaxSim of windows whose vectors are kept as bytes: right to about .001 of each cosine.

    Args:
        isa: the instruction set.
        rows: *Shape:* (n_tokens, width), uint8.
        row_scale: what such a byte stands for.
        offsets: *Shape:* (n_windows + 1,), int64.
        windows: *Shape:* (n,), int32.
        blocks, scales, starts: of the query.
        scores: *Shape:* (n,), float32; is filled.
    """
    width = rows.shape[1]
    scale = np.empty(32, np.float32)
    for place in range(len(windows)):
        first, last = offsets[windows[place]], offsets[windows[place] + 1]
        if place + 1 < len(windows):
            ahead = offsets[windows[place + 1]]
            if ahead != last:  # else what is fetched below comes next
                for line in range(0, min((offsets[windows[place + 1] + 1] - ahead) * width, _AHEAD), 64):
                    prefetch(rows.ctypes.data + ahead * width + line)
        total = np.float32(0)
        for block in range(blocks.shape[0]):
            for i in range(32):
                scale[i] = scales[block, i] * row_scale
            query, start = blocks.ctypes.data + block * width * 32, starts.ctypes.data + block * 128
            best, best_other = same_ints(np.int32(-(2**31))), same_ints(np.int32(-(2**31)))
            for token in range(first, last, 4):
                row = rows.ctypes.data + token * width
                row_1 = row + width if token + 1 < last else row
                row_2 = row + 2 * width if token + 2 < last else row
                row_3 = row + 3 * width if token + 3 < last else row
                for line in range(_AHEAD, _AHEAD + 4 * width, 64):
                    prefetch(row + line)
                a0, b0, a1, b1, a2, b2, a3, b3 = dots(isa, row, row_1, row_2, row_3, query, width, start)
                best = larger(larger(best, larger(a0, a1)), larger(a2, a3))
                best_other = larger(larger(best_other, larger(b0, b1)), larger(b2, b3))
            one, other = load_floats_16(scale.ctypes.data), load_floats_16(scale.ctypes.data + 64)
            total += sum_of_floats(plus(times(as_floats(best), one), times(as_floats(best_other), other)))
        scores[place] = total


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
    scores: Any,
) -> None:
    """MaxSim of windows over centroids and residuals, in float32. A window's score does not depend on what is beside it.

    Args:
        isa: the instruction set.
        nbits, codes, residuals, offsets, windows: as for ``score_residuals``.
        centroids: *Shape:* (n_centroids, dim), float32.
        levels: *Shape:* (2**nbits,), float32, filled up to 16.
        blocks: *Shape:* (n_blocks, dim, 32), float32; the query.
        vectors: *Shape:* (n, dim), float32, room for the tokens of the longest window.
        scores: *Shape:* (n,), float32; is filled.
    """
    for place in range(len(windows)):
        first, last = offsets[windows[place]], offsets[windows[place] + 1]
        decompress(isa, codes[first:last], residuals[first:last], centroids, levels, nbits, vectors)
        scores[place] = _maxsim(isa, vectors.ctypes.data, last - first, vectors.shape[1], blocks)


@compiled
def score_floats(isa: Any, vectors: Any, offsets: Any, windows: Any, blocks: Any, scores: Any) -> None:
    """MaxSim of windows, in float32. A window's score does not depend on what is scored beside it.

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
    """Of ``n`` rows of float32."""
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
