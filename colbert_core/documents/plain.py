"""Text and Markdown, and what readers of structured texts write: Markdown with its headings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from colbert_core.documents.encodings import decode, read_content
from colbert_core.documents.part import Part

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What static site generators read at the head of a page.
_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?\n)---[ \t]*(?:\n|\Z)", re.DOTALL)
_TITLE = re.compile(r"""^title[ \t]*:[ \t]*(["']?)(.+?)\1[ \t]*$""", re.MULTILINE | re.IGNORECASE)
_FIRST_HEADING = re.compile(r"\s*(?:<!--.*?-->\s*)*# +([^\n]+?)[ \t#]*(?:\n|\Z)", re.DOTALL)

# What Markdown would take for a heading, or for the beginning of code.
_SIGN = re.compile(r"^( {0,3})(?=#{1,6}(?:[ \t]|$)|```|~~~)", re.MULTILINE)
_FENCES = re.compile(r"^ {0,3}(`{3,})", re.MULTILINE)


def read_text(path: Path) -> str:
    """Read the text of a file, in any encoding.

    Raises:
        UnreadableFileError: it is no text, or larger than one document may be.
        ValueError: it is a pipe, a device or a socket.
        OSError: it cannot be opened.
    """
    return decode(read_content(path), path)


def read_plain(path: Path) -> Iterator[Part]:
    """Read a text as one part."""
    yield Part(read_text(path))


def read_markdown(path: Path) -> Iterator[Part]:
    """Read a page of Markdown as one part; its title is that of its front matter, else its first heading."""
    yield markdown_part(read_text(path))


def markdown_part(text: str) -> Part:
    """Make a part of a page of Markdown, without its front matter."""
    front = _FRONT_MATTER.match(text)
    title = _TITLE.search(front[1]) if front else None
    body = text[front.end() :] if front else text
    heading = _FIRST_HEADING.match(body)
    return Part(body, title[2] if title else heading[1] if heading else "", is_markdown=True)


def heading(level: int, text: str) -> str:
    """Write a heading of Markdown; levels below 6 are 6."""
    return f"{'#' * min(max(level, 1), 6)} {' '.join(text.split())}"


def escaped(text: str) -> str:
    r"""Put a \ before what would be a heading or the beginning of code in Markdown, such as the comment of a shell script."""
    return _SIGN.sub(r"\1\\", text)


def fenced(code: str, language: str = "") -> str:
    """Put code between fences, which it has not in itself."""
    fence = "`" * max((len(found) + 1 for found in _FENCES.findall(code)), default=3)
    code = code.strip("\n")
    return f"{fence}{language}\n{code}\n{fence}"
