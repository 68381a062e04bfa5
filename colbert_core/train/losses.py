"""Scores and losses of late interaction, as functions of token vectors. No model and no state.

Masked vectors score minus infinity, never 0: a zero would win over a negative similarity, and reward passages for their
padding.
"""

from __future__ import annotations

import torch
from torch.nn.functional import log_softmax, normalize, softmax

SIMILARITIES = ("cosine", "l2")


def maxsim_scores(
    queries: torch.Tensor,
    query_mask: torch.Tensor,
    passages: torch.Tensor,
    passage_mask: torch.Tensor,
    similarity: str = "cosine",
) -> torch.Tensor:
    """Score every query against every passage.

    ``cosine``: sum over i of max over j of q_i · d_j (ColBERT, SIGIR 2020, equation 3). ``l2``: minus the sum over i of min
    over j of |q_i - d_j|², its section 3.3; for unit vectors |q - d|² = 2 - 2 q · d, which is how it is computed.

    Args:
        queries: *Shape:* (n_queries, query_length, dim), unit vectors.
        query_mask: *Shape:* (n_queries, query_length), bool; False for vectors that add nothing.
        passages: *Shape:* (n_passages, passage_length, dim), unit vectors.
        passage_mask: *Shape:* (n_passages, passage_length), bool; False for vectors that are never the maximum.
        similarity: "cosine" or "l2".

    Returns:
        *Shape:* (n_queries, n_passages), float32.

    Raises:
        ValueError: there is no such similarity.
    """
    if similarity not in SIMILARITIES:
        raise ValueError(f"similarity must be one of {', '.join(SIMILARITIES)}, got {similarity!r}.")
    columns = passages.flatten(0, 1).mT  # (dim, n_passages * passage_length)
    masked = ~passage_mask.flatten()
    rows = []
    # One query at a time: the gradient of a maximum needs its place only, so not all similarities stay in memory.
    for query, mask in zip(queries, query_mask, strict=True):
        similarities = (query @ columns).float().masked_fill(masked, -torch.inf)  # (query_length, n_passages * length)
        best = similarities.unflatten(1, passage_mask.shape).max(-1).values  # (query_length, n_passages)
        best = 2 * best - 2 if similarity == "l2" else best
        rows.append(best.masked_fill(~mask[:, None], 0).sum(0))
    return torch.stack(rows)


def with_noise(vectors: torch.Tensor, deviation: float) -> torch.Tensor:
    """Add noise to unit vectors and normalize them, so that they move as compression moves them.

    Noise takes the place of rounding, which has no gradient (Défossez et al., "Differentiable model compression via pseudo
    quantization noise", TMLR 2022, arXiv 2104.09987, there of weights).

    Args:
        vectors: *Shape:* (…, dim), float32, unit vectors.
        deviation: standard deviation of the normal noise of each component, 0 or more. The noise is drawn from torch's
            generator of the vectors' device.

    Returns:
        Unit vectors. *Shape:* as ``vectors``.
    """
    return normalize(vectors + deviation * torch.randn_like(vectors), dim=-1)


def cross_entropy(scores: torch.Tensor, positives: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """Compute the softmax cross-entropy of each query's positive among its candidates, the mean over queries.

    With one negative this is ColBERT's pairwise loss (SIGIR 2020, section 3.3); with all passages of the batch as candidates
    it is that of in-batch negatives (ColBERTv2, NAACL 2022, section 3.2).

    Args:
        scores: *Shape:* (n_queries, n_passages).
        positives: *Shape:* (n_queries,), int64, the column of each query's positive.
        candidates: *Shape:* (n_queries, n_passages), bool, True for columns that take part, the positive among them.
    """
    logarithms = log_softmax(scores.masked_fill(~candidates, -torch.inf), -1)
    return -logarithms.gather(1, positives[:, None]).mean()


def distillation(scores: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute the KL divergence of the student's distribution over a query's passages from the teacher's, the mean of all.

    ColBERTv2 (NAACL 2022, section 3.2): sum over passages of t (log t - log s), where t and s are softmaxes.

    Args:
        scores: scores of the student. *Shape:* (n_queries, nway).
        teacher: scores of the teacher. *Shape:* (n_queries, nway).
        mask: *Shape:* (n_queries, nway), bool; False where a query has fewer passages.
    """
    student = log_softmax(scores.masked_fill(~mask, -torch.inf), -1).masked_fill(~mask, 0)
    target = teacher.masked_fill(~mask, -torch.inf)
    logarithms = log_softmax(target, -1).masked_fill(~mask, 0)
    return (softmax(target, -1) * (logarithms - student)).sum(-1).mean()
