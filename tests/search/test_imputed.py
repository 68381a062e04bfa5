"""XTR's score, as an option of search."""

from __future__ import annotations

import numpy as np
import pytest
from builders.encoders import WordEncoder
from builders.grown import found, recall, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_core import Index, Passage, SearchConfig

ROUNDING = 2e-6  # of a cosine in float32


def rule(query, matrices, n_tokens):
    """The rule as its authors write it: passages' scores, or the sum of bars for one of which nothing was found."""
    vectors, owners = np.concatenate(matrices), np.repeat(np.arange(len(matrices)), [len(matrix) for matrix in matrices])
    total = np.zeros(len(matrices))
    for similarities in query.astype(np.float64) @ vectors.astype(np.float64).T:
        nearest = np.argsort(-similarities)[:n_tokens]
        best = np.full(len(matrices), similarities[nearest].min())
        np.maximum.at(best, owners[nearest], similarities[nearest])
        total += best
    return total


def index_of(matrices, **options):
    index = Index.create(None, dim=matrices[0].shape[1], words=False, **options)
    index.add([Passage(f"{number:04}", "") for number in range(len(matrices))], embeddings=matrices)
    return index


def by_rule(n_tokens, **how):
    return {"config": SearchConfig(nprobe=16, n_tokens=n_tokens), **how}


def test_what_was_not_found_has_the_lowest_similarity_that_was():
    query = np.array([[1, 0], [0, 1]], np.float32)
    matrices = [np.array([[1, 0]], np.float32), np.array([[0.8, 0.6], [0, 1]], np.float32), np.array([[-1, 0]], np.float32)]
    with index_of(matrices, nbits=32) as index:
        # Of the first query vector 1 and .8 are found, bar .8; of the second 1 and .6, bar .6. Of the third passage nothing is.
        hits = index.search(query, 3, **by_rule(2))
        assert [hit.passage.id for hit in hits] == ["0001", "0000", "0002"]
        np.testing.assert_allclose([hit.score for hit in hits], [0.8 + 1, 1 + 0.6, 0.8 + 0.6], rtol=1e-6)
        np.testing.assert_allclose([hit.relevance for hit in hits], [0.9, 0.8, 0.7], rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 60))
def test_scores_are_those_of_the_authors_rule(seed, n_q, n_tokens):
    random = np.random.default_rng(seed)
    query = unit(random.standard_normal((n_q, 4)))
    matrices = [unit(random.standard_normal((length, 4))) for length in random.integers(1, 6, 8)]
    expected = rule(query, matrices, n_tokens)
    with index_of(matrices, nbits=32) as index:
        scores = {int(hit.passage.id): hit.score for hit in index.search(query, 8, **by_rule(n_tokens))}
    np.testing.assert_allclose([scores[number] for number in range(8)], expected, atol=n_q * ROUNDING)


@pytest.mark.parametrize("exact", [False, True])
def test_with_all_tokens_found_it_is_maxsim(grown, exact):
    index, queries = grown
    n_tokens = index.stats().tokens
    config = SearchConfig(nprobe=10**4, n_tokens=n_tokens)
    for ours, theirs in zip(found(index, queries, config=config, exact=exact), found(index, queries, exact=True), strict=True):
        assert {passage_id for passage_id, _ in ours} == {passage_id for passage_id, _ in theirs}
        np.testing.assert_allclose([score for _, score in ours], [score for _, score in theirs], atol=1e-4)


def test_looking_at_every_token_scores_by_the_rule_over_what_is_kept(grown):
    index, queries = grown
    ids = index.ids()
    matrices = index.embeddings(ids)
    for query, hits in zip(queries, found(index, queries, k=20, **by_rule(300, exact=True)), strict=True):
        expected = dict(zip(ids, rule(query, matrices, 300), strict=True))
        np.testing.assert_allclose([score for _, score in hits], [expected[i] for i, _ in hits], atol=1e-4)
        assert hits[-1][1] >= sorted(expected.values())[-20] - 1e-4


def test_lists_lead_to_nearly_all_that_every_token_leads_to(grown):
    index, queries = grown
    listed = found(index, queries, config=SearchConfig(nprobe=32, n_tokens=300))
    assert recall(listed, found(index, queries, **by_rule(300, exact=True))) >= 0.95


def test_a_filter_makes_it_a_search_of_what_the_filter_leaves(grown):
    index, queries = grown
    ids = index.ids()[::3]
    matrices = index.embeddings(ids)
    for query in queries[:5]:
        expected = dict(zip(ids, rule(query, matrices, 100), strict=True))
        hits = index.search(query, 10, ids=ids, **by_rule(100, exact=True))
        np.testing.assert_allclose([hit.score for hit in hits], sorted(expected.values(), reverse=True)[:10], atol=1e-4)


def test_means_and_diverse_hits_are_of_the_same_scores(grown):
    index, queries = grown
    means = index.search_mean(queries[:2], 5, **by_rule(300, exact=True))
    each = [dict(hits) for hits in found(index, queries[:2], k=len(index), **by_rule(300, exact=True))]
    expected = {i: (each[0][i] / len(queries[0]) + each[1][i] / len(queries[1])) / 2 for i in each[0]}
    assert [hit.passage.id for hit in means] == sorted(expected, key=lambda i: -expected[i])[:5]
    diverse = index.search_diverse(queries[0], 5, fetch_k=20, **by_rule(300, exact=True))
    assert all(hit.score == each[0][hit.passage.id] for hit in diverse)


def test_in_hybrid_mode_coverage_is_added_to_its_relevance():
    texts = ["red cat", "green dog", "blue bird and red fish", "one fish", "two dogs"]
    how = {"config": SearchConfig(nprobe=4, n_tokens=4)}
    with Index.create(None, WordEncoder(dim=16, window=6), nbits=32) as index:
        index.add([Passage(text, text) for text in texts])
        relevances = {hit.passage.id: hit.relevance for hit in index.search("red fish", 5, **how)}
        coverages = {hit.passage.id: hit.coverage for hit in index.search("red fish", 5, mode="words")}
        hits = index.search("red fish", 3, mode="hybrid", weight=0.4, **how)
    expected = {text: relevances[text] + 0.4 * coverages.get(text, 0) for text in texts}
    assert [hit.passage.id for hit in hits] == sorted(expected, key=lambda text: -expected[text])[:3]
    np.testing.assert_allclose([hit.value for hit in hits], sorted(expected.values(), reverse=True)[:3], atol=1e-6)


def test_equal_passages_tie_and_come_by_their_ids():
    random = np.random.default_rng(1)
    matrices = [unit(random.standard_normal((3, 8)))] * 40
    with index_of(matrices) as index:
        hits = index.search(unit(random.standard_normal((4, 8))), 40, **by_rule(7))
    assert [hit.passage.id for hit in hits] == [f"{number:04}" for number in range(40)]
    assert len({hit.score for hit in hits}) == 1


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 40), nprobe=st.integers(1, 70), n_tokens=st.integers(1, 3000))
def test_k_hits_whatever_is_found(grown, seed, k, nprobe, n_tokens):
    index, queries = grown
    hits = index.search(queries[seed % len(queries)], k, config=SearchConfig(nprobe, n_tokens=n_tokens))
    assert len({hit.passage.id for hit in hits}) == len(hits) == k
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_an_empty_index_has_no_hits():
    with Index.create(None, dim=4) as index:
        assert index.search(np.eye(4, dtype=np.float32), 3, **by_rule(5)) == []


@pytest.mark.parametrize("n_tokens", [0, -3, 2.5, True, "many"])
def test_the_number_of_tokens_is_checked(n_tokens):
    with pytest.raises((TypeError, ValueError), match="n_tokens"):
        SearchConfig(nprobe=4, n_tokens=n_tokens)


def test_a_device_is_refused_with_what_to_leave_out():
    matrices = [np.eye(4, dtype=np.float32)]
    with index_of(matrices, device="cpu") as index, pytest.raises(ValueError, match=r"n_tokens=5.*'cpu'.*leave"):
        index.search(matrices[0], 1, **by_rule(5))
