"""Decide where to cut a text that is longer than a model reads. No text is changed or lost.

A cut goes to the strongest boundary in the last half of a window: before a Markdown heading or around fenced code, else at
the end of a paragraph, of a sentence or line, else between words. Fenced code and a heading with the beginning of its text
stay whole where they fit.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

# A paragraph ends at a blank line, a sentence at . ! ? … or their CJK forms with any closing quotes, or at a line end.
# Runs are taken whole (possessive) and from their beginning, else a megabyte of dots takes hours.
_PARAGRAPH_END = re.compile(r"\n[ \t\r]*\n\s*")
_SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+\s++(?=(?P<next>\S?))|[。！？]++[”’」』）》】]*+\s*+|\n\s*+")
_HEADING = re.compile(r"^ {0,3}(?P<signs>#{1,6})(?=[ \t\r\n]|\Z)[^\n]*+(?=(?P<blanks>\s*+))", re.MULTILINE)
_FENCE = re.compile(r"^ {0,3}(`{3,}+|~{3,}+)([^\n]*+)\n?", re.MULTILINE)

# Words whose dot ends no sentence, and single capitals (Latin, Greek, Cyrillic), as in "J. K. Rowling".
_ABBREVIATION = re.compile(
    r"(?:\b(?:Dr|Mr|Mrs|Ms|Prof|St|Jr|Sr|vs|etc|al|Fig|Figs|Eq|No|Vol|pp|cf|approx|[A-ZÀ-ÖØ-ÞΑ-ΩЀ-Я])|\b[ei]\.[eg]|\b[Pp]\.[Mm]|\b[Aa]\.[Mm])\.\Z"
)


@dataclass(frozen=True, slots=True)
class _Structure:
    """The places where a text may be cut, in tokens.

    Attributes:
        boundaries: for each kind of boundary, strongest first, the tokens before which one may cut, ascending.
        atoms: stretches to keep whole, each with its first token and the one behind its last; in order, without overlap.
    """

    boundaries: tuple[list[int], ...]
    atoms: list[tuple[int, int]]


def windows(
    text: str, token_spans: NDArray[np.int32], word_starts: NDArray[np.bool_], size: int, overlap: int
) -> list[tuple[int, int]]:
    """Cut a row of tokens into overlapping windows that cover it.

    Args:
        text: the text that was tokenized; spans count from its beginning.
        token_spans: *Shape:* (n_tokens, 2), int32, characters of each token, half-open, starts ascending.
        word_starts: *Shape:* (n_tokens,), bool, whether a word starts at the token.
        size: most tokens of a window, at least 1.
        overlap: least tokens that two neighbours share, 0 to size - 1; up to twice as many where a sentence begins there,
            more where a word is longer than that, fewer only where what is kept whole or a short window leaves no choice.

    Returns:
        Half-open (start, end) ranges of tokens, in order; one empty range for no tokens at all.

    Raises:
        ValueError: overlap is not less than size.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"Window overlap {overlap} must be from 0 to the window size {size} minus 1.")
    n_tokens = len(token_spans)
    if n_tokens <= size:
        return [(0, n_tokens)]

    structure = _structure(text, token_spans, word_starts, size)
    cuts: list[tuple[int, int]] = []
    start = end = 0
    while start + size < n_tokens:
        end = _end(structure, start, end, size)
        cuts.append((start, end))
        start = max(_start(structure, start, end, overlap), start + 1)
        if atom := _atom_around(structure.atoms, end + 1):
            start = max(start, atom[1] - size)  # what was left for this window must fit into it; that goes before overlap
    return [*cuts, (start, n_tokens)]


def passages(
    text: str, token_spans: NDArray[np.int32], word_starts: NDArray[np.bool_], size: int, overlap: int = 0
) -> list[tuple[int, int]]:
    """Cut a document into passages by the same rules.

    Args:
        text: as for ``windows``, as are the other arguments.
        token_spans: *Shape:* (n_tokens, 2), int32.
        word_starts: *Shape:* (n_tokens,), bool.
        size: most tokens of a passage.
        overlap: least tokens that two neighbours share.

    Returns:
        Half-open (start, end) ranges of characters, in order and without blank ends; none for a blank text.

    Raises:
        ValueError: overlap is not less than size.
    """
    spans = character_spans(windows(text, token_spans, word_starts, size, overlap), token_spans, len(text))
    pieces = ((start, end, text[start:end]) for start, end in spans)
    return [
        (start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip()))
        for start, end, piece in pieces
        if piece.strip()
    ]


def sentences(text: str) -> list[tuple[int, int]]:
    """Cut a text into sentences. A line, a whole block of fenced code and a last piece without an end count as sentences.

    Returns:
        Half-open (start, end) ranges of characters, in order and without blank ends; none for a blank text.
    """
    code = _fenced(text)
    inside = [start for start, _ in code]
    cuts = {place for span in code for place in span}
    for match in _SENTENCE_END.finditer(text):
        number = bisect_right(inside, match.start()) - 1
        if (number < 0 or match.start() >= code[number][1]) and _ends_sentence(text, match):
            cuts.add(match.end())
    places = [0, *sorted(cuts - {0, len(text)}), len(text)]
    pieces = ((start, end, text[start:end]) for start, end in pairwise(places))
    return [
        (start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip()))
        for start, end, piece in pieces
        if piece.strip()
    ]


def headings_of(text: str) -> list[tuple[int, int, str]]:
    """Find the headings of a Markdown text: lines that begin with #, outside of code between fences.

    Returns:
        The first character, the level from 1 to 6 and the words of each, in order.
    """
    code = _fenced(text)
    code_starts = [start for start, _ in code]
    return [
        (match.start(), len(match["signs"]), match[0].strip().strip("#").strip())
        for match in _HEADING.finditer(text)
        if not _is_within(code, code_starts, match.start())
    ]


def character_spans(cuts: list[tuple[int, int]], token_spans: NDArray[np.int32], n_characters: int) -> list[tuple[int, int]]:
    """Find the characters of each window, without gaps: those that no token has between two windows belong to the first.

    Args:
        cuts: token ranges that cover all tokens, as ``windows`` gives them.
        token_spans: *Shape:* (n_tokens, 2), int32.
        n_characters: length of the text; the first window begins and the last one ends with the text, blanks included.

    Returns:
        Half-open (start, end) ranges of characters, one for each range of tokens.
    """
    starts = [0, *(int(token_spans[first, 0]) for first, _ in cuts[1:])]
    # The tokens before a cut may reach behind it, where one character makes several.
    ends = [max(int(token_spans[last - 1, 1]), start) for (_, last), start in zip(cuts, starts[1:], strict=False)]
    return list(zip(starts, [*ends, n_characters], strict=True))


def _end(structure: _Structure, start: int, before: int, size: int) -> int:
    """Find the end of the window that begins at ``start``; ``before`` is the end of the window before it."""
    limit = start + size
    if atom := _atom_around(structure.atoms, limit):
        return atom[0]  # behind start and before: no window ends inside an atom, and the next has room for all of it
    lowest = max(start + size // 2, before)
    for boundaries in structure.boundaries:
        place = bisect_right(boundaries, limit) - 1
        if place >= 0 and boundaries[place] > lowest:
            return boundaries[place]
    return limit


def _start(structure: _Structure, start: int, end: int, overlap: int) -> int:
    """Find the beginning of the window that follows the one from ``start`` to ``end``."""
    if not overlap:
        return end
    lowest, latest = max(end - 2 * overlap, start + 1), end - overlap
    *stronger, words, characters = structure.boundaries
    sentences = (_last_between(boundaries, lowest, latest) for boundaries in stronger)
    # A word may be longer than the overlap, so its beginning is looked for farther back than a sentence's.
    best = max((place for place in sentences if place is not None), default=_last_between(words, start + 1, latest))
    if best is None:
        best = _last_between(characters, start + 1, latest)
    return latest if best is None else best


def _last_between(boundaries: list[int], lowest: int, highest: int) -> int | None:
    place = bisect_right(boundaries, highest) - 1
    return boundaries[place] if place >= 0 and boundaries[place] >= lowest else None


def _atom_around(atoms: list[tuple[int, int]], token: int) -> tuple[int, int] | None:
    """Find the stretch that a cut before this token would go through; None if there is none."""
    place = bisect_left(atoms, (token, 0)) - 1
    return atoms[place] if place >= 0 and token < atoms[place][1] else None


def _structure(text: str, token_spans: NDArray[np.int32], word_starts: NDArray[np.bool_], size: int) -> _Structure:
    starts = token_spans[:, 0]

    def tokens(characters: Iterable[int]) -> list[int]:
        """Find the first token at or behind each character."""
        numbers: list[int] = np.searchsorted(starts, np.fromiter(characters, np.int64)).tolist()
        return numbers

    code = _fenced(text)
    code_starts = [start for start, _ in code]
    headings = [
        (match.start(), match.end("blanks"))
        for match in _HEADING.finditer(text)
        if not _is_within(code, code_starts, match.start())
    ]
    # A heading's stretch reaches over the first token behind it, if there is one, so that a cut cannot part the two.
    firsts = tokens(start for start, _ in code + headings)
    lasts = tokens(end for _, end in code) + [min(last + 1, len(starts)) for last in tokens(end for _, end in headings)]
    stretches = sorted(zip(firsts, lasts, strict=True))
    atoms = _merged([(first, last) for first, last in stretches if last - first <= size], size)
    kinds = (
        [place for span in code for place in span] + [start for start, _ in headings],
        [match.end() for match in _PARAGRAPH_END.finditer(text)],
        [match.end() for match in _SENTENCE_END.finditer(text) if _ends_sentence(text, match)],
    )
    boundaries = [sorted(set(tokens(places))) for places in kinds]
    boundaries.append(np.flatnonzero(word_starts).tolist())
    # Not between tokens of one character, as byte-level tokenizers make them of an emoji.
    boundaries.append(np.flatnonzero(np.concatenate([[True], starts[1:] >= token_spans[:-1, 1]])).tolist())
    if atoms:
        boundaries = [[place for place in places if not _atom_around(atoms, place)] for places in boundaries]
    return _Structure(tuple(boundaries), atoms)


def _fenced(text: str) -> list[tuple[int, int]]:
    """Find the blocks of code between fences; a block that is not closed reaches to the end (CommonMark, section 4.5)."""
    blocks: list[tuple[int, int]] = []
    opened: re.Match[str] | None = None
    for match in _FENCE.finditer(text):
        fence, behind = match.groups()
        if opened is None:
            if fence[0] == "~" or "`" not in behind:
                opened = match
        elif fence[0] == opened[1][0] and len(fence) >= len(opened[1]) and not behind.strip():
            blocks.append((opened.start(), match.end()))
            opened = None
    return blocks if opened is None else [*blocks, (opened.start(), len(text))]


def _is_within(stretches: list[tuple[int, int]], starts: list[int], place: int) -> bool:
    """Tell whether a place is within one of some stretches, which begin at ``starts``, ascending."""
    number = bisect_right(starts, place) - 1
    return number >= 0 and place < stretches[number][1]


def _merged(stretches: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Join stretches that overlap, such as a heading below a heading, as long as they fit into a window."""
    merged: list[tuple[int, int]] = []
    for first, last in stretches:
        if merged and first < merged[-1][1]:
            joined = (merged[-1][0], max(last, merged[-1][1]))
            merged[-1] = joined if joined[1] - joined[0] <= size else (merged[-1][0], first)
            if merged[-1] == joined:
                continue
        merged.append((first, last))
    return [atom for atom in merged if atom[1] - atom[0] > 1]


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    """Tell if a match ends a sentence: not after an abbreviation or initial, nor before a small letter; a line end does."""
    if "\n" in match[0] or match["next"] is None:
        return True
    if match["next"].islower():
        return False
    return match[0][0] != "." or not _ABBREVIATION.search(text[max(match.start() - 10, 0) : match.start() + 1])
