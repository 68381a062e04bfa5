"""Filters on dates: by hand, at the ends of the calendar, and against a second reading of dates in Python."""

from __future__ import annotations

import datetime
import re
import sqlite3
from datetime import UTC, date, timedelta, timezone

import numpy as np
import pandas
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from colbert_core import FilterWarning, Index, Passage
from colbert_core.storage.connection import add_functions
from colbert_core.storage.dates import compare_dates, compare_strings, instant, one_of_dates
from colbert_core.storage.filters import compile_where

INDIA = timezone(timedelta(hours=5, minutes=30))


def at(*parts, tz=UTC):
    return datetime.datetime(*parts, tzinfo=tz)


WHEN = {
    "a": "2023-12-31",
    "b": "2024-01-01",
    "c": "2024-01-01T00:00:00Z",
    "d": "2024-01-01T05:30:00+05:30",
    "e": "2024-01-01 00:00:00.000001",
    "f": "2024-02-29t23:59z",
    "g": "2024-02-30",
    "h": "2024-13-45",
    "i": "2024-01-01 some title",
    "j": "January",
    "k": 2024,
    "l": None,
    "m": ["2024-01-01"],
}


@pytest.fixture(scope="module")
def index():
    from builders.encoders import WordEncoder

    index = Index.create(None, WordEncoder())
    index.add([Passage(name, "the cat", {"when": when}) for name, when in WHEN.items()] + [Passage("z", "the cat")])
    return index


def matching(index, where):
    return "".join(sorted(index.ids(where)))


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (date(2024, 1, 1), "bcd"),
        ({"$eq": at(2024, 1, 1)}, "bcd"),
        ({"$eq": datetime.datetime(2024, 1, 1)}, "bcd"),
        ({"$eq": at(2024, 1, 1, 5, 30, tz=INDIA)}, "bcd"),
        ({"$eq": at(2024, 1, 1, 0, 0, 0, 1)}, "e"),
        ({"$eq": np.datetime64("2024-01-01T00:00:00.000000999")}, "bcd"),
        ({"$eq": pandas.Timestamp("2024-01-01", tz="UTC")}, "bcd"),
        ({"$ne": date(2024, 1, 1)}, "aefghijklmz"),
        ({"$in": [date(2024, 1, 1), at(2024, 2, 29, 23, 59), "January", 2024]}, "bcdfjk"),
        ({"$nin": [date(2024, 1, 1), at(2024, 2, 29, 23, 59), "January", 2024]}, "aeghilmz"),
        ({"$gt": date(2024, 1, 1)}, "ef"),
        ({"$gte": date(2024, 1, 1)}, "bcdef"),
        ({"$lt": date(2024, 1, 1)}, "a"),
        ({"$lte": date(2024, 1, 1)}, "abcd"),
        ({"$gte": date(2024, 1, 1), "$lt": date(2024, 2, 1)}, "bcde"),
        ({"$gt": at(2024, 2, 29, 23, 58, 59, 999_999)}, "f"),
        ({"$gte": date.min}, "abcdef"),
        ({"$lte": date.max}, "abcdef"),
        ({"$not": {"$gte": date(2024, 1, 1)}}, "aghijklmz"),
        ({"$contains": date(2024, 1, 1)}, "m"),
        ({"$any": [at(2024, 1, 1, 1, tz=timezone(timedelta(hours=1))), "x"]}, "m"),
        ({"$all": [date(2024, 1, 1), at(2024, 1, 1), "2024-01-01"]}, "m"),
        ({"$all": [date(2024, 1, 1), date(2024, 1, 2)]}, ""),
        ({"$in": []}, ""),
        # A string that is a date compares dates where there is one, and strings where there is none.
        ("2024-01-01", "b"),
        ({"$gt": "2024-01-01"}, "efghij"),
        ({"$gte": "2024-01-01"}, "bcdefghij"),
        ({"$lt": "2024-01-01"}, "a"),
        ({"$lte": "2024-01-01"}, "abcd"),
        ({"$lte": "2024-01-01T05:30+05:30"}, "abcdi"),
        ({"$gt": "2024-02-30"}, "hj"),  # no date, so that all are strings
    ],
    ids=str,
)
def test_what_each_operator_matches(index, test, expected):
    assert matching(index, {"when": test}) == expected


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("0001-01-01", at(1, 1, 1)),
        ("9999-12-31T23:59:59.999999", at(9999, 12, 31, 23, 59, 59, 999_999)),
        ("2024-02-29", at(2024, 2, 29)),
        ("2000-02-29", at(2000, 2, 29)),
        ("2024-01-01T12:30", at(2024, 1, 1, 12, 30)),
        ("2024-01-01t12:30:01z", at(2024, 1, 1, 12, 30, 1)),
        ("2024-01-01 12:30:01.5", at(2024, 1, 1, 12, 30, 1, 500_000)),
        ("2024-01-01T12:30:01.1234567", at(2024, 1, 1, 12, 30, 1, 123_456)),
        ("2024-01-01T12:30+05:30", at(2024, 1, 1, 7)),
        ("2024-01-01T12:30-00:00", at(2024, 1, 1, 12, 30)),
        ("2024-01-01T12:30-08", at(2024, 1, 1, 20, 30)),
        ("2024-01-01T12:30+0530", at(2024, 1, 1, 7)),
        ("2024-01-01T12:30:00+00:53:28", at(2024, 1, 1, 11, 36, 32)),
        ("2024-01-01T12:30:00+23:59", at(2023, 12, 31, 12, 31)),
    ],
)
def test_a_date_is_an_instant(text, moment):
    assert instant(text) == (moment - at(1, 1, 1)) // timedelta(microseconds=1)


def test_an_instant_may_be_outside_of_the_years_that_python_counts():
    assert instant("0001-01-01T00:00+23:59") == -(23 * 60 + 59) * 60 * 10**6
    assert instant("9999-12-31T23:59:59-23:59") > instant("9999-12-31T23:59:59.999999")


NO_DATES = [
    *("", "2024", "2024-01", "2024-1-1", "20240101", "2024-W01-1", "2024-001", "+2024-01-01", "-2024-01-01", "12024-01-01"),
    *("0000-01-01", "2023-02-29", "1900-02-29", "2100-02-29", "2024-00-01", "2024-01-00", "2024-13-01", "2024-04-31"),
    *("2024-01-01T", "2024-01-01 ", " 2024-01-01", "2024-01-01\n", "2024-01-01T10", "2024-01-01TT10:00", "2024-01-01  10:00"),
    *("2024-01-0110:00", "2024-01-01T24:00", "2024-01-01T23:60", "2024-01-01T23:59:60", "2024-01-01T10:00:00.", "2024-01-01Z"),
    *("2024-01-01T10:00:00 Z", "2024-01-01T10:00:00Z ", "2024-01-01T10:00:00ZZ", "2024-01-01T10:00:00+5", "2024-01-01T10:00+"),
    *("2024-01-01T10:00:00+24:00", "2024-01-01T10:00:00\n", "2024-01-01T10:00:00\0", "2024-01-01\0", "2024-01-01T10:00:00Z\0x"),
    *(
        "2024-01-01T10:00:00,5",
        "２０２４-01-01",
        "2024-01-01T10:00:00 +01:00",
        "2024-01-01_10:00",
        "2024-01-01some title",
        "now",
    ),
]


@pytest.mark.parametrize("text", NO_DATES, ids=ascii)
def test_what_only_looks_like_a_date_is_none(text):
    assert instant(text) is None
    for operand in (date(1, 1, 1), date(2024, 1, 1), date(9999, 12, 31)):
        for sign in ("<", "<=", ">", ">="):
            assert not holds(text, compare_dates(sign, instant(operand.isoformat())))
        assert not holds(text, one_of_dates([instant(operand.isoformat())]))


@pytest.mark.parametrize("value", [None, b"2024-01-01", 2024, 1.5])
def test_a_damaged_index_has_no_dates_that_are_no_strings(value):
    assert instant(value) is None


def holds(text, test):
    """What SQLite says of one string."""
    connection = sqlite3.connect(":memory:")
    add_functions(connection)
    sql, values = test
    ((count,),) = connection.execute(f"SELECT count(*) FROM (SELECT ? AS value) WHERE 1{sql}", [text, *values])
    connection.close()
    return bool(count)


# A second reading of dates, with the arithmetic of days written out


def reading(text):
    """Microseconds since the beginning of the year 1; None for what is no date."""
    parts = re.fullmatch(
        r"([0-9]{4})-([0-9]{2})-([0-9]{2})([Tt ]([0-9]{2}):([0-9]{2})(:([0-9]{2})(\.([0-9]+))?)?(.*))?", text, re.DOTALL
    )
    if not parts:
        return None
    year, month, day = (int(part) for part in parts.groups()[:3])
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    lengths = [31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    if not (year >= 1 and 1 <= month <= 12 and 1 <= day <= lengths[month - 1]):
        return None
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400 + sum(lengths[: month - 1]) + day - 1
    if parts[4] is None:
        return days * 86_400_000_000
    hours, minutes, seconds = int(parts[5]), int(parts[6]), int(parts[8] or 0)
    micros = int((parts[10] or "").ljust(6, "0")[:6])
    offset = re.fullmatch(r"(?:[zZ]|([+-])([0-9]{2})(?::?([0-9]{2})(?::?([0-9]{2}))?)?)?", parts[11])
    if hours > 23 or minutes > 59 or seconds > 59 or not offset:
        return None
    shift = [int(offset[group] or 0) for group in (2, 3, 4)]
    if shift[0] > 23 or shift[1] > 59 or shift[2] > 59:
        return None
    seconds += hours * 3600 + minutes * 60
    seconds -= (shift[0] * 3600 + shift[1] * 60 + shift[2]) * (-1 if offset[1] == "-" else 1)
    return (days * 86_400 + seconds) * 1_000_000 + micros


days = st.one_of(
    st.dates().map(str),
    st.sampled_from(["0001-01-01", "0001-01-02", "9999-12-30", "9999-12-31", "2024-02-28", "2024-02-29", "2024-03-01"]),
    st.dates(date(2023, 12, 29), date(2024, 1, 3)).map(str),
    st.sampled_from(["2023-02-29", "0000-12-31", "2024-00-10", "2024-13-01", "2024-04-31", "2024-01-32"]),
)
times = st.one_of(
    st.times().map(str),
    st.sampled_from(["00:00", "00:00:00", "23:59:59.999999", "12:00:00.5", "24:00:00", "23:60:00", "10:00:00.1234567"]),
)
offsets = st.sampled_from(
    ["", "Z", "z", "+00:00", "-00:00", "+05:30", "-08", "+2359", "-23:59", "+14:59", "+24:00", " Z", "\n"]
)
dates = st.one_of(days, st.builds("{}{}{}{}".format, days, st.sampled_from(["T", " ", "t", "  "]), times, offsets))
strings = st.one_of(dates, dates, st.text(max_size=3), st.builds("{}{}".format, dates, st.text(max_size=3)))
operands = st.one_of(
    st.dates(),
    st.dates(date(2023, 12, 29), date(2024, 1, 3)),
    st.datetimes(timezones=st.sampled_from([None, UTC, INDIA, timezone(-timedelta(hours=23, minutes=59))])),
    st.sampled_from([date.min, date.max, at(1, 1, 1, tz=INDIA), datetime.datetime.max]),
)
SIGNS = {"<": int.__lt__, "<=": int.__le__, ">": int.__gt__, ">=": int.__ge__}
OF_STRINGS = {"<": str.__lt__, "<=": str.__le__, ">": str.__gt__, ">=": str.__ge__}


@given(strings)
def test_python_reads_dates_as_the_second_reading_does(text):
    assert instant(text) == reading(text)


@settings(max_examples=400)
@given(strings, operands, st.sampled_from([*SIGNS]))
@example("9999-12-31T23:59:59-23:59", date.max, ">")
@example("0001-01-01T00:00+05:30", date.min, "<")
@example("2024-01-01T10:00:00.999999Z", date.min, ">")
def test_sqlite_compares_with_a_date_as_instants(text, operand, sign):
    moment, wanted = reading(text), reading(operand.isoformat())
    assert holds(text, compare_dates(sign, wanted)) == (moment is not None and SIGNS[sign](moment, wanted))
    assert holds(text, one_of_dates([wanted])) == (moment == wanted)


@settings(max_examples=400)
@given(strings, dates.filter(lambda text: reading(text) is not None), st.sampled_from([*SIGNS]))
@example("0001-01-01", "0001-01-01T00:00+23:59", ">")
@example("", "0001-01-01T00:00+23:59", "<")
@example(":", "9999-12-31T23:59:59-23:59", "<")
def test_sqlite_compares_with_a_string_as_instants_or_as_strings(text, operand, sign):
    moment, wanted = reading(text), reading(operand)
    expected = OF_STRINGS[sign](text, operand) if moment is None else SIGNS[sign](moment, wanted)
    assert holds(text, compare_strings(sign, operand, wanted)) == expected


@pytest.mark.filterwarnings("ignore::colbert_core.FilterWarning")
@settings(max_examples=60)
@given(
    st.lists(st.one_of(strings, st.integers(-(2**63), 2**63 - 1), st.none(), st.lists(strings, max_size=2)), max_size=6),
    st.lists(operands, min_size=1, max_size=4),
)
def test_an_index_finds_what_python_finds(values, some):
    from builders.encoders import WordEncoder

    index = Index.create(None, WordEncoder())
    index.add([Passage(str(number), "the cat", {"when": value}) for number, value in enumerate(values)])
    moments = [reading(operand.isoformat()) for operand in some]

    def found(test):
        return [int(name) for name in index.ids({"when": test})]

    inside = [n for n, value in enumerate(values) if isinstance(value, str) and reading(value) in moments]
    assert sorted(found({"$in": some})) == inside
    assert sorted(found({"$nin": some})) == [n for n in range(len(values)) if n not in inside]
    arrays = [{reading(one) for one in value} if isinstance(value, list) else set() for value in values]
    assert sorted(found({"$any": some})) == [n for n, array in enumerate(arrays) if array & set(moments)]
    assert sorted(found({"$all": some})) == [n for n, array in enumerate(arrays) if array >= set(moments)]


@pytest.mark.parametrize("offset", ["", "Z", "+00:00", "-05:30"])
@pytest.mark.parametrize("time", ["T10:20:30", " 10:20:30", "T10:20:30.123", "T10:20:30.123456"])
def test_usual_dates_that_are_far_away_are_left_to_sqlite(time, offset):
    asked = []
    connection = sqlite3.connect(":memory:")
    connection.create_function("instant", 1, asked.append)
    for text in ("2012-05-28", f"2012-05-28{time}{offset}"):
        for operand, sign in ((date(2012, 5, 1), ">"), (date(2012, 6, 1), "<")):
            sql, values = compare_dates(sign, instant(str(operand)))
            assert connection.execute(f"SELECT count(*) FROM (SELECT ? AS value) WHERE 1{sql}", [text, *values]).fetchone() == (
                1,
            )
    assert asked == []
    connection.close()


@pytest.mark.parametrize("field", ["day", "time"])
def test_a_range_of_dates_goes_through_its_part_of_the_index_only(field):
    connection, asked = sqlite3.connect(":memory:"), []
    connection.execute("CREATE TABLE passages(row INTEGER PRIMARY KEY)")
    connection.execute("CREATE TABLE fields(path, kind, value, row, PRIMARY KEY (path, kind, value, row)) WITHOUT ROWID")
    connection.create_function("instant", 1, lambda text: asked.append(text) or instant(text))
    for row in range(2000):
        day = date(2020, 1, 1) + timedelta(days=row)
        connection.execute("INSERT INTO passages VALUES (?)", [row])
        for path, value in (("day", f"{day}"), ("time", f"{day}T10:00+01"), ("day", f"title {row}")):
            connection.execute("INSERT INTO fields VALUES (?, 's', ?, ?)", [path, value, row])
    for low, high in ((date(2020, 2, 1), date(2020, 2, 3)), ("2020-02-01", "2020-02-03")):
        condition = compile_where({field: {"$gte": low, "$lt": high}})
        found = connection.execute(f"SELECT row FROM passages WHERE {condition.sql}", condition.values).fetchall()
        assert found == [(31,), (32,)]
    assert len(asked) < 30
    connection.close()


def test_many_dates_are_one_comparison(index):
    many = [date(2024, 1, 1) + timedelta(days=n) for n in range(3000)]
    assert matching(index, {"when": {"$in": many}}) == "bcd"
    assert matching(index, {"$or": [{"when": day} for day in many]}) == "bcd"


def test_a_date_that_no_string_can_meet_warns():
    from builders.encoders import WordEncoder

    index = Index.create(None, WordEncoder())
    index.add([Passage("a", "the cat", {"seconds": 1_704_067_200, "days": ["2024-01-01"]})])
    with pytest.warns(FilterWarning, match="compares the field 'seconds' with a string, but its values are numbers"):
        index.search("cat", where={"seconds": {"$gte": date(2024, 1, 1)}})
    with pytest.warns(FilterWarning, match="compares the field 'days' with a string.*look into arrays"):
        index.search("cat", where={"days": date(2024, 1, 1)})


@pytest.mark.parametrize("operand", [pandas.NaT, np.datetime64("NaT"), np.datetime64("12024-01-01")])
def test_what_is_no_instant_is_refused_as_an_operand(index, operand):
    with pytest.raises(ValueError, match=r"\$gt compares with a date of the years 1 to 9999, got"):
        index.ids({"when": {"$gt": operand}})


def test_a_time_alone_is_a_string(index):
    assert matching(index, {"when": {"$gte": datetime.time(7)}}) == "abcdefghij"
    with pytest.raises(TypeError, match=r"\$text takes a string, got date"):
        index.ids({"when": {"$text": date(2024, 1, 1)}})
