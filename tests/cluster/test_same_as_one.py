"""Everything that an index does, done by 1, 2 and 3 shards: the same as by one index with the same codec, to the last bit.

The shards are in this process; tests/cluster/test_actors.py compares these with actors.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading

import numpy as np
import pytest
from builders.cluster import PASSAGES, begin_shards
from builders.encoders import WORDS, ReadableEncoder, WordEncoder
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_core import Index, IndexExistsError, Passage, SearchConfig
from colbert_core.cluster import ShardedIndex
from colbert_core.cluster.layout import Layout, shard_of
from colbert_core.vectors.codec import ResidualCodec

# Some filters ask for what no passage of a small corpus has; tests/cluster/test_sharded.py looks at what is said of that.
pytestmark = pytest.mark.filterwarnings("ignore::colbert_core.FilterWarning")

MODES = ({"mode": "maxsim"}, {"mode": "hybrid"}, {"mode": "hybrid", "weight": 0.8}, {"mode": "words"})
SHARDS = (1, 2, 3)

texts = st.lists(st.sampled_from([*WORDS, "zebra-5", "Naps"]), min_size=1, max_size=20).map(" ".join)
passages = st.builds(
    Passage,
    st.integers(0, 40).map("id{}".format),
    st.one_of(texts, st.just(" ")),
    st.fixed_dictionaries({"year": st.integers(2000, 2004)}, optional={"lang": st.sampled_from(["en", "de"])}),
)
corpora = st.lists(passages, min_size=1, max_size=40, unique_by=lambda passage: passage.id)
filters = st.one_of(
    st.none(),
    st.builds(lambda year: {"year": {"$gte": year}}, st.integers(2000, 2004)),
    st.builds(lambda lang: {"lang": lang, "year": {"$ne": 2001}}, st.sampled_from(["en", "de"])),
    st.just({"$or": [{"lang": {"$exists": False}}, {"year": 2000}]}),
)
some_ids = st.one_of(st.none(), st.lists(st.integers(0, 45).map("id{}".format), max_size=12))
searches = st.fixed_dictionaries(
    {"k": st.integers(1, 45), "where": filters, "ids": some_ids},
    optional={"min_relevance": st.floats(0, 1)},
)


def a_codec():
    """A codec of the words of some passages."""
    vectors = WordEncoder().encode_passages([passage.text for passage in PASSAGES]).vectors
    return ResidualCodec.fit(vectors, 16, 4)


@pytest.fixture(scope="module", params=["compressed", "as they are"])
def all_of_them(request, tmp_path_factory):
    """One index, and the same in 1, 2 and 3 shards, all with one encoder; without passages."""
    folder, encoder = tmp_path_factory.mktemp("same"), ReadableEncoder()
    codec = a_codec() if request.param == "compressed" else None
    shards = SHARDS if codec else SHARDS[1:2]
    with contextlib.ExitStack() as stack:
        nbits = codec.nbits if codec else 32
        one = stack.enter_context(Index.create(folder / "one", encoder, codec=codec, nbits=nbits))
        folders = [begin_shards(folder / str(n), n, encoder, codec) for n in shards]
        yield one, [stack.enter_context(ShardedIndex.open(each, encoder, address="local")) for each in folders]


def refill(one, sharded, corpus):
    """Put other passages into all of them, and leave nothing of the old ones."""
    one.delete_where({})  # clear would take the codec away
    for index in sharded:
        index.clear()
        assert len(index) == 0
    for index in (one, *sharded):
        assert index.add(corpus[: len(corpus) // 2], progress=False) == [passage.id for passage in corpus[: len(corpus) // 2]]
        assert index.add(corpus[len(corpus) // 2 :], progress=False) == [passage.id for passage in corpus[len(corpus) // 2 :]]


def by_id(found):
    return sorted(found, key=lambda passage: passage.id)


def assert_same(vectors, others):
    assert len(vectors) == len(others)
    for mine, other in zip(vectors, others, strict=True):
        np.testing.assert_array_equal(mine, other, strict=True)


@given(corpora, st.lists(texts, min_size=1, max_size=3), searches, st.integers(1, 60), st.floats(0, 1), st.data())
@settings(max_examples=12)
def test_every_search_and_look_is_that_of_one_index(all_of_them, corpus, queries, options, fetch_k, share, data):
    one, sharded = all_of_them
    refill(one, sharded, corpus)
    one.compact(progress=False)
    by = data.draw(st.sampled_from(MODES))
    known = data.draw(st.lists(st.sampled_from([passage.id for passage in corpus]), max_size=5))
    found = one.search_many(queries, exact=True, evidence=True, **by, **options)
    mean = one.search_mean(queries, exact=True, **by, **options)
    diverse = one.search_diverse(queries[0], fetch_k=fetch_k, lambda_mult=share, exact=True, **by, **options)
    evidence = [one.explain(queries[0], passage_id, mode=by["mode"]) for passage_id in known]
    background = one.background()
    for index in sharded:
        index.compact(progress=False)
        n_encoded = len(index.encoder.encoded)
        hits = index.search_many(queries, exact=True, evidence=True, **by, **options)
        assert hits == found
        assert index.search_mean(queries, exact=True, **by, **options) == mean
        assert index.search_diverse(queries[0], fetch_k=fetch_k, lambda_mult=share, exact=True, **by, **options) == diverse
        assert [index.search(query, exact=True, **by, **options) for query in queries] == found
        is_blank = [not passage.text.strip() for passage in index.get(known)]
        told = [index.explain(queries[0], passage_id, mode=by["mode"]) for passage_id in known]
        assert len(index.encoder.encoded) - n_encoded == sum(is_blank)  # no passage is encoded anew to be explained
        if one.codec_id is not None:
            assert [hit.evidence for of_query in hits for hit in of_query] == [
                hit.evidence for of_query in found for hit in of_query
            ]
            assert told == evidence
        for mine, other in zip(
            [*told, *(hit.evidence for of_query in hits for hit in of_query)],
            [*evidence, *(hit.evidence for of_query in found for hit in of_query)],
            strict=True,
        ):
            assert (mine.matches, mine.window, mine.shared) == (other.matches, other.window, other.shared)
            np.testing.assert_allclose(mine.expected, other.expected, atol=1e-6)
        assert (index.background() is None) == (background is None)
        if background is not None:
            np.testing.assert_allclose(index.background().mean, background.mean, atol=1e-6)
            np.testing.assert_allclose(index.background().covariance, background.covariance, atol=1e-6)
        assert_same(index.embeddings(known), one.embeddings(known))
        assert index.word_counts(queries) == one.word_counts(queries)
        matrices = index.encoder.encode_queries(queries)
        assert index.search_vectors(matrices, exact=True, **options) == one.search_vectors(matrices, exact=True, **options)
        assert (index.codec_id, index.has_words(), len(index)) == (one.codec_id, True, len(one))
        assert index.get(["id3", "nobody", "id3"]) == one.get(["id3", "nobody", "id3"])
        assert by_id(index.passages(options["where"], ids=options["ids"])) == by_id(
            one.passages(options["where"], ids=options["ids"])
        )
        assert sorted(index.ids(options["where"])) == sorted(one.ids(options["where"]))
        assert index.count(options["where"]) == one.count(options["where"])
        assert index.fields() == one.fields()
        assert index.complaints({"yaer": 3}) == one.complaints({"yaer": 3}) != []
        for name in ("passages", "windows", "tokens", "dead_tokens", "dim", "nbits", "centroids", "encoder", "pool_factor"):
            assert getattr(index.stats(), name) == getattr(one.stats(), name)


@given(corpora, corpora, st.lists(st.integers(0, 45).map("id{}".format), max_size=9), filters, texts)
@settings(max_examples=5)
def test_every_change_is_that_of_one_index(all_of_them, corpus, more, gone, where, query):
    one, sharded = all_of_them
    refill(one, sharded, corpus)
    steps = [
        lambda index: index.add(more, progress=False),
        lambda index: index.delete(gone),
        lambda index: index.update_metadata(
            {"mark": [1, "x"]}, where=where, ids=None if where else ["id1", "id2"], remove=["lang"]
        ),
        lambda index: index.delete_where({"year": 2003}),
        lambda index: index.compact(progress=False),
    ]
    for step in steps:
        expected, found = step(one), one.search_diverse(query, 50, exact=True, mode="hybrid")
        kept = by_id(one.passages())
        for index in sharded:
            assert step(index) == expected
            assert index.search_diverse(query, 50, exact=True, mode="hybrid") == found
            assert by_id(index.passages()) == kept
    problems = one.verify(progress=False).problems
    for index in sharded:
        assert index.verify(progress=False).problems == problems == []
        assert index.stats().dead_tokens == one.stats().dead_tokens == 0


def test_tuning_measures_what_all_shards_find_together(all_of_them):
    one, sharded = all_of_them
    refill(one, sharded, PASSAGES)
    queries = [passage.text for passage in PASSAGES[:12]]
    for index in sharded:
        exact = [{hit.passage.id for hit in hits} for hits in index.search_many(queries, 5, exact=True)]
        assert exact == [{hit.passage.id for hit in hits} for hits in one.search_many(queries, 5, exact=True)]

        def recall(config, index=index, exact=exact):
            found = [{hit.passage.id for hit in index.search(query, 5, config=config)} for query in queries]
            return np.mean([len(ids & best) / len(best) for ids, best in zip(found, exact, strict=True)])

        for target in (0.5, 1.0):
            tuned = index.tune(target, k=5, queries=queries, progress=False)
            assert tuned.recall == recall(tuned.config) >= target
            assert (tuned.config, tuned.recall, tuned.milliseconds) in tuned.tried
            assert all(reached == recall(config) for config, reached, _ in tuned.tried)
            assert tuned.milliseconds > 0
        by_passages = index.tune(progress=False)
        assert by_passages.recall >= 0.95
        assert index.verify(50, progress=False).recall == 1.0
        assert index.verify(7, progress=False).queries == 7


def test_an_index_of_nothing_to_read_is_tuned_by_nobody_and_verified(all_of_them):
    one, sharded = all_of_them
    refill(one, sharded, [Passage("a", " "), Passage("b", "")])
    for index in (one, *sharded):
        with pytest.raises(ValueError, match="cannot be tuned: there is nothing to read in its passages"):
            index.tune(progress=False)
        assert index.search_diverse("cat") == []
        verified = index.verify(progress=False)
        assert (verified.ok, verified.recall, verified.queries) == (True, None, 0)
        assert [vectors.shape for vectors in index.embeddings(["a", "b"])] == [(0, 64), (0, 64)]
    refill(one, sharded, [])
    for index in (one, *sharded):
        for wrong in ({}, {"queries": []}):
            with pytest.raises(ValueError, match="cannot be tuned without"):
                index.tune(progress=False, **wrong)
        assert index.background() is None


def test_vectors_that_no_encoder_made_are_kept_whatever_the_text(all_of_them):
    one, sharded = all_of_them
    refill(one, sharded, [])
    passages = [Passage(f"id{number}", text) for number, text in enumerate([" ", "----", "a cat", ""])]
    vectors = WordEncoder().encode_queries(["cat", "dog", "mat", "happy cats"])
    for index in (one, *sharded):
        index.add(passages, embeddings=vectors, progress=False)
        assert [hit.passage.id for hit in index.search(vectors[3], 1, exact=True)] == ["id3"]
    expected = [[(hit.passage.id, hit.score) for hit in hits] for hits in one.search_vectors(vectors, exact=True)]
    for index in sharded:
        for hits, of_one in zip(index.search_vectors(vectors, exact=True), expected, strict=True):
            assert [hit.passage.id for hit in hits] == [passage_id for passage_id, _ in of_one]
            np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in of_one], atol=1e-6)  # scaled twice


def test_mistakes_are_those_of_one_index(all_of_them):
    one, sharded = all_of_them
    refill(one, sharded, PASSAGES[:20])
    for call, error in (
        (lambda index: index.search_diverse("cat", 0), ValueError),
        (lambda index: index.search_diverse("cat", fetch_k=0), ValueError),
        (lambda index: index.search_diverse("cat", lambda_mult=1.5), ValueError),
        (lambda index: index.search_diverse("cat", where={"year": {"$near": 1}}), ValueError),
        (lambda index: index.search_diverse(" "), ValueError),
        (lambda index: index.explain("cat", "nobody"), ValueError),
        (lambda index: index.explain("cat", Passage("nobody", "a cat")), ValueError),
        (lambda index: index.explain(" ", "id3"), ValueError),
        (lambda index: index.embeddings(["id3", "nobody", "id4", "no"]), ValueError),
        (lambda index: index.embeddings("id3"), TypeError),
        (lambda index: index.tune(2), ValueError),
        (lambda index: index.verify(0), ValueError),
        (lambda index: index.search_vectors([np.ones((2, 64), np.float32)]), ValueError),
    ):
        with pytest.raises(error) as expected:
            call(one)
        for index in sharded:
            with pytest.raises(error) as raised:
                call(index)
            assert str(raised.value).replace(repr(index), repr(one).partition("(")[0]) == str(expected.value) or (
                "nobody" in str(raised.value) and "nobody" in str(expected.value)
            )


# What is in no shard's folder


def test_a_copy_of_all_shards_opens_and_is_the_same(all_of_them, tmp_path):
    one, sharded = all_of_them
    refill(one, sharded, PASSAGES[:30])
    index = sharded[-1]
    index.save(tmp_path / "copy")
    with ShardedIndex.open(tmp_path / "copy", index.encoder, address="local") as copy:
        index.delete(["id3"])
        assert copy.search("happy cats", 50, exact=True) == one.search("happy cats", 50, exact=True)
        assert (copy.codec_id, copy.stats().passages) == (index.codec_id, 30)
        assert copy.verify(progress=False).ok
    with pytest.raises(IndexExistsError, match="holds something already"):
        index.save(tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]


def test_what_makes_an_index_is_refused_and_names_what_does():
    for refused in (ShardedIndex.create, ShardedIndex.convert):
        with pytest.raises(TypeError, match=r"colbert_core\.cluster\.build"):
            refused("folder")


def test_a_sharded_index_has_every_public_name_of_an_index():
    assert {name for name in dir(Index) if name[0] != "_"} <= {name for name in dir(ShardedIndex) if name[0] != "_"}


# Damage, and passages in a wrong shard


def test_damage_of_a_shard_and_passages_of_another_are_told_by_its_number(tmp_path):
    encoder, codec = ReadableEncoder(), a_codec()
    folder = begin_shards(tmp_path / "two", 2, encoder, codec)
    in_0, in_1 = ([passage for passage in PASSAGES if shard_of(passage.id, 2) == shard] for shard in (0, 1))
    with ShardedIndex.open(folder, encoder, address="local") as index:
        index.add(PASSAGES, progress=False)
        assert index.verify(progress=False).ok
    with Index.open(Layout(folder).shard(0), encoder) as shard:
        shard.add(in_1[:3], progress=False)
    with ShardedIndex.open(folder, encoder, address="local") as index:
        assert index.verify(progress=False).problems == [
            "Shard 0: 3 passages belong to other shards, and are not found by their ids"
        ]
    with Index.open(Layout(folder).shard(0), encoder) as shard:
        shard.delete([passage.id for passage in in_1[:3]])
    with contextlib.closing(sqlite3.connect(Layout(folder).shard(0) / "index.sqlite")) as connection, connection:
        connection.execute("UPDATE passages SET text = 'the dog' WHERE id = ?", (in_0[0].id,))
    with ShardedIndex.open(folder, encoder, address="local") as index:
        verified = index.verify(progress=False)
        (problem,) = verified.problems
        assert problem.startswith("Shard 0: ")
        assert in_0[0].id in problem
        assert (verified.recall, verified.queries) == (None, 0)


# Writers meanwhile


def test_hits_have_evidence_and_differ_while_others_replace_them(all_of_them):
    one, sharded = all_of_them
    refill(one, sharded, PASSAGES[:40])
    index, done = sharded[-1], threading.Event()
    turned = [Passage(passage.id, f"cat {passage.text}", passage.metadata) for passage in PASSAGES[:40]]

    def write():
        while not done.is_set():
            index.add(turned, progress=False)
            index.add(PASSAGES[:40], progress=False)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(10):
            for hit in index.search("happy cats purr", 40, exact=True, evidence=True):
                assert hit.evidence.passage_id == hit.passage.id
                assert hit.evidence.text == hit.passage.text
                assert hit.evidence.score == pytest.approx(hit.score, abs=1e-4)
            assert len(index.search_diverse("happy cats purr", 20, exact=True)) == 20
            assert index.explain("cats", "id3").text in (PASSAGES[3].text, turned[3].text)
    finally:
        done.set()
        writer.join()


# Pooled vectors are none of a token


def test_passages_with_pooled_vectors_are_explained_as_by_one_index(tmp_path):
    encoder, codec = ReadableEncoder(), a_codec()
    folder = begin_shards(tmp_path / "two", 2, encoder, codec, pool_factor=2)
    with (
        Index.create(tmp_path / "one", encoder, codec=codec, pool_factor=2) as one,
        ShardedIndex.open(folder, encoder, address="local") as index,
    ):
        for each in (one, index):
            each.add(PASSAGES[:50], progress=False)
        found = one.search("happy cats purr", 9, exact=True, evidence=True)
        hits = index.search("happy cats purr", 9, exact=True, evidence=True)
        assert hits == found
        assert [hit.evidence for hit in hits] == [hit.evidence for hit in found]
        assert index.explain("happy cats", "id7") == one.explain("happy cats", "id7")


def test_a_config_is_for_each_shard(all_of_them):
    one, sharded = all_of_them
    refill(one, sharded, PASSAGES)
    config = SearchConfig(nprobe=1, n_candidates=30, n_exact=10)
    for index in sharded:
        best = {hit.passage.id for hit in one.search_diverse("happy cats", 10, 10, 1.0, exact=True)}
        of_one = {hit.passage.id for hit in one.search_diverse("happy cats", 10, 10, 1.0, config=config)}
        of_shards = {hit.passage.id for hit in index.search_diverse("happy cats", 10, 10, 1.0, config=config)}
        assert len(of_shards & best) >= len(of_one & best)
