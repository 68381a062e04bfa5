"""The gradient of a batch: at once, or in chunks for batches that do not fit into memory."""

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
    """Add the gradients of a loss to those of the parameters, and return the loss.

    Chunks use GradCache (Gao et al., RepL4NLP 2021, section 3): encode everything without a graph, and take the gradient of
    the loss with respect to the vectors; then encode again chunk by chunk, with a graph and the same dropout, and pass each
    chunk its part of the gradient. The gradients are the same, memory is that of one chunk, and time about 4/3.

    Args:
        model: takes any number of inputs and returns the vectors of each.
        inputs: ids and attended tokens of the queries, and of the passages. *Shape:* (n, …) each.
        loss_of: computes the loss from the vectors of all inputs.
        backward: calls ``loss.backward()``, perhaps after scaling the loss.
        chunk_size: number of texts in one forward pass; None for all at once.
        unsynced: returns a context in which gradients are not exchanged between processes.

    Returns:
        The loss, without graph.
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
    # DistributedDataParallel's forward pass talks to the other processes, which may have other numbers of chunks.
    local_model = getattr(model, "module", model)
    device = inputs[0][0].device
    for side, rows in chunks:
        states.append(random_state(device))
        with torch.no_grad():
            parts[side] += local_model(_rows(inputs[side], rows))
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
    """Return the states of the generators that dropout draws from: the CPU's, and the device's if it has its own."""
    get_device_state = {"cuda": torch.cuda.get_rng_state, "mps": lambda _: torch.mps.get_rng_state()}.get(device.type)
    return (torch.get_rng_state(), *([] if get_device_state is None else [get_device_state(device)]))


def set_random_state(state: tuple[torch.Tensor, ...], device: torch.device) -> None:
    """Put back the states that ``random_state`` returned."""
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state[1])
