"""Folders kept in step with an index: what is read, what stays, and what is named."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys

import pytest
from builders.encoders import WordEncoder

from colbert_core import Index, Passage, sync
from colbert_core.folders import syncing


@pytest.fixture
def docs(tmp_path):
    write(tmp_path / "docs", {"cats.md": "# Cats\n\nThe cat sat.", "deep/rust.txt": "Rust is a language.", "r.jsonl": RECORDS})
    return tmp_path / "docs"


RECORDS = '{"id": "x", "text": "the dog"}\n{"text": "a bird"}\n'


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text) if isinstance(text, bytes) else (folder / name).write_text(text)


def content(index):
    """What an index holds, without the times of files."""
    return {
        passage.id: (passage.text, {key: value for key, value in passage.metadata.items() if key != "mtime"})
        for passage in index.get(index.ids())
    }


class NoEncoder:
    """Fails if something is encoded."""

    def __init__(self, encoder):
        self._encoder = encoder

    def __getattr__(self, name):
        if name == "encode_passages":
            raise AssertionError("nothing is to be encoded")
        return getattr(self._encoder, name)


def test_as_few_vectors_of_files_are_kept_as_the_index_says(docs, stanford):
    whole, pooled, added = (Index.create(None, stanford, pool_factor=factor) for factor in (1, 2, 1))
    sync(docs, whole)
    sync(docs, pooled)
    added.add(whole.get(whole.ids()), pool_factor=2)
    assert pooled.stats().tokens == added.stats().tokens < whole.stats().tokens


def test_passages_are_named_by_the_folder_and_begin_with_where_they_are_from(docs, stanford):
    index = Index.create(None, stanford)
    report = sync(docs, index)
    assert report.added == ["docs/cats.md", "docs/deep/rust.txt", "docs/r.jsonl"]
    assert (report.read, report.n_passages, report.problems) == ({".md": 1, ".txt": 1, ".jsonl": 1}, 4, [])
    cats, rust, dog, bird = (index.get([name])[0] for name in ("docs/cats.md#1", "docs/deep/rust.txt#1", "x", "docs/r.jsonl#2"))
    assert cats.text == "cats.md\n\n# Cats\n\nThe cat sat."
    assert rust.text == "rust.txt\n\nRust is a language."
    assert cats.metadata.pop("mtime").endswith("+00:00")
    assert cats.metadata == {
        "source": "docs/cats.md",
        "piece": 1,
        "title": "Cats",
        "document_id": "docs/cats.md",
        "start": 0,
        "end": 20,
        "path": str(docs / "cats.md"),
    }
    assert (dog.text, dog.metadata) == ("the dog", {"source": "docs/r.jsonl"})
    assert bird.text == "a bird"


def test_only_what_has_changed_is_read(docs, stanford):
    index = Index.create(None, stanford)
    sync(docs, index)
    index._encoder._loaded = NoEncoder(stanford) if hasattr(index._encoder, "_loaded") else None
    report = sync(docs, index)
    assert (report.unchanged, report.read, report.added, report.changed) == (3, {}, [], [])
    os.utime(docs / "cats.md", (1, 1))  # another time, the same content
    assert sync(docs, index).unchanged == 3


def test_changed_and_gone_files_give_way(docs, stanford):
    index = Index.create(None, stanford)
    index.add([Passage("mine", "the cat")])
    sync(docs, index)
    write(docs, {"cats.md": "Cats purr.", "new.txt": "A fox."})
    (docs / "deep/rust.txt").unlink()
    foreseen = sync(docs, index, dry_run=True)
    report = sync(docs, index)
    assert (report.added, report.changed, report.removed) == (["docs/new.txt"], ["docs/cats.md"], ["docs/deep/rust.txt"])
    assert (foreseen.added, foreseen.changed, foreseen.removed) == (report.added, report.changed, report.removed)
    assert sorted(index.ids()) == ["docs/cats.md#1", "docs/new.txt#1", "docs/r.jsonl#2", "mine", "x"]
    assert index.verify().ok


def test_records_that_a_file_no_longer_has_are_gone(docs, stanford):
    index = Index.create(None, stanford)
    sync(docs, index)
    write(docs, {"r.jsonl": '{"id": "y", "text": "the dog"}\n'})
    sync(docs, index)
    assert sorted(index.ids()) == ["docs/cats.md#1", "docs/deep/rust.txt#1", "y"]


def test_a_folder_has_the_same_names_however_it_is_written(docs, stanford, tmp_path, monkeypatch):
    index = Index.create(None, stanford)
    sync(docs, index)
    before = content(index)
    monkeypatch.chdir(docs / "deep")
    (tmp_path / "link").symlink_to(docs)
    for written in ("..", "../../docs", str(tmp_path / "link"), "../../docs/deep", "rust.txt"):
        report = sync(written, index)
        assert (report.added, report.changed, report.removed, report.read) == ([], [], [], {})
        assert content(index) == before


def test_a_folder_that_has_moved_is_not_read_again_and_its_namesake_is_refused(docs, stanford, tmp_path):
    index = Index.create(None, stanford)
    sync(docs, index)
    write(tmp_path / "other/docs", {"cats.md": "Cats purr."})
    with pytest.raises(ValueError, match=r"The index has a folder named 'docs' already, .*docs, and ids begin with that name"):
        sync(tmp_path / "other/docs", index)
    with pytest.raises(ValueError, match="would both be named 'docs'"):
        sync([docs, tmp_path / "other/docs"], Index.create(None, stanford))
    docs.rename(tmp_path / "gone")
    (tmp_path / "far").mkdir()
    (tmp_path / "gone").rename(tmp_path / "far/docs")
    report = sync(tmp_path / "far/docs", index)
    assert (report.unchanged, report.read, report.removed) == (3, {}, [])


def test_a_file_given_alone_keeps_its_name_when_its_folder_follows(docs, stanford):
    index = Index.create(None, stanford)
    sync(docs / "cats.md", index)
    assert index.ids() == ["cats.md#1"]
    sync(docs, index)
    assert sorted(index.ids()) == ["cats.md#1", "docs/deep/rust.txt#1", "docs/r.jsonl#2", "x"]


def test_a_file_that_cannot_be_read_is_named_and_stops_nothing(docs, stanford):
    index = Index.create(None, stanford)
    write(docs, {"bad.jsonl": '{"text": "x"}\n{"text": ', "picture.png": b"\x89PNG\0", "empty.txt": " \n"})
    with pytest.raises(ValueError, match=r"bad.jsonl, line 2 is no JSON: .* Nothing was changed."):
        sync(docs, index, strict=True)
    assert len(index) == 0
    report = sync(docs, index)
    assert len(index) == 4
    assert [(problem.name, problem.kind, problem.is_failure) for problem in report.problems] == [
        ("docs/bad.jsonl", "invalid", True),
        ("docs/empty.txt", "empty", False),
        ("docs/picture.png", "binary", False),
    ]
    assert not report.is_complete
    again = sync(docs, index)
    assert (again.unchanged, [problem.name for problem in again.problems]) == (6, [each.name for each in report.problems])
    write(docs, {"new.txt": "A fox."})
    with pytest.raises(ValueError, match="bad.jsonl, line 2 is no JSON"):  # as before, but still not readable
        sync(docs, index, strict=True)
    assert len(index) == 4
    write(docs, {"bad.jsonl": '{"text": "x"}\n'})
    (docs / "new.txt").unlink()
    assert sync(docs, index).is_complete
    assert len(index) == 5


def test_a_file_that_breaks_keeps_its_passages_and_one_that_empties_loses_them(docs, stanford):
    index = Index.create(None, stanford)
    sync(docs, index)
    write(docs, {"r.jsonl": '{"text": ', "cats.md": ""})
    for _ in range(2):
        report = sync(docs, index)
        assert [problem.name for problem in report.problems] == ["docs/cats.md", "docs/r.jsonl"] or report.unchanged
        assert sorted(index.ids()) == ["docs/deep/rust.txt#1", "docs/r.jsonl#2", "x"]
    write(docs, {"r.jsonl": '{"id": "z", "text": "a"}'})
    sync(docs, index)
    assert sorted(index.ids()) == ["docs/deep/rust.txt#1", "z"]


def test_an_id_of_two_files_is_named_and_the_first_one_keeps_it(docs, stanford):
    write(docs, {"s.jsonl": '{"id": "x", "text": "another"}', "t.jsonl": '{"id": "q", "text": "a"}\n{"id": "q", "text": "b"}'})
    index = Index.create(None, stanford)
    report = sync(docs, index)
    assert [problem.message for problem in report.problems] == [
        "docs/s.jsonl has the id 'x', which is also in docs/r.jsonl; give each its own.",
        "docs/t.jsonl has the id 'q' twice; give each its own.",
    ]
    assert index.get(["x"])[0].text == "the dog"
    (docs / "r.jsonl").unlink()
    sync(docs, index)  # the id is free by now
    assert index.get(["x"])[0].text == "another"


def test_what_is_hidden_ignored_or_left_out_is_counted(tmp_path, stanford):
    write(
        tmp_path / "docs",
        {
            ".git/config": "x",
            ".hidden.txt": "x",
            ".gitignore": "*.log\nbuild/\n!keep.log\n",
            "a.log": "x",
            "keep.log": "kept",
            "build/out.txt": "x",
            "sub/.gitignore": "/local.txt\n",
            "sub/local.txt": "x",
            "sub/deep/local.txt": "kept as well",
            "sub/note.md": "kept too",
        },
    )
    index = Index.create(None, stanford)
    report = sync(tmp_path / "docs", index)
    assert report.added == ["docs/keep.log", "docs/sub/deep/local.txt", "docs/sub/note.md"]
    assert report.ignored == {"hidden": 4, ".gitignore": 3}
    report = sync(tmp_path / "docs", index, exclude=["deep/"])
    assert (report.removed, report.ignored["by pattern"]) == (["docs/sub/deep/local.txt"], 1)
    report = sync(tmp_path / "docs", index, include="*.md")
    assert (report.removed, report.unchanged) == (["docs/keep.log"], 1)
    assert sync(tmp_path / "docs/sub/deep", index).added == ["docs/sub/deep/local.txt"]


def test_an_empty_or_missing_folder_takes_nothing_away(docs, stanford, tmp_path):
    index = Index.create(None, stanford)
    sync(docs, index)
    with pytest.raises(ValueError, match="There is no file or folder .*nowhere"):
        sync(tmp_path / "nowhere", index)
    with pytest.raises(ValueError, match="has no file to read, and the index has 3 from there: is a drive not mounted"):
        sync(docs, index, include=["*.pdf"])
    assert len(index) == 4


def test_passages_deleted_by_hand_come_back(docs, stanford):
    index = Index.create(None, stanford)
    sync(docs, index)
    before = content(index)
    index.delete(["x"])
    assert sync(docs, index).changed == ["docs/r.jsonl"]
    index.clear()
    assert sync(docs, index).n_passages == 4
    assert content(index) == before


def test_pieces_of_another_size_are_cut_anew_and_the_size_is_kept(docs, stanford):
    index = Index.create(None, stanford)
    write(docs, {"cats.md": "The cat sat on a mat. " * 6})
    sync(docs, index)
    n_before = len(index)
    assert sync(docs, index, piece_tokens=4).changed == ["docs/cats.md", "docs/deep/rust.txt", "docs/r.jsonl"]
    assert len(index) > n_before
    assert sync(docs, index).unchanged == 3
    write(docs, {"new.txt": "The cat sat on a mat. " * 6})
    assert sync(docs, index).n_passages > 3


def test_a_large_file_of_records_is_in_as_a_whole_or_in_its_old_state(docs, stanford, monkeypatch):
    monkeypatch.setattr(syncing, "_LARGEST_WHOLE", 100)
    monkeypatch.setattr(syncing, "_MOST_PASSAGES", 3)
    index = Index.create(None, stanford)
    lines = [json.dumps({"id": f"r{n}", "text": "the cat"}) for n in range(10)]
    write(docs, {"big.jsonl": "\n".join(lines)})
    assert sync(docs, index).n_passages == 14
    write(docs, {"big.jsonl": "\n".join([*lines[:7], '{"text": '])})
    assert not sync(docs, index).is_complete
    assert len(index) == 14
    write(docs, {"big.jsonl": "\n".join(lines[2:9])})
    assert sync(docs, index).changed == ["docs/big.jsonl"]
    assert {name for name in index.ids() if name.startswith("r")} == {f"r{n}" for n in range(2, 9)}
    assert sync(docs, index).unchanged == 4


@pytest.mark.parametrize("seed", range(6))
def test_after_any_changes_the_index_is_as_one_made_anew(tmp_path, stanford, seed):
    numbers, docs = random.Random(seed), tmp_path / "docs"
    index = Index.create(tmp_path / "x.idx", stanford)
    words = ["cat", "dog", "rust", "mat", "# Heading", "\n\n", "purr"]
    for _ in range(12):
        for _ in range(numbers.randrange(1, 4)):
            name = numbers.choice(["a.md", "b.txt", "d/c.md", "d/e.jsonl", "f"])
            if numbers.random() < 0.3 and (docs / name).exists():
                (docs / name).unlink()
            elif name.endswith("jsonl"):
                write(docs, {name: "\n".join(f'{{"id": "i{numbers.randrange(6)}{n}", "text": "cat"}}' for n in range(3))})
            else:
                write(docs, {name: " ".join(numbers.choices(words, k=numbers.randrange(40)))})
        write(docs, {"always.txt": "here"})
        sync(docs, index)
        anew = Index.create(None, stanford)
        sync(docs, anew)
        assert content(index) == content(anew)
    assert index.verify().ok


KILLED = """
import os, signal, sys
from colbert_core import Encoder, Index, sync
from colbert_core.folders import syncing
syncing._MOST_PASSAGES, put, left = 2, Index._put_files, [int(sys.argv[1])]
def dying(self, *arguments):
    put(self, *arguments)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
Index._put_files = dying
with Index.open(sys.argv[2]) as index:
    sync(sys.argv[3], index)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal on Windows")
@pytest.mark.parametrize("n_commits", [1, 3])
def test_a_killed_run_goes_on_and_ends_as_an_undisturbed_one(docs, stanford, stanford_folder, tmp_path, n_commits):
    write(docs, {f"n{number}.txt": f"cat {number}" for number in range(9)})
    Index.create(tmp_path / "x.idx", str(stanford_folder)).close()
    arguments = [sys.executable, "-c", KILLED, str(n_commits), str(tmp_path / "x.idx"), str(docs)]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    with Index.open(tmp_path / "x.idx", stanford) as index:
        assert 0 < len(index) < 13
        report = sync(docs, index)
        assert report.unchanged > 0
        anew = Index.create(None, stanford)
        sync(docs, anew)
        assert content(index) == content(anew)
        assert index.verify().ok


def test_a_file_that_has_moved_is_not_encoded_again(docs, stanford):
    index = Index.create(None, stanford)
    write(docs, {"a/r.jsonl": '{"id": "y", "text": "the dog"}\n{"text": "a bird"}\n', "twin.txt": "Rust is a language."})
    sync(docs, index)
    before = content(index)
    vectors = dict(zip(before, index.embeddings(before), strict=True))
    (docs / "deep").rename(docs / "far")
    (docs / "a").rename(docs / "b")
    (docs / "twin.txt").rename(docs / "brother.txt")  # another name stands in the passage, so it is encoded
    assert sync(docs, index, dry_run=True).moved == {
        "docs/a/r.jsonl": "docs/b/r.jsonl",
        "docs/deep/rust.txt": "docs/far/rust.txt",
    }
    report = sync(docs, index)
    assert report.moved == {"docs/a/r.jsonl": "docs/b/r.jsonl", "docs/deep/rust.txt": "docs/far/rust.txt"}
    assert (report.added, report.removed, report.read) == (["docs/brother.txt"], ["docs/twin.txt"], {".txt": 1})
    anew = Index.create(None, stanford)
    sync(docs, anew)
    assert content(index) == content(anew)
    for new, old in {"docs/far/rust.txt#1": "docs/deep/rust.txt#1", "docs/b/r.jsonl#2": "docs/a/r.jsonl#2", "y": "y"}.items():
        assert (index.embeddings([new])[0] == vectors[old]).all()
        assert content(index)[new][0] == before[old][0]
    assert index.verify().ok
    assert sync(docs, index).unchanged == 5


def test_files_that_change_places_are_as_in_an_index_made_anew(docs, stanford):
    write(docs, {"a/x.txt": "the cat", "b/x.txt": "a dog!!"})
    index = Index.create(None, stanford)
    sync(docs, index)
    (docs / "a").rename(docs / "c")
    (docs / "b").rename(docs / "a")
    sync(docs, index)
    anew = Index.create(None, stanford)
    sync(docs, anew)
    assert content(index) == content(anew)
    assert sync(docs, index).unchanged == 5


def test_an_encoder_that_cannot_split_is_an_error_and_not_one_of_each_file(docs):
    index = Index.create(None, WordEncoder())
    with pytest.raises(TypeError, match="cannot split files; add passages with Index.add"):
        sync(docs, index)
    assert index._sources() == []


def test_a_time_that_dates_have_not_stops_nothing(docs, stanford):
    os.utime(docs / "cats.md", ns=(0, 300_000_000_000 * 10**9))  # the year 11476
    index = Index.create(None, stanford)
    assert sync(docs, index).n_passages == 4
    assert "mtime" not in index.get(["docs/cats.md#1"])[0].metadata
    assert sync(docs, index).unchanged == 3


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_be_read_by_now_is_read(docs, stanford):
    (docs / "cats.md").chmod(0)
    index = Index.create(None, stanford)
    assert [problem.kind for problem in sync(docs, index).problems] == ["unreadable"]
    (docs / "cats.md").chmod(0o600)  # which changes neither its size nor its time
    assert sync(docs, index).added == ["docs/cats.md"]


def test_an_id_that_a_large_file_has_twice_changes_nothing(docs, stanford, monkeypatch):
    monkeypatch.setattr(syncing, "_LARGEST_WHOLE", 100)
    monkeypatch.setattr(syncing, "_MOST_PASSAGES", 3)
    lines = [json.dumps({"id": f"r{n}", "text": "the cat"}) for n in range(10)]
    write(docs, {"big.jsonl": "\n".join(lines)})
    index = Index.create(None, stanford)
    sync(docs, index)
    before = content(index)
    write(docs, {"big.jsonl": "\n".join([*lines[:4], '{"id": "new", "text": "a"}', *lines[5:], lines[0]])})
    report = sync(docs, index)
    assert [problem.message for problem in report.problems] == ["docs/big.jsonl has the id 'r0' twice; give each its own."]
    assert content(index) == before
