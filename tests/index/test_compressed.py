"""A compressed index against scoring everything, and against the vectors that went in."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest
from builders.encoders import WordEncoder
from builders.vectors import collection
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_core import Index, Passage, SearchConfig, maxsim
from colbert_core.index import writing
from colbert_core.search.diversity import diversify


def ids(hits):
    return [hit.passage.id for hit in hits]


@pytest.fixture(scope="module")
def compressed():
    passages, vectors, queries = collection(1500)
    index = Index.create(None, dim=32, nbits=4)
    index.add(passages, embeddings=vectors)
    index.compact()
    assert index.stats().centroids > 0
    return index, passages, vectors, queries


def recall(found, best):
    return float(np.mean([len(set(ids(some)) & set(ids(all_))) / len(all_) for some, all_ in zip(found, best, strict=True)]))


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


@pytest.mark.parametrize("values", [(0, None, 5), (5, None, 0), (1.5, None, 5), (5, 0, 5), (5, 1.5, 5)])
def test_a_config_that_makes_no_sense_is_refused(values):
    with pytest.raises((ValueError, TypeError), match=r"nprobe|n_candidates|n_exact"):
        SearchConfig(*values)


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


def test_adding_in_a_thousand_steps_ends_where_building_at_once_does(monkeypatch):
    monkeypatch.setattr(writing, "FIRST_FIT", 2000)
    passages, vectors, queries = collection(4000, seed=2)
    exact = Index.create(None, dim=32)
    exact.add(passages, embeddings=vectors)
    best = exact.search_many(queries, k=10)
    once, steps = Index.create(None, dim=32, nbits=4), Index.create(None, dim=32, nbits=4)
    once.add(passages, embeddings=vectors)
    for start in range(0, 4000, 4):
        steps.add(passages[start : start + 4], embeddings=vectors[start : start + 4])
    assert once.stats().centroids == 2048  # fitted at 67,727 tokens
    assert steps.stats().centroids == 256 + 512 + 1024  # fitted at 2,000, extended at 8,000 and 32,000 tokens
    assert steps.stats().segments <= 12
    for options in ({}, {"exact": True}):
        whole, grown = (recall(index.search_many(queries, k=10, **options), best) for index in (once, steps))
        assert grown >= whole - 0.01


def test_the_same_input_gives_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "FIRST_FIT", 2000)
    passages, vectors, _ = collection(300)
    for name in ("one", "two"):
        with Index.create(tmp_path / name, dim=32, nbits=2) as index:
            for start in (0, 100, 200):
                index.add(passages[start : start + 100], embeddings=vectors[start : start + 100])
            index.compact()
    files = [{path.name: path.read_bytes() for path in (tmp_path / name / "files").iterdir()} for name in ("one", "two")]
    assert files[0] == files[1]
    databases = [sqlite3.connect(tmp_path / name / "index.sqlite") for name in ("one", "two")]
    rows = [database.execute("SELECT name, data FROM files ORDER BY name").fetchall() for database in databases]
    assert rows[0] == rows[1]
    for database in databases:
        database.close()


def test_refit_can_be_left_for_later(monkeypatch):
    monkeypatch.setattr(writing, "FIRST_FIT", 2000)
    passages, vectors, queries = collection(400)
    index = Index.create(None, dim=32, nbits=4)
    index.add(passages, embeddings=vectors, refit=False)
    assert index.stats().centroids == 0
    before = index.search(queries[0], k=5)
    index.compact()
    assert index.stats().centroids > 0
    assert index.search(queries[0], k=1)[0].passage == before[0].passage


def test_an_interrupted_refit_leaves_what_was_added(monkeypatch):
    monkeypatch.setattr(writing, "FIRST_FIT", 2000)
    passages, vectors, queries = collection(400)
    index = Index.create(None, dim=32, nbits=4)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writing.ResidualCodec, "fit", interrupt)
        with pytest.raises(KeyboardInterrupt) as caught:
            index.add(passages, embeddings=vectors)
    assert "400 passages of this call are in the index, up to '00399'" in caught.value.__notes__[0]
    assert (len(index), index.stats().centroids) == (400, 0)
    index.add([Passage("new", "new")], embeddings=[vectors[0]])
    assert index.stats().centroids > 0
    assert len(index.search(queries[0], k=999)) == 401


def test_an_index_stays_uncompressed_while_it_is_small_or_nobody_asked(words):
    small, memory = Index.create(None, words, nbits=4), Index.create(None, words)
    for index in (small, memory):
        index.add([Passage(str(i), f"some words {i}") for i in range(50)])
        index.compact()
        assert index.stats().centroids == 0
    assert (small.stats().nbits, memory.stats().nbits) == (4, None)


def test_clearing_forgets_the_codec_as_well(monkeypatch):
    monkeypatch.setattr(writing, "FIRST_FIT", 2000)
    passages, vectors, queries = collection(300)
    index = Index.create(None, dim=32, nbits=4)
    index.add(passages, embeddings=vectors)
    index.clear()
    assert (len(index), index.stats().centroids, index.stats().vector_bytes) == (0, 0, 0)
    assert index.search(queries[0]) == []
    index.add(passages[:5], embeddings=vectors[:5])
    assert ids(index.search(vectors[3], k=1)) == ["00003"]


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


def test_vectors_from_elsewhere_need_no_encoder(tmp_path):
    index = Index.create(tmp_path / "x.idx", dim=3)
    index.add(
        [Passage("x", "east"), Passage("y", "north")], embeddings=[np.array([[2.0, 0, 0]]), np.array([[0, 3.0, 0], [0, 0, 1]])]
    )
    (hit, _) = index.search(np.array([[1, 0, 0]], np.float32))
    assert (hit.passage.id, hit.score, hit.span) == ("x", pytest.approx(1), (0, 4))
    assert [vectors.tolist() for vectors in index.embeddings(["y", "x"])] == [[[0, 1, 0], [0, 0, 1]], [[1, 0, 0]]]
    index.close()
    assert len(Index.open(tmp_path / "x.idx").search(np.array([[1, 0, 0]], np.float32))) == 2


def test_an_encoder_s_embeddings_may_be_given(words):
    texts = ["the cat sat on the mat and slept all day long", "a dog"]
    passages = [Passage("cat", texts[0]), Passage("dog", texts[1])]
    own, given_ = Index.create(None, words), Index.create(None, words)
    own.add(passages)
    given_.add(passages, embeddings=words.encode_passages(texts))
    assert given_.search("cat slept", k=2) == own.search("cat slept", k=2)


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        ([np.ones((1, 3))], "There are 2 passages but embeddings for 1"),
        ([np.ones((1, 3))] * 3, "There are 2 passages but embeddings for 3"),
        (iter([np.ones((1, 3))]), "fewer embeddings than passages"),
        ([np.ones((1, 3)), np.ones((1, 4))], r"Embeddings of passage 'y' must have the shape \(n, 3\)"),
        ([np.ones((1, 3)), np.zeros((1, 3))], "Embeddings of passage 'y' has only zeros in row 0"),
        ([np.ones((1, 3)), np.full((1, 3), np.nan)], "Embeddings of passage 'y' has a NaN"),
        ([np.ones((1, 3)), np.empty((0, 3))], "Embeddings of passage 'y' must have the shape"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused_and_nothing_added(embeddings, message):
    index = Index.create(None, dim=3)
    with pytest.raises(ValueError, match=message):
        index.add([Passage("x", "x"), Passage("y", "y")], embeddings=embeddings)
    assert len(index) == 0


def test_too_many_embeddings_from_a_stream_are_an_error_that_says_what_is_in():
    from colbert_core import PartialAddError

    index = Index.create(None, dim=3)
    with pytest.raises(PartialAddError, match="more embeddings than passages") as caught:
        index.add((Passage(name, name) for name in "xy"), embeddings=(np.ones((1, 3)) for _ in range(3)))
    assert caught.value.added == ["x", "y"]


def test_embeddings_of_an_unknown_passage_are_an_error(compressed):
    with pytest.raises(ValueError, match=r"There is no passage with the id 'nobody' \(1 of 2 are unknown\)"):
        compressed[0].embeddings(["00001", "nobody"])


# Diversity


def test_diverse_by_hand():
    east, north, up = np.eye(3, dtype=np.float32)[:, None]
    windows = [east, east, north, up]
    assert diversify([0.9, 0.8, 0.7, 0.1], windows, 3, 1.0) == [0, 1, 2]
    assert diversify([0.9, 0.8, 0.7, 0.1], windows, 3, 0.5) == [0, 2, 3]  # .4 - .5, .35 - 0, .05 - 0
    assert diversify([0.9, 0.8, 0.7, 0.1], windows, 9, 0.9) == [0, 2, 1, 3]


def test_a_diverse_search_passes_over_what_says_the_same(words):
    index = Index.create(None, words)
    index.add([Passage("a", "cat sat mat"), Passage("b", "cat sat mat"), Passage("c", "cat ran home"), Passage("d", "dog")])
    assert ids(index.search("cat sat mat", k=2)) == ["a", "b"]
    hits = index.search_diverse("cat sat mat", k=2, fetch_k=4, lambda_mult=0.3)
    assert ids(hits) == ["a", "d"]
    assert [hit.rank for hit in hits] == [1, 2]
    assert ids(index.search_diverse("cat sat mat", k=2, fetch_k=4, lambda_mult=1)) == ["a", "b"]
    assert len(index.search_diverse("cat", k=3, fetch_k=1)) == 3
    assert ids(index.search_diverse("cat", k=9, where={"no": 1})) == []
    with pytest.raises(ValueError, match="lambda_mult is a relevance from 0 to 1|lambda_mult"):
        index.search_diverse("cat", lambda_mult=2)


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


def test_the_windows_of_a_passage_stay_together_when_segments_are_split(monkeypatch):
    import colbert_core.index.compaction as upkeep_module

    monkeypatch.setattr(writing, "FIRST_FIT", 1000)
    monkeypatch.setattr(upkeep_module, "_PIECE", 50)
    monkeypatch.setattr(upkeep_module, "_LARGEST_MERGE", 3000)
    words = WordEncoder(dim=32, window=8)
    index = Index.create(None, words, nbits=8)
    index.add([Passage(f"{i:02}", " ".join(f"word{i} number{j}" for j in range(30))) for i in range(40)])
    stats = index.stats()
    assert (stats.centroids > 0, stats.segments > 3, stats.windows) == (True, True, 40 * 8)
    assert index.verify().problems == []
    assert [len(vectors) for vectors in index.embeddings([f"{i:02}" for i in range(40)])] == [60] * 40
    assert sorted(ids(index.search("word7 number3", k=99))) == [f"{i:02}" for i in range(40)]


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
