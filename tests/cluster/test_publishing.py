"""Snapshots of a sharded index, published to S3 and to folders and restored from there, whoever is killed meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from builders.cluster import PASSAGES, contents_of, passages_of, sharded_here
from builders.encoders import WordEncoder
from builders.processes import environment

from colbert_core import DamagedIndexError, Index, IndexExistsError, IndexNotFoundError, Passage, UnsupportedIndexError
from colbert_core.cluster import fetching, locks, publish, publishing, restore, snapshots
from colbert_core.cluster.fetching import PublishedShard, find_layout
from colbert_core.cluster.layout import Layout, shard_of
from colbert_core.cluster.manifests import read_manifest
from colbert_core.cluster.storages import storage_at
from colbert_core.errors import ClusterError, ClusterUnreachableError
from colbert_core.storage import files

_buckets = itertools.count()


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    """A few passages make a file beside the database."""
    monkeypatch.setattr(files, "_LARGEST_ROW", 2000)


@pytest.fixture(params=["a folder", "file://", "s3://"])
def place(request, tmp_path):
    """An address with nothing there."""
    if request.param == "s3://":
        objects = request.getfixturevalue("objects")
        return objects.address(f"{objects.make_bucket(f'bucket{next(_buckets)}')}/wiki/index")
    return f"file://{tmp_path}/published" if request.param == "file://" else str(tmp_path / "published")


@pytest.fixture
def index_folder(tmp_path, small_files):
    return sharded_here(tmp_path / "index")


def add(folder, passages):
    """Add to each shard what belongs there, as an index in shards does."""
    n_shards = Layout(folder).read().shards
    for shard in range(n_shards):
        with Index.open(Layout(folder).shard(shard), WordEncoder()) as index:
            index.add([passage for passage in passages if shard_of(passage.id, n_shards) == shard], refit=False)


def published_files(address):
    return storage_at(address).entries("files")


# There and back


@pytest.mark.parametrize("nbits", [4, 32])
def test_what_is_published_is_restored_with_every_passage_vector_and_word(place, tmp_path, nbits):
    folder = sharded_here(tmp_path / "other", nbits=nbits)
    manifest = publish(folder, place, progress=False)
    assert manifest.passages == 240
    assert any(name.startswith("files/") for name in manifest.shards[0].files)
    assert restore(place, tmp_path / "restored", progress=False) == manifest == snapshots(place)[-1]
    assert contents_of(tmp_path / "restored") == contents_of(folder)
    assert Layout(tmp_path / "restored").read() == Layout(folder).read()
    assert Layout(tmp_path / "restored").codec.exists() == (nbits != 32)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_restored_index_can_be_written_to_and_published_again(place, index_folder, tmp_path):
    publish(index_folder, place)
    restore(place, tmp_path / "restored")
    add(tmp_path / "restored", [Passage("new", "rust is a language")])
    assert publish(tmp_path / "restored", place).passages == 241


def test_a_restored_shard_has_an_identity_of_its_own(place, index_folder, tmp_path):
    manifest = publish(index_folder, place)
    restore(place, tmp_path / "restored")
    for number, shard in enumerate(manifest.shards):
        with Index.open(Layout(tmp_path / "restored").shard(number)) as index, index._store.read() as reader:
            assert reader.moment_of()[0] != shard.identity


def test_a_later_snapshot_uploads_what_has_changed_and_the_older_one_stays(place, index_folder, tmp_path):
    first = publish(index_folder, place)
    before = contents_of(index_folder)
    known = published_files(place)
    (changed,) = {shard_of("new", 2)}
    add(index_folder, [Passage("new", "rust is a language")])
    second = publish(index_folder, place)
    assert second.shards[1 - changed] == first.shards[1 - changed]
    added = published_files(place).keys() - known.keys()
    assert added == second.contents().keys() - first.contents().keys()
    assert [each.snapshot for each in snapshots(place)] == [first.snapshot, second.snapshot]
    restore(place, tmp_path / "first", snapshot=first.snapshot)
    assert contents_of(tmp_path / "first") == before
    restore(place, tmp_path / "second")
    assert contents_of(tmp_path / "second") == contents_of(index_folder)


def test_nothing_is_published_where_nothing_has_changed(place, index_folder):
    first = publish(index_folder, place)
    assert publish(index_folder, place) == first
    assert len(snapshots(place)) == 1


def test_snapshots_beyond_those_to_keep_go_and_their_files_once_they_are_a_day_old(place, index_folder, monkeypatch):
    made = []
    for number in range(3):
        add(index_folder, [Passage(f"new{number}", "rust is a language")])
        made.append(publish(index_folder, place))
    assert [each.snapshot for each in snapshots(place)] == [each.snapshot for each in made[1:]]
    assert published_files(place).keys() >= made[0].contents().keys()
    monkeypatch.setattr(publishing, "_KEPT_SECONDS", -60)
    add(index_folder, [Passage("new3", "rust is a language")])
    made.append(publish(index_folder, place, keep=1))
    assert published_files(place).keys() == made[-1].contents().keys()


def test_texts_that_were_deleted_are_not_published(place, tmp_path):
    secrets = [Passage(f"secret{n}", "the cat is called xylophone") for n in range(40)]
    folder = sharded_here(tmp_path / "other", [*PASSAGES, *secrets], words="words")
    for shard in range(2):
        with Index.open(Layout(folder).shard(shard), WordEncoder()) as index:
            index.delete([passage.id for passage in secrets])
    manifest = publish(folder, place)
    storage = storage_at(place)
    for shard in manifest.shards:
        assert b"xylophone" not in b"".join(storage.read(f"files/{shard.files['index.sqlite'].sha256}"))


# Errors


def test_what_a_storage_refuses_is_one_line_that_says_what_to_do(objects, index_folder, tmp_path):
    nowhere, there = objects.address("no-such-bucket/index"), objects.address(f"{objects.make_bucket('mine')}/index")
    publish(index_folder, there)

    def told(error, call, *arguments):
        with pytest.raises(error) as caught:
            call(*arguments)
        message = str(caught.value)
        assert not any(each in message for each in ("\n", "botocore", "endpoint_override", "secret"))
        return message

    message = told(ClusterUnreachableError, publish, index_folder, nowhere)
    assert re.fullmatch("s3://no-such-bucket/index/files/[0-9a-f]* cannot be written: there is no such bucket; .*", message)
    assert "Nothing is published at s3://no-such-bucket/index" in told(IndexNotFoundError, restore, nowhere, tmp_path / "new")
    assert "Nothing is published" in told(IndexNotFoundError, find_layout, objects.address("mine/other"))
    with objects.refusing():
        assert "set AWS_ACCESS_KEY_ID" in told(ClusterUnreachableError, snapshots, there)
        assert "give it the right" in told(ClusterUnreachableError, find_layout, there)
    assert "no address that pyarrow knows" in told(ValueError, publish, index_folder, "nowhere://bucket/folder")
    assert "names no bucket" in told(ValueError, publish, index_folder, "s3://?region=x")
    assert "there are " in told(IndexNotFoundError, lambda: restore(there, tmp_path / "new", snapshot="yesterday"))
    assert not (tmp_path / "new").exists()


@pytest.mark.slow  # pyarrow tries for six seconds
def test_a_server_that_does_not_answer_is_named(index_folder):
    address = "s3://bucket/index?region=x&scheme=http&endpoint_override=127.0.0.1%3A1"
    with pytest.raises(ClusterUnreachableError, match="nothing answers there"):
        publish(index_folder, address)


def test_passwords_in_an_address_are_not_shown():
    with pytest.raises(ValueError, match="nowhere://bucket/folder is no address") as caught:
        storage_at("nowhere://me:secret@bucket/folder?token=secret")
    assert "secret" not in str(caught.value)


def test_arguments_are_checked(index_folder, tmp_path):
    with pytest.raises(ValueError, match="keep"):
        publish(index_folder, tmp_path / "there", keep=0)
    with pytest.raises(ValueError, match="is the index itself"):
        publish(index_folder, index_folder)
    with pytest.raises(IndexNotFoundError, match="no sharded index"):
        publish(tmp_path, tmp_path / "there")
    with pytest.raises(ValueError, match="cache is for an index at an address"):
        find_layout(index_folder, tmp_path)
    publish(index_folder, tmp_path / "there")
    with pytest.raises(IndexExistsError, match="exists already"):
        restore(tmp_path / "there", index_folder)
    Layout(index_folder).shard(1).rename(tmp_path / "away")
    with pytest.raises(DamagedIndexError, match=r"lacks 1 of its 2 shards \(1\)"):
        publish(index_folder, tmp_path / "there")


def test_a_published_file_that_has_changed_is_named_and_put_right_by_publishing_again(place, index_folder, tmp_path):
    manifest = publish(index_folder, place)
    storage = storage_at(place)
    name = next(name for name in manifest.shards[1].files if name != "index.sqlite")
    content = b"".join(storage.read(name))
    for wrong in (content[:-1] + b"?", content[:100], None):
        storage.remove(name)
        if wrong is not None:
            storage.write(name, [wrong])
        with pytest.raises(DamagedIndexError, match=f"{name} is (damaged|missing)"):
            restore(place, tmp_path / "restored")
        assert not (tmp_path / "restored").exists()
        if wrong is not None and len(wrong) == len(content):
            storage.remove(name)  # as the message says
        publish(index_folder, place)
        assert b"".join(storage.read(name)) == content
    restore(place, tmp_path / "restored")
    assert contents_of(tmp_path / "restored") == contents_of(index_folder)


def test_a_file_of_the_index_that_has_changed_is_not_published(index_folder, tmp_path):
    shard = Layout(index_folder).shard(1)
    with contextlib.closing(sqlite3.connect(shard / "index.sqlite")) as connection:
        ((name,),) = connection.execute("SELECT name FROM files ORDER BY name LIMIT 1")  # others wait to be removed
    path = shard / "files" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedIndexError, match=f"{path.name} has changed since it was written"):
        publish(index_folder, tmp_path / "there")
    with pytest.raises(IndexNotFoundError):
        read_manifest(storage_at(tmp_path / "there"))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"format": 2}, UnsupportedIndexError, "has format 2"),
        ({"snapshot": "../../evil"}, DamagedIndexError, "no time"),
        ({"shards": []}, DamagedIndexError, "of 0 shards"),
        ({"codec": {"size": -1, "sha256": "0" * 64}}, DamagedIndexError, "size and SHA-256"),
        ({"settings": {"format": 99}}, UnsupportedIndexError, "has format 99"),
    ],
)
def test_a_manifest_that_no_publication_makes_is_refused(index_folder, tmp_path, change, error, words):
    publish(index_folder, tmp_path / "there")
    path = tmp_path / "there" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error, match=words):
        restore(tmp_path / "there", tmp_path / "restored")


def test_a_manifest_leads_to_no_file_outside_of_an_index(index_folder, tmp_path):
    publish(index_folder, tmp_path / "there")
    path = tmp_path / "there" / "manifest.json"
    content = json.loads(path.read_text())
    content["shards"][0]["files"]["../../evil"] = content["shards"][0]["files"]["index.sqlite"]
    path.write_text(json.dumps(content))
    with pytest.raises(DamagedIndexError, match="evil"):
        restore(tmp_path / "there", tmp_path / "restored")
    path.write_text("[" * 100_000)
    with pytest.raises(DamagedIndexError, match=r"manifest\.json is damaged"):
        restore(tmp_path / "there", tmp_path / "restored")


def test_two_who_publish_at_once_do_not_overwrite_each_other(index_folder, tmp_path, monkeypatch):
    put_shard, turns = publishing._put_shard, itertools.count()

    def put_and_be_overtaken(*arguments):
        if next(turns) == 1:
            monkeypatch.setattr(publishing, "_put_shard", put_shard)
            publish(index_folder, tmp_path / "there")
        return put_shard(*arguments)

    monkeypatch.setattr(publishing, "_put_shard", put_and_be_overtaken)
    with pytest.raises(ClusterError, match="Somebody else published"):
        publish(index_folder, tmp_path / "there")
    assert len(snapshots(tmp_path / "there")) == 1


# Kill -9, and writers beside

PUBLISH = """
import sys
from builders.dying import die_at
from colbert_core.cluster import publish, restore
from colbert_core.storage import files
files._LARGEST_ROW = 2000
what, source, target, step, turn = sys.argv[1:]
die_at(step, turn)
{"publish": publish, "restore": restore}[what](source, target, progress=False)
"""


def killed_at(step, turn, what, source, target):
    """Publish or restore in a process that is killed when it takes this step for the ``turn``-th time."""
    arguments = [sys.executable, "-c", PUBLISH, what, str(source), str(target), step, str(turn)]
    done = subprocess.run(arguments, env=environment(), timeout=200, check=False, capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode == -signal.SIGKILL


@pytest.mark.slow  # a process for each step; one of the steps below
@pytest.mark.parametrize("place", ["a folder", "s3://"], indirect=True)
@pytest.mark.parametrize("step", ["file published", "files published", "snapshot published", "manifest published"])
def test_who_is_killed_while_publishing_leaves_the_old_snapshot_or_the_new_one(place, index_folder, tmp_path, step):
    first, before = publish(index_folder, place), contents_of(index_folder)
    add(index_folder, passages_of(60, seed=1))
    assert killed_at(step, 1, "publish", index_folder, place)
    manifest = restore(place, tmp_path / "restored")
    is_new = step == "manifest published"
    assert (manifest.snapshot != first.snapshot) == is_new
    assert contents_of(tmp_path / "restored") == (contents_of(index_folder) if is_new else before)
    publish(index_folder, place)
    restore(place, tmp_path / "again")
    assert contents_of(tmp_path / "again") == contents_of(index_folder)
    assert not list(index_folder.glob(".*"))


def test_who_is_killed_while_restoring_leaves_nothing_and_the_next_one_goes_on(index_folder, tmp_path):
    publish(index_folder, tmp_path / "there")
    assert killed_at("file fetched", 3, "restore", tmp_path / "there", tmp_path / "restored")
    assert not (tmp_path / "restored").exists()
    whole = tmp_path / ".restored.unfinished"
    kept = []
    for path in whole.rglob("files/*"):
        kept.append(tmp_path / path.name)
        kept[-1].hardlink_to(path)
    assert kept
    restore(tmp_path / "there", tmp_path / "restored")
    inodes = {path.stat().st_ino for path in (tmp_path / "restored").rglob("files/*")}
    assert {path.stat().st_ino for path in kept} <= inodes  # they were not fetched again
    assert contents_of(tmp_path / "restored") == contents_of(index_folder)
    assert not whole.exists()


@pytest.mark.slow
@pytest.mark.parametrize("step", ["shard", "restored"])
def test_who_is_killed_later_while_restoring_is_followed_as_well(index_folder, tmp_path, step):
    manifest = publish(index_folder, tmp_path / "there")
    turns = {"shard": len(manifest.shards[0].files), "restored": 1}
    assert killed_at("file fetched" if step == "shard" else step, turns[step], "restore", tmp_path / "there", tmp_path / "new")
    restore(tmp_path / "there", tmp_path / "new")
    assert contents_of(tmp_path / "new") == contents_of(index_folder)


WRITE = """
import sys
from pathlib import Path
from builders.encoders import WordEncoder
from colbert_core import Index, Passage
from colbert_core.cluster.layout import Layout, shard_of
from colbert_core.storage import files
files._LARGEST_ROW = 2000
layout = Layout(Path(sys.argv[1]))
indexes = [Index.open(layout.shard(shard), WordEncoder()) for shard in range(2)]
print("ready", flush=True)
for n in range(10**6):
    passage = Passage(f"n{n}", "the cat sat on a mat and purrs " * (n % 9 + 1), {"n": n})
    index = indexes[shard_of(passage.id, 2)]
    index.add([passage], refit=False, progress=False)
    if n % 3 == 2:
        indexes[shard_of(f"n{n - 2}", 2)].delete([f"n{n - 2}"])
    if n % 50 == 49:
        index.compact(progress=False)
"""


def wait_for_commits(folder, manifest):
    """Wait until each shard has been written to since a snapshot."""
    for number, shard in enumerate(manifest.shards):
        with Index.open(Layout(folder).shard(number)) as index:
            until = time.monotonic() + 200
            while index.stats().generation < shard.generation + 5 and time.monotonic() < until:
                time.sleep(0.05)


@pytest.mark.slow  # a writer in a process of its own; the next test has one in a thread
def test_each_shard_of_a_backup_is_as_it_was_at_one_moment_though_it_is_written_to_and_somebody_is_killed(
    index_folder, tmp_path
):
    command = [sys.executable, "-c", WRITE, str(index_folder)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout.readline() == "ready\n"
            made = [publish(index_folder, tmp_path / "backup", keep=9)]
            for step in ("file written", "file published", "files published"):
                wait_for_commits(index_folder, made[-1])
                assert killed_at(step, 1, "publish", index_folder, tmp_path / "backup")
                made.append(publish(index_folder, tmp_path / "backup", keep=9))
        finally:
            writer.kill()
    assert made == snapshots(tmp_path / "backup")
    for number, manifest in enumerate(made):
        restore(tmp_path / "backup", tmp_path / str(number), snapshot=manifest.snapshot)
        for shard in range(2):
            with Index.open(Layout(tmp_path / str(number)).shard(shard), WordEncoder()) as index:
                assert index.verify().ok
                assert len(index) == manifest.shards[shard].passages
                there = {passage.metadata["n"] for passage in index.passages() if passage.id.startswith("n")}
            # Whatever was added up to some moment, but every third, which were deleted in this order.
            missing = {n for n in range(max(there, default=0)) if shard_of(f"n{n}", 2) == shard} - there
            assert all(n % 3 == 0 for n in missing)
            assert all(n > max(missing, default=-1) for n in there if n % 3 == 0)
    assert made[-1].shards[0].generation > made[0].shards[0].generation


def test_a_snapshot_beside_a_writer_is_whole(index_folder, tmp_path):
    stop = threading.Event()

    def write():
        with Index.open(Layout(index_folder).shard(0), WordEncoder()) as index:
            for n in itertools.count():
                if stop.is_set():
                    return
                index.add([Passage(f"n{n}", "the cat sat")], refit=False, progress=False)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        made = [publish(index_folder, tmp_path / "backup", keep=9) for _ in range(3)]
    finally:
        stop.set()
        writer.join()
    for number, manifest in enumerate(made):
        restore(tmp_path / "backup", tmp_path / str(number), snapshot=manifest.snapshot)
        with Index.open(Layout(tmp_path / str(number)).shard(0), WordEncoder()) as index:
            assert index.verify().ok
            there = sorted(int(passage_id[1:]) for passage_id in index.ids() if passage_id.startswith("n"))
            assert there == list(range(len(there)))


# The cache of a machine


def published_shard(address, cache, number=0):
    layout = find_layout(address, cache)
    return PublishedShard(layout.place, layout.cache, layout.manifest.snapshot, number, layout.manifest.shards[number])


def fetched(place, cache):
    """The folder of the first shard, which was fetched by somebody who is gone."""
    shard = published_shard(place, cache)
    folder = shard.fetch()
    leave(shard)
    return folder


def leave(shard):
    for connection in shard._use:
        connection.close()


FETCH = """
import sys
from colbert_core.cluster.fetching import find_layout
print(find_layout(*sys.argv[1:]).shard(0).fetch())
"""


def test_two_processes_of_one_machine_fetch_a_shard_once(objects, index_folder, tmp_path):
    address = objects.address(f"{objects.make_bucket('shared')}/index")
    shard = publish(index_folder, address).shards[0]
    asked = []
    handler = logging.Handler()
    handler.emit = lambda record: asked.append(record.getMessage())
    logging.getLogger("werkzeug").addHandler(handler)
    try:
        arguments = [sys.executable, "-c", FETCH, address, str(tmp_path / "cache")]
        processes = [subprocess.Popen(arguments, env=environment(), stdout=subprocess.PIPE, text=True) for _ in range(3)]
        (folder,) = {process.communicate(timeout=100)[0] for process in processes}
    finally:
        logging.getLogger("werkzeug").removeHandler(handler)
    for checksum in shard.files.values():
        assert sum(f"GET /shared/index/files/{checksum.sha256}" in line for line in asked) == 1
    with Index.open(folder.strip(), WordEncoder()) as index:
        assert index.verify().ok and len(index) == shard.passages


def test_a_shard_is_fetched_once_and_again_only_where_the_cache_is_damaged(place, index_folder, tmp_path, caplog):
    place = place if "://" in place else f"file://{place}"
    publish(index_folder, place)
    folder = fetched(place, tmp_path / "cache")
    inode = (folder / "index.sqlite").stat().st_ino
    assert fetched(place, tmp_path / "cache") == folder
    assert (folder / "index.sqlite").stat().st_ino == inode
    (path,) = list((folder / "files").iterdir())[:1]
    path.write_bytes(b"cut short")
    with caplog.at_level(logging.WARNING):
        assert fetched(place, tmp_path / "cache") == folder
    assert str(path) in caplog.text
    with Index.open(folder, WordEncoder()) as index:
        assert index.verify().ok


def test_shards_of_older_snapshots_leave_the_cache_once_nobody_uses_them(index_folder, tmp_path):
    place = f"file://{tmp_path}/there"
    publish(index_folder, place)
    using = published_shard(place, tmp_path / "cache")
    old = using.fetch()
    files_before = {path.name: path.stat().st_ino for path in (old / "files").iterdir()}
    add(index_folder, [Passage("new", "rust is a language")])
    publish(index_folder, place)
    new = fetched(place, tmp_path / "cache")
    assert old.is_dir() and new != old
    same = [path for path in (new / "files").iterdir() if path.name in files_before]
    assert all(path.stat().st_ino == files_before[path.name] for path in same)  # not fetched again
    leave(using)
    add(index_folder, [Passage("newer", "rust is a language")])
    publish(index_folder, place)
    newest = fetched(place, tmp_path / "cache")
    assert newest.is_dir() and not old.exists() and not new.exists()


def test_an_interrupted_fetch_goes_on(index_folder, tmp_path, monkeypatch):
    place = f"file://{tmp_path}/there"
    publish(index_folder, place)
    shard = published_shard(place, tmp_path / "cache")
    fetch_file, turns = fetching._fetch_file, itertools.count()

    def fail(*arguments):
        if next(turns) == 1:
            raise ClusterUnreachableError("the network is down")
        fetch_file(*arguments)

    monkeypatch.setattr(fetching, "_fetch_file", fail)
    with pytest.raises(ClusterUnreachableError, match="the network is down"):
        shard.fetch()
    folder = shard.fetch()
    assert next(turns) == 1 + len(shard.files.files)  # the first file was fetched once
    with Index.open(folder, WordEncoder()) as index:
        assert index.verify().ok


def test_a_lock_can_be_shared_and_goes_with_its_process(tmp_path):
    lock = tmp_path / "lock"
    first, second = locks.shared(lock), locks.shared(lock)
    with pytest.raises(sqlite3.OperationalError, match="locked"), locks.alone(lock, 0):
        pass
    first.close()
    second.close()
    with locks.alone(lock, 0), pytest.raises(sqlite3.OperationalError), locks.alone(lock, 0):
        pass
