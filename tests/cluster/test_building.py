"""Shards built on a Ray cluster: the same whoever is killed meanwhile, and bad input is told before anything is made."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time

import pyarrow
import pyarrow.parquet
import pytest
from builders.cluster import PASSAGES, QUERIES, Fatal, build_here, checksums, count_alive, node_killed, passages_of
from builders.encoders import WordEncoder
from builders.processes import environment

from colbert_core import DamagedIndexError, Index, IndexExistsError, IndexNotFoundError, Passage
from colbert_core.cluster import ShardedIndex, build
from colbert_core.cluster.layout import Layout
from colbert_core.errors import ClusterUnreachableError

# Ray Data warns of its own settings when it copies them.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")


def test_every_shard_is_an_ordinary_index_that_keeps_the_codec_of_all(built, tmp_path):
    codecs = {
        entry for folder in built.values() for files in checksums(folder).values() for entry in files if entry[0] == "codec"
    }
    assert len(codecs) == 1  # whatever the number of shards
    shutil.copytree(built[5] / "shard-0003", tmp_path / "shard")
    with Index.open(tmp_path / "shard", WordEncoder()) as index:
        assert index.verify().ok
        before = index.codec_id
        index.add(passages_of(600))  # more than four times as many as there are in the collection
        index.compact()
        assert index.codec_id == before
        index.delete_where({})
        assert len(index) == 0


@pytest.mark.slow
def test_files_may_lie_in_an_object_storage_and_vectors_be_kept_as_they_are(nodes_of, source, tmp_path):
    out, settings = build_here(f"file://{source}", tmp_path / "out", shards=2, nbits=32, workers=1)
    assert settings.passages == 240
    assert sorted(settings.files) == ["a.jsonl", "deep/b.jsonl", "z.parquet"]
    assert not Layout(out).codec.exists()
    with ShardedIndex.open(out, WordEncoder()) as index, Index.create(None, WordEncoder()) as one:
        one.add(PASSAGES)
        hits = index.search(QUERIES[0], 20)
        assert [hit.passage.id for hit in hits] == [hit.passage.id for hit in one.search(QUERIES[0], 20)]
        assert index.stats().nbits is None


@pytest.mark.slow
def test_shards_keep_as_few_vectors_as_they_are_told_to_also_of_what_is_added(nodes_of, source, tmp_path):
    out, settings = build_here(source, tmp_path / "out", shards=2, workers=1, pool_factor=2)
    assert Layout(out).read().pool_factor == settings.pool_factor == 2
    more = [Passage(f"more{n}", passage.text) for n, passage in enumerate(PASSAGES[:20])]
    with ShardedIndex.open(out, WordEncoder()) as index, Index.create(None, WordEncoder(), pool_factor=2) as one:
        one.add(PASSAGES)
        assert (index.stats().tokens, index.stats().pool_factor) == (one.stats().tokens, 2)
        index.add(more)
        one.add(more)
        assert index.stats().tokens == one.stats().tokens
    with pytest.raises(ValueError, match="was begun with pool_factor=2.0, but 1.0 is asked for"):
        build_here(source, out, shards=2)


# Faults


@pytest.mark.slow
def test_workers_that_are_killed_while_building_lose_no_shard(nodes_of, built, source, tmp_path):
    (tmp_path / "calls").mkdir()
    # The sample is encoded first, then each shard; a worker dies over the sample and two over shards.
    encoder = Fatal(tmp_path / "calls", at={0, 2, 3})
    out, settings = build_here(source, tmp_path / "out", shards=5, workers=2, encoder=encoder)
    assert settings.passages == 240
    assert checksums(out) == checksums(built[5])
    assert sorted(path.name for path in out.iterdir() if path.name.startswith((".", "staged"))) == []


@pytest.mark.slow
def test_a_build_that_fails_goes_on_with_the_shards_that_are_missing(nodes_of, built, source, tmp_path):
    (tmp_path / "calls").mkdir()
    out, encoder = tmp_path / "out", Fatal(tmp_path / "calls", at={3}, fail=True)
    with pytest.raises(RuntimeError, match="the model is on fire"):
        build_here(source, out, shards=5, workers=1, encoder=encoder)
    there = [shard for shard in range(5) if shard not in Layout(out).missing(5)]
    assert len(there) == 2
    times = {shard: (Layout(out).shard(shard) / "index.sqlite").stat().st_mtime_ns for shard in there}
    with pytest.raises(DamagedIndexError, match="lacks 3 of its 5 shards"):
        ShardedIndex.open(out)
    build_here(source, out, shards=5, workers=2)
    assert checksums(out) == checksums(built[5])
    assert all((Layout(out).shard(shard) / "index.sqlite").stat().st_mtime_ns == time for shard, time in times.items())
    shutil.rmtree(Layout(out).shard(4))  # lost later, when what was read is gone as well
    build_here(source, out, shards=5, workers=1)
    assert checksums(out) == checksums(built[5])
    assert build_here(source, out, shards=5)[1].passages == 240  # nothing to do


SLOW_BUILD = """
import sys
import ray
from builders import cluster, encoders
for module in (cluster, encoders):
    ray.cloudpickle.register_pickle_by_value(module)
source, out, calls, address = sys.argv[1:]
cluster.build_here(source, out, shards=5, workers=2, encoder=cluster.Fatal(calls, at=(), seconds=1.0), address=address)
"""


@pytest.mark.slow  # another driver; workers are killed below
def test_a_build_whose_driver_was_killed_goes_on(nodes_of, built, source, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "calls").mkdir()
    arguments = [str(source), str(out), str(tmp_path / "calls"), nodes_of.address]
    driver = subprocess.Popen([sys.executable, "-c", SLOW_BUILD, *arguments], env=environment())
    until = time.monotonic() + 300
    while not list(out.glob("shard-*")) and driver.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert 1 <= 5 - len(Layout(out).missing(5)) < 5
    build_here(source, out, shards=5, workers=2)
    assert checksums(out) == checksums(built[5])


# Bad input


def test_words_are_chosen_when_shards_are_built(nodes_of, source, tmp_path):
    with pytest.raises(ValueError, match="words must be one of english, words, trigrams"):
        build(source, tmp_path / "out", shards=1, words="klingon", encoder=WordEncoder())
    assert not (tmp_path / "out").exists()
    (tmp_path / "one.jsonl").write_text('{"id": "a", "text": "concatenate"}')
    options = {"shards": 1, "encoder": WordEncoder(), "nbits": 32, "workers": 1, "progress": False}
    build(tmp_path / "one.jsonl", tmp_path / "out", words="trigrams", **options)
    with Index.open(tmp_path / "out" / "shard-0000") as shard:
        assert [hit.passage.id for hit in shard.search("cat", mode="words")] == ["a"]
    with pytest.raises(ValueError, match="was begun with words='trigrams', but 'english' is asked for"):
        build(tmp_path / "one.jsonl", tmp_path / "out", **options)


def test_what_cannot_be_read_is_an_error_before_anything_is_made(nodes_of, tmp_path):
    out = tmp_path / "out"
    for wrong, error, words in (
        (tmp_path / "nothing", ValueError, "There is no file or folder"),
        ("nowhere://bucket/folder", ValueError, "nowhere"),
        (f"file://{tmp_path}/nothing", ValueError, "nothing"),
        (
            "s3://bucket/folder?region=x&endpoint_override=127.0.0.1%3A1&scheme=http",
            ClusterUnreachableError,
            "cannot be read",
        ),
    ):
        with pytest.raises(error, match=words):
            build_here(wrong, out, shards=2)
        assert not out.exists()


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ({"id": ["a", "b"], "text": [1, 2]}, "z.parquet, row 1.*must be a str, got int"),
        ({"id": ["a", "b"], "body": ["x", "y"]}, 'row 1 has no "text"; its keys are id, body'),
        ({"id": ["a", "a"], "text": ["x", "y"]}, "1 ids stand more than once .* 'a'"),
        ({"id": [], "text": []}, "holds no passages"),
    ],
)
def test_a_malformed_file_is_told_by_its_name_and_row(nodes_of, tmp_path, records, words):
    (tmp_path / "source").mkdir()
    pyarrow.parquet.write_table(pyarrow.table(records), tmp_path / "source" / "z.parquet")
    with pytest.raises(ValueError, match=words):
        build_here(tmp_path / "source", tmp_path / "out", shards=1, workers=1)


def test_arguments_are_checked(nodes_of, built, source, tmp_path):
    for wrong, words in (
        ({"shards": 0}, "shards"),
        ({"shards": 513}, "at most 512"),
        ({"shards": 2, "nbits": 3}, "nbits"),
        ({"shards": 2, "pool_factor": 0.5}, "pool_factor"),
    ):
        with pytest.raises(ValueError, match=words):
            build(source, tmp_path / "out", **wrong)
    with pytest.raises(ValueError, match="was begun with shards=2, but 3 is asked for"):
        build_here(source, built[2], shards=3)
    (tmp_path / "file").write_text("")
    with pytest.raises(IndexExistsError, match="no sharded index"):
        build_here(source, tmp_path, shards=3)
    with pytest.raises(IndexNotFoundError, match=r"no cluster\.json"):
        ShardedIndex.open(tmp_path)
    with pytest.raises(ValueError, match="replicas"):
        ShardedIndex.open(built[2], replicas=0)
    with pytest.raises(ValueError, match="timeout"):
        ShardedIndex.open(built[2], timeout=0)


@pytest.mark.slow  # the cluster waits for a node's heartbeats; workers are killed above
@pytest.mark.timeout(900)
def test_a_node_that_is_killed_while_building_loses_no_shard(nodes_of, built, source, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "calls").mkdir()

    def kill_one():
        until = time.monotonic() + 300
        while not list(out.glob(".shard-*")) and time.monotonic() < until:
            time.sleep(0.02)
        node_killed(nodes_of)

    killer = threading.Thread(target=kill_one)
    killer.start()
    build_here(source, out, shards=5, workers=3, encoder=Fatal(tmp_path / "calls", at=(), seconds=0.5))
    killer.join()
    assert checksums(out) == checksums(built[5])
    until = time.monotonic() + 120  # the others may be done before the node's heartbeats are missed
    while count_alive() == 3 and time.monotonic() < until:
        time.sleep(0.1)
    assert count_alive() == 2
    nodes_of.add_node(num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20)


@pytest.mark.slow
def test_a_folder_at_an_address_with_settings_is_built_as_the_folder_itself(objects, built, source, tmp_path):
    bucket = objects.make_bucket("sources")
    for path in source.rglob("*.*"):
        objects.client.put_object(Bucket=bucket, Key=f"wiki/{path.relative_to(source).as_posix()}", Body=path.read_bytes())
    out, settings = build_here(objects.address(f"{bucket}/wiki"), tmp_path / "out", shards=2, workers=2)
    assert (settings.passages, settings.files) == (240, Layout(built[2]).read().files)
    assert checksums(out) == checksums(built[2])
    assert "secret" not in (out / "cluster.json").read_text()
