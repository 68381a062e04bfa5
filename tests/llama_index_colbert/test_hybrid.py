"""Words and meanings together: the modes of the retriever, the index and the store, LlamaIndex's alpha, and what is refused."""

from __future__ import annotations

import copy
import pickle

import pytest
from builders.nodes import ask, ids, node, one, stored_nodes
from builders.texts import IDENTIFIER, WITH_IDENTIFIER
from llama_index.core import QueryBundle
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import MetadataMode, TextNode
from llama_index.core.vector_stores.types import VectorStoreQueryMode

from colbert_core import HYBRID_WEIGHT, MODES, Index
from llama_index_colbert import ColBERTIndex, ColBERTRerank, ColBERTRetriever, ColBERTVectorStore

HYBRID, DEFAULT, MMR = VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR
BY_WORDS = [VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.SPARSE]


def with_ticket():
    return [*stored_nodes(), node("ticket", WITH_IDENTIFIER, "tickets.txt", year=2023)]


@pytest.fixture
def index(words):
    return ColBERTIndex(with_ticket(), model_name=words)


@pytest.fixture
def retriever(index):
    return index.as_retriever(5, mode="maxsim")


@pytest.fixture
def store(index):
    return ColBERTVectorStore(index=index.index)


# The retriever


@pytest.mark.parametrize("mode", ["hybrid", "words"])
async def test_an_identifier_that_maxsim_misses_is_found_by_its_words(index, retriever, words, mode):
    assert ids(retriever.retrieve(IDENTIFIER))[0] != "ticket"
    for made in (
        ColBERTRetriever(index.index, mode=mode),
        ColBERTRetriever.from_defaults(index, mode=mode),
        ColBERTRetriever.from_nodes(with_ticket(), model=words, mode=mode),
        index.as_retriever(mode=mode),
    ):
        found = made.retrieve(IDENTIFIER)
        assert ids(found)[0] == "ticket"
        assert found[0].node == with_ticket()[-1]
        assert await made.aretrieve(IDENTIFIER) == found
        assert len(found) == (2 if mode == "hybrid" else 1)
    engine = index.as_query_engine(mode=mode, similarity_top_k=1)
    assert ids(engine.query(IDENTIFIER).source_nodes) == ids((await engine.aquery(IDENTIFIER)).source_nodes) == ["ticket"]
    memory = ChatMemoryBuffer.from_defaults(llm=MockLLM())
    chat = index.as_chat_engine("context", memory=memory, mode=mode, similarity_top_k=1)
    assert ids(chat.chat(IDENTIFIER).source_nodes) == ["ticket"]
    assert ids(RetrieverQueryEngine.from_args(index.as_retriever(1, mode=mode)).query(IDENTIFIER).source_nodes) == ["ticket"]


def test_mode_and_weight_can_be_set_at_any_time(retriever):
    retriever.mode = "words"
    assert ids(retriever.retrieve(IDENTIFIER)) == ["ticket"]
    retriever.mode, retriever.weight = "hybrid", 1.0
    assert ids(retriever.retrieve(f"dog barks {IDENTIFIER}")) != ids(retriever.retrieve("dog barks"))
    retriever.weight = 0
    assert ids(retriever.retrieve(IDENTIFIER))[0] != "ticket"


def test_the_score_is_what_ranks(retriever):
    for mode in MODES:
        retriever.mode = mode
        found = retriever.retrieve(IDENTIFIER)
        expected = retriever.index.search(IDENTIFIER, 5, mode=mode)
        assert [scored.score for scored in found] == [hit.value for hit in expected]
        assert [scored.score for scored in found] == sorted((scored.score for scored in found), reverse=True)


def test_a_cutoff_acts_on_the_sum_and_rerankers_stay_maxsim(retriever, words):
    relevance = {scored.node.node_id: scored.score for scored in retriever.retrieve(IDENTIFIER)}
    retriever.mode, retriever.weight = "hybrid", 0.3
    found = retriever.retrieve(IDENTIFIER)
    cutoff = (relevance["ticket"] + found[0].score) / 2
    assert found[0].score > cutoff > max(relevance.values())
    assert ids(SimilarityPostprocessor(similarity_cutoff=cutoff).postprocess_nodes(found)) == ["ticket"]
    reranked = ColBERTRerank(top_n=5, model=words).postprocess_nodes(found, query_str=IDENTIFIER)
    assert {scored.node.node_id: scored.score for scored in reranked} == pytest.approx(relevance)


@pytest.mark.parametrize("mode", ["hybrid", "words"])
def test_filters_act_before_the_words(index, mode):
    pets = index.as_retriever(5, one("year", 2021, "<="), mode=mode)
    assert set(ids(pets.retrieve(IDENTIFIER))) == ({"cat", "dog"} if mode == "hybrid" else set())
    assert ids(index.as_retriever(5, doc_ids=["tickets.txt"], mode=mode).retrieve(IDENTIFIER)) == ["ticket"]
    assert ids(index.as_retriever(5, node_ids=["ticket", "cat"], mode=mode).retrieve(IDENTIFIER))[0] == "ticket"


def test_words_of_metadata_count_where_the_text_for_embedding_has_them(words):
    shown = TextNode(id_="shown", text="the sea", metadata={"ticket": IDENTIFIER})
    hidden = TextNode(id_="hidden", text="the sea", metadata={"ticket": IDENTIFIER}, excluded_embed_metadata_keys=["ticket"])
    assert IDENTIFIER in shown.get_content(MetadataMode.EMBED)
    assert ids(ColBERTRetriever.from_nodes([shown, hidden], model=words, mode="words").retrieve(IDENTIFIER)) == ["shown"]


def test_several_texts_of_one_query_are_averaged(retriever):
    retriever.mode = "hybrid"
    texts = [IDENTIFIER, "dog barks"]
    found = retriever.retrieve(QueryBundle("what", custom_embedding_strs=texts))
    expected = retriever.index.search_mean(texts, 5, mode="hybrid")
    assert [(scored.node.node_id, scored.score) for scored in found] == [(hit.passage.id, hit.value) for hit in expected]


def test_windows_and_evidence_go_with_the_words(default_encoder):
    long = "The tide follows the moon. " * 100 + f"It is about ({IDENTIFIER}). " + "The sun is a star. " * 100
    retriever = ColBERTRetriever.from_nodes(
        [TextNode(id_="long", text=long)],
        model=default_encoder,
        mode="words",
        text="window",
        max_characters=1000,
        evidence=True,
    )
    (found,) = retriever.retrieve(IDENTIFIER)
    assert IDENTIFIER in found.node.get_content()
    assert len(found.node.get_content()) <= 1000
    places = [(one["start"], one["end"]) for one in found.node.metadata["evidence"]["highlights"]]
    assert any(IDENTIFIER in found.node.get_content()[start:end] for start, end in places)


@pytest.mark.parametrize("mode", MODES)
def test_evidence_changes_neither_nodes_nor_scores(default_encoder, mode):
    with_evidence = ColBERTRetriever.from_nodes(with_ticket(), 5, model=default_encoder, mode=mode, evidence=True)
    without = ColBERTRetriever(with_evidence.index, 5, mode=mode)
    for query in (IDENTIFIER, QueryBundle("what", custom_embedding_strs=[IDENTIFIER, "dog barks"])):
        found, expected = with_evidence.retrieve(query), without.retrieve(query)
        assert ids(found) == ids(expected)
        assert [scored.score for scored in found] == pytest.approx([scored.score for scored in expected], abs=1e-5)
        assert all("evidence" in scored.node.metadata for scored in found)


def test_fusion_takes_nodes_of_both_modes_as_the_same(index):
    fused = QueryFusionRetriever(
        [index.as_retriever(5, mode="maxsim"), index.as_retriever(5, mode="words")],
        similarity_top_k=9,
        num_queries=1,
        use_async=False,
    )
    assert sorted(ids(fused.retrieve(IDENTIFIER))) == ["bird", "cat", "dog", "fish", "ticket"]


def test_copies_and_pickles_keep_mode_and_weight_and_words_need_no_model(stanford, words, tmp_path):
    retriever = ColBERTRetriever.from_nodes(with_ticket(), model=stanford, mode="hybrid", weight=0.4)
    for other in (copy.deepcopy(retriever), pickle.loads(pickle.dumps(retriever))):
        assert (other.mode, other.weight) == ("hybrid", 0.4)
        assert other.retrieve(IDENTIFIER) == retriever.retrieve(IDENTIFIER)
    ColBERTRetriever.from_nodes(with_ticket(), model=words).persist(tmp_path)
    opened = ColBERTRetriever.from_persist_dir(tmp_path, mode="words")  # an encoder that it could not load
    assert ids(opened.retrieve(IDENTIFIER)) == ["ticket"]


# The store


def weight_of(store, monkeypatch, **fields):
    """How the index is asked to rank for a query of the store."""
    asked = []
    search_mean = Index.search_mean
    with monkeypatch.context() as patch:
        patch.setattr(Index, "search_mean", lambda *args, **kwargs: asked.append(kwargs) or search_mean(*args, **kwargs))
        store.query(ask(IDENTIFIER, 5, **fields))
    return asked[0].get("mode", "maxsim"), asked[0].get("weight")


def test_alpha_is_the_share_of_the_meaning(store, monkeypatch):
    at = {alpha: weight_of(store, monkeypatch, mode=HYBRID, alpha=alpha) for alpha in (None, 1, 0.9, 0.5, 0.2, 0.01, 0)}
    assert at == {
        None: ("hybrid", None),
        1: ("maxsim", None),
        0.9: ("hybrid", pytest.approx(HYBRID_WEIGHT / 9)),
        0.5: ("hybrid", pytest.approx(HYBRID_WEIGHT)),
        0.2: ("hybrid", pytest.approx(HYBRID_WEIGHT * 4)),
        0.01: ("hybrid", 1),
        0: ("words", None),
    }
    found = {alpha: store.query(ask(IDENTIFIER, 5, mode=HYBRID, alpha=alpha)) for alpha in (None, 1, 0.5, 0)}
    assert found[None] == found[0.5]
    assert found[None].ids[0] == found[0].ids[0] == "ticket"
    assert found[1].ids == [hit.passage.id for hit in store.index.search(IDENTIFIER, 5)]
    assert found[0].ids == ["ticket"]


def test_alpha_counts_in_no_other_mode(store, monkeypatch):
    assert weight_of(store, monkeypatch, mode=DEFAULT, alpha=0.2) == ("hybrid", None)
    for mode in BY_WORDS:
        assert weight_of(store, monkeypatch, mode=mode, alpha=0.2) == ("words", None)
    assert store.query(ask("dog", 5, mode=MMR, alpha=0.2)) == store.query(ask("dog", 5, mode=MMR))


@pytest.mark.parametrize("mode", [HYBRID, *BY_WORDS])
async def test_a_store_finds_by_words_and_its_similarities_are_what_ranks(store, mode):
    found = store.query(ask(IDENTIFIER, 5, mode=mode))
    expected = store.index.search(IDENTIFIER, 5, mode="hybrid" if mode == HYBRID else "words")
    assert found.ids == [hit.passage.id for hit in expected]
    assert found.ids[0] == "ticket"
    assert found.similarities == [hit.value for hit in expected]
    assert await store.aquery(ask(IDENTIFIER, 5, mode=mode)) == found
    assert store.query(ask(IDENTIFIER, 5, mode=mode, filters=one("year", 2023), doc_ids=["tickets.txt"])).ids == ["ticket"]
    assert "ticket" not in store.query(ask(IDENTIFIER, 5, mode=mode, filters=one("year", 2021, "<="))).ids
    retriever = store.as_index().as_retriever(similarity_top_k=1, vector_store_query_mode=mode.value)
    assert ids(retriever.retrieve(IDENTIFIER)) == ids(await retriever.aretrieve(IDENTIFIER)) == ["ticket"]
    engine = store.as_index().as_query_engine(similarity_top_k=1, vector_store_query_mode=mode.value)
    assert ids(engine.query(IDENTIFIER).source_nodes) == ["ticket"]


def test_an_index_over_a_store_takes_alpha_and_the_numbers_of_nodes(store):
    make = store.as_index().as_retriever
    assert ids(make(vector_store_query_mode="hybrid", alpha=1.0).retrieve(IDENTIFIER))[0] != "ticket"
    assert len(make(vector_store_query_mode="hybrid", hybrid_top_k=4).retrieve(IDENTIFIER)) == 4
    assert len(make(vector_store_query_mode="sparse", sparse_top_k=3).retrieve("the sea is a song")) == 3


@pytest.mark.parametrize(
    ("keywords", "mode"),
    [
        ({"alpha": 0.5}, "'hybrid'"),
        ({"alpha": 0.5, "vector_store_query_mode": "mmr"}, "'hybrid'"),
        ({"hybrid_top_k": 3, "vector_store_query_mode": "sparse"}, "'hybrid'"),
        ({"sparse_top_k": 3, "vector_store_query_mode": "hybrid"}, "'text_search' or 'sparse'"),
    ],
)
def test_a_keyword_that_the_mode_would_not_use_is_refused(index, store, keywords, mode):
    (name, *_) = keywords
    for make in (store.as_index().as_retriever, store.as_index().as_query_engine, store.as_index().as_chat_engine):
        with pytest.raises(TypeError, match=f"takes no keyword '{name}' without vector_store_query_mode={mode}"):
            make(**keywords)
    with pytest.raises(TypeError, match=f"takes no keyword '{name}'"):
        index.as_retriever(**keywords)


# Mistakes


def test_mistakes_are_errors_not_silence(index, store):
    for make in (ColBERTRetriever, lambda index, **settings: ColBERTRetriever.from_defaults(index, **settings)):
        with pytest.raises(ValueError, match="mode must be one of maxsim, hybrid, words, got 'bm25'"):
            make(index.index, mode="bm25")
        with pytest.raises(ValueError, match=r"weight is for mode='hybrid', got weight=0\.3 with mode='maxsim'"):
            make(index.index, weight=0.3, mode="maxsim")
    for make in (index.as_retriever, index.as_query_engine):
        with pytest.raises(ValueError, match="mode must be one of"):
            make(mode="bm25")
        with pytest.raises(ValueError, match="weight is a number from 0 to 1, got 2"):
            make(mode="hybrid", weight=2)
        with pytest.raises(TypeError, match="weight is a number from 0 to 1, got 'much'"):
            make(mode="hybrid", weight="much")
        with pytest.raises(TypeError, match=r"'vector_store_query_mode'; write mode=\.\.\."):
            make(vector_store_query_mode="hybrid")
    retriever = index.as_retriever()
    retriever.mode = "bm25"
    with pytest.raises(ValueError, match="mode must be one of"):
        retriever.retrieve("dog")
    with pytest.raises(TypeError, match=r"'mode'; write vector_store_query_mode=\.\.\."):
        store.as_index().as_retriever(mode="hybrid")
    for alpha in (-0.1, 1.1):
        with pytest.raises(ValueError, match="alpha is a number from 0 to 1"):
            store.query(ask("dog", mode=HYBRID, alpha=alpha))
    with pytest.raises(TypeError, match="alpha is a number from 0 to 1, got True"):
        store.query(ask("dog", mode=HYBRID, alpha=True))
    for mode in (VectorStoreQueryMode.SEMANTIC_HYBRID, VectorStoreQueryMode.SVM):
        with pytest.raises(ValueError, match="modes 'default', 'hybrid', 'text_search', 'sparse' and 'mmr', not"):
            store.query(ask("dog", mode=mode))
    for mode in (HYBRID, *BY_WORDS):
        assert store.query(ask("  ", mode=mode)).ids == []
        with pytest.raises(TypeError, match="query takes no keyword 'tau'"):
            store.query(ask("dog", mode=mode), tau=1)
