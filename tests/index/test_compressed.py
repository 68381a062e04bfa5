"""A compressed index against scoring everything, and against the vectors that went in."""

from __future__ import annotations

import numpy as np
import pytest
from builders.encoders import WordEncoder
from builders.vectors import collection, ids, recall
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_core import Index, Passage, SearchConfig, maxsim
from colbert_core.index import writing


def test_scores_are_those_of_the_decoded_vectors(compressed):
    index, _, _, queries = compressed
    for query in queries[:5]:
        unit = query / np.linalg.norm(query, axis=1, keepdims=True)
        for hit in index.search(query, k=20):
            (decoded,) = index.embeddings([hit.passage.id])
            assert hit.score == pytest.approx(float(maxsim(unit, decoded, np.array([len(decoded)]))[0]), abs=1e-4)


def test_exact_search_is_the_formula_over_the_decoded_vectors(compressed):
    index, passages, _, queries = compressed
    decoded = index.embeddings([passage.id for passage in passages])
    doclens = np.array([len(vectors) for vectors in decoded])
    for query in queries[:5]:
        unit = query / np.linalg.norm(query, axis=1, keepdims=True)
        scores = maxsim(unit, np.concatenate(decoded), doclens)
        best = [passages[place].id for place in np.argsort(-scores, kind="stable")[:10]]
        assert ids(index.search(query, k=10, exact=True)) == best


def test_a_plain_search_finds_what_scoring_everything_finds(compressed):
    index, _, _, queries = compressed
    best = index.search_many(queries, k=10, exact=True)
    assert recall(index.search_many(queries, k=10), best) >= 0.95


def test_what_both_find_scores_the_same(compressed):
    index, _, _, queries = compressed
    for plain, best in zip(index.search_many(queries, k=10), index.search_many(queries, k=10, exact=True), strict=True):
        known = {hit.passage.id: hit.score for hit in best}
        assert all(known.get(hit.passage.id, hit.score) == hit.score for hit in plain)


def test_probing_all_centroids_and_scoring_all_candidates_is_exhaustive(compressed):
    index, _, _, queries = compressed
    everything = SearchConfig(nprobe=10**6, n_exact=1499)  # one fewer than there are, or nothing would be pruned
    assert recall(index.search_many(queries, k=10, config=everything), index.search_many(queries, k=10, exact=True)) == 1


def test_looking_at_more_finds_no_less(compressed):
    index, _, _, queries = compressed
    best = index.search_many(queries, k=10, exact=True)
    shares = [
        recall(index.search_many(queries, k=10, config=SearchConfig(nprobe, n_exact=n_exact)), best)
        for nprobe, n_exact in ((1, 10), (4, 100), (32, 1000))
    ]
    assert shares == sorted(shares)
    assert shares[-1] > 0.99


@pytest.mark.parametrize("nbits", [1, 2, 4, 8])
def test_more_bits_find_more_of_the_exact_best(nbits):
    passages, vectors, queries = collection(600, seed=1)
    exact, index = Index.create(None, dim=32), Index.create(None, dim=32, nbits=nbits)
    for each in (exact, index):
        each.add(passages, embeddings=vectors)
    index.compact()
    best = exact.search_many(queries, k=10)
    assert recall(index.search_many(queries, k=10, exact=True), best) >= {1: 0.7, 2: 0.8, 4: 0.93, 8: 0.98}[nbits]


@pytest.mark.parametrize("config", [None, SearchConfig(1, n_exact=1), SearchConfig(1, 1, 1)])
@pytest.mark.parametrize("k", [1, 7, 100, 1499, 1500, 5000])
def test_k_is_guaranteed_whatever_is_pruned(compressed, k, config):
    index, _, _, queries = compressed
    hits = index.search(queries[0], k=k, config=config)
    assert len(set(ids(hits))) == len(hits) == min(k, 1500)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


@pytest.mark.parametrize("keep", [0, 1, 5, 300, 1499])
def test_a_filter_is_applied_before_scoring_and_few_matches_are_all_scored(compressed, keep):
    index, _, _, queries = compressed
    where = {"n": {"$lt": keep}}
    for query in queries[:8]:
        plain, best = (index.search(query, k=10, where=where, exact=exact) for exact in (False, True))
        assert len(plain) == min(10, keep)
        assert all(hit.passage.metadata["n"] < keep for hit in plain)
        if keep <= 256:
            assert plain == best


@pytest.mark.parametrize(("where", "share"), [({"third": 1}, 0.8), ({"n": {"$lt": 120}}, 0.75)])
def test_probing_knows_the_filter(compressed, where, share):
    """Probing that did not would find .73 of the second."""
    index, _, _, queries = compressed
    config = SearchConfig(nprobe=2, n_exact=50)
    best = index.search_many(queries, k=10, where=where, exact=True)
    assert all(len(hits) == 10 for hits in best)
    assert recall(index.search_many(queries, k=10, where=where, config=config), best) >= share


def test_deleted_and_replaced_passages_are_never_found(compressed):
    _, passages, vectors, queries = compressed
    index = Index.create(None, dim=32, nbits=4)
    index.add(passages, embeddings=vectors)
    index.compact()
    gone = {passage.id for passage in passages[::2]}
    assert index.delete(gone) == 750
    index.add([Passage(passages[1].id, "replaced")], embeddings=[vectors[3]])
    for query in queries:
        hits = index.search(query, k=50)
        assert not gone & set(ids(hits))
        assert len(hits) == 50
    assert index.search(vectors[3], k=2)[0].passage.id in (passages[1].id, passages[3].id)
    assert index.get([passages[1].id])[0].text == "replaced"


# Growing


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 60), dim=st.integers(2, 20), nbits=st.sampled_from([1, 2, 4, 8]))
def test_any_collection_is_searched_like_the_formula_says(seed, n, dim, nbits):
    """Random shapes, deletions and filters; exact search of a compressed index against a loop over its decoded vectors."""
    rng = np.random.default_rng(seed)
    vectors = [rng.standard_normal((rng.integers(1, 60), dim)).astype(np.float32) for _ in range(n)]
    index = Index.create(None, dim=dim, nbits=nbits)
    index.add([Passage(f"{i:03}", "x", {"n": i}) for i in range(n)], embeddings=vectors)
    index.compact()
    live = [i for i in range(n) if rng.random() < 0.7]
    index.delete([f"{i:03}" for i in range(n) if i not in live])
    limit = int(rng.integers(0, n + 1))
    query = rng.standard_normal((rng.integers(1, 9), dim)).astype(np.float32)
    unit = (query / np.linalg.norm(query, axis=1, keepdims=True)).astype(np.float64)
    candidates = [f"{i:03}" for i in live if i < limit]
    decoded = dict(zip(candidates, index.embeddings(candidates), strict=True))
    scores = {name: float((unit @ decoded[name].astype(np.float64).T).max(axis=1).sum()) for name in candidates}
    k = int(rng.integers(1, n + 3))
    for exact in (True, False):
        hits = index.search(query, k=k, where={"n": {"$lt": limit}}, exact=exact)
        assert [hit.score for hit in hits] == pytest.approx(sorted(scores.values(), reverse=True)[:k], abs=1e-5)
        assert all(hit.score == pytest.approx(scores[hit.passage.id], abs=1e-5) for hit in hits)
    assert index.verify().problems == []


# Vectors from elsewhere


# Diversity


def test_long_passages_are_one_hit_by_their_best_window(monkeypatch):
    monkeypatch.setattr(writing, "FIRST_FIT", 1000)
    words = WordEncoder(dim=64, window=8)
    index = Index.create(None, words, nbits=8)
    long = " ".join(f"word{i}" for i in range(400))
    index.add([Passage("long", long), *(Passage(str(i), f"other text {i} " * 4) for i in range(100))])
    assert index.stats().centroids > 0
    hit = index.search("word200 word201 word203", k=3)[0]
    assert (hit.passage.id, hit.text.split()[0]) == ("long", "word200")
    assert hit.relevance > 0.98


def test_passages_that_are_equal_tie_by_id_and_hide_no_better_one():
    rng = np.random.default_rng(0)
    same, better = rng.standard_normal((6, 16)), rng.standard_normal((6, 16))
    index = Index.create(None, dim=16, nbits=4)
    index.add([Passage(f"{i:04}", "x") for i in range(700)], embeddings=[same] * 700)
    index.add([Passage(f"z{i}", "x") for i in range(3)], embeddings=[better] * 3)
    index.compact()
    assert index.stats().centroids > 0
    config = SearchConfig(nprobe=8, n_exact=20)
    assert ids(index.search(same.astype(np.float32), k=5, config=config)) == [f"{i:04}" for i in range(5)]
    found = ids(index.search(np.concatenate([better, same[:1]]).astype(np.float32), k=6, config=config))
    assert found == ["z0", "z1", "z2", "0000", "0001", "0002"]
