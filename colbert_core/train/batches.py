"""Batches of training examples. Their order depends on the seed and the position in the run, and on nothing else."""

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
    """The queries of some examples and all passages of these examples, each once.

    The model scores every query against every passage: a matrix with a row for each query and a column for each passage.

    Attributes:
        query_ids: token ids. *Shape:* (n_queries, query_length), int64.
        query_attended: number of leading tokens that may be attended to. *Shape:* (n_queries,), int64.
        query_mask: True for tokens whose vectors count. *Shape:* (n_queries, query_length), bool.
        passage_ids: token ids. *Shape:* (n_passages, passage_length), int64.
        passage_attended: number of leading tokens that may be attended to. *Shape:* (n_passages,), int64.
        passage_mask: True for tokens whose vectors count. *Shape:* (n_passages, passage_length), bool.
        own: columns of each example's positive and then of its negatives. *Shape:* (n_queries, nway), int64.
        own_mask: False where an example has fewer negatives, or a known positive among them. *Shape:* (n_queries, nway), bool.
        candidates: True for each example's positive, and for passages that are not known as positives of its query.
            *Shape:* (n_queries, n_passages), bool.
        teacher: the teacher's scores of ``own``; zeros without a teacher. *Shape:* (n_queries, nway), float32.
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
        """Return a copy of the batch on a device."""
        return Batch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    @property
    def inputs(self) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        """What the model takes: ids and attended tokens of the queries, and of the passages."""
        return (self.query_ids, self.query_attended), (self.passage_ids, self.passage_attended)

    def loss(
        self, queries: torch.Tensor, passages: torch.Tensor, *, loss: str, config: TrainConfig, share: float = 1.0
    ) -> torch.Tensor:
        """Compute the loss of the vectors that the model made of this batch.

        Args:
            queries: *Shape:* (n_queries, query_length, dim).
            passages: *Shape:* (n_passages, passage_length, dim).
            loss: name of the loss, one of ``presets.LOSSES``.
            config: settings of the training.
            share: share of this batch in a step, by which the loss is multiplied.
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
    """Give the numbers of the examples of each batch, without end, from batch ``first`` on.

    Every epoch is a permutation of all examples, made from seed and epoch, so that a resumed run goes on as if it had not
    stopped. A batch may hold the last examples of one epoch and the first of the next.

    Args:
        n_examples: number of examples of an epoch.
        size: number of examples in a batch.
        seed: seed of the permutations.
        first: number of the first batch, from 0.
    """

    def epoch_order(epoch: int) -> NDArray[np.int64]:
        order: NDArray[np.int64] = np.random.default_rng([seed, epoch]).permutation(n_examples)
        return order

    epoch, position = divmod(first * size, n_examples)
    waiting = epoch_order(epoch)[position:]
    while True:
        while len(waiting) < size:
            epoch += 1
            waiting = np.concatenate([waiting, epoch_order(epoch)])
        yield waiting[:size]
        waiting = waiting[size:]


class KnownPositives:
    """All pairs of a query and a passage that answers it, so that none serves as a negative.

    Texts that the model reads alike count as one: they differ in capitals and blanks, or behind what it reads.
    """

    def __init__(self, examples: Examples) -> None:
        self.queries, self.passages = examples.queries.first_alike(), examples.passages.first_alike()
        self._n_passages = len(examples.passages)
        self.pairs = np.unique(self._pairs(examples.query_numbers, examples.passage_numbers[examples.offsets[:-1]]))

    def includes(self, queries: NDArray[Any], passages: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell for each pair of a query and a passage, by their numbers, whether the passage answers the query."""
        pairs = self._pairs(queries, passages)
        places = np.minimum(np.searchsorted(self.pairs, pairs), len(self.pairs) - 1)
        is_known: NDArray[np.bool_] = self.pairs[places] == pairs
        return is_known

    def counts(self, queries: NDArray[Any]) -> NDArray[np.int64]:
        """Count the known positives of each query."""
        of_queries = self.pairs // self._n_passages  # ascending
        numbers = self.queries[queries]
        counts: NDArray[np.int64] = np.searchsorted(of_queries, numbers, "right") - np.searchsorted(of_queries, numbers)
        return counts

    def _pairs(self, queries: NDArray[Any], passages: NDArray[Any]) -> NDArray[np.int64]:
        """Number each pair of a query and a passage."""
        pairs: NDArray[np.int64] = self.queries[queries] * self._n_passages + self.passages[passages]
        return pairs


class Batches:
    """Makes batches from prepared examples."""

    def __init__(self, examples: Examples, *, most_negatives: int, pad_id: int) -> None:
        """Take the examples, the most negatives of an example, and the token id that pads."""
        self._examples, self._most_negatives, self._pad_id = examples, most_negatives, pad_id
        self._known = KnownPositives(examples)

    def batch(self, numbers: NDArray[np.int64]) -> Batch:
        """Make a batch of the examples with these numbers."""
        examples = self._examples
        starts = examples.offsets[numbers]
        lengths = np.minimum(examples.offsets[numbers + 1] - starts, 1 + self._most_negatives)
        places = np.arange(lengths.max())  # (nway,)
        is_there = places < lengths[:, None]  # (n_queries, nway)
        where = np.where(is_there, starts[:, None] + places, starts[:, None])  # a missing negative points to the positive
        own_numbers = examples.passage_numbers[where]
        columns, own = np.unique(own_numbers, return_inverse=True)
        own = own.reshape(own_numbers.shape)
        queries = examples.query_numbers[numbers]
        candidates = ~self._known.includes(queries[:, None], columns[None, :])  # (n_queries, n_passages)
        own_mask = is_there & np.take_along_axis(candidates, own, 1)
        own_mask[:, 0] = True
        np.put_along_axis(candidates, own[:, :1], values=True, axis=1)
        teacher = np.zeros(own.shape, np.float32) if examples.scores is None else examples.scores[where]
        return Batch(
            *_tensors(examples.queries.padded(queries, self._pad_id)),
            *_tensors(examples.passages.padded(columns, self._pad_id)),
            *(torch.from_numpy(array) for array in (own.astype(np.int64), own_mask, candidates, teacher)),
        )


def _tensors(padded: Padded) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.from_numpy(padded.ids), torch.from_numpy(padded.attended), torch.from_numpy(padded.kept)
