"""Centroids by k-means, and the nearest of few, of more and of many."""

from __future__ import annotations

import numpy as np
import pytest
from builders.vectors import clustered, unit

from colbert_core.vectors import centroids as module
from colbert_core.vectors.centroids import NearestCentroids, cluster


@pytest.fixture
def many(monkeypatch):
    """400 centroids are many, and none are few; the centers of their groups are not many."""
    monkeypatch.setattr(module, "_FEW", 0)
    monkeypatch.setattr(module, "_SOME", 256)


@pytest.fixture
def world():
    rng = np.random.default_rng(0)
    centroids = clustered(rng, 400, 24)
    return centroids, clustered(np.random.default_rng(0), 6000, 24)


def cosine(centroids, vectors, numbers):
    return np.einsum("nd,nd->n", vectors, centroids[numbers]).mean()


def test_the_nearest_of_few_by_hand():
    centroids, vectors = np.eye(3, dtype=np.float32), np.array([[0.6, 0.8, 0], [0, -0.6, -0.8], [0, 0.1, 1]], np.float32)
    assert NearestCentroids(centroids).find(vectors).tolist() == [1, 0, 2]


def test_bytes_find_centroids_as_near(world, monkeypatch):
    monkeypatch.setattr(module, "_FEW", 0)
    centroids, vectors = world
    found, best = NearestCentroids(centroids).find(vectors), (vectors @ centroids.T).argmax(axis=1)
    assert (found == best).mean() > 0.85  # many centroids of this world are close to each other
    assert cosine(centroids, vectors, found) > cosine(centroids, vectors, best) - 1e-3


def test_groups_find_what_bytes_find(world, many, monkeypatch):
    centroids, vectors = world
    found = NearestCentroids(centroids).find(vectors)
    monkeypatch.setattr(module, "_SOME", 10**6)
    best = NearestCentroids(centroids).find(vectors)
    assert (found == best).mean() > 0.98
    assert cosine(centroids, vectors, found) > cosine(centroids, vectors, best) - 5e-4


def test_what_groups_find_for_a_vector_does_not_depend_on_the_vectors_beside_it(world, many, monkeypatch):
    centroids, vectors = world
    search = NearestCentroids(centroids)
    together = search.find(vectors)
    monkeypatch.setattr(module, "_PIECE", 7)
    assert search.find(vectors[:100]).tolist() == together[:100].tolist()
    assert [int(search.find(vectors[number : number + 1])[0]) for number in range(20)] == together[:20].tolist()
    assert search.find(vectors[:0]).tolist() == []


def test_a_vector_near_many_groups_is_compared_with_all_centroids(world, many, monkeypatch):
    centroids, vectors = world
    monkeypatch.setattr(module, "_SOME", 10**6)
    with_all = NearestCentroids(centroids).find(vectors)
    monkeypatch.setattr(module, "_SOME", 256)
    monkeypatch.setattr(module, "_MOST_GROUPS", 160)  # one of 160
    search = NearestCentroids(centroids)
    _ = search._groups
    monkeypatch.setattr(module, "_FARTHER", 10.0)  # all are near
    assert search.find(vectors).tolist() == with_all.tolist()


def test_equal_centroids_have_the_lowest_number(many):
    centroids = np.repeat(unit(np.random.default_rng(1), 200, 16), 2, axis=0)
    assert NearestCentroids(centroids).find(centroids).tolist() == np.repeat(np.arange(0, 400, 2), 2).tolist()


def test_k_means_by_groups_is_as_good(world, many, monkeypatch):
    _, vectors = world
    by_groups = cluster(vectors, 400)
    monkeypatch.setattr(module, "_SOME", 10**6)
    by_all = cluster(vectors, 400)
    cosines = [(vectors @ centroids.T).max(axis=1).mean() for centroids in (by_groups, by_all)]
    assert cosines[0] > cosines[1] - 2e-3
    assert by_groups.astype(np.float16).astype(np.float32).tobytes() == by_groups.tobytes()
