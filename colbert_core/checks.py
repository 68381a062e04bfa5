"""Checks of what users give; each returns the value, or says what is wrong with it."""

from __future__ import annotations

import numbers
import operator
from typing import TYPE_CHECKING

from colbert_core.types import Passage, check_text

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable


# No collection has more of anything, and what counts it is of 64 bits.
_MOST = 2**63 - 1


def check_similarity(value: object) -> float | None:
    """Return a ``min_similarity`` that makes sense; None is one, too.

    Raises:
        TypeError: it is no number.
        ValueError: it is not from -1 to 1.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"min_similarity is a cosine from -1 to 1, got {value!r:.80}.")
    if not -1 <= value <= 1:
        raise ValueError(f"min_similarity is a cosine from -1 to 1, got {_shown(value)}.")
    return float(value)


def check_ids(counts: Counter[str], before: set[str] | frozenset[str] = frozenset()) -> None:
    """Whether every id stands once in a call.

    Args:
        counts: of the ids at hand.
        before: ids that came earlier.

    Raises:
        ValueError: one stands twice.
    """
    repeated = [passage_id for passage_id, count in counts.items() if count > 1 or passage_id in before]
    if repeated:
        raise ValueError(
            f"{len(repeated)} ids stand more than once in this call, among them {repeated[0]!r}; "
            "give every passage its own id, or keep the one you want."
        )


def id_list(ids: Iterable[str]) -> list[str]:
    """The ids as a list, if they are ids.

    Raises:
        TypeError: they are one string, or something else than strings.
    """
    if isinstance(ids, str):
        raise TypeError(f"ids must be a list of strings, got one str; write [{ids!r}].")
    try:
        checked = list(ids)
    except TypeError:
        raise TypeError(f"ids must be a list of strings, got {type(ids).__name__}: {ids!r:.80}") from None
    for position, passage_id in enumerate(checked):
        check_text(passage_id, f"Id {position}")
    return checked


def check_passages(items: Iterable[object]) -> list[Passage]:
    """Return the items as a list if all are passages.

    Raises:
        TypeError: one is not.
    """
    if isinstance(items, Passage):
        raise TypeError(f"passages must be a list of passages, got one Passage; write [passage] ({items.id!r}).")
    checked: list[Passage] = []
    for position, item in enumerate(items):
        if not isinstance(item, Passage):
            raise TypeError(f"Item {position} is a {type(item).__name__}, not a Passage; write Passage(id, text).")
        checked.append(item)
    return checked


def check_count(value: object, name: str, what: str = "passages", most: int = _MOST) -> int:
    """Return a number of something that makes sense.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is below 1 or above ``most``, which has 63 bits unless it is given.
    """
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = None
    if count is None or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number of {what}, got {value!r}.")
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {_shown(count)}.")
    if count > most:
        raise ValueError(f"{name} must be at most {most}, got {_shown(count)}.")
    return count


def _shown(value: float) -> str:
    """Write a number for a message. Python refuses to write one of more than 4,300 digits."""
    return f"a number of {value.bit_length()} bits" if isinstance(value, int) and value.bit_length() > 100 else repr(value)


def check_relevance(value: float | None, name: str) -> float | None:
    """Return a relevance threshold that makes sense.

    Raises:
        TypeError: it is no number.
        ValueError: it is not from 0 to 1.
    """
    return None if value is None else check_share(value, name, "a relevance", "; raw MaxSim scores are not thresholds")


def check_share(value: object, name: str, what: str = "a number", hint: str = "") -> float:
    """Return a number from 0 to 1.

    Raises:
        TypeError: it is no number.
        ValueError: it is not from 0 to 1.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {what} from 0 to 1, got {value!r:.80}.")
    if not 0 <= value <= 1:  # type: ignore[operator]
        raise ValueError(f"{name} is {what} from 0 to 1, got {_shown(value)}{hint}.")  # type: ignore[arg-type]
    return float(value)
