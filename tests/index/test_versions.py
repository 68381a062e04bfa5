"""The newest moment of an index, mapped once and shared by all reads."""

from __future__ import annotations

import pytest

from colbert_core import Index, IndexLockedError, Passage, StorageError
from colbert_core.storage.changes import StaleRead


@pytest.fixture
def index(create, words):
    made = create(words)
    made.add([Passage("a", "cat sat"), Passage("b", "dog ran")])
    return made


def state_of(index):
    return index._versions.read(lambda view: view.state)


def test_reads_of_one_generation_share_one_state(index):
    assert state_of(index) is state_of(index)
    before = state_of(index)
    index.add([Passage("c", "cow")])
    assert state_of(index) is not before
    assert state_of(index).generation == before.generation + 1


def test_segments_that_a_write_left_alone_are_not_mapped_again(index):
    (segment,) = (part.segment for part in state_of(index).snapshot.parts)
    index.delete(["a"])  # half of its tokens are live, so it stays
    assert [part.segment for part in state_of(index).snapshot.parts] == [segment]


def test_what_was_overtaken_by_a_writer_is_read_again(index):
    tries = []

    def work(view):
        tries.append(view)
        if len(tries) < 3:
            raise StaleRead("a file")
        return view.reader.count()

    assert index._versions.read(work) == 2
    assert len(tries) == 3


def test_a_read_that_is_overtaken_again_and_again_is_an_error(index):
    def work(view):
        raise StaleRead("a file")

    with pytest.raises(IndexLockedError, match="changed 100 times while it was read"):
        index._versions.read(work)


def test_an_older_transaction_sees_its_own_generation(tmp_path, words):
    index = Index.create(tmp_path / "index", words)
    index.add([Passage("a", "cat sat"), Passage("b", "dog ran")])
    with index._store.read() as reader:
        reader.count()  # its transaction begins here
        index.delete(["a"])
        assert state_of(index).live_tokens() == 2
        assert index._versions.state(reader).live_tokens() == 4
    assert state_of(index).live_tokens() == 2


def test_an_index_that_was_overwritten_is_another_one(tmp_path, words):
    index = Index.create(tmp_path / "index", words)
    Index.create(tmp_path / "index", words, overwrite=True)
    with pytest.raises(StorageError, match=r"The index .* was overwritten with a new one; open it again"):
        state_of(index)


def test_a_closed_index_lets_go_of_its_segments(index):
    state_of(index)
    index.close()
    assert index._versions._newest is None
