"""Passages, as many at a time as one commit takes."""

from __future__ import annotations

import pytest

from colbert_core import Passage
from colbert_core.index import batches
from colbert_core.index.batches import batched, dump_all


def sizes(texts):
    return [len(batch) for batch in batched(Passage(str(number), text) for number, text in enumerate(texts))]


def test_a_batch_ends_at_so_many_passages(monkeypatch):
    monkeypatch.setattr(batches, "_BATCH_PASSAGES", 3)
    assert sizes(["x"] * 7) == [3, 3, 1]
    assert sizes(["x"] * 3) == [3]
    assert sizes([]) == []


def test_a_batch_ends_at_so_many_characters(monkeypatch):
    monkeypatch.setattr(batches, "_BATCH_CHARACTERS", 10)
    assert sizes(["x" * 4, "x" * 5, "x", "x" * 30, "x"]) == [3, 1, 1]


def test_what_is_no_passage_is_refused_when_it_comes():
    stream = batched(iter([Passage("a", "x"), "b"]))
    with pytest.raises(TypeError, match="is a str, not a Passage"):
        list(stream)


def test_metadata_are_json_that_names_the_passage_when_they_are_not():
    assert dump_all([Passage("a", "x", {"n": 1}), Passage("b", "y")]) == ['{"n": 1}', "{}"]
    with pytest.raises(TypeError, match="Metadata of passage 'a'"):
        dump_all([Passage("a", "x", {"n": object()})])
