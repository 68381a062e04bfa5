"""Batches: which examples, which candidates, in which order."""

from __future__ import annotations

import numpy as np

from colbert_core.train import Example, prepare
from colbert_core.train.batches import Batches, example_numbers


def test_every_epoch_is_another_permutation_and_goes_on_anywhere():
    batches = example_numbers(10, 4, seed=1, first=0)
    taken = np.concatenate([next(batches) for _ in range(10)])
    epochs = taken.reshape(4, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 4
    for first in range(10):
        resumed = example_numbers(10, 4, seed=1, first=first)
        assert next(resumed).tolist() == taken[4 * first : 4 * first + 4].tolist()
    assert next(example_numbers(10, 4, seed=2, first=0)).tolist() != taken[:4].tolist()


def test_a_batch_holds_each_passage_once_and_no_known_positive_as_a_negative(prepared):
    batch = Batches(prepared, most_negatives=63, pad_id=0).batch(np.array([0, 1]))
    assert batch.passage_ids.shape[0] == 3
    assert batch.own.tolist() == [[0, 1, 2], [1, 0, 1]]  # the third of the second is a place holder
    assert batch.own_mask.tolist() == [[True, True, True], [True, True, False]]
    assert batch.candidates.tolist() == [[True, True, True], [True, True, True]]


def test_another_positive_of_the_same_query_is_no_candidate(model, tmp_path):
    examples = [Example("cat", "purr"), Example("cat", "cats purr", ("purr", "dogs bark")), Example("dog", "bark")]
    data = prepare(examples, model, tmp_path / "data")
    batch = Batches(data, most_negatives=63, pad_id=0).batch(np.array([1, 2]))
    # Columns: purr, cats purr, dogs bark, bark. "purr" answers the first query too, though its example is not in the batch.
    assert batch.own.tolist()[0] == [1, 0, 2]
    assert batch.own_mask.tolist()[0] == [True, False, True]
    assert batch.candidates.tolist() == [[False, True, True, True], [True, True, True, True]]


def test_the_first_negatives_are_used_and_scores_go_with_them(model, tmp_path):
    example = Example("cat", "purr", ("bark", "rust", "mat"), (4.0, 3.0, 2.0, 1.0))
    data = prepare([example], model, tmp_path / "data")
    batch = Batches(data, most_negatives=2, pad_id=0).batch(np.array([0]))
    assert batch.own.shape == (1, 3)
    assert batch.teacher.tolist() == [[4.0, 3.0, 2.0]]
