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
    """The vectors of one generation, shared by all searches of it. ``files`` go with ``snapshot.parts``."""

    generation: int
    snapshot: Snapshot
    files: tuple[File, ...]
    codec_file: File | None

    def live_tokens(self) -> int:
        """Tokens of the passages that can be found."""
        return sum(count_tokens(part) for part in self.snapshot.parts)


def count_tokens(part: Part) -> int:
    """Tokens of the windows that count."""
    return int(part.segment.doclens[part.live].sum(dtype=np.int64))
