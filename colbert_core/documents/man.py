"""Manual pages, written with the macros of man or of mdoc, as Markdown."""

from __future__ import annotations

import re
from string import ascii_uppercase
from typing import TYPE_CHECKING

from colbert_core.documents.part import Part, UnreadableFileError
from colbert_core.documents.plain import escaped, fenced, heading, read_text
from colbert_core.documents.roff import INLINE, arguments, characters, inline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_COMMENT = re.compile(r"""(?<!\\)((?:\\\\)*)\\["#].*""")
_MACRO = re.compile(r"[.'][ \t]*([^\s\\]*)[ \t]*(.*)", re.DOTALL)
_LINK = re.compile(r"[.']so\s+(\S+)\s*\Z")
_NAME = re.compile(r"(\S.*?)\s+[-–—]+\s+(\S.*)", re.DOTALL)
_BRACES = re.compile(r"\\([{}])")

_FONTS = {**dict.fromkeys(("B", "I", "SM", "SB", "R", "CW"), " "), **dict.fromkeys(("BR", "BI", "IB", "IR", "RB", "RI"), "")}
_PARAGRAPHS = frozenset(("PP", "P", "LP", "HP", "Pp", "Lp", "sp", "Sp", "RS", "RE", "bP", "YS", "El", "Rs", "Re", "bp", "ne"))
_CODE = {"nf": "fi", "EX": "EE", "Vb": "Ve", "Bd": "Ed", "DS": "DE"}
# They say how a page looks, or are for an index; other requests of roff have small letters.
_SILENT = frozenset(
    "AT BS BE CE CS DT Dd Bl Bt Bk Ek INDENT IX Os PD PU REE Sm UC UNINDENT Ud VE VS XX rstReportMargin".split()  # noqa: SIM905
)


def read_manual(path: Path) -> Iterator[Part]:
    """Read a manual page as one part; its title is such as "ls(1) - list directory contents".

    Raises:
        UnreadableFileError: it only names another page.
    """
    source = read_text(path)
    link = _LINK.match(source)
    if link:
        raise UnreadableFileError(f"{path} says nothing but that its text is in {link[1]}.", "link")
    page = _Page(source)
    if page.text:
        yield Part(page.text, page.title, is_markdown=True)


class _Page:
    """Reads the lines of a page, and writes them as Markdown.

    Attributes:
        text: what was written.
        title: name, section and what the page is about.
    """

    def __init__(self, source: str) -> None:
        self._lines = [_COMMENT.sub(r"\1", line) for line in source.split("\n")]
        self._number = 0  # of the next line
        self._strings = {"R": "®", "Tm": "™", "lq": "“", "rq": "”", "Lt": "<", "Gt": ">", "Le": "≤", "Ge": "≥", "Ba": "|"}
        self._own_macros: set[str] = set()
        self._was_true = True  # the condition of .ie, for .el
        self._blocks: list[str] = []
        self._written: list[str] = []  # lines of the block
        self._line: list[str] = []  # words of the line
        self._term = 0  # how many input lines are still a term that is explained below
        self._heading = 0  # level of the heading that the next input line is
        self._code_end = ""  # macro that ends the code
        self._address = ""
        self._known = self._macros()
        self._name = self._section = ""  # of its first line
        self._called = ""  # what the first Nm says
        while self._number < len(self._lines):
            line = self._lines[self._number]
            self._number += 1
            self._read(line)
        self._end_block()
        self.text = "\n\n".join(self._blocks)
        self.title = self._titled()

    # What lines say

    def _read(self, line: str) -> None:
        if line[:1] in (".", "'"):
            macro = _MACRO.match(line)
            name, rest = (macro[1], macro[2]) if macro else ("", "")
            if name:
                self._macro(name, rest)
            return
        text = characters(line, self._strings)
        if self._code_end:
            self._written.append(text.rstrip())
        elif not text.strip():
            if line.strip() in ("", r"\&"):
                self._end_block()
        else:
            if line[0] in " \t":
                self._end_line()
            self._add(text)

    def _add(self, text: str, *, ends_term: bool = True) -> None:
        """Add the words of an input line."""
        if self._heading:
            level, self._heading = self._heading, 0
            self._blocks.append(heading(level, text))
            return
        if self._code_end:
            self._written.append(text)
            return
        self._line.append(text)
        if self._term and ends_term:
            self._term = 0
            self._end_line()

    def _end_line(self) -> None:
        text = " ".join(" ".join(self._line).split())
        self._line.clear()
        if text:
            self._written.append(text)

    def _end_block(self) -> None:
        self._end_line()
        text = "\n".join(self._written)
        self._written.clear()
        if text.strip():
            self._blocks.append(fenced(text) if self._code_end else escaped(text))

    # Macros

    def _macro(self, name: str, rest: str) -> None:
        if name in self._known:
            self._known[name](name, rest)
        elif name in self._own_macros or not (name[0].islower() or name in _SILENT):
            self._add(" ".join(self._arguments(rest)))  # a macro of the page's own, whose arguments are mostly text

    def _macros(self) -> dict[str, Callable[[str, str], None]]:
        return {
            **dict.fromkeys((*INLINE, *(f"%{letter}" for letter in ascii_uppercase)), self._words),
            **dict.fromkeys(_SILENT, self._pass_over),
            **dict.fromkeys(("SH", "Sh", "SS", "Ss"), self._begin_heading),
            **dict.fromkeys(_FONTS, self._font),
            **dict.fromkeys(("TP", "TQ", "IP", "It"), self._begin_item),
            **dict.fromkeys(_PARAGRAPHS, self._begin_paragraph),
            **dict.fromkeys(("br", "D1", "Dl", "SY"), self._begin_line),
            **dict.fromkeys(_CODE, self._begin_code),
            **dict.fromkeys(_CODE.values(), self._end_code),
            **dict.fromkeys(("TH", "Dt"), self._head),
            **dict.fromkeys(("UR", "MT"), self._link),
            **dict.fromkeys(("UE", "ME"), self._link_end),
            **dict.fromkeys(("if", "ie", "while"), self._condition),
            **dict.fromkeys(("de", "de1", "am", "ig"), self._skip_macro),
            "el": self._otherwise,
            "ds": self._define,
            "TS": self._table,
            "OP": self._option,
        }

    def _pass_over(self, name: str, rest: str) -> None:
        """Do nothing."""

    def _begin_heading(self, name: str, rest: str) -> None:
        self._end_code()
        self._heading = 1 if name[1].upper() == "H" else 2
        if rest.strip():
            self._add(" ".join(self._arguments(rest)))

    def _font(self, name: str, rest: str) -> None:
        if rest.strip():
            self._add(_FONTS[name].join(self._arguments(rest)))

    def _begin_paragraph(self, name: str, rest: str) -> None:
        if not self._code_end:
            self._end_block()
        elif name in ("sp", "PP", "Pp"):
            self._written.append("")

    def _begin_line(self, name: str, rest: str) -> None:
        self._end_line()
        if name != "br":
            self._add(self._mdoc(rest))

    def _begin_code(self, name: str, rest: str) -> None:
        self._end_code()
        # A filled display is no code.
        self._code_end = "" if name == "Bd" and not re.search("-(literal|unfilled)", rest) else _CODE[name]

    def _end_code(self, name: str = "", rest: str = "") -> None:
        if name in ("", "fi", self._code_end):
            self._end_block()
            self._code_end = ""

    def _option(self, name: str, rest: str) -> None:
        self._add(f"[{' '.join(self._arguments(rest))}]")

    def _arguments(self, rest: str) -> list[str]:
        return [characters(word, self._strings) for word in arguments(rest)]

    def _mdoc(self, rest: str) -> str:
        return inline(self._arguments(rest), self._called)

    def _words(self, name: str, rest: str) -> None:
        if name == "Nm" and not self._called:
            self._called = " ".join(self._arguments(rest)[:1])
        self._add(self._mdoc(rest) + "," if name[0] == "%" else inline([name, *self._arguments(rest)], self._called))

    def _begin_item(self, name: str, rest: str) -> None:
        """Begin an item of a list; of TP its term is the next line, of the others the rest of this one."""
        if name == "TQ":
            self._end_line()
        else:
            self._end_block()
        if name in ("TP", "TQ"):
            self._term = 1
            return
        term = self._mdoc(rest) if name == "It" else "".join(self._arguments(rest)[:1])
        is_sign = term in ("•", "*", "o", "-", "·", "+") or bool(re.fullmatch(r"\(?\w{1,2}[.)]", term))
        self._term = 0 if is_sign or not term else 1
        if term:
            self._add(term)

    def _head(self, name: str, rest: str) -> None:
        words = self._arguments(rest)
        self._name, self._section = (*words[:2], "", "")[:2] if not self._section else (self._name, self._section)

    def _link(self, name: str, rest: str) -> None:
        self._address = "".join(self._arguments(rest)[:1])

    def _link_end(self, name: str, rest: str) -> None:
        if self._address:
            self._add(f"<{self._address}>{''.join(self._arguments(rest)[:1])}")
        self._address = ""

    def _define(self, name: str, rest: str) -> None:
        string, _, value = rest.partition(" ")
        self._strings[string] = value.lstrip(" ").removeprefix('"')

    def _skip_macro(self, name: str, rest: str) -> None:
        words = rest.split()
        self._own_macros.update(words[:1])
        end = f".{words[1]}" if len(words) > 1 else ".."
        while self._number < len(self._lines):
            line = self._lines[self._number].replace(" ", "")
            self._number += 1
            if line.startswith(end):
                return

    # Conditions: a page is read as for a terminal.

    def _condition(self, name: str, rest: str) -> None:
        condition = re.match(r"(!?)\s*('[^']*'[^']*'|\\n(?:\(..|\[[^\]]*\]|.)\S*|\S+)\s*(.*)", rest, re.DOTALL)
        if condition is None:
            return
        asked, then = condition[2], condition[3]
        is_true = asked == "n" or asked.startswith((r"\n(.g", r"\n[.g]"))
        if asked[0] == "'":
            left, right = asked.strip("'").partition("'")[::2] if asked.count("'") == 3 else ("", " ")
            is_true = characters(left, self._strings) == characters(right, self._strings)
        self._was_true = is_true != bool(condition[1])
        self._branch(then, is_taken=self._was_true)

    def _otherwise(self, name: str, rest: str) -> None:
        self._branch(rest, is_taken=not self._was_true)

    def _branch(self, rest: str, *, is_taken: bool) -> None:
        if is_taken:
            line = _BRACES.sub("", rest)
            if line.strip("\\ \t"):
                self._read(line)  # what follows is read as usual; the brace at its end says nothing
            return
        depth = sum(1 if brace == "{" else -1 for brace in _BRACES.findall(rest))
        while depth > 0 and self._number < len(self._lines):
            depth += sum(1 if brace == "{" else -1 for brace in _BRACES.findall(self._lines[self._number]))
            self._number += 1

    # Tables of tbl

    def _table(self, name: str, rest: str) -> None:
        self._end_block()
        tab = "\t"
        is_format = True
        rows: list[str] = []
        inner: list[str] | None = None  # lines of a cell between T{ and T}
        while self._number < len(self._lines):
            line = self._lines[self._number]
            self._number += 1
            if line.startswith((".TE", "'TE")):
                break
            if is_format:
                own = re.search(r"tab\s*\(?(.)\)?", line) if line.rstrip().endswith(";") else None
                tab = own[1] if own else tab
                is_format = not line.rstrip().endswith(".")
                continue
            if line.startswith((".T&", ".SH", ".TH")):
                is_format = line.startswith(".T&")
                continue
            if line.startswith((".", "'")):
                macro = _MACRO.match(line)
                line = " ".join(arguments(macro[2])) if macro and (macro[1] in _FONTS or macro[1] in INLINE) else ""
            if inner is not None:
                if line.startswith("T}"):
                    rows[-1] += " ".join(inner) + line[2:]
                    inner = [] if line.endswith("T{") else None
                    rows[-1] = rows[-1].removesuffix("T{")
                else:
                    inner.append(line)
            elif line.strip().strip("_=\t"):
                rows.append(line.removesuffix("T{"))
                inner = [] if line.endswith("T{") else None
        shown = (" | ".join(cell.strip() for cell in characters(row, self._strings).split(tab)).strip(" |") for row in rows)
        text = "\n".join(row for row in shown if row)
        if text:
            self._blocks.append(escaped(text))

    def _titled(self) -> str:
        """The title: the name with its section, and what the first section says of it."""
        name = characters(self._name, self._strings)
        first = next((block for block in self._blocks if not block.startswith("# ")), "")
        about = _NAME.fullmatch(" ".join(first.split())) if len(self._blocks) > 1 else None
        named = re.split(r"[,\s]", about[1])[0] if about else ""
        shown = named if named.casefold() == name.casefold() else name.lower() if name.isupper() else name
        shown = shown or named
        where = f"{shown}({self._section})" if shown and self._section else shown
        return f"{where} - {about[2]}" if about and where else where
