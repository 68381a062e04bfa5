"""Which fields there are: by hand, joined from two parts, and without a look at every row."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

from colbert_core import Index, Passage
from colbert_core.storage import fields
from colbert_core.storage.fields import Survey
from colbert_core.storage.filters import Expectation
from colbert_core.storage.schema import SCHEMA


@pytest.fixture
def index():
    index = Index.create(None, dim=2)
    metadatas = [
        {"year": 2024, "tags": ["news", 1, None], "author": {"name": "Ann"}, "source": "a.md"},
        {"year": "2024", "tags": [], "source": "a.md", "title": "a.md"},
        {"year": None, "draft": True},
    ]
    passages = [Passage(str(number), "text", metadata) for number, metadata in enumerate(metadatas)]
    index.add(passages, embeddings=[np.ones((1, 2), np.float32)] * 3)
    return index


def read(index, work):
    return index._versions.read(lambda view: work(view.reader))


def test_a_survey_has_the_names_in_their_order_and_their_kinds(index):
    survey = index._survey(["year", "nothing"])
    assert survey.names == ["author", "author.name", "draft", "source", "tags", "title", "year"]
    kinds = {path: "".join(sorted(kinds)) for path, kinds in survey.kinds.items()}
    of_one = {"author": "o", "author.name": "s", "draft": "b", "source": "s", "title": "s"}
    assert kinds == of_one | {"year": "nsz", "tags": "NSZa", "nothing": ""}
    assert (survey.is_cut, survey.n_passages > 0, survey.equal) == (False, True, {})


def test_a_survey_counts_the_passages_that_have_a_string_by_field(index):
    assert index._survey([], "a.md").equal == {"source": 2, "title": 1}
    assert index._survey([], "news").equal == {}  # of an array
    assert index._survey([], "2024").equal == {"year": 1}


def test_a_survey_of_nothing_and_of_passages_without_metadata(index):
    index.clear()
    assert index._survey(["a"]) == Survey(kinds={"a": ""})
    index.add([Passage("x", "text")], embeddings=[np.ones((1, 2), np.float32)])
    assert index._survey([]) == Survey(n_passages=1)


def test_expectations_that_no_passage_meets_are_found(index):
    def unmet(*expected):
        return read(index, lambda reader: reader.unmet([Expectation(*each) for each in expected]))

    assert unmet() == []
    assert unmet(("year", "n"), ("year", "bs"), ("tags", "S"), ("author.name", "s")) == []
    assert unmet(("year", "b"), ("yaer", "n"), ("tags", "sB"), ("year", "n")) == [
        ("year", "b"),
        ("yaer", "n"),
        ("tags", "sB"),
    ]
    many = [Expectation(f"f{number}", "s") for number in range(1200)]  # more than SQLite has columns at a time
    assert read(index, lambda reader: reader.unmet([*many, Expectation("year", "n")])) == many


def test_a_field_is_gone_with_the_last_passage_that_has_it(index):
    index.delete(["2"])
    assert "draft" not in index._survey([]).names
    assert read(index, lambda reader: reader.unmet([Expectation("draft", "b")])) == [("draft", "b")]


def test_surveys_of_two_parts_say_together_what_one_of_both_says(index):
    other = Index.create(None, dim=2)
    other.add([Passage("x", "text", {"year": True, "b": "a.md", "source": "a.md"})], embeddings=[np.ones((1, 2), np.float32)])
    together = index._survey(["year", "no"], "a.md") | other._survey(["year", "no"], "a.md")
    assert together.names == ["author", "author.name", "b", "draft", "source", "tags", "title", "year"]
    assert (together.kinds["year"], together.kinds["b"], together.kinds["no"]) == ("bnsz", "s", "")
    assert together.equal == {"b": 1, "source": 3, "title": 1}
    assert together.meets(Expectation("year", "b"))
    assert not together.meets(Expectation("no", "b"))


@pytest.fixture
def table():
    """The table alone, with a function that adds rows and one that asks."""
    connection = sqlite3.connect(":memory:")
    for statement in SCHEMA:
        connection.execute(statement)
    yield (
        lambda rows: connection.executemany("INSERT INTO fields VALUES (?, ?, ?, ?)", rows),
        lambda sql, values: connection.execute(sql, values).fetchall(),
    )
    connection.close()


def test_of_endless_names_the_first_thousand_are_looked_at(table):
    insert, select = table
    insert((f"f{number:04}", "n", number, number) for number in range(1000))
    assert (len(fields.survey(select, []).names), fields.survey(select, []).is_cut) == (1000, False)
    insert([("f9999", "n", 1, 1)])
    survey = fields.survey(select, ["f9999"])
    assert (len(survey.names), survey.names[-1], survey.is_cut) == (1000, "f0999", True)
    assert survey.kinds["f9999"] == "n"
    cut = survey | fields.Survey(names=["a"])
    assert (len(cut.names), cut.names[0], cut.is_cut) == (1000, "a", True)


def test_no_question_looks_at_every_row(table):
    insert, select = table
    asked = []

    def explained(sql, values):
        asked.append(sql)
        steps = [step for *_, step in select(f"EXPLAIN QUERY PLAN {sql}", values)]
        assert not [step for step in steps if "SCAN fields" in step], steps
        return select(sql, values)

    insert([("a", "s", "x", 1), ("b", "n", 2, 1)])
    assert fields.unmet(explained, [Expectation("a", "ns"), Expectation("c", "s")]) == [("c", "s")]
    assert fields.survey(explained, ["a"], "x").equal == {"a": 1}
    assert len(asked) == 5


def test_a_path_of_a_damaged_index_that_is_no_text_is_passed_over(table):
    insert, select = table
    insert([("a", "s", "x", 1), (b"blob", "s", "x", 1), ("a", "?", 1, 1)])
    survey = fields.survey(select, [], "x")
    assert (survey.names, survey.kinds, survey.equal) == (["a"], {"a": "s"}, {"a": 1})
