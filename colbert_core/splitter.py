"""Where to cut a text that is longer than a model reads. Numbers in, numbers out; no text is changed or lost."""

from __future__ import annotations

import re
from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# A paragraph ends at a blank line, a sentence at . ! ? … or their CJK forms with any closing quotes, or at a line end.
# Runs are taken whole (possessive) and from their beginning, else a megabyte of dots takes hours.
_PARAGRAPH_END = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’)\]]*+\s+|[。！？]++[”’」』）]*+\s*|\n\s*")


def windows(word_starts: Sequence[bool], size: int, overlap: int) -> list[tuple[int, int]]:
    """Cut a row of tokens into overlapping windows that cover it.

    Cuts are moved back to the start of a word where there is one in the last half of the window.

    Args:
        word_starts: for each token, whether a word starts there.
        size: most tokens of a window, at least 1.
        overlap: least tokens that two neighbours share, 0 to size - 1; fewer only where a word is longer than that.

    Returns:
        Half-open (start, end) ranges of tokens, in order; one empty range for no tokens at all.

    Example:
        >>> windows([True] * 10, size=6, overlap=2)
        [(0, 6), (4, 10)]
    """
    if not 0 <= overlap < size:
        raise ValueError(f"Window overlap {overlap} must be from 0 to the window size {size} minus 1.")

    def word_start(position: int, lowest: int) -> int:
        return next((at for at in range(position, lowest, -1) if word_starts[at]), position)

    n_tokens = len(word_starts)
    cuts: list[tuple[int, int]] = []
    start = end = 0
    while True:
        if start + size >= n_tokens:
            return [*cuts, (start, n_tokens)]
        end = word_start(start + size, max(start + size // 2, end))  # never inside the window before
        cuts.append((start, end))
        start = max(word_start(end - overlap, start), start + 1)


def passages(text: str, token_starts: Sequence[int], size: int) -> list[tuple[int, int]]:
    """Cut a document into passages of whole paragraphs, or failing that sentences, or failing that tokens.

    Args:
        text: the document.
        token_starts: character at which each of its tokens starts, ascending.
        size: most tokens of a passage, at least 1.

    Returns:
        Half-open (start, end) ranges of characters, in order and without blank ends; every token is in exactly one.
    """
    pieces = _pieces(text, token_starts, (0, len(text)), size, [_PARAGRAPH_END, _SENTENCE_END])
    merged: list[list[int]] = []  # neighbours are joined while they fit, so that short lines do not become passages
    for start, end, n_tokens in pieces:
        if merged and merged[-1][2] + n_tokens <= size:
            merged[-1][1] = end
            merged[-1][2] += n_tokens
        else:
            merged.append([start, end, n_tokens])
    stripped = ((start, end, text[start:end]) for start, end, _ in merged)
    return [
        (start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip()))
        for start, end, piece in stripped
        if piece.strip()
    ]


def _pieces(
    text: str, token_starts: Sequence[int], span: tuple[int, int], size: int, ends: list[re.Pattern[str]]
) -> list[tuple[int, int, int]]:
    """Cut one span at the first kind of boundary that makes it small enough: (start, end, tokens) of each piece."""
    start, end = span
    first, last = bisect_left(token_starts, start), bisect_left(token_starts, end)
    if last - first <= size:
        return [(start, end, last - first)]
    if not ends:
        bounds = [start, *token_starts[first + size : last : size], end]
        return [(a, b, min(size, last - first - i * size)) for i, (a, b) in enumerate(pairwise(bounds))]
    bounds = [start, *(match.end() for match in ends[0].finditer(text, start, end) if match.end() < end), end]
    return [piece for part in pairwise(bounds) for piece in _pieces(text, token_starts, part, size, ends[1:])]
