"""What an index holds at one moment: segments, which of their windows are live, and the codec."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from colbert_core.vectors.segment import as_segment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from colbert_core.types import TokenEmbeddings
    from colbert_core.vectors.codec import ResidualCodec
    from colbert_core.vectors.segment import Segment


@dataclass(frozen=True)
class Part:
    """A segment, and which of its windows are live.

    Attributes:
        segment: the windows.
        live: *Shape:* (n_windows,), bool; False where the passage was deleted or replaced.
    """

    segment: Segment
    live: NDArray[np.bool_]

    @classmethod
    def whole(cls, segment: Segment) -> Part:
        """All windows of a segment."""
        return cls(segment, np.ones(len(segment.pids), np.bool_))

    @cached_property
    def n_passages(self) -> int:
        """Number of passages with a live window."""
        pids = self.segment.pids[self.live]
        return int(np.count_nonzero(np.diff(pids))) + 1 if len(pids) else 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What an index held at one moment. It never changes, so a search needs no lock.

    Attributes:
        parts: segments; ``codec`` has compressed all of them, or none.
        codec: None where the vectors are kept as they are.
    """

    parts: tuple[Part, ...]
    codec: ResidualCodec | None = None


def pids_with_vectors(snapshot: Snapshot) -> NDArray[np.int64]:
    """The passages that have a live window. *Shape:* (n,), ascending."""
    pids = [part.segment.pids[part.live] for part in snapshot.parts]
    return np.unique(np.concatenate(pids)) if pids else np.empty(0, np.int64)


def vectors_of(
    snapshot: Snapshot, pid: int, span: tuple[int, int] | None = None, *, dim: int | None = None
) -> NDArray[np.float32]:
    """The vectors of a live passage, or of its window with this span. *Shape:* (n, dim), float32.

    Args:
        snapshot: what an index held at one moment.
        pid: the passage.
        span: characters of one of its windows, half-open; None for all windows.
        dim: a passage without a window gives an empty array of so many components; None makes that an error.

    Raises:
        KeyError: the snapshot has no such passage.
        IndexError: a file is damaged.
    """
    for part in snapshot.parts:
        segment = part.segment
        windows = segment.windows_of(np.array([pid]))
        windows = windows[part.live[windows]]
        if span is not None:
            windows = windows[(segment.spans[windows] == span).all(axis=1)][:1]
        if len(windows):
            return np.array(segment.vectors_of(segment.tokens_of(windows), snapshot.codec))
    if dim is None:
        raise KeyError(pid)
    return np.empty((0, dim), np.float32)


def windows_of(snapshot: Snapshot, pid: int) -> list[tuple[int, int]]:
    """The characters of each live window of a passage, half-open; none of one with nothing to read."""
    for part in snapshot.parts:
        windows = part.segment.windows_of(np.array([pid]))
        windows = windows[part.live[windows]]
        if len(windows):
            return [(int(start), int(end)) for start, end in part.segment.spans[windows]]
    return []


def as_snapshot(embeddings: TokenEmbeddings) -> Snapshot:
    """Make a snapshot of token embeddings, to search them; their ``owners`` are the pids."""
    return Snapshot((Part.whole(as_segment(embeddings)),))
