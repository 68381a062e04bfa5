"""Indexes on disk for the tests of this folder."""

from __future__ import annotations

import pytest
from builders.vectors import collection

import colbert_core.storage.files as files_module
from colbert_core import (
    Index,
    Passage,
)
from colbert_core.index import writing


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.idx"


@pytest.fixture
def compressed_path(path, monkeypatch):
    """A compressed index on disk, closed, with files and with rows of vectors."""
    monkeypatch.setattr(writing, "FIRST_FIT", 2000)
    monkeypatch.setattr(files_module, "_LARGEST_ROW", 2**12)
    passages, vectors, _ = collection(400)
    with Index.create(path, dim=32, nbits=4) as index:
        index.add(passages, embeddings=vectors)
        index.add([Passage("late", "late")], embeddings=[vectors[0]])
    return path
