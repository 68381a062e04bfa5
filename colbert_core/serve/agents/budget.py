"""How many tokens an answer takes, and where a text or metadata are cut so that it takes no more. No model is loaded for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# The tokenizer of the model that reads the answers is not known here. Four bytes of UTF-8 are about a token of English, and
# three quarters of a token of Chinese or Japanese, which today's tokenizers need for most characters.
_BYTES_PER_TOKEN = 4
# A piece of a text ends with a word if one ends in this last part of it.
_LAST_PART = 0.2
# Names of metadata that are named when they are left out.
_MOST_NAMES = 10


def count_tokens(text: str) -> int:
    """About how many tokens a text takes: a quarter of its bytes in UTF-8."""
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)


def count_json_tokens(value: object) -> int:
    """About how many tokens a value takes as JSON."""
    return count_tokens(as_json(value))


def as_json(value: object) -> str:
    """Write a value as JSON, with every character as it is."""
    return json.dumps(value, ensure_ascii=False)


def end_of_piece(text: str, start: int, max_tokens: int) -> int:
    """Return where a piece of a text ends that begins at ``start`` and takes at most so many tokens, but has a character.

    The piece ends behind a word where it can.
    """
    most = max(max_tokens, 1) * _BYTES_PER_TOKEN
    piece = text[start : start + most]
    piece = piece.encode("utf-8", "replace")[:most].decode("utf-8", "ignore") or text[start : start + 1]
    end = start + len(piece)
    if end >= len(text):
        return len(text)
    least = end - int(len(piece) * _LAST_PART)
    blank = next((place for place in range(end, least, -1) if text[place - 1].isspace()), None)
    return end if blank is None else blank


def fitting_metadata(metadata: Mapping[str, Any], max_tokens: int) -> tuple[dict[str, Any], list[str]]:
    """Return the entries of metadata that take so many tokens together, and the names of some that do not fit."""
    kept: dict[str, Any] = {}
    left_out = []
    for name, value in metadata.items():
        max_tokens -= (tokens := count_json_tokens({name: value}))
        if max_tokens >= 0:
            kept[name] = value
        else:
            max_tokens += tokens
            left_out.append(f"{name:.80}")
    return kept, left_out[:_MOST_NAMES]
