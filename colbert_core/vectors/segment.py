"""A part of an index that never changes: windows and their vectors, compressed or not. It may lie in a memory map."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.vectors.inverted_lists import InvertedLists

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from colbert_core.kernels import ByteRows
    from colbert_core.types import TokenEmbeddings
    from colbert_core.vectors.codec import ResidualCodec


# The types and numbers of dimensions that the kernels rely on, by the names of the arrays on disk. "rows" are the pids.
_KINDS = {
    "rows": (("<i8",), 1),
    "spans": (("<i4",), 2),
    "doclens": (("<i4",), 1),
    "vectors": (("<f4",), 2),
    "codes": (("<u2", "<u4"), 1),
    "residuals": (("|u1",), 2),
    "lengths": (("<u2",), 1),
    "shifts": (("|u1",), 2),
    "list_centroids": (("<u2", "<u4"), 1),
    "list_offsets": (("<i8",), 1),
    "list_windows": (("<i4",), 1),
}
# Windows are numbered by int32, and pids by int64 with room for those to come.
_MOST_WINDOWS, _LARGEST_PID = 2**31 - 1, 2**62
# Squared lengths of vectors that are checked at a time; and how far a squared length may be from 1, as for an encoder's.
_CHECKED_AT_A_TIME, _LENGTH_ERROR = 2**16, 2e-2


@dataclass(frozen=True, eq=False)
class Segment:
    """Windows in the order of their passages' pids. Either ``vectors``, or ``codes``, ``residuals`` and ``lists``.

    Attributes:
        pids: *Shape:* (n_windows,), int64, ascending; each window's passage, by its number inside the index.
        spans: *Shape:* (n_windows, 2), int32, characters of the passage, half-open.
        doclens: *Shape:* (n_windows,), int32, tokens of each window, at least 1.
        vectors: *Shape:* (n_tokens, dim), float32, unit rows; or None.
        codes: *Shape:* (n_tokens,), uint16 or uint32; or None.
        residuals: *Shape:* (n_tokens, width), uint8; or None.
        lengths: *Shape:* (n_tokens,), uint16, what ``ResidualCodec.inverse_lengths`` gives; or None.
        shifts: *Shape:* (n_windows, dim), uint8, what ``ResidualCodec.shifts`` gives; or None.
        lists: inverted lists of the codes; or None.
    """

    pids: NDArray[np.int64]
    spans: NDArray[np.int32]
    doclens: NDArray[np.int32]
    vectors: NDArray[np.float32] | None = None
    codes: NDArray[Any] | None = None
    residuals: NDArray[np.uint8] | None = None
    lengths: NDArray[np.uint16] | None = None
    shifts: NDArray[np.uint8] | None = None
    lists: InvertedLists | None = None

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], dim: int, codec: ResidualCodec | None) -> Segment:
        """Make a segment of what ``merged_arrays`` gave, perhaps by way of a file.

        Raises:
            ValueError: arrays are missing or do not fit together. Only arrays with a number for each window are read.
        """
        # A memory map is an array that takes 5 us longer to index; what lies under it stays mapped.
        arrays = {name: np.asarray(array) for name, array in arrays.items()}
        for name, array in arrays.items():
            types, n_dimensions = _KINDS.get(name, ((array.dtype.str,), array.ndim))
            if array.dtype.str not in types or array.ndim != n_dimensions:
                raise ValueError(f"its {name} are {array.dtype} {array.shape}")
        try:
            pids, spans, doclens = arrays["rows"], arrays["spans"], arrays["doclens"]
            if codec is None:
                segment = cls(pids, spans, doclens, vectors=arrays["vectors"])
                tokens, shape = arrays["vectors"], (dim,)
            else:
                lists = InvertedLists(arrays["list_centroids"], arrays["list_offsets"], arrays["list_windows"])
                codes, tokens, shape = arrays["codes"], arrays["residuals"], (-(-dim * codec.nbits // 8),)
                if not len(codes) == len(arrays["lengths"]) == len(tokens) or len(lists.offsets) != len(lists.centroids) + 1:
                    raise ValueError("its arrays differ in length")
                lengths, shifts = arrays["lengths"], arrays.get("shifts")
                segment = cls(pids, spans, doclens, codes=codes, residuals=tokens, lengths=lengths, shifts=shifts, lists=lists)
        except KeyError as error:
            raise ValueError(f"it has no array {error}") from None
        shifts_shape = (len(pids), dim) if segment.shifts is None else segment.shifts.shape
        n = len(pids)
        if (len(doclens), spans.shape, shifts_shape, tokens.shape[1:]) != (n, (n, 2), (n, dim), shape):
            raise ValueError("its arrays differ in length")
        if (pids[1:] < pids[:-1]).any() or (doclens < 1).any() or int(doclens.sum(dtype=np.int64)) != len(tokens):
            raise ValueError("its windows are damaged")
        if len(pids) > _MOST_WINDOWS or (len(pids) and not 0 <= int(pids[0]) <= int(pids[-1]) < _LARGEST_PID):
            raise ValueError(f"its {len(pids)} windows are of passages {pids[:1]} to {pids[-1:]}")
        if (spans[:, 0] < 0).any() or (spans[:, 1] < spans[:, 0]).any():
            raise ValueError("the characters of a window end before they begin")
        return segment

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """Where the tokens of each window end. *Shape:* (n_windows,)."""
        return np.cumsum(self.doclens, dtype=np.int64)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where the tokens of each window begin, and the last ones end. *Shape:* (n_windows + 1,)."""
        return np.concatenate([np.zeros(1, np.int64), self.ends])

    @cached_property
    def has_one_window_each(self) -> bool:
        """Whether no passage has several windows."""
        return bool((np.diff(self.pids) > 0).all())

    # What the kernels read: views of the same memory, and the largest code, which tells whether every code is a centroid's.

    @cached_property
    def plain_pids(self) -> NDArray[np.int64]:
        """``pids`` for the kernels."""
        return _plain(self.pids)

    @cached_property
    def plain_codes(self) -> NDArray[Any]:
        """``codes`` for the kernels."""
        return _plain(self.codes)

    @cached_property
    def plain_residuals(self) -> NDArray[np.uint8]:
        """``residuals`` for the kernels."""
        return _plain(self.residuals)

    @cached_property
    def plain_lengths(self) -> NDArray[np.uint16]:
        """``lengths`` for the kernels."""
        return _plain(self.lengths)

    def plain_shifts(self, codec: ResidualCodec) -> NDArray[np.uint8]:
        """``shifts`` for the kernels. Segments that were written before there were any have them computed, once."""
        if (kept := self._plain_shifts.get("shifts")) is None:
            kept = self._plain_shifts["shifts"] = _plain(self.with_shifts(codec).shifts)
        return kept

    @cached_property
    def _plain_shifts(self) -> dict[str, NDArray[np.uint8]]:
        return {}

    def with_shifts(self, codec: ResidualCodec) -> Segment:
        """The same segment with ``shifts``."""
        if self.shifts is not None or self.codes is None or self.residuals is None:
            return self
        return replace(self, shifts=codec.shifts(self.codes, self.residuals, self.doclens))

    @cached_property
    def plain_vectors(self) -> NDArray[np.float32]:
        """``vectors`` for the kernels."""
        return _plain(self.unit_vectors)

    @cached_property
    def unit_vectors(self) -> NDArray[np.float32]:
        """``vectors``, looked through once: a NaN would spoil the order of all that is found, and a long one come first.

        Raises:
            IndexError: one has not length 1; the file is damaged.
        """
        assert self.vectors is not None
        for start in range(0, len(self.vectors), _CHECKED_AT_A_TIME):
            _check_lengths(self.vectors[start : start + _CHECKED_AT_A_TIME])
        return self.vectors

    @cached_property
    def byte_rows(self) -> ByteRows:
        """``vectors`` as bytes, in memory: a quarter of their size."""
        from colbert_core.kernels import ByteRows

        return ByteRows.of(self.plain_vectors)

    @cached_property
    def largest_stretch(self) -> float:
        """The largest factor that scales centroid plus residual to length 1; infinite if ``lengths`` could not hold one."""
        largest = int(self.plain_lengths.max(initial=0))
        return largest / 32768 if largest < np.iinfo(np.uint16).max else math.inf

    @cached_property
    def largest_code(self) -> int:
        """The largest of the codes, -1 if there is none."""
        return int(self.plain_codes.max()) if len(self.plain_codes) else -1

    def check(self, n_centroids: int) -> None:
        """Make sure of everything that a search checks at first use.

        Args:
            n_centroids: centroids of the codec; 0 where there is none.

        Raises:
            IndexError: a vector has not length 1, a code names no centroid, or a list leads nowhere; the file is damaged.
        """
        if self.lists is None:
            _ = self.unit_vectors
            return
        self.check_codes(n_centroids)
        self.lists.check(n_centroids, len(self.pids))

    def check_codes(self, n_centroids: int) -> None:
        """Make sure that every code names a centroid; the codes are read once.

        Raises:
            IndexError: one does not.
        """
        if self.largest_code >= n_centroids:
            raise IndexError(f"a code is {self.largest_code}, but there are {n_centroids} centroids")

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest window."""
        return int(self.doclens.max()) if len(self.doclens) else 0

    @property
    def n_tokens(self) -> int:
        """Tokens of all windows."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def tokens_of(self, windows: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """The token numbers of these windows, one window after the other."""
        doclens = self.doclens[windows].astype(np.int64)
        firsts = self.ends[windows] - doclens
        shifts = firsts - (np.cumsum(doclens) - doclens)
        tokens: NDArray[np.int64] = np.arange(int(doclens.sum()), dtype=np.int64) + np.repeat(shifts, doclens)
        return tokens

    def vectors_of(self, tokens: NDArray[np.int64] | slice, codec: ResidualCodec | None) -> NDArray[np.float32]:
        """The vectors of these tokens, decompressed where they are compressed. *Shape:* (n, dim), float32.

        Raises:
            IndexError: there is no centroid for a code, or a vector has not length 1; the file is damaged.
        """
        if self.vectors is not None:
            vectors = self.vectors[tokens]
            _check_lengths(vectors)
            return vectors
        assert codec is not None and self.codes is not None and self.residuals is not None
        return codec.decompress(self.codes[tokens], self.residuals[tokens])

    def windows_of(self, pids: NDArray[np.int64]) -> NDArray[np.intp]:
        """The windows of these passages. *Shape:* (n,), ascending.

        Args:
            pids: *Shape:* (m,), ascending.
        """
        firsts, ends = (np.searchsorted(self.pids, pids, side=side) for side in ("left", "right"))
        counts = ends - firsts
        windows: NDArray[np.intp] = np.arange(counts.sum()) + np.repeat(firsts - (np.cumsum(counts) - counts), counts)
        return windows

    def find(self, pids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which windows are of these passages. *Shape:* (n_windows,), bool.

        Args:
            pids: *Shape:* (m,), ascending.
        """
        is_theirs = np.zeros(len(self.pids), np.bool_)
        is_theirs[self.windows_of(pids)] = True
        return is_theirs


def _check_lengths(vectors: NDArray[np.float32]) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("td,td->t", vectors, vectors)
        is_unit = np.abs(squares - 1) <= _LENGTH_ERROR  # False for a NaN as well
    if not is_unit.all():
        raise IndexError(f"a vector is not finite or not of length 1 (squared {squares[int(is_unit.argmin())]:g})")


def _plain(array: NDArray[Any] | None) -> NDArray[Any]:
    from colbert_core.kernels import plain  # here, because a small index needs no kernels

    assert array is not None
    return plain(array)


def as_segment(embeddings: TokenEmbeddings) -> Segment:
    """Make a segment of token embeddings; their ``owners`` are the pids."""
    return Segment(
        pids=embeddings.owners.astype(np.int64),
        spans=embeddings.window_spans.astype(np.int32),
        doclens=embeddings.doclens.astype(np.int32),
        vectors=embeddings.vectors,
    )


def merged_arrays(parts: Sequence[tuple[Segment, NDArray[np.bool_]]]) -> dict[str, list[NDArray[Any]]]:
    """Merge the chosen windows of several segments into the arrays of one.

    Each array comes in pieces. All segments are compressed by one codec, or none is.

    Args:
        parts: segments in the order of their pids, each with the windows to take, *Shape:* (n_windows,), bool.
    """
    arrays: dict[str, list[NDArray[Any]]] = {"rows": [], "spans": [], "doclens": []}
    for segment, kept in parts:
        arrays["rows"].append(segment.pids[kept])
        arrays["spans"].append(segment.spans[kept])
        arrays["doclens"].append(segment.doclens[kept])
        tokens = slice(None) if kept.all() else segment.tokens_of(np.flatnonzero(kept))
        for name in ("vectors",) if segment.vectors is not None else ("codes", "residuals", "lengths"):
            arrays.setdefault(name, []).append(getattr(segment, name)[tokens])
        if segment.shifts is not None:
            arrays.setdefault("shifts", []).append(segment.shifts[kept])
    if "codes" in arrays:
        widest = np.result_type(*arrays["codes"])  # 16 bits are enough until a codec has more than 65,536 centroids
        arrays["codes"] = [codes.astype(widest, copy=False) for codes in arrays["codes"]]
        lists = InvertedLists.build(np.concatenate(arrays["codes"]), np.concatenate(arrays["doclens"]))
        arrays["list_centroids"] = [lists.centroids]
        arrays["list_offsets"] = [lists.offsets]
        arrays["list_windows"] = [lists.windows]
    return arrays


def merged_segment(parts: Sequence[tuple[Segment, NDArray[np.bool_]]]) -> Segment:
    """Merge the chosen windows of several segments into one, in memory; the arguments are those of ``merged_arrays``."""
    arrays: dict[str, Any] = {name: np.concatenate(pieces) for name, pieces in merged_arrays(parts).items()}
    lists = [arrays.pop(name, None) for name in ("list_centroids", "list_offsets", "list_windows")]
    return Segment(pids=arrays.pop("rows"), lists=None if lists[0] is None else InvertedLists(*lists), **arrays)
