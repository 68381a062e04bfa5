"""Parts of files cut into passages, which begin with the name of the file and what they stand under."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from colbert_core.documents.formats import format_of
from colbert_core.text.metadata import beside_own
from colbert_core.text.splitter import headings_of
from colbert_core.types import Passage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from colbert_core.documents.part import Part

# What a passage begins with takes at most so much of it.
_MOST_OF_A_PIECE = 1 / 3
_LONGEST_HEADING = 100
_BETWEEN = " > "


class Splitter(Protocol):
    """What cuts texts, as an ``Encoder`` does."""

    @property
    def piece_tokens(self) -> int:
        """Most tokens of a piece."""

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has."""

    def split(self, text: str, document_id: str, *, size: int | None = None) -> list[Passage]:
        """Cut a text into passages with "start" and "end" in their metadata."""


class Whole:
    """Cuts nothing: for encoders that cannot say where."""

    piece_tokens = 2**31

    def count_tokens(self, text: str) -> int:
        """How many words there are."""
        return len(text.split())

    def split(self, text: str, document_id: str, *, size: int | None = None) -> list[Passage]:  # noqa: ARG002
        """Make one piece of a text."""
        return [Passage(f"{document_id}#1", text, {"document_id": document_id, "start": 0, "end": len(text)})]


def read_file(
    path: Path,
    name: str,
    splitter: Splitter,
    *,
    piece_tokens: int | None = None,
    metadata: dict[str, Any] | None = None,
) -> Iterator[Passage]:
    """Read the passages of one file.

    A document is cut into pieces, named ``name#1`` and so on. Each begins with a line that says where it comes from: the name
    of the file, the title, the headings above it. Their metadata are ``source``, ``piece``, ``document_id``, ``start`` and
    ``end`` (characters of the part that was cut), ``title`` where there is one, and what the reader knows, such as ``page``.

    A record of JSON lines or a table is a passage. It has the record's own id, else the name of the file and the number of its
    line. A record longer than a window is cut into ``id#1``, ``id#2`` and so on. A record's ``title`` is put before its text;
    what else the record holds is metadata.

    Args:
        path: the file.
        name: name of the file in ids and metadata.
        splitter: cuts texts; an encoder.
        piece_tokens: most tokens of a piece; None for as many as the encoder reads at once.
        metadata: given to every piece of a document.

    Raises:
        UnreadableFileError: the file cannot be read as text.
        ValueError: a record is none; the message has the number of the line.
        MissingExtraError: a package that reads such files is not installed.
        OSError: the file cannot be opened.
    """
    most = splitter.piece_tokens if piece_tokens is None else piece_tokens
    number = 0
    for part in format_of(path).read(path):
        if part.line is not None:
            yield from _record(part, name, splitter, most)
            continue
        for passage in cut(part, name, splitter, most, number):
            number += 1
            yield replace(passage, metadata={**passage.metadata, **(metadata or {})})


def cut(part: Part, name: str, splitter: Splitter, most: int, n_before: int = 0) -> Iterator[Passage]:
    """Cut a part into passages, which are numbered on from ``n_before``.

    Args:
        part: no record.
        name: name of the file in ids and metadata.
        splitter: cuts texts.
        most: most tokens of a passage, with what it begins with.
        n_before: passages that the file has given before.
    """
    outline = _outline(headings_of(part.text)) if part.is_markdown else []
    count = cache(splitter.count_tokens)
    limit = int(most * _MOST_OF_A_PIECE)

    def fits(text: str) -> bool:
        return count(text) <= limit

    label = part.label or (name if part.by_path and fits(name) else name.rpartition("/")[2])

    def heading_at(place: int) -> str:
        number = bisect_right(outline, place, key=lambda entry: entry[0]) - 1
        start, path, own = outline[number] if number >= 0 else (-1, (), "")
        # A heading where a piece begins stands there already.
        return _heading(label, part, path, own, fits) if start == place else _heading(label, part, (*path, own), "", fits)

    reserved = max(count(heading_at(place)) for place in [0, *(start + offset for start, *_ in outline for offset in (0, 1))])
    pieces = splitter.split(part.text, name, size=most - reserved)
    for number, piece in enumerate(pieces, n_before + 1):
        heading = heading_at(piece.metadata["start"])
        text = f"{heading}\n\n{piece.text}" if heading else piece.text
        title = {"title": part.title} if part.title else {}
        yield Passage(f"{name}#{number}", text, {"source": name, "piece": number, **title, **piece.metadata, **part.metadata})


def _outline(headings: list[tuple[int, int, str]]) -> list[tuple[int, tuple[str, ...], str]]:
    """Give the place of each heading, the headings that it stands under, outermost first, and its own words."""
    outline, path = [], list[tuple[int, str]]()
    for start, level, text in headings:
        while path and path[-1][0] >= level:
            path.pop()
        outline.append((start, tuple(above for _, above in path), text))
        path.append((level, text))
    return outline


def _heading(label: str, part: Part, path: tuple[str, ...], own: str, fits: Callable[[str], bool]) -> str:
    """Say where a piece comes from in one line; with less of it, where all of it is too long."""
    names = [label]
    for name in filter(None, (part.title, *part.headings, *path)):
        shown = " ".join(name.split())
        shown = shown if len(shown) <= _LONGEST_HEADING else f"{shown[: _LONGEST_HEADING - 1]}…"
        said = (label, label.rpartition(".")[0], names[-1], own)
        if shown.casefold() not in {each.casefold() for each in said}:
            names.append(shown)
    for shorter in (names, [names[0], *names[-2:]] if len(names) > 3 else names, [names[0], names[-1]], names[:1]):
        line = _BETWEEN.join(dict.fromkeys(shorter))
        if fits(line):
            return line
    return ""


def _record(part: Part, name: str, splitter: Splitter, most: int) -> Iterator[Passage]:
    passage_id = f"{name}#{part.line}" if part.id is None else part.id
    metadata = {"source": name, **part.metadata}
    pieces = splitter.split(part.text, passage_id, size=most)
    if len(pieces) < 2:
        yield Passage(passage_id, part.text, metadata)
        return
    for piece in pieces:
        yield Passage(piece.id, piece.text, beside_own(metadata, piece.metadata))
