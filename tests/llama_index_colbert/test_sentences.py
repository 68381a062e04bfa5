"""``ColBERTSentencePostprocessor``: what stays of nodes, alone and in query engines."""

from __future__ import annotations

import pickle

import pytest
from builders.texts import CATS, RUST
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import IndexNode, MetadataMode, NodeWithScore, TextNode
from pydantic import ValidationError

from llama_index_colbert import ColBERTRetriever, ColBERTSentencePostprocessor


def nodes():
    return [TextNode(id_="cats", text=CATS, metadata={"kind": "purring pets"}), TextNode(id_="rust", text=RUST)]


@pytest.fixture(scope="module")
def postprocessor(default_encoder):
    return ColBERTSentencePostprocessor(model=default_encoder, max_tokens=16)


def scored(*some):
    return [NodeWithScore(node=node, score=0.5) for node in some]


def test_only_the_sentences_that_matter_stay(postprocessor):
    given = scored(*nodes())
    found = postprocessor.postprocess_nodes(given, query_str="Why do cats purr?")
    assert [one.node.node_id for one in found] == ["cats"]
    (cats,) = found
    assert "They purr when they are content." in cats.node.text
    assert cats.score == 0.5
    assert cats.node.metadata["kind"] == "purring pets"
    spans = cats.node.metadata["excerpt_spans"]
    assert " … ".join(CATS[start:end] for start, end in spans) == cats.node.text
    assert "excerpt_spans" not in cats.node.get_content(MetadataMode.LLM)
    assert given[0].node.text == CATS
    assert "excerpt_spans" not in given[0].node.metadata


async def test_in_a_query_engine_the_llm_reads_what_is_left(default_encoder):
    postprocessor = ColBERTSentencePostprocessor(model=default_encoder, max_tokens=10)  # one sentence
    retriever = ColBERTRetriever.from_nodes(nodes(), similarity_top_k=2, model=default_encoder)
    engine = RetrieverQueryEngine.from_args(
        retriever, llm=MockLLM(), node_postprocessors=[postprocessor], response_mode="compact"
    )
    answer = str(engine.query("Why do cats purr?"))
    assert "They purr when they are content." in answer
    assert "farms" not in answer
    assert "mammals" not in answer
    assert str(await engine.aquery("Why do cats purr?")) == answer


def test_budgets(default_encoder):
    n_all = sum(default_encoder.count_tokens(text) for text in (CATS, RUST))

    def n_kept(**budget):
        found = ColBERTSentencePostprocessor(model=default_encoder, **budget).postprocess_nodes(
            scored(*nodes()), query_str="Why do cats purr?"
        )
        return sum(default_encoder.count_tokens(one.node.text) for one in found)

    assert 0 < n_kept() <= 0.35 * n_all
    assert 0 < n_kept(keep_ratio=0.6) <= 0.6 * n_all
    assert 0 < n_kept(max_tokens=12) <= 12


@pytest.mark.parametrize("n_hits", [1, 2, 3])
def test_the_best_sentence_of_short_nodes_stays(default_encoder, n_hits):
    texts = ["Cats purr when they are content.", "Dogs wag their tails when happy.", "Rust is a systems language."]
    given = scored(*[TextNode(text=text) for text in texts[:n_hits]])
    for budget in ({}, {"max_tokens": 2}):
        postprocessor = ColBERTSentencePostprocessor(model=default_encoder, **budget)
        found = postprocessor.postprocess_nodes(given, query_str="Why do cats purr?")
        assert [one.node.text for one in found] == [texts[0]]


def test_nothing_and_nodes_without_text_are_no_error(postprocessor):
    assert ColBERTSentencePostprocessor(model="/no/such/model").postprocess_nodes([], query_str="cats") == []
    found = postprocessor.postprocess_nodes(scored(TextNode(text=""), nodes()[0]), query_str="Why do cats purr?")
    assert [one.node.node_id for one in found] == ["cats"]


def test_an_index_node_keeps_its_object(postprocessor):
    target = object()
    (found,) = postprocessor.postprocess_nodes(
        scored(IndexNode(text=CATS, index_id="cats", obj=target)), query_str="Why do cats purr?"
    )
    assert found.node.obj is target


def test_settings_go_to_a_dict_and_back_and_it_is_pickled(stanford_folder):
    made = ColBERTSentencePostprocessor(model=stanford_folder, device="cpu", keep_ratio=0.7)
    assert made.to_dict()["class_name"] == "ColBERTSentencePostprocessor"
    again = ColBERTSentencePostprocessor.from_dict(made.to_dict())
    assert (str(again.model), again.keep_ratio) == (str(stanford_folder), 0.7)
    expected = [one.node.text for one in made.postprocess_nodes(scored(*nodes()), query_str="cats")]
    pickled = pickle.loads(pickle.dumps(made))
    assert [one.node.text for one in pickled.postprocess_nodes(scored(*nodes()), query_str="cats")] == expected


def test_bad_settings_are_refused(postprocessor):
    with pytest.raises(ValidationError, match="max_tokens or keep_ratio, one of them"):
        ColBERTSentencePostprocessor(max_tokens=5, keep_ratio=0.5)
    with pytest.raises(ValidationError):
        ColBERTSentencePostprocessor(keep_ratio=0)
    with pytest.raises(ValueError, match="needs the query"):
        postprocessor.postprocess_nodes(scored(*nodes()))
