"""What ranks where no mode is given: meanings and words if the index has words, else meanings. And what is reported of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from builders.nodes import ask, ids, node, stored_nodes
from builders.texts import IDENTIFIER, WITH_IDENTIFIER
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQueryMode

from colbert_core import Encoder, Index, UnsupportedIndexError
from llama_index_colbert import ColBERTIndex, ColBERTRetriever, ColBERTVectorStore

BEFORE = Path(__file__).parent.parent / "data" / "before"
MMR = VectorStoreQueryMode.MMR


def with_ticket():
    return [*stored_nodes(), node("ticket", WITH_IDENTIFIER, "tickets.txt", year=2023)]


@pytest.fixture
def index(words):
    return ColBERTIndex(with_ticket(), model_name=words)


@pytest.fixture
def wordless(words):
    store = ColBERTVectorStore(index=Index.create(None, words, words=False))
    store.add(with_ticket())
    return store.index


def pairs(hits):
    return [(hit.passage.id, hit.value) for hit in hits]


async def all_finds(index):
    """What each retriever, and a store, over an index of the core finds for the identifier, with its scores."""
    store = ColBERTVectorStore(index=index)
    retriever, of_store = ColBERTRetriever(index, 5), store.as_index().as_retriever(similarity_top_k=5)
    result = store.query(ask(IDENTIFIER, 5))
    assert await store.aquery(ask(IDENTIFIER, 5)) == result
    finds = [
        retriever.retrieve(IDENTIFIER),
        await retriever.aretrieve(IDENTIFIER),
        ColBERTRetriever(index, 5, mode=None).retrieve(IDENTIFIER),
        ColBERTRetriever.from_defaults(index, similarity_top_k=5).retrieve(IDENTIFIER),
        RetrieverQueryEngine.from_args(retriever, llm=MockLLM()).query(IDENTIFIER).source_nodes,
        of_store.retrieve(IDENTIFIER),
        await of_store.aretrieve(IDENTIFIER),
        store.as_index().as_query_engine(llm=MockLLM(), similarity_top_k=5).query(IDENTIFIER).source_nodes,
    ]
    return [
        list(zip(result.ids, result.similarities, strict=True)),
        *([(scored.node.node_id, scored.score) for scored in found] for found in finds),
    ]


async def test_an_index_with_words_is_searched_by_both(index):
    expected = pairs(index.index.search(IDENTIFIER, 5, mode="hybrid"))
    assert expected[0][0] == "ticket"
    assert await all_finds(index.index) == [expected] * 9
    assert index.as_retriever().mode is None
    memory = ChatMemoryBuffer.from_defaults(llm=MockLLM())
    for found in (
        index.as_retriever(1).retrieve(IDENTIFIER),
        index.query(IDENTIFIER, top_k=1),
        index.as_query_engine(llm=MockLLM(), similarity_top_k=1).query(IDENTIFIER).source_nodes,
        index.as_chat_engine("context", llm=MockLLM(), memory=memory, similarity_top_k=1).chat(IDENTIFIER).source_nodes,
    ):
        assert ids(found) == ["ticket"]
    by_vectors = pairs(index.index.search(IDENTIFIER, 5))
    assert by_vectors[0][0] != "ticket"
    found = index.as_retriever(5, mode="maxsim").retrieve(IDENTIFIER)
    assert [(scored.node.node_id, scored.score) for scored in found] == by_vectors


async def test_an_index_without_words_is_searched_by_meaning(wordless):
    assert await all_finds(wordless) == [pairs(wordless.search(IDENTIFIER, 5))] * 9


def test_who_asks_an_index_without_words_for_them_is_told(wordless):
    store = ColBERTVectorStore(index=wordless)
    for search in (
        lambda: ColBERTRetriever(wordless, mode="hybrid").retrieve(IDENTIFIER),
        lambda: ColBERTRetriever(wordless, weight=0.3).retrieve(IDENTIFIER),
        lambda: store.query(ask(IDENTIFIER, mode=VectorStoreQueryMode.HYBRID)),
    ):
        with pytest.raises(ValueError, match="was made without words"):
            search()


def test_a_weight_alone_means_a_hybrid_search(index):
    expected = pairs(index.index.search(IDENTIFIER, 5, mode="hybrid", weight=0.3))
    retriever = index.as_retriever(5, weight=0.3)
    assert [(scored.node.node_id, scored.score) for scored in retriever.retrieve(IDENTIFIER)] == expected
    retriever.mode, retriever.weight = "maxsim", None
    assert ids(retriever.retrieve(IDENTIFIER))[0] != "ticket"
    retriever.mode = None
    assert ids(retriever.retrieve(IDENTIFIER))[0] == "ticket"


def test_the_most_diverse_nodes_are_chosen_by_meaning(index):
    store = ColBERTVectorStore(index=index.index)
    hits = index.index.search_diverse(IDENTIFIER, 2, 8, 0.5)
    result = store.query(ask(IDENTIFIER, 2, mode=MMR))
    assert list(zip(result.ids, result.similarities, strict=True)) == pairs(hits)
    assert all(hit.coverage is None for hit in hits)


class Plain:
    """An index of the user's own, as it was before there were words."""

    encoder_name = "plain"

    def __init__(self, index):
        self._index = index

    def search_mean(self, queries, k=10, *, where=None, ids=None, min_relevance=None):
        return self._index.search_mean(queries, k, where=where)

    def never(self, *_, **__):
        raise NotImplementedError

    add = delete = delete_where = search = explain = never


def test_an_index_of_the_users_own_that_knows_no_words_is_asked_for_none(index):
    for mode in (None, "maxsim"):
        retriever = ColBERTRetriever(Plain(index.index), 3, mode=mode)
        found = [(scored.node.node_id, scored.score) for scored in retriever.retrieve(IDENTIFIER)]
        assert found == pairs(index.index.search(IDENTIFIER, 3))
    retriever.mode = "words"
    with pytest.raises(TypeError, match="mode"):
        retriever.retrieve(IDENTIFIER)


@pytest.mark.parametrize("has_words", [True, False])
def test_an_index_of_the_users_own_may_say_whether_it_has_words(index, has_words):
    class Told(Plain):
        def has_words(self):
            return has_words

        def search_mean(self, queries, k=10, *, mode="maxsim", weight=None, **options):
            assert mode == ("hybrid" if has_words else "maxsim")
            return self._index.search_mean(queries, k, mode=mode, weight=weight)

    found = ColBERTRetriever(Told(index.index), 1).retrieve(IDENTIFIER)
    assert (ids(found) == ["ticket"]) is has_words


def test_an_index_made_before_there_were_words_is_searched_by_meaning_until_its_next_change(tmp_path):
    path = shutil.copytree(BEFORE / "compressed", tmp_path / "old.idx")
    tiny = Encoder.from_pretrained(BEFORE / "models" / "stanford", device="cpu", dtype="float32")
    retriever = ColBERTRetriever.from_persist_dir(path, 4, model=tiny)
    store = ColBERTVectorStore(tiny, path)
    expected = pairs(store.index.search("happy cats", 4))
    assert [(scored.node.node_id, scored.score) for scored in retriever.retrieve("happy cats")] == expected
    assert store.query(ask("happy cats", 4)).ids == [name for name, _ in expected]
    retriever.mode = "hybrid"
    with pytest.raises(UnsupportedIndexError, match="has no words to search by"):
        retriever.retrieve("happy cats")
    retriever.mode = None
    retriever.add_nodes([with_ticket()[-1]])
    hits = store.index.search(IDENTIFIER, 4, mode="hybrid")
    assert pairs(hits) != pairs(store.index.search(IDENTIFIER, 4))
    assert [(scored.node.node_id, scored.score) for scored in retriever.retrieve(IDENTIFIER)] == pairs(hits)
    assert store.query(ask(IDENTIFIER, 4)).ids == [hit.passage.id for hit in hits]


def test_no_score_above_1_is_reported_and_the_order_is_that_of_the_sums(words):
    texts = {"once": "cat mat", "twice": "cat mat mat", "other": "the dog barks"}
    nodes = [TextNode(id_=name, text=text) for name, text in texts.items()]
    retriever = ColBERTRetriever.from_nodes(nodes, 3, model=words)
    for weight in (None, 1.0):
        retriever.weight = weight
        hits = retriever.index.search("cat mat", 3, mode="hybrid", weight=weight)
        assert hits[0].value > hits[1].value > 1 > hits[2].value
        expected = [("twice", 1.0), ("once", 1.0), ("other", hits[2].value)]
        found = retriever.retrieve("cat mat")
        assert [(scored.node.node_id, scored.score) for scored in found] == expected
        assert ids(SimilarityPostprocessor(similarity_cutoff=1.0).postprocess_nodes(found)) == ["twice", "once"]
    result = ColBERTVectorStore(index=retriever.index).query(ask("cat mat", 3))
    value = retriever.index.search("cat mat", 3, mode="hybrid")[2].value
    assert list(zip(result.ids, result.similarities, strict=True)) == [("twice", 1.0), ("once", 1.0), ("other", value)]
    with_alpha = ColBERTVectorStore(index=retriever.index).query(ask("cat mat", 3, mode=VectorStoreQueryMode.HYBRID, alpha=0.1))
    assert with_alpha.similarities[:2] == [1.0, 1.0]
