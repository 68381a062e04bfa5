"""A compressed index that several files of tests search."""

from __future__ import annotations

import pytest
from builders.vectors import collection

from colbert_core import Index


@pytest.fixture(scope="module")
def compressed():
    passages, vectors, queries = collection(1500)
    index = Index.create(None, dim=32, nbits=4)
    index.add(passages, embeddings=vectors)
    index.compact()
    assert index.stats().centroids > 0
    return index, passages, vectors, queries


@pytest.fixture(params=["memory", "disk"])
def create(request, tmp_path):
    """Makes an empty index; every test that uses it runs in memory and on disk."""
    numbers = iter(range(100))
    return lambda encoder: Index.create(None if request.param == "memory" else tmp_path / f"{next(numbers)}.idx", encoder)
