"""Reranking: the same scores as an index gives, over any candidates."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
from builders.encoders import WordEncoder

from colbert_core import CheckpointNotFoundError, Index, Passage, Reranker

PASSAGES = [
    Passage("3", "dogs bark"),
    Passage("1", "the cat sat on a mat and purr"),
    Passage("2", "what sound does a cat make"),
    Passage("1", "dogs bark"),
]


def test_scores_and_order_are_those_of_an_index(stanford):
    passages = PASSAGES[:3]
    index = Index.create(None, stanford)
    index.add(passages)
    found, ranked = index.search("cat sound"), Reranker(stanford).rank("cat sound", passages)
    assert [hit.passage for hit in ranked] == [hit.passage for hit in found]
    np.testing.assert_allclose([hit.score for hit in ranked], [hit.score for hit in found], atol=1e-5)
    assert [hit.rank for hit in ranked] == [1, 2, 3]


def test_the_callers_objects_come_back_and_ids_may_repeat(words):
    hits = Reranker(words).rank("dogs bark", PASSAGES)
    assert all(any(hit.passage is passage for passage in PASSAGES) for hit in hits)
    assert [hit.passage.id for hit in hits[:2]] == ["3", "1"]  # equal scores keep the order given


def test_top_n_and_min_relevance_limit_the_hits(words):
    reranker = Reranker(words)
    assert [hit.passage.text for hit in reranker.rank("dogs bark", PASSAGES, top_n=1)] == ["dogs bark"]
    assert len(reranker.rank("dogs bark", PASSAGES, top_n=99)) == 4
    assert len(reranker.rank("dogs bark", PASSAGES, min_relevance=0.9)) == 2


def test_long_passages_are_scored_by_their_best_window(words):
    text = "filler " * 40 + "dogs bark " + "filler " * 40
    hit = Reranker(words).rank("dogs bark", [Passage("x", text), Passage("y", "dogs")])[0]
    assert hit.passage.id == "x"
    assert "dogs bark" in hit.text
    assert len(hit.text) < len(text)


def test_no_passages_give_no_hits_but_the_query_is_still_checked(words):
    assert Reranker(words).rank("cat", []) == []
    with pytest.raises(ValueError, match="is empty"):
        Reranker(words).rank(" ", [])


def test_passages_may_be_any_iterable(words):
    reranker = Reranker(words)
    assert reranker.rank("dogs bark", iter(PASSAGES)) == reranker.rank("dogs bark", PASSAGES)


@pytest.mark.parametrize("evidence", [False, True])
def test_batches_change_nothing(words, evidence):
    reranker = Reranker(words)
    whole = reranker.rank("dogs bark", PASSAGES, evidence=evidence)
    for size in (1, 2, 3, 4, 99):
        batched = reranker.rank("dogs bark", PASSAGES, evidence=evidence, batch_size=size)
        assert batched == whole  # equal scores keep the order given, and ranks are counted over all
        assert [hit.evidence and hit.evidence.to_dict() for hit in batched] == [
            hit.evidence and hit.evidence.to_dict() for hit in whole
        ]
        assert reranker.rank("dogs bark", PASSAGES, 3, evidence=evidence, batch_size=size) == whole[:3]


# Rerankers that other objects keep


def test_an_object_keeps_the_reranker_of_the_model_that_it_names(words):
    owner = SimpleNamespace(model=words, device=None, _loaded=None)
    reranker = Reranker.kept_by(owner)
    assert reranker.encoder is words
    assert Reranker.kept_by(owner) is reranker
    copied = copy.copy(owner)
    assert Reranker.kept_by(copied) is reranker
    copied.model = WordEncoder(dim=32)
    assert Reranker.kept_by(copied).encoder is copied.model
    assert Reranker.kept_by(owner) is reranker


def test_a_model_that_is_not_there_is_named_and_may_come_later(words):
    owner = SimpleNamespace(model="/no/such/model", device=None, _loaded=None)
    with pytest.raises(CheckpointNotFoundError, match="/no/such/model"):
        Reranker.kept_by(owner)
    owner.model = words
    assert Reranker.kept_by(owner).encoder is words


def test_bad_arguments_are_refused(words):
    reranker = Reranker(words)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        reranker.rank("cat", PASSAGES, batch_size=0)
    with pytest.raises(ValueError, match="top_n must be at least 1, got 0"):
        reranker.rank("cat", PASSAGES, top_n=0)
    with pytest.raises(TypeError, match="Item 0 is a str, not a Passage"):
        reranker.rank("cat", ["text"])
    with pytest.raises(ValueError, match="min_relevance is a relevance from 0 to 1"):
        reranker.rank("cat", PASSAGES, min_relevance=3)
