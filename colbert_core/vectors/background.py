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
# A collection of so many tokens counts as much as the assumption that its vectors point anywhere. With 200, 58 of 60 pairs of
# words are found in single passages of 52 tokens; with 50 it is 56, and with 500 it is 59, but a fifth more stop words.
_TOKENS_OF_ASSUMPTION = 200


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
        return cls._of(vectors, np.ones(len(vectors)), len(vectors))

    @classmethod
    def of_snapshot(cls, snapshot: Snapshot) -> Background | None:
        """Take what an index holds at one moment; None if that is no vector.

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
            return cls._of(vectors, np.ones(len(vectors)), n_tokens)
        return cls._of(snapshot.codec.centroids, _counts(parts, snapshot.codec), n_tokens)

    @classmethod
    def _of(cls, vectors: NDArray[np.float32], weights: NDArray[np.float64], n_tokens: int) -> Background:
        """Weigh vectors, and trust the result the more, the more tokens they stand for.

        What is missing of their length, because centroids are shorter than the vectors they stand for, is spread over all
        directions.
        """
        dim = vectors.shape[1]
        shares = (weights / weights.sum()).astype(np.float32)
        mean = shares @ vectors
        moments = (vectors * shares[:, None]).T @ vectors
        moments += np.eye(dim, dtype=np.float32) * max(1 - float(np.trace(moments)), 0) / dim
        trust = np.float32(n_tokens / (n_tokens + _TOKENS_OF_ASSUMPTION))
        anywhere = np.eye(dim, dtype=np.float32) / dim
        return cls(trust * mean, trust * (moments - np.outer(mean, mean)) + (1 - trust) * anywhere)

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
