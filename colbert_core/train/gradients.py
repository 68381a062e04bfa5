"""The gradient of a batch: in one piece, or in chunks of it for batches larger than memory."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    Inputs = tuple[tuple[torch.Tensor, torch.Tensor], ...]
    LossOf = Callable[..., torch.Tensor]


def add_gradients(
    model: torch.nn.Module,
    inputs: Inputs,
    loss_of: LossOf,
    *,
    backward: Callable[[torch.Tensor], None],
    chunk_size: int | None = None,
    unsynced: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> torch.Tensor:
    """Add the gradients of a loss to the parameters', and return the loss.

    In chunks it is GradCache (Gao et al., RepL4NLP 2021, section 3): encode everything without a graph, take the gradient of
    the loss with respect to the vectors, then encode again chunk by chunk, with the graph and the dropout of the first time,
    and pass each its part. The gradients are the same, memory is that of one chunk, and time about 4/3.

    Args:
        model: takes any of the inputs and returns the vectors of each.
        inputs: ids and attended tokens, each *Shape:* (n, …), of queries and of passages.
        loss_of: the loss of the vectors of all inputs.
        backward: ``loss.backward()``, or what scales the loss before it.
        chunk_size: texts in one forward pass; None for all at once.
        unsynced: within it gradients stay in this process.

    Returns:
        The loss, a number without graph.
    """
    if chunk_size is None:
        loss = loss_of(*model(*inputs))
        backward(loss)
        return loss.detach()
    chunks = [
        (side, slice(first, first + chunk_size))
        for side, (ids, _) in enumerate(inputs)
        for first in range(0, len(ids), chunk_size)
    ]
    parts: list[list[torch.Tensor]] = [[] for _ in inputs]
    states = []
    # Processes have different numbers of chunks, and DistributedDataParallel's forward pass talks to the other processes.
    alone = getattr(model, "module", model)
    device = inputs[0][0].device
    for side, rows in chunks:
        states.append(random_state(device))
        with torch.no_grad():
            parts[side] += alone(_rows(inputs[side], rows))
    leaves = [torch.cat(part).requires_grad_() for part in parts]
    loss = loss_of(*leaves)
    backward(loss)
    after = random_state(device)
    for number, ((side, rows), state) in enumerate(zip(chunks, states, strict=True), 1):
        gradient = leaves[side].grad
        assert gradient is not None
        set_random_state(state, device)
        with unsynced() if number < len(chunks) else contextlib.nullcontext():
            (vectors,) = model(_rows(inputs[side], rows))
            vectors.backward(gradient[rows])
    set_random_state(after, device)
    return loss.detach()


def _rows(pair: tuple[torch.Tensor, torch.Tensor], rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
    return pair[0][rows], pair[1][rows]


def random_state(device: torch.device) -> tuple[torch.Tensor, ...]:
    """Of the generators that dropout draws from: the CPU's, and the device's where it has its own."""
    own = {"cuda": torch.cuda.get_rng_state, "mps": lambda _: torch.mps.get_rng_state()}.get(device.type)
    return (torch.get_rng_state(), *([] if own is None else [own(device)]))


def set_random_state(state: tuple[torch.Tensor, ...], device: torch.device) -> None:
    """Have them draw again what they drew after this state."""
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state[1])
