"""An index in shards behind the service: its shards are watched, and a newer one takes its place without a failed query."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time

import httpx
import pytest
import ray
from builders.cluster import PASSAGES, QUERIES, sharded_here
from builders.encoders import WordEncoder
from builders.processes import environment
from builders.replicas import opened_here
from builders.service import serving

from colbert_core import IndexExistsError, IndexNotFoundError, Passage
from colbert_core.cluster import ShardedIndex, publish
from colbert_core.serve import Catalogue, make_app
from colbert_core.serve import catalogue as catalogue_module

# Ray Data warns of its own settings when it copies them.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")

_buckets = itertools.count()


def link(link_, folder):
    """Let a link stand for another folder, in one step."""
    beside = link_.with_name("next")
    beside.symlink_to(folder)
    beside.replace(link_)


def asked(url, query):
    """Search by words, which finds the same however many shards there are, and by vectors, of which not all are looked at."""
    answers = [
        httpx.post(f"{url}/v1/indexes/wiki/search", json={"query": query, "k": 5, "mode": mode}, timeout=120)
        for mode in ("words", "maxsim")
    ]
    if {answer.status_code for answer in answers} != {200}:
        return [answer.text for answer in answers]
    words, vectors = ([hit["id"] for hit in answer.json()["hits"]] for answer in answers)
    return words, len(vectors)


def until(is_so):
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def wiki(built, tmp_path):
    link(tmp_path / "wiki.cluster", built[2])
    return tmp_path / "wiki.cluster"


def test_a_newer_index_takes_the_place_of_one_without_a_failed_query(wiki, built):
    catalogue = Catalogue([wiki], WordEncoder())
    with serving(app=make_app(catalogue)) as url:
        right = {query: asked(url, query) for query in QUERIES}
        assert all(len(words) == n == 5 for words, n in right.values())
        failed, counts, stop = [], [0] * 8, threading.Event()

        def client(number):
            while not stop.is_set():
                query = QUERIES[(number + counts[number]) % len(QUERIES)]
                if (answer := asked(url, query)) != right[query]:
                    failed.append(answer)
                counts[number] += 1

        clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
        for thread in clients:
            thread.start()
        for folder in (built[5], built[2]):
            before, then = catalogue.get("wiki"), sum(counts)
            link(wiki, folder)
            until(lambda before=before: catalogue.get("wiki") is not before)
            until(lambda then=then: sum(counts) >= then + 16)
            assert len(catalogue.get("wiki").health()) == (5 if folder == built[5] else 2)
        stop.set()
        for thread in clients:
            thread.join()
        assert not failed
        assert min(counts) > 0
    catalogue.close()


def test_a_newer_index_that_cannot_be_opened_leaves_the_older_one_at_work(wiki, built, tmp_path, caplog):
    catalogue = Catalogue([wiki], WordEncoder())
    before = catalogue.get("wiki")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "cluster.json").write_text('{"format": 3, "shards": 2, "nbits": 4, "model": "default"}')
    link(wiki, tmp_path / "broken")
    assert catalogue.get("wiki") is before
    until(lambda: "cannot be opened" in caplog.text)
    assert catalogue.get("wiki") is before
    assert [hit.passage.id for hit in before.search(QUERIES[0], k=3)]
    link(wiki, built[5])
    catalogue.get("wiki")
    until(lambda: catalogue.get("wiki") is not before)
    catalogue.close()


def test_an_actor_that_is_started_again_reads_what_the_link_stood_for(wiki, built):
    with ShardedIndex.open(wiki, WordEncoder()) as index:
        expected = index.search(QUERIES[0], k=50, exact=True)
        link(wiki, built[5])
        ray.kill(index._replicas.actors[0][0], no_restart=False)
        assert index.search(QUERIES[0], k=50, exact=True) == expected


def test_each_replica_of_each_shard_is_told_and_what_is_down_is_no_error(built):
    with ShardedIndex.open(built[2], WordEncoder(), replicas=2, allow_partial=True) as index:
        health = index.health(timeout=30)
        assert [each.shard for each in health] == [0, 1]
        assert all(replica.problem is None and replica.generation for each in health for replica in each.replicas)
        for actor in index._replicas.actors[1]:
            ray.kill(actor)
        up, down = index.health(timeout=30)
        assert (up.is_up, down.is_up) == (True, False)
        assert [(replica.node, replica.generation) for replica in down.replicas] == [(None, None), (None, None)]
        assert all("dead" in replica.problem or "answer" in replica.problem for replica in down.replicas)


def test_shards_are_told_of_and_counted_over_http(wiki):
    catalogue = Catalogue([wiki], WordEncoder())
    with serving(app=make_app(catalogue)) as url:
        asked(url, QUERIES[0])
        told = httpx.get(f"{url}/v1/indexes/wiki/shards", timeout=60).json()
        assert [(each["shard"], each["is_up"], len(each["replicas"])) for each in told["shards"]] == [
            (0, True, 1),
            (1, True, 1),
        ]
        figures = httpx.get(f"{url}/metrics", timeout=60).text
        for shard in "01":
            (line,) = (
                line
                for line in figures.splitlines()
                if line.startswith(f'colbert_shard_seconds_count{{index="wiki",shard="{shard}"}}')
            )
            assert float(line.split()[-1]) >= 1
        ray.kill(catalogue.get("wiki")._replicas.actors[0][0], no_restart=False)
        assert len(asked(url, QUERIES[0])[0]) == 5
        assert 'colbert_shard_calls_lost_total{index="wiki",shard="0"} 1.0' in httpx.get(f"{url}/metrics", timeout=60).text
    catalogue.close()


# An address


@pytest.fixture
def address(objects, tmp_path):
    """An address at which nothing is published yet."""
    return objects.address(f"{objects.make_bucket(f'served{next(_buckets)}')}/wiki")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where this machine keeps what is fetched."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def hits_at(url):
    answer = httpx.post(f"{url}/v1/indexes/wiki/search", json={"query": "zebras graze", "k": 3, "mode": "words"}, timeout=120)
    assert answer.status_code == 200, answer.text
    return [hit["id"] for hit in answer.json()["hits"]]


def test_a_published_index_is_served_by_its_address_and_a_newer_snapshot_takes_its_place(
    nodes_of, address, cache, tmp_path, monkeypatch, caplog
):
    folder = sharded_here(tmp_path / "index")
    publish(folder, address, progress=False)
    catalogue = Catalogue([address], WordEncoder())
    assert catalogue.names() == ["wiki"]
    with serving(app=make_app(catalogue, writable=True)) as url:
        assert asked(url, "happy pets")[1] == 5
        assert hits_at(url) == []
        shards = httpx.get(f"{url}/v1/indexes/wiki/shards", timeout=120).json()
        assert len(shards["shards"]) == 2
        for write in (
            lambda at: httpx.post(f"{at}/passages", json={"passages": [{"id": "a", "text": "a cat"}]}, timeout=120),
            lambda at: httpx.delete(f"{at}/passages/id7", timeout=120),
        ):
            answer = write(f"{url}/v1/indexes/wiki")
            assert answer.status_code == 403
            assert "is published, so it can be searched only" in answer.text and "secret" not in answer.text
        monkeypatch.setattr(catalogue_module, "_LOOK_SECONDS", 0.0)
        with opened_here(folder) as index:
            index.add([Passage("new", "zebras graze quietly")], progress=False)
        before = catalogue.get("wiki")
        publish(folder, address, progress=False)
        until(lambda: hits_at(url) == ["new"])
        assert catalogue.get("wiki") is not before
        monkeypatch.setattr(catalogue_module, "_identity", None)  # a storage that does not answer
        assert hits_at(url) == ["new"]
        until(lambda: "cannot be looked at for a newer snapshot" in caplog.text)
        assert hits_at(url) == ["new"]
    catalogue.close()
    assert "secret" not in caplog.text


def test_a_newer_snapshot_that_cannot_be_opened_is_tried_again(monkeypatch, caplog):
    newest, problems = ["1"], []

    class Opened(str):
        def close(self):
            pass

    def open_newest(*_):
        if problems:
            raise OSError(problems.pop())
        return Opened(newest[0])

    monkeypatch.setattr(catalogue_module, "_LOOK_SECONDS", -1.0)
    monkeypatch.setattr(catalogue_module, "_identity", lambda _: newest[0])
    monkeypatch.setattr(Catalogue, "_open", open_newest)
    catalogue = Catalogue(["s3://bucket/wiki"])
    assert catalogue.get("wiki") == "1"
    problems.append("the network is down")
    newest[0] = "2"
    assert catalogue.get("wiki") == "1"
    until(lambda: "s3://bucket/wiki cannot be opened" in caplog.text)
    until(lambda: catalogue.get("wiki") == "2")
    catalogue.close()


def test_an_address_where_nothing_is_published_and_that_of_a_service_are_refused(objects, address, tmp_path):
    with pytest.raises(IndexNotFoundError, match="Nothing is published at s3://served"):
        Catalogue([address])
    with pytest.raises(ValueError, match="http://127.0.0.1:1/v1/indexes/wiki is a service, which answers by itself"):
        Catalogue(["http://127.0.0.1:1/v1/indexes/wiki"])
    publish(sharded_here(tmp_path / "wiki.idx", PASSAGES[:20]), address, progress=False)
    with pytest.raises(IndexExistsError, match="s3://served.*/wiki and .*wiki.idx would both be named 'wiki'") as raised:
        Catalogue([address, tmp_path / "wiki.idx"])
    assert "secret" not in str(raised.value)


@pytest.mark.slow  # a process of its own
def test_the_command_serves_an_address(objects, nodes_of, address, tmp_path):
    publish(sharded_here(tmp_path / "index"), address, progress=False)
    command = [sys.executable, "-m", "colbert_core.cli", "serve", address, "--port", "0"]
    variables = environment(XDG_CACHE_HOME=str(tmp_path / "cache"), HOME=str(tmp_path))
    with subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = next(line for line in process.stderr if "Serving at" in line)
            url = line.split("Serving at ")[1].split(";")[0]
            assert httpx.get(f"{url}/v1/indexes", timeout=200).json()["indexes"][0]["name"] == "wiki"
        finally:
            process.terminate()
