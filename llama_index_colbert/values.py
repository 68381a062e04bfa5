"""Keep the values of metadata that JSON changes, such as tuples and dates, so that a node comes back with the same hash."""

from __future__ import annotations

import datetime
import decimal
import pathlib
import uuid
from typing import TYPE_CHECKING, Any

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
    decimal.Decimal: decimal.Decimal,
    bytes: str.encode,
    uuid.UUID: uuid.UUID,
    type(pathlib.Path()): pathlib.Path,
}
_BY_NAME: dict[str, Callable[[Any], Any]] = {kind.__name__: make for kind, make in _MAKERS.items()}
_BY_NAME["int keys"] = lambda value: {int(key): inner for key, inner in value.items()}


def changed_by_json(metadata: dict[str, Any]) -> list[list[Any]]:
    """List the places of values that JSON turns into others, each with the name of its type; inner ones come first."""
    return [[path, name] for path, name in _walk(metadata, [])]


def restore(metadata: dict[str, Any], places: list[list[Any]]) -> dict[str, Any]:
    """Put the listed values back, in place. One that somebody has changed since, so that it no longer fits, stays as it is."""
    holder: dict[str, Any] = {"": metadata}
    for place in places:
        try:
            path, name = place
            way: list[Any] = ["", *path]
            last = way.pop()
            parent: Any = holder
            for step in way:
                parent = parent[step]
            parent[last] = _BY_NAME[name](parent[last])
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            continue
    return metadata


def _walk(value: Any, path: list[str | int]) -> Iterator[tuple[list[str | int], str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _walk(inner, [*path, key if isinstance(key, str) else str(key)])
        if path and value and all(type(key) is int for key in value):
            yield path, "int keys"
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from _walk(inner, [*path, place])
    if type(value) in _MAKERS:
        yield path, type(value).__name__
