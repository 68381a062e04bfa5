"""Dates among the strings of metadata: which instant each one is, and the SQL that compares them.

A string is a date if it is ``YYYY-MM-DD``, alone or with a time behind a T or a blank: ``HH:MM``, perhaps seconds and a
fraction of them, perhaps Z or an offset such as ``+05:30``. A date alone is the midnight with which its day begins, in UTC,
and a time without an offset is one in UTC. What is finer than microseconds does not count.

An offset is less than a day. So where the days of two strings, as they are written, are far enough apart, these ten characters
tell which of both comes first, and SQLite compares them itself. Only the few days around what a filter asks for need
``instant``, a function of Python's that takes ten times as long.
"""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Collection

    Test = tuple[str, list[Any]]
    """SQL about the column ``value`` that goes on behind other conditions, and the values of its question marks."""

_DATE = re.compile(
    r"\d{4}-\d\d-\d\d(?:[Tt ](?:[01]\d|2[0-3]):\d\d(?::\d\d(?:\.\d+)?)?(?:[Zz]|[+-]\d\d(?::?\d\d(?::?\d\d(?:\.\d+)?)?)?)?)?",
    re.ASCII,
)
_MICROSECOND = datetime.timedelta(microseconds=1)
_DAY = datetime.timedelta(days=1) // _MICROSECOND

# How Python, JavaScript, pandas and databases write dates. SQLite's julianday takes these and others.
_SHAPES = (
    "????-??-??",
    *(
        f"????-??-??[T ]??:??:??{fraction}{offset}"
        for fraction in ("", ".??[0-9]", ".?????[0-9]")
        for offset in ("", "[Zz]", "[-+]??:??")
    ),
)
_SET = re.compile(r"\[.*?\]")  # of characters, in the place of one
_BY_LENGTH = " ".join(f"WHEN {len(_SET.sub('?', shape))} THEN '{shape}'" for shape in _SHAPES)
# True of what SQLite can tell to be a date by itself, in 1 microsecond where instant() takes 8. It knows neither the lengths of
# months nor what follows a sign 0, and its days have an hour 24.
_SURELY_A_DATE = (
    "substr(value, 9, 2) < '29' AND substr(value, 12, 2) <> '24' AND julianday(value) IS NOT NULL "
    f"AND value GLOB CASE length(value) {_BY_LENGTH} END AND NOT instr(value, char(0))"
)
_FIRST, _AFTER_ALL = "0001", ":"  # the sign that follows the digits


def instant(text: object) -> int | None:
    """Return the microseconds from the beginning of the year 1 to the instant that a string names; None if it is no date."""
    if not isinstance(text, str) or not _DATE.fullmatch(text):
        return None
    try:
        moment = datetime.datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    offset = moment.utcoffset() or datetime.timedelta()
    return (moment.replace(tzinfo=None) - datetime.datetime.min - offset) // _MICROSECOND


def compare_dates(sign: Literal["<", "<=", ">", ">="], moment: int) -> Test:
    """The test that a string is a date, and before or after an instant."""
    low, high = _around(moment)
    if sign[0] == ">":
        sql = f" AND value >= ? AND (value >= ? AND {_SURELY_A_DATE} OR instant(value) {sign} ?) AND value < ?"
        return sql, [low, high, moment, _AFTER_ALL]
    # The sign in front of the last column keeps SQLite from taking this as the end from which it goes through an index.
    sql = f" AND value < ? AND (value < ? AND {_SURELY_A_DATE} OR instant(value) {sign} ?) AND +value >= ?"
    return sql, [high, low, moment, _FIRST]


def compare_strings(sign: Literal["<", "<=", ">", ">="], text: str, moment: int) -> Test:
    """The test that a string comes before or after another one, which is a date: as a date, or as a string where it is none."""
    low, high = _around(moment)
    exactly = f"coalesce(instant(value) {sign} ?, value {sign} ?)"
    if sign[0] == ">":
        return f" AND value >= ? AND (value >= ? OR {exactly})", [low, high, moment, text]
    return f" AND value < ? AND (value < ? OR {exactly})", [high, low, moment, text]


def one_of_dates(moments: Collection[int]) -> Test:
    """The test that a string is a date, and one of some instants."""
    days = sorted({_day(moment // _DAY + distance) for moment in moments for distance in (-1, 0, 1)})
    bounds = [min(map(_around, moments))[0], max(map(_around, moments))[1]]
    sql = (
        f" AND value >= ? AND value < ? AND substr(value, 1, 10) IN ({', '.join('?' * len(days))})"
        f" AND instant(value) IN ({', '.join('?' * len(moments))})"
    )
    return sql, [*bounds, *days, *moments]


def _around(moment: int) -> tuple[str, str]:
    """Two strings: a date that is less than the first comes before an instant, one that is not less than the other after it."""
    return _day(moment // _DAY - 1), _day(moment // _DAY + 2)


def _day(number: int) -> str:
    """A day as it is written, by its number; of one outside of the years 1 to 9999 what stands before or after all dates."""
    if number < 0:
        return ""
    if number >= datetime.date.max.toordinal():
        return _AFTER_ALL
    return datetime.date.fromordinal(number + 1).isoformat()
