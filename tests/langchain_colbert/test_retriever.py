"""``ColBERTRetriever`` of LangChain, alone and in chains with LangChain's own fake models."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading

import pytest
from builders.documents import DOCUMENTS, ids
from builders.encoders import WordEncoder
from builders.texts import CATS, RUST
from langchain_core.documents import Document
from langchain_core.language_models import ParrotFakeChatModel
from langchain_core.load import dumpd
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnablePassthrough
from langchain_tests.integration_tests import RetrieversIntegrationTests
from pydantic import ValidationError

from colbert_core import Index
from langchain_colbert import ColBERTRetriever


@pytest.fixture
def retriever(words):
    return ColBERTRetriever.from_documents(DOCUMENTS, model=words, k=3)


class TestStandard(RetrieversIntegrationTests):
    @property
    def retriever_constructor(self):
        return ColBERTRetriever

    @property
    def retriever_constructor_params(self):
        index = Index.create(None, WordEncoder())
        ColBERTRetriever(index=index).add_documents(DOCUMENTS)
        return {"index": index}

    @property
    def retriever_query_example(self):
        return "the cat"


def test_the_document_that_matches_comes_first_with_its_id_and_metadata(retriever):
    documents = retriever.invoke("dog barks")
    assert ids(documents)[0] == "dog"
    assert len(documents) == 3
    assert documents[0].page_content == "a dog barks at night"
    assert documents[0].metadata["page"] == 2


def test_score_relevance_and_rank_are_plain_json_numbers(retriever):
    first, second, _ = retriever.invoke("dog barks")
    assert first.metadata["score"] == pytest.approx(2)
    assert first.metadata["relevance_score"] == pytest.approx(1)
    assert (first.metadata["rank"], second.metadata["rank"]) == (1, 2)
    assert json.loads(json.dumps(first.metadata)) == first.metadata
    first.model_dump_json()


async def test_k_of_one_call_beats_the_field_sync_and_async(retriever):
    assert len(retriever.invoke("dog", k=1)) == 1
    assert len(await retriever.ainvoke("dog", k=1)) == 1
    assert len(retriever.invoke("dog", k=99)) == 5
    assert len(await retriever.ainvoke("dog")) == len(retriever.invoke("dog")) == 3


async def test_batches_async_batches_and_bound_arguments_agree(retriever):
    queries = ["dog barks", "cat mat", "bird song"] * 8
    expected = [retriever.invoke(query) for query in queries]
    assert retriever.batch(queries, config={"max_concurrency": 8}) == expected
    assert await retriever.abatch(queries) == expected
    assert len(retriever.bind(k=2).invoke("dog")) == 2


def test_k_can_be_configured_at_run_time(retriever):
    configurable = retriever.configurable_fields(k=ConfigurableField(id="k"))
    assert len(configurable.invoke("dog", config={"configurable": {"k": 2}})) == 2
    assert len(configurable.invoke("dog")) == 3


async def test_the_event_loop_is_free_while_a_search_runs(retriever, words, monkeypatch):
    ticked = threading.Event()
    encode = words.encode_queries

    def encode_when_the_loop_has_ticked(texts):
        assert ticked.wait(10), "the search held the event loop"
        return encode(texts)

    monkeypatch.setattr(words, "encode_queries", encode_when_the_loop_has_ticked)
    search = asyncio.create_task(retriever.ainvoke("dog barks"))
    await asyncio.sleep(0.01)
    ticked.set()
    assert ids(await search)[0] == "dog"


def test_from_texts_takes_ids_and_metadata(words):
    retriever = ColBERTRetriever.from_texts(["dog barks", "cat purrs"], [{"n": 1}, {"n": 2}], ids=["d", "c"], model=words, k=1)
    (found,) = retriever.invoke("cat")
    assert (found.id, found.metadata["n"]) == ("c", 2)


def test_texts_without_ids_get_ids_that_last(words):
    retriever = ColBERTRetriever.from_texts(["dog barks", "dog barks"], model=words)
    first, again = (sorted(ids(retriever.invoke("dog"))) for _ in range(2))
    assert first == again
    assert len(set(first)) == 2


def test_adding_under_a_known_id_replaces(retriever):
    assert retriever.add_documents([Document("a whale sings", id="bird")]) == ["bird"]
    assert ids(retriever.invoke("whale", k=1)) == ["bird"]
    assert len(retriever.invoke("a", k=99)) == 5


def test_an_empty_collection_finds_nothing(words):
    assert ColBERTRetriever.from_texts([], model=words).invoke("dog") == []


def test_mistakes_are_errors_not_silence(retriever, words):
    with pytest.raises(ValidationError, match="top_k"):
        ColBERTRetriever(index=retriever.index, top_k=3)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        ColBERTRetriever(index=retriever.index, k=0)
    with pytest.raises(ValidationError, match="Index"):
        ColBERTRetriever(index="wiki")
    with pytest.raises(TypeError, match="top_k"):
        retriever.invoke("dog", top_k=3)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        retriever.invoke("dog", k=0)
    assert retriever.invoke("  ") == []
    with pytest.raises(ValueError, match="There are 2 texts but 1 ids"):
        ColBERTRetriever.from_texts(["a", "b"], ids=["x"], model=words)
    with pytest.raises(ValueError, match="There are 1 texts but 2 metadatas"):
        ColBERTRetriever.from_texts(["a"], [{}, {}], model=words)
    with pytest.raises(TypeError, match="texts must be a list of strings"):
        ColBERTRetriever.from_texts("dog", model=words)
    with pytest.raises(ValueError, match="stand more than once"):
        ColBERTRetriever.from_texts(["a", "b"], ids=["x", "x"], model=words)


async def test_an_unknown_keyword_is_an_error_in_async_too(retriever):
    with pytest.raises(TypeError, match="top_k"):
        await retriever.ainvoke("dog", top_k=3)


async def test_events_name_the_retriever_and_its_model(retriever):
    events = [event async for event in retriever.astream_events("dog", version="v2")]
    assert [event["event"] for event in events] == ["on_retriever_start", "on_retriever_end"]
    assert events[0]["metadata"]["ls_vector_store_provider"] == "colbert"
    assert events[0]["metadata"]["ls_embedding_model"] == "words"


def test_a_deep_copied_and_a_pickled_retriever_work(stanford):
    retriever = ColBERTRetriever.from_documents(DOCUMENTS, model=stanford)
    expected = retriever.invoke("the cat")
    assert copy.deepcopy(retriever).invoke("the cat") == expected
    assert pickle.loads(pickle.dumps(retriever)).invoke("the cat") == expected


def test_a_checkpoint_folder_is_a_model(stanford_folder):
    retriever = ColBERTRetriever.from_texts(["the cat sat", "dogs bark"], model=str(stanford_folder), k=1)
    assert len(retriever.invoke("cat")) == 1


PROMPT = ChatPromptTemplate.from_template("Context:\n{context}\nQuestion: {question}")


async def test_in_a_rag_chain_the_retrieved_text_reaches_the_llm(retriever):
    context = retriever | (lambda documents: "\n".join(document.page_content for document in documents))
    chain = {"context": context, "question": RunnablePassthrough()} | PROMPT | ParrotFakeChatModel() | StrOutputParser()
    answer = chain.invoke("what does a dog do")
    assert answer.splitlines()[1] == "a dog barks at night"
    assert "Question: what does a dog do" in answer
    assert await chain.ainvoke("what does a dog do") == answer
    assert "".join(chain.stream("what does a dog do")) == answer


def test_a_retriever_says_which_words_matched_on_request(default_encoder):
    documents = [Document(CATS, id="cats", metadata={"page": 1}), Document(RUST, id="rust")]
    retriever = ColBERTRetriever.from_documents(documents, model=default_encoder, k=1)
    (plain,) = retriever.invoke("Why do cats purr?")
    assert "evidence" not in plain.metadata
    (found,) = ColBERTRetriever(index=retriever.index, k=1, evidence=True).invoke("Why do cats purr?")
    evidence = found.metadata["evidence"]
    assert json.loads(json.dumps(found.metadata)) == found.metadata
    assert dumpd(found)
    assert any("purr" in one["text"] for one in evidence["highlights"])
    assert all(found.page_content[one["start"] : one["end"]] == one["text"] for one in evidence["highlights"])
    assert evidence["score"] == pytest.approx(found.metadata["score"], abs=1e-4)
