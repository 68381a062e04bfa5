"""Which reader reads a file: by its suffix, and by what is in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from colbert_core.documents.books import read_epub, read_odt
from colbert_core.documents.code import CODE_SUFFIXES, read_code
from colbert_core.documents.office import read_docx, read_pptx, read_xlsx
from colbert_core.documents.part import UnreadableFileError
from colbert_core.documents.pdf import read_pdf
from colbert_core.documents.plain import read_markdown, read_plain
from colbert_core.documents.records import read_json_lines, read_parquet, read_tab_separated
from colbert_core.text.lines import check_no_pipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from colbert_core.documents.part import Part

# A text has none of these bytes in so many first ones.
_HEAD = 2**13


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: as people call it.
        suffixes: of its files, in small letters.
        read: gives the parts of a file, as a stream where that is possible. It raises ``UnreadableFileError`` for a file that
            is damaged, encrypted or empty, and ``MissingExtraError`` where a package is not installed.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[Path], Iterable[Part]]


_PLAIN = Format("text", (".txt",), read_plain)

FORMATS = (
    _PLAIN,
    Format("Markdown", (".md", ".markdown"), read_markdown),
    Format("JSON lines", (".jsonl",), read_json_lines),
    Format("tab-separated values", (".tsv",), read_tab_separated),
    Format("Parquet", (".parquet",), read_parquet),
    Format("PDF", (".pdf",), read_pdf),
    Format("Word", (".docx", ".docm"), read_docx),
    Format("PowerPoint", (".pptx", ".pptm"), read_pptx),
    Format("Excel", (".xlsx", ".xlsm"), read_xlsx),
    Format("OpenDocument text", (".odt",), read_odt),
    Format("EPUB", (".epub",), read_epub),
    Format("source code", CODE_SUFFIXES, read_code),
)
"""The kinds of files that are read. Any other file is read as text if it is text."""

_BY_SUFFIX = {suffix: format for format in FORMATS for suffix in format.suffixes}


def format_of(path: Path) -> Format:
    """Find out what a file is.

    Raises:
        UnreadableFileError: it is none of ``FORMATS`` and no text.
        ValueError: it is a pipe, a device or a socket.
        OSError: it cannot be opened.
    """
    check_no_pipe(path)
    known = _BY_SUFFIX.get(path.suffix.lower())
    if known is not None:
        return known
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if b"\0" in head:
        raise UnreadableFileError(f"{path} is no text, nor a kind of file that is read.", "binary")
    return _PLAIN
