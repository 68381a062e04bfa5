"""Whoever is killed while shards are built and searched, and however often, what is found is the same.

The default run takes a minute or two; ``pytest -m slow tests/cluster/test_kills.py --kills 200 -n 0 -s`` kills a hundred.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import psutil
import pytest
from builders.cluster import QUERIES, Fatal, build_here, checksums
from builders.encoders import WordEncoder

from colbert_core.cluster import ShardedIndex

# Ray Data warns of its own settings when it copies them.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")]


@pytest.fixture
def kills(request):
    """How many are killed in each test: a quarter of what other tests kill, since Ray takes seconds to start another."""
    return max(1, request.config.getoption("--kills") // 4)


def processes(cluster, name):
    """The processes of actors of a class on all nodes."""
    raylets = [raylet for node in cluster.list_all_nodes() for raylet in node.all_processes["raylet"]]
    children = [child for raylet in raylets for child in psutil.Process(raylet.process.pid).children(recursive=True)]
    return [child.pid for child in children if child.is_running() and child.name().startswith(f"ray::{name}")]


def test_searches_find_the_same_while_shards_are_killed(nodes_of, built, kills):
    chosen, stop, counts, wrong = random.Random(0), threading.Event(), [0, 0], []
    with ShardedIndex.open(built[2], WordEncoder(), replicas=2, timeout=300) as index:
        expected = index.search_many(QUERIES, 20, exact=True)

        def search(number):
            while not stop.is_set():
                if index.search_many(QUERIES, 20, exact=True) != expected:
                    wrong.append(counts[number])
                counts[number] += 1

        threads = [threading.Thread(target=search, args=(number,)) for number in range(len(counts))]
        for thread in threads:
            thread.start()
        for _ in range(kills):
            os.kill(chosen.choice(processes(nodes_of, "Actor")), signal.SIGKILL)
            time.sleep(chosen.uniform(0, 0.2))
            until = time.monotonic() + 300
            while not all(replica.problem is None for shard in index.health(60) for replica in shard.replicas):
                assert time.monotonic() < until
        stop.set()
        for thread in threads:
            thread.join()
    print(f"{kills} shards killed, {sum(counts)} batches of searches, {len(wrong)} wrong")
    assert not wrong
    assert min(counts) > 0


def test_builds_are_the_same_while_workers_are_killed(nodes_of, built, source, tmp_path, kills):
    killed, builds, deadly = 0, 0, range(1, 1000, 3)
    while killed < kills:
        calls = tmp_path / f"calls{builds}"
        calls.mkdir()
        out, settings = build_here(source, tmp_path / f"out{builds}", shards=5, workers=2, encoder=Fatal(calls, at=deadly))
        assert settings.passages == 240
        assert checksums(out) == checksums(built[5])
        killed += sum(int(call.name) in deadly for call in calls.iterdir())
        builds += 1
    print(f"{killed} workers killed in {builds} builds")
