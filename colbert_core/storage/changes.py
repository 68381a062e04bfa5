"""What one commit does, and the files that it names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from colbert_core.types import Passage


@dataclass(frozen=True)
class File:
    """Arrays that belong to an index.

    Attributes:
        name: made of their content.
        kind: "segment" or "codec".
        position: of a segment, the row of its first passage; segments follow each other by it.
        size: bytes.
        sha256: of the bytes, hexadecimal.
    """

    name: str
    kind: str
    position: int
    size: int
    sha256: str


@dataclass
class Changes:
    """What one commit does, all of it or nothing.

    Attributes:
        about: settings to write.
        added: passages, which get the next rows in this order; one whose id is known replaces the old one.
        metadata: of ``added``, as JSON.
        removed: rows of passages that go.
        files: to be part of the index from now on.
        dropped: names of files that are not any more.
        buried: dead rows of which no window is left in any file.
    """

    about: dict[str, Any] = field(default_factory=dict)
    added: Sequence[Passage] = ()
    metadata: Sequence[str] = ()
    removed: Sequence[int] = ()
    files: list[File] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    buried: Sequence[int] = ()


class StaleRead(Exception):  # noqa: N818  (no error: the reader starts again)
    """What was being read has been replaced meanwhile; read again at the newest generation."""
