"""Keywords: each is used, or refused with the one that was meant."""

from __future__ import annotations

import inspect

import pytest
from builders.nodes import nodes
from llama_index.core import QueryBundle
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.schema import Document
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
@pytest.mark.parametrize("name", ["embed_model", "persist_dir", "x"])
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


BIRD = Document(id_="bird.txt", text="the bird sings")
UPDATES = [
    (
        "update_ref_doc",
        BIRD,
        {"insert_kwarg": {}},
        "update_ref_doc takes no keyword 'insert_kwarg'; .*insert_kwargs and delete_kw",
    ),
    ("update_ref_doc", BIRD, {"show_progress": True}, "update_ref_doc takes no keyword 'show_progress'"),
    ("update_ref_doc", BIRD, {"insert_kwargs": {"batch_size": 9}}, "insert takes no keyword 'batch_size'"),
    ("update_ref_doc", BIRD, {"delete_kwargs": {"filters": None}}, "delete_ref_doc takes no keyword 'filters'"),
    ("update", BIRD, {"x": 1}, "takes no keyword 'x'"),
    (
        "refresh_ref_docs",
        [BIRD],
        {"delete_kwargs": {}},
        "refresh_ref_docs takes no keyword 'delete_kwargs'; .*insert_kwargs and up",
    ),
    ("refresh_ref_docs", [BIRD], {"insert_kwargs": {"x": 1}}, "insert takes no keyword 'x'"),
    ("refresh_ref_docs", [BIRD], {"update_kwargs": {"x": 1}}, "update_ref_doc takes no keyword 'x'"),
    ("refresh", [BIRD], {"x": 1}, "takes no keyword 'x'"),
    ("delete", "bird.txt", {"delete_from_docstore": True}, "delete takes no keyword 'delete_from_docstore'"),
]
UPDATES += [(f"a{method}", *rest) for method, *rest in UPDATES if method in ("update_ref_doc", "refresh_ref_docs")]


@pytest.mark.parametrize(("method", "given", "keywords", "message"), UPDATES)
async def test_a_keyword_that_an_update_would_not_use_is_refused_before_anything_is_deleted(
    index, method, given, keywords, message
):
    index.insert(Document(id_="bird.txt", text="a bird"))
    with pytest.raises(TypeError, match=message):
        if inspect.isawaitable(done := getattr(index, method)(given, **keywords)):
            await done
    assert index.as_retriever(similarity_top_k=9, doc_ids=["bird.txt"]).retrieve("the bird")[0].node.text == "a bird"


@pytest.mark.parametrize("method", ["update_ref_doc", "aupdate_ref_doc", "refresh_ref_docs", "arefresh_ref_docs", "update"])
async def test_updates_take_the_empty_keywords_of_their_steps(index, method):
    index.insert(Document(id_="bird.txt", text="a bird"))
    is_update = "update" in method
    keywords = {"insert_kwargs": {}} | ({"delete_kwargs": {}} if is_update else {"update_kwargs": {"delete_kwargs": {}}})
    done = getattr(index, method)(BIRD if is_update else [BIRD], **keywords)
    if inspect.isawaitable(done):
        await done
    (found,) = index.as_retriever(similarity_top_k=9, doc_ids=["bird.txt"]).retrieve("the bird")
    assert found.node.text == "the bird sings"
    index.delete("bird.txt")
    assert index.as_retriever(similarity_top_k=9, doc_ids=["bird.txt"]).retrieve("the bird") == []


@pytest.mark.parametrize("name", ["similarity_top_k", "transformation", "filters"])
def test_a_keyword_of_as_index_that_would_do_nothing_is_refused(words, name):
    with pytest.raises(TypeError, match=f"as_index takes no keyword '{name}'"):
        ColBERTVectorStore(words).as_index(**{name: 1})
