"""``ColBERTRerank`` over what another retriever found, alone and in chains."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
from builders.documents import DOCUMENTS, ids
from builders.texts import CATS, RUST
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ValidationError

from langchain_colbert import ColBERTRerank


class Fixed(BaseRetriever):
    """Another retriever: it always finds the same."""

    documents: list[Document]

    def _get_relevant_documents(self, query, *, run_manager, k=99):
        return self.documents[:k]


async def test_in_a_compression_retriever_the_best_come_first_with_a_score(words):
    reranking = ContextualCompressionRetriever(
        base_compressor=ColBERTRerank(model=words, top_n=2), base_retriever=Fixed(documents=DOCUMENTS)
    )
    documents = reranking.invoke("bird sings")
    assert ids(documents)[0] == "bird"
    assert len(documents) == 2
    assert documents[0].metadata == {"page": 3, "relevance_score": pytest.approx(1)}
    assert await reranking.ainvoke("bird sings") == documents
    assert len(reranking.invoke("bird sings", k=1)) == 1


def test_in_a_compressor_pipeline(words):
    pipeline = DocumentCompressorPipeline(
        transformers=[ColBERTRerank(model=words, top_n=3), ColBERTRerank(model=words, top_n=1)]
    )
    assert ids(pipeline.compress_documents(DOCUMENTS, "bird sings")) == ["bird"]


def test_reranking_changes_no_input(words):
    documents = copy.deepcopy(DOCUMENTS)
    for document in ColBERTRerank(model=words).compress_documents(documents, "bird sings"):
        document.metadata["page"] = "spoilt"
    assert documents == DOCUMENTS


def test_documents_without_ids_and_equal_documents_are_fine(words):
    documents = [Document("dog barks"), Document("dog barks"), Document("cat")]
    found = ColBERTRerank(model=words, top_n=None).compress_documents(documents, "dog barks")
    assert [document.page_content for document in found] == ["dog barks", "dog barks", "cat"]


def test_rerank_input_is_checked(words):
    assert ColBERTRerank(model=words).compress_documents([], "dog") == []
    with pytest.raises(ValueError, match="is empty"):
        ColBERTRerank(model=words).compress_documents(DOCUMENTS, " ")
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        ColBERTRerank(top_n=0)
    with pytest.raises(ValidationError, match="topn"):
        ColBERTRerank(topn=3)


def test_a_copied_and_a_pickled_reranker_work(stanford):
    rerank = ColBERTRerank(model=stanford)
    expected = rerank.compress_documents(DOCUMENTS, "the cat")
    assert copy.deepcopy(rerank).compress_documents(DOCUMENTS, "the cat") == expected
    assert pickle.loads(pickle.dumps(rerank)).compress_documents(DOCUMENTS, "the cat") == expected


def test_it_says_which_words_matched_on_request(default_encoder):
    documents = [Document(CATS, id="cats", metadata={"page": 1, "lock": threading.Lock()}), Document(RUST, id="rust")]
    (best,) = ColBERTRerank(model=default_encoder, top_n=1, evidence=True).compress_documents(documents, "Why do cats purr?")
    assert best.id == "cats"
    assert any("purr" in one["text"] for one in best.metadata["evidence"]["highlights"])
