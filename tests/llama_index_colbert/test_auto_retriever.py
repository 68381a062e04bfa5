"""Filters that a language model writes: LlamaIndex' own auto-retriever over an index, an index from disk, and a store."""

from __future__ import annotations

import asyncio
import datetime
import json

import pytest
from builders.encoders import WordEncoder
from llama_index.core.llms import MockLLM
from llama_index.core.retrievers import VectorIndexAutoRetriever
from llama_index.core.schema import IndexNode, TextNode
from llama_index.core.vector_stores.types import MetadataInfo, VectorStoreInfo

from llama_index_colbert import ColBERTIndex, ColBERTVectorStore

INFO = VectorStoreInfo(
    content_info="letters", metadata_info=[MetadataInfo(name="sent", type="date", description="the day it was sent")]
)


def answering(**query):
    """A model that writes the same query whatever it is asked."""

    class Model(MockLLM):
        def predict(self, *arguments, **keywords):
            return json.dumps(query)

        async def apredict(self, *arguments, **keywords):
            return json.dumps(query)

    return Model()


def nodes():
    values = {
        "a": {"sent": datetime.date(2024, 1, 31), "urgent": True},
        "b": {"sent": datetime.datetime(2024, 2, 1, tzinfo=datetime.UTC), "urgent": False},
        "c": {"sent": "2024-02-01T00:30:00+01:00", "urgent": True},
    }
    return [TextNode(id_=name, text="the cat sat", metadata=metadata) for name, metadata in values.items()]


@pytest.fixture(params=["index", "loaded", "store"])
def index(request, tmp_path):
    if request.param == "store":
        store = ColBERTVectorStore(WordEncoder())
        store.add(nodes())
        return store.as_index()
    made = ColBERTIndex(nodes(), model_name=WordEncoder())
    if request.param == "index":
        return made
    made.persist(tmp_path)
    return ColBERTIndex.load(tmp_path, model_name=WordEncoder())


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], "abc"),
        ([{"key": "sent", "value": "2024-02-01", "operator": ">="}], "b"),
        ([{"key": "sent", "value": "2024-02-01", "operator": "<"}], "ac"),
        ([{"key": "sent", "value": "2024-01-31"}], "a"),
        ([{"key": "urgent", "value": "true"}, {"key": "sent", "value": "2024-01-31T12:00:00Z", "operator": ">"}], "c"),
        ([{"key": "urgent", "value": 0}], "b"),
    ],
)
def test_what_a_model_writes_finds_what_it_means(index, filters, expected):
    llm = answering(query="cat", filters=filters, top_k=3)
    retriever = VectorIndexAutoRetriever(index, vector_store_info=INFO, llm=llm, similarity_top_k=3)
    found = retriever.retrieve("which letters came in february?")
    assert "".join(sorted(scored.node.node_id for scored in found)) == expected
    assert [scored.score for scored in found] == sorted((scored.score for scored in found), reverse=True)
    again = asyncio.run(retriever.aretrieve("which letters came in february?"))
    assert [scored.node.node_id for scored in again] == [scored.node.node_id for scored in found]


def test_an_index_node_gives_its_object():
    target = TextNode(id_="target", text="the dog barks")
    index = ColBERTIndex([IndexNode(id_="p", text="all about cats", index_id="x", obj=target)], model_name=WordEncoder())
    llm = answering(query="cats", filters=[])
    (found,) = VectorIndexAutoRetriever(index, vector_store_info=INFO, llm=llm).retrieve("cats")
    assert found.node.node_id == "target"


def test_the_vector_store_of_an_index_is_the_same_index():
    index = ColBERTIndex(nodes(), model_name=WordEncoder())
    assert index.vector_store.index is index.index
    index.vector_store.delete_nodes(["a"])
    assert len(index.index) == 2
