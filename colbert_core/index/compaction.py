"""Plan what a write does to segments: merge small ones, write mostly dead ones again, compress all of them.

Nothing here changes an index. A plan is a ``Changes`` for ``Writer.commit``; the files that it names are written already.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from colbert_core.index.state import State, count_tokens
from colbert_core.progress import progress_bar
from colbert_core.storage.changes import Changes, File
from colbert_core.vectors.segment import Segment, merged_arrays
from colbert_core.vectors.snapshot import Part, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from colbert_core.storage.transaction import Writer
    from colbert_core.vectors.codec import ResidualCodec

# A new segment takes in the older ones up to so many times its size, so there are about log4(n) of them ...
_MERGED = 3
# ... and none larger than this is made by an add, which bounds its memory.
_LARGEST_MERGE = 2**27
# A segment is written again without its dead windows when these hold more than this part of its tokens.
_MOST_DEAD = 0.5
# Tokens decompressed at a time while an index is compressed anew.
_PIECE = 2**16
_SEED = 12345


def plan_commit(writer: Writer, state: State, deleted: NDArray[np.int64], added: Segment | None) -> Changes:
    """Delete some passages and add a segment; merge small segments on the way, and write mostly dead ones again.

    Args:
        writer: writes the files.
        state: the segments that there are.
        deleted: pids, *Shape:* (n,), ascending.
        added: the new windows; None for none.
    """
    parts = [bury(part, deleted) for part in state.snapshot.parts]
    tombstones: list[int] = []
    files: list[File] = []
    dropped: list[str] = []
    first_merged = len(parts)
    if added is not None and len(added.pids):
        size = _count_bytes(added)
        while first_merged and _count_bytes(parts[first_merged - 1].segment) <= min(_MERGED * size, _LARGEST_MERGE - size):
            first_merged -= 1
            size += _count_bytes(parts[first_merged].segment)
        files.append(_put(writer, [*parts[first_merged:], Part.whole(added)], state.snapshot.codec))
    for number, (file, part) in enumerate(zip(state.files, parts, strict=True)):
        if number < first_merged:
            if count_tokens(part) >= (1 - _MOST_DEAD) * part.segment.n_tokens:
                continue
            if part.live.any():
                files.append(_put(writer, [part], state.snapshot.codec))
        dropped.append(file.name)
        tombstones += _dead_pids(part)
    return Changes(files=files, dropped=dropped, tombstones=tombstones)


def plan_merge(writer: Writer, state: State) -> Changes:
    """Merge all segments into one, without their dead windows."""
    parts = state.snapshot.parts
    return Changes(
        files=[_put(writer, parts, state.snapshot.codec)] if any(part.live.any() for part in parts) else [],
        dropped=[file.name for file in state.files],
        tombstones=writer.dead().tolist(),  # with those of passages that never had a window
    )


def plan_extension(writer: Writer, state: State, codec: ResidualCodec) -> Changes:
    """Keep the segments, and put a codec with more centroids beside them."""
    file = writer.put("codec", 0, {name: [array] for name, array in codec.to_arrays().items()})
    return Changes(files=[file], dropped=[state.codec_file.name] if state.codec_file else [])


def plan_recompression(writer: Writer, state: State, codec: ResidualCodec, progress: bool | None) -> Changes:
    """Compress all live windows with a codec, into segments as large as an add would make them."""
    files = [writer.put("codec", 0, {name: [array] for name, array in codec.to_arrays().items()})]
    waiting: list[Part] = []
    size = 0
    with progress_bar("Compressing", state.live_tokens(), "token", progress) as bar:
        for part in state.snapshot.parts:
            for windows in _pieces(part):
                piece = compress(_decompress(part.segment, windows, state.snapshot.codec), codec)
                if waiting and size + _count_bytes(piece) > _LARGEST_MERGE:
                    files.append(_put(writer, waiting, codec))
                    waiting, size = [], 0
                waiting.append(Part.whole(piece))
                size += _count_bytes(piece)
                bar.update(piece.n_tokens)
        if waiting:
            files.append(_put(writer, waiting, codec))
    dropped = [file.name for file in (*state.files, state.codec_file) if file]
    return Changes(files=files, dropped=dropped, tombstones=writer.dead().tolist())


def compress(segment: Segment, codec: ResidualCodec | None) -> Segment:
    """Compress a segment's vectors; it stays as it is where there is no codec, or it is compressed already."""
    if codec is None or segment.vectors is None:
        return segment
    codes, residuals = codec.compress(segment.vectors)
    lengths, shifts = codec.inverse_lengths(codes, residuals), codec.shifts(codes, residuals, segment.doclens)
    return replace(segment, vectors=None, codes=codes, residuals=residuals, lengths=lengths, shifts=shifts)


def bury(part: Part, deleted: NDArray[np.int64]) -> Part:
    """Mark the windows of these passages as dead.

    Args:
        part: a segment.
        deleted: pids, *Shape:* (n,), ascending; those that the segment does not have are passed over.
    """
    pids = part.segment.pids
    if not len(pids):
        return part
    within = deleted[np.searchsorted(deleted, pids[0]) : np.searchsorted(deleted, pids[-1], side="right")]
    if not len(within):
        return part
    return Part(part.segment, part.live & ~part.segment.find(within))


def sample_vectors(snapshot: Snapshot, n: int) -> NDArray[np.float32]:
    """Vectors of ``n`` live tokens, spread over all of them. The same tokens for the same collection."""
    counts = [count_tokens(part) for part in snapshot.parts]
    total = sum(counts)
    chosen = np.sort(np.random.default_rng(_SEED).choice(total, min(n, total), replace=False))
    vectors, start = [], 0
    for part, count in zip(snapshot.parts, counts, strict=True):
        of_part = chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, start + count)] - start
        tokens = np.flatnonzero(np.repeat(part.live, part.segment.doclens))[of_part]
        vectors.append(part.segment.vectors_of(tokens, snapshot.codec))
        start += count
    return np.concatenate(vectors)


def _put(writer: Writer, parts: Iterable[Part], codec: ResidualCodec | None) -> File:
    """Write the live windows of these parts, compressed by this codec or by none, as one segment."""
    chosen = [(part.segment if codec is None else part.segment.with_shifts(codec), part.live) for part in parts]
    position = next(int(segment.pids[kept][0]) for segment, kept in chosen if kept.any())
    return writer.put("segment", position, merged_arrays(chosen))


def _pieces(part: Part) -> Iterator[NDArray[np.intp]]:
    """Cut the live windows of a part into pieces of about ``_PIECE`` tokens; those of one passage stay together."""
    windows = np.flatnonzero(part.live)
    if not len(windows):
        return
    is_first = np.diff(part.segment.pids[windows], prepend=-1) != 0
    turns = np.cumsum(part.segment.doclens[windows], dtype=np.int64) // _PIECE
    turns = turns[is_first][np.cumsum(is_first) - 1]  # that of the passage's first window
    yield from np.split(windows, np.flatnonzero(np.diff(turns)) + 1)


def _decompress(segment: Segment, windows: NDArray[np.intp], codec: ResidualCodec | None) -> Segment:
    vectors = segment.vectors_of(segment.tokens_of(windows), codec)
    return Segment(segment.pids[windows], segment.spans[windows], segment.doclens[windows], vectors=vectors)


def _dead_pids(part: Part) -> list[int]:
    pids: list[int] = np.unique(part.segment.pids[~part.live]).tolist()
    return pids


def _count_bytes(segment: Segment) -> int:
    """Bytes of its vectors."""
    return sum(array.nbytes for array in (segment.vectors, segment.codes, segment.residuals) if array is not None)
