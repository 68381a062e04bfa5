"""Text and Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from colbert_core.documents.part import Part
from colbert_core.text.lines import check_no_pipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What static site generators read at the head of a page.
_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?\n)---[ \t]*(?:\n|\Z)", re.DOTALL)
_TITLE = re.compile(r"""^title[ \t]*:[ \t]*(["']?)(.+?)\1[ \t]*$""", re.MULTILINE | re.IGNORECASE)
_FIRST_HEADING = re.compile(r"\s*(?:<!--.*?-->\s*)*# +([^\n]+?)[ \t#]*(?:\n|\Z)", re.DOTALL)


def read_text(path: Path) -> str:
    """Read the text of a file, in UTF-8 with or without a byte order mark.

    Raises:
        ValueError: it is in another encoding, or is no file.
    """
    check_no_pipe(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); convert it first.") from None


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
