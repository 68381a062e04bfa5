"""Keywords: each is used, or refused with the one that was meant."""

from __future__ import annotations

import pytest
from builders.nodes import nodes
from llama_index.core import QueryBundle
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from colbert_core import FilterWarning
from llama_index_colbert import ColBERTIndex, ColBERTRerank, ColBERTVectorStore


@pytest.fixture(params=["ColBERTIndex", "store.as_index()"])
def index(request, words):
    if request.param == "ColBERTIndex":
        return ColBERTIndex(nodes(), model_name=words)
    store = ColBERTVectorStore(words)
    store.add(nodes())
    return store.as_index()


MAKERS = ["as_retriever", "as_query_engine", "as_chat_engine"]


def nothing():
    return MetadataFilters(filters=[MetadataFilter(key="nothing", value="matches")])


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("similarity_topk", "similarity_top_k"),
        ("simlarity_top_k", "similarity_top_k"),
        ("top_k", "similarity_top_k"),
        ("k", "similarity_top_k"),
        ("filter", "filters"),
        ("where", "filters"),
        ("metadata_filters", "filters"),
        ("node_id", "node_ids"),
        ("doc_id", "doc_ids"),
        ("call_back_manager", "callback_manager"),
    ],
)
def test_the_error_says_which_keyword_was_meant(index, maker, wrong, right):
    with pytest.raises(TypeError, match=f"takes no keyword '{wrong}'; write {right}=..."):
        getattr(index, maker)(**{wrong: 1})


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("name", ["alpha", "sparse_top_k", "persist_dir", "x"])
def test_a_keyword_that_would_do_nothing_is_refused(index, maker, name):
    with pytest.raises(TypeError, match=f"{maker}.* takes no keyword '{name}'"):
        getattr(index, maker)(**{name: 1})


@pytest.mark.parametrize("name", ["node_postprocessors", "response_mode", "llm", "text_qa_template", "memory", "streaming"])
def test_a_keyword_of_an_engine_is_refused_by_a_retriever_which_says_so(index, name):
    with pytest.raises(TypeError, match=f"takes no keyword '{name}': it is one of as_query_engine and as_chat_engine"):
        index.as_retriever(**{name: None})


def test_a_keyword_of_a_chat_engine_is_refused_by_a_query_engine(index):
    with pytest.raises(TypeError, match="'system_prompt'"):
        index.as_query_engine(system_prompt="Be brief.")


async def test_engines_use_the_keywords_of_both(index, words):
    cutoff = SimilarityPostprocessor(similarity_cutoff=0.99)
    engine = index.as_query_engine(similarity_top_k=3, node_postprocessors=[ColBERTRerank(1, words)], response_mode="compact")
    assert len(engine.retrieve(query := QueryBundle("the cat"))) == 1
    assert len(index.as_query_engine(similarity_top_k=3).retrieve(query)) == 3
    with pytest.warns(FilterWarning, match="No passage has the field 'nothing'"):
        assert index.as_query_engine(filters=nothing()).retrieve(query) == []
    assert len(index.as_query_engine(similarity_top_k=3, node_postprocessors=[cutoff]).retrieve(query)) < 3
    for mode in (ChatMode.CONTEXT, ChatMode.CONDENSE_PLUS_CONTEXT, ChatMode.CONDENSE_QUESTION, ChatMode.BEST):
        memory = ChatMemoryBuffer.from_defaults(llm=MockLLM())  # the default's SQLite connection is never closed
        one = {"similarity_top_k": 3, "node_postprocessors": [ColBERTRerank(1, words)], "memory": memory}
        chat = index.as_chat_engine(mode, **one)
        assert len(chat.chat("the cat").source_nodes) == 1
        assert chat.chat("the cat").source_nodes[0].node.node_id == engine.retrieve(query)[0].node.node_id
    memory = ChatMemoryBuffer.from_defaults(llm=MockLLM())
    assert index.as_chat_engine(ChatMode.SIMPLE, memory=memory).chat("hello").source_nodes == []


@pytest.mark.parametrize("name", ["similarity_top_k", "transformation", "filters"])
def test_a_keyword_of_as_index_that_would_do_nothing_is_refused(words, name):
    with pytest.raises(TypeError, match=f"as_index takes no keyword '{name}'"):
        ColBERTVectorStore(words).as_index(**{name: 1})
