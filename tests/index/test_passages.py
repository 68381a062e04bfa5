"""What an index has, without a query: its passages page by page, how many there are, and which fields they have."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbert_core import FilterWarning, Index, MetadataField, Page, Passage

VECTOR = np.ones((1, 2), np.float32)


def put(index, *passages):
    index.add(passages, embeddings=[VECTOR] * len(passages))


def five(index):
    put(index, *(Passage(f"p{n}", f"text {n}", {"n": n}) for n in range(5)))


@pytest.fixture(params=["memory", "disk"])
def index(request, tmp_path):
    index = Index.create(None if request.param == "memory" else tmp_path / "x.idx", dim=2)
    yield index
    index.close()


def ids(passages):
    return [passage.id for passage in passages]


def all_pages(index, *, limit, where=None, between=lambda page: None):
    pages, after = [], None
    while not pages or after is not None:
        pages.append(index.passages(where, limit=limit, after=after))
        after = pages[-1].next
        between(pages[-1])
    return [ids(page) for page in pages]


# Passages and pages of them


def test_passages_come_in_the_order_in_which_they_were_added_and_a_replaced_one_is_last(index):
    put(index, Passage("z", "first"), Passage("a", "second", {"n": 1}))
    put(index, Passage("z", "third"))
    assert index.passages() == [Passage("a", "second", {"n": 1}), Passage("z", "third")]
    assert isinstance(index.passages(), Page)
    assert index.passages().next is None
    assert ids(index.passages()) == index.ids()


def test_pages_follow_each_other_and_the_last_one_says_so(index):
    five(index)
    assert all_pages(index, limit=2) == [["p0", "p1"], ["p2", "p3"], ["p4"]]
    assert all_pages(index, limit=5) == [["p0", "p1", "p2", "p3", "p4"]]
    assert all_pages(index, limit=1) == [["p0"], ["p1"], ["p2"], ["p3"], ["p4"]]
    assert all_pages(index, limit=2, where={"n": {"$gte": 1}}) == [["p1", "p2"], ["p3", "p4"]]
    assert all_pages(index, limit=2, where=lambda passage: passage.metadata["n"] % 2 == 0) == [["p0", "p2"], ["p4"]]


def test_ids_and_a_filter_are_taken_together(index):
    five(index)
    assert ids(index.passages(ids=["p3", "p0", "nobody", "p3"])) == ["p0", "p3"]
    assert ids(index.passages({"n": {"$gt": 0}}, ids=["p3", "p0"])) == ["p3"]
    assert index.passages(ids=[]) == []
    assert index.passages({"n": 7}) == []


def test_an_empty_index_has_one_empty_page(index):
    assert (index.passages(), index.passages(limit=3).next) == ([], None)
    assert (index.count(), index.fields()) == (0, [])


def test_the_last_passage_of_a_page_may_be_deleted_or_replaced_before_the_next_page(index):
    five(index)

    def delete_last(page):
        index.delete([page[-1].id])

    assert all_pages(index, limit=2, between=delete_last) == [["p0", "p1"], ["p2", "p3"], ["p4"]]
    index.clear()
    five(index)
    page = index.passages(limit=2)
    put(index, Passage("p1", "again"))
    assert ids(index.passages(after=page.next)) == ["p2", "p3", "p4", "p1"]


def test_what_is_added_while_pages_are_read_comes_at_their_end(index):
    five(index)
    page = index.passages(limit=3)
    put(index, Passage("new", "text"))
    index.compact()
    assert ids(index.passages(after=page.next)) == ["p3", "p4", "new"]


def test_pages_go_on_in_the_same_index_opened_again_and_stop_when_it_was_overwritten(tmp_path):
    with Index.create(tmp_path / "x.idx", dim=2) as index:
        five(index)
        after = index.passages(limit=2).next
    with Index.open(tmp_path / "x.idx") as index:
        assert ids(index.passages(after=after)) == ["p2", "p3", "p4"]
    with Index.create(tmp_path / "x.idx", dim=2, overwrite=True) as index:
        five(index)
        with pytest.raises(ValueError, match=rf"after='{after}' is of another index, .*Begin anew, without after"):
            index.passages(after=after)


@pytest.mark.parametrize("after", ["p1", "", "-", "12-x", "12-", f"1-{'9' * 30}", "١-١"])
def test_what_no_page_gave_is_an_error(index, after):
    five(index)
    with pytest.raises(ValueError, match="after is what a page gave as its next, such as '[0-9a-f]{8}-100', got"):
        index.passages(after=after)
    with pytest.raises(TypeError, match="after is what a page gave as its next, a str, got int: 7"):
        index.passages(after=7)


def test_wrong_limits_and_filters_are_errors_and_an_odd_filter_is_told(index):
    five(index)
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        index.passages(limit=0)
    with pytest.raises(TypeError, match=r"limit must be a whole number of passages, got 1\.5"):
        index.passages(limit=1.5)
    with pytest.raises(ValueError, match=r"'\$like' is no operator"):
        index.passages({"n": {"$like": 1}})
    with pytest.raises(TypeError, match="ids must be a list of strings"):
        index.passages(ids="p1")
    with pytest.warns(FilterWarning, match="No passage has the field 'm'"):
        assert index.passages({"m": 1}) == []
    with pytest.warns(FilterWarning, match="No passage has the field 'o'"):
        assert index.count({"o": 1}) == 0


def test_a_page_survives_a_pickle():
    import pickle

    page = Page([1, 2], "x-2")
    assert (pickle.loads(pickle.dumps(page)), pickle.loads(pickle.dumps(page)).next) == ([1, 2], "x-2")


# How many


def test_passages_are_counted_by_filters_and_functions(index):
    five(index)
    assert (index.count(), index.count({}), index.count({"n": {"$gte": 3}}), index.count({"n": 9})) == (5, 5, 2, 0)
    assert index.count(lambda passage: passage.text.endswith("3")) == 1
    assert len(index) == index.count()


def test_to_count_no_text_is_read(tmp_path):
    with Index.create(tmp_path / "x.idx", dim=2) as index:
        put(index, *(Passage(f"{n}", "x" * 10**6, {"n": n}) for n in range(20)))
        started = time.perf_counter()
        assert index.count({"n": {"$gte": 10}}) == 10
        assert time.perf_counter() - started < 0.1


# Fields


def test_fields_say_types_numbers_and_examples(index):
    put(
        index,
        Passage("a", "text", {"year": 2024, "tags": ["news", 1, None], "author": {"name": "Ann"}, "draft": True}),
        Passage("b", "text", {"year": "2024", "tags": [], "draft": False}),
        Passage("c", "text", {"year": None, "tags": ["cats", "news"], "draft": True}),
        Passage("d", "text", {"year": 2020.5}),
        Passage("e", "text"),
    )
    assert index.fields() == [
        MetadataField("author", {"object": 1}, 1, []),
        MetadataField("author.name", {"string": 1}, 1, ["Ann"]),
        MetadataField("draft", {"boolean": 3}, 3, [False, True]),
        MetadataField("tags", {"list": 3}, 3, ["cats", "news", 1]),
        MetadataField("year", {"string": 1, "number": 2, "null": 1}, 4, ["2024", 2020.5, 2024]),
    ]
    assert [type(example) for example in index.fields()[2].examples] == [bool, bool]


def test_examples_are_three_different_ones_and_a_long_one_is_cut(index):
    put(index, *(Passage(f"{n}", "text", {"n": n // 2, "long": "x" * 50 * n}) for n in range(20)))
    long, numbers = index.fields()
    assert (numbers.passages, numbers.examples) == (20, [0, 1, 2])
    assert long.examples == ["", "x" * 50, "x" * 100]
    index.delete(["0", "1", "2"])
    assert index.fields()[0].examples == [f"{'x' * 100}…"] * 3


def test_fields_come_in_pages(index):
    put(index, Passage("a", "text", {"": 0, "a": 1, "b": {"c": 1}, "$d": 1}))
    assert [field.path for field in index.fields()] == ["", "\\$d", "a", "b", "b.c"]
    pages, after = [], None
    while not pages or after is not None:
        page = index.fields(limit=2, after=after)
        pages.append([field.path for field in page])
        after = page.next
    assert pages == [["", "\\$d"], ["a", "b"], ["b.c"]]
    assert index.fields(limit=5).next is None
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        index.fields(limit=0)
    with pytest.raises(TypeError, match="after must be a str, got int"):
        index.fields(after=3)


def test_each_path_is_a_filter_that_finds_as_many_passages(index):
    odd = {"a.b": 1, "$x": {"$y": 2}, "back\\slash": "s", "a": {"c": [1]}}
    put(index, Passage("a", "text", odd), Passage("b", "text", {"a.b": 2}))
    for field in index.fields():
        assert index.count({field.path: {"$exists": True}}) == field.passages


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(-2, 2).map(lambda x: round(x, 1))
    | st.sampled_from(["", "a", "b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["k", "l"]), inner, max_size=2),
    max_leaves=4,
)
metadatas = st.dictionaries(st.sampled_from(["a", "b", "c.d", "$e"]), values, max_size=3)
TYPES = {str: "string", bool: "boolean", int: "number", float: "number", type(None): "null", list: "list", dict: "object"}


def expected_fields(all_metadata):
    """By the definition: every value of every passage, under its path."""
    found = {}

    def walk(path, value):
        found.setdefault(path, []).append(value)
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{path}.{escaped(key)}", inner)

    def escaped(key):
        return key.replace("\\", "\\\\").replace(".", "\\.")

    for metadata in all_metadata:
        for key, value in metadata.items():
            walk(escaped(key), value)
    fields = {}
    for path, its in found.items():
        types = [TYPES[type(value)] for value in its]
        name = f"\\{path}" if path.startswith("$") else path
        fields[name] = ({each: types.count(each) for each in types}, len(its))
    return fields


@given(st.lists(metadatas, max_size=6))
def test_fields_are_those_that_a_look_at_every_passage_finds(all_metadata):
    index = Index.create(None, dim=2)
    put(index, *(Passage(f"{n}", "text", metadata) for n, metadata in enumerate(all_metadata)))
    assert {field.path: (field.types, field.passages) for field in index.fields()} == expected_fields(all_metadata)
