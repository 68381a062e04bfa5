"""What ranks where no mode is given: meanings and words if the index has words, else meanings. And what is reported of it."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import get_args

import pytest
from builders.documents import TAGGED_DOCUMENTS, ids
from builders.texts import IDENTIFIER, WITH_IDENTIFIER
from langchain_core.documents import Document
from langchain_core.runnables import ConfigurableField

from colbert_core import MODES, Encoder, Index, UnsupportedIndexError
from langchain_colbert import ColBERTRetriever, ColBERTVectorStore, options

BEFORE = Path(__file__).parent.parent / "data" / "before"
DOCUMENTS = [*TAGGED_DOCUMENTS, Document(WITH_IDENTIFIER, metadata={"page": 6}, id="ticket")]


@pytest.fixture
def store(words):
    return ColBERTVectorStore.from_documents(DOCUMENTS, model=words)


@pytest.fixture
def wordless(words):
    store = ColBERTVectorStore(index=Index.create(None, words, words=False))
    store.add_documents(DOCUMENTS)
    return store


async def all_finds(store, **options):
    """What each search of a store and of the retrievers over its index finds for the identifier."""
    retriever = ColBERTRetriever(index=store.index)
    return [
        retriever.invoke(IDENTIFIER, **options),
        await retriever.ainvoke(IDENTIFIER, **options),
        retriever.batch([IDENTIFIER], **options)[0],
        ColBERTRetriever(index=store.index, **options).invoke(IDENTIFIER),
        ColBERTRetriever(index=store.index, search_kwargs=options).invoke(IDENTIFIER),
        ColBERTRetriever(index=store.index, search_kwargs={"mode": None, **options}).invoke(IDENTIFIER),
        store.similarity_search(IDENTIFIER, **options),
        store.similarity_search(IDENTIFIER, **{"mode": None, **options}),
        await store.asimilarity_search(IDENTIFIER, **options),
        [document for document, _ in store.similarity_search_with_score(IDENTIFIER, **options)],
        [document for document, _ in store.similarity_search_with_relevance_scores(IDENTIFIER, **options)],
        store.max_marginal_relevance_search(IDENTIFIER, lambda_mult=1, **options),
        store.as_retriever(**options).invoke(IDENTIFIER),
        await store.as_retriever(**options).ainvoke(IDENTIFIER),
        store.as_retriever(search_type="mmr", lambda_mult=1, **options).invoke(IDENTIFIER),
        store.search(IDENTIFIER, "similarity", **options),
    ]


def test_the_modes_are_those_of_the_core():
    assert get_args(options.Mode) == MODES


async def test_an_index_with_words_is_searched_by_both(store):
    expected = [hit.passage.id for hit in store.index.search(IDENTIFIER, 4, mode="hybrid")]
    assert expected[0] == "ticket"
    assert [ids(found) for found in await all_finds(store)] == [expected] * 16
    by_vectors = [hit.passage.id for hit in store.index.search(IDENTIFIER, 4)]
    assert by_vectors[0] != "ticket"
    assert [ids(found) for found in await all_finds(store, mode="maxsim")] == [by_vectors] * 16
    assert ColBERTRetriever(index=store.index).mode is None


async def test_an_index_without_words_is_searched_by_meaning(wordless):
    expected = [hit.passage.id for hit in wordless.index.search(IDENTIFIER, 4)]
    assert [ids(found) for found in await all_finds(wordless)] == [expected] * 16
    (found, *_) = ColBERTRetriever(index=wordless.index).invoke(IDENTIFIER)
    assert not {"coverage", "maxsim_relevance"} & found.metadata.keys()
    (hit,) = wordless.index.search(IDENTIFIER, 1)
    assert (found.metadata["score"], found.metadata["relevance_score"]) == (hit.score, hit.relevance)
    assert wordless.similarity_search_with_score(IDENTIFIER, k=1)[0][1] == hit.score


def test_who_asks_an_index_without_words_for_them_is_told(wordless):
    retriever = ColBERTRetriever(index=wordless.index)
    for search in (
        lambda: retriever.invoke(IDENTIFIER, mode="hybrid"),
        lambda: retriever.invoke(IDENTIFIER, weight=0.3),
        lambda: ColBERTRetriever(index=wordless.index, weight=0.3).invoke(IDENTIFIER),
        lambda: wordless.similarity_search(IDENTIFIER, mode="hybrid"),
        lambda: wordless.similarity_search(IDENTIFIER, weight=0.3),
        lambda: wordless.max_marginal_relevance_search(IDENTIFIER, weight=0.3),
        lambda: wordless.as_retriever(search_type="hybrid").invoke(IDENTIFIER),
    ):
        with pytest.raises(ValueError, match="was made without words"):
            search()


def test_a_weight_alone_means_a_hybrid_search(store):
    expected = [(hit.passage.id, hit.value) for hit in store.index.search(IDENTIFIER, 4, mode="hybrid", weight=0.3)]
    for retriever in (
        ColBERTRetriever(index=store.index, weight=0.3),
        ColBERTRetriever(index=store.index, search_kwargs={"weight": 0.3}),
        ColBERTRetriever(index=store.index).bind(weight=0.3),
    ):
        found = retriever.invoke(IDENTIFIER)
        assert [(document.id, document.metadata["relevance_score"]) for document in found] == expected
    found = store.similarity_search_with_relevance_scores(IDENTIFIER, weight=0.3)
    assert [(document.id, score) for document, score in found] == expected
    weighted = ColBERTRetriever(index=store.index, weight=0.3)  # a weight goes with its mode, also with the one not named
    assert ids(weighted.invoke(IDENTIFIER, mode="maxsim")) == [hit.passage.id for hit in store.index.search(IDENTIFIER, 4)]


def test_the_mode_that_is_not_named_can_be_configured_and_set_back(store):
    retriever = ColBERTRetriever(index=store.index, k=1)
    configurable = retriever.configurable_fields(mode=ConfigurableField(id="mode"))
    assert ids(configurable.invoke(IDENTIFIER)) == ["ticket"]
    assert ids(configurable.invoke(IDENTIFIER, {"configurable": {"mode": "maxsim"}})) != ["ticket"]
    retriever.mode = "maxsim"
    assert ids(retriever.invoke(IDENTIFIER)) != ["ticket"]
    retriever.mode = None
    assert ids(retriever.invoke(IDENTIFIER)) == ["ticket"]


class Plain:
    """An index of the user's own, as it was before there were words."""

    encoder_name = "plain"

    def __init__(self, index):
        self._index = index

    def search(self, query, k=10, *, where=None, ids=None, min_relevance=None, evidence=False):
        return self._index.search(query, k, where=where)

    def never(self, *_, **__):
        raise NotImplementedError

    add = delete = delete_where = search_mean = explain = never


def test_an_index_of_the_users_own_that_knows_no_words_is_asked_for_none(store):
    for mode in (None, "maxsim"):
        retriever = ColBERTRetriever(index=Plain(store.index), k=2, mode=mode)
        found = retriever.invoke(IDENTIFIER)
        assert ids(found) == [hit.passage.id for hit in store.index.search(IDENTIFIER, 2)]
        assert "coverage" not in found[0].metadata
    with pytest.raises(TypeError, match="mode"):
        retriever.invoke(IDENTIFIER, mode="words")


@pytest.mark.parametrize("has_words", [True, False])
def test_an_index_of_the_users_own_may_say_whether_it_has_words(store, has_words):
    class Told(Plain):
        def has_words(self):
            return has_words

        def search(self, query, k=10, *, mode="maxsim", weight=None, **options):
            assert mode == ("hybrid" if has_words else "maxsim")
            return self._index.search(query, k, mode=mode, weight=weight)

    assert ids(ColBERTRetriever(index=Told(store.index), k=1).invoke(IDENTIFIER)) == ["ticket" if has_words else "cat"]


def test_an_index_made_before_there_were_words_is_searched_by_meaning_until_its_next_change(tmp_path):
    path = shutil.copytree(BEFORE / "compressed", tmp_path / "old.idx")
    tiny = Encoder.from_pretrained(BEFORE / "models" / "stanford", device="cpu", dtype="float32")
    retriever, store = ColBERTRetriever.from_index(path, model=tiny), ColBERTVectorStore.load_local(path, tiny)
    expected = [(hit.passage.id, hit.relevance) for hit in store.index.search("happy cats", 4)]
    found = retriever.invoke("happy cats")
    assert [(document.id, document.metadata["relevance_score"]) for document in found] == expected
    assert "coverage" not in found[0].metadata
    assert [document.id for document in store.similarity_search("happy cats")] == [name for name, _ in expected]
    with pytest.raises(UnsupportedIndexError, match="has no words to search by"):
        retriever.invoke("happy cats", mode="hybrid")
    store.add_texts([WITH_IDENTIFIER], ids=["ticket"])
    hits = {hit.passage.id: hit for hit in store.index.search(IDENTIFIER, 99, mode="hybrid")}
    found = retriever.invoke(IDENTIFIER, k=99)
    assert [(document.id, document.metadata["coverage"]) for document in found] == [
        (name, hit.coverage) for name, hit in hits.items()
    ]
    assert hits["ticket"].coverage > 0
    assert [document.id for document in store.similarity_search(IDENTIFIER, k=99)] == list(hits)


async def test_no_relevance_above_1_is_reported_and_the_order_is_that_of_the_sums(words):
    texts = {"once": "cat mat", "twice": "cat mat mat", "other": "the dog barks"}
    store = ColBERTVectorStore.from_texts(list(texts.values()), ids=list(texts), model=words)
    for weight in (None, 1.0):
        hits = store.index.search("cat mat", 3, mode="hybrid", weight=weight)
        assert hits[0].value > hits[1].value > 1 > hits[2].value
        given = {} if weight is None else {"weight": weight}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pairs = store.similarity_search_with_relevance_scores("cat mat", **given)
            assert await store.asimilarity_search_with_relevance_scores("cat mat", **given) == pairs
            assert store._similarity_search_with_relevance_scores("cat mat", **given) == pairs
            above = store.as_retriever(search_type="similarity_score_threshold", score_threshold=1.0, **given)
            assert ids(above.invoke("cat mat")) == ["twice", "once"]  # the threshold is of the sums
        found = ColBERTRetriever(index=store.index, **given).invoke("cat mat")
        expected = [("twice", 1.0), ("once", 1.0), ("other", hits[2].value)]
        assert [(document.id, score) for document, score in pairs] == expected
        assert [(document.id, document.metadata["relevance_score"]) for document in found] == expected
        assert [document.metadata["colbert"]["relevance_score"] for document in found] == [score for _, score in expected]
        parts = [(document.metadata["maxsim_relevance"], document.metadata["coverage"]) for document in found]
        assert parts == [(hit.relevance, hit.coverage) for hit in hits]
        assert [score for _, score in store.similarity_search_with_score("cat mat", **given)] == [hit.value for hit in hits]
