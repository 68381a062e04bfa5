"""What verify finds in vectors that do not fit together. Damaged files are in tests/storage."""

from __future__ import annotations

import numpy as np
import pytest

from colbert_core import Index, Passage
from colbert_core.index.verification import find_misfits
from colbert_core.vectors.codec import ResidualCodec
from colbert_core.vectors.inverted_lists import InvertedLists
from colbert_core.vectors.segment import Segment
from colbert_core.vectors.snapshot import Part, Snapshot

DOCLENS = np.array([1, 2], np.int32)


def windows(pids):
    return {"pids": np.array(pids, np.int64), "spans": np.zeros((2, 2), np.int32), "doclens": DOCLENS}


def plain(pids, vectors=None):
    return Part.whole(Segment(**windows(pids), vectors=np.eye(3, 4, dtype=np.float32) if vectors is None else vectors))


def misfits(*parts, pids=(1, 2), codec=None):
    return find_misfits(Snapshot(parts, codec), np.array(pids, np.int64))


def test_what_fits_together_has_no_problems():
    assert misfits(plain([1, 2])) == []
    assert misfits(pids=()) == []


def test_passages_without_vectors_and_vectors_without_a_passage_are_counted():
    assert misfits(plain([1, 4]), pids=(1, 2, 3)) == ["2 passages have no vectors, and vectors of 1 have no passage"]


def test_dead_windows_do_not_count():
    part = plain([1, 2])
    assert misfits(Part(part.segment, np.array([True, False])), pids=(1,)) == []


def test_a_passage_in_two_segments_is_a_problem():
    assert misfits(plain([1, 2]), plain([2, 3]), pids=(1, 2, 3)) == ["The vectors of 1 passages lie in several segments"]


def test_a_vector_that_is_not_finite_is_a_problem():
    vectors = np.eye(3, 4, dtype=np.float32)
    vectors[1, 0] = np.nan
    assert misfits(plain([1, 2], vectors)) == ["Segment 0 is damaged: a vector is not finite or not of length 1 (squared nan)"]


@pytest.mark.parametrize(
    ("codes", "listed", "problem"),
    [
        ([0, 1, 2], [0, 1, 1], "Segment 0 is damaged: a code is 2, but there are 2 centroids"),
        ([0, 1, 1], [0, 1, 5], "Segment 0 is damaged: a list names window 5 of 2"),
    ],
)
def test_codes_and_lists_that_lead_nowhere_are_problems(codes, listed, problem):
    codec = ResidualCodec(np.eye(2, 4, dtype=np.float32), np.array([-0.1, 0.1], np.float32))
    lists = InvertedLists(np.array([0, 1], np.uint16), np.array([0, 1, 3]), np.array(listed, np.int32))
    residuals = np.zeros((3, 1), np.uint8)
    segment = Segment(**windows([1, 2]), codes=np.array(codes, np.uint16), residuals=residuals, lists=lists)
    assert problem in misfits(Part.whole(segment), codec=codec)


def test_the_recall_is_that_of_the_queries_that_were_asked_for(words):
    index = Index.create(None, words)
    index.add([Passage(str(n), f"passage {n}") for n in range(30)])
    found = index.verify(n_queries=7)
    assert (found.ok, found.recall, found.queries) == (True, 1.0, 7)
