"""Adding, deleting and compressing: what is in after a write, and when a codec is fitted."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest
from builders.vectors import collection, ids, recall

from colbert_core import Index, Passage
from colbert_core.index import writing
from colbert_core.vectors.codec import MOST_CENTROIDS, ResidualCodec, count_centroids


def test_adding_in_a_thousand_steps_ends_where_building_at_once_does(monkeypatch):
    monkeypatch.setattr(writing, "FIRST_FIT", 2000)
    passages, vectors, queries = collection(4000, seed=2)
    exact = Index.create(None, dim=32)
    exact.add(passages, embeddings=vectors)
    best = exact.search_many(queries, k=100)  # of 40 queries ten each would be .0025 a hit
    once, steps = Index.create(None, dim=32, nbits=4), Index.create(None, dim=32, nbits=4)
    once.add(passages, embeddings=vectors)
    for start in range(0, 4000, 4):
        steps.add(passages[start : start + 4], embeddings=vectors[start : start + 4])
    assert once.stats().centroids == 2048  # fitted at 67,727 tokens
    assert steps.stats().centroids == 256 + 512 + 1024  # fitted at 2,000, extended at 8,000 and 32,000 tokens
    assert steps.stats().segments <= 12
    for options in ({}, {"exact": True}):
        whole, grown = (recall(index.search_many(queries, k=100, **options), best) for index in (once, steps))
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


@pytest.mark.parametrize(
    ("n_tokens", "n_centroids", "fitted_on", "is_given", "is_due"),
    [
        (999, None, None, False, False),  # fewer than the first codec needs
        (1000, None, None, False, True),
        (3999, 64, 1000, False, False),  # four times as many as the codec was fitted to are needed
        (4000, 64, 1000, False, True),
        (4000, 64, None, True, False),  # a codec that was given stays
        (4000, MOST_CENTROIDS, 1000, False, False),  # there is no number for another centroid
    ],
)
def test_a_codec_is_due_when_the_index_is_large_enough_or_has_outgrown_it(n_tokens, n_centroids, fitted_on, is_given, is_due):
    due = writing.refit_due(n_tokens, n_centroids, fitted_on, is_given=is_given, first=1000)
    assert due == (count_centroids(n_tokens) if is_due else None)


def test_a_codec_that_was_given_is_kept_whatever_the_index_grows_to(monkeypatch):
    monkeypatch.setattr(writing, "FIRST_FIT", 100)
    passages, vectors, _ = collection(300)
    codec = ResidualCodec.fit(np.concatenate(vectors[:20]), 16, 4)
    index = Index.create(None, dim=32, codec=codec)
    index.add(passages, embeddings=vectors)
    index.compact()
    assert index.stats().centroids == 16
    index.clear()  # forgets it, as a codec that was fitted
    index.add(passages, embeddings=vectors)
    assert index.stats().centroids > 16


def test_an_index_made_before_the_setting_was_kept_knows_that_its_codec_was_given(monkeypatch):
    monkeypatch.setattr(writing, "FIRST_FIT", 100)
    passages, vectors, _ = collection(300)
    index = Index.create(None, dim=32, codec=ResidualCodec.fit(np.concatenate(vectors[:20]), 16, 4))
    with index._store.write() as writer:
        writer.connection.execute("DELETE FROM about WHERE key = 'codec_given'")
    index.add(passages, embeddings=vectors)
    assert index.stats().centroids == 16
