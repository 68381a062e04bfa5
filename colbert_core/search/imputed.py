"""XTR's score: only the tokens that a token search found count, and what it did not find is imputed.

Lee et al., "Rethinking the Role of Token Retrieval in Multi-Vector Retrieval", NeurIPS 2023, section 3.2. ColBERT finds
passages by the nearest tokens, and then scores them over all of their vectors. A model that was trained as XTR was needs no
second step. ``Index.search`` scores by MaxSim, also for such a model: what the rule finds is compared with that here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from colbert_core.checks import check_count

if TYPE_CHECKING:
    from numpy.typing import NDArray


def imputed_scores(
    query: NDArray[np.float32], vectors: NDArray[np.float32], owners: NDArray[np.integer], n_tokens: int, n_passages: int
) -> NDArray[np.float32]:
    """Score passages by the ``n_tokens`` nearest tokens of each query vector.

    A query vector gives a passage the best similarity to a token of it that was found, or else the lowest similarity that was
    found at all, its bar: what was missed is no better than that. The score is the mean over the query's vectors (equation 6).

    Args:
        query: *Shape:* (n_q, dim), float32, unit rows.
        vectors: *Shape:* (n, dim), float32, unit rows, of all passages.
        owners: *Shape:* (n,), the passage of each vector, from 0.
        n_tokens: tokens found for each query vector, k' in the paper, at least 1. With all of them this is MaxSim / n_q.
        n_passages: number of passages.

    Returns:
        *Shape:* (n_passages,), float32; -inf for a passage of which no token was found.

    Raises:
        ValueError: n_tokens is less than 1.
    """
    check_count(n_tokens, "n_tokens", "tokens")
    total, is_found = np.zeros(n_passages, np.float32), np.zeros(n_passages, np.bool_)
    n_tokens = min(n_tokens, len(vectors))
    if not n_tokens or not len(query):
        return np.full(n_passages, -np.inf, np.float32)
    for similarities in query @ vectors.T:  # (n,) of (n_q, n)
        nearest = np.argpartition(similarities, len(vectors) - n_tokens)[len(vectors) - n_tokens :]
        best = np.full(n_passages, similarities[nearest].min(), np.float32)
        np.maximum.at(best, owners[nearest], similarities[nearest])
        is_found[owners[nearest]] = True
        total += best
    return np.where(is_found, total / len(query), np.float32(-np.inf))
