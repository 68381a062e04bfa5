"""What metadata may hold, and the plain form of it that an index keeps and gives back.

=================================================  ======================================================================
``str``, ``bool``, ``int`` up to 64 bits, None     the same
``float``                                          the same; None for NaN and the infinities
``date``, ``datetime``, ``time``                   a string in ISO 8601, as ``isoformat`` writes it; None for pandas' NaT
``timedelta``                                      its seconds, a number
``Decimal``                                        the number that is written with the same digits (``Decimal("1.10")`` is
                                                   1.1); a string if there is none of 64 bits
``UUID``, any path of ``pathlib``                  a string
``Enum``                                           the plain form of its value
NumPy's scalars; arrays of one dimension           as Python's own; lists
``list``, ``tuple``                                a list
``set``, ``frozenset``                             a sorted list: numbers, strings, anything else
``dict`` with keys that are strings                a dict
=================================================  ======================================================================

Anything else is refused. Filters compare with plain forms, and take the same values as operands.
"""

from __future__ import annotations

import datetime
import json
import math
import sys
import uuid
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from colbert_core.types import check_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Default = Callable[[Any], Any]

# Metadata deeper or with longer paths than these would fill an index with their names.
_DEEPEST = 50
_LONGEST_PATH = 1000
# Types of most values, whose plain form is the value.
_OFTEN = {str, int, bool, type(None)}


def plain_metadata(metadata: Mapping[str, Any], subject: str = "Metadata", default: Default | None = None) -> dict[str, Any]:
    """Return metadata in the plain form that an index keeps and gives back; what is given is not changed.

    Dates and times become strings in ISO 8601, durations seconds, decimal numbers numbers (or strings, where no number of 64
    bits is written with the same digits), UUIDs and paths strings, members of an ``Enum`` their values, sets sorted lists,
    tuples lists, NumPy's scalars and arrays of one dimension Python's own values and lists; NaN and the infinities become None.

    Args:
        metadata: any dict with keys that are strings.
        subject: what errors call it.
        default: returns something to keep in place of a value of another type, as ``default`` of ``json.dumps``. None refuses
            such values.

    Raises:
        TypeError: a value is of another type, or a key is no string.
        ValueError: a number has more than 64 bits, a string has a lone surrogate, an object holds itself or more than 50
            levels, or the names down to a value have more than 1,000 characters.
    """
    plain: dict[str, Any] = _Reader(subject, default).plain(dict(metadata))
    return plain


def dump_metadata(metadata: Mapping[str, Any], subject: str) -> str:
    """Write metadata as JSON, in their plain form.

    Raises:
        TypeError, ValueError: as ``plain_metadata``.
    """
    return json.dumps(plain_metadata(metadata, subject), ensure_ascii=False, allow_nan=False)


def plain_scalar(value: Any) -> Any:
    """Return the plain form of a single value; one that has none is returned as it is."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, np.generic):
        value = _from_numpy(value)
    for kinds, make in _MAKERS:
        if isinstance(value, kinds):
            return make(value)
    return None if value is getattr(sys.modules.get("pandas"), "NA", sys) else value


class _Reader(NamedTuple):
    """Reads the metadata of one subject.

    Attributes:
        subject: what errors call it.
        default: gives something to keep in place of a value of another type.
    """

    subject: str
    default: Default | None

    def plain(self, value: Any, path: str = "", depth: int = 0) -> Any:
        """The plain form of a value whose names down to it are ``path``."""
        if depth > _DEEPEST or len(path) > _LONGEST_PATH:
            raise ValueError(f"{self.subject} is nested too deeply, or holds itself, or has endless names: {path:.80}")
        if type(value) in _OFTEN:
            return self._checked(value, path)
        if isinstance(value, dict):
            return self._object(value, path, depth)
        if isinstance(value, np.ndarray) and value.ndim <= 1:
            value = list(value) if value.ndim else value[()]
        if isinstance(value, list | tuple):
            return [self.plain(inner, path, depth + 1) for inner in value]
        if isinstance(value, set | frozenset):
            return sorted((self.plain(inner, path, depth + 1) for inner in value), key=_order)
        plain = plain_scalar(value)
        if plain is None or isinstance(plain, str | int | float):
            return self._checked(plain, path)
        if self.default is not None:
            return self.plain(self.default(value), path, depth + 1)
        raise TypeError(
            f"{self.subject}: {path} is a {type(value).__name__}, {value!r:.80}, which an index cannot keep; use "
            f"{_instead(value)}, or another string, number, date, list or dict."
        )

    def _object(self, value: dict[Any, Any], path: str, depth: int) -> Any:
        for key in value:
            if isinstance(key, str):
                check_text(key, f"{self.subject}, key {key!r:.80}")
            elif self.default is not None:
                return self.plain(self.default(value), path, depth + 1)
            else:
                raise TypeError(
                    f"{self.subject}: a key of {path or 'it'} is {key!r}, a {type(key).__name__}; keys are strings."
                )
        return {
            str.__str__(key): self.plain(inner, f"{path}.{key}" if path else key, depth + 1) for key, inner in value.items()
        }

    def _checked(self, plain: Any, path: str) -> Any:
        if isinstance(plain, str):
            return check_text(plain, f"{self.subject}, {path}")
        if isinstance(plain, int) and not -(2**63) <= plain < 2**63:
            raise ValueError(
                f"{self.subject}: {path} is a number of more than 64 bits ({plain.bit_length()}); keep it as a string."
            )
        return plain


def _instead(value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        return "value.decode(), or base64"
    return "value.tolist()" if hasattr(value, "tolist") else "str(value)"


def _from_numpy(value: np.generic) -> Any:
    """Python's own value; of a time to the nanosecond, which Python has not, a string if there are any."""
    if isinstance(value, np.timedelta64):
        return None if np.isnat(value) else float(value / np.timedelta64(1, "s"))
    if not isinstance(value, np.datetime64):
        return float(value) if isinstance(value, np.floating) else value.item()
    if np.isnat(value):
        return None
    to_microseconds = value.astype("datetime64[us]")
    item = value.item() if isinstance(value.item(), datetime.date) else to_microseconds.item()
    return item if isinstance(item, datetime.date) and to_microseconds == value else str(value)


def _from_decimal(value: Decimal) -> float | str | None:
    if not value.is_finite():
        return None
    if value.as_tuple().exponent >= 0 and -(2**63) <= value < 2**63:  # type: ignore[operator]  # a letter for NaN alone
        return int(value)
    number = float(value)
    return number if Decimal(repr(number)) == value else str(value)


def _order(plain: Any) -> tuple[int, Any]:
    """Where a value stands in a set's list: numbers come before strings, and both before anything else."""
    if isinstance(plain, int | float):
        return 0, plain
    return (1, plain) if isinstance(plain, str) else (2, json.dumps(plain, sort_keys=True))


# What makes the plain form of a value of these types; the first that fits. True is an int, a datetime a date.
_MAKERS: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    (bool, bool),
    (str, str.__str__),  # also of a class of somebody's own that prints as something else
    (int, int),
    (float, lambda value: float(value) if math.isfinite(value) else None),
    ((datetime.date, datetime.time), lambda value: value.isoformat() if value == value else None),  # pandas' NaT is no time
    (datetime.timedelta, lambda value: value.total_seconds()),
    (Decimal, _from_decimal),
    ((uuid.UUID, PurePath), str),
)
