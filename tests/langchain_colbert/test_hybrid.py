"""Words and meanings together: the modes of the retriever and the store, what their scores say, and what is refused."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from builders.documents import TAGGED_DOCUMENTS, ids
from builders.texts import IDENTIFIER, WITH_IDENTIFIER
from langchain_core.documents import Document
from langchain_core.runnables import ConfigurableField
from pydantic import ValidationError

from colbert_core import MODES, Index, Passage, Reranker
from langchain_colbert import ColBERTRerank, ColBERTRetriever, ColBERTVectorStore, ragatouille, without_scores

TICKET = Document(WITH_IDENTIFIER, metadata={"page": 6, "kind": "ticket"}, id="ticket")


@pytest.fixture
def store(words):
    return ColBERTVectorStore.from_documents([*TAGGED_DOCUMENTS, TICKET], model=words)


@pytest.fixture
def retriever(store):
    return ColBERTRetriever(index=store.index)


def hits(store, mode, k=6, **arguments):
    return store.index.search(IDENTIFIER, k, mode=mode, **arguments)


# What is found


@pytest.mark.parametrize("mode", ["hybrid", "words"])
async def test_an_identifier_that_maxsim_misses_is_found_by_its_words(store, retriever, mode):
    assert ids(retriever.invoke(IDENTIFIER, mode="maxsim"))[0] != "ticket"
    finds = [
        retriever.invoke(IDENTIFIER, mode=mode),
        await retriever.ainvoke(IDENTIFIER, mode=mode),
        ColBERTRetriever(index=store.index, mode=mode).invoke(IDENTIFIER),
        ColBERTRetriever(index=store.index, search_kwargs={"mode": mode}).invoke(IDENTIFIER),
        retriever.batch([IDENTIFIER, "dog"], mode=mode)[0],
        retriever.configurable_fields(mode=ConfigurableField(id="m")).invoke(IDENTIFIER, {"configurable": {"m": mode}}),
        store.similarity_search(IDENTIFIER, mode=mode),
        await store.asimilarity_search(IDENTIFIER, mode=mode),
        [document for document, _ in await store.asimilarity_search_with_relevance_scores(IDENTIFIER, mode=mode)],
        store.max_marginal_relevance_search(IDENTIFIER, mode=mode),
        await store.amax_marginal_relevance_search(IDENTIFIER, mode=mode),
        store.as_retriever(search_type=mode).invoke(IDENTIFIER),
        await store.as_retriever(search_type=mode).ainvoke(IDENTIFIER),
        store.as_retriever(mode=mode).invoke(IDENTIFIER),
        store.as_retriever(search_kwargs={"mode": mode}).invoke(IDENTIFIER),
        store.as_retriever(search_type="mmr", mode=mode).invoke(IDENTIFIER),
        store.as_retriever().invoke(IDENTIFIER, mode=mode),
        store.search(IDENTIFIER, mode),
        await store.asearch(IDENTIFIER, mode),
    ]
    assert {ids(found)[0] for found in finds} == {"ticket"}
    assert {len(found) for found in finds} == {4 if mode == "hybrid" else 1}


def test_words_alone_need_no_model(words, tmp_path, monkeypatch):
    ColBERTVectorStore.from_documents([TICKET], model=words, persist_directory=tmp_path / "idx")
    opened = ColBERTRetriever.from_index(tmp_path / "idx", mode="words")  # an encoder that it could not load
    assert ids(opened.invoke("who opened ZX-4711?")) == ["ticket"]
    assert opened.invoke("nobody") == []


def test_a_weight_of_nothing_is_maxsim_and_a_greater_one_lets_words_win(store, retriever):
    by_vectors = ids(retriever.invoke(IDENTIFIER, mode="maxsim"))
    query = f"the cat sat on the mat {IDENTIFIER}"
    assert ids(retriever.invoke(IDENTIFIER, mode="hybrid", weight=0.0)) == by_vectors
    assert ids(retriever.invoke(query, mode="hybrid", weight=0.01))[0] == "cat"
    only = {"index": store.index, "mode": "hybrid", "weight": 1.0}
    assert ids(ColBERTRetriever(**only).invoke(f"is {IDENTIFIER}"))[0] == "ticket"
    assert ids(store.as_retriever(search_type="hybrid", weight=0.01).invoke(query))[0] == "cat"
    assert ids(store.as_retriever(search_type="hybrid", weight=0.01).invoke(f"is {IDENTIFIER}", weight=1.0))[0] == "ticket"
    assert (
        ids(store.as_retriever(search_type="hybrid", weight=1.0).invoke(IDENTIFIER, mode="maxsim", weight=None)) == by_vectors
    )


@pytest.mark.parametrize("mode", ["hybrid", "words"])
def test_a_filter_acts_before_the_words(store, retriever, mode):
    for found in (
        retriever.invoke(IDENTIFIER, mode=mode, filter={"kind": "pet"}),
        store.as_retriever(search_type=mode, filter={"kind": "pet"}).invoke(IDENTIFIER),
        store.similarity_search(IDENTIFIER, mode=mode, filter=lambda document: document.metadata.get("kind") == "pet"),
    ):
        assert set(ids(found)) == ({"cat", "dog"} if mode == "hybrid" else set())
    assert ids(store.as_retriever(search_type=mode, filter={"page": 6}).invoke(IDENTIFIER)) == ["ticket"]


# Scores


def test_the_relevance_score_is_what_ranks_and_its_parts_stand_beside_it(store, retriever):
    expected = hits(store, "hybrid", 4, weight=0.3)
    for document, hit in zip(retriever.invoke(IDENTIFIER, mode="hybrid", weight=0.3), expected, strict=True):
        shown = {key: document.metadata[key] for key in ("score", "relevance_score", "coverage", "maxsim_relevance")}
        assert shown == {
            "score": hit.score,
            "relevance_score": hit.hybrid_relevance,
            "coverage": hit.coverage,
            "maxsim_relevance": hit.relevance,
        }
        assert shown["relevance_score"] == pytest.approx(shown["maxsim_relevance"] + 0.3 * shown["coverage"])
        assert json.loads(json.dumps(document.metadata)) == document.metadata
    (found,) = retriever.invoke(IDENTIFIER, mode="words")
    assert found.metadata["score"] == found.metadata["relevance_score"] == found.metadata["coverage"] > 0
    assert "maxsim_relevance" not in found.metadata
    assert not {"coverage", "maxsim_relevance"} & retriever.invoke(IDENTIFIER, mode="maxsim")[0].metadata.keys()


def test_the_scores_of_a_store_are_in_the_order_of_the_documents(store):
    for mode in MODES:
        expected = hits(store, mode, 4)
        relevances = [score for _, score in store.similarity_search_with_relevance_scores(IDENTIFIER, mode=mode)]
        scores = [score for _, score in store.similarity_search_with_score(IDENTIFIER, mode=mode)]
        assert relevances == [hit.value for hit in expected] == sorted(relevances, reverse=True)
        assert scores == ([hit.score for hit in expected] if mode == "maxsim" else relevances)


def test_a_threshold_is_of_the_sum(store, retriever):
    ticket = hits(store, "hybrid", 1, weight=0.3)[0]
    threshold = (ticket.relevance + ticket.value) / 2
    hybrid = {"weight": 0.3, "score_threshold": threshold}
    for found in (
        retriever.invoke(IDENTIFIER, mode="hybrid", **hybrid),
        store.similarity_search(IDENTIFIER, mode="hybrid", **hybrid),
        store.as_retriever(search_type="hybrid", **hybrid).invoke(IDENTIFIER),
        store.as_retriever(search_type="similarity_score_threshold", mode="hybrid", **hybrid).invoke(IDENTIFIER),
    ):
        assert ids(found) == ["ticket"]
    assert retriever.invoke(IDENTIFIER, mode="maxsim", score_threshold=threshold) == []
    assert retriever.invoke(IDENTIFIER, mode="words", score_threshold=0.9) == []


def test_what_a_hybrid_search_adds_does_not_count_and_is_not_indexed(retriever, words):
    taken = Document("all of zx-4711", metadata={"coverage": "mine", "maxsim_relevance": 3}, id="taken")
    retriever.add_documents([taken])
    found = retriever.invoke(IDENTIFIER, mode="hybrid", k=7)
    assert found[0].metadata["coverage"] > 0
    (one,) = (document for document in found if document.id == "taken")
    assert one == taken
    assert one.metadata["colbert"]["yours"] == {"coverage": "mine", "maxsim_relevance": 3}
    assert without_scores([one])[0].metadata == taken.metadata
    other = ColBERTVectorStore.from_documents(found, model=words)
    assert other.get_by_ids(["taken"])[0].metadata == taken.metadata
    assert other.get_by_ids(["ticket"])[0].metadata == TICKET.metadata
    reranked = ColBERTRerank(model=words, top_n=7).compress_documents(found, "dog")
    assert all("colbert" not in one.metadata or "coverage" not in one.metadata["colbert"] for one in reranked)


async def test_the_window_that_has_the_words_comes_back(words):
    long = "The tide follows the moon. " * 100 + f"It is about ({IDENTIFIER}). " + "The sun is a star. " * 100
    store = ColBERTVectorStore.from_texts([long], ids=["long"], model=words)
    options_ = {"text": "window", "max_characters": 200}
    for found in (
        ColBERTRetriever(index=store.index, mode="words", **options_).invoke(IDENTIFIER),
        store.as_retriever(search_type="words", **options_).invoke(IDENTIFIER),
        await store.asimilarity_search(IDENTIFIER, mode="words", **options_),
    ):
        assert IDENTIFIER in found[0].page_content
        assert len(found[0].page_content) <= 200


def test_evidence_shows_the_words_that_ranked_and_adds_up_to_maxsim(default_encoder):
    retriever = ColBERTRetriever.from_documents([TICKET], model=default_encoder, evidence=True, mode="hybrid")
    (found,) = retriever.invoke(f"who wrote {IDENTIFIER}")
    assert found.metadata["evidence"]["score"] == pytest.approx(found.metadata["score"], abs=1e-4)
    for mode in ("hybrid", "words"):
        highlights = retriever.invoke(f"who wrote {IDENTIFIER}", mode=mode)[0].metadata["evidence"]["highlights"]
        assert any(IDENTIFIER in WITH_IDENTIFIER[one["start"] : one["end"]] for one in highlights)


# Settings


def test_a_copy_and_a_pickle_keep_mode_and_weight(stanford, tmp_path):
    fields = {"mode": "hybrid", "weight": 0.4}
    ColBERTVectorStore.from_documents([*TAGGED_DOCUMENTS, TICKET], model=stanford, persist_directory=tmp_path / "idx")
    store = ColBERTVectorStore.load_local(tmp_path / "idx", stanford)
    for retriever in (
        ColBERTRetriever.from_documents([*TAGGED_DOCUMENTS, TICKET], model=stanford, **fields),
        ColBERTRetriever.from_index(tmp_path / "idx", model=stanford, **fields),
        store.as_retriever(search_type="hybrid", weight=0.4),
    ):
        expected = retriever.invoke(IDENTIFIER)
        for other in (copy.deepcopy(retriever), pickle.loads(pickle.dumps(retriever))):
            assert other.invoke(IDENTIFIER) == expected
            kept = (other.mode, other.weight) if isinstance(other, ColBERTRetriever) else other.search_kwargs
            assert kept in ((*fields.values(),), fields)


def test_a_weight_goes_with_its_mode(store):
    retriever = ColBERTRetriever(index=store.index, mode="hybrid", weight=0.4)
    assert ids(retriever.invoke(IDENTIFIER, mode="words")) == ["ticket"]
    assert len(retriever.invoke(IDENTIFIER, mode="maxsim")) == 4
    retriever.search_kwargs = {"mode": "words"}
    assert ids(retriever.invoke(IDENTIFIER)) == ["ticket"]
    assert len(retriever.invoke(IDENTIFIER, mode="hybrid")) == 4


def test_mistakes_are_errors_not_silence(store, retriever):
    with pytest.raises(ValidationError, match="'maxsim', 'hybrid' or 'words'"):
        ColBERTRetriever(index=store.index, mode="bm25")
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        ColBERTRetriever(index=store.index, mode="hybrid", weight=2)
    for search in (
        lambda: retriever.invoke("dog", mode="bm25"),
        lambda: ColBERTRetriever(index=store.index, search_kwargs={"mode": "bm25"}).invoke("dog"),
        lambda: store.similarity_search("dog", mode="bm25"),
        lambda: store.max_marginal_relevance_search("dog", mode="bm25"),
        lambda: store.as_retriever(mode="bm25"),
        lambda: store.as_retriever().invoke("dog", mode="bm25"),
    ):
        with pytest.raises(ValueError, match="mode must be one of maxsim, hybrid, words, got 'bm25'"):
            search()
    for search in (
        lambda: retriever.invoke("dog", mode="maxsim", weight=0.3),
        lambda: retriever.invoke("dog", mode="words", weight=0.3),
        lambda: ColBERTRetriever(index=store.index, weight=0.3, mode="maxsim").invoke("dog"),
        lambda: store.similarity_search("dog", mode="maxsim", weight=0.3),
        lambda: store.max_marginal_relevance_search("dog", mode="words", weight=0.3),
    ):
        with pytest.raises(ValueError, match=r"weight is for mode='hybrid', got weight=0\.3"):
            search()
    with pytest.raises(ValueError, match="weight is a number from 0 to 1, got 2"):
        store.similarity_search("dog", mode="hybrid", weight=2)
    with pytest.raises(TypeError, match=r"score_threshold, text, max_characters, weight for search_type='hybrid', got mode"):
        store.as_retriever(search_type="hybrid", mode="words")
    with pytest.raises(TypeError, match="search_type='hybrid' is a mode; leave mode='words' out"):
        store.search("dog", "hybrid", mode="words")
    with pytest.raises(TypeError, match=r"max_characters for search_type='words', got weight"):
        store.as_retriever(search_type="words", weight=0.3)
    with pytest.raises(ValueError, match="search_type must be one of similarity.*hybrid, words, got 'maxsim'"):
        store.as_retriever(search_type="maxsim")
    assert store.similarity_search("  ", mode="words") == []


async def test_ragatouille_goes_on_ranking_by_maxsim(monkeypatch, tmp_path):
    rag = ragatouille.RAGPretrainedModel.from_pretrained(index_root=tmp_path)
    texts = [WITH_IDENTIFIER, *(document.page_content for document in TAGGED_DOCUMENTS)]
    rag.index(texts, document_ids=texts, index_name="demo")
    rag.encode(texts)
    query = f"Why does a dog bark in {IDENTIFIER}?"
    expected = [(hit.passage.text, hit.score, hit.relevance) for hit in rag._index.search(query, 4)]
    encoded = [(hit.passage.text, hit.score) for hit in rag._encoded.search(query, 4)]
    assert rag._index.search(query, 1, mode="hybrid")[0].value > expected[0][2]  # so that the words would show
    seen = []
    for name in ("search", "search_many"):
        search = getattr(Index, name)

        def watched(self, *args, search=search, **kwargs):
            seen.append(kwargs.get("mode", "maxsim"))
            return search(self, *args, **kwargs)

        monkeypatch.setattr(Index, name, watched)
    assert [(result["content"], result["score"]) for result in rag.search(query, k=4)] == [one[:2] for one in expected]
    assert [(result["content"], result["score"]) for result in rag.search_encoded_docs(query, k=4)] == encoded
    retriever = rag.as_langchain_retriever(k=4)
    found = [(document.page_content, document.metadata) for document in retriever.invoke(query)]
    assert [(text, metadata["score"], metadata["relevance_score"]) for text, metadata in found] == expected
    assert not any({"coverage", "maxsim_relevance"} & metadata.keys() for _, metadata in found)
    assert ids(await retriever.ainvoke(query)) == ids(retriever.invoke(query)) == ids(retriever.batch([query])[0])
    assert set(seen) == {"maxsim"}
    ranked = Reranker(rag._encoder).rank(query, [Passage(text, text) for text in texts], 4)
    compressed = rag.as_langchain_document_compressor(k=4).compress_documents([Document(text) for text in texts], query)
    scores = [(document.page_content, document.metadata["relevance_score"]) for document in compressed]
    assert scores == [(hit.passage.text, hit.relevance) for hit in ranked]
    assert "coverage" in rag.as_langchain_retriever(mode="hybrid").invoke(query)[0].metadata
