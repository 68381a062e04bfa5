"""Find centroids by k-means, and the nearest of many for each vector."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.threads import spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from colbert_core.kernels import ByteRows

# K-means makes so many passes, and more where groups make them cheap: of 524,288 vectors and 16,384 centroids, six passes by
# groups take half of the time of four over all, and the mean cosine is .8246 instead of .8227.
_PASSES, _PASSES_BY_GROUPS = 4, 6
# So many similarities are computed at a time: 16 MB of float32.
_SIMILARITIES = 2**22
# With so few centroids, a matrix product in float32 finds the nearest as fast as products of bytes do ...
_FEW = 2**10
# ... and with so few, comparing a vector with all of them takes about as long as with those of some groups.
_SOME = 2**12
# A vector is compared with the centroids of the groups whose center is at most so much farther by cosine than the nearest;
# where these are more than one of 16, with all. A centroid is listed in each group that is at most so much farther than its
# nearest. Over 16,384 centroids that takes a quarter of the time, .994 of the vectors get the same centroid, and the mean
# cosine is .0004 lower.
_FARTHER, _LISTED_FARTHER = 0.15, 0.1
_MOST_GROUPS = 16  # one of so many
# A thread takes so many vectors at a time; enough of each group to fill blocks of 32.
_PIECE = 2**16
_SEED = 12345


class NearestCentroids:
    """Finds the nearest of some centroids, in the way that is fastest for their number.

    Few are compared in float32, more by bytes: over 2.7 million vectors and 16,384 centroids, the mean cosine with the chosen
    centroid is .85590 by bytes and .85596 by float32. Many are put into groups, each centroid into some, and a vector is
    compared with those of the groups that are near it, as an inverted file of FAISS does. What is found for a vector does not
    depend on the vectors beside it.
    """

    def __init__(self, centroids: NDArray[np.float32]) -> None:
        """Take the centroids.

        Args:
            centroids: *Shape:* (n_centroids, dim), float32.
        """
        self._centroids = centroids

    @cached_property
    def rows(self) -> ByteRows:
        """The centroids as bytes; the last one is repeated until their number is a multiple of four."""
        from colbert_core.kernels import ByteRows

        return ByteRows.of(self._centroids, multiple=4)

    def find(self, vectors: NDArray[np.float32]) -> NDArray[np.int32]:
        """Return for each vector the number of the centroid with the greatest dot product. *Shape:* (n,), int32.

        Args:
            vectors: *Shape:* (n, dim), float32.
        """
        nearest = np.empty(len(vectors), np.int32)
        if len(self._centroids) <= _FEW:
            step = max(_SIMILARITIES // len(self._centroids), 64)
            for start in range(0, len(vectors), step):
                nearest[start : start + step] = (vectors[start : start + step] @ self._centroids.T).argmax(axis=1)
            return nearest
        from colbert_core.kernels import building, instruction_set, plain

        vectors, isa = plain(vectors), instruction_set()
        groups = None if len(self._centroids) <= _SOME else self._groups

        def find_nearest(piece: slice) -> None:
            words, scales = quantized(vectors[piece], self.rows)
            if groups is None:
                building.nearest_rows(isa, words, self.rows.rows, nearest[piece])
            else:
                groups.find(words, scales, self.rows, nearest[piece])

        spread(find_nearest, [slice(start, start + _PIECE) for start in range(0, len(vectors), _PIECE)])
        return nearest

    @cached_property
    def _groups(self) -> _Groups:
        return _Groups(self._centroids)


class _Groups:
    """Centers of groups, and the centroids that each lists."""

    def __init__(self, centroids: NDArray[np.float32]) -> None:
        from colbert_core.kernels import ByteRows

        n = int(8 * math.sqrt(len(centroids)))
        self._most = max(n // _MOST_GROUPS, 1)
        self._centers = ByteRows.of(_cluster_by_bytes(centroids, n), multiple=4)
        listed, ends, _ = self._by_group(*quantized(centroids, self._centers), _LISTED_FARTHER)
        # Repeat the last of each list until there is a multiple of four, as the kernel reads them.
        lists = [np.pad(part, (0, -len(part) % 4), "edge") if len(part) else part for part in np.split(listed, ends[:-1])]
        self._offsets = np.cumsum([0, *map(len, lists)])
        self._listed = np.concatenate(lists)

    def find(self, words: NDArray[np.uint32], scales: NDArray[np.float32], rows: ByteRows, nearest: NDArray[np.int32]) -> None:
        """Write the number of the nearest centroid for each vector to ``nearest``.

        Args:
            words: the vectors, as ``building.quantize`` fills them.
            scales: theirs.
            rows: the centroids.
            nearest: *Shape:* (n,), int32.
        """
        from colbert_core.kernels import building, instruction_set

        order, ends, counts = self._by_group(words, scales, _FARTHER)
        best = np.full(len(words), -(2**31), np.int32)
        nearest[:] = -1
        building.nearest_listed(instruction_set(), words, order, ends, self._offsets, self._listed, rows.rows, best, nearest)
        # The nearest groups may all list nothing; and what is near so many groups is compared with all centroids.
        rest = np.flatnonzero((nearest < 0) | (counts > self._most))
        if len(rest):
            found = np.empty(len(rest), np.int32)
            building.nearest_rows(instruction_set(), words[rest], rows.rows, found)
            nearest[rest] = found

    def _by_group(
        self, words: NDArray[np.uint32], scales: NDArray[np.float32], farther: float
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
        """The numbers of the vectors near each group, those of the first group first; where they end; each vector's groups."""
        from colbert_core.kernels import building, instruction_set

        centers, room = self._centers, len(words) * self._most
        groups, numbers, counts = np.empty(room, np.uint16), np.empty(room, np.int32), np.empty(len(words), np.int32)
        n = building.near_rows(
            instruction_set(), words, scales, centers.rows, centers.scale, np.float32(farther), groups, numbers, counts
        )
        order = np.argsort(groups[:n], kind="stable")  # of 16 bits, which takes a sixth of the time that 32 take
        return numbers[order], np.cumsum(np.bincount(groups[:n], minlength=len(centers.rows))), counts


def quantized(vectors: NDArray[np.float32], rows: ByteRows) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """Return vectors as the kernels compare them with these rows, and the value of one step of their bytes."""
    from colbert_core.kernels import building, plain

    vectors = plain(vectors)
    words, scales = np.empty((len(vectors), rows.rows.shape[1] // 4), np.uint32), np.empty(len(vectors), np.float32)
    building.quantize(vectors, words, scales)
    return words, scales


def cluster(sample: NDArray[np.float32], n_centroids: int) -> NDArray[np.float32]:
    """Find centroids by spherical k-means, rounded to what float16 can hold. *Shape:* (n_centroids, dim), float32.

    FAISS finds a few. For many it would take 16 times as long as our kernels, for the same mean cosine: it computes in float32
    what bytes are exact enough for.

    Args:
        sample: *Shape:* (n, dim), float32, n at least ``n_centroids``.
        n_centroids: how many to find.
    """
    find = _cluster_by_faiss if n_centroids <= _FEW else _cluster_by_bytes
    rounded: NDArray[np.float32] = find(sample, n_centroids).astype(np.float16).astype(np.float32)
    return rounded


def _cluster_by_faiss(sample: NDArray[np.float32], n_centroids: int) -> NDArray[np.float32]:
    import faiss  # here, because opening and searching an index do without it

    kmeans = faiss.Kmeans(
        sample.shape[1],
        n_centroids,
        niter=_PASSES,
        seed=_SEED,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=len(sample),
    )
    kmeans.train(np.ascontiguousarray(sample))
    centroids: Any = kmeans.centroids
    return np.asarray(centroids, np.float32)


def _cluster_by_bytes(sample: NDArray[np.float32], n_centroids: int) -> NDArray[np.float32]:
    from colbert_core.kernels import building, plain

    sample = plain(sample)
    random = np.random.default_rng(_SEED)
    centroids = sample[np.sort(random.choice(len(sample), n_centroids, replace=False))]
    for _ in range(_PASSES if n_centroids <= _SOME else _PASSES_BY_GROUPS):
        nearest = NearestCentroids(centroids).find(sample)
        sums, counts = np.zeros_like(centroids), np.zeros(n_centroids, np.int64)
        building.add_up(sample, nearest, sums, counts)
        # A centroid without vectors starts again at a random vector.
        empty = np.flatnonzero(counts == 0)
        sums[empty] = sample[random.choice(len(sample), len(empty), replace=False)]
        centroids = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), np.float32(1e-12))
    return centroids
