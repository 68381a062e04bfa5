"""What the readers of files yield, and the error that they raise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a file that is cut into passages on its own: the whole of it, a page, a sheet, a function, a record.

    Attributes:
        text: what it says. ``start`` and ``end`` in the metadata of a passage count its characters.
        title: of the document; "" if it has none.
        headings: what it stands under, outermost first, such as a chapter or a class; the title is not among them.
        metadata: for its passages, such as ``page``.
        is_markdown: lines of the text that begin with # are headings, which name the passages below them.
        line: of a record, its line or row, from 1; a record is one passage with no heading put before it. None for others.
        id: of a record; None names it by its line.
        label: name of the file as passages begin with it; "" for the last part of its path.
        by_path: passages begin with the whole path of the file, where there is room for it.
    """

    text: str
    title: str = ""
    headings: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    is_markdown: bool = False
    line: int | None = None
    id: str | None = None
    label: str = ""
    by_path: bool = False


class UnreadableFileError(ValueError):
    """A file that cannot be read as text; the message says why.

    Attributes:
        kind: one or two words for a summary, such as "binary", "encrypted", "damaged", "too large", "empty".
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the kind when it is pickled."""
        return type(self), (str(self), self.kind)
