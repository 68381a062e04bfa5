"""Keep the values of metadata that JSON changes, such as tuples and dates, so that a node comes back with the same hash."""

from __future__ import annotations

import datetime
import decimal
import pathlib
import uuid
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What makes a value of what JSON made of it.
_MAKERS: dict[type, Callable[[Any], Any]] = {
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    datetime.datetime: datetime.datetime.fromisoformat,
    datetime.date: datetime.date.fromisoformat,
    datetime.time: datetime.time.fromisoformat,
    bytes: str.encode,
    uuid.UUID: uuid.UUID,
    type(pathlib.Path()): pathlib.Path,
}
_BY_NAME: dict[str, Callable[[Any], Any]] = {kind.__name__: make for kind, make in _MAKERS.items()}
_BY_NAME["int keys"] = lambda value: {int(key): inner for key, inner in value.items()}
_BY_NAME["Decimal"] = lambda value: decimal.Decimal(str(value))  # a number where its digits are those of one


def plain_form(value: Any) -> Any:
    """What is kept of what colbert_core refuses and LlamaIndex does not: bytes of UTF-8, and keys that are no strings."""
    if isinstance(value, dict):
        return {next(iter(to_jsonable_python({key: None}))): inner for key, inner in value.items()}
    return to_jsonable_python(value)


def changed_by_json(metadata: dict[str, Any]) -> list[list[Any]]:
    """List the places of values that JSON turns into others, each with the name of its type; inner ones come first.

    A decimal number has its digits beside it: 1.10 is kept as 1.1.
    """
    return [[path, *about] for path, *about in _walk(metadata, [])]


def restore(metadata: dict[str, Any], places: list[list[Any]]) -> dict[str, Any]:
    """Put the listed values back, in place. One that somebody has changed since, so that it no longer fits, stays as it is."""
    holder: dict[str, Any] = {"": metadata}
    for place in places:
        try:
            path, name, *digits = place
            way: list[Any] = ["", *path]
            last = way.pop()
            parent: Any = holder
            for step in way:
                parent = parent[step]
            value = _BY_NAME[name](parent[last])
            parent[last] = decimal.Decimal(digits[0]) if digits and decimal.Decimal(digits[0]) == value else value
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, decimal.InvalidOperation):
            continue
    return metadata


def _walk(value: Any, path: list[str | int]) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _walk(inner, [*path, key if isinstance(key, str) else str(key)])
        if path and value and all(type(key) is int for key in value):
            yield path, "int keys"
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from _walk(inner, [*path, place])
    if type(value) is decimal.Decimal:
        yield path, "Decimal", str(value)
    elif type(value) in _MAKERS:
        yield path, type(value).__name__
