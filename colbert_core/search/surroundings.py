"""Widen a span of a long text by the sentences around it. Nothing is tokenized here."""

from __future__ import annotations

import re

from colbert_core.checks import check_count
from colbert_core.text import splitter


def widen(text: str, span: tuple[int, int], max_characters: int = 2000) -> tuple[int, int]:
    """Return the characters of a window together with the whole sentences before and behind it, as many as fit.

    Sentences are added on both sides in turn, on the shorter side first; words where no sentence ends in reach.

    Args:
        text: the whole text.
        span: (start, end) of a window in it, half-open, such as ``hit.span``.
        max_characters: most characters of both together, at least 1. 2,000 are about 500 tokens of English. A window that has
            more stays as it is; a text that has fewer stays whole.

    Returns:
        (start, end), half-open, around ``span``.

    Raises:
        ValueError: max_characters is below 1.

    Example:
        ```python
        from colbert_core import widen

        text = "Dogs bark. Cats purr. Hens cluck. Fish are silent."
        start, end = widen(text, (11, 21), max_characters=34)
        print(text[start:end])
        ```

        ```text
        Dogs bark. Cats purr. Hens cluck.
        ```
    """
    check_count(max_characters, "max_characters", "characters")
    if len(text) <= max_characters:
        return 0, len(text)
    start, end = span
    # Only so much of the text is read: what is farther away does not fit.
    first, last = max(end - max_characters, 0), min(start + max_characters, len(text))
    if first >= start and last <= end:
        return start, end
    starts: list[int] = []
    ends: list[int] = []
    for cut in (splitter.sentences, _words) if 2 * (end - start) < max_characters else (splitter.sentences,):
        if not starts and not ends:
            pieces = [(first + begin, first + stop) for begin, stop in cut(text[first:last])]
            # The first and the last may be cut off where the reading began and ended.
            starts = [begin for begin, _ in pieces[first > 0 :] if begin < start]
            ends = [stop for _, stop in pieces[: len(pieces) - (last < len(text))][::-1] if stop > end]
    while starts or ends:
        is_before = bool(starts) and (not ends or span[0] - starts[-1] <= ends[-1] - span[1])
        wider = (starts.pop(), end) if is_before else (start, ends.pop())
        if wider[1] - wider[0] > max_characters:
            (starts if is_before else ends).clear()  # the next on this side are farther away
        else:
            start, end = wider
    return start, end


def _words(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"\S+", text)]
