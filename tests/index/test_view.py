"""One moment of an index: what can be asked of it belongs together."""

from __future__ import annotations

import pytest
from builders.vectors import ids

from colbert_core import FilterWarning, Index, Passage


def test_embeddings_of_an_unknown_passage_are_an_error(compressed):
    with pytest.raises(ValueError, match=r"There is no passage with the id 'nobody' \(1 of 2 are unknown\)"):
        compressed[0].embeddings(["00001", "nobody"])


def test_a_diverse_search_passes_over_what_says_the_same(words):
    index = Index.create(None, words)
    index.add([Passage("a", "cat sat mat"), Passage("b", "cat sat mat"), Passage("c", "cat ran home"), Passage("d", "dog")])
    assert ids(index.search("cat sat mat", k=2)) == ["a", "b"]
    hits = index.search_diverse("cat sat mat", k=2, fetch_k=4, lambda_mult=0.3)
    assert ids(hits) == ["a", "d"]
    assert [hit.rank for hit in hits] == [1, 2]
    assert ids(index.search_diverse("cat sat mat", k=2, fetch_k=4, lambda_mult=1)) == ["a", "b"]
    assert len(index.search_diverse("cat", k=3, fetch_k=1)) == 3
    with pytest.warns(FilterWarning, match="No passage has the field 'no'"):
        assert ids(index.search_diverse("cat", k=9, where={"no": 1})) == []
    with pytest.raises(ValueError, match="lambda_mult is a relevance from 0 to 1|lambda_mult"):
        index.search_diverse("cat", lambda_mult=2)


def test_evidence_is_that_of_the_vectors_in_the_index(stanford):
    index = Index.create(None, stanford)
    index.add([Passage("a", "the cat sat on a mat"), Passage("b", "dogs bark")])
    (hit, _) = index.search("what sound does a cat make", evidence=True)
    assert hit.evidence.score == pytest.approx(hit.score, abs=1e-5)
    explained = index.explain("what sound does a cat make", "a")
    assert (explained.matches, explained.window) == (hit.evidence.matches, hit.evidence.window)


def test_evidence_of_hits_below_a_threshold_is_not_made(words, monkeypatch):
    index = Index.create(None, words)
    index.add([Passage("a", "cat sat"), Passage("b", "dog ran")])
    assert [hit.passage.id for hit in index.search("cat sat", evidence=True, min_relevance=0.9)] == ["a"]


def test_a_filter_of_the_user_s_that_fails_is_not_taken_for_damage(words):
    index = Index.create(None, words)
    index.add([Passage("a", "cat sat")])
    for search in (index.search, index.search_diverse):
        with pytest.raises(KeyError, match="year"):
            search("cat", where=lambda passage: passage.metadata["year"] == 1)
    with pytest.raises(KeyError, match="year"):
        index.search_mean(["cat"], where=lambda passage: passage.metadata["year"] == 1)


def test_a_sample_is_the_same_each_time_and_never_more_than_there_are(compressed):
    index = compressed[0]
    samples = [index._versions.read(lambda view: view.sample_pids(7)) for _ in range(2)]
    assert samples[0] == samples[1]
    assert len(set(samples[0])) == 7
    assert len(index._versions.read(lambda view: view.sample_pids(10**6))) == len(index)
