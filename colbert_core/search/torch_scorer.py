"""Score one query against the segments of a snapshot on a GPU: PyTorch chooses, and the kernels score what it chose.

A GPU scores every window sooner than lists could tell which to leave out, so nothing is probed. Importing this imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch

from colbert_core.devices import as_device
from colbert_core.kernels import plain
from colbert_core.search.kernel_scorer import KernelScorer
from colbert_core.threads import new_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from colbert_core.vectors.codec import ResidualCodec
    from colbert_core.vectors.segment import Segment

# Tokens scored at a time: 200 MB of a GPU at 128 components, 4 bits and 32 query vectors.
_TOKENS_AT_A_TIME = 2**18
# With more query vectors than this, fewer tokens are taken at a time.
_USUAL_QUERY = 32
# Devices that multiply in float16; others in float32.
_HALVED = frozenset({"cuda"})
# Roundings to that type in a product: of a vector's components, of the query's, of the result, and one to spare for sums in it.
_ROUNDINGS = 4
_HALF_ROUNDING = 2.0**-11
_FLOAT_ROUNDING = 2.0**-24


class TorchScorer:
    """Scores with PyTorch roughly, and with the compiled kernels exactly, so that scores are the same as without a GPU.

    What a segment holds is moved to the device the first time, and stays there as long as the segment is in use.

    Attributes:
        margin: how far the rough scores of two windows may be wrong to each other. It is a bound, not an estimate, so the
            passages that score best are among those within it of the k-th best, and the result is that of scoring everything
            exactly. With n_q query vectors two scores have 2 n_q cosines. Each loses to float16 at most ``_ROUNDINGS`` times
            2**-11, times what is multiplied in float16: all of a vector (1), or its residual (its length over the vector's,
            at most ``stretch``). Sums of float32 lose at most 2**-24 for each term, here and in the exact score.
    """

    def __init__(
        self, segments: Sequence[Segment], codec: ResidualCodec | None, query: NDArray[np.float32], device: str
    ) -> None:
        """Move what is not there yet.

        Args:
            segments: ``codec`` has compressed all of them, or none.
            codec: None where the vectors are kept as they are.
            query: *Shape:* (n_q, dim), float32, unit rows.
            device: "cuda", "cuda:1"; "cpu" computes the same, to be tested without a GPU.

        Raises:
            ValueError: the device is not there, or is of another kind.
            IndexError: there is no centroid for a code; the file is damaged.
        """
        self._device = resolved_device(device)
        self._segments = segments
        self._exact = KernelScorer(segments, codec, query)
        rows = torch.from_numpy(plain(query)).to(self._device)
        if codec is None:
            self._held = [_segments.get(segment, self._device, _move_vectors) for segment in segments]
        else:
            for segment in segments:  # a GPU that is led beyond an array is of no use to the process any more
                segment.check_codes(len(codec.centroids))
            tables = _codecs.get(codec, self._device, _move_codec)
            self._levels = tables.levels.to(_float_type(self._device))
            # float32 may be TF32 by the user's settings, float64 may not.
            self._cosines = (tables.centroids.double() @ rows.double().T).float()  # (n_centroids, n_q)
            rows = _as_packed(rows, tables.levels.shape[1])
            self._held = [
                _segments.get(segment, self._device, lambda moved, where: _move_codes(moved, tables, where))
                for segment in segments
            ]
        self._query = rows.to(_float_type(self._device)).T.contiguous()  # (width, n_q)
        (n_q, dim), stretch = query.shape, max((held.stretch for held in self._held), default=0.0)
        rounding = _HALF_ROUNDING if self._query.dtype == torch.float16 else _FLOAT_ROUNDING
        sums = 2 * (dim + n_q + 4) * _FLOAT_ROUNDING * (1 + 2 * stretch)
        self.margin = 2 * n_q * (_ROUNDINGS * rounding * stretch + sums)

    def roughly(self, number: int, windows: NDArray[np.int32]) -> NDArray[np.float32]:
        """Score some windows of a segment on the device. *Shape:* (n,), float32."""
        segment, held = self._segments[number], self._held[number]
        if 2 * len(windows) > len(segment.pids):  # to score the others as well takes less time than to go around them
            scores = [self._scores(held, piece, tokens) for piece, tokens in _pieces(segment.doclens, self._query.shape[1])]
            return self._gather(scores)[windows]
        places = torch.from_numpy(windows.astype(np.int64)).to(self._device)
        pieces = _pieces(segment.doclens[windows], self._query.shape[1])
        return self._gather([self._scores(held, places[piece], tokens) for piece, tokens in pieces])

    def exactly(self, number: int, windows: NDArray[np.int32]) -> NDArray[np.float32]:
        """Score some windows by the kernels, each the same whatever is scored beside it. *Shape:* (n,), float32."""
        return self._exact.exactly(number, windows)

    def _scores(self, held: _Held, windows: slice | torch.Tensor, tokens: slice) -> torch.Tensor:
        """Score some windows; ``tokens`` are theirs if they follow each other. *Shape:* (n,), float32."""
        doclens, n_tokens = held.doclens[windows], tokens.stop - tokens.start
        owners = torch.repeat_interleave(doclens, output_size=n_tokens)  # (n_tokens,), from 0
        chosen: slice | torch.Tensor = tokens
        if isinstance(windows, torch.Tensor):
            shifts = held.starts[windows] - (doclens.cumsum(0) - doclens)
            chosen = torch.arange(n_tokens, device=self._device) + shifts[owners]
        products = self._products(held, chosen)  # (n_tokens, n_q)
        best = torch.full((len(doclens), products.shape[1]), -(2**31), dtype=torch.int32, device=self._device)
        best.scatter_reduce_(0, owners[:, None].expand_as(products), _as_ordered(products), "amax")
        return _as_ordered(best).view(torch.float32).sum(dim=1)

    def _products(self, held: _Held, tokens: slice | torch.Tensor) -> torch.Tensor:
        """Cosines of these tokens and the query's. *Shape:* (n_tokens, n_q), float32."""
        if held.vectors is not None:
            return (held.vectors[tokens] @ self._query).float()
        assert held.codes is not None and held.residuals is not None and held.inverses is not None
        residuals = _unpack(held.residuals[tokens], self._levels).flatten(1)  # (n_tokens, width)
        whole = (residuals @ self._query).float()
        return whole.add_(self._cosines.index_select(0, held.codes[tokens])).mul_(held.inverses[tokens, None])

    def _gather(self, scores: list[torch.Tensor]) -> NDArray[np.float32]:
        if not scores:
            return np.empty(0, np.float32)
        gathered: NDArray[np.float32] = torch.cat(scores).cpu().numpy()
        return gathered


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """A segment on a device.

    Attributes:
        starts: *Shape:* (n_windows,), int64, where the tokens of each window begin.
        doclens: *Shape:* (n_windows,), int64.
        stretch: the greatest ratio of the length of what is multiplied to the length of its vector.
        vectors: *Shape:* (n_tokens, dim), float16 or float32; or None.
        codes: *Shape:* (n_tokens,), int32, since torch does not index by uint16; or None.
        residuals: *Shape:* (n_tokens, packed), uint8; or None.
        inverses: *Shape:* (n_tokens,), float32, multiplies the sum of centroid and residual to length 1; or None. Those that
            the segment keeps end at 2, which a few short vectors exceed.
    """

    starts: torch.Tensor
    doclens: torch.Tensor
    stretch: float
    vectors: torch.Tensor | None = None
    codes: torch.Tensor | None = None
    residuals: torch.Tensor | None = None
    inverses: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Tables:
    """A codec on a device.

    Attributes:
        centroids: *Shape:* (n_centroids, dim), float32.
        levels: *Shape:* (256, 8 / nbits), float32: for each byte what the numbers in it stand for.
    """

    centroids: torch.Tensor
    levels: torch.Tensor


K = TypeVar("K")
V = TypeVar("V")


class _Cache(Generic[K, V]):
    """Keeps what was moved to a device for as long as the original is in use."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._held: WeakKeyDictionary[K, dict[torch.device, V]] = WeakKeyDictionary()

    def get(self, key: K, device: torch.device, move: Callable[[K, torch.device], V]) -> V:
        """Return what ``move`` returns, or returned before. Others wait meanwhile: to move it twice might fill the device."""
        with self._lock:
            held = self._held.setdefault(key, {})
            if device not in held:
                held[device] = move(key, device)
            return held[device]


# A codec that extends that of a segment leaves what was computed by it as it is.
_segments: _Cache[Segment, _Held] = _Cache()
_codecs: _Cache[ResidualCodec, _Tables] = _Cache()


def resolved_device(device: str) -> torch.device:
    """Return a device that is there, with its number.

    Raises:
        ValueError: it is not there, or is of another kind.
    """
    resolved = torch.empty(0, device=as_device(device)).device
    if resolved.type not in ("cuda", "cpu"):
        raise ValueError(f"device={device!r} is of no use to a search; it must be 'cuda', one of its devices, or 'cpu'.")
    return resolved


def _float_type(device: torch.device) -> torch.dtype:
    return torch.float16 if device.type in _HALVED else torch.float32


def _move(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(plain(array)).to(device)


def _move_windows(segment: Segment, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return _move(segment.offsets[:-1], device), _move(segment.doclens.astype(np.int64), device)


def _move_vectors(segment: Segment, device: torch.device) -> _Held:
    assert segment.vectors is not None
    vectors = torch.empty(segment.vectors.shape, dtype=_float_type(device), device=device)
    for start in range(0, len(vectors), _TOKENS_AT_A_TIME):  # the device need not have room for float32 of all
        chunk = slice(start, start + _TOKENS_AT_A_TIME)
        vectors[chunk] = _move(segment.plain_vectors[chunk], device)
    return _Held(*_move_windows(segment, device), 1.0, vectors=vectors)


def _move_codec(codec: ResidualCodec, device: torch.device) -> _Tables:
    shifts = np.arange(0, 8, codec.nbits)
    numbers = np.arange(256)[:, None] >> shifts & (1 << codec.nbits) - 1
    return _Tables(_move(codec.centroids, device), _move(codec.levels[numbers], device))


def _move_codes(segment: Segment, tables: _Tables, device: torch.device) -> _Held:
    codes, residuals = _move(segment.plain_codes.astype(np.int32), device), _move(segment.plain_residuals, device)
    dim = tables.centroids.shape[1]
    inverses = torch.empty(len(codes), device=device)
    stretch = 0.0
    for start in range(0, len(codes), _TOKENS_AT_A_TIME):
        chunk = slice(start, start + _TOKENS_AT_A_TIME)
        parts = _unpack(residuals[chunk], tables.levels).mT.flatten(1)[:, :dim]
        lengths = torch.linalg.vector_norm(parts + tables.centroids.index_select(0, codes[chunk]), dim=1)
        # Where centroid and residual cancel out the vector is one of zeros.
        inverses[chunk] = torch.where(lengths > 0, 1 / lengths, 0)
        stretch = max(stretch, float((torch.linalg.vector_norm(parts, dim=1) * inverses[chunk]).max()))
    return _Held(*_move_windows(segment, device), stretch, codes=codes, residuals=residuals, inverses=inverses)


def _unpack(residuals: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Unpack residuals by looking up whole bytes. *Shape:* (n, packed) to (n, packed, 8 / nbits)."""
    return torch.nn.functional.embedding(residuals.int(), levels)


def _as_packed(query: torch.Tensor, slots: int) -> torch.Tensor:
    """Put the components of query vectors in the order of ``_unpack``, so that residuals need no reordering.

    Args:
        query: *Shape:* (n_q, dim).
        slots: how many numbers a byte holds; number s of byte j is component ``s packed + j``.

    Returns:
        *Shape:* (n_q, packed slots), zeros where bytes have numbers beyond dim.
    """
    packed = -(-query.shape[1] // slots)
    filled = torch.nn.functional.pad(query, (0, packed * slots - query.shape[1]))
    return filled.view(len(query), slots, packed).mT.flatten(1)


def _as_ordered(numbers: torch.Tensor) -> torch.Tensor:
    """Turn floats into integers in the same order, and back: a GPU finds maxima of integers at once, of floats by retrying.

    Args:
        numbers: *Shape:* any, float32; or int32, which this function returned.

    Returns:
        int32; the bits of the floats where it was given its own result.
    """
    bits = numbers.view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _pieces(doclens: NDArray[np.int32], n_q: int) -> Iterator[tuple[slice, slice]]:
    """Cut windows into pieces to score at a time, at least one window each, with their tokens if they follow each other.

    Args:
        doclens: *Shape:* (n_windows,).
        n_q: number of query vectors.
    """
    most = _TOKENS_AT_A_TIME * _USUAL_QUERY // max(n_q, _USUAL_QUERY)
    ends = np.cumsum(doclens, dtype=np.int64)
    first = start = 0
    while first < len(ends):
        last = max(first + 1, int(np.searchsorted(ends, start + most, side="right")))
        end = int(ends[last - 1])
        yield slice(first, last), slice(start, end)
        first, start = last, end
