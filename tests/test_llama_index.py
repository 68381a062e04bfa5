"""The LlamaIndex adapters, in real query engines with LlamaIndex's own fake model."""

from __future__ import annotations

import asyncio
import copy
import json
import threading

import pytest
from conftest import WordEncoder
from llama_index.core import Settings
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import TransformRetriever
from llama_index.core.schema import (
    Document,
    IndexNode,
    MetadataMode,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
    TransformComponent,
)

from colbert_core import Index, Passage
from langchain_colbert import ColBERTRetriever as LangChainRetriever
from llama_index_colbert import ColBERTRerank, ColBERTRetriever


@pytest.fixture(autouse=True)
def fake_llm(monkeypatch):
    monkeypatch.setattr(Settings, "_llm", MockLLM())


def nodes():
    found = [
        TextNode(id_="cat", text="the cat sat on the mat", metadata={"page": 1}),
        TextNode(id_="dog", text="a dog barks at night", metadata={"page": 2}),
        TextNode(id_="bird", text="a bird sings a song", metadata={"page": 3, "nested": {"a": [1, None]}}),
        TextNode(id_="fish", text="fish swim in the sea"),
    ]
    found[1].relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="animals.txt")
    return found


@pytest.fixture
def retriever(words):
    return ColBERTRetriever.from_nodes(nodes(), similarity_top_k=3, model=words)


def ids(found):
    return [scored.node.node_id for scored in found]


# Retriever


def test_the_node_that_matches_comes_first_as_it_was_added(retriever):
    found = retriever.retrieve("dog barks")
    assert ids(found)[0] == "dog"
    assert len(found) == 3
    assert found[0].node == nodes()[1]
    assert found[0].node.ref_doc_id == "animals.txt"
    assert retriever.retrieve("bird sings")[0].node == nodes()[2]


def test_the_score_is_the_relevance_as_a_plain_number(retriever):
    found = retriever.retrieve("dog barks")
    assert type(found[0].score) is float
    assert found[0].score == pytest.approx(1)
    assert 0 <= found[-1].score <= found[0].score
    json.loads(found[0].model_dump_json())
    kept = SimilarityPostprocessor(similarity_cutoff=0.9).postprocess_nodes(found)
    assert ids(kept) == ["dog"]


async def test_top_k_can_be_set_at_any_time_sync_and_async(retriever):
    retriever.similarity_top_k = 1
    assert len(retriever.retrieve("dog")) == len(await retriever.aretrieve("dog")) == 1
    retriever.similarity_top_k = 99
    assert len(retriever.retrieve("dog")) == len(await retriever.aretrieve("dog")) == 4


async def test_async_finds_the_same_and_leaves_the_event_loop_free(retriever, words, monkeypatch):
    expected = retriever.retrieve("dog barks")
    ticked = threading.Event()
    encode = words.encode_queries

    def encode_when_the_loop_has_ticked(texts):
        assert ticked.wait(10), "the search held the event loop"
        return encode(texts)

    monkeypatch.setattr(words, "encode_queries", encode_when_the_loop_has_ticked)
    search = asyncio.create_task(retriever.aretrieve("dog barks"))
    await asyncio.sleep(0.01)
    ticked.set()
    assert await search == expected


def test_white_space_around_the_query_does_not_count(retriever):
    assert retriever.retrieve("\n dog barks\n") == retriever.retrieve("dog barks")


def test_metadata_is_encoded_as_the_node_says(words):
    shown = TextNode(id_="shown", text="text", metadata={"author": "Miyazaki"})
    hidden = TextNode(id_="hidden", text="other text", metadata={"author": "Miyazaki"}, excluded_embed_metadata_keys=["author"])
    found = ColBERTRetriever.from_nodes([hidden, shown], model=words).retrieve("author: Miyazaki")
    assert ids(found)[0] == "shown"
    assert found[0].score > found[1].score


def test_documents_are_split_into_nodes_that_know_their_source(words):
    documents = [Document(id_="a.txt", text="The dog barks. " * 40), Document(id_="b.txt", text="The cat purrs.")]
    splitter = SentenceSplitter(chunk_size=60, chunk_overlap=0)
    found = ColBERTRetriever.from_documents(documents, 99, model=words, transformations=[splitter]).retrieve("cat purrs.")
    assert len(found) > 3
    assert found[0].node.ref_doc_id == "b.txt"
    assert len(ColBERTRetriever.from_documents(documents, 99, model=words).retrieve("dog")) == 2
    assert ids(ColBERTRetriever.from_documents(documents, 9, model=words, transformations=[]).retrieve("dog")) == [
        "a.txt",
        "b.txt",
    ]


def test_adding_a_known_node_replaces_it_and_inputs_are_not_shared(words):
    given = nodes()
    retriever = ColBERTRetriever.from_nodes(given, 99, model=words)
    for scored in retriever.retrieve("dog"):
        scored.node.metadata["page"] = "spoilt"
    assert given == nodes()
    assert "spoilt" not in str(retriever.retrieve("dog"))
    assert retriever.add_nodes([TextNode(id_="dog", text="a whale sings")]) == ["dog"]
    assert ids(retriever.retrieve("whale"))[0] == "dog"
    assert len(retriever.retrieve("whale")) == 4


def test_passages_from_elsewhere_become_text_nodes(words):
    index = Index.create(None, words)
    index.add([Passage("x", "dog barks", {"page": 7})])
    (found,) = ColBERTRetriever(index).retrieve("dog")
    assert (found.node.node_id, found.node.get_content(), found.node.metadata) == ("x", "dog barks", {"page": 7})


def test_several_texts_of_one_query_are_averaged(retriever):
    """What HyDE sends: a made-up answer and the question."""
    (cat,) = retriever.index.search("the cat sat", 1)
    found = retriever.retrieve(QueryBundle("what", custom_embedding_strs=["the cat sat", "dog barks"]))
    by_id = [
        {hit.passage.id: hit.relevance for hit in retriever.index.search(text, 9)} for text in ("the cat sat", "dog barks")
    ]
    means = {name: (by_id[0][name] + by_id[1][name]) / 2 for name in by_id[0]}
    assert cat.passage.id in ids(found)
    assert ids(found) == sorted(means, key=lambda name: -means[name])[:3]
    assert [scored.score for scored in found] == pytest.approx(sorted(means.values(), reverse=True)[:3])
    (only,) = ColBERTRetriever(retriever.index, 1).retrieve(QueryBundle("what", custom_embedding_strs=["dog barks"]))
    assert only.node.node_id == "dog"


def test_hyde_searches_with_what_the_llm_wrote(retriever):
    class Hypothesis(HyDEQueryTransform):
        def _run(self, query_bundle, metadata):
            return QueryBundle(query_bundle.query_str, custom_embedding_strs=["a bird sings a song"])

    found = TransformRetriever(retriever, Hypothesis()).retrieve("which animal")
    assert ids(found)[0] == "bird"


def test_the_object_of_an_index_node_takes_its_place(words):
    target = TextNode(id_="target", text="all about dogs")
    pointer = IndexNode(text="questions about dogs", index_id="dogs", obj=target)
    made = ColBERTRetriever.from_nodes([*nodes(), pointer], 1, model=words)
    added = ColBERTRetriever.from_nodes(nodes(), 1, model=words)
    added.add_nodes([pointer])
    mapped = ColBERTRetriever.from_nodes(
        [IndexNode(text="questions about dogs", index_id="dogs")], 1, model=words, object_map={"dogs": target}
    )
    for retriever in (made, added, mapped):
        assert ids(retriever.retrieve("questions about dogs")) == ["target"]
    assert pointer.obj is target


def test_transformations_do_not_change_the_documents(words):
    class InPlace(TransformComponent):
        def __call__(self, nodes, **_):
            for node in nodes:
                node.metadata["keyword"] = "added"
            return nodes

    document = Document(id_="a", text="a dog barks", metadata={"page": 1})
    (found,) = ColBERTRetriever.from_documents([document], model=words, transformations=[InPlace()]).retrieve("dog")
    assert found.node.metadata == {"page": 1, "keyword": "added"}
    assert document.metadata == {"page": 1}


def test_one_index_serves_both_frameworks(retriever):
    assert LangChainRetriever(index=retriever.index).invoke("dog barks")[0].id == "dog"


def test_an_empty_collection_finds_nothing(words):
    assert ColBERTRetriever.from_nodes([], model=words).retrieve("dog") == []


def test_mistakes_are_errors(retriever, words):
    for blank in ("", "  "):
        with pytest.raises(ValueError, match="is empty"):
            retriever.retrieve(blank)
    with pytest.raises(TypeError, match="top_k"):
        ColBERTRetriever.from_nodes(nodes(), model=words, top_k=3)
    with pytest.raises(ValueError, match="stand more than once"):
        ColBERTRetriever.from_nodes([*nodes(), *nodes()], model=words)
    with pytest.raises(ValueError, match="similarity_top_k must be at least 1 and whole, got 0"):
        retriever.similarity_top_k = 0
    with pytest.raises(ValueError, match=r"similarity_top_k must be at least 1 and whole, got 2\.5"):
        retriever.similarity_top_k = 2.5
    with pytest.raises(ValueError, match="Node 'odd' cannot be kept as JSON"):
        retriever.add_nodes([TextNode(id_="odd", text="x", metadata={"object": object()})])
    with pytest.raises(ValueError, match="similarity_top_k must be at least 1 and whole, got -2"):
        ColBERTRetriever(retriever.index, similarity_top_k=-2)


async def test_in_a_query_engine_with_the_reranker_the_text_reaches_the_llm(retriever, words):
    engine = RetrieverQueryEngine.from_args(
        retriever, llm=MockLLM(), node_postprocessors=[ColBERTRerank(model=words, top_n=1)], response_mode="compact"
    )
    response = engine.query("what does a dog do at night")
    assert "a dog barks at night" in str(response)
    assert "the cat sat" not in str(response)
    assert ids(response.source_nodes) == ["dog"]
    assert str(await engine.aquery("what does a dog do at night")) == str(response)


# Reranker


@pytest.fixture
def candidates():
    return [NodeWithScore(node=node, score=0.1 * n) for n, node in enumerate(nodes())]


async def test_reranking_puts_the_best_first_sync_and_async(words, candidates):
    rerank = ColBERTRerank(model=words, top_n=2)
    found = rerank.postprocess_nodes(candidates, query_str="sings song")
    assert ids(found)[0] == "bird"
    assert len(found) == 2
    assert type(found[0].score) is float
    assert found[0].score == pytest.approx(1)
    assert await rerank.apostprocess_nodes(candidates, query_bundle=QueryBundle("sings song")) == found


def test_the_callers_nodes_and_scores_stay_as_they_are(words, candidates):
    before = copy.deepcopy(candidates)
    found = ColBERTRerank(model=words, keep_retrieval_score=True).postprocess_nodes(candidates, query_str="bird")
    found[0].node.metadata["page"] = "spoilt"
    assert candidates == before


def test_a_kept_retrieval_score_is_hidden_from_embedding_and_llm_text(words, candidates):
    (found, *_) = ColBERTRerank(model=words, keep_retrieval_score=True).postprocess_nodes(candidates, query_str="bird sings")
    assert found.node.metadata["retrieval_score"] == pytest.approx(0.2)
    for mode in (MetadataMode.EMBED, MetadataMode.LLM):
        assert "retrieval_score" not in found.node.get_content(mode)


class Recorder(BaseEventHandler):
    seen: list = []

    def handle(self, event, **_):
        self.seen.append(event)


@pytest.mark.parametrize("empty", [False, True])
def test_start_and_end_events_and_callbacks_come_on_every_path(words, candidates, empty):
    recorder = Recorder(seen=[])
    root = get_dispatcher()
    root.add_event_handler(recorder)
    debug = LlamaDebugHandler(print_trace_on_end=False)
    try:
        rerank = ColBERTRerank(model=words, callback_manager=CallbackManager([debug]))
        rerank.postprocess_nodes([] if empty else candidates, query_str="bird")
    finally:
        root.event_handlers.remove(recorder)
    start, end = (event for event in recorder.seen if isinstance(event, ReRankStartEvent | ReRankEndEvent))
    assert (type(start), start.model_name, start.top_n) == (ReRankStartEvent, "words", 5)
    assert len(end.nodes) == (0 if empty else 4)
    assert len(debug.get_event_pairs(CBEventType.RERANKING)[0]) == 2


def test_rerank_input_is_checked(words, candidates):
    rerank = ColBERTRerank(model=words)
    assert rerank.postprocess_nodes([], query_str="dog") == []
    with pytest.raises(ValueError, match="needs the query"):
        rerank.postprocess_nodes(candidates)
    with pytest.raises(ValueError, match="is empty"):
        rerank.postprocess_nodes(candidates, query_str=" ")
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        ColBERTRerank(top_n=0)
    with pytest.raises(ValueError, match="topn"):
        ColBERTRerank(topn=3)


def test_a_changed_model_takes_effect(words, candidates):
    other = WordEncoder(dim=32)
    rerank = ColBERTRerank(model=words)
    assert rerank.postprocess_nodes(candidates, query_str="bird")[0].node.node_id == "bird"
    for changed in (rerank.model_copy(update={"model": other}), rerank):
        changed.model = other
        changed.postprocess_nodes(candidates, query_str="bird")
        assert changed._reranker().encoder is other


def test_an_object_behind_an_index_node_is_never_copied(words):
    node = IndexNode(text="a dog barks", index_id="sub", obj=threading.Lock())
    (found,) = ColBERTRerank(model=words).postprocess_nodes([NodeWithScore(node=node)], query_str="dog")
    assert found.node.obj is node.obj
    assert found.node is not node


def test_both_are_what_llama_index_expects_them_to_be():
    assert issubclass(ColBERTRetriever, BaseRetriever)
    assert issubclass(ColBERTRerank, BaseNodePostprocessor)
    assert ColBERTRerank(top_n=3).to_dict()["class_name"] == "ColBERTRerank"


def test_a_copied_reranker_works_and_shares_the_model(stanford, candidates):
    rerank = ColBERTRerank(model=stanford)
    expected = rerank.postprocess_nodes(candidates, query_str="the cat")
    copied = copy.deepcopy(rerank)
    assert copied.model is stanford
    assert copied.postprocess_nodes(candidates, query_str="the cat") == expected
