"""Whole files and folders that survive a power failure, on every system, and one checksum of files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from builders.colbertv1 import passages_of

import colbert_core.storage.files as files_module
from colbert_core import Encoder, Index, Passage
from colbert_core.cluster.layout import Layout, Settings
from colbert_core.colbertv1.encoded import encode_collection
from colbert_core.evaluation.bm25 import BM25
from colbert_core.evaluation.trec import write_run
from colbert_core.index import writing
from colbert_core.storage import durable
from colbert_core.train import ColBERT, Example, TrainConfig, prepare, write_examples
from colbert_core.train.folder import RunFolder

fcntl = pytest.importorskip("fcntl", reason="Windows syncs otherwise")
FULL = 51  # macOS's number of F_FULLFSYNC
EXAMPLES = [Example("cat", "the cat sat", ("a dog barks",)), Example("dog", "a dog barks", ("the cat sat",))]


@pytest.fixture(params=["darwin", "linux"])
def synced(request, monkeypatch):
    """The inodes that were synced, as the system does it: F_FULLFSYNC on macOS, fsync elsewhere; the other is an error."""
    inodes, real = set(), fcntl.fcntl

    def full_sync(descriptor, command, *arguments):
        if command != FULL:
            return real(descriptor, command, *arguments)
        assert request.param == "darwin"
        inodes.add(os.fstat(descriptor).st_ino)
        return 0

    def sync(descriptor):
        assert request.param == "linux", "on macOS fsync leaves what was written in the disk's own memory"
        inodes.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", FULL, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", full_sync)
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(durable, "sys", SimpleNamespace(platform=request.param, audit=sys.audit))
    return inodes


def unsynced(path, inodes):
    """What was not synced: of a file, itself and the folder it is in; of a folder, everything in it as well."""
    inside = sorted(path.rglob("*")) if path.is_dir() else []
    return [entry.name for entry in [path.parent, path, *inside] if entry.stat().st_ino not in inodes]


# Every durable write is synced, in the one way of the system


def write_examples_to(folder, _):
    write_examples(EXAMPLES, folder / "x.jsonl.gz")
    return folder / "x.jsonl.gz"


def write_prepared(folder, model):
    prepare(EXAMPLES, ColBERT.from_pretrained(model, TrainConfig()), folder / "data", progress=False)
    return folder / "data"


def write_run_settings(folder, _):
    (folder / "run").mkdir()
    run = RunFolder(folder / "run", is_main=True)
    run.begin({"config": {"steps": 3}})
    return folder / "run" / "config.json"


def write_checkpoint(folder, _):
    (folder / "run" / "checkpoints").mkdir(parents=True)

    class Accelerator:
        def save_state(self, place):
            (Path(place) / "deep").mkdir(parents=True)
            for name in ("weights", "deep/random"):
                (Path(place) / name).write_text("content")

        def wait_for_everyone(self): ...

    RunFolder(folder / "run", is_main=True).save(Accelerator(), 7)
    return folder / "run" / "checkpoints" / "step-7"


def write_encoder(folder, model):
    Encoder.from_pretrained(model).save(folder / "model", format="stanford")
    return folder / "model"


def write_trec(folder, _):
    write_run(folder / "x.trec", {"q": {"a": 1.0}}, "tag")
    return folder / "x.trec"


def write_bm25(folder, _):
    pytest.importorskip("bm25s")
    BM25.build([Passage("a", "cats purr"), Passage("b", "dogs bark")], progress=False).save(folder / "bm25")
    return folder / "bm25"


def write_cluster(folder, _):
    Layout(folder).write(Settings(2, 4, "model"))
    return folder / "cluster.json"


def write_codec(folder, _):
    layout = Layout(folder)
    durable.write_bytes(layout.codec, b"codec", shared=True)
    return layout.codec


@pytest.mark.parametrize(
    "write",
    [
        write_examples_to,
        write_prepared,
        write_run_settings,
        write_checkpoint,
        write_encoder,
        write_trec,
        write_bm25,
        write_cluster,
        write_codec,
    ],
)
def test_what_is_written_is_synced_with_the_folder_that_names_it(write, tmp_path, synced, stanford_folder):
    folder = tmp_path / "place"
    folder.mkdir()
    written = write(folder, stanford_folder)
    assert written.exists()
    assert unsynced(written, synced) == []
    assert not [entry.name for entry in folder.rglob(".*")]


def test_an_encoded_collection_is_synced(tmp_path, synced, words):
    folder = tmp_path / "vectors"
    encode_collection(passages_of(7), words, folder, shard_passages=3, progress=False)
    assert len(list(folder.iterdir())) == 3 * 5 + 1
    assert [entry.name for entry in [folder, *folder.iterdir()] if entry.stat().st_ino not in synced] == []


def test_ivfpq_is_synced(tmp_path, synced, words):
    faiss = pytest.importorskip("faiss")
    from colbert_core.colbertv1.ivfpq import IVFPQ

    assert faiss
    encode_collection(passages_of(100), words, tmp_path / "vectors", progress=False)
    IVFPQ.build(tmp_path / "vectors", tmp_path / "index", nlist=5, nbits=4, progress=False)
    assert unsynced(tmp_path / "index", synced) == []


def test_vectors_and_codec_of_an_index_are_synced(tmp_path, synced, monkeypatch):
    monkeypatch.setattr(files_module, "_LARGEST_ROW", 0)
    monkeypatch.setattr(writing, "FIRST_FIT", 500)
    rng = np.random.default_rng(0)
    with Index.create(tmp_path / "x.idx", dim=16, nbits=4) as index:
        for first in (0, 50):
            names = [str(first + n) for n in range(50)]
            index.add(
                [Passage(name, "text") for name in names],
                embeddings=[rng.standard_normal((20, 16)) for _ in names],
                progress=False,
            )
        index.save(tmp_path / "copy.idx")
    for name in ("x.idx", "copy.idx"):
        folder = tmp_path / name
        kept = list((folder / "files").iterdir())
        assert len(kept) >= 2  # a codec and a segment
        assert [
            entry.name for entry in [folder.parent, folder, folder / "files", *kept] if entry.stat().st_ino not in synced
        ] == []


# Disks that cannot


def test_on_macos_a_disk_without_a_full_sync_gets_the_plain_one(tmp_path, monkeypatch):
    synced = []

    def refused(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", FULL, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", refused)
    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr(durable, "sys", SimpleNamespace(platform="darwin", audit=sys.audit))
    durable.write_text(tmp_path / "x", "content")
    assert len(synced) == 2  # the file and its folder
    assert (tmp_path / "x").read_text() == "content"


@pytest.mark.parametrize(("number", "passes"), [(errno.EINVAL, True), (errno.EACCES, True), (errno.EIO, False)])
def test_a_folder_that_cannot_be_synced_is_passed_over_and_one_that_fails_is_not(tmp_path, monkeypatch, number, passes):
    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(durable, "sync", fail)
    if passes:
        durable.sync_folder(tmp_path)
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            durable.sync_folder(tmp_path)
    (tmp_path / "x").write_text("content")
    with pytest.raises(OSError, match=os.strerror(number)):  # a file must be synced wherever it lies
        durable.sync_file(tmp_path / "x")


# Whole or not at all


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x"
    durable.write_text(path, "old")

    def fail():
        with durable.written_aside(path) as unfinished:
            unfinished.write_text("half of the new")
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        fail()
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]
    assert path.read_text() == "old"


def test_what_a_killed_process_left_aside_is_written_over(tmp_path):
    (tmp_path / ".x.unfinished").write_text("left by a process that was killed, and longer than the new content")
    durable.write_text(tmp_path / "x", "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "new"


def test_processes_that_write_the_same_file_at_once_do_not_meet(tmp_path):
    path = tmp_path / "x"
    with durable.written_aside(path, shared=True) as first, durable.written_aside(path, shared=True) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # whose block ended last
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_a_folder_is_synced_before_it_has_its_name(tmp_path, monkeypatch):
    (tmp_path / "work" / "deep").mkdir(parents=True)
    (tmp_path / "work" / "deep" / "file").write_text("content")
    seen, real = [], durable._sync_path
    monkeypatch.setattr(
        durable, "_sync_path", lambda path, flags: (seen.append((path.name, (tmp_path / "x").exists())), real(path, flags))
    )
    durable.put_in_place(tmp_path / "work", tmp_path / "x")
    assert seen == [("deep", False), ("file", False), ("work", False), (tmp_path.name, True)]


def test_json_and_arrays_are_read_as_they_were_written(tmp_path):
    durable.write_json(tmp_path / "x.json", {"a": [1, "é"]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [1, "é"]}
    rows = np.arange(12, dtype=np.float16).reshape(4, 3)
    durable.write_npy(tmp_path / "x.npy", [rows[:1], rows[1:1], rows[1:]], (3,), np.float16)
    assert np.array_equal(np.load(tmp_path / "x.npy"), rows)


# One checksum


def test_every_checksum_of_a_file_is_its_sha256(tmp_path):
    content = bytes(range(256)) * 5000
    written = durable.write_synced(tmp_path / "x", [content[:100], memoryview(content)[100:]])
    digest = hashlib.sha256(content).hexdigest()
    assert written == durable.Checksum(len(content), digest)
    assert durable.sha256_of(tmp_path / "x") == digest
    assert durable.checksum_files([tmp_path / "x"]) == {str(tmp_path / "x"): written}


def test_a_missing_file_has_no_checksum(tmp_path):
    with pytest.raises(FileNotFoundError):
        durable.checksum_files([tmp_path / "nothing"])


def test_a_target_is_checked_before_the_work(tmp_path):
    durable.check_target(tmp_path / "new.txt")
    with pytest.raises(FileNotFoundError, match="to write x.txt into; make it, or name another"):
        durable.check_target(tmp_path / "nowhere" / "x.txt")
    with pytest.raises(IsADirectoryError, match="is a folder; name a file"):
        durable.check_target(tmp_path)
