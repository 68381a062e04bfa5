"""Conditions on metadata: the table of operators by hand, then SQL against a second evaluation in Python."""

from __future__ import annotations

import math
import re
import time
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_core import Index, Passage
from colbert_core.storage.filters import Expectation, compile_where

# These ask for fields and types at random, or for "no" on purpose; tests/index/test_advice.py is about what is said of that.
asks_for_anything = pytest.mark.filterwarnings("ignore::colbert_core.FilterWarning")

DOCUMENTS = {
    "a": {"year": 2020, "lang": "en", "tags": ["news", "sport"], "author": {"name": "Ann", "age": 30}, "draft": True},
    "b": {"year": 2021.5, "lang": "de", "tags": [], "author": {"name": "Ünal"}, "draft": False},
    "c": {"year": "2020", "lang": None, "tags": "news", "author": "Ann", "draft": 1},
    "d": {"lang": "", "tags": ["news", 1, None, True, ["x"], {"y": 1}], "author": {}},
    "e": {},
}


@pytest.fixture(scope="module")
def index():
    from builders.encoders import WordEncoder

    index = Index.create(None, WordEncoder())
    index.add([Passage(name, f"text {name}", metadata) for name, metadata in DOCUMENTS.items()])
    return index


def matching(index, where):
    return "".join(sorted(hit.passage.id for hit in index.search("text", k=99, where=where)))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, "abcde"),
        ({"year": 2020}, "a"),
        ({"year": 2020.0}, "a"),
        ({"year": "2020"}, "c"),
        ({"draft": True}, "a"),
        ({"draft": 1}, "c"),
        ({"draft": False}, "b"),
        ({"lang": None}, "c"),
        ({"year": {"$eq": 2020}}, "a"),
        ({"year": {"$ne": 2020}}, "bcde"),
        ({"year": {"$gt": 2020}}, "b"),
        ({"year": {"$gte": 2020}}, "ab"),
        ({"year": {"$lt": 2021.5}}, "a"),
        ({"year": {"$lte": 2021.5}}, "ab"),
        ({"year": {"$gte": "2000"}}, "c"),
        ({"draft": {"$gte": 0}}, "c"),
        ({"year": {"$gt": 2019, "$lt": 2021}}, "a"),
        ({"year": {"$in": [2020, "2020", 7]}}, "ac"),
        ({"year": {"$in": [2021.5, True]}}, "b"),
        ({"year": {"$in": []}}, ""),
        ({"year": {"$nin": [2020]}}, "bcde"),
        ({"year": {"$nin": []}}, "abcde"),
        ({"tags": {"$contains": "news"}}, "ad"),
        ({"tags": {"$contains": 1}}, "d"),
        ({"tags": {"$contains": True}}, "d"),
        ({"tags": {"$contains": None}}, "d"),
        ({"tags": "news"}, "c"),
        ({"tags": {"$any": ["sport", "art"]}}, "a"),
        ({"tags": {"$any": []}}, ""),
        ({"tags": {"$all": ["sport", "news"]}}, "a"),
        ({"tags": {"$all": []}}, "abd"),
        ({"lang": {"$text": "e"}}, "ab"),
        ({"lang": {"$text": "E"}}, ""),
        ({"lang": {"$itext": "E"}}, "ab"),
        ({"author.name": {"$itext": "ün"}}, "b"),
        ({"lang": {"$text": ""}}, "abd"),
        ({"year": {"$text": "0"}}, "c"),
        ({"year": {"$exists": True}}, "abc"),
        ({"lang": {"$exists": True}}, "abcd"),
        ({"author": {"$exists": True}}, "abcd"),
        ({"year": {"$exists": False}}, "de"),
        ({"tags": {"$empty": True}}, "be"),
        ({"tags": {"$empty": False}}, "acd"),
        ({"lang": {"$empty": True}}, "cde"),
        ({"author": {"$empty": True}}, "de"),
        ({"draft": {"$empty": False}}, "abc"),
        ({"author.name": "Ann"}, "a"),
        ({"author.age": {"$lt": 31}}, "a"),
        ({"author": "Ann"}, "c"),
        ({"author.name": {"$exists": False}}, "cde"),
        ({"year": {"$exists": True, "$gt": 2020}}, "b"),
        ({"year": {"$exists": True, "$ne": 2020}}, "bc"),
        ({"tags": {"$exists": True, "$all": []}}, "abd"),
        ({"tags": {"$exists": False, "$contains": "news"}}, ""),
        ({"$and": [{"lang": "en"}, {"year": 2020}]}, "a"),
        ({"$or": [{"lang": "en"}, {"lang": "de"}]}, "ab"),
        ({"$and": []}, "abcde"),
        ({"$or": []}, ""),
        ({"$not": {"lang": "en"}}, "bcde"),
        ({"$not": {}}, ""),
        ({"year": {"$not": {"$gt": 2020}}}, "acde"),
        ({"lang": "en", "$or": [{"year": 1}, {"draft": True}]}, "a"),
    ],
    ids=str,
)
def test_what_a_filter_matches(index, where, expected):
    assert matching(index, where) == expected
    assert matching(index, {"$not": where}) == "".join(sorted(set(DOCUMENTS) - set(expected)))


def test_a_filter_may_be_wide(index):
    assert matching(index, {"$or": [{"year": n} for n in range(5000)]}) == "a"
    assert matching(index, {"$and": [{"year": {"$ne": n}} for n in range(2019)]}) == "abcde"
    assert matching(index, {"tags": {"$all": ["news"] * 3000}}) == "ad"
    assert matching(index, {"tags": {"$all": ["news", *map(str, range(3000))]}}) == ""
    assert matching(index, {"year": {"$in": range(3000)}}) == "a"
    assert matching(index, {"year": np.int64(2020)}) == "a"
    assert matching(index, MappingProxyType({"year": np.float32(2021.5)})) == "b"


def test_a_filter_of_endless_comparisons_is_a_named_error(index):
    where = {"$or": [{"year": {"$gt": n}} for n in range(700)]}
    assert matching(index, where) == "".join(sorted(key for key in DOCUMENTS if key in matching(index, {"year": {"$gt": 0}})))
    for _ in range(9):
        where = {"$or": [{"$not": where}, *({"lang": {"$gt": str(n)}} for n in range(900))]}
    with pytest.raises(ValueError, match=r"at most 1000 comparisons, got 8800; compare a field with many values by \$in"):
        index.search("text", where=where)


def test_many_alternatives_are_as_quick_as_a_list_of_values():
    index = Index.create(None, dim=4)
    passages = [Passage(str(n), "text", {"year": n % 100, "tag": [n % 7]}) for n in range(2000)]
    index.add(passages, embeddings=[np.ones((1, 4), np.float32)] * 2000)
    start = time.perf_counter()
    assert len(index.ids({"$or": [{"year": n} for n in range(50, 14_050)]})) == 1000
    assert len(index.ids({"$and": [{"year": {"$ne": n}} for n in range(50, 14_050)]})) == 1000
    assert time.perf_counter() - start < 4  # 14,000 comparisons of their own took 12 s each


@asks_for_anything
def test_alternatives_of_one_field_mean_what_they_meant_apart(index):
    for where, expected in (
        ({"$or": [{"lang": "en"}, {"lang": {"$eq": "de"}}, {"year": 2020}, {"year": 2021.5}]}, "ab"),
        ({"$or": [{"lang": None}, {"lang": True}, {"lang": "en"}]}, None),
        ({"$and": [{"lang": {"$ne": "en"}}, {"lang": {"$ne": "de"}}]}, None),
        ({"$and": [{"lang": "en"}, {"lang": "de"}]}, ""),
    ):
        ((operator, parts),) = where.items()
        apart = [set(matching(index, part)) for part in parts]
        want = set.union(*apart) if operator == "$or" else set.intersection(*apart)
        assert matching(index, where) == "".join(sorted(want)) == ("".join(sorted(want)) if expected is None else expected)


def test_a_function_of_a_passage_is_a_filter(index):
    assert matching(index, lambda passage: passage.id in "ab") == "ab"
    assert matching(index, lambda passage: passage.metadata.pop("year", None) == 2020) == "a"
    assert matching(index, {"year": 2020}) == "a"  # the function had a copy
    with pytest.raises(ZeroDivisionError):
        matching(index, lambda _: 1 / 0)


def test_ids_restrict_beside_a_filter(index):
    assert [hit.passage.id for hit in index.search("text", ids=["b", "nobody"])] == ["b"]
    assert index.search("text", ids=["b"], where={"year": 2020}) == []
    assert index.search("text", ids=[]) == []
    assert len(index.search("text", ids=["a", "b", "a"], where={"year": {"$exists": True}})) == 2


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        ({"a": {"$regex": "x"}}, ValueError, r"'\$regex' is no operator on a field \('a'\)"),
        ({"a": {"b": 1}}, ValueError, "A nested field is written as a path"),
        ({"a": {}}, ValueError, "compared with an empty dict"),
        ({"$nor": []}, ValueError, r"'\$nor' is no operator between filters"),
        ({"$or": {"a": 1}}, TypeError, r"\$or takes a list of filters, got dict"),
        ({"$and": [1]}, TypeError, "A filter is a dict"),
        ({"$not": 1}, TypeError, "A filter is a dict"),
        ([1], TypeError, "A filter is a dict"),
        ("year", TypeError, "A filter is a dict"),
        ({1: 2}, TypeError, "A field is named by a string, got 1"),
        ({"a": [1]}, TypeError, r"\$eq compares with a string, a number"),
        ({"a": {"$gt": True}}, TypeError, r"\$gt compares with a number, a string or a date, got True"),
        ({"a": {"$lte": None}}, TypeError, r"\$lte compares with a number, a string or a date, got None"),
        ({"a": {"$in": "abc"}}, TypeError, r"\$in takes a list, got str"),
        ({"a": {"$in": [[1]]}}, TypeError, r"\$in compares with a string"),
        ({"a": {"$text": 1}}, TypeError, r"\$text takes a string, got int"),
        ({"a": {"$exists": 1}}, TypeError, r"\$exists takes true or false, got 1"),
        ({"a": {"$empty": None}}, TypeError, r"\$empty takes true or false, got None"),
        ({"a": math.nan}, ValueError, r"\$eq compares with a finite number, got nan"),
        ({"a": 2**63}, ValueError, "at most 64 bits"),
        ({"a": "\ud800"}, ValueError, "lone surrogate"),
        ({"\ud800": 1}, ValueError, "lone surrogate"),
        ({"a": {"$in": list(range(30_000))}}, ValueError, "at most 30000 names and values, got 30001"),
    ],
    ids=str,
)
def test_a_wrong_filter_is_refused_by_name(index, where, error, message):
    with pytest.raises(error, match=message):
        index.search("text", where=where)
    with pytest.raises(error, match=message):
        index.delete_where(where)
    assert len(index) == len(DOCUMENTS)


@asks_for_anything
@pytest.mark.parametrize(
    "deeper",
    [
        lambda inner: {"$not": inner},
        lambda inner: {"$or": [{"no": 1}, inner]},
        lambda inner: {"$and": [{"$not": {"no": 1}}, inner], "$not": {"no": 1}},
    ],
    ids=["not", "or", "and"],
)
def test_a_filter_nested_too_deeply_is_refused(index, deeper):
    where = {"year": {"$not": {"$not": {"$gt": 2019, "$lt": 2021}}}}
    for _ in range(16):
        where = deeper(where)
    assert matching(index, where) == "a"
    for _ in range(10):
        where = deeper(where)
    with pytest.raises(ValueError, match="nested more than 20 deep"):
        index.search("text", where=where)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, []),
        ({"a": 1, "b": {"$ne": "x"}}, [("a", "n"), ("b", "s")]),
        ({"a": {"$gt": 1, "$lt": 2.5, "$not": {"$eq": 2}}}, [("a", "n")]),
        ({"a": True}, [("a", "b")]),
        ({"a": np.bool_(True)}, [("a", "b")]),
        ({"a": None, "b": {"$in": [None, 1]}, "c": {"$contains": None}, "d": {"$in": []}, "e": {"$any": []}}, []),
        ({"a": {"$in": ["x", 1]}}, [("a", "ns")]),
        ({"a": {"$in": (n for n in [1, 2])}}, [("a", "n")]),
        ({"a": {"$nin": ["x"]}}, [("a", "s")]),
        ({"a": {"$contains": "x"}, "b": {"$any": [1, "x"]}, "c": {"$all": [True]}}, [("a", "S"), ("b", "NS"), ("c", "B")]),
        ({"a": {"$all": []}}, [("a", "a")]),
        ({"a": {"$text": "x"}, "b": {"$itext": "x"}}, [("a", "s"), ("b", "s")]),
        ({"$or": [{"a": 1}, {"a": "x"}]}, [("a", "ns")]),
        ({"$not": {"$and": [{"a": 1}, {"$not": {r"\$b.c\.d": "x"}}]}}, [(r"$b.c\.d", "s"), ("a", "n")]),
        ({"a": {"$exists": True}, "b": {"$empty": False}}, []),
        ({"a": {"$exists": True, "$eq": 1}}, []),
        ({"$or": [{"a": {"$exists": False}}, {"a": 1}, {"b": 1}]}, [("b", "n")]),
        ({"a": 1, "$not": {"a": {"$empty": True}}}, []),
    ],
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", str(value)),  # every worker names them alike
)
def test_what_a_filter_expects_of_fields(where, expected):
    assert sorted(compile_where(where).expected) == [Expectation(*each) for each in expected]


def test_that_a_field_exists_is_not_looked_up_where_another_comparison_says_so():
    assert "'z'" not in compile_where({"a": {"$exists": True, "$eq": 1}}).sql
    assert "'z'" in compile_where({"a": {"$exists": True, "$ne": 1}}).sql


HOSTILE = [
    "'; DROP TABLE passages; --",
    '"',
    "a.b",
    "\\",
    "\\.",
    ".",
    "..",
    "",
    "$where",
    "\x00",
    "a\x00b",
    "%",
    "_",
    "*",
    "é",
    "🙂",
    "[0]",
    "$.x",
]


@asks_for_anything
@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_hostile_names_and_values_are_only_names_and_values(words, name):
    index = Index.create(None, words)
    index.add([Passage("x", "text", {name: name, "nested": {name: {name: 1}}, "list": [name]}), Passage("y", "text", {"a": 1})])
    field = name.replace("\\", "\\\\").replace(".", "\\.")
    field = "\\" + field if field.startswith("$") else field
    assert matching(index, {field: name}) == "x"
    assert matching(index, {field: {"$text": name}}) == "x"
    assert matching(index, {field: {"$in": [name, "other"]}}) == "x"
    assert matching(index, {f"nested.{field}.{field}": 1}) == "x"
    assert matching(index, {"list": {"$contains": name}}) == "x"
    assert matching(index, {field: name + "x"}) == ""
    assert index.get(["x"])[0].metadata[name] == name
    assert index.delete_where({"a": name}) == 0
    assert len(index) == 2


@pytest.mark.parametrize(
    ("metadata", "error", "message"),
    [
        ({"when": object}, TypeError, r"Metadata of passage 'x': when is a type, <class 'object'>, .*; use str\(value\)"),
        ({"a": {"b": {1, 2j}}}, TypeError, r"a\.b is a complex"),
        ({"a": [np.zeros((2, 2))]}, TypeError, r"(?s)a is a ndarray, .* use value\.tolist\(\)"),
        ({"a": b"x"}, TypeError, r"a is a bytes, b'x', which an index cannot keep; use value\.decode\(\)"),
        ({1: 2}, TypeError, "a key of it is 1, a int; keys are strings"),
        ({"a": {2.5: 1}}, TypeError, "a key of a is 2.5"),
        ({"a": 2**63}, ValueError, "more than 64 bits"),
        ({"a": "x\udfff"}, ValueError, "lone surrogate"),
        ({"a" * 1001: {"b": 1}}, ValueError, "endless names"),
        ({"\udfff": 1}, ValueError, "lone surrogate"),
    ],
    ids=str,
)
def test_metadata_that_an_index_cannot_keep_are_refused_and_nothing_added(words, metadata, error, message):
    index = Index.create(None, words)
    with pytest.raises(error, match=message):
        index.add([Passage("fine", "text"), Passage("x", "text", metadata)])
    assert len(index) == 0


def test_metadata_that_hold_themselves_are_refused(words):
    metadata = {}
    metadata["me"] = metadata
    with pytest.raises(ValueError, match="nested too deeply, or holds itself"):
        Index.create(None, words).add([Passage("x", "text", metadata)])


def test_metadata_come_back_as_they_were(words):
    metadata = {
        "n": [1, 1.0, True, None, -(2**63), 2**63 - 1, 1e308, 5e-324, 0.1],
        "o": {"": {"x.y": "é🙂\x00"}},
        "t": (1, (2,)),
    }
    index = Index.create(None, words)
    index.add([Passage("x", "text", metadata)])
    back = index.get(["x"])[0].metadata
    assert back == {**metadata, "t": [1, [2]]}
    assert [type(value) for value in back["n"]] == [type(value) for value in metadata["n"]]


@asks_for_anything
@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"dc.title": "x"}, "abc"),
        ({r"dc\.title": "x"}, "ac"),
        ({"dc.title": {"$ne": "x"}}, "de"),
        ({"dc.title": {"$in": ["x", "y"]}}, "abcd"),
        ({"dc.title": {"$nin": ["x"]}}, "de"),
        ({"dc.title": "y"}, "cd"),
        ({"dc.title": {"$exists": True}}, "abcd"),
        ({"dc.title": {"$exists": False}}, "e"),
        ({"dc.title": {"$empty": True}}, "e"),
        ({"dc.title": {"$empty": False}}, "abcd"),
        ({"$not": {"dc.title": "y"}}, "abe"),
        ({"dc.title": {"$not": {"$text": "x"}}}, "de"),
        ({"dc.title": {"$gte": "x", "$lt": "y"}}, "abc"),
        ({"dc.date.year": 1}, "a"),
        ({"dc.date.year": {"$gt": 0, "$lt": 2}}, "a"),
        ({"dc.date.year": {"$gt": 0, "$lt": "2"}}, ""),
        ({r"dc.date\.year": 1}, "b"),
        ({"dc.tags": {"$all": ["p", "q"]}}, "d"),
        ({"dc.tags": {"$contains": "p"}}, "de"),
        ({"dc.tags": {"$any": ["q"]}}, "de"),
        ({"dc.tags": {"$all": ["p", 1]}}, ""),
        ({r"\$dc.x": 1}, "ab"),
    ],
    ids=str,
)
def test_a_key_with_a_dot_is_found_by_its_name(words, where, expected):
    index = Index.create(None, words)
    metadatas = {
        "a": {"dc.title": "x", "dc.date.year": 1, "$dc.x": 1},
        "b": {"dc": {"title": "x", "date.year": 1}, "$dc": {"x": 1}},
        "c": {"dc.title": "x", "dc": {"title": "y"}},
        "d": {"dc": {"title": "y", "tags": ["p", "q"]}},
        "e": {"dc.tags": ["p"], "dc": {"tags": ["q", 1]}},
    }
    index.add([Passage(name, "text", metadata) for name, metadata in metadatas.items()])
    assert matching(index, where) == expected


# A second evaluation, in Python, over random metadata and filters


def same(left, right):
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return (
        type(left) is type(right) and left == right
        if isinstance(left, str) or left is None
        else (isinstance(right, (int, float)) and left == right)
    )


MISSING = object()


def look_up(metadata, field):
    """The values that a field may have: within objects, and under a key with the same dots if no backslash says otherwise."""
    keys, key, escaped = [], "", False
    for character in field:
        if escaped:
            key, escaped = key + character, False
        elif character == "\\":
            escaped = True
        elif character == ".":
            keys.append(key)
            key = ""
        else:
            key += character
    keys.append(key)
    value = metadata
    for name in keys:
        value = value[name] if isinstance(value, dict) and name in value else MISSING
    has_one_meaning = len(keys) == 1 or any("." in name or "\\" in name for name in keys)
    return [value] if has_one_meaning else [value, metadata.get(".".join(keys), MISSING)]


def scalar(value):
    return value is not MISSING and not isinstance(value, (dict, list))


def comparable(value, operand):
    numbers = [isinstance(side, (int, float)) and not isinstance(side, bool) for side in (value, operand)]
    return all(numbers) or (isinstance(value, str) and isinstance(operand, str))


TESTS = {
    "$eq": lambda value, operand: scalar(value) and same(value, operand),
    "$gt": lambda value, operand: comparable(value, operand) and value > operand,
    "$gte": lambda value, operand: comparable(value, operand) and value >= operand,
    "$lt": lambda value, operand: comparable(value, operand) and value < operand,
    "$lte": lambda value, operand: comparable(value, operand) and value <= operand,
    "$in": lambda value, operand: scalar(value) and any(same(value, one) for one in operand),
    "$contains": lambda value, operand: isinstance(value, list) and any(scalar(one) and same(one, operand) for one in value),
    "$any": lambda value, operand: any(TESTS["$contains"](value, one) for one in operand),
    "$all": lambda value, operand: isinstance(value, list) and all(TESTS["$contains"](value, one) for one in operand),
    "$text": lambda value, operand: isinstance(value, str) and operand in value,
    "$itext": lambda value, operand: isinstance(value, str) and operand.casefold() in value.casefold(),
    "$exists": lambda value, _: value is not MISSING,
    "$empty": lambda value, _: not (value is MISSING or value is None or value in ("", [], {})),
}
OPPOSITES = {"$ne": "$eq", "$nin": "$in"}
BOUNDS = {"$gt", "$gte", "$lt", "$lte"}


def meets(values, test):
    bounds = {operator: operand for operator, operand in test.items() if operator in BOUNDS}
    results = [any(all(TESTS[operator](value, operand) for operator, operand in bounds.items()) for value in values)]
    for operator, operand in test.items():
        if operator in OPPOSITES:
            results.append(not any(TESTS[OPPOSITES[operator]](value, operand) for value in values))
        elif operator == "$empty":
            results.append(any(TESTS["$empty"](value, operand) for value in values) != operand)
        elif operator == "$exists":
            results.append(any(TESTS["$exists"](value, operand) for value in values) == operand)
        elif operator not in BOUNDS:
            results.append(any(TESTS[operator](value, operand) for value in values))
    return all(results)


def matches(metadata, where):
    results = []
    for key, test in where.items():
        if key == "$and":
            results.append(all(matches(metadata, inner) for inner in test))
        elif key == "$or":
            results.append(any(matches(metadata, inner) for inner in test))
        elif key == "$not":
            results.append(not matches(metadata, test))
        else:
            results.append(meets(look_up(metadata, key), test if isinstance(test, dict) else {"$eq": test}))
    return all(results)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 2, 1.0, 0.5, 0.1, 2**53, 2**53 + 1, float(2**53), -(2**63), 2**63 - 1, 1e300]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "a", "A", "ab", "ß", "SS", "é", "'", "\x00", "1", "true"]),
)
names = st.sampled_from(["a", "b", "a.b", "$a", "a\\", ""])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6
)
escaped = names.map(lambda name: name.replace("\\", "\\\\").replace(".", "\\.").replace("$", "\\$"))
paths = st.lists(escaped, min_size=1, max_size=3).map(".".join)
ordered = st.one_of(
    st.integers(-3, 3), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=2).filter(str.isprintable)
)
tests = st.one_of(
    scalars,
    st.fixed_dictionaries({}, optional=dict.fromkeys(("$eq", "$ne", "$contains"), scalars)).filter(bool),
    st.fixed_dictionaries({}, optional=dict.fromkeys(("$gt", "$gte", "$lt", "$lte"), ordered)).filter(bool),
    st.fixed_dictionaries(
        {}, optional={name: st.lists(scalars, max_size=3) for name in ("$in", "$nin", "$any", "$all")}
    ).filter(bool),
    st.fixed_dictionaries(
        {}, optional={name: st.sampled_from(["", "a", "s", "ss", "É", "\x00"]) for name in ("$text", "$itext")}
    ).filter(bool),
    st.fixed_dictionaries({}, optional={name: st.booleans() for name in ("$exists", "$empty")}).filter(bool),
)
filters = st.recursive(
    st.dictionaries(paths, tests, max_size=2),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"$not": inner}),
        st.fixed_dictionaries({"$and": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"$or": st.lists(inner, max_size=3)}),
    ),
    max_leaves=5,
)


@asks_for_anything
@settings(max_examples=150)
@given(
    metadatas=st.lists(st.dictionaries(names, values, max_size=4), min_size=1, max_size=5),
    some=st.lists(filters, min_size=1, max_size=6),
)
def test_sql_says_what_python_says(metadatas, some):
    from builders.encoders import WordEncoder

    index = Index.create(None, WordEncoder())
    index.add([Passage(str(number), "text", metadata) for number, metadata in enumerate(metadatas)])
    for where in some:
        expected = "".join(str(number) for number, metadata in enumerate(metadatas) if matches(metadata, where))
        assert matching(index, where) == expected, where
