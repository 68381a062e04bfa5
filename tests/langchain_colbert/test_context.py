"""``ColBERTContextCompressor``: what stays of documents, alone and in chains."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
from builders.texts import CATS, RUST
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.documents import Document
from langchain_core.language_models import ParrotFakeChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from pydantic import ValidationError

from langchain_colbert import ColBERTContextCompressor, ColBERTRerank, ColBERTRetriever


@pytest.fixture(scope="module")
def documents():
    return [Document(CATS, id="cats", metadata={"page": 1, "lock": threading.Lock()}), Document(RUST, id="rust")]


@pytest.fixture(scope="module")
def compressor(default_encoder):
    return ColBERTContextCompressor(model=default_encoder, max_tokens=16)


def test_only_the_sentences_that_matter_stay_with_ids_metadata_and_offsets(compressor, documents):
    found = compressor.compress_documents(documents, "Why do cats purr?")
    assert [document.id for document in found] == ["cats"]
    (cats,) = found
    assert "They purr when they are content." in cats.page_content
    assert len(cats.page_content) < len(CATS)
    assert cats.metadata["page"] == 1
    assert " … ".join(CATS[start:end] for start, end in cats.metadata["excerpt_spans"]) == cats.page_content
    assert documents[0].page_content == CATS
    assert "excerpt_spans" not in documents[0].metadata


def test_documents_keep_their_order(default_encoder, documents):
    everything = ColBERTContextCompressor(model=default_encoder, keep_ratio=1)
    assert [one.page_content for one in everything.compress_documents(documents[::-1], "cats")] == [RUST, CATS]
    assert [one.id for one in everything.compress_documents(documents[::-1], "cats")] == ["rust", "cats"]


async def test_it_works_in_a_chain_behind_a_retriever_and_a_reranker(default_encoder, documents):
    compressor = ColBERTContextCompressor(model=default_encoder, max_tokens=10)  # one sentence
    plain = [Document(document.page_content, id=document.id) for document in documents]
    base = ColBERTRetriever.from_documents(plain, model=default_encoder, k=2)
    reranker = ColBERTRerank(model=default_encoder, top_n=1)
    retriever = ContextualCompressionRetriever(
        base_compressor=DocumentCompressorPipeline(transformers=[reranker, compressor]), base_retriever=base
    )
    prompt = ChatPromptTemplate.from_template("Context: {context} Question: {question}")
    context = retriever | (lambda found: " ".join(document.page_content for document in found))
    chain = {"context": context, "question": RunnablePassthrough()} | prompt | ParrotFakeChatModel() | StrOutputParser()
    answer = chain.invoke("Why do cats purr?")
    assert "They purr when they are content." in answer
    assert "farms" not in answer
    assert "mammals" not in answer
    assert await chain.ainvoke("Why do cats purr?") == answer


def test_budgets(default_encoder, documents):
    texts = [document.page_content for document in documents]
    n_all = sum(default_encoder.count_tokens(text) for text in texts)

    def n_kept(**budget):
        found = ColBERTContextCompressor(model=default_encoder, **budget).compress_documents(documents, "Why do cats purr?")
        return sum(default_encoder.count_tokens(document.page_content) for document in found)

    assert 0 < n_kept() <= 0.35 * n_all
    assert 0 < n_kept(keep_ratio=0.6) <= 0.6 * n_all
    assert 0 < n_kept(max_tokens=12) <= 12
    counted = ColBERTContextCompressor(model=default_encoder, max_tokens=40, count_tokens=len)
    assert sum(len(one.page_content) for one in counted.compress_documents(documents, "Why do cats purr?")) <= 40
    (best,) = ColBERTContextCompressor(model=default_encoder, max_tokens=1).compress_documents(documents, "Why do cats purr?")
    assert best.page_content == "They purr when they are content."


@pytest.mark.parametrize("n_hits", [1, 2, 3])
def test_a_chain_that_found_short_texts_reads_the_best_of_them(default_encoder, n_hits):
    texts = ["Cats purr when they are content.", "Dogs wag their tails when happy.", "Rust is a systems language."]
    found = ColBERTContextCompressor(model=default_encoder).compress_documents(
        [Document(text) for text in texts[:n_hits]], "Why do cats purr?"
    )
    assert [document.page_content for document in found] == [texts[0]]


def test_a_long_best_sentence_stays_and_no_short_one_takes_its_place(default_encoder):
    texts = [
        "The refund window is thirty days from delivery, provided that the goods are unused and in their original packaging.",
        "Our shop sells shoes.",
        "We open at nine.",
    ]
    compressor = ColBERTContextCompressor(model=default_encoder, max_tokens=15)
    found = compressor.compress_documents([Document(text) for text in texts], "How long is the refund window?")
    assert [document.page_content for document in found] == texts[:1]


def test_no_documents_need_no_model():
    assert ColBERTContextCompressor(model="/no/such/model", max_tokens=5).compress_documents([], "cats") == []


def test_copies_and_pickles_work_and_share_what_is_loaded(compressor, documents, stanford_folder):
    expected = compressor.compress_documents(documents, "Why do cats purr?")
    assert copy.deepcopy(compressor).compress_documents(documents, "Why do cats purr?") == expected
    named = ColBERTContextCompressor(model=stanford_folder, device="cpu", keep_ratio=1)
    again = pickle.loads(pickle.dumps(named))
    assert again.compress_documents(documents, "cats") == named.compress_documents(documents, "cats")


def test_bad_settings_are_refused(compressor, documents):
    with pytest.raises(ValidationError, match="max_tokens or keep_ratio, one of them"):
        ColBERTContextCompressor(max_tokens=5, keep_ratio=0.5)
    for settings in ({"max_tokens": 0}, {"keep_ratio": 0}, {"keep_ratio": 1.5}, {"ratio": 0.5}):
        with pytest.raises(ValidationError):
            ColBERTContextCompressor(**settings)
    with pytest.raises(ValueError, match="is empty"):
        compressor.compress_documents(documents, " ")
