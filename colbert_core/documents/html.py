"""HTML: what a page says, as Markdown, without what stands around it on every page of its site."""

from __future__ import annotations

import re
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from colbert_core.documents.encodings import decode, read_content
from colbert_core.documents.part import Part, UnreadableFileError
from colbert_core.documents.plain import escaped, fenced, heading
from colbert_core.extras import import_extra

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Where pages keep what they say; the last two are Sphinx'.
_CONTENT = ("main, [role=main]", "article", "div.body", "div.document")
_NO_TEXT = "script, style, noscript, template, svg, iframe, object, canvas, audio, video, annotation, head"
_AROUND = (
    "nav, footer, aside:not([class*=footnote]), dialog, button, select, input, textarea, label, [aria-hidden=true], "
    "[role=navigation], [role=search], [role=contentinfo], [role=complementary], [role=menu], [role=menubar], "
    ".sphinxsidebar, .related, .headerlink, .footer, .linenos"
)
_BANNERS = "header, [role=banner]"
_BLOCKS = frozenset(
    "address article aside blockquote body caption center dd details div dl dt fieldset figcaption figure footer form header "  # noqa: SIM905
    "hgroup hr legend li main ol p section summary table tbody tfoot thead tr ul".split()
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
# A row with one of these in a cell arranges the page, and has no values that fit on a line.
_LARGE = frozenset(("table", "ul", "ol", "dl", "pre", *_HEADINGS))
_MARKED = _BLOCKS.union(_HEADINGS, ("br", "pre", "td", "th"))
_BREAK = "\0"  # <br>; no page has this character
_PERMALINK = re.compile(r"[¶#§\s]+")
_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([\w.:-]+)|<\?xml[^>]+encoding\s*=\s*[\"']([\w.:-]+)", re.I)
_SEPARATED = re.compile(r"\s+[-–—|·•:»/]\s")
# XHTML ends elements within their first tag, which HTML takes for the beginning of one.
_XHTML = re.compile(r"<\?xml|xmlns=", re.I)
_ENDED = re.compile(
    r"<(?!(?:area|base|br|col|embed|hr|img|input|link|meta|source|track|wbr)\b)([a-zA-Z][\w:]*)((?:\s[^<>]*)?)/>"
)

# The parser takes time by the square of the depth: 3 s for 20,000. These end without a tag of their own.
_DEEPEST = 3000
_NESTED = re.compile(
    r"<(/?)(?!(?:area|base|br|col|dd|dt|embed|hr|img|input|li|link|meta|option|p|source|td|th|tr|wbr)\b)[a-z]", re.I
)


def read_html(path: Path) -> Iterator[Part]:
    """Read a page as one part.

    Raises:
        MissingExtraError: selectolax is not installed.
    """
    content = read_content(path)
    declared = _CHARSET.search(content, 0, 2**11)
    encoding = (declared[1] or declared[2]).decode() if declared else ""
    part = html_part(decode(content, path, encoding), path)
    if part.text:
        yield part


def html_part(page: str, place: object) -> Part:
    """Make a part of a page of HTML or XHTML; its text is "" if it says nothing.

    Navigation, sidebars and forms are left out. Headings are those of Markdown, <pre> is code between fences, rows of tables
    are lines such as "a | b".

    Args:
        page: the page.
        place: file that it is from, for errors.

    Raises:
        UnreadableFileError: it is nested too deep.
        MissingExtraError: selectolax is not installed.
    """
    lexbor = import_extra("selectolax.lexbor", f"Reading {place}", "selectolax")
    if _XHTML.search(page, 0, 2**10):
        page = _ENDED.sub(r"<\1\2></\1>", page)
    depths = accumulate(-1 if closing else 1 for closing in _NESTED.findall(page))
    if max(depths, default=0) > _DEEPEST:
        raise UnreadableFileError(f"{place} has elements nested more than {_DEEPEST:,} deep.", "damaged")
    tree = lexbor.LexborHTMLParser(page)
    body = tree.body
    if body is None:
        return Part("")
    no_text = _numbers(body, _NO_TEXT)
    around = no_text | _numbers(body, _AROUND)
    around |= {node.mem_id for node in body.css(_BANNERS) if node.css_first("h1") is None}
    written = _Markdown(_root(body), around)
    if not written.text:  # all of it stands in what is left out elsewhere
        written = _Markdown(body, no_text)
    head = tree.css_first("title")
    name = " ".join(head.text().split()) if head is not None else ""
    first = written.first_heading
    if first and (not name or (name.startswith(first) and _SEPARATED.match(name, len(first)))):
        name = first  # without the name of the site, which is on every page
    return Part(written.text, name, is_markdown=True)


def _numbers(body: Any, selector: str) -> set[int]:
    """The nodes that a selector finds."""
    return {node.mem_id for node in body.css(selector)}


def _root(body: Any) -> Any:
    """The node that holds what the page says."""
    for selector in _CONTENT:
        nodes = body.css(selector)
        if len(nodes) == 1 and nodes[0].text().strip():
            return nodes[0]
    return body


class _Markdown:
    """Writes a tree as Markdown.

    Attributes:
        text: what was written.
        first_heading: of level 1, without its sign; "" if there is none.
    """

    def __init__(self, root: Any, left_out: set[int]) -> None:
        self.first_heading = ""
        self._blocks: list[tuple[str, str]] = []  # kind and text
        self._line: list[str] = []
        self._row: list[str] | None = None  # values of the row of a table
        self._lists: list[int] = []  # number of the next item, 0 in lists without numbers
        self._bullet = ""
        self._in_code = 0
        self._write(root, left_out)
        self._end_block()
        self.text = self._joined()

    def _write(self, root: Any, left_out: set[int]) -> None:
        # Without recursion: pages of some mail programs are nested a thousand deep.
        node, is_back = root, False
        while True:
            tag = node.tag
            if tag == "-text":
                self._line.append(node.text_content or "")
            elif is_back:
                if tag in _MARKED:
                    self._leave(tag)
            elif node.mem_id not in left_out and not (tag == "a" and _PERMALINK.fullmatch(node.text())):
                if tag in _MARKED:
                    self._enter(tag)
                inner = node.child
                if inner is not None:
                    node = inner
                    continue
                if tag in _MARKED:
                    self._leave(tag)
            if node.mem_id == root.mem_id:
                return
            after = node.next
            node, is_back = (node.parent, True) if after is None else (after, False)

    def _enter(self, tag: str) -> None:
        if tag == "br":
            self._line.append("\n" if self._in_code else _BREAK)
            return
        if self._row is not None and tag in _LARGE:
            self._blocks += [("", escaped(value)) for value in self._row if value]
            self._row = None
        if self._row is not None:
            self._line.append(" ")
            return
        self._end_block()
        if tag == "tr":
            self._row = []
        elif tag == "pre":
            self._in_code += 1
        elif tag in ("ul", "ol"):
            self._lists.append(int(tag == "ol"))
        elif tag == "li":
            number = self._lists[-1] if self._lists else 0
            self._bullet = "  " * (len(self._lists) - 1) + (f"{number}. " if number else "- ")
            if number:
                self._lists[-1] += 1

    def _leave(self, tag: str) -> None:
        if tag == "br":
            return
        if self._row is not None:
            self._leave_in_row(tag, self._row)
        elif tag == "pre":
            self._in_code -= 1
            code = "".join(self._line)
            if not self._in_code:
                self._line.clear()
                if code.strip():
                    self._blocks.append(("", fenced(code.expandtabs(8))))
        else:
            self._end_block(_HEADINGS.get(tag, 0), "term" if tag == "dt" else "")
            if tag in ("ul", "ol") and self._lists:
                self._lists.pop()

    def _leave_in_row(self, tag: str, row: list[str]) -> None:
        if tag in ("td", "th"):
            row.append(" ".join("".join(self._line).replace(_BREAK, " ").split()))
            self._line.clear()
        elif tag == "tr":
            values = " | ".join(row).strip(" |")
            self._row = None
            if values:
                self._blocks.append(("row", escaped(values)))
        else:
            self._line.append(" ")

    def _end_block(self, level: int = 0, kind: str = "") -> None:
        """Write the line that was begun."""
        if self._in_code or not self._line:
            return
        lines = (" ".join(line.split()) for line in "".join(self._line).split(_BREAK))
        text = "\n".join(lines).strip()
        self._line.clear()
        if not text:
            return
        if level:
            self._blocks.append(("", heading(level, text)))
            if level == 1 and not self.first_heading:
                self.first_heading = text.replace("\n", " ")
        else:
            self._blocks.append(("item" if self._bullet else kind, self._bullet + escaped(text)))
        self._bullet = ""

    def _joined(self) -> str:
        written = []
        before = ""
        for kind, text in self._blocks:
            is_close = before == "term" or (kind == before and kind in ("item", "row"))
            written.append(("\n" if is_close else "\n\n") + text)
            before = kind
        return "".join(written).strip("\n")
