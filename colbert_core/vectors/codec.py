"""Token vectors in a few bytes each: the nearest of a set of centroids, and the rest at a few bits per component.

Santhanam et al., "ColBERTv2" (NAACL 2022), section 3.3. The levels of the residuals are those of least squared error (Lloyd,
"Least squares quantization in PCM", 1982) where ColBERTv2 takes quantiles: for the same bytes, recall@10 of scoring every
passage rises from .855 to .907 at 4 bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.threads import spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from colbert_core.kernels import ByteRows

NBITS = (1, 2, 4, 8)

# More than rounding a centroid to float16 and FAISS's splitting of clusters leave of a component (.001 was seen). Levels for
# residuals of that size alone would bring a vector unlike the sample back as its nearest centroid; those between unit vectors
# without relation have a variance of 2 / dim.
_ROUNDED = 1e-2

# Vectors per centroid that k-means looks at, and its passes over them. Eight passes gain .002 of mean cosine.
_PER_CENTROID = 32
_MOST_SAMPLED = 2**20
_PASSES = 4
MOST_CENTROIDS = 2**16
"""Codes have 16 bits up to here."""
# Similarities computed at a time: 16 MB of float32.
_SIMILARITIES = 2**22
# Up to here a matrix product in float32 finds the nearest centroid as fast as bytes do.
_FEW_CENTROIDS = 2**10
# Vectors that a thread takes at a time.
_PIECE = 2**13
# Vectors whose residuals the levels are fitted to.
_FITTED_ON = 2**14
_SEED = 12345


@dataclass(frozen=True, eq=False)
class ResidualCodec:
    """Centroids and residual levels. Compressed vectors are codes and packed residuals.

    Attributes:
        centroids: *Shape:* (n_centroids, dim), float32, every value one that float16 can hold.
        levels: *Shape:* (2**nbits,), float32, ascending: what the numbers in the residuals stand for.
        layers: where the centroids of each ``fit`` and ``extended`` begin. Those of a later layer lie closer together.
    """

    centroids: NDArray[np.float32]
    levels: NDArray[np.float32]
    layers: tuple[int, ...] = (0,)

    @property
    def dim(self) -> int:
        """Components of a vector."""
        return int(self.centroids.shape[1])

    @property
    def nbits(self) -> int:
        """Bits per component of a residual."""
        return len(self.levels).bit_length() - 1

    @property
    def code_type(self) -> np.dtype[Any]:
        """The smallest unsigned integers that number all centroids."""
        return np.dtype(np.uint16 if len(self.centroids) <= MOST_CENTROIDS else np.uint32)

    @classmethod
    def fit(cls, sample: NDArray[np.float32], n_centroids: int, nbits: int) -> ResidualCodec:
        """Find centroids and levels for vectors like these. The same sample gives the same codec.

        Args:
            sample: *Shape:* (n, dim), float32, unit rows, at least ``n_centroids``; ``sample_size`` says how many to take.
            n_centroids: at least 1.
            nbits: 1, 2, 4 or 8.
        """
        centroids = _cluster(sample, n_centroids)
        held = sample[:: max(1, len(sample) // _FITTED_ON)]
        codec = cls(centroids, np.zeros(2**nbits, np.float32))
        residuals = held - centroids[nearest_centroids(held, centroids, codec._rows)]
        values = residuals.ravel()
        if np.abs(values).max() < _ROUNDED:  # every vector is a centroid: what comes later will not be
            others = np.random.default_rng(_SEED).normal(0, math.sqrt(2 / sample.shape[1]), len(values))
            values = np.concatenate([values, others.astype(np.float32)])
        return cls(centroids, lloyd_max(values, 2**nbits))

    def extended(self, sample: NDArray[np.float32], n_centroids: int) -> ResidualCodec:
        """The codec of a collection that has grown: more centroids behind the others, for the vectors to come.

        What is compressed already stays as it is: its codes and residuals mean the same. Compressing it again from what it
        decompresses to would add the error of each time: over 2.1 million tokens, recall@10 of scoring everything fell from
        .973 to .961 when that was done twice.

        Args:
            sample: as for ``fit``.
            n_centroids: how many to add.
        """
        more = _cluster(sample, n_centroids)
        return ResidualCodec(np.concatenate([self.centroids, more]), self.levels, (*self.layers, len(self.centroids)))

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> ResidualCodec:
        """What ``to_arrays`` gave.

        Raises:
            ValueError: the arrays are not those of a codec.
        """
        centroids, levels, layers = (arrays.get(name) for name in ("centroids", "levels", "layers"))
        if centroids is None or levels is None or centroids.ndim != 2 or not len(centroids):
            raise ValueError("it is no codec")
        if levels.shape not in [(2**nbits,) for nbits in NBITS] or not np.isfinite(levels).all() or (np.diff(levels) < 0).any():
            raise ValueError(f"its levels are damaged: {levels!r:.80}")
        if not np.isfinite(centroids).all():
            raise ValueError("a centroid is damaged")
        starts = (0,) if layers is None else tuple(layers.tolist())
        if not starts or starts[0] != 0 or starts[-1] >= len(centroids) or list(starts) != sorted(set(starts)):
            raise ValueError(f"its layers are damaged: {starts}")
        return cls(centroids.astype(np.float32), levels.astype(np.float32), starts)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """To keep: ``centroids`` float16, ``levels`` float32, ``layers`` int32."""
        layers = np.array(self.layers, np.int32)
        return {"centroids": self.centroids.astype(np.float16), "levels": self.levels, "layers": layers}

    def compress(self, vectors: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Codes and packed residuals of unit vectors.

        Args:
            vectors: *Shape:* (n, dim), float32, unit rows.

        Returns:
            *Shape:* (n,), of ``code_type``; and *Shape:* (n, ceil(dim * nbits / 8)), uint8.
        """
        from colbert_core.kernels import building, plain

        nearest = nearest_centroids(vectors, self.centroids, self._rows)
        packed = np.zeros((len(vectors), row_bytes(self.dim, self.nbits)), np.uint8)
        vectors = plain(vectors)

        def piece(some: slice) -> None:
            building.pack_residuals(vectors[some], nearest[some], self.centroids, self.levels, self.nbits, packed[some])

        spread(piece, pieces(len(vectors)))
        return nearest.astype(self.code_type), packed

    def decompress(self, codes: NDArray[Any], residuals: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The vectors that codes and residuals stand for: centroid plus residual, scaled to length 1.

        Args:
            codes: *Shape:* (n,).
            residuals: *Shape:* (n, ceil(dim * nbits / 8)), uint8.

        Returns:
            *Shape:* (n, dim), float32.

        Raises:
            IndexError: a code is no centroid's.
        """
        from colbert_core.kernels import building, instruction_set, plain

        self.check_codes(codes)
        vectors = np.empty((len(codes), self.dim), np.float32)
        codes = codes.astype(self.code_type, copy=False)
        building.decompress(
            instruction_set(), plain(codes), plain(residuals), self.centroids, self.padded_levels, self.nbits, vectors
        )
        return vectors

    def inverse_lengths(self, codes: NDArray[Any], residuals: NDArray[np.uint8]) -> NDArray[np.uint16]:
        """What the sum of centroid and residual is multiplied by to have length 1, in 32768ths, at most 65535.

        Args:
            codes: *Shape:* (n,), of ``code_type``.
            residuals: *Shape:* (n, ceil(dim * nbits / 8)), uint8.
        """
        from colbert_core.kernels import building, plain

        self.check_codes(codes)
        lengths = np.empty(len(codes), np.uint16)
        building.measure(plain(codes), plain(residuals), self.centroids, self.levels, self.nbits, lengths)
        return lengths

    def check_codes(self, codes: NDArray[Any]) -> None:
        """Make sure that every code is a centroid's.

        Raises:
            IndexError: one is not.
        """
        least, most = (int(codes.min()), int(codes.max())) if len(codes) else (0, 0)
        if least < 0 or most >= len(self.centroids):
            raise IndexError(f"a code is {least if least < 0 else most}, but there are {len(self.centroids)} centroids")

    @cached_property
    def _rows(self) -> ByteRows | None:
        """The centroids as bytes, where there are enough of them for that to be faster."""
        return None if len(self.centroids) <= _FEW_CENTROIDS else self.rows

    @cached_property
    def rows(self) -> ByteRows:
        """The centroids as bytes, filled up to a multiple of four by repeating the last."""
        from colbert_core.kernels import ByteRows

        return ByteRows.of(self.centroids, multiple=4)

    @cached_property
    def padded_levels(self) -> NDArray[np.float32]:
        """The levels, filled up to 16 of them or more."""
        return np.concatenate([self.levels, np.zeros(16, np.float32)])

    @cached_property
    def byte_levels(self) -> tuple[NDArray[np.uint8], np.float32]:
        """The levels as bytes with an offset of 128, over and over, *Shape:* (256,), and what such a byte stands for."""
        scale = np.float32(max(float(np.abs(self.levels).max()), 1e-20) / 127)
        return np.resize((np.rint(self.levels / scale) + 128).astype(np.uint8), 256), scale


def count_centroids(n_tokens: int) -> int:
    """How many centroids suit a collection: the power of two at or below ``8 sqrt(n_tokens)``.

    Half of what ColBERTv2's code takes: over 2.1 million tokens that is a quarter of the work, scoring every passage finds
    .977 of the exact top 10 in place of .973, and a search .975 of that in place of .987. Never more than one for four
    vectors, and codes stay within 16 bits.
    """
    wanted = min(8 * math.sqrt(max(n_tokens, 1)), max(n_tokens // 4, 1), MOST_CENTROIDS)
    return int(2 ** math.floor(math.log2(wanted)))


def sample_size(n_centroids: int) -> int:
    """How many vectors ``ResidualCodec.fit`` makes good use of."""
    return min(_PER_CENTROID * n_centroids, _MOST_SAMPLED)


def row_bytes(dim: int, nbits: int) -> int:
    """Bytes of one packed residual; the last one may be partly unused."""
    return -(-dim * nbits // 8)


def pack(numbers: NDArray[np.uint8], nbits: int) -> NDArray[np.uint8]:
    """Put ``8 // nbits`` numbers into each byte: byte ``j`` holds components ``j``, ``j + width``, ``j + 2 width`` and so on.

    Neighbouring components lie in neighbouring bytes, so one shift unpacks a whole run of them.

    Args:
        numbers: *Shape:* (n, dim), uint8, below ``2**nbits``.
        nbits: 1, 2, 4 or 8.

    Returns:
        *Shape:* (n, width), uint8, ``width = ceil(dim * nbits / 8)``.
    """
    n, dim = numbers.shape
    width = row_bytes(dim, nbits)
    packed = np.zeros((n, width), np.uint8)
    for slot in range(8 // nbits):
        columns = numbers[:, slot * width : (slot + 1) * width]
        packed[:, : columns.shape[1]] |= columns << (slot * nbits)
    return packed


def lloyd_max(values: NDArray[np.float32], n_levels: int) -> NDArray[np.float32]:
    """The levels to which numbers can be rounded with the least mean squared error (a local minimum, from quantiles).

    Lloyd (1982), method I: each cut lies midway between two levels, each level is the mean of what is rounded to it.

    Args:
        values: *Shape:* (n,), float32, n >= 1.
        n_levels: at least 2.

    Returns:
        *Shape:* (n_levels,), float32, ascending.
    """
    ordered = np.sort(values).astype(np.float64)
    sums = np.concatenate([[0], np.cumsum(ordered)])
    levels = np.quantile(ordered, (np.arange(n_levels) + 0.5) / n_levels)
    for _ in range(100):  # 4 bits settle to six digits in about 60
        cuts = np.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2)
        edges = np.concatenate([[0], cuts, [len(ordered)]])
        counts = np.diff(edges)
        means = np.diff(sums[edges]) / np.maximum(counts, 1)
        levels = np.where(counts > 0, means, levels)
    return np.sort(levels).astype(np.float32)


def _cluster(sample: NDArray[np.float32], n_centroids: int) -> NDArray[np.float32]:
    """Centroids by spherical k-means, rounded to what float16 holds. *Shape:* (n_centroids, dim), float32.

    Where there are many, FAISS would take 16 times as long for the same mean cosine, computing in float32 what bytes are good
    enough for.
    """
    centroids = _few_clusters(sample, n_centroids) if n_centroids <= _FEW_CENTROIDS else _many_clusters(sample, n_centroids)
    held: NDArray[np.float32] = centroids.astype(np.float16).astype(np.float32)
    return held


def _few_clusters(sample: NDArray[np.float32], n_centroids: int) -> NDArray[np.float32]:
    import faiss  # here, so that opening and searching an index do not wait for it

    kmeans = faiss.Kmeans(
        sample.shape[1],
        n_centroids,
        niter=_PASSES,
        seed=_SEED,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=_MOST_SAMPLED,
    )
    kmeans.train(np.ascontiguousarray(sample))
    found: Any = kmeans.centroids
    return np.asarray(found, np.float32)


def _many_clusters(sample: NDArray[np.float32], n_centroids: int) -> NDArray[np.float32]:
    from colbert_core.kernels import ByteRows, building, plain

    sample = plain(sample)
    random = np.random.default_rng(_SEED)
    centroids = sample[np.sort(random.choice(len(sample), n_centroids, replace=False))]
    for _ in range(_PASSES):
        nearest = nearest_centroids(sample, centroids, ByteRows.of(centroids, multiple=4))
        sums, counts = np.zeros_like(centroids), np.zeros(n_centroids, np.int64)
        building.add_up(sample, nearest, sums, counts)
        # A centroid that nothing is nearest to starts again somewhere else.
        empty = np.flatnonzero(counts == 0)
        sums[empty] = sample[random.choice(len(sample), len(empty), replace=False)]
        centroids = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), np.float32(1e-12))
    return centroids


def nearest_centroids(vectors: NDArray[np.float32], centroids: NDArray[np.float32], rows: ByteRows | None) -> NDArray[np.int32]:
    """The centroid of greatest dot product for each row, by the centroids' bytes if they are given. *Shape:* (n,).

    Over 2.7 million vectors and 16,384 centroids bytes choose one whose mean cosine is .85590, float32 .85596.
    """
    nearest = np.empty(len(vectors), np.int32)
    if rows is None:
        step = max(_SIMILARITIES // len(centroids), 64)
        for start in range(0, len(vectors), step):
            nearest[start : start + step] = (vectors[start : start + step] @ centroids.T).argmax(axis=1)
        return nearest
    from colbert_core.kernels import building, instruction_set, plain

    vectors = plain(vectors)

    def piece(some: slice) -> None:
        building.nearest_rows(instruction_set(), vectors[some], rows.rows, nearest[some])

    spread(piece, pieces(len(vectors)))
    return nearest


def pieces(n: int) -> list[slice]:
    """``range(n)`` in parts that threads can share."""
    return [slice(start, min(start + _PIECE, n)) for start in range(0, n, _PIECE)]
