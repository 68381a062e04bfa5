"""What an index is made and opened with."""

from __future__ import annotations

import pickle

import pytest
from builders.grown import found

from colbert_core import Index, Passage


def test_an_index_scores_where_it_is_told_to(tmp_path, grown):
    """On PyTorch's CPU here; a GPU takes the same way."""
    index, queries = grown
    index.save(tmp_path / "copy")
    with Index.open(tmp_path / "copy", device="cpu") as elsewhere:
        assert found(elsewhere, queries) == found(index, queries, exact=True)
    with Index.create(None, dim=32, device="cpu") as small:
        small.add([Passage("a", "a"), Passage("b", "b")], embeddings=[queries[0], queries[1]])
        assert [hit.passage.id for hit in small.search(queries[1])] == ["b", "a"]


def test_a_device_that_is_not_there_is_refused_when_the_index_is_opened(tmp_path):
    Index.create(tmp_path / "x", dim=4).close()
    with pytest.raises(ValueError, match="device"):
        Index.open(tmp_path / "x", device="abacus")
    with pytest.raises(ValueError, match="device"):
        Index.create(tmp_path / "y", dim=4, device="abacus")
    assert not (tmp_path / "y").exists()


def test_a_copy_keeps_its_device(grown):
    _, queries = grown
    index = Index.create(None, dim=32, device="cpu")
    index.add([Passage("a", "a")], embeddings=[queries[0]])
    assert pickle.loads(pickle.dumps(index))._versions.device == "cpu"
