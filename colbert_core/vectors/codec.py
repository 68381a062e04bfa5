"""Compress token vectors to a few bytes each: the nearest centroid, and what is left of each component at a few bits.

Santhanam et al., "ColBERTv2" (NAACL 2022), section 3.3. Residuals are rounded to the levels of least squared error (Lloyd,
"Least squares quantization in PCM", 1982). ColBERTv2 takes quantiles instead: for the same bytes, recall@10 of scoring every
passage is .855 with quantiles and .907 with these levels, at 4 bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.threads import spread
from colbert_core.vectors.centroids import NearestCentroids, cluster

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from colbert_core.kernels import ByteRows

NBITS = (1, 2, 4, 8)

# Residuals below this are rounding errors: rounding centroids to float16 and FAISS's splitting of clusters leave .001. Levels
# fitted to such residuals alone would decompress a vector unlike the sample to its nearest centroid. The difference of two
# unrelated unit vectors has a variance of 2 / dim in each component; levels are fitted to that instead.
_ROUNDED = 1e-2
_BITS_TO_SPARE = 8

# K-means looks at so many vectors per centroid.
_PER_CENTROID = 32
_MOST_SAMPLED = 2**20
MOST_CENTROIDS = 2**16
"""Up to so many centroids, a code has 16 bits."""
MOST_LAYERS = 64
"""Of a codec. A collection has four times the tokens of the one before at each of its layers, so it never has 16."""
# Centroids are means of unit vectors, and levels differences of two such vectors; float16 rounds them up by a thousandth.
_LONGEST_CENTROID, _LARGEST_LEVEL = 2.0, 4.0
# What is kept of a vector is its direction, so each is compressed at that of these lengths at which the levels fit best. On the
# vectors of Cranfield 1 - cosine is .0014 instead of .0017 at 4 bits, .0173 instead of .0191 at 2, and .0518 instead of .0545
# at 1; 18 lengths would gain .00005 more at 4 bits. Compressing takes 3.6 us a vector instead of 3.0.
_LENGTHS = np.array([1, 0.8, 0.9, 1.1, 1.2, 1.3], np.float32)
# A thread takes so many vectors at a time.
_PIECE = 2**13
# The levels are fitted to the residuals of so many vectors.
_FITTED_ON = 2**14
_SEED = 12345
SHIFT_STEP = 1 / 256
"""One step of a byte of ``ResidualCodec.shifts``: they hold components up to .5, where .2 is the largest that was seen."""


@dataclass(frozen=True, eq=False)
class ResidualCodec:
    """Centroids and residual levels. Compressed vectors are codes and packed residuals.

    Attributes:
        centroids: *Shape:* (n_centroids, dim), float32, rounded to what float16 can hold.
        levels: *Shape:* (2**nbits,), float32, ascending: the value of each number in a residual.
        layers: position of the first centroid of ``fit`` and of each ``extended``. Centroids of a later layer lie closer
            together.
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
        """The smallest unsigned integer type that can number all centroids."""
        return np.dtype(np.uint16 if len(self.centroids) <= MOST_CENTROIDS else np.uint32)

    @classmethod
    def fit(cls, sample: NDArray[np.float32], n_centroids: int, nbits: int) -> ResidualCodec:
        """Find centroids and levels for vectors like these. The same sample gives the same codec.

        Args:
            sample: *Shape:* (n, dim), float32, unit rows, n at least ``n_centroids``; ``sample_size`` says how many to take.
            n_centroids: at least 1.
            nbits: 1, 2, 4 or 8.
        """
        centroids = cluster(sample, n_centroids)
        vectors = sample[:: max(1, len(sample) // _FITTED_ON)]
        codec = cls(centroids, np.zeros(2**nbits, np.float32))
        residuals = vectors - centroids[codec._nearest.find(vectors)]
        values = residuals.ravel()
        # Where every vector is a centroid, later ones will not be; and 256 levels are enough for vectors that are unlike all of
        # the sample as well, which a sample of few different ones would cut off at a cosine of .86.
        if nbits == _BITS_TO_SPARE or np.abs(values).max() < _ROUNDED:
            unrelated = np.random.default_rng(_SEED).normal(0, math.sqrt(2 / sample.shape[1]), len(values))
            values = np.concatenate([values, unrelated.astype(np.float32)])
        return cls(centroids, lloyd_max(values, 2**nbits))

    def extended(self, sample: NDArray[np.float32], n_centroids: int) -> ResidualCodec:
        """Return a codec for a collection that has grown: more centroids behind the others, for the vectors to come.

        Vectors that are compressed already stay as they are: their codes and residuals mean the same. Decompressing and
        compressing them again would add an error each time: over 2.1 million tokens, doing that twice lowered recall@10 of
        scoring every passage from .973 to .961.

        Args:
            sample: as for ``fit``.
            n_centroids: how many to add.
        """
        added = cluster(sample, n_centroids)
        return ResidualCodec(np.concatenate([self.centroids, added]), self.levels, (*self.layers, len(self.centroids)))

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> ResidualCodec:
        """Make a codec of what ``to_arrays`` returned.

        Raises:
            ValueError: these are not the arrays of a codec, or they are damaged.
        """
        centroids, levels, layers = (arrays.get(name) for name in ("centroids", "levels", "layers"))
        if centroids is None or levels is None or centroids.ndim != 2:
            raise ValueError("it is no codec: it has no centroids and levels")
        if not centroids.size:
            raise ValueError(f"it is no codec: it has {len(centroids)} centroids of dim {centroids.shape[1]}")
        if levels.dtype.kind != "f" or levels.shape not in [(2**nbits,) for nbits in NBITS]:
            raise ValueError(f"its levels are damaged: {levels.dtype} {levels.shape}, not 2, 4, 16 or 256 floating numbers")
        # Written so that a NaN is refused as well: it is neither more nor less than anything.
        if not (np.abs(levels) <= _LARGEST_LEVEL).all() or (levels[1:] < levels[:-1]).any():
            raise ValueError(f"its levels are damaged: {levels!r:.80} do not ascend within {_LARGEST_LEVEL:g} of zero")
        if centroids.dtype.kind != "f":
            raise ValueError(f"its centroids are damaged: they are {centroids.dtype}, not floating numbers")
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.linalg.norm(centroids.astype(np.float32), axis=1)
        if not (lengths <= _LONGEST_CENTROID).all():
            raise ValueError(f"a centroid is damaged: its length is {lengths.max():g}, above {_LONGEST_CENTROID:g}")
        return cls(centroids.astype(np.float32), levels.astype(np.float32), _checked_layers(layers, len(centroids)))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays to store: ``centroids`` float16, ``levels`` float32, ``layers`` int32."""
        layers = np.array(self.layers, np.int32)
        return {"centroids": self.centroids.astype(np.float16), "levels": self.levels, "layers": layers}

    def compress(self, vectors: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Return the codes and the packed residuals of unit vectors.

        Args:
            vectors: *Shape:* (n, dim), float32, unit rows.

        Returns:
            The codes, *Shape:* (n,), ``code_type``; and the residuals, *Shape:* (n, ceil(dim * nbits / 8)), uint8.
        """
        from colbert_core.kernels import building, instruction_set, plain

        nearest = self._nearest.find(vectors)
        packed = np.zeros((len(vectors), row_bytes(self.dim, self.nbits)), np.uint8)
        vectors, centroids, nbits = plain(vectors), self.centroids, self.nbits

        def pack_piece(piece: slice) -> None:
            rows, near = vectors[piece], nearest[piece]
            if nbits < _BITS_TO_SPARE:
                rows = np.empty_like(rows)
                building.stretch(instruction_set(), vectors[piece], near, centroids, self.padded_levels, nbits, _LENGTHS, rows)
            building.pack_residuals(rows, near, centroids, self.levels, nbits, packed[piece])

        spread(pack_piece, pieces(len(vectors)))
        return nearest.astype(self.code_type), packed

    def decompress(self, codes: NDArray[Any], residuals: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the vectors of codes and residuals: centroid plus residual, scaled to length 1.

        Args:
            codes: *Shape:* (n,).
            residuals: *Shape:* (n, ceil(dim * nbits / 8)), uint8.

        Returns:
            *Shape:* (n, dim), float32.

        Raises:
            IndexError: a code names no centroid.
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
        """Return the factors that scale centroid plus residual to length 1, in 32768ths, at most 65535.

        Args:
            codes: *Shape:* (n,), ``code_type``.
            residuals: *Shape:* (n, ceil(dim * nbits / 8)), uint8.

        Returns:
            *Shape:* (n,), uint16.
        """
        from colbert_core.kernels import building, instruction_set, plain

        self.check_codes(codes)
        lengths = np.empty(len(codes), np.uint16)
        building.measure(
            instruction_set(), plain(codes), plain(residuals), self.centroids, self.padded_levels, self.nbits, lengths
        )
        return lengths

    def shifts(self, codes: NDArray[Any], residuals: NDArray[np.uint8], doclens: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Return for each window how far its vectors lie from their centroids in the mean, as bytes.

        The vectors of a window have something in common, which their centroids leave out: of residuals of length .68 in the
        mean, this is .37. So the sum of the query vectors times the shift says what a score by centroids alone lacks: of the
        10 best of 26,000 passages, .95 are among the 64 that score highest with it, and .83 without.

        Args:
            codes: *Shape:* (n,).
            residuals: *Shape:* (n, ceil(dim * nbits / 8)), uint8.
            doclens: *Shape:* (n_windows,), int32, at least 1; tokens of each window.

        Returns:
            *Shape:* (n_windows, dim), uint8: components in steps of ``SHIFT_STEP``, with an offset of 128.

        Raises:
            IndexError: a code names no centroid.
        """
        from colbert_core.kernels import building, instruction_set, plain

        self.check_codes(codes)
        shifts = np.empty((len(doclens), self.dim), np.uint8)
        building.mean_shifts(
            instruction_set(),
            plain(codes.astype(self.code_type, copy=False)),
            plain(residuals),
            plain(doclens),
            self.centroids,
            self.padded_levels,
            self.nbits,
            np.float32(SHIFT_STEP),
            shifts,
        )
        return shifts

    def check_codes(self, codes: NDArray[Any]) -> None:
        """Make sure that every code names a centroid.

        Raises:
            IndexError: one does not.
        """
        lowest, highest = (int(codes.min()), int(codes.max())) if len(codes) else (0, 0)
        if lowest < 0 or highest >= len(self.centroids):
            raise IndexError(f"a code is {lowest if lowest < 0 else highest}, but there are {len(self.centroids)} centroids")

    @cached_property
    def _nearest(self) -> NearestCentroids:
        return NearestCentroids(self.centroids)

    @property
    def rows(self) -> ByteRows:
        """The centroids as bytes; the last one is repeated until their number is a multiple of four."""
        return self._nearest.rows

    @cached_property
    def padded_levels(self) -> NDArray[np.float32]:
        """The levels, followed by 16 zeros, because kernels read 16 levels at a time. *Shape:* (2**nbits + 16,), float32."""
        return np.concatenate([self.levels, np.zeros(16, np.float32)])

    @cached_property
    def largest_byte_error(self) -> float:
        """The most by which centroid plus residual in bytes, ``rows`` and ``byte_levels``, may differ from themselves."""
        rows, (levels, scale) = self.rows, self.byte_levels
        centroids = (rows.rows[: len(self.centroids), : self.dim].astype(np.float32) - 128) * rows.scale
        of_levels = np.abs((levels[: len(self.levels)].astype(np.float32) - 128) * scale - self.levels).max()
        return float(np.linalg.norm(centroids - self.centroids, axis=1).max() + of_levels * math.sqrt(self.dim))

    @cached_property
    def byte_levels(self) -> tuple[NDArray[np.uint8], np.float32]:
        """The levels as bytes with an offset of 128, repeated to *Shape:* (256,); and the value of one step of a byte.

        Of the steps that leave room for the largest level, this is the one that rounds the levels least.
        """
        steps = max(float(np.abs(self.levels).max()), 1e-20) / np.linspace(96, 127, 249)
        errors = [np.abs(self.levels - np.rint(self.levels / step) * step).max() for step in steps]
        scale = np.float32(steps[int(np.argmin(errors))])
        return np.resize((np.rint(self.levels / scale) + 128).astype(np.uint8), 256), scale


def _checked_layers(layers: NDArray[Any] | None, n_centroids: int) -> tuple[int, ...]:
    """Return the starts of the layers, one layer where none are given.

    A search adds up a cosine for each query vector and layer, in integers: their number is bounded so that no sum overflows.

    Raises:
        ValueError: they do not ascend from 0, reach beyond the centroids, or are too many.
    """
    if layers is None:
        return (0,)
    if layers.ndim != 1 or layers.dtype.kind not in "iu" or not 1 <= len(layers) <= MOST_LAYERS:
        raise ValueError(f"its layers are damaged: {layers.dtype} {layers.shape}, not 1 to {MOST_LAYERS} whole numbers")
    starts = tuple(layers.tolist())
    if starts[0] != 0 or starts[-1] >= n_centroids or any(start >= end for start, end in pairwise(starts)):
        raise ValueError(f"its layers are damaged: {starts!r:.80} do not ascend from 0 to below {n_centroids}")
    return starts


def count_centroids(n_tokens: int) -> int:
    """Decide how many centroids a collection gets: the power of two at or below ``8 sqrt(n_tokens)``.

    ColBERTv2's code takes twice as many. Over 2.1 million tokens, half as many are a quarter of the work; scoring every
    passage finds .977 of the exact top 10 instead of .973, and a search finds .975 of that instead of .987. There is never
    more than one centroid for four vectors, and codes stay within 16 bits.
    """
    wanted = min(8 * math.sqrt(max(n_tokens, 1)), max(n_tokens // 4, 1), MOST_CENTROIDS)
    return int(2 ** math.floor(math.log2(wanted)))


def sample_size(n_centroids: int) -> int:
    """Return how many vectors to give to ``ResidualCodec.fit``; more would not help."""
    return min(_PER_CENTROID * n_centroids, _MOST_SAMPLED)


def row_bytes(dim: int, nbits: int) -> int:
    """Return the bytes of one packed residual; the last byte may be partly unused."""
    return -(-dim * nbits // 8)


def pack(numbers: NDArray[np.uint8], nbits: int) -> NDArray[np.uint8]:
    """Put ``8 // nbits`` numbers into each byte: byte ``j`` holds components ``j``, ``j + width``, ``j + 2 width`` and so on.

    Neighbouring components lie in neighbouring bytes, so one shift unpacks many of them at once.

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
    """Find the levels that numbers are rounded to with the least mean squared error: a local minimum, starting at quantiles.

    Lloyd (1982), method I: each cut lies midway between two levels, and each level is the mean of the numbers rounded to it.

    Args:
        values: *Shape:* (n,), float32, n >= 1.
        n_levels: at least 2.

    Returns:
        *Shape:* (n_levels,), float32, ascending.
    """
    ordered = np.sort(values).astype(np.float64)
    sums = np.concatenate([[0], np.cumsum(ordered)])
    levels = np.quantile(ordered, (np.arange(n_levels) + 0.5) / n_levels)
    for _ in range(100):  # 16 levels settle to six digits in about 60 rounds
        cuts = np.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2)
        edges = np.concatenate([[0], cuts, [len(ordered)]])
        counts = np.diff(edges)
        means = np.diff(sums[edges]) / np.maximum(counts, 1)
        levels = np.where(counts > 0, means, levels)
    return np.sort(levels).astype(np.float32)


def pieces(n: int) -> list[slice]:
    """Cut ``range(n)`` into parts that threads can share."""
    return [slice(start, min(start + _PIECE, n)) for start in range(0, n, _PIECE)]
