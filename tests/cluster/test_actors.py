"""Shards in actors: they answer what shards in this process do, and whoever is lost is missed or waited for."""

from __future__ import annotations

import logging
import shutil
import threading

import pytest
import ray
from builders.cluster import PASSAGES, QUERIES, begin_shards, one_here, sharded_here
from builders.encoders import ReadableEncoder, WordEncoder
from builders.replicas import codecs, grown, scores

from colbert_core import Passage
from colbert_core.cluster import ShardedIndex, publish
from colbert_core.cluster.layout import shard_of
from colbert_core.vectors.codec import ResidualCodec

# Ray Data warns of its own settings when it copies them.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """Five shards; the cluster has three cores."""
    return sharded_here(tmp_path_factory.mktemp("actors") / "five", shards=5)


@pytest.fixture
def codec_of_words():
    vectors = WordEncoder().encode_passages([passage.text for passage in PASSAGES]).vectors
    return ResidualCodec.fit(vectors, 16, 4)


def answers(index):
    """What an index says in each way of asking, in turn with writing."""
    index.add([Passage("id5", "zebra naps", {"year": 2003}), Passage("new", "zebra zebra", {"year": 2001})], progress=False)
    yield index.delete(["id1", "id2", "nobody"])
    yield index.update_metadata({"mark": [1, "x"]}, where={"year": {"$gte": 2004}}, remove=["lang"])
    yield index.delete_where({"year": 2006})
    index.compact(progress=False)
    for options in ({"exact": True}, {"where": {"year": 2003}}, {"ids": ["id7", "new"]}, {"mode": "hybrid"}):
        hits = index.search_many(QUERIES, 20, evidence=True, **options)
        yield hits, [hit.evidence for of_query in hits for hit in of_query]
        yield index.search_mean(QUERIES, 9, **options)
    yield index.search(QUERIES[0], 300, where=lambda passage: passage.metadata.get("year") == 2001)
    yield index.search_diverse(QUERIES[1], 9, exact=True)
    yield index.explain(QUERIES[0], "id7")
    yield [vectors.tolist() for vectors in index.embeddings(["id7", "new"])]
    yield sorted(index.ids()), sorted(index.passages({"year": 2003}), key=lambda passage: passage.id), index.get(["id3", "no"])
    yield index.fields(), index.word_counts(QUERIES), len(index), index.codec_id, index.complaints({"yaer": 1})
    yield [(config, recall) for config, recall, _ in index.tune(0.95, queries=QUERIES, progress=False).tried[:1]]
    verified = index.verify(progress=False)
    yield verified.problems, verified.recall


def test_actors_say_what_shards_in_this_process_say(nodes_of, five, tmp_path):
    said = []
    for address in ("local", "auto"):
        shutil.copytree(five, tmp_path / address)
        with ShardedIndex.open(tmp_path / address, ReadableEncoder(), address=address, timeout=300) as index:
            said.append(list(answers(index)))
    assert len(said[0]) > 15
    for here, of_actors in zip(*said, strict=True):
        assert of_actors == here


# More shards than cores


def test_shards_share_the_actors_that_there_are_cores_for(nodes_of, five):
    with ShardedIndex.open(five, WordEncoder(), timeout=300) as index:
        actors = [actor for (actor,) in index._replicas.actors]
        assert len(set(actors)) == 3
        assert actors[0] == actors[3]
        expected = index.search_many(QUERIES, 20, exact=True)
        ray.kill(actors[0], no_restart=False)
        assert index.search_many(QUERIES, 20, exact=True) == expected
        assert [health.is_up for health in index.health(60)] == [True] * 5


def test_a_shard_that_cannot_be_read_is_missing_and_the_one_that_shares_its_actor_is_not(nodes_of, five, tmp_path):
    shutil.copytree(five, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "shard-0003")
    for address in ("auto", "local"):
        with ShardedIndex.open(tmp_path / "copy", WordEncoder(), address=address, allow_partial=True, timeout=300) as index:
            hits = index.search(QUERIES[0], 300, exact=True)
            assert hits.missing_shards == (3,)
            assert {shard_of(hit.passage.id, 5) for hit in hits} == {0, 1, 2, 4}
            assert [health.is_up for health in index.health(60)] == [True, True, True, False, True]


# Lost actors


def test_a_shard_that_is_lost_is_missing_from_what_differs_as_well(nodes_of, codec_of_words, tmp_path):
    encoder = ReadableEncoder()
    folder = begin_shards(tmp_path / "two", 2, encoder, codec_of_words)
    with ShardedIndex.open(folder, encoder, timeout=300) as index:
        index.add(PASSAGES[:60], progress=False)
    with ShardedIndex.open(folder, encoder, allow_partial=True, timeout=300) as index:
        whole = index.search_diverse("happy cats", 60, 60, exact=True)
        assert whole.missing_shards == ()
        ray.kill(index._replicas.actors[1][0])
        some = index.search_diverse("happy cats", 60, 60, exact=True)
        assert some.missing_shards == (1,)
        assert {hit.passage.id for hit in some} == {hit.passage.id for hit in whole if shard_of(hit.passage.id, 2) == 0}
        shown = index.search("happy cats", 5, exact=True, evidence=True)
        assert shown.missing_shards == (1,)
        assert all(hit.evidence.passage_id == hit.passage.id for hit in shown)


def test_what_a_shard_that_is_down_would_count_is_missing(nodes_of, tmp_path, caplog):
    two = sharded_here(tmp_path / "two")
    with ShardedIndex.open(two, WordEncoder(), timeout=60, allow_partial=True) as index:
        assert index.search("cat", mode="words").missing_shards == ()
        ray.kill(index._replicas.actors[1][0])
        with one_here(tmp_path / "one", two) as rest, caplog.at_level(logging.WARNING):
            rest.delete(passage.id for passage in PASSAGES if shard_of(passage.id, 2) == 1)
            for by in ({"mode": "hybrid"}, {"mode": "words"}):
                hits = index.search(QUERIES[0], 300, exact=True, **by)
                assert hits.missing_shards == (1,)
                assert hits == rest.search(QUERIES[0], 300, exact=True, **by)  # by what the others count
                assert index.search_mean(QUERIES[:2], exact=True, **by).missing_shards == (1,)
        assert "shards 1 are down" in caplog.text


# A codec that gets more centroids


def test_searches_go_on_while_a_codec_is_replaced_and_find_the_same(nodes_of, tmp_path):
    folder = grown(tmp_path / "index", shards=2)
    counts, wrong, stop = [0, 0, 0], [], threading.Event()
    with (
        ShardedIndex.open(folder, WordEncoder(), replicas=2, timeout=250) as index,
        ShardedIndex.open(folder, WordEncoder(), timeout=250) as other,
    ):
        expected = scores(index)

        def search(number):
            try:
                while not stop.is_set():
                    if scores((index, other)[number % 2]) != expected:
                        wrong.append(number)
                    counts[number] += 1
            except Exception as error:
                wrong.append(error)

        threads = [threading.Thread(target=search, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        done = index.refit(progress=False)
        before = list(counts)
        while not wrong and any(now < then + 3 for now, then in zip(counts, before, strict=True)):
            stop.wait(0.05)
        stop.set()
        for thread in threads:
            thread.join()
        assert not wrong
        assert done.added and other.stats().centroids == done.centroids
        assert index.codec_id == other.codec_id
        index.add([Passage("new", "happy pets purr")], progress=False)
        assert "new" in [hit.passage.id for hit in other.search("happy pets purr", 3)]
    publish(folder, tmp_path / "published", progress=False)


def test_a_shard_whose_actor_dies_before_or_after_it_took_the_codec_is_asked_again(nodes_of, tmp_path, monkeypatch):
    folder = grown(tmp_path / "index", shards=2)
    with ShardedIndex.open(folder, WordEncoder(), timeout=250) as index:
        before, ask_all, killed = scores(index), index._replicas.ask_all, []

        def ask_and_kill(method, *arguments, **options):
            if method == "_extend_codec":
                for turn in ("before", "after"):
                    for (actor,) in index._replicas.actors:
                        ray.kill(actor, no_restart=False)
                    killed.append(turn)
                    ask_all(method, *arguments, **options)
            return ask_all(method, *arguments, **options)

        monkeypatch.setattr(index._replicas, "ask_all", ask_and_kill)
        assert index.refit(progress=False).added
        assert killed == ["before", "after"]
        assert scores(index) == before
        assert len(set(codecs(folder))) == 1
        assert index.refit(progress=False).added == 0
