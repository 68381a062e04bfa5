"""Tell texts that have something to read from those that have not: blank ones, and those of invisible characters."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Letters, marks and signs by their category that show nothing: joiners, fillers of Hangul, vowels and selectors that only
# change what stands before them, and the empty pattern of Braille.
_INVISIBLE = frozenset(
    map(
        chr,
        (
            *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
            *range(0x180B, 0x1810),
            *range(0xFE00, 0xFE10),
            *range(0xE0100, 0xE01F0),
        ),
    )
)
# Control, format and private characters; separators. Unassigned ones may be the signs of a newer Unicode than Python's.
_UNSEEN = frozenset({"Cc", "Cf", "Co", "Zl", "Zp", "Zs"})


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: it is empty, or all of it is white space, control, format or private characters."""
    return not any(map(_is_seen, text.lstrip()))


def has_no_words(text: str) -> bool:
    """Whether a text has no letter or digit that can be seen: it is blank, or of punctuation and signs such as "----"."""
    return is_blank(text) or not any(map(str.isalnum, text))


def check_queries(texts: Sequence[str]) -> None:
    """Make sure that every query has something to read.

    Raises:
        ValueError: one is blank, or holds only characters that cannot be seen.
    """
    for position, text in enumerate(texts):
        if is_blank(text):
            raise empty_query(text, position, len(texts))


def empty_query(text: str, position: int, n_queries: int) -> ValueError:
    """Make the error for a query in which there is nothing to read.

    Args:
        text: the query.
        position: in the caller's list.
        n_queries: length of that list.
    """
    subject = "The query" if n_queries == 1 else f"Query {position} (of {n_queries}, counted from 0)"
    shown = f": {text[:20]!a} has no character that can be read" if text.strip() else ""
    return ValueError(f"{subject} is empty{shown}; ask with at least one word.")


def _is_seen(character: str) -> bool:
    if character in _INVISIBLE or unicodedata.category(character) in _UNSEEN:
        return False
    number = ord(character)
    return number & 0xFFFE != 0xFFFE and not 0xFDD0 <= number <= 0xFDEF  # those will never be characters
