"""Random unit vectors, in clusters as a model's are, and passages with them."""

from __future__ import annotations

import numpy as np

from colbert_core import Passage


def unit(rng, n, dim):
    vectors = rng.standard_normal((n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def clustered(rng, n, dim, n_clusters=40, spread=0.3):
    vectors = unit(rng, n_clusters, dim)[rng.integers(n_clusters, size=n)] + spread * unit(rng, n, dim)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def collection(n, dim=32, seed=0, low=5, high=30):
    """Passages with vectors of a few hundred clusters, of many lengths."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(low, high, size=n)
    vectors = np.split(clustered(rng, int(lengths.sum()), dim, n_clusters=200), np.cumsum(lengths)[:-1])
    passages = [Passage(f"{i:05}", f"passage {i}", {"third": i % 3, "n": i}) for i in range(n)]
    queries = [passage_vectors[:8] + 0.1 for passage_vectors in vectors[:: max(n // 40, 1)]]
    return passages, vectors, [query.astype(np.float32) for query in queries]


def ids(hits):
    return [hit.passage.id for hit in hits]


def recall(found, best):
    """The part of the best hits of each query that was found, on average."""
    return float(np.mean([len(set(ids(some)) & set(ids(all_))) / len(all_) for some, all_ in zip(found, best, strict=True)]))
