"""``ColBERTRerank`` over what another retriever found, beside the core and the package that it replaces."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from builders.encoders import WordEncoder
from builders.nodes import ids
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.schema import (
    MetadataMode,
    NodeWithScore,
    QueryBundle,
    TextNode,
)
from transformers import AutoModel, AutoTokenizer

from colbert_core import Passage, Reranker
from llama_index_colbert import ColBERTIndex, ColBERTRerank, ColbertRerank, ColBERTVectorStore


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


def test_scores_do_not_depend_on_the_batch_size(stanford, words):
    texts = ["the cat sat on a mat", "dogs bark", "what sound does a dog make", "the cat sat on a mat", "rust is a language"]
    found = [NodeWithScore(node=TextNode(id_=str(n), text=text), score=0.0) for n, text in enumerate(texts)]
    for model in (stanford, words):
        whole = ColBERTRerank(model=model, top_n=4).postprocess_nodes(found, query_str="a cat on a mat")
        for size in (1, 2, 3, 5):
            batched = ColBERTRerank(model=model, top_n=4, batch_size=size).postprocess_nodes(found, query_str="a cat on a mat")
            assert ids(batched) == ids(whole)
            assert [scored.score for scored in batched] == pytest.approx([scored.score for scored in whole], abs=1e-5)
    assert ids(whole)[:2] == ["0", "3"]  # equal ones as they came


def test_a_threshold_and_a_scale_are_those_of_the_core(words, candidates):
    query, settings = "a bird sings", {"model": words, "metadata_mode": "none"}
    everything = ColBERTRerank(**settings).postprocess_nodes(candidates, query_str=query)
    sums = ColBERTRerank(**settings, score_scale="maxsim").postprocess_nodes(candidates, query_str=query)
    assert ids(sums) == ids(everything)
    assert sums[0].score == pytest.approx(3)
    assert everything[0].score == pytest.approx(1)
    for scale in ("relevance", "maxsim"):
        best = ColBERTRerank(**settings, score_threshold=0.9, score_scale=scale)
        assert ids(best.postprocess_nodes(candidates, query_str=query)) == ["bird"]
    for wrong in ({"score_threshold": 1.5}, {"score_scale": "sum"}, {"batch_size": 0}, {"metadata_mode": "some"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ColBERTRerank(**wrong)


def test_the_metadata_mode_says_what_is_read(words):
    given = [
        NodeWithScore(node=TextNode(id_="plain", text="a whale"), score=1),
        NodeWithScore(node=TextNode(id_="tagged", text="a fish", metadata={"about": "snow"}), score=0),
    ]
    query = "about: snow"
    assert ids(ColBERTRerank(model=words, top_n=1).postprocess_nodes(given, query_str=query)) == ["tagged"]
    (found, other) = ColBERTRerank(model=words, metadata_mode=MetadataMode.NONE).postprocess_nodes(given, query_str=query)
    assert max(found.score, other.score) < 0.5


def test_the_incumbents_call_is_taken_and_another_tokenizer_is_an_error(stanford_folder, candidates):
    name = str(stanford_folder)
    rerank = ColbertRerank(
        top_n=2, model=name, tokenizer=name, device="cpu", keep_retrieval_score=True, callback_manager=CallbackManager([])
    )
    assert ColbertRerank is ColBERTRerank
    assert ColbertRerank(2, name, name, "cpu", True).to_dict() == rerank.to_dict()
    found = rerank.postprocess_nodes(candidates, query_str="the cat")
    assert len(found) == 2
    assert "retrieval_score" in found[0].node.metadata
    for wrong in ({"tokenizer": "other"}, {"tokenizer": "other", "model": name}):
        with pytest.raises(ValueError, match="tokenizer is 'other', but the model"):
            ColBERTRerank(**wrong)


def test_scores_are_those_of_the_core_where_the_incumbents_formula_gives_others(stanford_folder):
    """The published reranker: hidden states of the backbone alone, without markers, augmentation, projection or sum."""
    texts = ["the cat sat on a mat", "dogs bark and bark", "rust is a systems language", "what sound does a dog make"]
    query = "what sound does a cat make"
    given = [NodeWithScore(node=TextNode(id_=str(n), text=text), score=0.0) for n, text in enumerate(texts)]
    ours = ColBERTRerank(model=stanford_folder, device="cpu", score_scale="maxsim").postprocess_nodes(given, query_str=query)
    passages = [Passage(str(n), text) for n, text in enumerate(texts)]
    hits = Reranker(stanford_folder, device="cpu").rank(query, passages)
    assert [(scored.node.node_id, scored.score) for scored in ours] == [(hit.passage.id, hit.score) for hit in hits]

    tokenizer, model = AutoTokenizer.from_pretrained(stanford_folder), AutoModel.from_pretrained(stanford_folder)
    with torch.no_grad():
        states = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state for text in (query, *texts)]
    theirs = {
        str(n): torch.nn.functional.cosine_similarity(states[0].unsqueeze(2), state.unsqueeze(1), dim=-1)
        .max(dim=2)
        .values.mean()
        .item()
        for n, state in enumerate(states[1:])
    }
    assert sorted(theirs, key=lambda name: -theirs[name]) != ids(ours)
    assert [theirs[hit.passage.id] for hit in hits] != pytest.approx([hit.relevance for hit in hits], abs=0.05)


# Over an index, by its vectors


class Unread(WordEncoder):
    """An encoder that reads what is added, and after that only what is named."""

    allowed = None

    def encode_passages(self, texts, **options):
        assert self.allowed is None or set(texts) <= set(self.allowed), texts
        return super().encode_passages(texts, **options)


HOLDERS = {
    "Index": lambda index: index.index,
    "ColBERTIndex": lambda index: index,
    "ColBERTRetriever": lambda index: index.as_retriever(),
    "ColBERTVectorStore": lambda index: ColBERTVectorStore(index=index.index),
    "its index": lambda index: ColBERTVectorStore(index=index.index).as_index(),
}


@pytest.mark.parametrize("holder", HOLDERS)
async def test_nodes_of_an_index_are_scored_by_its_vectors_as_a_search_does(candidates, holder):
    encoder = Unread()
    index = ColBERTIndex([scored.node for scored in candidates], model_name=encoder)
    explained = index.as_retriever(similarity_top_k=4, evidence=True).retrieve("dog")
    encoder.allowed = []
    rerank = ColBERTRerank(top_n=3, index=HOLDERS[holder](index))
    found = rerank.postprocess_nodes(candidates, query_str="bird sings")
    expected = index.as_retriever(similarity_top_k=3, node_ids=ids(candidates), mode="maxsim").retrieve("bird sings")
    assert [(scored.node.node_id, scored.score) for scored in found] == [(one.node.node_id, one.score) for one in expected]
    assert await rerank.apostprocess_nodes(candidates, query_str="bird sings") == found
    again = rerank.postprocess_nodes(explained, query_str="bird sings")
    assert [scored.score for scored in again] == [scored.score for scored in found]  # evidence is no other text


def test_nodes_that_are_new_or_changed_are_read_by_the_model_of_the_index(candidates):
    encoder = Unread()
    index = ColBERTIndex([scored.node for scored in candidates], model_name=encoder)
    changed = TextNode(id_="cat", text="a bird sings")
    new = TextNode(id_="new", text="a bird flies", metadata={"page": 9})
    encoder.allowed = ["a bird sings", new.get_content(MetadataMode.EMBED)]
    nodes = [*candidates[1:], NodeWithScore(node=changed), NodeWithScore(node=new), NodeWithScore(node=changed)]
    found = ColBERTRerank(top_n=9, index=index).postprocess_nodes(nodes, query_str="bird sings")
    encoder.allowed = None
    expected = ColBERTRerank(top_n=9, model=encoder).postprocess_nodes(nodes, query_str="bird sings")
    assert ids(found) == ids(expected)
    assert [scored.score for scored in found] == pytest.approx([scored.score for scored in expected], abs=1e-5)


def test_a_query_engine_reranks_over_its_own_index(candidates, words):
    index = ColBERTIndex([scored.node for scored in candidates], model_name=words)
    engine = index.as_query_engine(similarity_top_k=4, node_postprocessors=[ColBERTRerank(top_n=1, index=index)])
    assert ids(engine.query("bird sings").source_nodes) == ["bird"]


def test_an_index_brings_its_model_and_is_no_setting(words, stanford):
    index = ColBERTIndex([], model_name=words)
    for wrong in ({"model": words}, {"device": "cpu"}):
        with pytest.raises(ValueError, match="its own model"):
            ColBERTRerank(index=index, **wrong)
    with pytest.raises(ValueError, match="index"):
        ColBERTRerank(index=3)
    for path in ("wiki.idx", Path("wiki.idx")):
        with pytest.raises(ValueError, match=r"not a path; open it: index=Index.open\('wiki.idx'\)"):
            ColBERTRerank(index=path)
    rerank = ColBERTRerank(index=index)
    assert "index" not in rerank.to_dict()
    held = ColBERTRerank(index=ColBERTIndex([TextNode(id_="a", text="the cat")], model_name=stanford))
    copied = pickle.loads(pickle.dumps(held))
    assert copied.index.ids() == ["a"]
    assert copied.postprocess_nodes([NodeWithScore(node=TextNode(id_="a", text="the cat"))], query_str="cat")
