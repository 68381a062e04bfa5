"""Finding the best passages in a snapshot, however it is narrowed down."""

from __future__ import annotations

import numpy as np
import pytest
from builders.grown import collection, found, recall, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_core import Index, Passage, SearchConfig, get_num_threads, set_num_threads
from colbert_core.search.ranking import search
from colbert_core.vectors.segment import Segment
from colbert_core.vectors.snapshot import Part, Snapshot


@pytest.mark.parametrize("n_candidates", [None, 1000])
def test_both_ways_to_candidates_find_nearly_all_of_what_scoring_everything_finds(grown, n_candidates):
    index, queries = grown
    config = SearchConfig(nprobe=16, n_candidates=n_candidates, n_exact=500)
    assert recall(found(index, queries, config=config), found(index, queries, exact=True)) >= 0.95


def test_listing_every_candidate_is_the_same_as_not_narrowing_down(grown):
    index, queries = grown
    plain, listed = (SearchConfig(nprobe=4, n_candidates=n, n_exact=200) for n in (None, 10**6))
    assert found(index, queries, config=plain) == found(index, queries, config=listed)


def test_scores_are_those_of_exact_search(grown):
    index, queries = grown
    exact = [dict(hits) for hits in found(index, queries, k=3000, exact=True)]
    for config in (None, SearchConfig(1, 50, 20), SearchConfig(16, None, 500)):
        for hits, known in zip(found(index, queries, config=config), exact, strict=True):
            assert all(known[passage_id] == score for passage_id, score in hits)


def test_searches_are_the_same_each_time_and_together_as_alone(grown):
    index, queries = grown
    together = found(index, queries)
    assert together == found(index, queries) == [found(index, [query])[0] for query in queries]


def test_threads_change_nothing(grown):
    index, queries = grown
    before = get_num_threads()
    try:
        by_threads = []
        for n in (1, 2, 5):
            set_num_threads(n)
            by_threads.append((found(index, queries), found(index, queries, exact=True)))
    finally:
        set_num_threads(before)
    assert by_threads[0] == by_threads[1] == by_threads[2]


@pytest.mark.parametrize("n_q", [1, 31, 32, 33, 70])
def test_queries_of_any_length_are_searched(grown, n_q):
    index, queries = grown
    vectors = np.concatenate(queries)
    some = [np.roll(vectors, -6 * place, axis=0)[:n_q] for place in range(20)]
    assert {len(query) for query in some} == {n_q}
    assert recall(found(index, some), found(index, some, exact=True)) >= 0.9


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6), k=st.integers(1, 40), nprobe=st.integers(1, 70), n=st.integers(1, 300), m=st.integers(1, 300)
)
def test_k_hits_whatever_the_config(grown, seed, k, nprobe, n, m):
    index, queries = grown
    hits = index.search(queries[seed % len(queries)], k, config=SearchConfig(nprobe, n if seed % 2 else None, m))
    assert len({hit.passage.id for hit in hits}) == len(hits) == k
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_passages_of_many_windows_have_all_of_them_scored():
    """Each passage's best window for a query is one that no query vector's nearest centroid leads to."""
    rng = np.random.default_rng(3)
    from colbert_core import TokenEmbeddings

    n, per, tokens, dim = 300, 5, 6, 16
    vectors = unit(rng.standard_normal((n * per * tokens, dim)))
    embeddings = TokenEmbeddings(
        vectors=vectors,
        token_spans=np.zeros((len(vectors), 2), np.int32),
        doclens=np.full(n * per, tokens, np.int32),
        window_spans=np.tile(np.array([(i, i + 1) for i in range(per)], np.int32), (n, 1)),
        owners=np.repeat(np.arange(n), per).astype(np.int32),
    )
    index = Index.create(None, dim=dim, nbits=8)
    index.add([Passage(str(i), "abcdef") for i in range(n)], embeddings=embeddings)
    index.compact()
    query = unit(rng.standard_normal((8, dim)))
    for config in (SearchConfig(2, None, 60), SearchConfig(2, 200, 60)):
        exact = {hit.passage.id: (hit.score, hit.span) for hit in index.search(query, n, exact=True)}
        for hit in index.search(query, 20, config=config):
            assert exact[hit.passage.id] == (hit.score, hit.span)


def test_an_uncompressed_collection_that_is_scored_as_bytes_first_is_exact():
    passages, vectors, queries = collection(6000, tokens=(8, 16))
    index = Index.create(None, dim=32)
    index.add(passages, embeddings=vectors)
    assert index.stats().tokens > 2**16
    assert found(index, queries) == found(index, queries, exact=True)


def test_a_collection_of_copies_ties_by_id():
    rng = np.random.default_rng(0)
    one = unit(rng.standard_normal((10, 16)))
    index = Index.create(None, dim=16, nbits=4)
    index.add([Passage(f"{i:04}", "same") for i in range(1500)], embeddings=[one] * 1500)
    index.compact()
    assert [passage_id for passage_id, _ in found(index, [one], k=5)[0]] == ["0000", "0001", "0002", "0003", "0004"]


def test_a_vector_that_is_not_finite_is_an_error_of_the_file_and_no_empty_result():
    vectors = unit(np.random.default_rng(0).standard_normal((70_000, 8)))
    vectors[7, 3] = np.nan
    windows = np.arange(7000)
    segment = Segment(windows, np.zeros((7000, 2), np.int32), np.full(7000, 10, np.int32), vectors=vectors)
    snapshot = Snapshot((Part(segment, np.ones(7000, np.bool_)),))
    with pytest.raises(IndexError, match="not finite"):  # which an index reports as DamagedIndexError
        search(snapshot, vectors[20:24], 10, sort_keys=list)
