"""What a write makes of segments: small ones merged, mostly dead ones written again, all of them compressed.

Nothing here changes an index; what comes back are ``Changes`` for ``Writer.commit``.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from colbert_core.progress import progress_bar
from colbert_core.storage.changes import Changes, File
from colbert_core.vectors.segment import Segment, merged_arrays
from colbert_core.vectors.snapshot import Part, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from colbert_core.storage.transaction import Writer
    from colbert_core.vectors.codec import ResidualCodec
from colbert_core.index.state import State, count_tokens

# A new segment takes in the older ones up to so many times its size, so there are about log4(n) of them ...
_MERGED = 3
# ... and none larger than this is made by an add, which bounds its memory.
_LARGEST_MERGE = 2**27
# A segment is written again without its dead windows when these hold more than this part of its tokens.
_MOST_DEAD = 0.5
# Tokens decompressed at a time while an index is compressed anew.
_PIECE = 2**16
_SEED = 12345


def written(writer: Writer, state: State, gone: NDArray[np.int64], added: Segment | None) -> Changes:
    """Segments after some rows have gone and others have been added: small ones merged, mostly dead ones written again."""
    parts = [buried(part, gone) for part in state.snapshot.parts]
    gone_for_good: list[int] = []
    files: list[File] = []
    dropped: list[str] = []
    merged = len(parts)
    if added is not None:
        size = _size(added)
        while merged and _size(parts[merged - 1].segment) <= min(_MERGED * size, _LARGEST_MERGE - size):
            merged -= 1
            size += _size(parts[merged].segment)
        whole = np.ones(len(added.rows), np.bool_)
        taken = [(part.segment, part.live) for part in parts[merged:]]
        files.append(_put(writer, [*taken, (added, whole)]))
    for number, (file, part) in enumerate(zip(state.files, parts, strict=True)):
        if number < merged:
            if count_tokens(part) >= (1 - _MOST_DEAD) * part.segment.n_tokens:
                continue
            if part.live.any():
                files.append(_put(writer, [(part.segment, part.live)]))
        dropped.append(file.name)
        gone_for_good += np.unique(part.segment.rows[~part.live]).tolist()
    return Changes(files=files, dropped=dropped, buried=gone_for_good)


def merged(writer: Writer, state: State, numbers: Iterable[int]) -> Changes:
    """These segments as one."""
    parts = [state.snapshot.parts[number] for number in numbers]
    files = [_put(writer, [(part.segment, part.live) for part in parts])] if any(part.live.any() for part in parts) else []
    return Changes(
        files=files,
        dropped=[state.files[number].name for number in numbers],
        buried=list(chain.from_iterable(np.unique(part.segment.rows[~part.live]).tolist() for part in parts)),
    )


def _put(writer: Writer, parts: list[tuple[Segment, NDArray[np.bool_]]]) -> File:
    position = next(int(segment.rows[kept][0]) for segment, kept in parts if kept.any())
    return writer.put("segment", position, merged_arrays(parts))


def extended(writer: Writer, state: State, codec: ResidualCodec) -> Changes:
    """The same segments beside a codec with more centroids."""
    file = writer.put("codec", 0, {name: [array] for name, array in codec.to_arrays().items()})
    return Changes(files=[file], dropped=[state.codec_file.name] if state.codec_file else [])


def recompressed(writer: Writer, state: State, codec: ResidualCodec, progress: bool | None) -> Changes:
    """All live windows under a codec, in segments as large as an add would make them."""
    files = [writer.put("codec", 0, {name: [array] for name, array in codec.to_arrays().items()})]
    gone_for_good: list[int] = []
    waiting: list[tuple[Segment, NDArray[np.bool_]]] = []
    size = 0
    with progress_bar("Compressing", state.live_tokens(), "token", progress) as bar:
        for part in state.snapshot.parts:
            gone_for_good += np.unique(part.segment.rows[~part.live]).tolist()
            for windows in _pieces(part):
                piece = compressed(_taken(part.segment, windows, state.snapshot.codec), codec)
                if waiting and size + _size(piece) > _LARGEST_MERGE:
                    files.append(_put(writer, waiting))
                    waiting, size = [], 0
                waiting.append((piece, np.ones(len(piece.rows), np.bool_)))
                size += _size(piece)
                bar.update(piece.n_tokens)
        if waiting:
            files.append(_put(writer, waiting))
    dropped = [file.name for file in (*state.files, state.codec_file) if file]
    return Changes(files=files, dropped=dropped, buried=gone_for_good)


def _pieces(part: Part) -> Iterator[NDArray[np.intp]]:
    """The live windows of a part, about ``_PIECE`` tokens at a time, those of one passage together."""
    windows = np.flatnonzero(part.live)
    if not len(windows):
        return
    is_first = np.diff(part.segment.rows[windows], prepend=-1) != 0
    turns = np.cumsum(part.segment.doclens[windows], dtype=np.int64) // _PIECE
    turns = turns[is_first][np.cumsum(is_first) - 1]  # that of the passage's first window
    yield from np.split(windows, np.flatnonzero(np.diff(turns)) + 1)


def _taken(segment: Segment, windows: NDArray[np.intp], codec: ResidualCodec | None) -> Segment:
    """Some windows, decompressed."""
    vectors = segment.vectors_of(segment.tokens_of(windows), codec)
    return Segment(segment.rows[windows], segment.spans[windows], segment.doclens[windows], vectors=vectors)


def compressed(segment: Segment, codec: ResidualCodec | None) -> Segment:
    """The segment under a codec; as it is where there is none, or it comes compressed."""
    if codec is None or segment.vectors is None:
        return segment
    codes, residuals = codec.compress(segment.vectors)
    lengths = codec.inverse_lengths(codes, residuals)
    return replace(segment, vectors=None, codes=codes, residuals=residuals, lengths=lengths)


def buried(part: Part, gone: NDArray[np.int64]) -> Part:
    """The part without the windows of these rows."""
    rows = part.segment.rows
    if not len(rows):
        return part
    within = gone[np.searchsorted(gone, rows[0]) : np.searchsorted(gone, rows[-1], side="right")]
    if not len(within):
        return part
    return Part(part.segment, part.live & ~part.segment.find(within))


def _size(segment: Segment) -> int:
    """Bytes of its vectors."""
    return sum(array.nbytes for array in (segment.vectors, segment.codes, segment.residuals) if array is not None)


def sampled(snapshot: Snapshot, n: int) -> NDArray[np.float32]:
    """Vectors of ``n`` live tokens, spread over all of them. The same tokens for the same collection."""
    counts = [count_tokens(part) for part in snapshot.parts]
    total = sum(counts)
    chosen = np.sort(np.random.default_rng(_SEED).choice(total, min(n, total), replace=False))
    vectors, start = [], 0
    for part, count in zip(snapshot.parts, counts, strict=True):
        mine = chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, start + count)] - start
        tokens = np.flatnonzero(np.repeat(part.live, part.segment.doclens))[mine]
        vectors.append(part.segment.vectors_of(tokens, snapshot.codec))
        start += count
    return np.concatenate(vectors)


def misfits(snapshot: Snapshot, rows: NDArray[np.int64]) -> list[str]:
    """What does not fit together in the vectors of passages with these rows."""
    problems = []
    n_centroids = 0 if snapshot.codec is None else len(snapshot.codec.centroids)
    for number, part in enumerate(snapshot.parts):
        segment = part.segment
        if segment.codes is not None and len(segment.codes) and int(segment.codes.max()) >= n_centroids:
            problems.append(f"Segment {number} names centroid {segment.codes.max()}, but there are {n_centroids}")
        lists = segment.lists
        if lists is not None and len(lists.windows) and not 0 <= lists.windows.min() <= lists.windows.max() < len(segment.rows):
            problems.append(f"Segment {number} lists window {lists.windows.max()}, but has {len(segment.rows)}")
        if segment.vectors is not None and not np.isfinite(segment.vectors).all():
            problems.append(f"Segment {number} has a vector that is not finite")
    found = np.concatenate([np.unique(part.segment.rows[part.live]) for part in snapshot.parts] or [rows[:0]])
    without, astray = len(np.setdiff1d(rows, found)), len(np.setdiff1d(found, rows))
    if without or astray:
        problems.append(f"{without} passages have no vectors, and vectors of {astray} have no passage")
    if len(np.unique(found)) != len(found):
        problems.append(f"The vectors of {len(found) - len(np.unique(found))} passages lie in several segments")
    return problems
