"""Documents that come as a stream, in bounded memory."""

from __future__ import annotations

import pytest
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index

from colbert_core import PartialAddError
from langchain_colbert import ColBERTVectorStore


def documents(n, drawn=None):
    for number in range(n):
        if drawn is not None:
            drawn.append(number)
        yield Document(f"cat {number}", id=f"d{number}", metadata={"n": number})


def test_a_stream_is_read_as_it_is_added(stanford):
    store, drawn = ColBERTVectorStore(stanford), []
    add = store.index.add

    def watched(passages, **options):
        ids = []
        for passage in passages:
            ids += add([passage], **options)
            assert len(drawn) <= len(ids) + 1  # no more is drawn than is taken
        return ids

    store.index.add = watched
    assert store.add_documents(documents(5, drawn)) == [f"d{number}" for number in range(5)]
    assert len(store) == 5


async def test_streams_are_added_off_the_event_loop_and_with_ids_beside_them(stanford):
    store = ColBERTVectorStore(stanford)
    assert await store.aadd_documents(documents(3)) == ["d0", "d1", "d2"]
    assert store.add_texts((f"dog {n}" for n in range(2)), ({"n": n} for n in range(2)), ids=iter("ab")) == ["a", "b"]
    assert [document.metadata for document in store.get_by_ids(["a", "d2"])] == [{"n": 0}, {"n": 2}]
    assert len(ColBERTVectorStore.from_documents(documents(4), model=stanford)) == 4


def test_a_stream_that_ends_before_another_is_an_error_that_says_so(stanford):
    store = ColBERTVectorStore(stanford)
    for ids, message in (
        (iter("ab"), "There are 2 ids but more documents"),
        (iter("abcd"), "There are 3 documents but more ids"),
    ):
        with pytest.raises((ValueError, PartialAddError), match=message):
            store.add_documents(documents(3), ids=ids)
    with pytest.raises(ValueError, match="There are 2 texts but 1 ids"):
        store.add_texts(["a", "b"], ids=["x"])
    with pytest.raises(TypeError, match="Item 1 is a str, not a Document"):
        store.add_documents(iter([Document("x"), "y"]))


def test_the_indexing_api_takes_a_stream_and_stays_idempotent(stanford):
    store, records = ColBERTVectorStore(stanford), InMemoryRecordManager("n")
    records.create_schema()
    options = {"cleanup": "full", "source_id_key": "n", "batch_size": 3, "key_encoder": "sha256"}
    assert index(documents(7), records, store, **options)["num_added"] == 7
    again = index(documents(7), records, store, **options)
    assert (again["num_added"], again["num_skipped"], again["num_deleted"]) == (0, 7, 0)
    assert index(documents(5), records, store, **options)["num_deleted"] == 2
    assert len(store) == 5
