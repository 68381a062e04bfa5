"""A store and a retriever without a query: what is in them, and what a blank query gives."""

from __future__ import annotations

import logging

import pytest
from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import create_retriever_tool

from langchain_colbert import ColBERTRetriever, ColBERTVectorStore

DOCUMENTS = [
    Document("the cat sat", metadata={"year": 2020}, id="a"),
    Document("a dog barks", metadata={"year": 2024}, id="b"),
    Document("a bird sings. " * 300, metadata={"year": 2024}, id="c"),
    Document("snow falls", id="d"),
]
NEWEST = {"year": 2024}


@pytest.fixture
def store(words):
    return ColBERTVectorStore.from_documents(DOCUMENTS, model=words)


def ids(documents):
    return [document.id for document in documents]


async def test_get_gives_documents_as_they_were_added_in_their_order(store):
    assert store.get() == DOCUMENTS
    assert store.get(["d", "a", "nobody"]) == [DOCUMENTS[0], DOCUMENTS[3]]
    assert store.get(filter=NEWEST) == await store.aget(filter=NEWEST) == DOCUMENTS[1:3]
    assert ids(store.get(["a", "b"], filter=NEWEST)) == ["b"]
    assert ids(store.get(limit=2)) == ["a", "b"]
    assert ids(store.get(limit=2, offset=1)) == ids(await store.aget(limit=2, offset=1)) == ["b", "c"]
    assert ids(store.get(offset=3)) == ["d"]
    assert store.get(offset=4) == store.get([]) == store.get(limit=1, offset=9) == []
    store.add_documents([DOCUMENTS[0]])
    assert ids(store.get()) == ["b", "c", "d", "a"]


async def test_count_counts_what_a_filter_matches(store):
    assert (store.count(), store.count(NEWEST), store.count({"year": 1}), await store.acount(NEWEST)) == (4, 2, 0, 2)
    assert store.count(lambda document: "year" in document.metadata) == 3


def test_mistakes_of_get_are_errors(store):
    for options, error, message in (
        ({"limit": 0}, ValueError, "limit must be at least 1, got 0"),
        ({"limit": -1, "offset": 5}, ValueError, "limit must be at least 1, got -1"),
        ({"limit": True}, TypeError, "limit must be a whole number of passages, got True"),
        ({"offset": -1}, ValueError, "offset must be at least 0, got -1"),
        ({"offset": 1.5}, TypeError, r"offset must be a whole number of documents, got 1\.5"),
        ({"offset": True}, TypeError, "offset must be a whole number of documents, got True"),
        ({"ids": "a"}, TypeError, "ids must be a list of strings"),
        ({"filter": {"year": {"$near": 1}}}, ValueError, "is no operator"),
        ({"where": {}}, TypeError, "where"),
    ):
        with pytest.raises(error, match=message):
            store.get(**options)


# Blank queries


@pytest.mark.parametrize("query", ["", " \n", "\u200b"])
async def test_a_blank_query_with_a_filter_gives_the_filtered_documents_in_their_order(store, query):
    for found in (
        store.similarity_search(query, filter=NEWEST),
        await store.asimilarity_search(query, filter=NEWEST),
        store.max_marginal_relevance_search(query, filter=NEWEST),
        store.as_retriever(filter=NEWEST).invoke(query),
        store.as_retriever(filter=NEWEST, search_type="words").invoke(query),
        await store.as_retriever(filter=NEWEST, search_type="hybrid").ainvoke(query),
    ):
        assert found == DOCUMENTS[1:3]
    assert ids(store.similarity_search(query, k=1, filter=lambda document: "year" in document.metadata)) == ["a"]
    assert store.similarity_search_with_score(query, filter=NEWEST) == [(document, 0.0) for document in DOCUMENTS[1:3]]
    assert store.similarity_search_with_relevance_scores(query, filter=NEWEST) == [(each, 0.0) for each in DOCUMENTS[1:3]]


def test_a_threshold_lets_nothing_through_that_nothing_was_compared_with(store):
    assert store.similarity_search("", filter=NEWEST, score_threshold=0.1) == []
    assert ids(store.similarity_search("", filter=NEWEST, score_threshold=0)) == ["b", "c"]


async def test_a_retriever_does_the_same_and_says_that_nothing_was_ranked(store):
    retriever = ColBERTRetriever(index=store.index, filter=NEWEST, evidence=True)
    for found in (retriever.invoke(" "), await retriever.ainvoke(" ")):
        assert ids(found) == ["b", "c"]
        assert [(d.metadata["score"], d.metadata["relevance_score"], d.metadata["rank"]) for d in found] == [
            (0, 0, 1),
            (0, 0, 2),
        ]
        assert "evidence" not in found[0].metadata
    (first,) = retriever.invoke("", k=1, filter={"year": 2020})
    assert first.id == "a"
    window = retriever.invoke("", text="window", max_characters=100)[1]
    assert 0 < len(window.page_content) <= 100
    assert DOCUMENTS[2].page_content.startswith(window.page_content)


@pytest.mark.parametrize("filter", [None, {}])
def test_a_blank_query_without_a_filter_finds_nothing_and_the_log_says_why(store, caplog, filter):
    with caplog.at_level(logging.WARNING):
        assert store.similarity_search(" ", filter=filter) == []
        assert ColBERTRetriever(index=store.index, filter=filter).invoke("") == []
    assert (
        caplog.messages == ["The query is empty and there is no filter, so nothing is found; ask with at least one word."] * 2
    )


def test_an_index_of_your_own_that_lists_no_passages_raises_its_own_error(store):
    class Own:
        """What ``PassageIndex`` asks for, and no more."""

        encoder_name = "words"

        def __getattr__(self, name):
            if name == "passages":
                raise AttributeError(name)
            return getattr(store.index, name)

        add, delete, delete_where, explain, search_mean = (lambda self, *_: None,) * 5

        def search(self, *arguments, **options):
            return store.index.search(*arguments, **options)

    retriever = ColBERTRetriever(index=Own())
    assert retriever.invoke("") == []
    with pytest.raises(ValueError, match="is empty"):
        retriever.invoke("", filter=NEWEST)


def test_other_mistakes_beside_a_blank_query_stay_errors(store):
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        store.similarity_search("", k=0)
    with pytest.raises(ValueError, match="min_relevance is a relevance from 0 to 1"):
        store.similarity_search("", score_threshold=2)
    with pytest.raises(ValueError, match="is no operator"):
        store.similarity_search("", filter={"year": {"$near": 1}})
    with pytest.raises(TypeError, match="fetch"):
        store.similarity_search("", fetch=1)


def test_an_agent_goes_on_after_a_blank_query(store):
    class Model(GenericFakeChatModel):
        def bind_tools(self, *_, **__):
            return self

    for retriever, content in ((store.as_retriever(), ""), (store.as_retriever(filter={"year": 2020}), "the cat sat")):
        call = {"name": "search", "args": {"query": ""}, "id": "1"}
        model = Model(messages=iter([AIMessage("", tool_calls=[call]), AIMessage("done")]))
        agent = create_agent(model, [create_retriever_tool(retriever, "search", "search")])
        messages = agent.invoke({"messages": [("user", "list all")]})["messages"]
        assert [message.content for message in messages[-2:]] == [content, "done"]
