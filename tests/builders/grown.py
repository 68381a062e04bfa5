"""A compressed index that grew in three adds, and queries for it."""

from __future__ import annotations

import numpy as np

from colbert_core import Index, Passage


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def collection(n, dim=32, seed=0, n_topics=60, tokens=(4, 20)):
    """Passages that mix a few topics each, and queries near one of them."""
    rng = np.random.default_rng(seed)
    topics = unit(rng.standard_normal((n_topics, dim)))
    vectors = [
        unit(topics[rng.choice(rng.integers(n_topics, size=3), size=length)] + 0.25 * rng.standard_normal((length, dim)))
        for length in rng.integers(*tokens, size=n)
    ]
    passages = [Passage(f"{number:05}", f"passage {number}") for number in range(n)]
    queries = [unit(vectors[i][:6] + 0.1 * rng.standard_normal((min(6, len(vectors[i])), dim))) for i in range(0, n, n // 25)]
    return passages, vectors, queries


def found(index, queries, **how):
    """Ids and scores of what is found for each query."""
    return [[(hit.passage.id, hit.score) for hit in hits] for hits in index.search_many(queries, **how)]


def recall(some, best):
    return float(np.mean([len({i for i, _ in a} & {i for i, _ in b}) / len(b) for a, b in zip(some, best, strict=True)]))


def grow():
    """A collection whose codec has two layers of centroids, in several segments, some of it deleted."""
    passages, vectors, queries = collection(2400)
    index = Index.create(None, dim=32, nbits=4)
    index.add(passages[:400], embeddings=vectors[:400])
    index.compact()
    for start in range(400, 2400, 250):
        index.add(passages[start : start + 250], embeddings=vectors[start : start + 250])
    index.delete([passage.id for passage in passages[::7]])
    assert index.stats().segments > 1
    return index, queries
