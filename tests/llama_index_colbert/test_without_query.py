"""A LlamaIndex store and a retriever without a query: nodes by filters, and what a blank query gives."""

from __future__ import annotations

import json
import logging

import pytest
from llama_index.core.llms import MockLLM
from llama_index.core.retrievers import VectorIndexAutoRetriever
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    MetadataInfo,
    VectorStoreInfo,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from llama_index_colbert import ColBERTIndex, ColBERTRetriever, ColBERTVectorStore

MODES = [
    VectorStoreQueryMode.DEFAULT,
    VectorStoreQueryMode.HYBRID,
    VectorStoreQueryMode.TEXT_SEARCH,
    VectorStoreQueryMode.SPARSE,
    VectorStoreQueryMode.MMR,
]


def nodes():
    return [
        TextNode(id_="a", text="the cat sat", metadata={"year": 2020}),
        TextNode(id_="b", text="a dog barks", metadata={"year": 2024}),
        TextNode(id_="c", text="a bird sings", metadata={"year": 2024}),
    ]


def since(year):
    return MetadataFilters(filters=[MetadataFilter(key="year", value=year, operator=FilterOperator.GTE)])


@pytest.fixture
def store(words):
    store = ColBERTVectorStore(words)
    store.add(nodes())
    return store


def ids(found):
    return [node.node_id for node in found]


async def test_nodes_are_given_and_deleted_by_ids_and_filters(store):
    assert ids(store.get_nodes()) == ["a", "b", "c"]
    assert ids(store.get_nodes(filters=since(2021))) == ids(await store.aget_nodes(filters=since(2021))) == ["b", "c"]
    assert ids(store.get_nodes(["c", "a"], since(2021))) == ids(await store.aget_nodes(["c", "a"], since(2021))) == ["c"]
    assert store.get_nodes(["b"]) == [nodes()[1]]
    store.delete_nodes(["a", "c"], since(2021))
    assert ids(store.get_nodes()) == ["a", "b"]
    await store.adelete_nodes(filters=since(2021))
    assert ids(store.get_nodes()) == ["a"]
    store.clear()
    assert store.get_nodes() == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("query", ["", " ", "\u200b"])
def test_a_blank_query_with_a_filter_gives_the_filtered_nodes_in_their_order(store, mode, query):
    asked = VectorStoreQuery(query_str=query, similarity_top_k=2, filters=since(2020), mode=mode)
    result = store.query(asked)
    assert (result.ids, result.similarities, ids(result.nodes)) == (["a", "b"], [0.0, 0.0], ["a", "b"])
    by_ids = VectorStoreQuery(query_str=query, similarity_top_k=2, node_ids=["c"], mode=mode)
    assert store.query(by_ids).ids == ["c"]


@pytest.mark.parametrize("filters", [None, MetadataFilters(filters=[])])
def test_without_a_filter_there_is_nothing_and_the_log_says_why(store, caplog, filters):
    with caplog.at_level(logging.WARNING):
        assert store.query(VectorStoreQuery(query_str=" ", similarity_top_k=2, filters=filters)).ids == []
        assert ColBERTRetriever(store.index, filters=filters).retrieve(" ") == []
    assert (
        caplog.messages == ["The query is empty and there is no filter, so nothing is found; ask with at least one word."] * 2
    )


async def test_retrievers_do_the_same(store, words):
    index = ColBERTIndex(nodes(), model_name=words)
    for retriever in (
        ColBERTRetriever(store.index, 2, since(2021), evidence=True),
        index.as_retriever(2, since(2021), mode="words"),
        index.as_retriever(2, since(2021), text="window", mode="maxsim"),
        store.as_index().as_retriever(similarity_top_k=2, filters=since(2021)),
    ):
        for found in (retriever.retrieve(""), await retriever.aretrieve(" ")):
            assert [(node.node_id, node.score) for node in found] == [("b", 0.0), ("c", 0.0)]
    assert ids(ColBERTRetriever(store.index, 2, node_ids=["c"]).retrieve("")) == ["c"]
    assert ColBERTRetriever(store.index, 2, node_ids=[]).retrieve("") == []
    assert ids(ColBERTRetriever(store.index, 2, doc_ids=["b"]).retrieve("")) == ["b"]


@pytest.mark.parametrize(("filters", "expected"), [([{"key": "year", "value": 2024}], ["b", "c"]), ([], [])])
def test_an_auto_retriever_whose_llm_wants_a_filter_alone_gets_what_it_matches(store, filters, expected):
    class LLM(MockLLM):
        def predict(self, *_, **__):
            return json.dumps({"query": "", "filters": filters, "top_k": 2})

    info = VectorStoreInfo(content_info="pets", metadata_info=[MetadataInfo(name="year", type="int", description="year")])
    retriever = VectorIndexAutoRetriever(store.as_index(), vector_store_info=info, llm=LLM())
    assert ids(retriever.retrieve("all of 2024")) == expected


def test_keywords_of_another_mode_stay_errors_beside_a_blank_query(store):
    with pytest.raises(TypeError, match="query takes no keyword 'tau'"):
        store.query(VectorStoreQuery(query_str="", similarity_top_k=2), tau=1)
    with pytest.raises(TypeError, match="'tau'"):
        store.query(VectorStoreQuery(query_str="", similarity_top_k=2, mode=VectorStoreQueryMode.MMR), tau=1)
