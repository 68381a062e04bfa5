"""Where the arrays of an index lie: what holds for a folder and for memory alike, and what happens to damaged files."""

from __future__ import annotations

import contextlib
import hashlib
import os

import numpy as np
import pytest
from builders.indexes import files_of, flip
from builders.vectors import collection

import colbert_core.storage.files as files_module
from colbert_core import DamagedIndexError, Index, Passage, SearchConfig, StorageError
from colbert_core.storage.arrays import load_arrays
from colbert_core.storage.changes import File, StaleRead
from colbert_core.storage.connection import connect
from colbert_core.storage.files import FolderFiles, MemoryFiles
from colbert_core.storage.opened import file_id

PIECES = [b"some ", memoryview(b"bytes"), b""]
DIGEST = hashlib.sha256(b"some bytes").hexdigest()
# So few windows are looked at that a search of 400 passages narrows them down by the lists.
FEW = SearchConfig(nprobe=2, n_candidates=30, n_exact=20)


def file_of(content):
    digest = hashlib.sha256(content).hexdigest()
    return File(digest, "segment", 0, len(content), digest)


# What holds for both


@pytest.fixture
def connection(tmp_path):
    """To the database beside the files."""
    database = tmp_path / "index.sqlite"
    with contextlib.closing(connect(database, "rwc", 1)) as connection:
        connection.execute("CREATE TABLE t(x)")
        connection.file_id = file_id(database)
        yield connection


@pytest.fixture(params=["memory", "folder"])
def files(request, tmp_path):
    if request.param == "memory":
        return MemoryFiles()
    (tmp_path / "files").mkdir()
    return FolderFiles(tmp_path, set)


def test_what_was_written_is_read(files):
    assert files.write(PIECES) == (10, DIGEST)
    content = files.read(file_of(b"some bytes"))
    assert (content.dtype, content.tobytes()) == (np.uint8, b"some bytes")


def test_writing_the_same_again_changes_nothing(files):
    assert files.write(PIECES) == files.write([b"some bytes"])
    assert files.read(file_of(b"some bytes")).tobytes() == b"some bytes"


def test_what_is_read_cannot_be_changed(files):
    files.write(PIECES)
    with pytest.raises(ValueError, match="read-only"):
        files.read(file_of(b"some bytes"))[0] = 0


def test_a_file_that_is_gone_from_the_newest_state_is_a_stale_read(files):
    with pytest.raises(StaleRead, match=DIGEST):
        files.read(file_of(b"some bytes"))


def test_removed_files_are_gone_and_what_was_read_stays_readable(files, connection):
    for content in (b"one", b"two", b"three"):
        files.write([content])
    two = files.read(file_of(b"two"))
    assert files.names() == {file_of(content).name for content in (b"one", b"two", b"three")}
    files.remove([file_of(b"two").name, file_of(b"three").name, file_of(b"never there").name], connection)
    assert files.names() == {file_of(b"one").name}
    assert files.read(file_of(b"one")).tobytes() == b"one"
    for content in (b"two", b"three"):
        with pytest.raises(StaleRead):
            files.read(file_of(content))
    assert two.tobytes() == b"two"


def test_a_write_that_fails_leaves_nothing(files):
    def pieces():
        yield b"half of "
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        files.write(pieces())
    for content in (b"half of ", b""):
        with pytest.raises(StaleRead):
            files.read(file_of(content))


def test_they_have_a_name_for_messages_and_can_be_closed(files, tmp_path):
    assert files.name in ("the index in memory", str(tmp_path))
    files.write(PIECES)
    files.close()


# What differs


def test_small_arrays_are_rows_on_disk_and_files_in_memory(tmp_path):
    assert [MemoryFiles().takes(size) for size in (0, 2**20)] == [True, True]
    assert [FolderFiles(tmp_path, set).takes(size) for size in (0, 2**20 - 1, 2**20)] == [False, False, True]


def test_a_folder_has_nothing_but_the_file_under_its_digest(tmp_path):
    FolderFiles(tmp_path, set).write(PIECES)  # makes the folder as well, which tools that copy may have left out
    assert files_of(tmp_path) == [tmp_path / "files" / DIGEST]

    def pieces():
        yield b"half of "
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FolderFiles(tmp_path, set).write(pieces())
    assert files_of(tmp_path) == [tmp_path / "files" / DIGEST]


def test_a_missing_file_that_the_newest_state_names_is_damage(tmp_path):
    files = FolderFiles(tmp_path, lambda: {DIGEST})
    with pytest.raises(DamagedIndexError, match=f"{DIGEST} is missing; restore the index from a copy"):
        files.read(file_of(b"some bytes"))


def test_a_file_that_goes_between_looking_and_mapping_is_read_all_the_same(tmp_path, monkeypatch):
    files = FolderFiles(tmp_path, set)
    files.write(PIECES)
    real = np.memmap

    def removed_before(*arguments):
        (tmp_path / "files" / DIGEST).unlink()
        return real(*arguments)

    monkeypatch.setattr(np, "memmap", removed_before)
    assert files.read(file_of(b"some bytes")).tobytes() == b"some bytes"
    with pytest.raises(StaleRead):
        files.read(file_of(b"some bytes"))


def test_files_beside_another_database_are_not_removed(tmp_path, connection):
    files = FolderFiles(tmp_path, set)
    files.write(PIECES)
    (tmp_path / "index.sqlite").rename(tmp_path / "moved.sqlite")
    (tmp_path / "index.sqlite").write_bytes(b"another one")
    with pytest.raises(StorageError, match="was overwritten with a new one; open it again"):
        files.remove([DIGEST], connection)
    assert files.names() == {DIGEST}


def test_memory_that_was_dumped_is_no_longer_changed(connection):
    files = MemoryFiles({"a": b"x"})
    before = files.contents
    files.remove({"a"}, connection)
    assert (before, files.contents) == ({"a": b"x"}, {})


@pytest.mark.parametrize("what", ["file", "folder"])
def test_no_link_leads_out_of_the_folder(tmp_path, what):
    files, secret = FolderFiles(tmp_path / "x.idx", {DIGEST}.copy), tmp_path / "secret"
    (tmp_path / "x.idx" / "files").mkdir(parents=True)
    secret.mkdir()
    (secret / DIGEST).write_bytes(b"some bytes")
    if what == "file":
        (tmp_path / "x.idx" / "files" / DIGEST).symlink_to(secret / DIGEST)
    else:
        (tmp_path / "x.idx" / "files").rmdir()
        (tmp_path / "x.idx" / "files").symlink_to(secret)
    with pytest.raises(DamagedIndexError, match="is a link, and an index reads nothing outside its folder"):
        files.read(file_of(b"some bytes"))


def test_a_pipe_in_the_place_of_a_file_hangs_nobody(tmp_path):
    files = FolderFiles(tmp_path, {DIGEST}.copy)
    (tmp_path / "files").mkdir()
    os.mkfifo(tmp_path / "files" / DIGEST)
    with pytest.raises(DamagedIndexError, match="is no regular file"):
        files.read(file_of(b"some bytes"))


# Damage, and what is not ours


def test_a_missing_file_is_named_at_open(compressed_path):
    for file in files_of(compressed_path):
        moved = file.rename(compressed_path.parent / "elsewhere")
        with pytest.raises(DamagedIndexError, match=f"{file.name} is missing"):
            Index.open(compressed_path)
        moved.rename(file)
    Index.open(compressed_path).close()


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_file_cut_short_is_named_at_open(compressed_path, length):
    file = files_of(compressed_path)[0]
    data = file.read_bytes()
    file.write_bytes(data[:length])
    with pytest.raises(DamagedIndexError, match=f"{file.name} has {len(data[:length])} bytes where {len(data)} were written"):
        Index.open(compressed_path)


def test_a_wrong_header_is_named_at_open(compressed_path):
    for file in files_of(compressed_path):
        data = file.read_bytes()
        for place in (0, 3, 8, 20):
            flip(file, place)
            with pytest.raises(DamagedIndexError, match=file.name):
                Index.open(compressed_path)
            file.write_bytes(data)


def test_a_changed_byte_anywhere_is_found_by_verify_and_search_stays_safe(compressed_path):
    """Search may find the wrong passages, or say that the index is damaged; it must not read what is not its own."""
    rng = np.random.default_rng(0)
    queries = collection(400)[2]
    for file in files_of(compressed_path):
        whole = file.read_bytes()
        header = int.from_bytes(whole[:8], "little") + 8
        for place in rng.integers(header, len(whole), size=40).tolist():
            flip(file, place)
            try:
                with Index.open(compressed_path) as index:
                    found = index.verify()
                    assert not found.ok
                    assert any(file.name in problem for problem in found.problems)
                    index.search(queries[0], k=20)
                    index.search(queries[0], k=20, exact=True)
                    index.search(queries[0], k=5, where={"third": 1})
            except DamagedIndexError:
                pass
            file.write_bytes(whole)
    with Index.open(compressed_path) as index:
        assert index.verify().ok


@pytest.mark.parametrize(
    ("name", "searches"),
    [
        ("codes", [{}, {"exact": True}, {"where": {"third": 1}}, {"config": FEW}]),
        ("list_windows", [{"config": FEW}, {"config": FEW, "where": {"third": 1}}]),
        ("list_offsets", [{"config": FEW}, {"config": FEW, "where": {"third": 1}}]),
        ("list_centroids", [{"config": FEW}, {"config": FEW, "where": {"third": 1}}]),
    ],
)
def test_a_search_over_codes_or_lists_that_lead_nowhere_is_a_named_error(path, monkeypatch, name, searches):
    monkeypatch.setattr(files_module, "_LARGEST_ROW", 0)
    passages, vectors, queries = collection(400)
    with Index.create(path, dim=32, nbits=4) as index:
        index.add(passages, embeddings=vectors)
        index.compact()
        whole = index.search(queries[0], k=20, exact=True)
    (file,) = (file for file in files_of(path) if b"list_windows" in file.read_bytes()[:1000])
    content = np.frombuffer(file.read_bytes(), np.uint8).copy()
    damaged = load_arrays(content)[name]
    damaged[...] = np.iinfo(damaged.dtype).max
    file.write_bytes(content.tobytes())
    with Index.open(path) as index:
        assert any(file.name in problem for problem in index.verify().problems)
        for options in searches:
            with pytest.raises(DamagedIndexError, match="run verify"):
                index.search(queries[0], k=20, **options)
        if name != "codes":  # a search that reads no list is as before
            assert index.search(queries[0], k=20, exact=True) == whole


def test_a_folder_that_lost_its_empty_files_folder_can_be_written_to(path, monkeypatch):
    monkeypatch.setattr(files_module, "_LARGEST_ROW", 0)
    Index.create(path, dim=3).close()
    (path / "files").rmdir()
    with Index.open(path) as index:
        index.add([Passage("x", "x")], embeddings=[np.ones((1, 3))])
        assert index.verify().ok


def test_a_file_that_is_not_ours_is_never_removed(path):
    with Index.create(path, dim=3) as index:
        (path / "files" / "notes.txt").write_text("mine")
        index.add([Passage("x", "x")], embeddings=[np.ones((1, 3))])
        index.clear()
    assert (path / "files" / "notes.txt").read_text() == "mine"


def test_verify_names_every_file_that_is_missing_or_cut_short(compressed_path):
    with Index.open(compressed_path) as index:
        index.search(np.ones((1, 32), np.float32))
        names = [file.name for file in files_of(compressed_path)]
        for file in files_of(compressed_path):
            file.write_bytes(file.read_bytes()[:50])
        problems = index.verify().problems
    assert all(any(name in problem for problem in problems) for name in names)
