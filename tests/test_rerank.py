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


# Over an index, by its vectors


class Counting:
    """An encoder that counts the passages that it reads."""

    def __init__(self, encoder):
        self.encoder, self.read = encoder, []

    def __getattr__(self, name):
        return getattr(self.encoder, name)

    def encode_queries(self, queries):
        return self.encoder.encode_queries(queries)

    def encode_passages(self, texts, **options):
        self.read += texts
        return self.encoder.encode_passages(texts, **options)


SOUNDS = ["dogs bark at night", "the cat sat on a mat and purr", "what sound does a cat make", "birds sing", "fish are mute"]


@pytest.fixture(params=[32, 4, 1])
def held(request, stanford):
    """An index whose vectors are compressed, but for 32 bits, and the encoder that counts."""
    counting = Counting(stanford)
    index = Index.create(None, counting, nbits=request.param)
    index.add([Passage(str(place), text) for place, text in enumerate(SOUNDS)])
    index.add([Passage(f"more {place}", f"{SOUNDS[place % 5]} and number {place} of many more words") for place in range(200)])
    index.compact()
    counting.read.clear()
    return index, counting


def test_what_the_index_holds_is_scored_as_a_search_does_and_not_read_again(held):
    index, counting = held
    candidates = [Passage(str(place), text) for place, text in enumerate(SOUNDS)]
    hits = Reranker(index=index).rank("cat sound", candidates)
    found = index.search("cat sound", 5, ids=[passage.id for passage in candidates])
    assert counting.read == []
    assert [(hit.passage.id, hit.score, hit.relevance, hit.span, hit.rank) for hit in hits] == [
        (hit.passage.id, hit.score, hit.relevance, hit.span, hit.rank) for hit in found
    ]
    assert all(any(hit.passage is passage for passage in candidates) for hit in hits)
    full = {hit.passage.id: hit.score for hit in Reranker(counting).rank("cat sound", candidates)}
    off = max(abs(hit.score - full[hit.passage.id]) for hit in hits)
    bits = index.stats().nbits
    assert off < (1e-4 if bits == 32 else np.inf)  # compression moves scores


def test_unknown_ids_and_changed_texts_are_read_by_the_model_of_the_index(held):
    index, counting = held
    candidates = [
        Passage("0", SOUNDS[0]),
        Passage("1", "another text about a cat sound"),
        Passage("new", "a cat sound is a purr"),
        Passage("2", SOUNDS[2]),
        Passage("2", SOUNDS[2]),
    ]
    hits = Reranker(index=index).rank("cat sound", candidates)
    assert counting.read == ["another text about a cat sound", "a cat sound is a purr"]
    expected = {hit.passage.id: hit.score for hit in index.search("cat sound", 9, ids=["0", "2"])}
    expected |= {hit.passage.id: hit.score for hit in Reranker(counting).rank("cat sound", candidates[1:3])}
    assert {hit.passage.id: hit.score for hit in hits} == expected
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_an_update_of_the_index_is_seen(held):
    index, counting = held
    reranker = Reranker(index=index)
    assert reranker.rank("whale", [Passage("0", "a whale")])[0].relevance > 0.5
    assert counting.read == ["a whale"]
    index.add([Passage("0", "a whale")])
    counting.read.clear()
    assert reranker.rank("whale", [Passage("0", "a whale")])[0].score == index.search("whale", 1, ids=["0"])[0].score
    assert counting.read == []


def test_equal_scores_keep_the_order_given_whoever_scored_them(words):
    index = Index.create(None, words)
    index.add([Passage("b", "dogs bark"), Passage("a", "dogs bark"), Passage("blank", " \u200b ")])
    candidates = [Passage(name, "dogs bark") for name in ("new", "b", "other", "a")]
    candidates.insert(0, Passage("blank", " \u200b "))
    hits = Reranker(index=index).rank("dogs bark", candidates)
    assert [hit.passage.id for hit in hits] == ["new", "b", "other", "a", "blank"]
    assert hits[-1].score == 0
    assert [hit.passage.id for hit in Reranker(index=index).rank("dogs bark", candidates, 2)] == ["new", "b"]
    far = Reranker(index=index).rank("dogs bark", [*candidates, Passage("far", "fish")], min_relevance=0.9)
    assert [hit.passage.id for hit in far] == ["new", "b", "other", "a"]


def test_of_a_long_passage_the_best_window_counts_as_in_a_search(words):
    text = "filler " * 40 + "dogs bark " + "filler " * 40
    index = Index.create(None, words)
    index.add([Passage("x", text), Passage("y", "dogs")])
    (hit, _) = Reranker(index=index).rank("dogs bark", [Passage("x", text), Passage("y", "dogs")])
    (found,) = index.search("dogs bark", 1)
    assert (hit.passage.id, hit.score, hit.span) == ("x", found.score, found.span)
    assert "dogs bark" in hit.text
    assert len(hit.text) < len(text)


def test_evidence_is_that_of_the_index(words):
    index = Index.create(None, words)
    index.add([Passage("x", "dogs bark loudly")])
    hits = Reranker(index=index).rank("dogs bark", [Passage("x", "dogs bark loudly"), Passage("y", "cats")], evidence=True)
    assert hits[0].evidence.to_dict() == index.search("dogs bark", 1, evidence=True)[0].evidence.to_dict()
    assert hits[1].evidence is not None


def test_an_index_of_a_reranker_stands_alone_and_mistakes_are_errors(words):
    index = Index.create(None, words)
    for wrong in ({"encoder": words}, {"device": "cpu"}):
        with pytest.raises(ValueError, match="without an encoder or a device"):
            Reranker(index=index, **wrong)
    with pytest.raises(TypeError, match="index must be an Index of colbert_core, got list"):
        Reranker(index=[])
    reranker = Reranker(index=index)
    assert reranker.encoder is words
    assert repr(reranker) == f"Reranker({index!r})"
    assert reranker.rank("dogs", []) == []
    for passages in ([], [Passage("x", "dogs")]):
        with pytest.raises(ValueError, match="is empty"):
            reranker.rank(" ", passages)


def test_an_owner_that_names_an_index_has_a_reranker_over_it(words):
    index = Index.create(None, words)
    owner = SimpleNamespace(model=None, device=None, index=index, _loaded=None)
    first = Reranker.kept_by(owner)
    assert first is Reranker.kept_by(owner)
    assert first.encoder is words
    owner.index = Index.create(None, words)
    assert Reranker.kept_by(owner) is not first
