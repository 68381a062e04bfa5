"""Which passages may be found: filters and ids, compiled for a reader."""

from __future__ import annotations

import pickle

import pytest

from colbert_core import Index, Passage
from colbert_core.index.restriction import Restriction


@pytest.fixture
def pids(words):
    """The pids that a restriction allows, in an index of three passages."""
    index = Index.create(None, words)
    index.add([Passage("a", "cat", {"n": 1}), Passage("b", "dog", {"n": 2}), Passage("c", "cow", {"n": 3})])

    def allowed(restriction):
        return index._versions.read(lambda view: view.pids, restriction)

    return allowed


def test_neither_a_filter_nor_ids_allow_everything(pids):
    assert pids(Restriction()) is None
    assert pids(None) is None


def test_an_empty_list_of_ids_allows_nothing(pids):
    assert pids(Restriction(ids=[])).tolist() == []


def test_ids_give_ascending_pids_once_each_and_unknown_ids_none(pids):
    assert pids(Restriction(ids=["c", "a", "c", "z"])).tolist() == [1, 3]


def test_a_filter_and_ids_must_both_allow_a_passage(pids):
    assert pids(Restriction({"n": {"$gte": 2}}, ["a", "b"])).tolist() == [2]
    assert pids(Restriction(lambda passage: passage.metadata["n"] != 2, ["b", "c"])).tolist() == [3]


def test_a_wrong_filter_is_refused_when_the_restriction_is_made():
    with pytest.raises(ValueError, match=r"\$near"):
        Restriction({"n": {"$near": 2}})
    with pytest.raises(TypeError, match="ids must be a list of strings, got one str"):
        Restriction(ids="a")


def test_a_filter_that_is_a_coroutine_function_is_refused(pids):
    async def is_odd(passage):
        return passage.metadata["n"] % 2 == 1

    with pytest.raises(TypeError, match="coroutine function"):
        pids(Restriction(is_odd))


def test_what_a_shard_is_sent_can_be_pickled():
    restriction = Restriction({"n": 1}, ["a", "a"])
    assert pickle.loads(pickle.dumps((restriction.where, restriction.ids))) == ({"n": 1}, ["a"])
