r"""Filters on metadata, and the SQL that they become. The only tables used are ``passages`` and ``fields``.

``{"year": 2024}``, ``{"year": {"$gte": 2020, "$lt": 2025}}``, ``{"$or": [{"lang": "en"}, {"tags": {"$contains": "news"}}]}``

========================  ==================================================================================
``$eq`` ``$ne``           the same value of the same type (1 equals 1.0, but not true), and its opposite
``$gt $gte $lt $lte``     numbers with numbers, strings with strings (by code point), dates with dates
``$in`` ``$nin``          one of a list of values, and its opposite
``$contains``             an array with this element
``$any`` ``$all``         an array with at least one of these elements, with every one of them
``$text`` ``$itext``      a string with this part; ``$itext`` ignores the case of letters
``$exists``               true: there is such a field, even if it is null; false: there is none
``$empty``                true: no field, null, "", [] or {}; false: anything else
``$not``                  of a condition or a whole filter: what it does not match
``$and`` ``$or``          of a list of filters; several fields or operators side by side mean ``$and``
========================  ==================================================================================

A dotted path leads into nested objects, and names a key that has just these dots: ``"dc.title"`` is ``{"dc": {"title": ...}}``
and ``{"dc.title": ...}``. Where a passage has both, one that matches is enough. Write a backslash before a dot or a backslash
that belongs to a key, and the path has one meaning: ``r"version\.major"`` is a key. Write one before a leading dollar sign as
well. A missing field matches ``$ne``, ``$nin``, ``$not`` and ``$empty``, and nothing else.

Strings of ISO 8601 are dates, as ``storage/dates.py`` says. A ``date`` or ``datetime`` as an operand compares instants; what is
no date does not match it. A string that is a date does so as well with ``$gt``, ``$gte``, ``$lt`` and ``$lte`` where the field
is a date, and compares strings where it is none. Other operands are taken in the plain form of ``colbert_core/metadata.py``.

A condition knows what it expects of the fields that it names, so that somebody can say where no passage has that.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from colbert_core.metadata import plain_scalar
from colbert_core.storage.dates import compare_dates, compare_strings, instant, one_of_dates
from colbert_core.types import check_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# SQLite's parser keeps at most 100 open symbols, and a level of a filter needs up to three.
_DEEPEST = 20
_LONGEST_CHAIN = 16
# SQLite binds at least 32,766.
_MOST_VALUES = 30_000
# SQLite collects the rows of each comparison. 1,000 of ``$gt`` take 3 s among 2,000 passages.
_MOST_COMPARISONS = 1_000

# Kinds of a row in ``fields``. The elements of an array have the same letters in capitals.
_NULL, _TRUTH, _NUMBER, _STRING, _ARRAY, _OBJECT = "z", "b", "n", "s", "a", "o"
# An operand that is a date. The fields that it is compared with are strings.
_DATE = "d"


class Expectation(NamedTuple):
    """What a filter expects of a field: that some passage has it, with a value of one of these kinds.

    Attributes:
        path: of the field, as the filter means it; ``readings`` are those that ``fields`` may have.
        kinds: of ``fields``; one of them is enough. Empty where the filter asks whether there is such a field.
    """

    path: str
    kinds: str


class Condition(NamedTuple):
    """A filter as SQL.

    Attributes:
        sql: true or false for ``passages.row``.
        values: of its question marks.
        expected: of the fields.
    """

    sql: str
    values: list[Any]
    expected: tuple[Expectation, ...] = ()


def metadata_fields(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield the rows of ``fields`` for one passage: path, kind and value of everything in its metadata.

    The value of an array is the number of its elements; each element that is no array or object has a row of its own. The
    value of an object is the number of its keys; each key has rows of its own.
    """
    for key, value in metadata.items():
        yield from _field(_escape(key), value)


def _field(path: str, value: Any) -> Iterator[tuple[str, str, Any]]:
    if isinstance(value, dict):
        yield path, _OBJECT, len(value)
        for key, inner in value.items():
            yield from _field(f"{path}.{_escape(key)}", inner)
    elif isinstance(value, (list, tuple)):
        yield path, _ARRAY, len(value)
        for element in value:
            if not isinstance(element, (dict, list, tuple)):
                kind, stored = _with_kind(element)
                yield path, kind.upper(), stored
    else:
        yield path, *_with_kind(value)


def _with_kind(value: Any) -> tuple[str, Any]:
    if value is None:
        return _NULL, 0
    if isinstance(value, bool):
        return _TRUTH, int(value)
    return (_STRING if isinstance(value, str) else _NUMBER), value


def _escape(key: str) -> str:
    return key.replace("\\", "\\\\").replace(".", "\\.")


def readings(path: str) -> list[str]:
    """The paths of ``fields`` that a path of a filter may mean: with dots and no backslash, also one key with these dots."""
    return [path, _escape(path)] if "." in path and "\\" not in path else [path]


def compile_where(where: Mapping[str, Any]) -> Condition:
    """Turn a filter into SQL. Every name and value is bound, none is part of the SQL.

    Each expectation stands once. Comparisons with None have none: who asks for null asks for what may be absent. Nor has a
    field of which the filter asks, anywhere, whether it exists or is empty.

    Raises:
        TypeError: a filter is no dict, or an operand is of a type that its operator does not take.
        ValueError: an operator is unknown, the filter is nested too deeply, or it has more than 30,000 values or 1,000
            comparisons. Comparisons of one field with values that are tied by ``$or`` count as one, as in ``$in``.
    """
    condition = _filter(where, 0)
    if (n_comparisons := condition.sql.count("SELECT")) > _MOST_COMPARISONS:
        raise ValueError(
            f"A filter holds at most {_MOST_COMPARISONS} comparisons, got {n_comparisons}; "
            "compare a field with many values by $in, $nin or $any, and name passages by ids=."
        )
    if len(condition.values) > _MOST_VALUES:
        raise ValueError(
            f"A filter holds at most {_MOST_VALUES} names and values, got {len(condition.values)}; for ids there is ids=."
        )
    optional = {each.path for each in condition.expected if not each.kinds}
    expected = dict.fromkeys(each for each in condition.expected if each.path not in optional)
    return Condition(condition.sql, condition.values, tuple(expected))


def _filter(where: Any, depth: int) -> Condition:
    if not isinstance(where, Mapping):
        raise TypeError(f"A filter is a dict such as {{'year': 2024}}, got {type(where).__name__}: {where!r:.80}")
    if depth > _DEEPEST:
        raise ValueError(f"The filter is nested more than {_DEEPEST} deep.")
    conditions = []
    for key, value in where.items():
        if not isinstance(key, str):
            raise TypeError(f"A field is named by a string, got {key!r:.80}.")
        if key in ("$and", "$or"):
            if not isinstance(value, (list, tuple)):
                raise TypeError(f"{key} takes a list of filters, got {type(value).__name__}: {value!r:.80}")
            conditions.append(_join(key, [_filter(inner, depth + 1) for inner in _gathered(key, value)]))
        elif key == "$not":
            conditions.append(_negate(_filter(value, depth + 1)))
        elif key.startswith("$"):
            raise ValueError(
                f"{key!r} is no operator between filters, which are $and, $or and $not; "
                f"if it is a field's name, write {chr(92) + key!r}."
            )
        else:
            conditions.append(_on_field(_path(key), value, depth + 1))
    return _join("$and", conditions)


def _gathered(operator: str, filters: Sequence[Any]) -> list[Any]:
    """Make one ``$in`` of what ``$or`` asks of the same field, ``a`` or ``b``, and one ``$nin`` of what ``$and`` keeps away.

    SQLite takes 12 s for 14,000 comparisons of their own, and 0.1 s for one with as many values.
    """
    one, many = ("$eq", "$in") if operator == "$or" else ("$ne", "$nin")
    values: dict[str, list[Any]] = {}
    others = []
    for inner in filters:
        ((field, test),) = inner.items() if isinstance(inner, Mapping) and len(inner) == 1 else ((None, None),)
        if operator == "$or" and not isinstance(test, dict):
            test = {one: test}
        if isinstance(field, str) and not field.startswith("$") and isinstance(test, dict) and [*test] == [one]:
            values.setdefault(field, []).append(test[one])
        else:
            others.append(inner)
    return others + [{field: {one: of[0]} if len(of) == 1 else {many: of}} for field, of in values.items()]


def _join(operator: str, conditions: list[Condition]) -> Condition:
    if not conditions:
        return Condition("1" if operator == "$and" else "0", [])
    if len(conditions) == 1:
        return conditions[0]
    if len(conditions) > _LONGEST_CHAIN:  # SQLite takes chains of 1,000, and trees of any size
        middle = len(conditions) // 2
        conditions = [_join(operator, conditions[:middle]), _join(operator, conditions[middle:])]
    word = " AND " if operator == "$and" else " OR "
    sql = f"({word.join(condition.sql for condition in conditions)})"
    values = [value for condition in conditions for value in condition.values]
    expected = tuple(each for condition in conditions for each in condition.expected)
    return Condition(sql, values, _alternatives(expected) if operator == "$or" else expected)


def _alternatives(expected: tuple[Expectation, ...]) -> tuple[Expectation, ...]:
    """What ``$or`` expects: of each field a value of any kind that it is asked for."""
    kinds: dict[str, str] = {}
    for path, wanted in expected:
        kinds[path] = "".join(sorted({*kinds.get(path, ""), *wanted})) if wanted and kinds.get(path, wanted) else ""
    return tuple(Expectation(path, wanted) for path, wanted in kinds.items())


def _negate(condition: Condition) -> Condition:
    return Condition(f"(NOT {condition.sql})", condition.values, condition.expected)


def _path(field: str) -> str:
    """Write a path as ``metadata_fields`` does. A character behind a backslash is part of a key."""
    keys, key, characters = [], "", iter(check_text(field, "A field name"))
    for character in characters:
        if character == ".":
            keys.append(key)
            key = ""
        else:
            key += next(characters, "\\") if character == "\\" else character
    return ".".join(map(_escape, [*keys, key]))


def _on_field(path: str, test: Any, depth: int) -> Condition:
    if depth > _DEEPEST:
        raise ValueError(f"The filter is nested more than {_DEEPEST} deep.")
    if not isinstance(test, dict):
        return _equal(path, test)
    if not test:
        raise ValueError(f"Field {path!r} is compared with an empty dict; name an operator such as {{'$exists': True}}.")
    bounds = {operator: operand for operator, operand in test.items() if operator in _SIGNS}
    conditions = [_between(path, bounds)] if bounds else []
    for operator, operand in test.items():
        if operator in bounds:
            continue
        if operator == "$not":
            conditions.append(_negate(_on_field(path, operand, depth + 1)))
        elif operator == "$exists" and operand is True and not _IMPLY_IT.isdisjoint(test):
            conditions.append(Condition("1", [], (Expectation(path, ""),)))  # SQLite would look at every row of the field
        elif operator in _OPERATORS:
            conditions.append(_OPERATORS[operator](path, operand))
        else:
            raise ValueError(
                f"{operator!r} is no operator on a field ({path!r}); those are {', '.join([*_OPERATORS, *_SIGNS])} and $not. "
                "A nested field is written as a path: 'author.name'."
            )
    return _join("$and", conditions)


def _has(path: str, kinds: str, test: str = "", *values: Any) -> Condition:
    """The condition that the field has a row of one of these kinds that passes the test."""
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    paths = readings(path)
    named = f"path IN ({', '.join('?' * len(paths))})"
    sql = f"passages.row IN (SELECT row FROM fields WHERE {named} AND kind IN ({listed}){test})"  # noqa: S608
    return Condition(sql, [*paths, *values])


def _expecting(condition: Condition, path: str, kinds: Iterable[str]) -> Condition:
    """The condition, with all that it expects of its field: a value of one of these kinds; nothing if null is among them."""
    listed = "".join(sorted(set(map(_of_fields, kinds))))
    expected = () if not listed or _NULL in listed.lower() else (Expectation(path, listed),)
    return Condition(condition.sql, condition.values, expected)


def _equal(path: str, value: Any) -> Condition:
    return _any_of(path, dict([_group(value, "$eq")]))


def _between(path: str, operands: dict[str, Any]) -> Condition:
    """The condition that a field is less or greater than operands, by the operators of ``_SIGNS``."""
    tests: dict[str, tuple[str, list[Any]]] = {}
    # Together they are one piece of the index, of which SQLite takes the first end that it reads on each side: the upper end of
    # "less than a date" first, because "greater than a date" has one as well, behind all dates.
    for name in sorted(operands, reverse=True):
        kind, (test, values) = _compared(name, operands[name])
        sql, before = tests.get(kind, ("", []))
        tests[kind] = sql + test, before + values
    conditions = [_expecting(_has(path, kind, sql, *bound), path, kind) for kind, (sql, bound) in tests.items()]
    return _join("$and", [*conditions, *([Condition("0", [])] if len(tests) > 1 else [])])  # no value is of two kinds


def _compared(name: str, value: Any) -> tuple[str, tuple[str, list[Any]]]:
    """The kind that a field has to have, and the test of its value."""
    sign = _SIGNS[name]
    kind, (stored,) = _group(value, name)
    if kind == _DATE:
        return _STRING, compare_dates(sign, stored)
    if kind not in (_NUMBER, _STRING):
        raise TypeError(f"{name} compares with a number, a string or a date, got {value!r}.")
    moment = instant(stored)
    return kind, (f" AND value {sign} ?", [stored]) if moment is None else compare_strings(sign, stored, moment)


def _one_of(name: str, *, in_array: bool) -> Any:
    return lambda path, values: _any_of(path, _by_kind(values, name, in_array=in_array))


def _contains(path: str, value: Any) -> Condition:
    return _any_of(path, _by_kind([value], "$contains", in_array=True))


def _any_of(path: str, by_kind: dict[str, list[Any]]) -> Condition:
    """The condition that the field has one of some values, in lists by their kind."""
    conditions = []
    for kind, values in by_kind.items():
        if kind.lower() == _DATE:
            test, values = one_of_dates(values)
        else:
            test = f" AND value IN ({', '.join('?' * len(values))})"
        conditions.append(_has(path, _of_fields(kind), test, *values))
    return _expecting(_join("$or", conditions), path, by_kind)


def _all(path: str, values: Any) -> Condition:
    by_kind = _by_kind(values, "$all", in_array=True)
    if not by_kind:
        return _expecting(_has(path, _ARRAY), path, _ARRAY)
    # Several strings may be one instant, so each date is looked for by itself. Of other elements there is one row for each.
    moments = by_kind.get(_DATE.upper(), [])
    conditions = [_any_of(path, {_DATE.upper(): [moment]}) for moment in moments]
    others = {kind: listed for kind, listed in by_kind.items() if kind != _DATE.upper()}
    if others:
        tests = [f"kind = '{kind}' AND value IN ({', '.join('?' * len(listed))})" for kind, listed in others.items()]
        wanted = [value for listed in others.values() for value in listed]
        test = f" AND ({' OR '.join(tests)}) GROUP BY path, row HAVING count(*) = ?"
        conditions.append(_has(path, "".join(others), test, *wanted, len(wanted)))
    return _expecting(_join("$and", conditions), path, by_kind)


def _text(path: str, part: Any) -> Condition:
    return _expecting(_has(path, _STRING, " AND instr(value, ?)", _string(part, "$text")), path, _STRING)


def _itext(path: str, part: Any) -> Condition:
    part = _string(part, "$itext").casefold()
    return _expecting(_has(path, _STRING, " AND instr(casefold(value), ?)", part), path, _STRING)


def _exists(path: str, wanted: Any) -> Condition:
    exists = _has(path, "zbnsao")._replace(expected=(Expectation(path, ""),))
    return exists if _truth(wanted, "$exists") else _negate(exists)


def _empty(path: str, wanted: Any) -> Condition:
    filled = _join("$or", [_has(path, "bn"), _has(path, "s", " AND value <> ''"), _has(path, "ao", " AND value <> 0")])
    filled = filled._replace(expected=(Expectation(path, ""),))
    return _negate(filled) if _truth(wanted, "$empty") else filled


def _invert(test: Any) -> Any:
    return lambda path, operand: _negate(test(path, operand))


_SIGNS: dict[str, Any] = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_OPERATORS: dict[str, Any] = {
    "$eq": _equal,
    "$ne": _invert(_equal),
    "$in": _one_of("$in", in_array=False),
    "$nin": _invert(_one_of("$nin", in_array=False)),
    "$contains": _contains,
    "$any": _one_of("$any", in_array=True),
    "$all": _all,
    "$text": _text,
    "$itext": _itext,
    "$exists": _exists,
    "$empty": _empty,
}
# What no passage matches that lacks the field.
_IMPLY_IT = (_OPERATORS | _SIGNS).keys() - {"$ne", "$nin", "$exists", "$empty"}


def _group(value: Any, name: str) -> tuple[str, list[Any]]:
    """The kind of an operand, and the operand as a list of one."""
    if isinstance(value, datetime.date | np.datetime64):
        moment = instant(plain_scalar(value))
        if moment is None:
            raise ValueError(f"{name} compares with a date of the years 1 to 9999, got {value}.")
        return _DATE, [moment]
    kind, stored = _with_kind(_scalar(value, name))
    return kind, [stored]


def _by_kind(values: Any, name: str, *, in_array: bool) -> dict[str, list[Any]]:
    """The operands in lists by their kind, each once."""
    by_kind: dict[str, dict[Any, None]] = {}
    for kind, (stored,) in (_group(value, name) for value in _list(values, name)):
        by_kind.setdefault(kind.upper() if in_array else kind, {})[stored] = None
    return {kind: list(distinct) for kind, distinct in by_kind.items()}


def _of_fields(kind: str) -> str:
    """The kind in ``fields`` of what is compared with an operand of this kind."""
    return {_DATE: _STRING, _DATE.upper(): _STRING.upper()}.get(kind, kind)


def _scalar(value: Any, name: str) -> Any:
    plain = plain_scalar(value)
    if isinstance(plain, str):
        return check_text(plain, f"The operand of {name}")
    if plain is None and value is not None:
        raise ValueError(f"{name} compares with a finite number, got {value}.")
    if isinstance(plain, int) and not -(2**63) <= plain < 2**63:
        raise ValueError(f"{name} compares with a number of at most 64 bits, got one of {plain.bit_length()}.")
    if plain is not None and not isinstance(plain, (bool, int, float)):
        raise TypeError(
            f"{name} compares with a string, a number, a date, true, false or None, got {type(value).__name__}: {value!r:.80}; "
            "for the elements of an array there are $contains, $any and $all."
        )
    return plain


def _list(values: Any, name: str) -> list[Any]:
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} takes a list, got {type(values).__name__}: {values!r:.80}")
    return list(values)


def _string(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} takes a string, got {type(value).__name__}: {value!r:.80}")
    return check_text(value, f"The operand of {name}")


def _truth(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} takes true or false, got {value!r:.80}.")
    return value
