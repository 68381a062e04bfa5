"""Token sequences to unit vectors: batches of similar length through backbone and head.

On a CPU each batch is one thread's, so that no core waits for another one; a GPU's results are fetched while it computes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from colbert_core.errors import CheckpointError
from colbert_core.model.backbone import sees_padding
from colbert_core.model.packed import pack
from colbert_core.threads import new_lock, one_torch_thread, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from colbert_core.model.backbone import Head
    from colbert_core.model.inputs import ModelInput

# Padded tokens in one forward pass. Smaller batches are padded less: on one CPU core the model in the box encoded 64 Wikipedia
# passages in 1.6 s at 1,024 tokens and 1.8 s at 2,048, and without padding the two are equal. A GPU needs more to be busy.
_CPU_BATCH_TOKENS = 1024
_GPU_BATCH_TOKENS = 32768


class Runner:
    """Runs a backbone and its head over token sequences. Safe to share between threads.

    Attributes:
        packed: the backbone without padding, for a CPU; None where its own forward pass is used.
    """

    def __init__(self, backbone: torch.nn.Module, head: Head | None, pad_id: int) -> None:
        """Take a model in evaluation mode and on its device.

        Args:
            backbone: a transformers encoder.
            head: makes vectors of the hidden states; None uses them as they are.
            pad_id: token id that fills a batch; never attended to.
        """
        self._backbone = backbone
        self._head = head
        self._pad_id = pad_id
        self._lock = new_lock()  # a device computes the batches of one call at a time, or their memory would add up
        self.packed = pack(backbone)
        self._one_length = self.packed is None and sees_padding(backbone)

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return next(self._backbone.parameters()).device

    def run(self, inputs: list[ModelInput], put: Callable[[int, NDArray[np.float32]], None]) -> None:
        """Compute the unit vectors of each input.

        Equal sequences are encoded once: their vectors are then equal to the last bit, so that equal passages tie. In
        batches of different shapes rounding would part them. For the same reason batches are formed by the inputs alone,
        whatever the number of threads is.

        Args:
            inputs: the sequences.
            put: takes the position of each input and its vectors, *Shape:* (length, dim), float32; several threads may call
                it at once.

        Raises:
            CheckpointError: a vector is not finite.
        """
        positions: dict[tuple[bytes, int], list[int]] = {}
        for i, model_input in enumerate(inputs):
            positions.setdefault((model_input.ids.tobytes(), model_input.attended), []).append(i)
        groups = list(positions.values())  # positions of equal inputs
        distinct = [inputs[group[0]] for group in groups]
        batches = self._batches(distinct)

        def finish(batch: list[int], result: _Result) -> None:
            for i, rows in zip(batch, result.rows(), strict=True):
                for position in groups[i]:
                    put(position, rows)

        def encode(batch: list[int]) -> None:
            with one_torch_thread():
                result = self._forward([distinct[i] for i in batch])
            finish(batch, result)

        if self.device.type == "cpu":
            spread(encode, list(batches))
            return
        running: list[tuple[list[int], _Result]] = []
        with self._lock:
            for batch in batches:
                running.append((batch, self._forward([distinct[i] for i in batch])))
                if len(running) == 2:  # the device computes the new batch while the rows of the one before are fetched
                    finish(*running.pop(0))
        for batch, result in running:
            finish(batch, result)

    def _batches(self, inputs: list[ModelInput]) -> Iterator[list[int]]:
        """Yield positions in batches of similar length, longest first, each within the budget of padded tokens.

        Longest first, so that a batch too large for the device's memory shows at once and the bar's estimate is a ceiling.
        Inputs of equal length that attend to equally many tokens are neighbours: packed attention computes them together. A
        model whose vectors depend on the padding gets batches of one length, which have none.
        """
        budget = _CPU_BATCH_TOKENS if self.device.type == "cpu" else _GPU_BATCH_TOKENS
        batch: list[int] = []
        for i in sorted(range(len(inputs)), key=lambda i: (-len(inputs[i].ids), -inputs[i].attended)):
            longest = len(inputs[batch[0]].ids) if batch else 0
            is_shorter = self._one_length and len(inputs[i].ids) != longest
            if batch and (is_shorter or (len(batch) + 1) * longest > budget):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def _forward(self, inputs: list[ModelInput]) -> _Result:
        """Begin to compute the unit vectors of a batch, longest input first; on a GPU this returns before they are there."""
        with torch.inference_mode():
            hidden, starts = self._padded_states(inputs) if self.packed is None else self._packed_states(inputs)
            vectors = hidden.float() if self._head is None else self._head(hidden.float())  # (n_rows, dim)
            lengths = [len(model_input.ids) for model_input in inputs]
            return _Result(torch.nn.functional.normalize(vectors, dim=-1), starts, lengths)

    def _packed_states(self, inputs: list[ModelInput]) -> tuple[torch.Tensor, list[int]]:
        """Compute the hidden states, *Shape:* (n_tokens, hidden), and tell the first row of each input."""
        assert self.packed is not None
        starts = np.cumsum([0, *(len(model_input.ids) for model_input in inputs[:-1])]).tolist()
        ids, attended = [model_input.ids for model_input in inputs], [model_input.attended for model_input in inputs]
        return self.packed(ids, attended), starts

    def _padded_states(self, inputs: list[ModelInput]) -> tuple[torch.Tensor, list[int]]:
        """Compute the hidden states, *Shape:* (batch * longest, hidden), and tell the first row of each input.

        An input has rows behind its end, which mean nothing.
        """
        longest = len(inputs[0].ids)
        ids = np.full((len(inputs), longest), self._pad_id, np.int64)
        for row, model_input in enumerate(inputs):
            ids[row, : len(model_input.ids)] = model_input.ids
        attended = np.array([model_input.attended for model_input in inputs])
        attention = (np.arange(longest) < attended[:, None]).astype(np.int64)  # (batch, longest)
        hidden: torch.Tensor = self._backbone(
            input_ids=_to_device(ids, self.device), attention_mask=_to_device(attention, self.device)
        ).last_hidden_state  # (batch, longest, hidden)
        return hidden.flatten(0, 1), list(range(0, len(inputs) * longest, longest))


class _Result:
    """The vectors of a batch on their way from the device.

    A GPU copies them into pinned memory while Python goes on; ``rows`` waits for the copy.
    """

    def __init__(self, vectors: torch.Tensor, starts: list[int], lengths: list[int]) -> None:
        self._starts, self._lengths = starts, lengths
        self._copied: Any = None  # an event; torch has no annotations for it
        if vectors.device.type == "cuda":
            self._vectors = torch.empty_like(vectors, device="cpu", pin_memory=True).copy_(vectors, non_blocking=True)
            event: Any = torch.cuda.Event
            self._copied = event()
            self._copied.record(torch.cuda.current_stream(vectors.device))
        else:
            self._vectors = vectors.cpu()

    def rows(self) -> Iterator[NDArray[np.float32]]:
        """Yield the vectors of each input, *Shape:* (length, dim), float32.

        Raises:
            CheckpointError: one is not finite.
        """
        if self._copied is not None:
            self._copied.synchronize()
        vectors = self._vectors.numpy()
        for start, length in zip(self._starts, self._lengths, strict=True):
            rows = vectors[start : start + length]
            if not np.isfinite(rows).all():
                raise CheckpointError(
                    "The model makes vectors that are not finite: its weights are damaged, or too large for its dtype; copy "
                    "the checkpoint again, or load it with dtype='float32'."
                )
            yield rows


def _to_device(array: NDArray[np.int64], device: torch.device) -> torch.Tensor:
    """Copy an array to the device; a GPU does so while Python goes on."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
