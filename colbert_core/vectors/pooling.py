"""Token pooling: replace similar vectors of a passage by their mean. Arrays in, arrays out; nothing is encoded here.

Clavié, Chaffin and Adams, "Reducing the Footprint of Multi-Vector Retrieval with Minimal Performance Impact via Token
Pooling" (2024, arXiv 2409.14683), the hierarchical method.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from colbert_core.types import TokenEmbeddings


def check_factor(factor: object) -> float:
    """Return a pool factor that makes sense.

    Raises:
        TypeError: it is no number.
        ValueError: it is below 1, or not finite.
    """
    if isinstance(factor, bool) or not isinstance(factor, numbers.Real):  # NumPy's numbers are Real, its bool is not
        raise TypeError(f"pool_factor must be a number, got {factor!r}.")
    try:
        number = float(factor)
    except OverflowError:  # a whole number beyond the range of float
        number = math.inf
    if not 1 <= number < math.inf:  # a NaN is neither
        raise ValueError(f"pool_factor must be at least 1 (1 keeps every vector, 2 about half of them), got {factor}.")
    return number


def pool_embeddings(embeddings: TokenEmbeddings, factor: float, n_protected: int | None = None) -> TokenEmbeddings:
    """Pool the vectors of every window by itself.

    Args:
        embeddings: windows of texts. A pooled vector gets the span of the token that it stands for.
        factor: about 1 / factor of the vectors stay; 1 keeps them all.
        n_protected: how many vectors at the beginning of each window stay as they are. None protects the model's own tokens
            instead, wherever they are: those with an empty span, such as [CLS], markers, [SEP] and prompts.

    Raises:
        TypeError: the factor is no number.
        ValueError: the factor is below 1, or not finite.
    """
    if check_factor(factor) == 1:
        return embeddings
    ends = np.cumsum(embeddings.doclens)
    is_models_own = embeddings.token_spans[:, 0] == embeddings.token_spans[:, 1]
    vectors, places, doclens = [embeddings.vectors[:0]], [np.empty(0, np.intp)], []
    for start, end in zip((ends - embeddings.doclens).tolist(), ends.tolist(), strict=True):
        protected = is_models_own[start:end] if n_protected is None else np.arange(end - start) < n_protected
        pooled, stands_for = pool_tokens(embeddings.vectors[start:end], protected, factor)
        vectors.append(pooled)
        places.append(stands_for + start)
        doclens.append(len(pooled))
    return replace(
        embeddings,
        vectors=np.concatenate(vectors),
        token_spans=embeddings.token_spans[np.concatenate(places)],
        doclens=np.array(doclens, np.int32),
    )


def pool_tokens(
    vectors: NDArray[np.float32], protected: NDArray[np.bool_], factor: float
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Cluster the vectors of one window, by Ward's linkage on cosine distance, and keep the mean of each cluster.

    Args:
        vectors: *Shape:* (n, dim), float32, unit rows.
        protected: *Shape:* (n,), bool, rows that stay as they are.
        factor: at least 1; the rows that are not protected become at most max(n_others // factor, 1) rows.

    Returns:
        The pooled vectors, *Shape:* (m, dim), float32, unit rows, each at the place of the first row of its cluster. And for
        each of them the row that it stands for, *Shape:* (m,), intp: the row itself where it is protected, else the row of the
        cluster that is nearest to the mean.
    """
    others = np.flatnonzero(~protected)
    n_clusters = max(int(len(others) // factor), 1)
    if n_clusters >= len(others):
        return vectors, np.arange(len(vectors))

    from scipy.cluster.hierarchy import fcluster, linkage  # here, so that importing the package does not import scipy
    from scipy.spatial.distance import squareform

    pooling = vectors[others].astype(np.float64)
    distances = squareform(np.clip(1 - pooling @ pooling.T, 0, 2), checks=False)  # (n_others * (n_others - 1) / 2,)
    labels = fcluster(linkage(distances, method="ward"), t=n_clusters, criterion="maxclust")
    _, cluster_of = np.unique(labels, return_inverse=True)  # ties may leave fewer clusters than n_clusters

    sums = np.zeros((cluster_of.max() + 1, vectors.shape[1]))
    np.add.at(sums, cluster_of, pooling)
    similarities = np.einsum("nd,nd->n", pooling, sums[cluster_of])
    by_cluster = np.lexsort((-similarities, cluster_of))  # in each cluster, the row nearest to the mean comes first
    nearest = by_cluster[np.flatnonzero(np.diff(cluster_of[by_cluster], prepend=-1))]
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    # Opposite vectors add up to zero, which has no direction; the nearest row stands for the cluster.
    means = np.where(lengths > 1e-6, sums / np.maximum(lengths, 1e-6), pooling[nearest]).astype(np.float32)

    _, firsts = np.unique(cluster_of, return_index=True)
    kept = np.flatnonzero(protected)
    order = np.argsort(np.concatenate([kept, others[firsts]]), kind="stable")
    return np.concatenate([vectors[kept], means])[order], np.concatenate([kept, others[nearest]])[order]
