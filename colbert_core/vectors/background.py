"""How similar the vectors of a collection are to a query vector at large: what a match has to exceed to say something.

Means and covariances say it, and centroids with their counts have these: no text is read, and no model runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from colbert_core.vectors.codec import ResidualCodec
    from colbert_core.vectors.snapshot import Part, Snapshot

# So many vectors of an uncompressed collection are looked at, spread evenly over it: 8 MB of 128 components.
_MOST_SAMPLED = 2**14
# Vectors that are summed at a time, in 64 bits: 16 MB of 128 components.
_SUMMED_AT_A_TIME = 2**14
# A collection of so many tokens counts as much as the assumption that its vectors point anywhere. With 200, 58 of 60 pairs of
# words are found in single passages of 52 tokens; with 50 it is 56, and with 500 it is 59, but a fifth more stop words.
_TOKENS_OF_ASSUMPTION = 200


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over the vectors of a collection; those of its parts make those of the whole.

    Attributes:
        n_tokens: how many vectors they stand for.
        weight: sum of the weights of the vectors that were looked at.
        first: weighted sum of the vectors, *Shape:* (dim,), float64.
        second: weighted sum of their products, *Shape:* (dim, dim), float64. With 32 bits the sums of parts would differ from
            that of the whole in their last digits.
    """

    n_tokens: int
    weight: float
    first: NDArray[np.float64]
    second: NDArray[np.float64]

    @classmethod
    def of_vectors(cls, vectors: NDArray[np.float32], weights: NDArray[np.float64], n_tokens: int) -> Moments:
        """Sum over some vectors.

        Args:
            vectors: *Shape:* (n, dim), float32.
            weights: of each of them, *Shape:* (n,), float64.
            n_tokens: how many vectors they stand for.
        """
        dim = vectors.shape[1]
        first, second = np.zeros(dim), np.zeros((dim, dim))
        for start in range(0, len(vectors), _SUMMED_AT_A_TIME):
            piece = vectors[start : start + _SUMMED_AT_A_TIME].astype(np.float64)
            weighted = piece * weights[start : start + _SUMMED_AT_A_TIME, None]
            first += weighted.sum(axis=0)
            second += weighted.T @ piece
        return cls(n_tokens, float(weights.sum()), first, second)

    @classmethod
    def of_snapshot(cls, snapshot: Snapshot) -> Moments | None:
        """Sum over what an index holds at one moment; None if that is no vector.

        Deleted passages count until their segment is written anew.

        Raises:
            IndexError: a list names no centroid, or a vector has not length 1; the file is damaged.
        """
        parts = [part for part in snapshot.parts if part.segment.n_tokens]
        n_tokens = sum(part.segment.n_tokens for part in parts)
        if not parts:
            return None
        if snapshot.codec is None:
            vectors = _sample(parts, n_tokens)
            return cls.of_vectors(vectors, np.full(len(vectors), n_tokens / len(vectors)), n_tokens)
        return cls.of_vectors(snapshot.codec.centroids, _counts(parts, snapshot.codec), n_tokens)

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.n_tokens + other.n_tokens, self.weight + other.weight, self.first + other.first, self.second + other.second
        )


@dataclass(frozen=True, eq=False)
class Background:
    """Mean and covariance of the vectors of a collection.

    Attributes:
        mean: *Shape:* (dim,), float32.
        covariance: *Shape:* (dim, dim), float32.
    """

    mean: NDArray[np.float32]
    covariance: NDArray[np.float32]

    @classmethod
    def of_vectors(cls, vectors: NDArray[np.float32]) -> Background:
        """Take these vectors as the collection, such as those of the only passage there is.

        Args:
            vectors: *Shape:* (n, dim), float32, unit rows, n at least 1.
        """
        return cls.of_moments(Moments.of_vectors(vectors, np.ones(len(vectors)), len(vectors)))

    @classmethod
    def of_moments(cls, moments: Moments) -> Background:
        """Take what was summed, and trust it the more, the more tokens it stands for.

        What is missing of the vectors' length, because centroids are shorter than the vectors they stand for, is spread over
        all directions.
        """
        dim = len(moments.first)
        mean = moments.first / moments.weight
        products = moments.second / moments.weight
        products += np.eye(dim) * max(1 - float(np.trace(products)), 0) / dim
        trust = moments.n_tokens / (moments.n_tokens + _TOKENS_OF_ASSUMPTION)
        covariance = trust * (products - np.outer(mean, mean)) + (1 - trust) * np.eye(dim) / dim
        return cls((trust * mean).astype(np.float32), covariance.astype(np.float32))

    def cosines(self, queries: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the mean and the standard deviation of the cosines of each query vector with the collection's.

        Args:
            queries: *Shape:* (n_q, dim), float32, unit rows.

        Returns:
            *Shape:* (n_q,) each, float32.
        """
        variances = np.einsum("qd,qd->q", queries @ self.covariance, queries)
        return queries @ self.mean, np.sqrt(np.maximum(variances, 0))


def _sample(parts: list[Part], n_tokens: int) -> NDArray[np.float32]:
    step = -(-n_tokens // _MOST_SAMPLED)
    return np.concatenate([part.segment.vectors_of(slice(None, None, step), None) for part in parts])


def _counts(parts: list[Part], codec: ResidualCodec) -> NDArray[np.float64]:
    """Count for each centroid the windows that have a token near it. *Shape:* (n_centroids,)."""
    counts = np.zeros(len(codec.centroids))
    for lists in (part.segment.lists for part in parts):
        assert lists is not None
        codec.check_codes(lists.centroids)
        sizes = np.diff(lists.offsets)
        if len(sizes) != len(lists.centroids) or (sizes < 1).any():
            raise IndexError("the lists do not fit together")
        counts[lists.centroids] += sizes
    return counts
