"""A retriever and a reranker over the URL of an index that a service has."""

from __future__ import annotations

import pytest
from builders.encoders import SpanEncoder
from builders.nodes import stored_nodes
from builders.service import serving
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

from colbert_core import Index, ServiceUnreachableError
from llama_index_colbert import ColBERTRerank, ColBERTRetriever


@pytest.fixture(scope="module")
def index():
    index = Index.create(None, SpanEncoder())
    ColBERTRetriever(index).add_nodes(stored_nodes())
    return index


@pytest.fixture(scope="module")
def url(index):
    with serving({"wiki": index}, writable=True) as url:
        yield f"{url}/v1/indexes/wiki"


@pytest.fixture(params=["constructor", "from_defaults", "from_index"])
def retriever(request, url):
    make = ColBERTRetriever if request.param == "constructor" else getattr(ColBERTRetriever, request.param)
    made = make(url, similarity_top_k=3)
    yield made
    made.index.close()


def seen(found):
    return [(scored.score, scored.node.to_dict()) for scored in found]


async def test_a_retriever_over_a_url_finds_what_one_over_the_index_finds(retriever, index):
    local = ColBERTRetriever(index, similarity_top_k=3)
    for question in ("a dog barks", "cat bird sea"):
        assert seen(retriever.retrieve(question)) == seen(await retriever.aretrieve(question)) == seen(local.retrieve(question))


def test_filters_and_evidence_come_through(url, index):
    filters = MetadataFilters(filters=[MetadataFilter(key="year", value=2021)])
    for mode in ("maxsim", "hybrid"):
        options = {"filters": filters, "evidence": True, "mode": mode, "text": "window"}
        remote = ColBERTRetriever(url, **options)
        assert seen(remote.retrieve("a dog")) == seen(ColBERTRetriever(index, **options).retrieve("a dog")) != []
        remote.index.close()


def test_nodes_are_added_over_a_url(retriever, index):
    assert retriever.add_nodes([TextNode(id_="zebra", text="a zebra grazes")]) == ["zebra"]
    assert retriever.retrieve("a zebra grazes")[0].node_id == "zebra"
    assert retriever.index.delete(["zebra"]) == 1 and "zebra" not in index


async def test_in_a_query_engine_the_text_reaches_the_model(retriever):
    engine = RetrieverQueryEngine.from_args(retriever, llm=MockLLM())
    assert "a dog barks at night" in str(engine.query("a dog barks"))
    assert str(engine.query("a dog barks")) == str(await engine.aquery("a dog barks"))


def test_a_reranker_over_a_url_scores_as_one_over_the_index(url, index):
    found = [NodeWithScore(node=node, score=0.5) for node in [*stored_nodes(), TextNode(id_="zebra", text="a zebra and a dog")]]
    remote = ColBERTRerank(index=url)
    ours = ColBERTRerank(index=index).postprocess_nodes(found, query_str="a dog barks")
    assert seen(remote.postprocess_nodes(found, query_str="a dog barks")) == seen(ours)
    remote.index.close()


def test_mistakes_are_said_at_once(url):
    with pytest.raises(ValueError, match="has its own model"):
        ColBERTRetriever.from_index(url, model="some model")
    with pytest.raises(ServiceUnreachableError, match="Nothing answers"):
        ColBERTRetriever("http://127.0.0.1:9/v1/indexes/wiki")
