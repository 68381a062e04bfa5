"""Losses on numbers that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from colbert_core import maxsim
from colbert_core.train.losses import cross_entropy, distillation, maxsim_scores, with_noise


def unit(*angles):
    """Unit vectors of the plane at these angles, in degrees."""
    radians = torch.deg2rad(torch.tensor(angles, dtype=torch.float32))
    return torch.stack([radians.cos(), radians.sin()], -1)


def everything(vectors):
    return torch.ones(vectors.shape[:-1], dtype=torch.bool)


def test_maxsim_of_one_query_and_two_passages_by_hand():
    query = unit(0, 90)[None]  # (1, 2, 2)
    passages = torch.stack([unit(60, 180), unit(0, 270)])  # (2, 2, 2)
    # The first: max(cos 60, cos 180) + max(cos 30, cos 90) = .5 + .866; the second: 1 + max(cos 90, cos 180) = 1.
    scores = maxsim_scores(query, everything(query), passages, everything(passages))
    torch.testing.assert_close(scores, torch.tensor([[0.5 + 3**0.5 / 2, 1.0]]), atol=1e-6, rtol=0)


def test_l2_is_minus_the_sum_of_the_least_squared_distances():
    query, passages = unit(0, 90)[None], unit(60, 180)[None]
    # |q - d|² = 2 - 2 cos: 2 - 2 · .5 = 1, and 2 - 2 · .866 = .268.
    scores = maxsim_scores(query, everything(query), passages, everything(passages), "l2")
    torch.testing.assert_close(scores, torch.tensor([[-1 - (2 - 3**0.5)]]), atol=1e-6, rtol=0)
    distances = torch.cdist(query, passages).square().min(-1).values.sum(-1)
    torch.testing.assert_close(scores[:, 0], -distances, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("similarity", "expected"), [("cosine", -1.0), ("l2", -4.0)])
def test_a_negative_similarity_survives_padding(similarity, expected):
    # The only passage vector points away: cosine -1, squared distance 4. The padding beside it would score 1.
    query, passages = unit(0)[None], unit(180, 0)[None]
    mask = torch.tensor([[True, False]])
    scores = maxsim_scores(query, everything(query), passages, mask, similarity)
    torch.testing.assert_close(scores, torch.tensor([[expected]]))


def test_masked_query_vectors_add_nothing():
    query, passages = unit(0, 180)[None], unit(0)[None]
    for similarity, expected in (("cosine", 1.0), ("l2", 0.0)):
        scores = maxsim_scores(query, torch.tensor([[True, False]]), passages, everything(passages), similarity)
        torch.testing.assert_close(scores, torch.tensor([[expected]]))


def test_noise_turns_unit_vectors_by_as_much_as_it_says_and_leaves_them_unit():
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(500, 4, 128), dim=-1)
    moved = with_noise(vectors, 0.02)
    torch.testing.assert_close(moved.norm(dim=-1), torch.ones(500, 4))
    # 127 components across, each of standard deviation .02: the tangent of the angle is .02 sqrt(127) = .225.
    cosines = (moved * vectors).sum(-1)
    assert cosines.mean().item() == pytest.approx(1 / math.sqrt(1 + 0.02**2 * 127), abs=1e-3)
    torch.testing.assert_close(with_noise(vectors, 0.0), vectors)


def test_the_gradient_passes_through_noise():
    vectors = unit(0, 90).requires_grad_()
    with_noise(vectors, 0.1)[0, 1].backward()
    assert vectors.grad is not None
    assert vectors.grad[0, 1] > 0.5
    assert not vectors.grad[1].any()


def test_scores_are_those_of_the_engine():
    rng = np.random.default_rng(0)

    def vectors(*shape):
        drawn = rng.standard_normal(shape).astype(np.float32)
        return drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)

    queries, passages = vectors(3, 5, 8), vectors(4, 7, 8)
    mask = rng.random((4, 7)) < 0.6
    mask[:, 0] = True
    scores = maxsim_scores(
        torch.from_numpy(queries), torch.ones(3, 5, dtype=torch.bool), torch.from_numpy(passages), torch.from_numpy(mask)
    )
    for query, row in zip(queries, scores, strict=True):
        np.testing.assert_allclose(row, maxsim(query, passages[mask], mask.sum(1)), rtol=1e-5)


def test_masked_vectors_get_no_gradient_and_no_nan():
    query = unit(0, 90)[None].requires_grad_()
    passages = torch.stack([unit(60, 0), unit(30, 0)]).requires_grad_()
    mask = torch.tensor([[True, False], [True, False]])
    scores = maxsim_scores(query, torch.tensor([[True, False]]), passages, mask)
    cross_entropy(scores, torch.tensor([0]), torch.tensor([[True, True]])).backward()
    assert query.grad.isfinite().all()
    assert passages.grad.isfinite().all()
    assert not query.grad[0, 1].any()
    assert not passages.grad[:, 1].any()
    assert passages.grad[:, 0].any()


def test_another_similarity_is_an_error():
    with pytest.raises(ValueError, match="similarity must be one of cosine, l2, got 'dot'"):
        maxsim_scores(*[torch.zeros(0)] * 4, similarity="dot")


def test_pairwise_cross_entropy_by_hand():
    scores = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    # log(1 + e^-2) for the first; the second has its positive in the second column: also log(1 + e^-2).
    loss = cross_entropy(scores, torch.tensor([0, 1]), torch.ones(2, 2, dtype=torch.bool))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)))


def test_cross_entropy_leaves_out_what_is_no_candidate():
    scores = torch.tensor([[1.0, 50.0, 0.0]])
    loss = cross_entropy(scores, torch.tensor([0]), torch.tensor([[True, False, True]]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)))


def test_cross_entropy_over_n_equal_scores_is_log_n():
    loss = cross_entropy(torch.zeros(3, 8), torch.arange(3), torch.ones(3, 8, dtype=torch.bool))
    assert loss.item() == pytest.approx(math.log(8))


def test_distillation_by_hand():
    # Teacher softmax(log 3, 0) = (.75, .25), student (.5, .5): .75 log 1.5 + .25 log .5.
    loss = distillation(torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]]), torch.ones(1, 2, dtype=torch.bool))
    assert loss.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))


def test_distillation_of_an_equal_distribution_is_zero():
    teacher = torch.tensor([[5.0, 1.0, -2.0]])
    assert distillation(teacher + 7, teacher, torch.ones(1, 3, dtype=torch.bool)).item() == pytest.approx(0, abs=1e-6)


def test_distillation_with_fewer_passages_is_that_of_those_there():
    scores = torch.tensor([[1.0, 0.0, 9.0]], requires_grad=True)
    teacher = torch.tensor([[2.0, 1.5, -3.0]])
    loss = distillation(scores, teacher, torch.tensor([[True, True, False]]))
    shorter = distillation(scores[:, :2], teacher[:, :2], torch.ones(1, 2, dtype=torch.bool))
    assert loss.item() == pytest.approx(shorter.item())
    loss.backward()
    assert scores.grad.isfinite().all()
    assert scores.grad[0, 2] == 0
