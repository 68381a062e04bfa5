"""Long nodes: by default all of the text comes back, on request the part that matched."""

from __future__ import annotations

import pytest
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, QueryBundle, TextNode

from llama_index_colbert import ColBERTIndex, ColBERTRetriever

NEEDLE = "Cats purr when they are content."
FILLER = "The tide follows the moon across the bay. "
LONG = FILLER * 200 + NEEDLE + " " + FILLER * 200
QUESTION = "Why do cats purr?"


@pytest.fixture(scope="module")
def index(default_encoder):
    nodes = [
        TextNode(id_="long", text=LONG, metadata={"kind": "tides and pets", "start": 5}),
        TextNode(id_="short", text="Rust is a systems language.", metadata={"colbert": "mine"}),
    ]
    return ColBERTRetriever.from_nodes(nodes, model=default_encoder).index


async def test_a_retriever_returns_the_part_that_matched_with_its_place_in_the_whole(index):
    retriever = ColBERTRetriever(index, text="window")
    long, short = retriever.retrieve(QUESTION)
    assert NEEDLE in long.node.text
    assert 1800 < len(long.node.text) <= 2000
    assert long.node.metadata["start"] == 5
    start, end = long.node.metadata["colbert"]["span"]
    first, last = long.node.metadata["colbert"]["window"]
    assert LONG[start:end] == long.node.text
    assert start <= first < last <= end
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert "window" not in long.node.get_content(mode)
    assert long.node.get_content(MetadataMode.LLM).startswith("kind: tides and pets")
    assert short.node.text == "Rust is a systems language."
    assert short.node.metadata["colbert"] == "mine"
    assert [one.node.text for one in await retriever.aretrieve(QUESTION)] == [long.node.text, short.node.text]


def test_by_default_all_of_the_text_comes_back(index):
    (found,) = ColBERTRetriever(index, 1).retrieve(QUESTION)
    assert found.node.text == LONG
    assert "colbert" not in found.node.metadata


def test_the_budget_is_kept_and_the_window_stays_whole(index):
    (found,) = ColBERTRetriever(index, 1, text="window", max_characters=1000).retrieve(QUESTION)
    assert NEEDLE in found.node.text
    assert 800 < len(found.node.text) <= 1000
    (found,) = ColBERTRetriever(index, 1, text="window", max_characters=1).retrieve(QUESTION)
    assert NEEDLE in found.node.text


def test_evidence_has_its_places_in_the_part_also_for_several_texts(index):
    retriever = ColBERTRetriever(index, 1, text="window", evidence=True)
    for query in (QUESTION, QueryBundle(QUESTION, custom_embedding_strs=["moon and tide", QUESTION])):
        (found,) = retriever.retrieve(query)
        evidence = found.node.metadata["evidence"]
        placed = [one for one in evidence["highlights"] if one["start"] is not None]
        assert all(found.node.text[one["start"] : one["end"]] == one["text"] for one in placed)
        assert 0 <= evidence["window"][0] <= evidence["window"][1] <= len(found.node.text)
    assert any("purr" in one["text"] for one in retriever.retrieve(QUESTION)[0].node.metadata["evidence"]["highlights"])


def test_an_llm_reads_the_part_and_not_the_whole(index, default_encoder):
    retriever = ColBERTRetriever(index, 1, text="window")
    answer = str(RetrieverQueryEngine.from_args(retriever, llm=MockLLM()).query(QUESTION))
    assert NEEDLE in answer
    assert len(answer) < 3000 < len(LONG)
    documents = ColBERTIndex(nodes=[TextNode(id_="long", text=LONG)], model_name=default_encoder)
    answer = str(documents.as_query_engine(llm=MockLLM(), text="window", max_characters=1000).query(QUESTION))
    assert NEEDLE in answer
    assert len(answer) < 2000


def test_mistakes_are_errors_not_silence(index):
    with pytest.raises(ValueError, match="text must be 'passage'.*got 'windows'"):
        ColBERTRetriever(index, text="windows")
    with pytest.raises(ValueError, match="max_characters must be at least 1, got 0"):
        ColBERTRetriever(index, text="window", max_characters=0)
