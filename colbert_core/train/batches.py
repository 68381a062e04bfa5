"""Which examples a step takes, and what a model sees of them. The order is a function of seed and position, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from colbert_core.train.losses import cross_entropy, distillation, maxsim_scores, with_noise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from colbert_core.train.data import Examples, Padded
    from colbert_core.train.presets import TrainConfig


@dataclass(frozen=True, slots=True)
class Batch:
    """The queries of some examples and the distinct passages among theirs, which are the columns of a score matrix.

    Attributes:
        query_ids: *Shape:* (n_queries, query_length), int64.
        query_attended: *Shape:* (n_queries,), int64.
        query_mask: *Shape:* (n_queries, query_length), bool.
        passage_ids: *Shape:* (n_passages, passage_length), int64.
        passage_attended: *Shape:* (n_passages,), int64.
        passage_mask: *Shape:* (n_passages, passage_length), bool.
        own: *Shape:* (n_queries, nway), int64, columns of each example's positive and then its negatives.
        own_mask: *Shape:* (n_queries, nway), bool, False where an example has fewer, or a known positive among its negatives.
        candidates: *Shape:* (n_queries, n_passages), bool, each positive and all that is no other known positive.
        teacher: *Shape:* (n_queries, nway), float32, scores of ``own``; zeros without a teacher.
    """

    query_ids: torch.Tensor
    query_attended: torch.Tensor
    query_mask: torch.Tensor
    passage_ids: torch.Tensor
    passage_attended: torch.Tensor
    passage_mask: torch.Tensor
    own: torch.Tensor
    own_mask: torch.Tensor
    candidates: torch.Tensor
    teacher: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    @property
    def inputs(self) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        """Ids and attended tokens of queries and of passages, what the model takes."""
        return (self.query_ids, self.query_attended), (self.passage_ids, self.passage_attended)

    def loss(
        self, queries: torch.Tensor, passages: torch.Tensor, *, loss: str, config: TrainConfig, share: float = 1.0
    ) -> torch.Tensor:
        """The loss of these vectors, *Shape:* (n_queries, query_length, dim) and (n_passages, passage_length, dim).

        ``share`` is this batch's part of a step.
        """
        if config.vector_noise:
            passages = with_noise(passages, config.vector_noise)
        scores = maxsim_scores(queries, self.query_mask, passages, self.passage_mask, config.similarity) / config.temperature
        total = scores.new_zeros(())
        if "distillation" in loss:
            total = total + distillation(scores.gather(1, self.own), self.teacher, self.own_mask)
        if "in-batch" in loss:
            total = total + cross_entropy(scores, self.own[:, 0], self.candidates)
        if loss == "pairwise":
            first = torch.zeros_like(self.own[:, 0])
            total = total + cross_entropy(scores.gather(1, self.own), first, self.own_mask)
        return total * share


def example_numbers(n_examples: int, size: int, seed: int, first: int) -> Iterator[NDArray[np.int64]]:
    """Numbers of examples, so many at a time without end, from batch ``first`` on.

    Every epoch is a permutation of all examples, made of seed and epoch, so that a run resumed anywhere goes on as it would
    have. A batch may hold the last of one epoch and the first of the next.
    """

    def epoch_order(epoch: int) -> NDArray[np.int64]:
        order: NDArray[np.int64] = np.random.default_rng([seed, epoch]).permutation(n_examples)
        return order

    epoch, at = divmod(first * size, n_examples)
    waiting = epoch_order(epoch)[at:]
    while True:
        while len(waiting) < size:
            epoch += 1
            waiting = np.concatenate([waiting, epoch_order(epoch)])
        yield waiting[:size]
        waiting = waiting[size:]


class Batches:
    """Makes batches of prepared examples."""

    def __init__(self, examples: Examples, *, most_negatives: int, pad_id: int) -> None:
        """Take the examples, and the number that pads."""
        self._examples, self._most, self._pad_id = examples, most_negatives, pad_id
        # All pairs of a query and its positive, each as one number, so that no known positive serves as a negative.
        self._known = np.unique(self._pairs(examples.query_numbers, examples.passage_numbers[examples.offsets[:-1]]))

    def batch(self, numbers: NDArray[np.int64]) -> Batch:
        """The batch of these examples."""
        examples = self._examples
        starts = examples.offsets[numbers]
        lengths = np.minimum(examples.offsets[numbers + 1] - starts, 1 + self._most)
        places = np.arange(lengths.max())  # (nway,)
        is_there = places < lengths[:, None]  # (n_queries, nway)
        where = np.where(is_there, starts[:, None] + places, starts[:, None])  # a missing one points to the positive
        own_numbers = examples.passage_numbers[where]
        columns, own = np.unique(own_numbers, return_inverse=True)
        own = own.reshape(own_numbers.shape)
        queries = examples.query_numbers[numbers]
        candidates = ~self._is_known(queries[:, None], columns[None, :])  # (n_queries, n_passages)
        own_mask = is_there & np.take_along_axis(candidates, own, 1)
        own_mask[:, 0] = True
        np.put_along_axis(candidates, own[:, :1], values=True, axis=1)
        teacher = np.zeros(own.shape, np.float32) if examples.scores is None else examples.scores[where]
        return Batch(
            *_tensors(examples.queries.padded(queries, self._pad_id)),
            *_tensors(examples.passages.padded(columns, self._pad_id)),
            *(torch.from_numpy(array) for array in (own.astype(np.int64), own_mask, candidates, teacher)),
        )

    def _pairs(self, queries: NDArray[Any], passages: NDArray[Any]) -> NDArray[np.int64]:
        pairs: NDArray[np.int64] = queries.astype(np.int64) * len(self._examples.passages) + passages
        return pairs

    def _is_known(self, queries: NDArray[Any], passages: NDArray[Any]) -> NDArray[np.bool_]:
        wanted = self._pairs(queries, passages)
        at = np.minimum(np.searchsorted(self._known, wanted), len(self._known) - 1)
        found: NDArray[np.bool_] = self._known[at] == wanted
        return found


def _tensors(padded: Padded) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.from_numpy(padded.ids), torch.from_numpy(padded.attended), torch.from_numpy(padded.kept)
