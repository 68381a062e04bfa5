"""The vectors of one generation, and the files they lie in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from colbert_core.storage.changes import File
    from colbert_core.vectors.snapshot import Part, Snapshot


@dataclass(frozen=True)
class State:
    """The vectors of one generation; all reads of that generation share them.

    Attributes:
        generation: number of commits before.
        snapshot: segments, mapped from disk, and the codec.
        files: where the segments lie; they go with ``snapshot.parts``.
        codec_file: where the codec lies; None while the index is uncompressed.
    """

    generation: int
    snapshot: Snapshot
    files: tuple[File, ...]
    codec_file: File | None

    def live_tokens(self) -> int:
        """Number of vectors of the passages that can be found."""
        return sum(count_tokens(part) for part in self.snapshot.parts)


def count_tokens(part: Part) -> int:
    """Number of vectors of a part's live windows."""
    return int(part.segment.doclens[part.live].sum(dtype=np.int64))
