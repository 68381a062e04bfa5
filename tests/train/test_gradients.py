"""The gradient in chunks, and the random generators it draws from."""

from __future__ import annotations

import pytest
import torch

from colbert_core.train.gradients import add_gradients, random_state, set_random_state
from colbert_core.train.losses import cross_entropy, maxsim_scores


class Embedder(torch.nn.Module):
    """Vectors of ids, with dropout."""

    def __init__(self, dropout):
        super().__init__()
        torch.manual_seed(3)
        self.table = torch.nn.Embedding(20, 6)
        self.layer = torch.nn.Linear(6, 4)
        self.dropout = torch.nn.Dropout(dropout)

    def forward(self, *inputs):
        return tuple(torch.nn.functional.normalize(self.layer(self.dropout(self.table(ids))), dim=-1) for ids, _ in inputs)


def gradients_of(chunk_size, dropout=0.0):
    model = Embedder(dropout)
    rng = torch.Generator().manual_seed(0)
    queries, passages = (torch.randint(0, 20, (n, length), generator=rng) for n, length in ((5, 3), (7, 4)))
    masks = [torch.ones(ids.shape, dtype=torch.bool) for ids in (queries, passages)]

    def loss_of(q, p):
        scores = maxsim_scores(q, masks[0], p, masks[1])
        return cross_entropy(scores, torch.arange(5), torch.ones(5, 7, dtype=torch.bool))

    inputs = tuple((ids, torch.full((len(ids),), ids.shape[1])) for ids in (queries, passages))
    loss = add_gradients(model, inputs, loss_of, backward=torch.Tensor.backward, chunk_size=chunk_size)
    return loss, [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 100])
def test_cached_gradients_equal_the_plain_ones(chunk_size):
    loss, plain = gradients_of(None)
    chunked_loss, chunked = gradients_of(chunk_size)
    torch.testing.assert_close(chunked_loss, loss)
    for expected, gradient in zip(plain, chunked, strict=True):
        torch.testing.assert_close(gradient, expected)
        assert expected.abs().sum() > 0


def test_cached_gradients_use_one_dropout_in_both_passes():
    # A chunk as large as each input draws the same masks as the plain pass, in the same order.
    torch.manual_seed(5)
    loss, plain = gradients_of(None, dropout=0.5)
    torch.manual_seed(5)
    chunked_loss, chunked = gradients_of(7, dropout=0.5)
    torch.testing.assert_close(chunked_loss, loss)
    for expected, gradient in zip(plain, chunked, strict=True):
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_the_generators_of_the_cpu_and_of_the_device_are_put_back(monkeypatch, device):
    put_back = []
    monkeypatch.setattr(getattr(torch, device), "get_rng_state", lambda *_: "the device's")
    monkeypatch.setattr(getattr(torch, device), "set_rng_state", lambda state, *_: put_back.append(state))
    state = random_state(torch.device(device))
    first = torch.rand(3)
    set_random_state(state, torch.device(device))
    assert torch.equal(torch.rand(3), first)
    assert put_back == ["the device's"]
