"""Filters as JSON holds them. A date, which JSON has not, is ``{"$date": "2024-01-31"}``; all else is what it is."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import numpy as np

from colbert_core.metadata import plain_scalar
from colbert_core.storage.filters import compile_where

_DATE = "$date"


def where_as_json(where: Any) -> dict[str, Any] | None:
    """Return a filter as values that JSON can hold; None for none.

    A date is kept apart from a string: as an operand it matches dates alone, and the same moment however it is written.

    Raises:
        TypeError: the filter is a function, no dict, or an operand is of a type that its operator does not take.
        ValueError: an operator is unknown, or there is too much of something; see ``colbert_core.storage.filters``.
    """
    if where is None:
        return None
    if callable(where) and not isinstance(where, Mapping):
        raise TypeError(
            f"where is the function {getattr(where, '__name__', where)!r:.80}, which cannot be sent to a service; "
            "write the filter as a dict, such as {'year': {'$gte': 2020}}."
        )
    compile_where(where)  # the mistakes that it finds need not travel
    plain: dict[str, Any] = _plain(where)
    return plain


def where_from_json(where: dict[str, Any]) -> dict[str, Any]:
    """Return a filter with its dates as dates.

    Raises:
        ValueError: what stands for a date is none.
    """
    dated: dict[str, Any] = _dated(where)
    return dated


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, datetime.date | np.datetime64):
        return {_DATE: plain_scalar(value)}
    plain = plain_scalar(value)
    if plain is None or isinstance(plain, str | int | float):
        return plain
    return [_plain(inner) for inner in value]  # what compiled is nothing else


def _dated(value: Any) -> Any:
    if isinstance(value, list):
        return [_dated(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if [*value] == [_DATE]:
        return _date(value[_DATE])
    return {key: _dated(inner) for key, inner in value.items()}


def _date(text: Any) -> datetime.date:
    try:
        return datetime.datetime.fromisoformat(text) if "T" in text else datetime.date.fromisoformat(text)
    except (TypeError, ValueError):
        raise ValueError(f"{_DATE} takes a date in ISO 8601, such as '2024-01-31', got {text!r:.80}.") from None
