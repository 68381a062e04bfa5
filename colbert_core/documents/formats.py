"""Which reader reads a file: by what is in it where that is certain, else by its suffix."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from colbert_core.documents.books import read_epub, read_odt
from colbert_core.documents.code import CODE_SUFFIXES, read_code
from colbert_core.documents.compressed import decompressed
from colbert_core.documents.encodings import is_binary
from colbert_core.documents.html import read_html
from colbert_core.documents.mail import read_mailbox, read_message
from colbert_core.documents.man import read_manual
from colbert_core.documents.notebooks import read_notebook
from colbert_core.documents.office import read_docx, read_pptx, read_xlsx
from colbert_core.documents.part import UnreadableFileError
from colbert_core.documents.pdf import read_pdf
from colbert_core.documents.plain import read_markdown, read_plain
from colbert_core.documents.records import read_comma_separated, read_json_lines, read_parquet, read_tab_separated
from colbert_core.documents.rest import read_rest
from colbert_core.text.lines import check_no_pipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from colbert_core.documents.part import Part

# So many first bytes of a file are looked at.
_HEAD = 2**13
_ZIP = b"PK\x03\x04"
_TAR = (b"ustar\0", b"ustar ")


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: as people call it.
        suffixes: of its files, in small letters.
        read: gives the parts of a file, as a stream where that is possible; none for a file without text. It raises
            ``UnreadableFileError`` for a file that is damaged or encrypted, and ``MissingExtraError`` where a package is not
            installed.
        begins: a regular expression that fits the beginning of its files, and of no others; a file that begins so is read
            so whatever its suffix is. "" if there is none.
        member: beginning of the name of a file that is in all of them, for formats that are ZIP archives, such as "word/".
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[Path], Iterable[Part]]
    begins: bytes = b""
    member: str = ""


def _read_compressed(path: Path) -> Iterator[Part]:
    with decompressed(path) as inner:
        format = format_of(inner)
        if format.read is _read_compressed:  # there are files that contain themselves
            raise UnreadableFileError(f"{inner} is compressed twice; decompress it first.", "archive")
        yield from format.read(inner)


_PLAIN = Format("text", (".txt",), read_plain)

FORMATS = (
    _PLAIN,
    Format("Markdown", (".md", ".markdown"), read_markdown),
    Format("reStructuredText", (".rst",), read_rest),
    Format(
        "HTML",
        (".html", ".htm", ".xhtml"),
        read_html,
        rb"(?i)(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?:(?!-->).)*-->\s*)*(?:<!doctype\s+html\b|<html[\s>])",
    ),
    Format("Jupyter notebook", (".ipynb",), read_notebook),
    Format("e-mail", (".eml",), read_message),
    Format("mailbox", (".mbox",), read_mailbox, rb"From \S[^\n]*\d\d:\d\d[^\n]*\n[!-9;-~]+: "),
    Format(
        "manual page",
        (),  # .1 to .9, which old logs have too
        read_manual,
        rb"[.']so [^\n]+\n*\Z|\s*(?=[.'])(?:.*?\n)??[.'][ \t]*(?:TH|Dd)[ \t]",
    ),
    Format("JSON lines", (".jsonl",), read_json_lines),
    Format("tab-separated values", (".tsv",), read_tab_separated),
    Format("comma-separated values", (".csv",), read_comma_separated),
    Format("Parquet", (".parquet",), read_parquet, rb"PAR1"),
    Format(
        "compressed file",
        (".gz", ".bz2", ".xz"),
        _read_compressed,
        rb"\x1f\x8b\x08|BZh[1-9](?:1AY&SY|\x17rE8P\x90)|\xfd7zXZ\x00",
    ),
    Format("PDF", (".pdf",), read_pdf, rb"%PDF-"),
    Format("Word", (".docx", ".docm"), read_docx, member="word/"),
    Format("PowerPoint", (".pptx", ".pptm"), read_pptx, member="ppt/"),
    Format("Excel", (".xlsx", ".xlsm"), read_xlsx, member="xl/"),
    Format("OpenDocument text", (".odt",), read_odt, member="content.xml"),
    Format("EPUB", (".epub",), read_epub, member="META-INF/container.xml"),
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
    with path.open("rb") as file:
        head = file.read(_HEAD)
    members = _members(path) if head.startswith(_ZIP) else []
    for format in FORMATS:
        if format.member and any(member.startswith(format.member) for member in members):
            return format
        if format.begins and re.match(format.begins, head, re.DOTALL):
            return format
    known = _BY_SUFFIX.get(path.suffix.lower())
    if known is not None and known is not _PLAIN:
        return known
    if members or head[257:263] in _TAR:
        raise UnreadableFileError(f"{path} is an archive; unpack it first.", "archive")
    if is_binary(head):
        raise UnreadableFileError(f"{path} is no text, nor a kind of file that is read.", "binary")
    return _PLAIN


def _members(path: Path) -> list[str]:
    """Names of the files in a ZIP archive; none if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
        return []
