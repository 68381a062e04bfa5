"""Long documents: by default all of the text comes back, on request the part that matched."""

from __future__ import annotations

import pytest
from builders.documents import ids
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.language_models import ParrotFakeChatModel
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from pydantic import ValidationError

from langchain_colbert import ColBERTContextCompressor, ColBERTRetriever, ColBERTVectorStore, without_scores

NEEDLE = "Cats purr when they are content."
FILLER = "The tide follows the moon across the bay. "
LONG = FILLER * 200 + NEEDLE + " " + FILLER * 200
SHORT = "Rust is a systems language."
QUESTION = "Why do cats purr?"


@pytest.fixture(scope="module")
def store(default_encoder):
    documents = [Document(LONG, metadata={"start": 5, "span": "mine"}, id="long"), Document(SHORT, id="short")]
    return ColBERTVectorStore.from_documents(documents, model=default_encoder)


def part_of(document):
    start, end = document.metadata["colbert"]["span"]
    first, last = document.metadata["colbert"]["window"]
    assert document.page_content == LONG[start:end]
    assert start <= first < last <= end
    return document.page_content


async def test_a_retriever_returns_the_part_that_matched_with_its_place_in_the_whole(store):
    retriever = ColBERTRetriever(index=store.index, k=2, text="window")
    long, short = retriever.invoke(QUESTION)
    assert NEEDLE in part_of(long)
    assert 1800 < len(long.page_content) <= 2000
    assert long.page_content.startswith("The tide")
    assert long.page_content.endswith("bay.")
    assert (long.metadata["start"], long.metadata["span"], long.metadata["rank"]) == (5, "mine", 1)
    assert short.page_content == SHORT
    assert short.metadata["colbert"]["span"] == [0, len(SHORT)]
    assert await retriever.ainvoke(QUESTION) == [long, short]


async def test_the_budget_and_whole_texts_may_be_asked_for_in_each_call(store):
    retriever = ColBERTRetriever(index=store.index, k=1, text="window", max_characters=1000)
    (found,) = retriever.invoke(QUESTION)
    assert NEEDLE in part_of(found)
    assert 800 < len(found.page_content) <= 1000
    assert len(retriever.invoke(QUESTION, max_characters=1500)[0].page_content) > 1200
    assert (await retriever.ainvoke(QUESTION, text="passage"))[0].page_content == LONG
    by_default = ColBERTRetriever(index=store.index, k=1)
    assert by_default.invoke(QUESTION)[0].page_content == LONG
    assert set(by_default.invoke(QUESTION)[0].metadata["colbert"]) >= {"score", "rank"}
    assert part_of(by_default.invoke(QUESTION, text="window")[0])
    assert part_of(ColBERTRetriever(index=store.index, k=1, search_kwargs={"text": "window"}).invoke(QUESTION)[0])


def test_the_window_stays_whole_where_it_is_above_the_budget(store):
    (found,) = ColBERTRetriever(index=store.index, k=1, text="window", max_characters=1).invoke(QUESTION)
    assert NEEDLE in part_of(found)
    assert found.metadata["colbert"]["span"] == found.metadata["colbert"]["window"]


async def test_every_search_of_a_store_and_its_retrievers_do_the_same(store):
    cut = {"text": "window", "max_characters": 1200}
    expected = ColBERTRetriever(index=store.index, k=1, **cut).invoke(QUESTION)[0].page_content
    for found in (
        store.similarity_search(QUESTION, k=1, **cut)[0],
        store.similarity_search_with_score(QUESTION, k=1, **cut)[0][0],
        store.similarity_search_with_relevance_scores(QUESTION, k=1, **cut)[0][0],
        store.max_marginal_relevance_search(QUESTION, k=1, **cut)[0],
        store.as_retriever(k=1, **cut).invoke(QUESTION)[0],
        store.as_retriever(search_type="mmr", k=1).invoke(QUESTION, **cut)[0],
        store.as_retriever(k=1, score_threshold=0.1, **cut).invoke(QUESTION)[0],
        (await store.asimilarity_search(QUESTION, k=1, **cut))[0],
        (await store.asimilarity_search_with_relevance_scores(QUESTION, k=1, **cut))[0][0],
        (await store.as_retriever(k=1, **cut).ainvoke(QUESTION))[0],
    ):
        assert part_of(found) == expected
        assert "score" not in found.metadata
    assert store.similarity_search(QUESTION, k=1)[0].page_content == LONG


def test_a_prompt_has_the_part_and_not_the_whole(store):
    retriever = ColBERTRetriever(index=store.index, k=2, text="window")
    prompt = ChatPromptTemplate.from_template("Context: {context}\n\nQuestion: {question}")
    chain = {"context": retriever, "question": RunnablePassthrough()} | prompt | ParrotFakeChatModel()
    answer = chain.invoke(QUESTION).content
    assert NEEDLE in answer
    assert len(answer) < 2500 < len(LONG)


def test_evidence_has_its_places_in_the_part(store):
    (found,) = ColBERTRetriever(index=store.index, k=1, text="window", evidence=True).invoke(QUESTION)
    evidence = found.metadata["evidence"]
    assert any("purr" in one["text"] for one in evidence["highlights"])
    assert all(found.page_content[one["start"] : one["end"]] == one["text"] for one in evidence["highlights"])
    start, end = evidence["window"]
    assert NEEDLE in found.page_content[start:end]


def test_a_part_that_is_written_back_does_not_replace_the_whole(default_encoder, store):
    fresh = ColBERTVectorStore.from_documents(without_scores(store.similarity_search(QUESTION)), model=default_encoder)
    retriever = ColBERTRetriever(index=fresh.index, k=2, text="window")
    long, short = retriever.invoke(QUESTION)
    compressor = ColBERTContextCompressor(model=default_encoder, max_tokens=10)
    compressing = ContextualCompressionRetriever(base_compressor=compressor, base_retriever=fresh.as_retriever(k=1))
    for part in (long, compressing.invoke(QUESTION)[0], *fresh.similarity_search(QUESTION, k=1, text="window")):
        for target in (fresh, retriever):
            with pytest.raises(ValueError, match=r"'long' has only a part of the text.*text='passage'"):
                target.add_documents([part])
    assert fresh.get_by_ids(["long"])[0].page_content == LONG
    short.metadata["seen"] = True
    assert fresh.add_documents([short]) == ["short"]  # a short one is whole
    assert fresh.add_documents([long], ids=["part"]) == ["part"]
    assert sorted(ids(fresh.get_by_ids(["long", "short", "part"]))) == ["long", "part", "short"]
    assert dict(fresh.get_by_ids(["part"])[0].metadata) == {"start": 5, "span": "mine"}
    other = ColBERTRetriever.from_documents(retriever.invoke(QUESTION), model=default_encoder, k=1)
    assert NEEDLE in other.invoke(QUESTION)[0].page_content


def test_mistakes_are_errors_not_silence(store):
    retriever = ColBERTRetriever(index=store.index)
    with pytest.raises(ValidationError, match="'passage' or 'window'"):
        ColBERTRetriever(index=store.index, text="windows")
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        ColBERTRetriever(index=store.index, max_characters=0)
    with pytest.raises(ValueError, match="text must be 'passage'.*got 'windows'"):
        retriever.invoke(QUESTION, text="windows")
    with pytest.raises(ValueError, match="text must be 'passage'.*got 'windows'"):
        store.max_marginal_relevance_search(QUESTION, text="windows")
    with pytest.raises(ValueError, match="max_characters must be at least 1, got 0"):
        store.similarity_search(QUESTION, max_characters=0)
    with pytest.raises(
        TypeError, match="A search takes k, filter, score_threshold, text, max_characters, mode and weight, got window"
    ):
        store.similarity_search(QUESTION, window=True)
