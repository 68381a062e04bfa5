"""Tables of values separated by commas and the like."""

from __future__ import annotations

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbert_core.documents.part import UnreadableFileError
from colbert_core.documents.pieces import Whole, read_file
from colbert_core.documents.records import read_comma_separated


def read(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    return [(part.line, part.id, part.text, part.metadata) for part in read_comma_separated(tmp_path / "a.csv")]


def test_a_column_of_texts_is_the_text_and_the_others_are_metadata(tmp_path):
    assert read(tmp_path, 'id,text,year\na,"one, two",1999\n\nb,three,2001\n') == [
        (2, "a", "one, two", {"year": "1999"}),
        (4, "b", "three", {"year": "2001"}),
    ]


def test_without_such_a_column_the_text_is_a_line_for_each(tmp_path):
    assert read(tmp_path, "city,country,mayor\nParis,France,\n") == [
        (2, None, "city: Paris\ncountry: France", {"city": "Paris", "country": "France", "mayor": ""})
    ]


def test_a_title_goes_before_the_text(tmp_path):
    assert read(tmp_path, "title,year\nAlien,1979\n") == [(2, None, "Alien year: 1979", {"title": "Alien", "year": "1979"})]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_values_may_be_separated_by_other_signs(tmp_path, delimiter):
    rows = [["name", "price"], ["a, b; c", "1,50"], ["d|e", "2,50"]]
    with (tmp_path / "b.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    texts = [part.text for part in read_comma_separated(tmp_path / "b.csv")]
    assert texts == ["name: a, b; c\nprice: 1,50", "name: d|e\nprice: 2,50"]


@pytest.mark.parametrize("first", ["Paris,2100000", "Paris,", "Paris,Paris", f"Paris,{'a' * 65}", "Paris,12 %"])
def test_a_first_row_that_can_have_no_names_is_a_record(tmp_path, first):
    assert [line for line, *_ in read(tmp_path, f"{first}\nRome,3\n")] == [1, 2]
    assert read(tmp_path, "Paris,2\n")[0][2] == "column 1: Paris\ncolumn 2: 2"


def test_rows_that_are_too_short_or_too_long_lose_nothing(tmp_path):
    assert [text for _, _, text, _ in read(tmp_path, "a,b\n1\n2,3,4\n")] == ["a: 1", "a: 2\nb: 3\ncolumn 3: 4"]


def test_a_value_of_several_lines_is_named_by_the_first(tmp_path):
    assert [(line, text) for line, _, text, _ in read(tmp_path, 'text,b\n"one\ntwo",1\nthree,2\n')] == [
        (2, "one\ntwo"),
        (4, "three"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_other_encodings_are_read(tmp_path, encoding):
    assert read(tmp_path, "name;ort\r\nJürgen;Köln\r\n".encode(encoding))[0][2] == "name: Jürgen\nort: Köln"


@pytest.mark.parametrize(("content", "kind"), [(b"a,b\n\0,\0\n", "binary"), (b'a,b\n1,"' + b"x" * 200_000, "damaged")])
def test_what_is_no_table_is_named(tmp_path, content, kind):
    with pytest.raises(UnreadableFileError, match=r"a\.csv") as error:
        read(tmp_path, content)
    assert error.value.kind == kind


def test_a_record_is_a_passage(tmp_path):
    (tmp_path / "a.csv").write_text("city,country\nParis,France\n")
    (passage,) = read_file(tmp_path / "a.csv", "data/a.csv", Whole())
    assert (passage.id, passage.text) == ("data/a.csv#2", "city: Paris\ncountry: France")
    assert passage.metadata == {"source": "data/a.csv", "city": "Paris", "country": "France"}


cells = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8)


@given(st.lists(st.lists(cells, min_size=3, max_size=3), max_size=6), st.sampled_from(",;\t|"))
def test_what_a_table_was_written_from_is_what_is_read(tmp_path_factory, rows, delimiter):
    names = ["first", "second", "third"]
    file = tmp_path_factory.mktemp("csv") / "a.csv"
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened, delimiter=delimiter).writerows([names, *rows])
    said = [dict(zip(names, row, strict=True)) for row in rows if any(value.strip() for value in row)]
    assert [part.metadata for part in read_comma_separated(file)] == said
