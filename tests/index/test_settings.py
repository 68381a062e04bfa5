"""What an index is made and opened with."""

from __future__ import annotations

import pickle
import sqlite3

import numpy as np
import pytest
from builders.grown import found

from colbert_core import Index, Passage

FORTY = [np.random.default_rng(0).standard_normal((40, 8))]


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


def test_what_is_added_keeps_as_many_vectors_as_the_index_says_or_fewer(tmp_path):
    with Index.create(tmp_path / "x", dim=8, pool_factor=2) as index:
        assert index.stats().pool_factor == 2
        for factor, kept in ((1, 20), (2, 20), (4, 10)):
            (name,) = index.add([Passage("a", "a")], embeddings=FORTY, pool_factor=factor)
            assert len(index.embeddings([name])[0]) == kept
        index.add([Passage("a", "a")], embeddings=FORTY)
        assert index.stats().tokens == 20


def test_a_pool_factor_stays_with_the_index_and_its_copies(tmp_path):
    with Index.create(tmp_path / "x", dim=8, pool_factor=2) as index:
        index.save(tmp_path / "copy")
        index.clear()
        copies = [Index.open(tmp_path / "x"), Index.open(tmp_path / "copy"), pickle.loads(pickle.dumps(index))]
    copies.append(pickle.loads(pickle.dumps(Index.create(None, dim=8, pool_factor=2))))
    for copy in copies:
        copy.add([Passage("a", "a")], embeddings=FORTY)
        assert (copy.stats().tokens, copy.stats().pool_factor) == (20, 2)
        copy.close()
    with Index.create(tmp_path / "x", dim=8, overwrite=True) as index:
        assert index.stats().pool_factor == 1


def test_an_index_made_before_there_were_pool_factors_keeps_all_vectors(tmp_path):
    Index.create(tmp_path / "x", dim=8, pool_factor=2).close()
    connection = sqlite3.connect(tmp_path / "x" / "index.sqlite")
    connection.executescript("DELETE FROM about WHERE key = 'pool_factor'")
    connection.close()
    with Index.open(tmp_path / "x") as index:
        index.add([Passage("a", "a")], embeddings=FORTY)
        assert (index.stats().tokens, index.stats().pool_factor) == (40, 1)


@pytest.mark.parametrize(
    ("factor", "error", "message"),
    [
        (0.5, ValueError, "pool_factor must be at least 1 .* got 0.5"),
        (float("nan"), ValueError, "got nan"),
        (float("inf"), ValueError, "got inf"),
        ("2", TypeError, "pool_factor must be a number, got '2'"),
        (None, TypeError, "got None"),
        (True, TypeError, "got True"),
    ],
)
def test_an_index_with_a_pool_factor_that_makes_no_sense_is_not_made(tmp_path, factor, error, message):
    with pytest.raises(error, match=message):
        Index.create(tmp_path / "x", dim=8, pool_factor=factor)
    assert not (tmp_path / "x").exists()
