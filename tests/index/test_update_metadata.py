"""Metadata of passages that are in an index change in place: no other vectors, ids, texts or order, and one commit."""

from __future__ import annotations

import json
import sqlite3
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbert_core import DamagedIndexError, FilterWarning, Index, IndexLockedError, Passage
from colbert_core.index import writing

VECTOR = np.ones((1, 2), np.float32)


@pytest.fixture(params=["memory", "disk"])
def index(request, tmp_path, words):
    index = Index.create(None if request.param == "memory" else tmp_path / "x.idx", words)
    index.add(
        [
            Passage("a", "the cat sat", {"lang": "en", "year": 2020, "tags": ["x"]}),
            Passage("b", "a dog barks", {"lang": "en"}),
            Passage("c", "a bird sings"),
        ]
    )
    yield index
    index.close()


def metadata(index):
    return {passage.id: passage.metadata for passage in index.passages()}


def test_keys_are_written_and_others_stay(index):
    assert index.update_metadata({"lang": "de", "n": 1}, ids=["a", "c"]) == 2
    assert metadata(index) == {
        "a": {"lang": "de", "year": 2020, "tags": ["x"], "n": 1},
        "b": {"lang": "en"},
        "c": {"lang": "de", "n": 1},
    }
    assert list(metadata(index)["a"]) == ["lang", "year", "tags", "n"]


def test_none_is_kept_and_a_list_or_dict_is_replaced_as_a_whole(index):
    index.update_metadata({"tags": ["y", "z"], "lang": None, "author": {"name": "Ann"}}, ids=["a"])
    index.update_metadata({"author": {"born": 1900}}, ids=["a"])
    assert metadata(index)["a"] == {"lang": None, "year": 2020, "tags": ["y", "z"], "author": {"born": 1900}}
    assert index.ids({"lang": None}) == ["a"]
    assert index.ids({"author.name": {"$exists": True}}) == []


def test_keys_are_removed(index):
    assert index.update_metadata({}, where={}, remove=["lang", "nothing"]) == 2
    assert metadata(index) == {"a": {"year": 2020, "tags": ["x"]}, "b": {}, "c": {}}
    assert index.update_metadata({"n": 1}, ids=["a"], remove=["year", "tags"]) == 1
    assert metadata(index)["a"] == {"n": 1}


def test_a_filter_ids_and_a_function_choose(index):
    assert index.update_metadata({"n": 1}, where={"lang": "en"}, ids=["b", "c", "nobody"]) == 1
    assert index.update_metadata({"n": 2}, where=lambda passage: "bird" in passage.text) == 1
    assert index.update_metadata({"n": 3}, where=lambda passage: True, ids=["c"]) == 1
    assert {name: found.get("n") for name, found in metadata(index).items()} == {"a": None, "b": 1, "c": 3}
    with pytest.warns(FilterWarning, match="No passage has the field 'language' .* did you mean 'lang'"):
        assert index.update_metadata({"n": 4}, where={"language": "en"}) == 0


def test_only_what_differs_counts_and_nothing_to_do_is_no_commit(index):
    before = index.stats().generation
    assert index.update_metadata({"lang": "en"}, where={}) == 1  # that of c
    assert index.stats().generation == before + 1
    assert index.update_metadata({"lang": "en"}, where={}) == 0
    assert index.update_metadata({"lang": "en"}, ids=["nobody"]) == index.update_metadata({"lang": "en"}, ids=[]) == 0
    assert index.stats().generation == before + 1
    assert index.update_metadata({"year": 2020.0}, ids=["a"]) == 1  # JSON knows them apart
    assert index.update_metadata({"year": True}, ids=["a"]) == 1


def test_vectors_words_ids_texts_and_order_stay(index):
    searches = [{"mode": mode, "k": 3} for mode in ("maxsim", "hybrid", "words")]
    before = [[(hit.passage.id, hit.score, hit.text) for hit in index.search("the cat barks", **each)] for each in searches]
    vectors, ids, figures = index.embeddings(["a", "b", "c"]), index.ids(), index.stats()
    assert index.update_metadata({"new": "cat"}, where={}) == 3
    assert [
        [(hit.passage.id, hit.score, hit.text) for hit in index.search("the cat barks", **each)] for each in searches
    ] == before
    assert index.search("the cat barks", k=1)[0].passage.metadata["new"] == "cat"
    assert all(map(np.array_equal, vectors, index.embeddings(["a", "b", "c"])))
    assert index.ids() == ids
    now = index.stats()
    assert (now.segments, now.dead_tokens, now.windows) == (figures.segments, figures.dead_tokens, figures.windows)
    assert index.verify().problems == []


def test_filters_and_fields_know_the_new_values_and_no_old_ones(index):
    index.update_metadata({"year": "1999", "tags": []}, where={"year": 2020})
    assert index.ids({"year": "1999"}) == ["a"]
    with pytest.warns(FilterWarning, match="compares the field 'year' with a number"):
        assert index.ids({"year": 2020}) == []
    assert {field.path: field.types for field in index.fields()}["year"] == {"string": 1}
    assert index.verify().problems == []


def test_a_change_is_there_after_opening_saving_and_compacting(tmp_path, words):
    with Index.create(tmp_path / "x.idx", words) as index:
        index.add([Passage("a", "cat", {"n": 1}), Passage("b", "dog")])
        index.update_metadata({"n": 2}, where={})
        index.compact()
        index.save(tmp_path / "y.idx")
    for name in ("x.idx", "y.idx"):
        with Index.open(tmp_path / name) as index:
            assert metadata(index) == {"a": {"n": 2}, "b": {"n": 2}}
            assert index.verify().problems == []


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (({"n": 1},), {}, TypeError, r"takes where=\{\.\.\.\} or ids=\[\.\.\.\], to say of which passages"),
        ((["n"],), {"ids": ["a"]}, TypeError, r"metadata must be a dict, got list: \['n'\]"),
        (({"n": object()},), {"ids": ["a"]}, TypeError, "The metadata: n is a object"),
        (({"n": {1: 2}},), {"ids": ["a"]}, TypeError, "a key of n is 1, a int; keys are strings"),
        (({"n": 2**64},), {"ids": ["a"]}, ValueError, "The metadata: n is a number of more than 64 bits"),
        (({},), {"ids": ["a"]}, ValueError, "There is nothing to change: metadata is empty, and no key is to be removed"),
        (({"n": 1},), {"ids": ["a"], "remove": ["n"]}, ValueError, "'n' is to be both written and removed; name it once"),
        (
            ({"n": 1},),
            {"ids": ["a"], "remove": "lang"},
            TypeError,
            r"remove must be a list of keys, got one str; write \['lang'\]",
        ),
        (({"n": 1},), {"ids": ["a"], "remove": [1]}, TypeError, "A key to remove must be a str, got int"),
        (({"n": 1},), {"ids": "a"}, TypeError, "ids must be a list of strings"),
        (({"n": 1},), {"where": {"lang": {"$like": 1}}}, ValueError, "is no operator"),
    ],
)
def test_mistakes_are_errors_and_change_nothing(index, arguments, options, error, message):
    before = metadata(index)
    with pytest.raises(error, match=message):
        index.update_metadata(*arguments, **options)
    assert metadata(index) == before


def test_the_callers_dict_is_copied(index):
    given = {"tags": ["y"]}
    index.update_metadata(given, ids=["c"])
    given["tags"].append("z")
    assert metadata(index)["c"] == {"tags": ["y"]}


def test_a_damaged_text_is_not_hidden_by_a_new_checksum(tmp_path, words):
    with Index.create(tmp_path / "x.idx", words) as index:
        index.add([Passage("a", "cat"), Passage("b", "dog")])
    connection = sqlite3.connect(tmp_path / "x.idx" / "index.sqlite")
    connection.execute("UPDATE passages SET text = 'cow' WHERE id = 'b'")
    connection.commit()
    connection.close()
    with Index.open(tmp_path / "x.idx", words) as index:
        with pytest.raises(
            DamagedIndexError, match=r"Nothing was changed: Passage 'b' \(row 2\) has changed since it was written"
        ):
            index.update_metadata({"n": 1}, where={})
        assert metadata(index) == {"a": {}, "b": {}}
        assert index.update_metadata({"n": 1}, ids=["a"]) == 1
        assert len(index.verify().problems) == 1


def test_more_passages_than_are_changed_together(tmp_path):
    with Index.create(tmp_path / "x.idx", dim=2) as index:
        passages = [Passage(f"{n}", "text", {"n": n}) for n in range(2500)]
        index.add(passages, embeddings=[VECTOR] * 2500)
        assert index.update_metadata({"even": True}, where=lambda passage: passage.metadata["n"] % 2 == 0) == 1250
        assert index.count({"even": True}) == 1250
        assert index.ids() == [passage.id for passage in passages]
        assert index.verify().problems == []


# Beside others


def test_an_older_moment_of_another_reader_stays_as_it_is(tmp_path, words):
    with Index.create(tmp_path / "x.idx", words) as index, Index.open(tmp_path / "x.idx", words) as other:
        index.add([Passage("a", "cat", {"n": 1})])

        def look(view):
            before = view.get(["a"])
            index.update_metadata({"n": 2}, ids=["a"])
            return before, view.get(["a"]), view.ids()

        before, after, _ = other._versions.read(look)
        assert before == after == [Passage("a", "cat", {"n": 1})]
        assert other.get(["a"])[0].metadata == {"n": 2}


def test_no_search_in_memory_mixes_an_old_filter_with_new_metadata(words):
    index = Index.create(None, words)
    index.add([Passage(f"p{n}", "the cat sat", {"n": n % 2}) for n in range(40)])
    stop = threading.Event()

    def flip():
        while not stop.is_set():
            for n in (0, 1):
                index.update_metadata({"n": n, "twin": n}, where={})
                stop.wait(0.002)  # without a pause, a reader on a busy machine is told that it was overtaken 100 times

    thread = threading.Thread(target=flip)
    index.update_metadata({"n": 1, "twin": 1}, where={})
    thread.start()
    try:
        for _ in range(60):
            for hits in index.search_many(["cat", "sat"], k=40, where={"n": 1}):
                assert len(hits) in (0, 40)
                assert all(hit.passage.metadata == {"n": 1, "twin": 1} for hit in hits)
            assert index.verify(n_queries=1).problems == []
    finally:
        stop.set()
        thread.join()


def test_a_function_chooses_again_where_metadata_changed_while_it_chose(index):
    calls = []

    def by_function(passage):
        calls.append(passage.id)
        if len(calls) == 1:  # somebody else writes meanwhile
            index.update_metadata({"lang": "fr"}, ids=["b"])
        return passage.metadata.get("lang") == "en"

    assert index.update_metadata({"n": 1}, where=by_function) == 1
    assert calls == ["a", "b", "c"] * 2
    assert metadata(index)["b"] == {"lang": "fr"}
    calls.clear()
    index.update_metadata({"lang": "en"}, where={})
    assert index.delete_where(by_function) == 2
    assert index.ids() == ["b"]


def test_a_function_that_is_overtaken_for_ever_is_told(index, monkeypatch):
    monkeypatch.setattr(writing, "_TRIES", 3)
    numbers = iter(range(100))

    def by_function(passage):
        index.update_metadata({"n": next(numbers)}, ids=["a"])
        return True

    with pytest.raises(IndexLockedError, match="got other metadata 3 times while a function chose among its passages"):
        index.update_metadata({"m": 1}, where=by_function)


def test_an_interrupt_leaves_all_or_nothing(index, interrupt_at):
    for step, changed in (("locked", False), ("rows written", False), ("committed", True)):
        before = metadata(index)
        with interrupt_at(step), pytest.raises(KeyboardInterrupt):
            index.update_metadata({"step": step}, where={})
        assert (metadata(index) != before) == changed
        assert index.verify().problems == []


# Against a dictionary

keys = st.sampled_from(["a", "b", "a.b", "$c"])
leaves = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "x", "y"])
values = leaves | st.lists(leaves, max_size=2) | st.dictionaries(st.sampled_from(["k", "l"]), leaves, max_size=2)
metadatas = st.dictionaries(keys, values, max_size=3)
names = st.sampled_from(["p0", "p1", "p2", "p3"])


@given(
    before=st.lists(metadatas, min_size=4, max_size=4),
    changes=st.lists(st.tuples(metadatas, st.lists(names), st.lists(keys)), min_size=1, max_size=4),
)
def test_any_changes_leave_what_they_leave_in_a_dictionary(before, changes):
    index = Index.create(None, dim=2)
    model = {f"p{n}": metadata for n, metadata in enumerate(before)}
    index.add([Passage(name, "text", metadata) for name, metadata in model.items()], embeddings=[VECTOR] * 4)
    for written, some, removed in changes:
        removed = [key for key in removed if key not in written]
        if not written and not removed:
            continue
        after = {
            name: {key: value for key, value in (metadata | written).items() if key not in removed}
            if name in some
            else metadata
            for name, metadata in model.items()
        }
        n_changed = sum(json.dumps(after[name]) != json.dumps(model[name]) for name in model)
        assert index.update_metadata(written, ids=some, remove=removed) == n_changed
        model = after
        assert metadata(index) == model
        assert list(map(list, metadata(index).values())) == list(map(list, model.values()))
    fresh = Index.create(None, dim=2)
    fresh.add([Passage(name, "text", metadata) for name, metadata in model.items()], embeddings=[VECTOR] * 4)
    assert index.fields() == fresh.fields()
    assert index.verify().problems == []
