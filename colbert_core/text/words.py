"""Cut texts into the terms by which words are looked up: stems, identifiers whole and by their parts, pairs of letters.

A term has no blank and no quotation mark. Runs of letters are found first, with what joins them within an identifier:

| text | terms |
|---|---|
| running shoes | run, shoe (English) |
| numpy.einsum_path | numpy.einsum_path, numpy, einsum, path |
| CVE-2023-1234 | cve-2023-1234, cve, 2023, 1234 |
| 北京大学 | 北京, 京大, 大学 |
"""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

ANALYSERS = ("english", "words", "trigrams")
"""How texts are cut: English stems without stop words, words of any language as they are, or every three letters."""

VERSION = 1
"""Raise it when an analyser makes other terms of the same text: indexes then count their words anew."""

# What may stand in a term beside letters and digits.
JOINTS = "-_./:@+#&~"

# Lucene's English stop words.
_STOP_WORDS = frozenset(
    [
        *("a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not", "of"),
        *("on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was", "will", "with"),
    ]
)

# Longer terms are cut, and longer identifiers are found by their parts alone: nobody asks for a page of base64.
_LONGEST = 64

# Letters of scripts without blanks between words: Thai to Khmer, kana, Han.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_OF_SCRIPT = re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}]+")
_PARTS = re.compile(r"[^-_./:@+#&~]+")
_IS_IDENTIFIER = re.compile(r"[0-9_.:@+#&~]")
_ACCENTS = re.compile("[\u0300-\u036f]")
_SIGNS = re.compile(r"[^-0-9A-Za-z_./:@+#&~'\u0080-\U0010ffff]|\s")  # "(1)" for one letter that looks like this
_MEMORY = 2**16  # runs whose terms are remembered; the words of 26,000 passages are 150,000, most of them seen once


@dataclass(frozen=True, slots=True)
class Piece:
    """A term and the characters it stands for.

    Attributes:
        term: as it is looked up.
        span: half-open, in the text.
    """

    term: str
    span: tuple[int, int]


class Analyser:
    """Cuts texts in one of the ways of ``ANALYSERS``. Safe to share between threads."""

    def __init__(self, name: str) -> None:
        """Take one of ``ANALYSERS``.

        Raises:
            ValueError: it is none of them.
        """
        if name not in ANALYSERS:
            raise ValueError(f"words must be one of {', '.join(ANALYSERS)}, or None for no words, got {name!r:.80}.")
        self.name = name
        self._stem = _stemmer() if name == "english" else None
        self._stop_words = _STOP_WORDS if name == "english" else frozenset[str]()
        self._of_run = functools.lru_cache(_MEMORY)(self._cut)

    def terms(self, text: str) -> list[str]:
        """List the terms of a text, each as often as it occurs."""
        return [term for run in _runs().findall(text) for term, _, _ in self._of_run(run)]

    def query_terms(self, text: str) -> list[str]:
        """List the terms of a query, each once, in the order in which they first occur."""
        return list(dict.fromkeys(self.terms(text)))

    def pieces(self, text: str, wanted: Container[str] | None = None) -> Iterator[Piece]:
        """Yield the terms of a text with their characters; where letters were replaced by others, those of the whole run.

        Args:
            text: any.
            wanted: only these terms; None for all.
        """
        for run in _runs().finditer(text):
            for term, start, end in self._of_run(run[0]):
                if wanted is None or term in wanted:
                    yield Piece(term, (run.start() + start, run.start() + end))

    def shared(self, query: str, text: str, window: tuple[int, int]) -> tuple[tuple[tuple[int, int], tuple[int, int]], ...]:
        """Find the words that a query and a window of a passage share: the characters of each in both, half-open."""
        asked: dict[str, tuple[int, int]] = {}
        for piece in self.pieces(query):
            asked.setdefault(piece.term, piece.span)
        first, last = window
        found = self.pieces(text[first:last], asked)
        return tuple((asked[piece.term], (first + piece.span[0], first + piece.span[1])) for piece in found)

    def _cut(self, run: str) -> tuple[tuple[str, int, int], ...]:
        """Cut one run into terms, each with its first and last character in the run."""
        plain = _folded(run)
        if self.name == "trigrams":
            plain = plain.replace("'", "")
        aligned = len(plain) == len(run)
        pieces = _trigrams(plain) if self.name == "trigrams" else self._words(plain)
        return tuple((term[:_LONGEST], *((start, end) if aligned else (0, len(run)))) for term, start, end in pieces)

    def _words(self, plain: str) -> Iterator[tuple[str, int, int]]:
        parts = list(_PARTS.finditer(plain))
        is_whole = (len(parts) > 1 or plain[-1] in "+#") and _IS_IDENTIFIER.search(plain) is not None
        if is_whole and len(plain) <= _LONGEST:
            yield plain.replace("'", ""), 0, len(plain)
        for part in parts:
            for script in _OF_SCRIPT.finditer(part[0]):
                start, end = part.start() + script.start(), part.start() + script.end()
                if re.match(f"[{_UNSPACED}]", script[0]):
                    yield from ((plain[at : at + 2], at, min(at + 2, end)) for at in range(start, max(end - 1, start + 1)))
                    continue
                word = script[0].removesuffix("'s").replace("'", "")
                if word in self._stop_words or not word or (is_whole and len(word) == 1 and word.isalpha()):
                    continue
                yield (self._stem(word) if self._stem and word.isalpha() and word.isascii() else word), start, end


@functools.cache
def analyser(name: str) -> Analyser:
    """Return the analyser of a name; equal names have the same one.

    Raises:
        ValueError: there is no such analyser.
    """
    return Analyser(name)


def _trigrams(plain: str) -> Iterator[tuple[str, int, int]]:
    for start in range(max(len(plain) - 2, 1)):
        yield plain[start : start + 3], start, min(start + 3, len(plain))


def _folded(run: str) -> str:
    """Lower the case, and take away accents and forms of letters that look different and mean the same."""
    run = run.replace("\u2019", "'")
    if run.isascii():
        return run.lower()
    apart = unicodedata.normalize("NFKD", run.casefold())
    folded = unicodedata.normalize("NFC", _ACCENTS.sub("", apart))
    return _SIGNS.sub("", folded) or run.casefold()


def _stemmer() -> Callable[[str], str]:
    from snowballstemmer import stemmer  # Porter2 (Porter, 2001), in C where PyStemmer is installed

    stem: Any = stemmer("english").stemWord
    return functools.lru_cache(_MEMORY)(stem)


@functools.cache
def _runs() -> re.Pattern[str]:
    letter = f"[\\w{_marks()}]"
    word = f"{letter}+(?:['\u2019]{letter}+)*"
    return re.compile(f"{word}(?:[-./:@+#&~]+{word})*[+#]{{0,2}}")


@functools.cache
def _marks() -> str:
    """Vowel signs and the like, which are parts of words and no letters to ``re``: a class of characters, without brackets."""
    numbers = [number for number in range(0x300, min(0x1F000, sys.maxunicode)) if unicodedata.category(chr(number))[0] == "M"]
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return "".join(f"{chr(first)}-{chr(last)}" if last > first else chr(first) for first, last in ranges)
