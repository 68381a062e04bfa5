"""HTML: what a page says, as Markdown."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from colbert_core.documents.part import Part

_BREAKS = {"p", "div", "br", "li", "tr", "table", "ul", "ol", "section", "article", "blockquote", "pre", "body", "html"}
_NO_TEXT = {"script", "style", "head", "svg"}


class _Markdown(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.inside = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.inside += tag in _NO_TEXT
        if re.fullmatch("h[1-6]", tag):
            self.pieces.append(f"\n\n{'#' * int(tag[1])} ")
        elif tag in _BREAKS:
            self.pieces.append("\n\n- " if tag == "li" else "\n\n")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.pieces.append("\n" if tag in _BREAKS else "")

    def handle_endtag(self, tag: str) -> None:
        self.inside -= tag in _NO_TEXT and self.inside > 0
        self.pieces.append("\n\n" if tag in _BREAKS or re.fullmatch("h[1-6]", tag) else "")

    def handle_data(self, data: str) -> None:
        if not self.inside:
            self.pieces.append(re.sub(r"\s+", " ", data))


def html_part(page: str, place: object) -> Part:  # noqa: ARG001
    """Make a part of a page of HTML; its text is "" if it says nothing."""
    markdown = _Markdown()
    markdown.feed(page)
    markdown.close()
    return Part(re.sub(r"\s*\n\s*\n\s*", "\n\n", "".join(markdown.pieces)).strip(), is_markdown=True)
