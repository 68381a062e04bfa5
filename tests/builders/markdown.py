"""What the tests read out of Markdown: blocks of code, commands and links."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block of a page.

    Attributes:
        page: its path below the root.
        line: of its first line of code.
        language: "python", "sh", "text" and so on.
        text: what is between the fences.
        reason: why it is not run, from the comment right above it; None without one.
        prints: the block of language "text" right below it; None where there is none.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str | None
    prints: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All blocks of a page."""
    markdown = page.read_text(encoding="utf-8")
    matches = list(_BLOCK.finditer(markdown))
    return [
        Block(
            page.relative_to(ROOT).as_posix(),
            markdown.count("\n", 0, match.start("text")) + 1,
            match["language"],
            match["text"],
            match["reason"],
            None
            if next_ is None or next_["language"] != "text" or markdown[match.end() : next_.start()].strip()
            else next_["text"],
        )
        for match, next_ in pairwise([*matches, None])
    ]


def commands(page: Path) -> list[list[str]]:
    """The arguments of every `colbert` command of a page, in blocks and in the text."""
    lines = [line for block in blocks(page) if block.language == "sh" for line in block.text.replace("\\\n", "").splitlines()]
    inline = _CODE.findall(_BLOCK.sub("", page.read_text(encoding="utf-8")))
    words = [shlex.split(line.rpartition("&& ")[2]) for line in [*lines, *inline] if "colbert " in line]
    return [arguments for name, *arguments in words if name in ("colbert", ".venv/bin/colbert")]


def links(page: Path) -> list[str]:
    """Where the links and pictures of a page lead within the repository, without anchors."""
    targets = _LINK.findall(_BLOCK.sub("", page.read_text(encoding="utf-8")))
    return [target.partition("#")[0] for target in targets if "://" not in target and not target.startswith("#")]
