"""The vectors of one generation, and the files they lie in."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from colbert_core.errors import DamagedIndexError
from colbert_core.vectors.background import Background, Moments

if TYPE_CHECKING:
    from collections.abc import Iterator

    from colbert_core.storage.changes import File
    from colbert_core.vectors.snapshot import Part, Snapshot


@dataclass(frozen=True)
class State:
    """The vectors of one generation; all reads of that generation share them.

    Attributes:
        identity: which index it is of.
        generation: number of commits before.
        snapshot: segments, mapped from disk, and the codec.
        files: where the segments lie; they go with ``snapshot.parts``.
        codec_file: where the codec lies; None while the index is uncompressed.
    """

    identity: str
    generation: int
    snapshot: Snapshot
    files: tuple[File, ...]
    codec_file: File | None

    @cached_property
    def moments(self) -> Moments | None:
        """Sums over the vectors of the collection, computed once for each generation; None if there is none.

        Raises:
            IndexError: a file is damaged.
        """
        return Moments.of_snapshot(self.snapshot)

    @cached_property
    def background(self) -> Background | None:
        """How the vectors of the collection are spread; as ``moments``."""
        return None if self.moments is None else Background.of_moments(self.moments)

    def live_tokens(self) -> int:
        """Number of vectors of the passages that can be found."""
        return sum(count_tokens(part) for part in self.snapshot.parts)


def count_tokens(part: Part) -> int:
    """Number of vectors of a part's live windows."""
    return int(part.segment.doclens[part.live].sum(dtype=np.int64))


@contextlib.contextmanager
def damage_named(name: str) -> Iterator[None]:
    """Report a vector, a code or a row that is not what was written as damage of an index.

    Args:
        name: the index, for messages.

    Raises:
        DamagedIndexError: in place of what NumPy, SQLite or a check of vectors raises.
    """
    try:
        yield
    except (KeyError, IndexError, sqlite3.IntegrityError) as error:
        raise DamagedIndexError(f"{name} is damaged ({error}); run verify to see where.") from error
