"""``ColBERTRerank`` over what another retriever found, alone and in chains."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path

import pytest
from builders.documents import DOCUMENTS, ids
from builders.encoders import WordEncoder
from builders.texts import CATS, RUST
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ValidationError

from colbert_core import IndexNotFoundError
from langchain_colbert import ColBERTRerank, ColBERTRetriever, ColBERTVectorStore


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


# Over an index, by its vectors


class Unread(WordEncoder):
    """An encoder that reads what is added, and after that only what is named."""

    allowed = None

    def encode_passages(self, texts, **options):
        assert self.allowed is None or set(texts) <= set(self.allowed), texts
        return super().encode_passages(texts, **options)


HOLDERS = {
    "Index": lambda store: store.index,
    "ColBERTVectorStore": lambda store: store,
    "ColBERTRetriever": lambda store: ColBERTRetriever(index=store.index),
}


@pytest.mark.parametrize("holder", HOLDERS)
async def test_documents_of_an_index_are_scored_by_its_vectors_as_a_search_does(holder):
    encoder = Unread()
    store = ColBERTVectorStore.from_documents(DOCUMENTS, model=encoder)
    encoder.allowed = []
    documents = store.get_by_ids(store.index.ids())
    reranker = ColBERTRerank(top_n=2, index=HOLDERS[holder](store))
    found = reranker.compress_documents(documents, "bird sings")
    expected = store.index.search("bird sings", 2)
    assert [(document.id, document.metadata["relevance_score"]) for document in found] == [
        (hit.passage.id, hit.relevance) for hit in expected
    ]
    assert await reranker.acompress_documents(documents, "bird sings") == found
    base = ColBERTRetriever(index=store.index, k=4)
    chain = ContextualCompressionRetriever(base_compressor=reranker, base_retriever=base)
    assert ids(chain.invoke("bird sings")) == ids(found)


def test_documents_that_are_new_changed_or_without_an_id_are_read_by_the_model_of_the_index():
    encoder = Unread()
    store = ColBERTVectorStore.from_texts(["a dog barks", "a cat purrs"], ids=["d", "0"], model=encoder)
    documents = [
        Document("a bird sings"),
        Document("a dog sings", id="d"),
        Document("a cat purrs", id="0"),
        Document("a whale", id="w"),
    ]
    encoder.allowed = ["a bird sings", "a dog sings", "a whale"]
    found = ColBERTRerank(top_n=None, index=store).compress_documents(documents, "bird sings")
    encoder.allowed = None
    expected = ColBERTRerank(top_n=None, model=encoder).compress_documents(documents, "bird sings")
    assert ids(found) == ids(expected)
    assert [document.id for document in documents] == [None, "d", "0", "w"]
    scores = [[document.metadata["relevance_score"] for document in each] for each in (found, expected)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_an_index_brings_its_model_and_is_no_setting(words, stanford, tmp_path):
    store = ColBERTVectorStore(words)
    for wrong in ({"model": words}, {"device": "cpu"}):
        with pytest.raises(ValidationError, match="its own model"):
            ColBERTRerank(index=store, **wrong)
    with pytest.raises(ValidationError, match="index"):
        ColBERTRerank(index=3)
    for path in ("wiki.idx", Path("wiki.idx")):
        with pytest.raises(ValidationError, match=r"not a path; open it: index=Index.open\('wiki.idx'\)"):
            ColBERTRerank(index=path)
    with pytest.raises(IndexNotFoundError, match="wikki"):
        ColBERTRerank(index=ColBERTVectorStore(words, persist_directory=tmp_path / "wikki"))
    assert "index" not in ColBERTRerank(index=store).model_dump()
    held = ColBERTRerank(index=ColBERTVectorStore.from_texts(["the cat"], ids=["a"], model=stanford))
    for copied in (copy.deepcopy(held), pickle.loads(pickle.dumps(held))):
        assert copied.index.ids() == ["a"]
        assert copied.compress_documents([Document("the cat", id="a")], "cat")
