"""What an index holds at one moment, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from colbert_core import TokenEmbeddings
from colbert_core.vectors.segment import Segment
from colbert_core.vectors.snapshot import Part, Snapshot, as_snapshot, vectors_of

SEGMENT = Segment(
    np.array([4, 4, 9]),
    np.array([(0, 3), (4, 9), (0, 5)], np.int32),
    np.array([1, 2, 1], np.int32),
    vectors=np.array([(0, 1), (1, 0), (0, -1), (-1, 0)], np.float32),
)


def test_a_passage_counts_while_one_of_its_windows_is_live():
    assert Part.whole(SEGMENT).n_passages == 2
    assert Part(SEGMENT, np.array([False, True, False])).n_passages == 1
    assert Part(SEGMENT, np.zeros(3, np.bool_)).n_passages == 0


def test_the_vectors_of_a_passage_are_those_of_its_windows_or_of_one():
    snapshot = Snapshot((Part.whole(SEGMENT),))
    assert vectors_of(snapshot, 4).tolist() == [[0, 1], [1, 0], [0, -1]]
    assert vectors_of(snapshot, 4, (4, 9)).tolist() == [[1, 0], [0, -1]]


def test_a_dead_or_unknown_passage_has_no_vectors():
    snapshot = Snapshot((Part(SEGMENT, np.array([True, True, False])),))
    for pid in (9, 5):
        with pytest.raises(KeyError):
            vectors_of(snapshot, pid)


def test_embeddings_are_searched_by_the_number_of_their_text():
    one, two = np.array([1], np.int32), np.array([[0, 1]], np.int32)
    embeddings = TokenEmbeddings(np.eye(1, 2, dtype=np.float32), two, one, two, np.array([0], np.int32))
    assert vectors_of(as_snapshot(embeddings), 0).tolist() == [[1, 0]]
