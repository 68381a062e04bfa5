"""reStructuredText as Markdown: its headings and its code; all else stays as it was written."""

# docutils would read all of it, but knows none of Sphinx' directives and roles, of which nearly every file has some.

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from colbert_core.documents.part import Part
from colbert_core.documents.plain import escaped, fenced, heading, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_RULE = re.compile(r"([!-/:-@\[-`{-~])\1+\s*")
_CODE = re.compile(r"\s*\.\. (?:code|code-block|sourcecode|ipython|parsed-literal|prompt|testcode|doctest)::\s*([\w+-]*).*")
_OPTION = re.compile(r"\s*:[\w-]+:.*")
# Places that other pages point to, and what an index says.
_HIDDEN = re.compile(r"\s*\.\. (?:_[^:]+:|index::.*|highlight::.*)\s*")
_ROLE = re.compile(r":(?:[\w+.-]+:)*[\w+.-]+:`([^`<]*?)(?:\s*<[^`>]*>)?`|``([^`\n]+)``")


def read_rest(path: Path) -> Iterator[Part]:
    """Read a page as one part; its title is its first heading."""
    yield rest_part(read_text(path))


def rest_part(text: str) -> Part:
    """Make a part of a page of reStructuredText."""
    lines = text.expandtabs(8).split("\n")
    levels: dict[tuple[str, bool], int] = {}  # by sign, and whether it stands above too, in the order in which they come
    written: list[str] = []
    title = ""
    number = 0
    while number < len(lines):
        found = _heading_at(lines, number)
        if found:
            name, style, n_lines = found
            title = title or name
            written.append(heading(levels.setdefault(style, len(levels) + 1), name))
            number += n_lines
            continue
        line = lines[number]
        number += 1
        code = _CODE.fullmatch(line)
        if code or (line.rstrip().endswith("::") and not line.lstrip().startswith("..")):
            block, number = _indented(lines, number, len(line) - len(line.lstrip()), has_options=code is not None)
            if not code and line.strip() != "::":
                written.append(_readable(line.rstrip()[:-1]))
            if block.strip():
                written.append(("" if code else "\n") + fenced(block, code[1] if code else ""))
        elif not _HIDDEN.fullmatch(line):
            written.append(_readable(line))
    return Part("\n".join(written), title, is_markdown=True)


def _heading_at(lines: list[str], number: int) -> tuple[str, tuple[str, bool], int] | None:
    """The words of the heading that begins at a line, how it is marked, and how many lines it has; None if there is none."""
    line, *after = (each.rstrip() for each in lines[number : number + 3])
    if len(after) > 1 and _RULE.fullmatch(line) and after[0].strip() and after[1] == line and not _RULE.fullmatch(after[0]):
        return (after[0].strip(), (line[0], True), 3) if len(line) >= len(after[0].strip()) else None
    if not after or not line or line[0].isspace() or _RULE.fullmatch(line) or not _RULE.fullmatch(after[0]):
        return None
    if number and lines[number - 1].strip() and not _HIDDEN.fullmatch(lines[number - 1]):
        return None  # the last line of a paragraph
    # A rule that is shorter than its heading is a heading to docutils from four signs on.
    return (line, (after[0][0], False), 2) if len(after[0]) >= min(len(line), 4) else None


def _indented(lines: list[str], number: int, indent: int, *, has_options: bool) -> tuple[str, int]:
    """The lines from one on that stand further right than an indent, without their own indent, and the number of the next."""
    while has_options and number < len(lines) and _OPTION.fullmatch(lines[number]):
        number += 1
    first = number
    while number < len(lines) and (not lines[number].strip() or len(lines[number]) - len(lines[number].lstrip()) > indent):
        number += 1
    block = lines[first:number]
    while block and not block[-1].strip():  # blank lines below belong to the text
        block.pop()
        number -= 1
    own = min((len(line) - len(line.lstrip()) for line in block if line.strip()), default=0)
    return "\n".join(line[own:] for line in block), number


def _readable(line: str) -> str:
    """A line without the names of its roles; what would be a heading in Markdown is none."""
    return escaped(_ROLE.sub(lambda role: role[1] if role[2] is None else f"`{role[2]}`", line))
