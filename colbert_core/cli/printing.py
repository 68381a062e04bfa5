"""How commands print hits and figures: as lines for people, as values of JSON for programs.

What is printed comes from files, models and servers, too. ``guarded`` lets nothing of it move a terminal's cursor, colour it,
turn the order of letters around or forge a line, whoever prints it: a command, a warning, a log, argparse or a bar.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import warnings
from typing import TYPE_CHECKING, Any

from colbert_core.errors import FilterWarning

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from colbert_core.evidence.evidence import Evidence
    from colbert_core.index.reports import IndexStats
    from colbert_core.types import Hit, Mode, Passage

# Characters of a passage in a line.
_LONGEST = 140
# What tqdm writes beside its bars: to the line of another bar, and back.
_MOVES_OF_BARS = re.compile(r"\n+|(\x1b\[A)+")


class Line(str):
    """A line that is printed as it is: it has colours of ours, and the rest of it is printable."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return the line itself, since ``print`` asks for a string."""
        return self


class _Guarded:
    """A stream of text that passes on printable characters, and blanks in place of all others.

    A newline within a text is data, since ``print`` writes the end of a line on its own.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text; return its length."""
        self._stream.write(text if isinstance(text, Line) or text.isprintable() else self._guard(text))
        return len(text)

    def writelines(self, texts: Iterable[str]) -> None:
        """Write texts."""
        for text in texts:
            self.write(text)

    def _guard(self, text: str) -> str:
        return text if text in ("\n", "\t") else printable(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _GuardedErrors(_Guarded):
    """The same for standard error, where logs and warnings end their lines themselves and bars are drawn over and over."""

    def _guard(self, text: str) -> str:
        if _MOVES_OF_BARS.fullmatch(text):
            return text
        start, end = "\r" * text.startswith("\r"), "\n" * text.endswith("\n")
        return f"{start}{printable(text.removeprefix(start).removesuffix(end))}{end}"


class _GuardedPages(_Guarded):
    """The same for argparse, whose texts have several lines."""

    def _guard(self, text: str) -> str:
        return "\n".join(map(printable, text.split("\n")))


@contextlib.contextmanager
def guarded(*, pages: bool = False) -> Iterator[None]:
    """Guard standard output and standard error.

    Args:
        pages: what is printed are texts of several lines.
    """
    of_output, of_errors = (_GuardedPages, _GuardedPages) if pages else (_Guarded, _GuardedErrors)
    with contextlib.redirect_stdout(of_output(sys.stdout)), contextlib.redirect_stderr(of_errors(sys.stderr)):
        yield


@contextlib.contextmanager
def filter_warnings(*, strict: bool) -> Iterator[None]:
    """Say of a filter that asks for what no passage has in a line on standard error, without the line of our own code.

    Args:
        strict: it is an error.

    Raises:
        FilterWarning: with ``strict``.
    """
    show = warnings.showwarning

    def show_as_a_line(message: Any, category: type[Warning], *place: Any, **others: Any) -> None:
        if issubclass(category, FilterWarning):
            print(f"colbert: {message}", file=sys.stderr)
        else:
            show(message, category, *place, **others)

    with warnings.catch_warnings():
        warnings.simplefilter("error" if strict else "always", FilterWarning)
        warnings.showwarning = show_as_a_line
        yield


def print_lines(lines: Iterable[str]) -> None:
    """Print lines, each of which stays one."""
    for line in lines:
        print(line)


def as_json(value: Any) -> str:
    """Write a value as a line of JSON, in readable letters; what is not printable is escaped."""
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in json.dumps(value, ensure_ascii=False))


def hit_as_line(hit: Hit, mode: Mode = "maxsim") -> str:
    """Show rank, figures, id and the matched window of a hit, or its evidence where it has some.

    Args:
        hit: what was found.
        mode: what ranked. The figures are score and relevance, in a hybrid search coverage as well, and coverage alone where
            words alone ranked.
    """
    shown = beginning_of(hit.text) if hit.evidence is None else hit.evidence.to_terminal(color=has_colors())
    figures = [] if mode == "words" else [f"{hit.score:6.2f}", f"{hit.relevance:.3f}"]
    figures += [] if hit.coverage is None else [f"{hit.coverage:.3f}"]
    return Line(f"{hit.rank:>4}. {'  '.join(figures)}  [{printable(hit.passage.id)}] {shown}")


def beginning_of(text: str) -> str:
    """Show as much of a text as a line holds."""
    line = printable(" ".join(text.split()))
    return f"{line[:_LONGEST]}{'…' if len(line) > _LONGEST else ''}"


def passage_as_line(passage: Passage) -> str:
    """Show the id of a passage and the beginning of its text."""
    return f"[{printable(passage.id)}] {beginning_of(passage.text)}"


def passage_as_block(passage: Passage) -> Iterator[str]:
    """Show metadata and the whole text of a passage, by lines that begin with blanks, as no line of ours does."""
    if passage.metadata:
        yield f"      {as_json(passage.metadata)}"
    for line in passage.text.splitlines():
        yield f"      {line}".rstrip()


def evidence_as_lines(evidence: Evidence, number: int) -> tuple[str, str]:
    """Show a passage with the words that match the query, and which words of the query it lacks."""
    missing = f"  not found: {printable(', '.join(evidence.unmatched))}" if evidence.unmatched else ""
    return (
        f"{number:>4}. {evidence.score:6.2f}  {evidence.relevance:.3f}  [{printable(evidence.passage_id)}]{missing}",
        Line(f"      {evidence.to_terminal(color=has_colors())}"),
    )


def stats_as_sentence(stats: IndexStats) -> str:
    """Tell the size of an index in a sentence."""
    return f"The index has {stats.passages} passages of {stats.tokens} tokens, {stats.bytes_per_token:.1f} bytes each."


def has_colors() -> bool:
    """Tell whether standard output shows colours; https://no-color.org turns them off."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def printable(text: str) -> str:
    """Replace by blanks what would move a terminal's cursor, forge another line or turn the order of letters around."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else " " for character in text)


def keep_silent(*_: object) -> None:
    """Print nothing: takes the place of ``print`` when a program reads the output."""
