"""What metadata may hold, and what comes back."""

from __future__ import annotations

import copy
import datetime
import enum
import json
import math
import pathlib
import uuid
from collections import OrderedDict, namedtuple
from decimal import Decimal

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbert_core import Index, Passage, plain_metadata
from colbert_core.metadata import dump_metadata
from langchain_colbert import ColBERTVectorStore
from llama_index_colbert import ColBERTIndex


class Color(enum.Enum):
    RED = "red"
    DAY = datetime.date(2024, 1, 1)


class Level(enum.IntEnum):
    HIGH = 3


class Name(enum.StrEnum):
    CAT = "cat"


class Own(str):
    def __str__(self):
        return "something else"


INDIA = datetime.timezone(datetime.timedelta(hours=5, minutes=30))

PLAIN = [
    ("x", "x"),
    (True, True),
    (None, None),
    (-(2**63), -(2**63)),
    (0.1, 0.1),
    (math.nan, None),
    (-math.inf, None),
    (datetime.date(2024, 2, 29), "2024-02-29"),
    (datetime.date.min, "0001-01-01"),
    (datetime.datetime(2024, 1, 1, 7, 30), "2024-01-01T07:30:00"),
    (datetime.datetime(2024, 1, 1, 7, 30, 0, 1, INDIA), "2024-01-01T07:30:00.000001+05:30"),
    (datetime.time(7, 30), "07:30:00"),
    (datetime.timedelta(minutes=2, microseconds=500_000), 120.5),
    (Decimal("1.10"), 1.1),
    (Decimal(5), 5),
    (Decimal("1E+2"), 100),
    (Decimal(2**63 - 1), 2**63 - 1),
    (Decimal(2**63 + 1), str(2**63 + 1)),
    (Decimal("0.1000000000000000055511151231257827"), "0.1000000000000000055511151231257827"),
    (Decimal("1E+400"), "1E+400"),
    (Decimal("NaN"), None),
    (Decimal("sNaN"), None),
    (Decimal("-Infinity"), None),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (pathlib.PurePosixPath("/a/b"), "/a/b"),
    (pathlib.PureWindowsPath("c:/a"), "c:\\a"),
    (Color.RED, "red"),
    (Color.DAY, "2024-01-01"),
    (Level.HIGH, 3),
    (Name.CAT, "cat"),
    (Own("own"), "own"),
    (np.int64(3), 3),
    (np.uint8(3), 3),
    (np.float32(1.5), 1.5),
    (np.float64("nan"), None),
    (np.longdouble(1.5), 1.5),
    (np.bool_(True), True),
    (np.str_("x"), "x"),
    (np.datetime64("2024-01-01"), "2024-01-01"),
    (np.datetime64("2024-01"), "2024-01-01"),
    (np.datetime64("2024-01-01T07:30"), "2024-01-01T07:30:00"),
    (np.datetime64("2024-01-01T07:30:00.000000000"), "2024-01-01T07:30:00"),
    (np.datetime64("2024-01-01T07:30:00.123456789"), "2024-01-01T07:30:00.123456789"),
    (np.datetime64("12024-03-15"), "12024-03-15"),
    (np.datetime64("NaT"), None),
    (np.timedelta64(1500, "ms"), 1.5),
    (np.timedelta64("NaT"), None),
    (np.arange(3), [0, 1, 2]),
    (np.array(["2024-01-01"], "datetime64[D]"), ["2024-01-01"]),
    (np.array(7), 7),
    (np.array([1, None, datetime.date.max], object), [1, None, "9999-12-31"]),
    (pandas.Timestamp("2024-01-01 07:30"), "2024-01-01T07:30:00"),
    (pandas.Timestamp("2024-01-01 07:30", tz="Asia/Kolkata"), "2024-01-01T07:30:00+05:30"),
    (pandas.Timedelta("2min"), 120.0),
    (pandas.NaT, None),
    (pandas.NA, None),
    ((1, (2, {3})), [1, [2, [3]]]),
    (namedtuple("Pair", "a b")(1, 2), [1, 2]),
    (OrderedDict(a=(1,)), {"a": [1]}),
    ({"b", "a", 10, 9, None, (1,), Decimal("9.5")}, [9, 9.5, 10, "a", "b", [1], None]),
    (frozenset({datetime.date(2024, 1, 2), datetime.date(2024, 1, 1)}), ["2024-01-01", "2024-01-02"]),
    (set(), []),
]  # fmt: skip


def same(one, other):
    """Equal in value and in type, also within: 1, 1.0 and true differ, and a member of an Enum is no str."""
    return (type(one), repr(one)) == (type(other), repr(other))


@pytest.mark.parametrize(("value", "plain"), PLAIN, ids=[f"{n} {type(one).__name__}" for n, (one, _) in enumerate(PLAIN)])
def test_each_type_has_one_plain_form(value, plain):
    assert same(plain_metadata({"v": value, "in": {"list": [value]}}), {"v": plain, "in": {"list": [plain]}})


def test_what_is_given_is_not_changed_and_nothing_of_it_is_kept():
    given_ = {"set": {2, 1}, "in": {"day": datetime.date(2024, 1, 1)}, "list": [1]}
    before = copy.deepcopy(given_)
    plain = plain_metadata(given_)
    assert given_ == before
    plain["list"].append(2)
    plain["in"]["day"] = None
    assert given_ == before


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"x", r"M: a is a bytes, b'x', which an index cannot keep; use value\.decode\(\), or base64, or another string"),
        (np.bytes_(b"x"), "a is a bytes_"),
        (1j, "a is a complex"),
        (np.zeros((1, 1)), r"a is a ndarray, .*use value\.tolist\(\)"),
        (np.array([1j]), "a is a complex128"),
        (range(3), r"a is a range, range\(0, 3\), .*use str\(value\)"),
        (pandas.Series([1]), "a is a Series"),
        ([{"b": object}], r"a\.b is a type"),
        ({1: 2}, "a key of a is 1, a int; keys are strings"),
    ],
    ids=repr,
)
def test_anything_else_is_refused_by_name(value, message):
    with pytest.raises(TypeError, match=message):
        plain_metadata({"a": value}, "M")


@pytest.mark.parametrize(
    "value", [2**63, np.uint64(2**63), {2**64}, Decimal, "\udfff", pathlib.PurePosixPath("\udfff"), Own("\udfff")], ids=ascii
)
def test_the_plain_form_is_checked_as_what_needs_none(value):
    with pytest.raises(
        (ValueError, TypeError), match="M[:,] .*a is a (number of more than 64 bits|type)|M, a has a lone surrogate"
    ):
        plain_metadata({"a": value}, "M")


def test_a_default_says_what_to_keep_of_other_types():
    def default(value):
        return {str(key): inner for key, inner in value.items()} if isinstance(value, dict) else value.hex()

    assert plain_metadata({"a": {1: b"\x01", 2: {b"\x02"}}}, default=default) == {"a": {"1": "01", "2": ["02"]}}
    with pytest.raises(ValueError, match="nested too deeply"):
        plain_metadata({"a": b"x"}, default=lambda value: value)


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(st.characters(codec="utf-8")),
        st.dates(), st.datetimes(timezones=st.none() | st.just(INDIA)), st.times(), st.timedeltas(), st.decimals(), st.uuids(),
        st.sampled_from([Color.RED, Level.HIGH, Name.CAT]),
    ),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text("ab.", max_size=3), inner),
    max_leaves=10,
)  # fmt: skip


@given(st.dictionaries(st.text("xyz", max_size=3), VALUES))
def test_a_plain_form_is_its_own_plain_form_and_what_json_gives_back(metadata):
    plain = plain_metadata(metadata)
    assert same(plain_metadata(plain), plain)
    assert same(json.loads(dump_metadata(metadata, "M")), plain)


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_decimal_number_loses_no_digit(number):
    assert Decimal(str(plain_metadata({"a": number})["a"])) == number


@given(st.sets(st.integers() | st.text(max_size=2) | st.booleans() | st.none() | st.dates()).map(list), st.randoms())
def test_the_order_of_a_set_is_that_of_its_values_alone(elements, random):
    elements = [element for element in elements if not isinstance(element, int) or abs(element) < 2**63]
    shuffled = random.sample(elements, len(elements))
    assert plain_metadata({"a": set(elements)}) == plain_metadata({"a": set(shuffled)})


def test_an_index_gives_back_plain_forms_in_each_way_of_asking(words):
    metadata = {"day": datetime.date(2024, 1, 1), "tags": {"b", "a"}, "price": Decimal("1.10"), "gone": math.nan}
    plain = {"day": "2024-01-01", "tags": ["a", "b"], "price": 1.1, "gone": None}
    index = Index.create(None, words)
    index.add([Passage("x", "the cat", metadata)])
    assert index.get(["x"]) == [Passage("x", "the cat", plain)]
    assert index.search("cat")[0].passage.metadata == plain
    assert index.ids({"price": {"$lt": 1.2}, "tags": {"$contains": "a"}, "gone": None}) == ["x"]
    assert metadata["tags"] == {"b", "a"}


def test_filters_take_the_same_types_as_metadata(words):
    index = Index.create(None, words)
    values = {
        "id": uuid.UUID(int=1),
        "path": pathlib.Path("a/b"),
        "price": Decimal("1.10"),
        "at": datetime.time(7),
        "c": Color.RED,
    }
    index.add([Passage("x", "the cat", values | {"took": datetime.timedelta(minutes=2)})])
    for field, value in values.items():
        assert index.ids({field: value}) == index.ids({field: {"$in": [value]}}) == ["x"]
    assert index.ids({"took": {"$gte": datetime.timedelta(minutes=2)}, "price": {"$lte": Decimal("1.1")}}) == ["x"]
    with pytest.raises(ValueError, match="finite"):
        index.ids({"price": Decimal("NaN")})


@pytest.mark.parametrize(("value", "plain"), PLAIN, ids=[f"{n} {type(one).__name__}" for n, (one, _) in enumerate(PLAIN)])
def test_both_frameworks_keep_the_same_plain_form(words, value, plain):
    from llama_index.core.schema import TextNode

    ours = ColBERTVectorStore.from_texts(["the cat"], metadatas=[{"v": value}], model=words)
    assert same(ours.similarity_search("cat")[0].metadata, {"v": plain})
    index = ColBERTIndex([TextNode(text="the cat", id_="x", metadata={"v": value})], model_name=words)
    (passage,) = index.index.get(["x"])
    assert same(passage.metadata["v"], plain)
    (found,) = index.as_retriever().retrieve("cat")
    assert found.node.text == "the cat"
    assert same(plain_metadata(found.node.metadata), {"v": plain})
