"""What a transaction reads and writes, and in which order its writes become durable."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys

import numpy as np
import pytest
from builders.indexes import THREE
from builders.vectors import collection

import colbert_core.storage.files as files_module
from colbert_core import (
    Index,
    Passage,
)
from colbert_core.storage import durable


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
    with contextlib.closing(sqlite3.connect(compressed_path / "index.sqlite")) as connection:
        named = {name for (name,) in connection.execute("SELECT name FROM files WHERE data IS NULL")}
    assert {file.name for file in (compressed_path / "files").iterdir()} == named


def test_verify_finds_passages_without_vectors_and_vectors_without_passages(path, words):
    with Index.create(path, words) as index:
        index.add(THREE)
    connection = sqlite3.connect(path / "index.sqlite")
    connection.execute("DELETE FROM passages WHERE id = 'a'")
    connection.execute("INSERT INTO passages VALUES (99, 'z', 'text', '{}')")
    connection.commit()
    connection.close()
    with Index.open(path, words) as index:
        assert index.verify().problems == [
            "1 passages have no vectors, and vectors of 1 have no passage",
            "Passage 'z' (row 99) has no checksum",
        ]


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
    monkeypatch.setattr(files_module, "_LARGEST_ROW", 0)
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


def test_a_reader_of_an_older_state_does_not_see_later_deletes(path, words):
    with Index.create(path, words) as index:
        index.add(THREE)
        with index._store.read() as reader:
            reader.rows()  # its transaction begins here
            index.delete(["a"])
            index.search("cat")
            state = index._versions.state(reader)
            assert [int(part.live.sum()) for part in state.snapshot.parts] == [3]
