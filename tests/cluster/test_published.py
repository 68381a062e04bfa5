"""Searches of an index that is published to S3: the same hits, read only, and the old snapshot for those who have it open."""

from __future__ import annotations

import itertools
import json
import pickle
import subprocess
import sys

import pytest
import ray
from builders.cluster import QUERIES, sharded_here
from builders.encoders import WordEncoder
from builders.processes import environment

from colbert_core import DamagedIndexError, Index, IndexNotFoundError, Passage, ReadOnlyIndexError, open_index
from colbert_core.cluster import ShardedIndex, publish, restore, snapshots
from colbert_core.cluster.layout import Layout, shard_of
from colbert_core.cluster.storages import storage_at
from colbert_core.storage import files

# Ray Data warns of its own settings when it copies them.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")

_buckets = itertools.count()


@pytest.fixture
def address(objects):
    """An address in a bucket of its own."""
    return objects.address(f"{objects.make_bucket(f'published{next(_buckets)}')}/wiki")


@pytest.fixture
def index_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_LARGEST_ROW", 2000)
    return sharded_here(tmp_path / "index")


def add(folder, passage):
    with Index.open(Layout(folder).shard(shard_of(passage.id, 2)), WordEncoder()) as index:
        index.add([passage], refit=False)


def ids(hits):
    return [hit.passage.id for hit in hits]


def test_a_published_index_is_searched_like_its_folder_and_refuses_to_be_written_to(
    objects, nodes_of, address, index_folder, tmp_path
):
    publish(index_folder, address)
    encoder, cache = WordEncoder(), tmp_path / "cache"
    with (
        ShardedIndex.open(index_folder, encoder, timeout=250) as folder,
        ShardedIndex.open(address, encoder, cache=cache, replicas=2, timeout=250, progress=False) as index,
    ):
        for options in ({"exact": True}, {}, {"mode": "hybrid"}, {"where": {"year": 2003}}, {"evidence": True}):
            assert index.search_many(QUERIES, 20, **options) == folder.search_many(QUERIES, 20, **options)
        assert len(index) == 240 and index.get(["id7"]) == folder.get(["id7"])
        assert repr(index).startswith("ShardedIndex('s3://published") and "secret" not in repr(index)
        for write in (
            lambda: index.add([Passage("new", "cats")]),
            lambda: index.delete(["id7"]),
            lambda: index.delete_where({}),
            lambda: index.update_metadata({"a": 1}, ids=["id7"]),
            index.clear,
            lambda: index.compact(progress=False),
        ):
            with pytest.raises(
                ReadOnlyIndexError, match="s3://published.*is published, so it can be searched only; change the folder"
            ):
                write()
        with pytest.raises(ReadOnlyIndexError, match="restore makes a folder of it"):
            index.save(cache / "copy")
        assert len(index) == 240
        with pickle.loads(pickle.dumps(index)) as again:
            assert ids(again.search(QUERIES[0])) == ids(index.search(QUERIES[0]))
    assert len(list(cache.glob("*/*/shard-*"))) == 2


def test_who_has_the_old_snapshot_open_goes_on_with_it_and_an_actor_that_died_fetches_it_again(
    objects, nodes_of, address, index_folder, tmp_path
):
    publish(index_folder, address)
    with ShardedIndex.open(address, WordEncoder(), cache=tmp_path / "a", timeout=250) as old:
        before = old.search("rust is a language", 5)
        add(index_folder, Passage("new", "rust is a language"))
        publish(index_folder, address)
        with ShardedIndex.open(address, WordEncoder(), cache=tmp_path / "a", timeout=250) as new:
            assert "new" in ids(new.search("rust is a language", 5))
            assert old.search("rust is a language", 5) == before
            for of_shard in old._replicas.actors:
                ray.kill(of_shard[0], no_restart=False)
            assert old.search("rust is a language", 5) == before


def test_who_closes_an_old_snapshot_leaves_its_folders_to_who_opens_the_next(objects, address, index_folder, tmp_path):
    publish(index_folder, address)
    here = {"cache": tmp_path / "cache", "address": "local", "progress": False}
    with ShardedIndex.open(address, WordEncoder(), **here) as old:
        folders = list((tmp_path / "cache").glob("*/*/shard-*"))
        before = old.search("rust is a language", 5)
        add(index_folder, Passage("new", "rust is a language"))
        publish(index_folder, address)
        with ShardedIndex.open(address, WordEncoder(), **here) as new:
            assert "new" in ids(new.search("rust is a language", 5))
        assert old.search("rust is a language", 5) == before
        assert len(folders) == 2 and all(folder.is_dir() for folder in folders)
    with ShardedIndex.open(address, WordEncoder(), **here):
        assert not any(folder.is_dir() for folder in folders)


def test_a_shard_that_is_damaged_where_it_was_published_is_named(objects, nodes_of, address, index_folder, tmp_path):
    manifest = publish(index_folder, address)
    storage, name = storage_at(address), f"files/{manifest.shards[1].files['index.sqlite'].sha256}"
    storage.write(name, [b"something else"])
    with pytest.raises(DamagedIndexError, match=f"/wiki/{name} is damaged: it has 14 bytes"):
        ShardedIndex.open(address, WordEncoder(), cache=tmp_path / "cache")
    with ShardedIndex.open(address, WordEncoder(), cache=tmp_path / "cache", allow_partial=True) as index:
        hits = index.search(QUERIES[0], 5)
        assert hits and hits.missing_shards == (1,)


COMMAND = [sys.executable, "-m", "colbert_core.cli"]


def run(*arguments, **variables):
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, env=environment(**variables), capture_output=True, text=True, timeout=250, check=False)


def test_an_address_is_no_service_for_who_opens_whatever_there_is(address):
    with pytest.raises(IndexNotFoundError, match="s3://published"):
        open_index(address, WordEncoder())


def test_the_command_line_publishes_lists_restores_and_splits(objects, address, index_folder, tmp_path):
    done = run("cluster", "publish", index_folder, address, "--json")
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)
    (manifest,) = snapshots(address)
    assert (about["snapshot"], about["passages"], about["shards"]) == (manifest.snapshot, 240, 2)
    assert run("cluster", "snapshots", address).stdout.startswith(f"{manifest.snapshot}: 240 passages in 2 shards, ")
    done = run("cluster", "restore", address, "--out", tmp_path / "restored", "--quiet")
    assert done.returncode == 0, done.stderr
    assert len(Layout(tmp_path / "restored").missing(2)) == 0
    done = run("cluster", "split", tmp_path / "restored", "--out", tmp_path / "four", "--shards", 4)
    assert done.stdout == f"240 passages in 4 shards in {tmp_path / 'four'}.\n"
    wrong = run("cluster", "publish", index_folder, objects.address("no-such-bucket/wiki"))
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (1, "", 1)
    assert "there is no such bucket; make it, or name another." in wrong.stderr
    assert restore(address, tmp_path / "again") == manifest


@pytest.mark.slow  # Ray starts once more
def test_the_command_line_searches_what_is_published(objects, address, index_folder, tmp_path):
    publish(index_folder, address)
    variables = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "RAY_ADDRESS": "local"}
    done = run("search", address, "rust language", "--mode", "words", "-k", 3, "--json", **variables)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert list((tmp_path / "cache" / "colbert-retrievers").glob("wiki-*/*/shard-0001"))
    refused = run("delete", address, "id7", **variables)
    assert refused.returncode == 1 and "is published, so it can be searched only" in refused.stderr
