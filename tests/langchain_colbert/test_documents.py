"""Documents and filters on their way to passages and back, through the retriever and the store."""

from __future__ import annotations

import copy

import pytest
from builders.documents import DOCUMENTS, ids
from langchain_core.documents import Document

from langchain_colbert import ColBERTRetriever, ColBERTVectorStore


def test_the_callers_documents_and_the_stored_ones_are_never_shared(words):
    documents = copy.deepcopy(DOCUMENTS)
    retriever = ColBERTRetriever.from_documents(documents, model=words)
    for document in retriever.invoke("dog"):
        document.metadata["page"] = "spoilt"
    assert documents == DOCUMENTS
    assert retriever.invoke("dog", k=1)[0].metadata["page"] == 2


def test_ids_beat_the_documents_own_and_are_made_where_there_are_none(store):
    given = [Document("one word", id="own"), Document("two words", id="kept"), Document("three words")]
    before = copy.deepcopy(given)
    first, second, third = store.add_documents(given, ids=["named", None, None])
    assert (first, second) == ("named", "kept")
    assert len(third) == 36
    assert given == before
    assert ids(store.get_by_ids(["named", third, "no such"])) == ["named", third]


def test_deleting_by_ids_and_by_filter_with_unknown_ids(store):
    assert store.delete(["cat", "no such"]) is True
    assert store.delete([]) is True
    assert len(store) == 4
    store.delete(filter=lambda document: document.metadata.get("tags") == ["wild"])
    assert set(store.index.ids()) == {"dog", "bird", "rust"}
    store.delete(filter={})
    assert len(store) == 0
    assert store


def test_what_is_replaced_while_a_filter_decides_is_not_deleted(words, tmp_path):
    store = ColBERTVectorStore.from_texts(
        ["draft", "other"], None, [{"draft": True}, {}], ids=["d", "o"], model=words, persist_directory=tmp_path / "idx"
    )

    def is_draft(document):
        if document.metadata.get("draft"):
            store.add_texts(["final"], ids=["d"])
            return True
        return False

    store.delete(filter=is_draft)
    assert {document.page_content for document in store.get_by_ids(["d", "o"])} == {"final", "other"}


@pytest.mark.parametrize(
    "text",
    ["word", "日本語", "\N{CAT FACE}" * 50, "long " * 3000],
    ids=["word", "japanese", "emoji", "long"],
)
def test_documents_of_every_kind_are_found_again(text, default_encoder):
    store = ColBERTVectorStore.from_texts([text, "another thing"], ids=["odd", "other"], model=default_encoder)
    assert {document.id: document.page_content for document in store.similarity_search("word", k=2)}["odd"] == text


@pytest.mark.parametrize("text", ["", " ", "\u200b"], ids=ascii)
def test_a_blank_document_is_kept_and_no_query_finds_it(text, default_encoder):
    store = ColBERTVectorStore.from_texts([text, "another thing"], ids=["odd", "other"], model=default_encoder)
    assert [document.id for document in store.similarity_search("word", k=2)] == ["other"]
    assert [document.page_content for document in store.get_by_ids(["odd"])] == [text]


@pytest.mark.parametrize("make", [ColBERTVectorStore.from_texts, ColBERTRetriever.from_texts])
def test_one_string_is_no_list_of_ids(make):
    with pytest.raises(TypeError, match=r"ids must be a list of strings, got one str; write \['ab'\]"):
        make(["x", "y"], ids="ab")
