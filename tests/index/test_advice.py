"""What is said of filters that ask for what no passage has: the words by hand, when they are said, and when they are not."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest
from builders.encoders import WordEncoder

from colbert_core import FilterWarning, Index, Passage
from colbert_core.index.advice import Advice, complaint
from colbert_core.storage.fields import Survey
from colbert_core.storage.filters import Expectation
from colbert_core.storage.transaction import Reader

METADATA = {
    "author": {"name": "Ann"},
    "draft": True,
    "empty": [],
    "nothing": None,
    "tags": ["news", 1],
    "year": 2024,
}
FIELDS = (
    "The fields are 'author' (objects), 'author.name' (strings), 'draft' (true or false), 'empty' (arrays), 'nothing' (null), "
    "'tags' (arrays of numbers and strings), 'year' (numbers)."
)


@pytest.fixture
def index():
    index = Index.create(None, WordEncoder())
    index.add([Passage("a", "text", METADATA), Passage("b", "text")])
    return index


def said(ask):
    """What a call warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ask()
    assert all(warning.category is FilterWarning for warning in caught)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"yaer": 2024}, "No passage has the field 'yaer' that the filter asks for; did you mean 'year'? " + FIELDS),
        ({"price": {"$lt": 3}}, "No passage has the field 'price' that the filter asks for. " + FIELDS),
        ({"name": {"$ne": "Ann"}}, "No passage has the field 'name' that the filter asks for. " + FIELDS),
        ({"year": "2024"}, "The filter compares the field 'year' with a string, but its values are numbers."),
        ({"year": {"$gte": "2024"}}, "The filter compares the field 'year' with a string, but its values are numbers."),
        ({"year": {"$text": "20"}}, "The filter compares the field 'year' with a string, but its values are numbers."),
        (
            {"year": {"$nin": ["2024", True]}},
            "The filter compares the field 'year' with true or false or a string, but its values are numbers.",
        ),
        ({"draft": 1}, "The filter compares the field 'draft' with a number, but its values are true or false."),
        ({"nothing": 1}, "The filter compares the field 'nothing' with a number, but its values are null."),
        (
            {"tags": "news"},
            "The filter compares the field 'tags' with a string, but its values are arrays of numbers and strings; "
            "$contains, $any and $all look into arrays.",
        ),
        (
            {"tags": {"$contains": True}},
            "The filter wants true or false in an array of the field 'tags', but its values are arrays of numbers and strings.",
        ),
        (
            {"year": {"$any": [2024]}},
            "The filter wants a number in an array of the field 'year', but its values are numbers; $eq, $in and $text compare "
            "what is no array.",
        ),
        ({"year": {"$all": []}}, "The filter compares the field 'year' with an array, but its values are numbers."),
        (
            {"author": "Ann"},
            "The filter compares the field 'author' with a string, but its values are objects; a dotted name, such as "
            "'author.name', leads into objects.",
        ),
        (
            {"$not": {"$or": [{"year": "2024"}, {"draft": True}]}},
            "The filter compares the field 'year' with a string, but its values are numbers.",
        ),
        (
            {"year": {"$not": {"$in": ["2024"]}}},
            "The filter compares the field 'year' with a string, but its values are numbers.",
        ),
    ],
    ids=str,
)
def test_what_is_said_of_a_filter(index, where, words):
    assert said(lambda: index.search("text", where=where)) == [words]


@pytest.mark.parametrize(
    "where",
    [
        {},
        {"year": 2024, "draft": False, "author.name": "Bob", "tags": {"$contains": "sport", "$all": [2]}},
        {"year": {"$in": [1, "x"]}, "tags": {"$any": [True, "x"]}},
        {"yaer": {"$exists": True}, "year": {"$exists": False}},
        {"yaer": {"$empty": True}, "year": {"$empty": False}},
        {"yaer": {"$exists": True, "$eq": 2024}, "year": {"$exists": True, "$eq": "2024"}},
        {"$or": [{"yaer": {"$empty": True}}, {"yaer": {"$gt": 2}}]},
        {"yaer": None, "year": None, "tags": {"$contains": None}, "draft": {"$in": [None, 3]}},
        {"yaer": {"$in": []}},
        {"empty": {"$contains": "x"}},  # whoever fills the arrays may do so with strings
        lambda passage: passage.metadata.get("yaer") == 2024,
    ],
    ids=lambda where: "function" if callable(where) else str(where),
)
def test_what_nothing_is_said_of(index, where):
    assert said(lambda: index.search("text", where=where)) == []


def test_a_filter_finds_what_it_found_whatever_is_said(index):
    with pytest.warns(FilterWarning):
        assert index.search("text", where={"yaer": 2024}) == []
    with pytest.warns(FilterWarning):
        assert len(index.search("text", where={"name": {"$ne": "Ann"}})) == 2


def test_nothing_is_said_of_an_index_without_passages():
    index = Index.create(None, WordEncoder())
    assert said(lambda: index.search("text", where={"year": 1})) == []
    index.add([Passage("a", "text")])
    assert said(lambda: index.search("text", where={"year": 1})) == [
        "No passage has the field 'year' that the filter asks for. No passage has any metadata."
    ]


def test_each_field_and_each_type_is_said_once_as_long_as_an_index_is_open(tmp_path):
    with Index.create(tmp_path / "x", WordEncoder()) as index:
        index.add([Passage("a", "text", METADATA)])
        assert len(said(lambda: index.search("text", where={"yaer": 1, "$not": {"yaer": "x"}}))) == 1
        assert said(lambda: index.search("text", where={"yaer": {"$contains": True}})) == []
        assert len(said(lambda: index.ids({"year": "1", "tags": "x"}))) == 2
        assert said(lambda: index.ids({"year": {"$ne": "2"}})) == []
        assert len(said(lambda: index.ids({"year": True}))) == 1
    with Index.open(tmp_path / "x", WordEncoder()) as index:
        assert len(said(lambda: index.ids({"yaer": 1}))) == 1


def test_what_a_program_made_an_error_is_one_each_time_and_leaves_the_index_usable(tmp_path):
    for path in (None, tmp_path / "x"):
        index = Index.create(path, WordEncoder())
        index.add([Passage("a", "text", METADATA)])
        for _ in range(2):
            with pytest.raises(FilterWarning, match="'yaer'"):
                index.search("text", where={"yaer": 1})
            with pytest.raises(FilterWarning, match="'yaer'"):
                index.delete_where({"yaer": {"$ne": 1}})
        assert len(index) == 1
        index.add([Passage("b", "text")])
        index.close()


def test_what_fields_there_are_is_no_secret_of_the_first_filter(index):
    assert len(said(lambda: index.ids({"price": 1}))) == 1
    index.add([Passage("c", "text", {"price": 3})])
    assert said(lambda: index.ids({"price": 3})) == []


ASKED = {
    "search": lambda index, where: index.search("text", where=where),
    "search_many": lambda index, where: index.search_many(["text"], where=where),
    "search_mean": lambda index, where: index.search_mean(["text"], where=where),
    "search_diverse": lambda index, where: index.search_diverse("text", where=where),
    "search_vectors": lambda index, where: index.search_vectors([WordEncoder().encode_queries(["text"])[0]], where=where),
    "search by ids too": lambda index, where: index.search("text", where=where, ids=["a"]),
    "ids": lambda index, where: index.ids(where),
    "delete_where": lambda index, where: index.delete_where(where),
}


@pytest.mark.parametrize("verb", ASKED)
def test_every_verb_that_takes_a_filter_says_it_and_names_the_line_of_the_user(index, verb):
    with pytest.warns(FilterWarning, match="'yaer'") as caught:
        ASKED[verb](index, {"yaer": 1})
    assert [warning.filename for warning in caught] == [__file__]


def test_a_server_that_takes_names_from_strangers_does_not_fill_its_log(index):
    assert len(said(lambda: [index.ids({f"x{number}": 1}) for number in range(1100)])) == 1000


def test_many_fields_are_told_in_part_and_long_or_hostile_names_in_plain_characters():
    names = [f"f{number:02}" for number in range(33)]
    survey = Survey(dict.fromkeys(names, "s"), names, is_cut=False, n_passages=1)
    assert complaint(Expectation("no", "n"), survey).endswith("'f08' (strings), 'f09' (strings) and 23 more.")
    cut = Survey(dict.fromkeys(names, "s"), names, is_cut=True, n_passages=1)
    assert complaint(Expectation("no", "n"), cut).endswith("'f09' (strings) and more than 23 more.")
    hostile = "\x1b[31m\u202e\n" + "x" * 1000
    words = complaint(Expectation(hostile, "n"), Survey({hostile + "y": "s"}, [hostile + "y"], n_passages=1))
    assert words.isprintable()
    assert len(words) < 300


def test_a_name_is_told_as_a_filter_has_to_write_it():
    index = Index.create(None, WordEncoder())
    index.add([Passage("a", "text", {"$year": 1, "a.b": 1})])
    (words,) = said(lambda: index.ids({r"\$yaer": 1}))
    assert words == (
        r"No passage has the field '\\$yaer' that the filter asks for; did you mean '\\$year'? "
        r"The fields are '\\$year' (numbers), 'a\\.b' (numbers)."
    )
    assert said(lambda: index.ids({"\\$year": 1, "a\\.b": 1})) == []


def test_what_is_said_is_of_the_moment_that_is_searched(tmp_path, monkeypatch):
    index = Index.create(tmp_path / "x", WordEncoder())
    index.add([Passage("a", "text", {"year": 1})])
    other, survey = Index.open(tmp_path / "x", WordEncoder()), Reader.survey

    def add_and_survey(reader, paths, value=None):
        other.add([Passage("b", "text", {"yaer": 1})])
        return survey(reader, paths, value)

    monkeypatch.setattr(Reader, "survey", add_and_survey)
    (words,) = said(lambda: index.search("text", where={"yaer": 1}))
    assert words.endswith("The fields are 'year' (numbers).")
    assert [hit.passage.id for hit in index.search("text", where={"yaer": 1})] == ["b"]
    index.close()
    other.close()


def test_threads_may_ask_at_once(index):
    def ask():
        for number in range(20):
            index.ids({f"x{number}": 1})

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {str(warning.message).split("'")[1] for warning in caught} == {f"x{number}" for number in range(20)}


def test_an_expectation_that_was_met_or_may_be_unmet_is_settled():
    advice, met, of_empty_arrays = Advice(), Expectation("a", "n"), Expectation("b", "N")
    advice.say([met, of_empty_arrays], Survey({"a": "n", "b": "a"}, ["a"], n_passages=1))
    assert advice.unsaid([met, of_empty_arrays, Expectation("a", "s")]) == [("a", "s")]


def test_vectors_from_elsewhere_need_no_model_for_it():
    index = Index.create(None, dim=2)
    index.add([Passage("a", "text", {"n": 1})], embeddings=[np.ones((1, 2), np.float32)])
    with pytest.warns(FilterWarning, match="No passage has the field 'm'"):
        assert index.search(np.ones((1, 2), np.float32), where={"m": 1}) == []


def test_nothing_is_said_of_a_key_with_a_dot_that_is_named_without_a_backslash():
    index = Index.create(None, WordEncoder())
    index.add([Passage("a", "text", {"dc.title": "x", "dc.year": 2024, "author": {"name": "Ann"}})])
    assert said(lambda: index.search("text", where={"dc.title": "x", "author.name": {"$in": ["Ann"]}})) == []
    (wrong_type,) = said(lambda: index.search("text", where={"dc.year": "2024"}))
    assert wrong_type == "The filter compares the field 'dc.year' with a string, but its values are numbers."
    (missing,) = said(lambda: index.search("text", where={"dc.titel": "x"}))
    assert missing.startswith("No passage has the field 'dc.titel' that the filter asks for; did you mean 'dc\\\\.title'?")


def test_either_meaning_of_a_name_with_a_dot_meets_what_a_filter_expects():
    one, other = Survey({"a.b": "n"}, ["a.b"], n_passages=1), Survey({"a\\.b": "s"}, ["a\\.b"], n_passages=1)
    assert [each.meets(Expectation("a.b", "s")) for each in (one, other, one | other)] == [False, True, True]
    assert not one.meets(Expectation("a\\.b", "n"))
    assert (one | other).kinds_of("a.b") == "ns"


def test_alternatives_of_one_field_expect_any_of_their_types(index):
    assert said(lambda: index.search("text", where={"$or": [{"year": "2024"}, {"year": 2024}]})) == []
    assert said(lambda: index.search("text", where={"$or": [{"tags": {"$contains": "x"}}, {"tags": {"$text": "x"}}]})) == []
    (neither,) = said(lambda: index.search("text", where={"$or": [{"draft": {"$contains": "x"}}, {"draft": {"$text": "x"}}]}))
    assert neither == "The filter compares the field 'draft' with a string, but its values are true or false."
    assert said(lambda: index.search("text", where={"$or": [{"no": 1}, {"no": {"$exists": False}}]})) == []
    assert len(said(lambda: index.search("text", where={"$or": [{"year": 2024}, {"yaer": 2024}]}))) == 1


@pytest.mark.filterwarnings("error::colbert_core.FilterWarning")
def test_an_array_may_be_one_of_several_types_that_a_filter_wants():
    index = Index.create(encoder=WordEncoder())
    index.add([Passage("a", "cat", {"a": None})])
    with pytest.raises(FilterWarning, match="compares the field 'a' with an array or true or false, but its values are null"):
        index.search("cat", where={"$or": [{"a": False}, {"a": {"$all": []}}]})
