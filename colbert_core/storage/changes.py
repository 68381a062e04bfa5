"""What one commit does, and the files that it names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from colbert_core.storage.sources import Source
    from colbert_core.types import Passage


@dataclass(frozen=True)
class File:
    """Arrays that belong to an index.

    Attributes:
        name: the SHA-256 of its content.
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
        added: passages to add, which get the next rows in this order; one whose id is known replaces the old one.
        metadata: of ``added``, as JSON.
        changed: passages to keep with other metadata, each with its row and these metadata as JSON; read once.
        removed: rows of passages to remove.
        files: files that become part of the index.
        dropped: names of files that are no longer part of it.
        tombstones: rows to forget: they are dead, and no file has a window of theirs any more.
        sources: what is known now of files, by their names; None forgets one.
        renamed: new names of files by their old ones; their passages stay theirs.
        owners: for each of ``added``, the name of the file that it is of; none for passages that are of no file.
        join_words: put in one piece what many commits have added to the words.
    """

    about: dict[str, Any] = field(default_factory=dict)
    added: Sequence[Passage] = ()
    metadata: Sequence[str] = ()
    changed: Iterable[tuple[int, Passage, str]] = ()
    removed: Sequence[int] = ()
    files: list[File] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    tombstones: Sequence[int] = ()
    sources: Mapping[str, Source | None] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    owners: Sequence[str] = ()
    join_words: bool = False


class StaleRead(Exception):  # noqa: N818  (no error: the reader starts again)
    """What was being read has been replaced meanwhile; read again at the newest generation."""
