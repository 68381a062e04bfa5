"""Which characters of a text are a word, in any script. Strings and spans in, spans out."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    Span = tuple[int, int]

_RUNS = re.compile("[0-9A-Za-z]+")
# Thai and Lao, Burmese, Khmer: scripts that write no blanks between words.
_DENSE = (("\u0e00", "\u0eff"), ("\u1000", "\u109f"), ("\u1780", "\u17ff"))


def has_letters(text: str, span: Span) -> bool:
    """Tell whether there is something to mark: letters, digits, symbols or emoji, but not punctuation or an empty span."""
    return any(character.isalnum() or unicodedata.category(character) in ("So", "Sc", "Sm") for character in text[slice(*span)])


def whole_word(text: str, span: Span, within: Span) -> Span:
    """Extend a piece of a word to the whole word. In scripts without blanks between words the piece stays as it is."""
    start, end = span
    while start > within[0] and _belong_together(text[start - 1], text[start]):
        start -= 1
    while end < within[1] and _belong_together(text[end - 1], text[end]):
        end += 1
    return start, end


def word_of(text: str, span: Span, within: Span) -> Span | None:
    """Return the whole word of a piece, or None if it has no letters."""
    return whole_word(text, span, within) if has_letters(text, span) else None


def words_of(text: str, spans: Sequence[Span], within: Span) -> list[Span | None]:
    """Return the whole word of each piece, as ``word_of`` does.

    In ASCII, words are runs of letters and digits, which are found at once: a third of the time for a window of 150 pieces.
    """
    if not text[slice(*within)].isascii():
        return [word_of(text, span, within) for span in spans]
    runs = [run.span() for run in _RUNS.finditer(text, *within)]
    starts = [start for start, _ in runs]
    words: list[Span | None] = []
    for span in spans:
        place = bisect_right(starts, span[0]) - 1
        is_within_one = place >= 0 and span[0] < span[1] <= runs[place][1]
        words.append(runs[place] if is_within_one else word_of(text, span, within))
    return words


def words_in(words: Sequence[Span | None], span: Span) -> list[Span]:
    """Return those of some words that have characters of a span, in their order, each once."""
    return [word for word in dict.fromkeys(words) if word is not None and word[0] < span[1] and span[0] < word[1]]


def _belong_together(before: str, behind: str) -> bool:
    if before.isascii() and behind.isascii():  # most are, and looking up what they are takes ten times as long
        return before.isalnum() and behind.isalnum()
    if unicodedata.combining(behind) or behind in "\u200d\ufe0f" or before == "\u200d":
        return True  # an accent, or the parts of one emoji
    return _is_of_word(before) and _is_of_word(behind)


def _is_of_word(character: str) -> bool:
    if unicodedata.combining(character):
        return True
    # Han, kana, Hangul and the like are wide; Thai, Lao, Burmese and Khmer write no blanks either.
    is_dense = unicodedata.east_asian_width(character) in "WF" or any(a <= character <= b for a, b in _DENSE)
    return character.isalnum() and not is_dense
