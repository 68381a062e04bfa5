"""The life of an index: made, opened, copied, overwritten, moved, compacted and checked."""

from __future__ import annotations

import re
import shutil
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
from builders.indexes import THREE, ids

import colbert_core
from colbert_core import (
    ColBERTError,
    Index,
    IndexExistsError,
    IndexNotFoundError,
    Passage,
    StorageError,
    UnsupportedIndexError,
)
from colbert_core.index import writing


def test_what_was_added_is_there_when_it_is_opened_again(path, words):
    with Index.create(path, words) as index:
        index.add(THREE)
        before = index.search("dog barks", k=3)
    with Index.open(path, words) as index:
        assert index.search("dog barks", k=3) == before
        assert index.get(["a", "nobody"]) == [THREE[0], None]
        assert index.delete_where({"n": {"$gte": 2}}) == 2
    with Index.open(path, words) as index:
        assert len(index) == 1
        index.clear()
    with Index.open(path, words) as index:
        assert len(index) == 0


def test_another_handle_sees_what_was_added_at_once(path, words):
    one, other = Index.create(path, words), Index.open(path, words)
    one.add(THREE)
    assert len(other.search("dog", k=9)) == 3
    other.delete(["b"])
    assert sorted(ids(one.search("dog", k=9))) == ["a", "c"]


def test_a_closed_index_cannot_be_used(path, words):
    index = Index.create(path, words)
    index.close()
    index.close()
    for call in (lambda: index.search("cat"), lambda: index.add(THREE), lambda: len(index), lambda: index.delete(["a"])):
        with pytest.raises(ValueError, match="The index is closed; open it again"):
            call()
    assert repr(index) == f"Index({str(path)!r}, closed, 'words')"


def test_closing_leaves_nothing_of_sqlite_s_log(path, words):
    with Index.create(path, words) as index:
        index.add(THREE)
        index.search("cat")
    assert sorted(entry.name for entry in path.iterdir()) == ["files", "index.sqlite"]


def test_what_is_there_already_is_not_overwritten(path, words):
    with Index.create(path, words) as index:
        index.add(THREE)
    with pytest.raises(IndexExistsError, match=r"open it with Index.open, or overwrite it .*\. `colbert add` adds"):
        Index.create(path, words)
    assert len(Index.open(path, words)) == 3


def test_overwriting_empties_the_index_and_may_change_its_encoder(path, words):
    with Index.create(path, words) as index:
        index.add(THREE)
        other = Index.open(path, words)
        with Index.create(path, dim=3, nbits=8, overwrite=True) as new:
            assert (len(new), new.dim, new.stats().nbits) == (0, 3, 8)
            new.add([Passage("x", "x")], embeddings=[np.ones((1, 3))])
        with pytest.raises(ColBERTError, match="was overwritten with a new one; open it again"):
            other.search("cat")
    with Index.open(path) as index:
        assert len(index.search(np.ones((1, 3), np.float32))) == 1


def test_an_index_moved_elsewhere_works_there(compressed_path, tmp_path):
    with Index.open(compressed_path) as index:
        before = index.search(np.ones((1, 32), np.float32), k=20)
    moved = tmp_path / "deep" / "er"
    moved.parent.mkdir()
    shutil.move(compressed_path, moved)
    with Index.open(moved) as index:
        assert index.search(np.ones((1, 32), np.float32), k=20) == before
        assert index.verify().ok


def test_saving_over_another_index_replaces_it_and_over_itself_changes_nothing(tmp_path, words):
    index = Index.create(tmp_path / "own.idx", words)
    index.add([Passage("a", "the cat")])
    with Index.create(tmp_path / "other.idx", words) as other:
        other.add([Passage("b", "a dog")])
    with pytest.raises(IndexExistsError):
        index.save(tmp_path / "other.idx")
    index.save(tmp_path / "other.idx", overwrite=True)
    with Index.open(tmp_path / "other.idx", words) as other:
        assert other.ids() == ["a"]
    (tmp_path / "link.idx").symlink_to(tmp_path / "own.idx")
    for itself in (tmp_path / "own.idx", tmp_path / "link.idx", tmp_path / "x" / ".." / "own.idx"):
        index.save(itself, overwrite=True)
    index.add([Passage("c", "a bird")])
    with Index.open(tmp_path / "own.idx", words) as again:
        assert again.ids() == ["a", "c"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.idx", "other.idx", "own.idx"]


def test_who_has_an_overwritten_index_open_is_told_so_and_cannot_harm_the_new_one(tmp_path, words):
    path = tmp_path / "shared.idx"
    old = Index.create(path, words)
    old.add([Passage("a", "the cat")])
    new = Index.create(None, words)
    new.add([Passage(f"b{n}", "a dog barks at night") for n in range(5000)])  # a file of its own, not a row
    for _ in range(2):
        new.save(path, overwrite=True)
        for use in (lambda: old.search("cat"), lambda: old.delete(["a"]), lambda: old.add([Passage("c", "a bird")])):
            with pytest.raises(StorageError, match="was overwritten with a new one; open it again"):
                use()
        with Index.open(path, words) as again:
            assert len(again) == 5000
            assert again.verify().ok


def test_an_index_that_is_being_overwritten_is_there_at_every_moment(tmp_path, words, interrupt_at):
    path = tmp_path / "shared.idx"
    with Index.create(path, words) as old:
        old.add([Passage("a", "the cat")])
    new = Index.create(None, words)
    new.add([Passage("b", "a dog")])
    with interrupt_at("rows written") as reached, pytest.raises(KeyboardInterrupt):
        new.save(path, overwrite=True)
    assert reached
    with Index.open(path, words) as again:
        assert again.ids() == ["a"]
    new.save(path, overwrite=True)
    with Index.open(path, words) as again:
        assert again.ids() == ["b"]
    with new, pytest.raises(IndexExistsError):
        (tmp_path / "file").write_text("precious")
        new.save(tmp_path / "file", overwrite=True)


@pytest.mark.parametrize("nbits", [None, 4])
def test_a_saved_index_is_a_copy_that_stands_alone(tmp_path, words, nbits, monkeypatch):
    monkeypatch.setattr(writing, "FIRST_FIT", 100)
    for source in (None, tmp_path / "source"):
        index = Index.create(source, words, nbits=nbits)
        index.add([Passage(str(i), f"text number {i} of many", {"n": i}) for i in range(200)])
        index.delete(["7"])
        target = tmp_path / f"copy of {source is None}"
        index.save(target)
        index.delete(["8"])
        with Index.open(target, words) as copy:
            assert len(copy) == 199
            assert copy.search("number 8", k=3, where={"n": 8})[0].passage.metadata == {"n": 8}
            assert copy.verify().ok
            copy.add([Passage("new", "new")])
        assert "new" not in index
        with pytest.raises(IndexExistsError, match="exists already"):
            index.save(target)


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_compacting_gives_room_back_and_changes_no_result(place, path, words):
    index = Index.create(None if place == "memory" else path, words, nbits=32)
    for i in range(100):
        index.add([Passage(str(i), f"text number {i} " + "of great length " * 50)])
    index.delete([str(i) for i in range(0, 100, 3)])
    before = index.search("number 8", k=99)
    index.compact()
    assert index.search("number 8", k=99) == before
    stats = index.stats()
    assert (stats.segments, stats.dead_tokens, stats.passages) == (1, 0, 66)
    assert index.verify().ok
    index.compact()
    assert index.search("number 8", k=99) == before


def test_stats_say_what_there_is(compressed_path):
    with Index.open(compressed_path) as index:
        index.delete(["00001"])
        stats = index.stats()
    assert (stats.passages, stats.windows, stats.dim, stats.nbits, stats.encoder) == (400, 400, 32, 4, None)
    assert stats.centroids == 512
    assert stats.tokens + stats.dead_tokens > stats.tokens > 0
    assert stats.bytes_per_token == stats.vector_bytes / stats.tokens


def test_a_newer_format_is_refused_by_both_numbers(path, words):
    Index.create(path, words).close()
    connection = sqlite3.connect(path / "index.sqlite")
    connection.execute("PRAGMA user_version = 7")
    connection.commit()
    connection.close()
    with pytest.raises(
        UnsupportedIndexError, match="has format 7, and this version of colbert-retrievers reads up to 5; update"
    ):
        Index.open(path)


def test_verify_reports_how_much_is_found(compressed_path):
    with Index.open(compressed_path) as index:
        found = index.verify(n_queries=30)
    assert (found.ok, found.queries) == (True, 30)
    assert 0.9 < found.recall <= 1


def test_no_source_of_the_package_unpickles():
    root = Path(colbert_core.__file__).parent
    sources = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in root.rglob("*.py")}
    # Where a file of an index, a checkpoint or a training run is read; all are looked at, or the rest proves nothing.
    assert {
        "storage/arrays.py",
        "storage/files.py",
        "storage/incoming.py",
        "storage/transaction.py",
        "index/foreign.py",
        "model/checkpoint/files.py",
        "colbertv1/encoded.py",
        "train/data.py",
        "cluster/encoding.py",
        "cluster/staging.py",
        "evaluation/bm25.py",
        "cli/main.py",
    } <= set(sources)
    # Machine code from where Python keeps its .pyc files; no file of an index comes there.
    assert [name for name, text in sources.items() if "pickle.load" in text] == ["kernels/compiling.py"]
    assert [name for name, text in sources.items() if re.search(r"import pickle\b", text)] == ["kernels/compiling.py"]
    assert not [name for name, text in sources.items() if "allow_pickle=True" in text]
    loads = {name: text.count("torch.load(") for name, text in sources.items() if "torch.load(" in text}
    assert set(loads) == {"storage/incoming.py"}
    assert loads == {name: sources[name].count("weights_only=True") for name in loads}


def test_an_index_that_was_removed_and_made_again_is_noticed(path):
    def make():
        index = Index.create(path, dim=2)
        index.add([Passage("x", "x")], embeddings=[np.ones((1, 2))])
        return index

    index = make()
    index.search(np.ones((1, 2), np.float32))
    with index._store.connections.used():  # its connections are gone; the next one is new
        shutil.rmtree(path)
        with pytest.raises(IndexNotFoundError, match="is gone"):
            len(index)
        make().close()
        for call in (lambda: index.search(np.ones((1, 2), np.float32)), lambda: index.get(["x"]), lambda: len(index)):
            with pytest.raises(StorageError, match="was overwritten with a new one; open it again"):
                call()


def test_two_threads_that_make_the_same_index_make_one(path):
    barrier, results = threading.Barrier(4), []

    def make():
        barrier.wait()
        try:
            results.append(Index.create(path, dim=3))
        except IndexExistsError as error:
            results.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(result, Index) for result in results) == 1
    assert len(Index.open(path)) == 0


def test_the_working_folder_may_change(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    index = Index.create("x.idx", dim=3)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with index._store.connections.used():  # so that another connection is needed
        index.add([Passage("x", "x")], embeddings=[np.ones((1, 3))])
    assert len(index) == 1
    assert list((tmp_path / "elsewhere").iterdir()) == []
