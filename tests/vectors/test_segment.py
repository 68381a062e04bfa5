"""Segments: windows and their vectors as they lie in a file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from colbert_core.vectors.segment import Segment, merged_arrays


def test_a_file_whose_arrays_are_of_another_type_is_refused(grown):
    index, _ = grown
    snapshot = index._versions.read(lambda view: view.state).snapshot
    part = snapshot.parts[0]
    arrays = {name: np.concatenate(pieces) for name, pieces in merged_arrays([(part.segment, part.live)]).items()}
    assert Segment.from_arrays(arrays, 32, snapshot.codec).n_tokens
    for name, dtype in (("codes", np.int32), ("residuals", np.uint16), ("doclens", np.int64), ("list_windows", np.uint32)):
        with pytest.raises(ValueError, match=name):
            Segment.from_arrays({**arrays, name: arrays[name].astype(dtype)}, 32, snapshot.codec)


def segment_by_hand():
    """Passages 4 (two windows, of 1 and 2 tokens) and 9 (one window of 1 token)."""
    vectors = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)], np.float32)
    spans = np.array([(0, 3), (4, 9), (0, 5)], np.int32)
    return Segment(np.array([4, 4, 9]), spans, np.array([1, 2, 1], np.int32), vectors=vectors)


def test_windows_tokens_and_vectors_by_hand():
    segment = segment_by_hand()
    assert segment.windows_of(np.array([4, 7, 9])).tolist() == [0, 1, 2]
    assert segment.find(np.array([9])).tolist() == [False, False, True]
    assert segment.tokens_of(np.array([1, 0])).tolist() == [1, 2, 0]
    assert segment.vectors_of(np.array([3, 0]), None).tolist() == [[-1, 0], [0, 1]]
    assert (segment.n_tokens, segment.longest, segment.has_one_window_each) == (4, 2, False)
    assert segment.offsets.tolist() == [0, 1, 3, 4]


def test_merging_takes_the_chosen_windows_in_their_order():
    segment = segment_by_hand()
    pieces = merged_arrays([(segment, np.array([False, True, False])), (segment, np.array([False, False, True]))])
    arrays = {name: np.concatenate(parts) for name, parts in pieces.items()}
    assert arrays["rows"].tolist() == [4, 9]  # the name of the pids on disk
    assert arrays["vectors"].tolist() == [[1, 0], [0, -1], [-1, 0]]
    again = Segment.from_arrays(arrays, 2, None)
    assert (again.pids.tolist(), again.doclens.tolist()) == ([4, 9], [2, 1])


def test_a_segment_without_shifts_has_them_computed(grown):
    index, _ = grown
    snapshot = index._versions.read(lambda view: view.state).snapshot
    for part in snapshot.parts:
        before = replace(part.segment, shifts=None)
        np.testing.assert_array_equal(before.plain_shifts(snapshot.codec), part.segment.shifts)
        np.testing.assert_array_equal(before.with_shifts(snapshot.codec).shifts, part.segment.shifts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": np.array([9, 4, 4])}, "its windows are damaged"),
        ({"doclens": np.array([0, 3, 1], np.int32)}, "its windows are damaged"),
        ({"doclens": np.array([1, 2, 2], np.int32)}, "its windows are damaged"),
        ({"doclens": np.array([1, 3], np.int32)}, "its arrays differ in length"),
        ({"spans": np.zeros((3, 3), np.int32)}, "its arrays differ in length"),
        ({"vectors": np.zeros((4, 3), np.float32)}, "its arrays differ in length"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(change, message):
    segment = segment_by_hand()
    arrays = {name: np.concatenate(parts) for name, parts in merged_arrays([(segment, np.ones(3, np.bool_))]).items()}
    with pytest.raises(ValueError, match=message):
        Segment.from_arrays(arrays | change, 2, None)


def test_an_array_that_is_missing_is_named():
    with pytest.raises(ValueError, match="it has no array 'spans'"):
        Segment.from_arrays({"rows": np.array([1])}, 2, None)
