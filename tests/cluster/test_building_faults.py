"""Builds whose workers, nodes or driver are killed, batch by batch; and workers that share a GPU."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time

import pytest
from builders.cluster import (
    QUERIES,
    Noting,
    as_record,
    build_here,
    checksums,
    count_alive,
    node_killed,
    node_of,
    notes,
    one_index,
    passages_of,
)
from builders.encoders import WORDS, WordEncoder
from builders.processes import environment

from colbert_core import IndexNotFoundError
from colbert_core.cluster import ShardedIndex, building, encoding, read_progress, staging
from colbert_core.cluster.layout import Layout

# Ray Data warns of its own settings when it copies them.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")


@pytest.fixture(autouse=True, scope="module")
def _small_batches():
    """Every block of passages that are staged is a batch of its own, and the sample is encoded in 19 pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staging, "_SMALLEST", 1)
        patch.setattr(encoding, "_PIECE", 32)
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Six files with 100 passages each, and six texts."""
    folder, passages = tmp_path_factory.mktemp("files"), passages_of(600, seed=1)
    for n in range(6):
        lines = [json.dumps(as_record(passage)) for passage in passages[100 * n : 100 * n + 100]]
        (folder / f"{n}.jsonl").write_text("\n".join(lines))
        (folder / f"{n}.txt").write_text(" ".join(WORDS[n : n + 10]))
    return folder


@pytest.fixture(scope="module")
def whole(nodes_of, files, tmp_path_factory):
    """What the shards hold when nothing goes wrong, by their number; one worker has built them."""
    folder = tmp_path_factory.mktemp("whole")
    made = {shards: build_here(files, folder / str(shards), shards=shards, workers=1)[0] for shards in (1, 3)}
    return {shards: checksums(out) for shards, out in made.items()}


def calls_of(tmp_path, name="calls"):
    folder = tmp_path / name
    folder.mkdir()
    return folder


def test_two_workers_encode_the_batches_of_one_shard(nodes_of, files, whole, tmp_path):
    calls = calls_of(tmp_path)
    out, settings = build_here(files, tmp_path / "out", shards=1, workers=2, encoder=Noting(calls, seconds=0.1))
    assert (settings.passages, read_progress(out).stage) == (606, "done")
    assert len(notes(calls, "encoding")) == 19 + 12  # pieces of the sample, and batches
    assert len({process for process, _ in notes(calls, "encoding")}) == 2
    assert checksums(out) == whole[1]
    with ShardedIndex.open(out, WordEncoder()) as index, one_index(None, files, out, nbits=4) as one:
        for query in QUERIES:
            hits, wanted = index.search(query, 50, exact=True), one.search(query, 50, exact=True)
            assert [(hit.passage, hit.score) for hit in hits] == [(hit.passage, hit.score) for hit in wanted]


def test_as_many_workers_are_started_as_nodes_have_room_for(monkeypatch):
    class Cluster:
        @staticmethod
        def nodes():
            amounts = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 4.0, "GPU": 1.0}, {"CPU": 16.0}, {"CPU": 1.0, "GPU": 1.0}]
            alive = [{"Alive": True, "Resources": each} for each in amounts]
            return [*alive, {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}]

    assert building._count_workers(Cluster, 1, 0) == 25
    assert building._count_workers(Cluster, 1, 0.5) == 5  # two on each GPU, and one core beside the last
    assert building._count_workers(Cluster, 1, 0.4) == 5  # what is left of two GPUs is no third one
    assert building._count_workers(Cluster, 1, 0.1) == 9
    assert building._count_workers(Cluster, 1, 2) == 1  # none has room: the one that is started waits, and is told of


def test_a_part_of_a_gpu_is_a_part_of_one(files, tmp_path):
    for wrong in (1.5, -1, float("nan")):
        with pytest.raises(ValueError, match="num_gpus must be a part of one GPU, such as 0.5, or a whole number"):
            build_here(files, tmp_path / "out", shards=1, num_gpus=wrong)


@pytest.mark.slow  # starts a node
def test_two_workers_share_a_gpu(nodes_of, files, whole, tmp_path):
    calls = calls_of(tmp_path)
    node = nodes_of.add_node(num_cpus=4, num_gpus=1, include_dashboard=False, object_store_memory=80 * 2**20)
    try:
        out, _ = build_here(files, tmp_path / "out", shards=1, num_gpus=0.5, encoder=Noting(calls, seconds=0.1))
        gpus = dict(notes(calls, "encoding"))
        assert len(gpus) == 2
        assert set(gpus.values()) == {"0"}
        assert checksums(out) == whole[1]
    finally:
        nodes_of.remove_node(node)
        wait_until(lambda: count_alive() == 3)


DRIVER = """
import sys
import ray
from builders import cluster, encoders
from colbert_core.cluster import staging
staging._SMALLEST = 1
for module in (cluster, encoders):
    ray.cloudpickle.register_pickle_by_value(module)
source, out, calls, address = sys.argv[1:]
cluster.build_here(source, out, shards=1, workers=2, encoder=cluster.Noting(calls, seconds=1.0), address=address)
"""


def wait_until(happens, seconds=300):
    until = time.monotonic() + seconds
    while not happens() and time.monotonic() < until:
        time.sleep(0.05)


@pytest.mark.slow  # starts another driver
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_build_whose_driver_is_ended_goes_on_with_the_batches_that_are_missing(nodes_of, files, whole, tmp_path, end):
    out, calls, later = tmp_path / "out", calls_of(tmp_path), calls_of(tmp_path, "later")
    arguments = [str(files), str(out), str(calls), nodes_of.address]
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, *arguments], env=environment(), stderr=subprocess.DEVNULL)
    batches = Layout(out).encoded(0)
    wait_until(lambda: len(list(batches.glob("[0-9]*"))) >= 3 or driver.poll() is not None)
    driver.send_signal(end)
    driver.wait()
    time.sleep(5)  # its workers end with it; one may just be done
    there = {path.name: path.stat().st_mtime_ns for path in batches.glob("[0-9]*")}
    assert 3 <= len(there) < 12
    progress = read_progress(out)
    assert (progress.stage, progress.batches, progress.shards_done) == ("encoding", 12, 0)
    assert 1 <= progress.batches_done <= len(there)
    assert build_here(files, out, shards=1, workers=2, encoder=Noting(later))[1].passages == 606
    assert len(notes(later, "encoding")) == 12 - len(there)
    assert notes(later, "reading") == []
    assert checksums(out) == whole[1]
    assert not Layout(out).staged.exists()


def busy(stage, out, calls):
    """The processes that are at work on a stage of a build."""
    with contextlib.suppress(IndexNotFoundError):  # it has not begun
        progress = read_progress(out)
        if stage in ("encoding", "writing"):
            tasks = [task for task in progress.at_work if (task.batch is None) == (stage == "writing")]
            return [int(task.where.rpartition(" ")[2]) for task in tasks]
        if progress.stage == stage:
            return [process for process, _ in notes(calls, "reading" if stage == "reading" else "encoding")]
    return []


@pytest.mark.slow  # the cluster waits for a node's heartbeats
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", ["reading", "fitting", "encoding", "writing"])
def test_a_node_that_is_killed_costs_nothing(nodes_of, files, whole, tmp_path, stage):
    for attempt in range(4):  # writing takes a second, and may be over before it is seen
        killed, out = killed_while_building(nodes_of, files, tmp_path / str(attempt), stage)
        if killed:
            break
    assert killed == [stage]
    assert checksums(out) == whole[3]
    assert sorted(path.name for path in out.iterdir() if path.name.startswith((".", "staged"))) == []


def killed_while_building(nodes_of, files, folder, stage):
    """Build, and kill a node at a stage if it is seen: the stages at which one was killed, and what was built."""
    folder.mkdir()
    out, calls = folder / "out", calls_of(folder)
    killed, done = [], threading.Event()

    def kill_one():
        def find():
            node = node_of(nodes_of, busy(stage, out, calls))
            if node is not None:
                node_killed(nodes_of, node)
                killed.append(stage)
            return killed or done.is_set()

        wait_until(find)

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        build_here(files, out, shards=3, workers=3, encoder=Noting(calls, seconds=1.0))
    finally:
        done.set()
        killer.join()
        if killed:
            wait_until(lambda: count_alive() == 2, 120)
            nodes_of.add_node(num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20)
    return killed, out
