"""An index on disk: its life, and everything that can happen to its files."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from builders.encoders import WordEncoder
from builders.vectors import collection

import colbert_core.storage.transaction as store_module
from colbert_core import (
    ColBERTError,
    DamagedIndexError,
    Encoder,
    EncoderMismatchError,
    Index,
    IndexExistsError,
    IndexLockedError,
    IndexNotFoundError,
    PartialAddError,
    Passage,
    ReadOnlyIndexError,
    Reranker,
    StorageError,
    UnsupportedIndexError,
)
from colbert_core.index import batches, writing
from colbert_core.storage import durable

THREE = [Passage("a", "the cat sat", {"n": 1}), Passage("b", "a dog barks", {"n": 2}), Passage("c", "a bird sings", {"n": 3})]


def ids(hits):
    return [hit.passage.id for hit in hits]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.idx"


@pytest.fixture
def compressed_path(path, monkeypatch):
    """A compressed index on disk, closed, with files and with rows of vectors."""
    monkeypatch.setattr(writing, "FIRST_FIT", 2000)
    monkeypatch.setattr(store_module, "_LARGEST_ROW", 2**12)
    passages, vectors, _ = collection(400)
    with Index.create(path, dim=32, nbits=4) as index:
        index.add(passages, embeddings=vectors)
        index.add([Passage("late", "late")], embeddings=[vectors[0]])
    return path


# The life of an index


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
    with pytest.raises(IndexExistsError, match="is an index already; open it with Index.open, or overwrite it"):
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


@pytest.mark.parametrize(
    "content",
    [{"notes.txt": b"mine"}, {"index.sqlite": b"no database"}, {"files/x": b"x", "other": b""}, {"files/thesis.docx": b"mine"}],
)
def test_what_is_no_index_is_never_overwritten(path, words, content):
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    for overwrite in (False, True):
        with pytest.raises(IndexExistsError):
            Index.create(path, words, overwrite=overwrite)
    assert all((path / name).read_bytes() == data for name, data in content.items())


def test_a_file_is_never_overwritten(path, words):
    path.write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(IndexExistsError):
            Index.create(path, words, overwrite=overwrite)
    with pytest.raises(IndexNotFoundError):
        Index.open(path)
    assert path.read_text() == "mine"


def test_an_empty_folder_is_as_good_as_none(path, words):
    path.mkdir()
    with Index.create(path, words) as index:
        index.add(THREE)
    assert len(Index.open(path, words)) == 3


def test_where_there_is_no_index_none_is_opened(path, words):
    with pytest.raises(IndexNotFoundError, match="There is no index at .*; make one with Index.create or `colbert index`"):
        Index.open(path)
    assert not path.exists()
    path.mkdir()
    with pytest.raises(FileNotFoundError, match="holds no index: there is no index.sqlite in it"):
        Index.open(path)


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


# Encoders


def test_the_encoder_an_index_was_made_with_is_loaded_when_it_is_needed(path, stanford_folder):
    encoder = Encoder.from_pretrained(stanford_folder, passage_length=15)
    with Index.create(path, encoder) as index:
        index.add([Passage("a", "the cat sat on the mat"), Passage("b", "rust is a language of systems")])
        before = index.search("cat", k=2)
    with Index.open(path) as index:
        assert ids(index.search("cat", k=2)) == ids(before)
        assert index.encoder.config.passage_length == 15
        index.add([Passage("c", "dogs bark")])
        assert len(index) == 3


def test_the_same_encoder_in_another_place_or_precision_is_welcome(path, tmp_path, stanford_folder):
    Index.create(path, stanford_folder).close()
    moved = shutil.copytree(stanford_folder, tmp_path / "moved")
    for dtype in ("float32", "bfloat16"):
        with Index.open(path, Encoder.from_pretrained(moved, dtype=dtype, device="cpu")) as index:
            index.add([Passage(dtype, "the cat sat")])
    assert len(Index.open(path)) == 2


def test_another_encoder_is_an_error_that_names_both(path, words, stanford, untrained):
    Index.create(path, words).close()
    with pytest.raises(
        EncoderMismatchError, match=r"made with the encoder 'words', of dim 64, but the encoder '.*stanford.*' has dim 16"
    ):
        Index.open(path, stanford)

    class Other(WordEncoder):
        name = "other words"

        def vector(self, word):
            return super().vector(word + "!")

    with pytest.raises(
        EncoderMismatchError, match="made with the encoder 'words', and the encoder 'other words' gives other vectors"
    ):
        Index.open(path, Other())
    with pytest.raises(ValueError, match="other words"):
        Index.open(path, Other())
    Index.open(path, words).close()


def test_a_model_folder_whose_content_has_changed_is_noticed(path, tmp_path, stanford_folder):
    from builders.encoders import write_stanford

    model = shutil.copytree(stanford_folder, tmp_path / "model")
    with Index.create(path, str(model)) as index:
        index.add([Passage("a", "the cat sat")])
    shutil.rmtree(model)
    with Index.open(path) as index:
        assert len(index.search(np.ones((1, 16), np.float32))) == 1
        with pytest.raises(EncoderMismatchError, match="was made with the encoder '.*model', which cannot be loaded; pass it"):
            index.search("cat")
    import torch

    write_stanford(model, weights={"linear.weight": -torch.ones(16, 32)})
    problem = (
        "made with the encoder '.*model', and what has that name now gives other vectors for the same text; .* make a new index"
    )
    with Index.open(path) as index, pytest.raises(EncoderMismatchError, match=problem):
        index.search("cat")


def test_an_encoder_without_a_name_is_not_taken_for_the_one_of_an_index_without_one(path, words):
    Index.create(path, dim=5).close()
    words.name = None
    with pytest.raises(EncoderMismatchError, match="made with vectors from elsewhere, of dim 5, but the encoder None has dim"):
        Index.open(path, words)


def test_an_encoder_without_a_name_to_load_it_by_has_to_be_passed(path, words):
    Index.create(path, words).close()
    with Index.open(path) as index:
        assert len(index) == 0
        with pytest.raises(EncoderMismatchError, match="'words', which has no name to load it by; pass it to Index.open"):
            index.search("cat")
        with pytest.raises(EncoderMismatchError):
            index.add(THREE)


def test_an_index_of_vectors_from_elsewhere_takes_no_texts_until_it_has_an_encoder(path, words):
    with Index.create(path, dim=64) as index:
        for call in (lambda: index.search("cat"), lambda: index.add(THREE)):
            with pytest.raises(EncoderMismatchError, match="made for vectors from elsewhere, without an encoder"):
                call()
    with Index.open(path, words) as index:
        index.add(THREE)
        assert ids(index.search("dog barks", k=1)) == ["b"]
    with pytest.raises(EncoderMismatchError, match="vectors from elsewhere, of dim 64, but the encoder 'words' has dim 8"):
        Index.open(path, WordEncoder(dim=8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 3}, "dim is 3, but the encoder 'words' makes vectors of dim 64"),
        ({"nbits": 3}, "nbits must be 1, 2, 4, 8, or 32"),
        ({"nbits": True}, "nbits must be 1, 2, 4, 8, or 32"),
        ({"dim": 0}, "dim must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_make_no_index(path, words, options, message):
    with pytest.raises(ValueError, match=message):
        Index.create(path, words, **options)
    assert not path.exists()


# Adding as a stream


def test_a_stream_is_taken_and_committed_in_batches(path, words, monkeypatch):
    monkeypatch.setattr(batches, "_BATCH_PASSAGES", 10)
    index = Index.create(path, words)
    lead = []

    def stream():
        for i in range(95):
            lead.append(i - len(index))
            yield Passage(str(i), f"text {i}")

    assert index.add(stream()) == [str(i) for i in range(95)]
    assert max(lead) < 25
    assert index.stats().generation == 10


def test_an_error_in_the_middle_says_what_is_in(path, words, monkeypatch):
    monkeypatch.setattr(batches, "_BATCH_PASSAGES", 10)
    index = Index.create(path, words)
    with pytest.raises(
        PartialAddError, match="20 passages of this call are in the index, up to '19'; the next ones are not"
    ) as caught:
        index.add(Passage(str(i), "text") if i < 35 else "nonsense" for i in range(50))
    assert caught.value.added == [str(i) for i in range(20)]
    assert isinstance(caught.value.__cause__, TypeError)
    assert len(index) == 20
    with pytest.raises(PartialAddError, match="stand more than once"):
        index.add(Passage(str(i % 12), "text") for i in range(15))
    with pytest.raises(TypeError, match="Item 3"):  # a list is checked before anything is added
        index.add([*THREE, "nonsense"])
    assert "a" not in index


def test_an_interrupted_stream_says_what_is_in(path, words, monkeypatch, interrupt_at):
    monkeypatch.setattr(batches, "_BATCH_PASSAGES", 10)
    index = Index.create(path, words)

    def stream():
        for i in range(40):
            if i == 35:
                raise KeyboardInterrupt
            yield Passage(str(i), "text")

    with pytest.raises(KeyboardInterrupt) as caught:
        index.add(stream())
    assert caught.value.__notes__ == ["20 passages of this call are in the index, up to '19'."]
    assert len(index) == 20


@pytest.mark.parametrize("step", ["locked", "rows written", "file written", "file synced", "file renamed", "folder synced"])
def test_ctrl_c_at_any_step_leaves_the_index_as_it_was(compressed_path, step, interrupt_at):
    passages, vectors, queries = collection(100, seed=9)
    index = Index.open(compressed_path)
    before = index.search(queries[0], k=999), index.stats()
    with interrupt_at(step) as reached, pytest.raises(KeyboardInterrupt):
        index.add([Passage(passage.id, "new text") for passage in passages], embeddings=vectors)
    assert reached
    assert (index.search(queries[0], k=999), index.stats()) == before
    assert index.verify().ok
    index.add([Passage(passage.id, "new text") for passage in passages], embeddings=vectors)
    assert index.get(["00000"])[0].text == "new text"
    named = {
        row[0] for row in sqlite3.connect(compressed_path / "index.sqlite").execute("SELECT name FROM files WHERE data IS NULL")
    }
    assert {file.name for file in (compressed_path / "files").iterdir()} == named


def test_progress_can_be_shown_and_silenced(path, words, monkeypatch, capsys):
    monkeypatch.setattr(batches, "_BATCH_PASSAGES", 10)
    index = Index.create(path, words)
    index.add([Passage(str(i), "text") for i in range(30)], progress=True)
    assert "Indexing" in capsys.readouterr().err
    index.add([Passage(str(i), "text") for i in range(30)], progress=False)
    index.add([Passage(str(i), "text") for i in range(30)])  # standard error is no terminal here
    assert capsys.readouterr().err == ""


def test_memory_while_adding_is_bounded_by_the_batch_and_not_by_the_collection(path):
    """A stream of 160 MB of vectors, uncompressed; what the process holds must not grow with it."""
    out = in_a_process(
        """
        import resource
        rng = np.random.default_rng(0)
        index = Index.create(sys.argv[1], dim=64, nbits=32)
        peaks = []
        def stream():
            for n in range(32 * 1024):
                if n % 1024 == 0:
                    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
                yield Passage(str(n), "text")
        index.add(stream(), embeddings=(rng.standard_normal((20, 64)).astype(np.float32) for _ in range(32 * 1024)))
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        print(index.stats().vector_bytes // 2**20, peaks[2], peaks[-1])
        """,
        path,
    )
    size, early, late = map(int, out.split())
    assert size >= 150
    assert late - early < size / 2


# Damage


def flipped(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 255
    path.write_bytes(data)


def files_of(path):
    return sorted((path / "files").iterdir())


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
            flipped(file, place)
            with pytest.raises(DamagedIndexError, match=file.name):
                Index.open(compressed_path)
            file.write_bytes(data)


def test_a_damaged_database_is_named(compressed_path):
    database = compressed_path / "index.sqlite"
    whole = database.read_bytes()
    for data in (b"", b"not a database at all, but long enough to look like one" * 100, whole[:5000]):
        database.write_bytes(data)
        with pytest.raises((DamagedIndexError, IndexNotFoundError)):
            Index.open(compressed_path)


def test_a_database_of_something_else_is_refused(path):
    path.mkdir()
    connection = sqlite3.connect(path / "index.sqlite")
    connection.execute("CREATE TABLE mine(x)")
    connection.commit()
    connection.close()
    with pytest.raises(UnsupportedIndexError, match="is an SQLite database of something else"):
        Index.open(path)
    with pytest.raises(IndexExistsError):
        Index.create(path, dim=3, overwrite=True)


def test_a_newer_format_is_refused_by_both_numbers(path, words):
    Index.create(path, words).close()
    connection = sqlite3.connect(path / "index.sqlite")
    connection.execute("PRAGMA user_version = 7")
    connection.commit()
    connection.close()
    with pytest.raises(
        UnsupportedIndexError, match="has format 7, and this version of colbert-retrievers reads up to 2; update"
    ):
        Index.open(path)


def test_a_changed_byte_anywhere_is_found_by_verify_and_search_stays_safe(compressed_path):
    """Search may find the wrong passages, or say that the index is damaged; it must not read what is not its own."""
    rng = np.random.default_rng(0)
    queries = collection(400)[2]
    for file in files_of(compressed_path):
        whole = file.read_bytes()
        header = int.from_bytes(whole[:8], "little") + 8
        for place in rng.integers(header, len(whole), size=40).tolist():
            flipped(file, place)
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


def test_codes_and_lists_that_lead_nowhere_are_a_named_error(path, monkeypatch):
    monkeypatch.setattr(store_module, "_LARGEST_ROW", 0)
    passages, vectors, queries = collection(400)
    with Index.create(path, dim=32, nbits=4) as index:
        index.add(passages, embeddings=vectors)
        index.compact()
    (file,) = (file for file in files_of(path) if b"list_windows" in file.read_bytes()[:1000])
    whole = np.frombuffer(file.read_bytes(), np.uint8)
    from colbert_core.storage.arrays import load_arrays

    for name in ("codes", "list_windows", "list_offsets", "list_centroids"):
        changed = whole.copy()
        load_arrays(changed)[name][...] = np.iinfo(load_arrays(changed)[name].dtype).max
        file.write_bytes(changed.tobytes())
        with Index.open(path) as index:
            assert not index.verify().ok
            for options in ({}, {"exact": True}, {"where": {"third": 1}}):
                try:
                    index.search(queries[0], k=20, **options)
                except DamagedIndexError as error:
                    assert "run verify" in str(error)


def test_verify_finds_passages_without_vectors_and_vectors_without_passages(path, words):
    with Index.create(path, words) as index:
        index.add(THREE)
    connection = sqlite3.connect(path / "index.sqlite")
    connection.execute("DELETE FROM passages WHERE id = 'a'")
    connection.execute("INSERT INTO passages VALUES (99, 'z', 'text', '{}')")
    connection.commit()
    connection.close()
    with Index.open(path, words) as index:
        assert index.verify().problems == ["1 passages have no vectors, and vectors of 1 have no passage"]


def test_verify_reports_how_much_is_found(compressed_path):
    with Index.open(compressed_path) as index:
        found = index.verify(n_queries=30)
    assert (found.ok, found.queries) == (True, 30)
    assert 0.9 < found.recall <= 1


# Places that cannot be written to

TINY_DISK = textwrap.dedent(
    """
    import subprocess, sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    import numpy as np
    disk = Path({disk!r})
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size={size}", "tmpfs", disk], check=True)
    from colbert_core import *
    from colbert_core.index import writing as module
    """
)


def on_a_tiny_disk(tmp_path, size, code):
    """Run code in a process that sees a small file system of its own at ``disk``."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = TINY_DISK.format(tests=str(Path(__file__).parent), disk=str(disk), size=size) + textwrap.dedent(code)
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    done = subprocess.run([*namespace, sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def can_mount():
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    try:
        return not subprocess.run(
            ["unshare", *as_root, "--mount", "mount", "-t", "tmpfs", "x", "/mnt"], capture_output=True
        ).returncode
    except OSError:  # no such programs here
        return False


needs_mount = pytest.mark.skipif(not can_mount(), reason="this machine lets no test mount a file system")


@needs_mount
def test_a_full_disk_is_a_named_error_and_the_index_is_as_before(tmp_path):
    out = on_a_tiny_disk(
        tmp_path,
        "1500k",
        """
        rng = np.random.default_rng(0)
        index = Index.create(disk / "x.idx", dim=64)
        index.add([Passage(str(i), "text", {"n": i}) for i in range(20)], embeddings=[rng.standard_normal((5, 64)) for _ in range(20)])
        query = np.ones((1, 64), np.float32)
        before = index.search(query, k=99)
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(400_000))
        for n, tokens in ((300, 40), (3, 3000), (2500, 1)):
            passages = [Passage(f"new{i}", "some text " * 50, {"n": i}) for i in range(n)]
            try:
                index.add(passages, embeddings=[rng.standard_normal((tokens, 64)) for _ in range(n)])
            except (IndexWriteError, PartialAddError) as error:
                print(type(error.__cause__ if isinstance(error, PartialAddError) else error).__name__, error)
                ballast.unlink()  # deleting needs a little room as well
                index.delete(getattr(error, "added", []))
                index.compact()
                ballast.write_bytes(bytes(400_000))
            else:
                raise AssertionError(f"{n} passages of {tokens} tokens fit")
            assert index.search(query, k=99) == before, "changed"
            assert index.verify().ok
        index.close()
        with Index.open(disk / "x.idx") as index:
            assert index.search(query, k=99) == before
            assert index.delete(["0"]) == 1
        """,
    )
    assert "could not be written" in out
    assert out.count("IndexWriteError") == 3


@needs_mount
def test_a_read_only_file_system_is_searched_and_not_changed(tmp_path):
    on_a_tiny_disk(
        tmp_path,
        "4m",
        """
        rng = np.random.default_rng(0)
        query = np.ones((1, 8), np.float32)
        with Index.create(disk / "x.idx", dim=8) as index:
            index.add([Passage(str(i), "text", {"n": i}) for i in range(20)], embeddings=[rng.standard_normal((5, 8)) for _ in range(20)])
            before = index.search(query, k=99)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with Index.open(disk / "x.idx") as index:
            assert index.search(query, k=99) == before
            assert index.search(query, k=99, where={"n": {"$lt": 3}}) != []
            assert index.verify().ok
            for write in (lambda: index.delete(["1"]), lambda: index.add([Passage("x", "x")], embeddings=[np.ones((1, 8))]), index.clear, index.compact):
                try:
                    write()
                except ReadOnlyIndexError as error:
                    assert "cannot be written to" in str(error), error
                else:
                    raise AssertionError("it was written")
            assert index.search(query, k=99) == before
        try:
            Index.create(disk / "y.idx", dim=8)
        except IndexWriteError as error:
            assert "y.idx" in str(error)
        else:
            raise AssertionError("it was made")
        """,
    )


def test_a_folder_without_permission_is_searched_and_not_changed(path, words, monkeypatch):
    """The same for a user who is not root, told by what the operating system says of the folder."""
    with Index.create(path, words) as index:
        index.add(THREE)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Index.open(path, words) as index:
        assert len(index.search("cat", k=9)) == 3
        with pytest.raises(ReadOnlyIndexError, match="cannot be written to"):
            index.delete(["a"])


# The order in which things become durable


def test_files_are_synced_before_the_commit_that_names_them(path, monkeypatch):
    """Every byte and every name reaches the disk before SQLite says that it is part of the index; SQLite syncs its own."""
    events = []
    for name in ("fsync", "rename", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *arguments, name=name, real=real: (events.append(name), real(*arguments))[1])
    sys_audit = sys.audit
    monkeypatch.setattr(
        durable.sys,
        "audit",
        lambda event, *arguments: (
            events.append(arguments[0]) if event == "colbert_core.step" else None,
            sys_audit(event, *arguments),
        ),
    )
    monkeypatch.setattr(store_module, "_LARGEST_ROW", 0)
    with Index.create(path, dim=4) as index:
        with index._store.connections.used() as connection:
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        events.clear()
        index.add([Passage("x", "x")], embeddings=[np.ones((3, 4))])
    steps = [event for event in events if event not in ("rename", "replace")]
    assert steps[: steps.index("committed") + 1] == [
        "locked",
        "file written",
        "fsync",
        "file synced",
        "file renamed",
        "fsync",  # of the folder
        "folder synced",
        "rows written",
        "committed",
    ]
    assert steps[steps.index("committed") + 1 :] == ["collected"]


# Other writers


def test_a_second_writer_waits_and_then_gets_a_named_error(path, words):
    index = Index.create(path, words)
    other = Index.open(path, words, timeout=0.2)
    with index._store.write():
        assert len(other.search("cat")) == 0  # readers do not wait
        with pytest.raises(IndexLockedError, match="Another writer has held .* for 0.2 s"):
            other.add(THREE)
    other.add(THREE)
    assert len(index) == 3


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_a_second_thread_waits_and_then_gets_a_named_error(place, path, words):
    index = Index.create(None if place == "memory" else path, words, timeout=0.1)
    held, done = threading.Event(), threading.Event()

    def hold():
        with index._store.write():
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    with pytest.raises(IndexLockedError, match="Another writer has held .* for 0.1 s"):
        index.add(THREE)
    assert index.search("cat") == []
    done.set()
    thread.join()
    index.add(THREE)
    assert len(index) == 3


def test_nothing_on_any_path_unpickles():
    root = Path(writing.__file__).parent
    for source in root.rglob("*.py"):
        text = source.read_text(encoding="utf-8")
        if (
            source.name != "compiling.py"
        ):  # machine code from where Python keeps its .pyc files; no file of an index comes there
            assert "pickle.load" not in text
            assert "import pickle" not in text
        assert "allow_pickle=True" not in text
        assert text.count("torch.load(") == text.count("weights_only=True"), source


# What a review found


def in_a_process(code, *arguments):
    """Run code in a process of its own; what it printed."""
    script = "import os, sys, threading, time\nimport numpy as np\nfrom colbert_core import *\n" + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_a_forked_child_adds_outlives_the_parent_s_closing(path):
    out = in_a_process(
        """
        index = Index.create(sys.argv[1], dim=4)
        index.add([Passage(str(n), "text") for n in range(5)], embeddings=[np.ones((1, 4))] * 5)
        index.search(np.ones((1, 4), np.float32))
        first, second = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            assert len(index) == 5
            os.write(first[1], b"x")
            os.read(second[0], 1)  # the parent has closed its own
            index.add([Passage("child", "text")], embeddings=[np.ones((1, 4))])
            assert len(index.search(np.ones((1, 4), np.float32), k=99)) == 6
            os._exit(0)
        os.read(first[0], 1)
        index.close()
        os.write(second[1], b"x")
        assert os.waitpid(child, 0)[1] == 0
        print(len(Index.open(sys.argv[1])))
        """,
        path,
    )
    assert out == "6\n"


def test_a_fork_while_threads_search_and_write_hangs_nobody(path):
    in_a_process(
        """
        index = Index.create(sys.argv[1], dim=4)
        memory = Index.create(None, dim=4)
        for each in (index, memory):
            each.add([Passage(str(n), "text") for n in range(50)], embeddings=[np.ones((1, 4))] * 50)
        stop = False
        def work(call):
            while not stop:
                call()
        query = np.ones((1, 4), np.float32)
        calls = [lambda: index.search(query), lambda: memory.search(query), lambda: index.add([Passage("x", "x")], embeddings=[query])]
        threads = [threading.Thread(target=work, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for _ in range(20):
            child = os.fork()
            if child == 0:
                for each in (index, memory):
                    try:
                        each.search(query)
                    except StorageError as error:
                        assert "was forked while another thread" in str(error), error
                assert len(Index.open(sys.argv[1]).search(query)) == 10
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        stop = True
        for thread in threads:
            thread.join()
        """,
        path,
    )


def test_an_index_in_memory_is_closed_while_threads_search(words):
    in_a_process(
        """
        for _ in range(5):
            index = Index.create(None, dim=4)
            index.add([Passage(str(n), "text", {"n": n}) for n in range(50)], embeddings=[np.ones((1, 4))] * 50)
            def search():
                try:
                    while True:
                        index.search(np.ones((1, 4), np.float32), where={"n": {"$gt": 3}})
                except ValueError as error:
                    assert "closed" in str(error), error
            threads = [threading.Thread(target=search) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(0.1)
            index.close()
            for thread in threads:
                thread.join()
        """
    )


def test_ctrl_c_at_any_moment_leaves_no_lock_behind(path):
    in_a_process(
        """
        import signal, random
        index = Index.create(sys.argv[1], dim=4, timeout=0.5)
        def interrupt(*_):
            raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, interrupt)
        moments = random.Random(0)
        for n in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, moments.uniform(0.0001, 0.006))
                until = time.monotonic() + 0.1  # Python swallows an interrupt that comes within a __del__, as of a tqdm bar
                while time.monotonic() < until:
                    index.add([Passage(str(n), "text")], embeddings=[np.ones((1, 4))])
                    index.delete([str(n)])
            except KeyboardInterrupt as error:
                kept = error  # as a notebook keeps it, with all its frames
            index.add([Passage("after", "text")], embeddings=[np.ones((1, 4))])
            assert len(index) in (1, 2)
            index.delete([str(n)])
        result = []
        thread = threading.Thread(target=lambda: result.append(index.delete(["after"])))
        thread.start()
        thread.join()
        assert result == [1] and index.verify().ok
        assert Index.open(sys.argv[1], timeout=0.5).add([Passage("z", "z")], embeddings=[np.ones((1, 4))]) == ["z"]
        """,
        path,
    )


def test_ctrl_c_at_each_line_of_the_connections_leaves_them_to_readers_and_to_the_next_write(path):
    out = in_a_process(
        """
        import linecache
        from colbert_core.storage import database as connections
        index = Index.create(sys.argv[1], dim=4, timeout=0.5)
        pool = index._store.connections
        def interrupt_at(line):
            def trace(frame, event, _):
                nonlocal line
                if frame.f_code.co_filename == connections.__file__:
                    line -= event == "line" and not linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip().startswith("with ")
                    if not line and event == "line":
                        raise KeyboardInterrupt
                    return trace
            return trace
        n = 0
        while True:
            n += 1
            try:
                sys.settrace(interrupt_at(n))
                index.add([Passage("x", "text")], embeddings=[np.ones((1, 4))])
                sys.settrace(None)
                break  # there are not so many lines
            except KeyboardInterrupt as error:
                sys.settrace(None)
                kept = error
            with pool.used() as reader:  # the one that was given back last, of the interrupted write
                index.add([Passage("after", "text")], embeddings=[np.ones((1, 4))])
                assert reader.execute("SELECT 1").fetchone() == (1,)
            assert len(index) in (1, 2)
            index.delete(["x"])
        print(n)
        """,
        path,
    )
    assert int(out) > 100


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


def test_a_reader_of_an_older_state_does_not_see_later_deletes(path, words):
    with Index.create(path, words) as index:
        index.add(THREE)
        with index._store.read() as reader:
            reader.rows()  # its transaction begins here
            index.delete(["a"])
            index.search("cat")
            state = index._versions.state(reader)
            assert [int(part.live.sum()) for part in state.snapshot.parts] == [3]


def test_closing_and_compacting_wait_for_nobody(path, words):
    index, other = Index.create(path, words), Index.open(path, words, timeout=30)
    index.add(THREE)
    started = time.monotonic()
    with index._store.write():
        other.close()
    with index._store.read() as reader:
        reader.rows()
        Index.open(path, words, timeout=30).compact()
    assert time.monotonic() - started < 20


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


def test_a_folder_that_lost_its_empty_files_folder_can_be_written_to(path, monkeypatch):
    monkeypatch.setattr(store_module, "_LARGEST_ROW", 0)
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


def test_the_working_folder_may_change(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    index = Index.create("x.idx", dim=3)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with index._store.connections.used():  # so that another connection is needed
        index.add([Passage("x", "x")], embeddings=[np.ones((1, 3))])
    assert len(index) == 1
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_database_of_something_else_is_not_touched(path):
    path.mkdir()
    connection = sqlite3.connect(path / "index.sqlite")
    connection.execute("CREATE TABLE mine(x)")
    connection.commit()
    connection.close()
    before = (path / "index.sqlite").read_bytes()
    with pytest.raises(UnsupportedIndexError):
        Index.open(path)
    assert (path / "index.sqlite").read_bytes() == before
    assert [entry.name for entry in path.iterdir()] == ["index.sqlite"]


def test_verify_names_every_file_that_is_missing_or_cut_short(compressed_path):
    with Index.open(compressed_path) as index:
        index.search(np.ones((1, 32), np.float32))
        names = [file.name for file in files_of(compressed_path)]
        for file in files_of(compressed_path):
            file.write_bytes(file.read_bytes()[:50])
        problems = index.verify().problems
    assert all(any(name in problem for problem in problems) for name in names)


def test_a_hostile_index_cannot_ask_for_code_to_be_run(path, stanford_folder):
    Index.create(path, stanford_folder).close()
    for origin in ({"name": "x/y", "trust_remote_code": True}, {"name": 3}, ["x"], "x", {"late_chunking": 1}):
        connection = sqlite3.connect(path / "index.sqlite")
        connection.execute("UPDATE about SET value = ? WHERE key = 'encoder'", (json.dumps({"name": "x", "origin": origin}),))
        connection.commit()
        connection.close()
        with Index.open(path) as index, pytest.raises(DamagedIndexError, match="what no version of this package writes"):
            index.search("cat")


def test_an_interrupt_after_the_commit_says_that_the_passages_are_in(path, words, interrupt_at):
    index = Index.create(path, words)
    with interrupt_at("collected"), pytest.raises(KeyboardInterrupt) as caught:
        index.add(THREE)
    assert caught.value.__notes__ == ["3 passages of this call are in the index, up to 'c'."]
    assert len(index) == 3


@pytest.mark.parametrize("timeout", [-1, None, "1", float("nan"), True])
def test_a_timeout_is_a_number_of_seconds(path, timeout):
    with pytest.raises(ValueError, match="timeout is a number of seconds, at least 0"):
        Index.create(path, dim=3, timeout=timeout)
    assert not path.exists()


def test_waiting_for_ever_is_allowed(path):
    with Index.create(path, dim=3, timeout=float("inf")) as index:
        assert index.add([Passage("x", "x")], embeddings=[np.ones((1, 3))]) == ["x"]


class Wrong(WordEncoder):
    answer = None

    def encode_queries(self, texts):
        return self.answer


@pytest.mark.parametrize(
    "answer",
    [
        [],
        [np.empty((0, 64), np.float32)],
        [np.full((2, 64), np.nan, np.float32)],
        [np.ones((2, 64), np.float32)],
        [np.ones((2, 8), np.float32)],
        [[[1.0] * 64]],
        [np.eye(64)],
    ],
    ids=["none", "empty", "nan", "long", "narrow", "list", "double"],
)
def test_an_encoder_whose_query_vectors_are_wrong_is_named(answer):
    encoder = Wrong()
    encoder.answer = answer
    index = Index.create(None, encoder)
    index.add(THREE)
    for call in (lambda: index.search("cat"), lambda: Reranker(encoder).rank("cat", THREE)):
        with pytest.raises(ValueError, match="The encoder's query vectors cannot be used"):
            call()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda index: index.add(THREE[0]), TypeError, r"got one Passage; write \[passage\]"),
        (lambda index: index.search("cat", ids=5), TypeError, "ids must be a list of strings, got int"),
        (lambda index: index.delete(None), TypeError, "ids must be a list of strings, got NoneType"),
        (lambda index: index.get(["\ud800"]), ValueError, "Id 0 has a lone surrogate"),
        (lambda index: index.search("cat", k=True), TypeError, "k must be a whole number of passages, got True"),
        (lambda index: index.search("cat", min_relevance=[1]), TypeError, "min_relevance is a relevance from 0 to 1"),
        (
            lambda index: index.search_diverse("cat", lambda_mult=None),
            TypeError,
            "lambda_mult is a number from 0 to 1, got None",
        ),
        (lambda index: index.search("cat", config={"nprobe": 3}), TypeError, "config must be a SearchConfig, got dict"),
        (lambda index: index.search(np.array([["a"]])), ValueError, "Query 0 must be real numbers"),
        (lambda index: index.search(np.ones((1, 64)) * 1j), ValueError, "Query 0 must be real numbers"),
        (lambda _: Index.create(None, dim=2**70), ValueError, "dim must be at most 65536"),
        (lambda _: Index.create(None, dim=2.5), TypeError, "dim must be a whole number of components"),
    ],
)
def test_mistakes_in_calls_are_named(words, call, error, message):
    index = Index.create(None, words)
    index.add(THREE)
    with pytest.raises(error, match=message):
        call(index)
    assert "\ud800" not in index
    assert len(index) == 3


def test_pooling_works_on_vectors_from_elsewhere():
    index = Index.create(None, dim=8)
    index.add([Passage("x", "x")], embeddings=[np.random.default_rng(0).standard_normal((40, 8))], pool_factor=4)
    assert index.stats().tokens == 10


def test_a_filter_of_a_delete_may_use_the_index(path, words):
    with Index.create(path, words) as index:
        index.add(THREE)
        assert index.delete_where(lambda passage: len(index.search("cat", k=9)) == 3 and passage.id != "a") == 2
        assert index.ids() == ["a"]
        assert index.ids({"n": 7}) == []
