"""A part of an index that never changes: windows with their vectors, compressed or not. It may lie in a memory map."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.ivf import InvertedLists

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from colbert_core.codec import ResidualCodec
    from colbert_core.types import TokenEmbeddings


@dataclass(frozen=True, eq=False)
class Segment:
    """Windows in the order of their passages' rows. Either ``vectors``, or ``codes``, ``residuals`` and ``lists``.

    Attributes:
        rows: *Shape:* (n_windows,), int64, ascending; each window's passage.
        spans: *Shape:* (n_windows, 2), int32, characters of the passage, half-open.
        doclens: *Shape:* (n_windows,), int32, tokens of each window, at least 1.
        vectors: *Shape:* (n_tokens, dim), float32, unit rows; or None.
        codes: *Shape:* (n_tokens,), uint16 or uint32; or None.
        residuals: *Shape:* (n_tokens, width), uint8; or None.
        lists: of the codes; or None.
    """

    rows: NDArray[np.int64]
    spans: NDArray[np.int32]
    doclens: NDArray[np.int32]
    vectors: NDArray[np.float32] | None = None
    codes: NDArray[Any] | None = None
    residuals: NDArray[np.uint8] | None = None
    lists: InvertedLists | None = None

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], dim: int, codec: ResidualCodec | None) -> Segment:
        """What ``merged_arrays`` gave, perhaps by way of a file.

        Raises:
            ValueError: arrays are missing or do not fit together. Only what has a number per window is read.
        """
        try:
            rows, spans, doclens = arrays["rows"], arrays["spans"], arrays["doclens"]
            if codec is None:
                segment = cls(rows, spans, doclens, vectors=arrays["vectors"])
                tokens, shape = arrays["vectors"], (dim,)
            else:
                lists = InvertedLists(arrays["list_centroids"], arrays["list_offsets"], arrays["list_windows"])
                segment = cls(rows, spans, doclens, codes=arrays["codes"], residuals=arrays["residuals"], lists=lists)
                tokens, shape = arrays["residuals"], (-(-dim * codec.nbits // 8),)
                if len(arrays["codes"]) != len(tokens) or len(lists.offsets) != len(lists.centroids) + 1:
                    raise ValueError("its arrays differ in length")
        except KeyError as error:
            raise ValueError(f"it has no array {error}") from None
        if len(doclens) != len(rows) or spans.shape != (len(rows), 2) or tokens.shape[1:] != shape:
            raise ValueError("its arrays differ in length")
        if (np.diff(rows) < 0).any() or (doclens < 1).any() or int(doclens.sum(dtype=np.int64)) != len(tokens):
            raise ValueError("its windows are damaged")
        return segment

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """Where the tokens of each window end. *Shape:* (n_windows,)."""
        return np.cumsum(self.doclens, dtype=np.int64)

    @property
    def n_tokens(self) -> int:
        """Tokens of all windows."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def tokens_of(self, windows: NDArray[np.intp]) -> NDArray[np.int64]:
        """The token numbers of these windows, one window after the other."""
        doclens = self.doclens[windows].astype(np.int64)
        firsts = self.ends[windows] - doclens
        shifts = firsts - (np.cumsum(doclens) - doclens)
        tokens: NDArray[np.int64] = np.arange(int(doclens.sum()), dtype=np.int64) + np.repeat(shifts, doclens)
        return tokens

    def vectors_of(self, tokens: NDArray[np.int64] | slice, codec: ResidualCodec | None) -> NDArray[np.float32]:
        """The vectors of these tokens, decompressed if need be. *Shape:* (n, dim), float32.

        Raises:
            IndexError: a code is no centroid's; the file is damaged.
        """
        if self.vectors is not None:
            return self.vectors[tokens]
        assert codec is not None and self.codes is not None and self.residuals is not None
        return codec.decompress(self.codes[tokens], self.residuals[tokens])

    def windows_of(self, rows: NDArray[np.int64]) -> NDArray[np.intp]:
        """The windows of these passages. *Shape:* (n,), ascending.

        Args:
            rows: *Shape:* (m,), ascending.
        """
        firsts, ends = (np.searchsorted(self.rows, rows, side=side) for side in ("left", "right"))
        counts = ends - firsts
        windows: NDArray[np.intp] = np.arange(counts.sum()) + np.repeat(firsts - (np.cumsum(counts) - counts), counts)
        return windows

    def find(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which windows are of these passages. *Shape:* (n_windows,), bool.

        Args:
            rows: *Shape:* (m,), ascending.
        """
        found = np.zeros(len(self.rows), np.bool_)
        found[self.windows_of(rows)] = True
        return found


def as_segment(embeddings: TokenEmbeddings) -> Segment:
    """Token embeddings as a segment; the rows are their ``owners``."""
    return Segment(
        rows=embeddings.owners.astype(np.int64),
        spans=embeddings.window_spans.astype(np.int32),
        doclens=embeddings.doclens.astype(np.int32),
        vectors=embeddings.vectors,
    )


def merged_arrays(parts: Sequence[tuple[Segment, NDArray[np.bool_]]]) -> dict[str, list[NDArray[Any]]]:
    """The chosen windows of several segments as the arrays of one, each in pieces; all compressed by one codec, or none.

    Args:
        parts: segments in the order of their rows, each with the windows to take, *Shape:* (n_windows,), bool.
    """
    arrays: dict[str, list[NDArray[Any]]] = {"rows": [], "spans": [], "doclens": []}
    for segment, kept in parts:
        arrays["rows"].append(segment.rows[kept])
        arrays["spans"].append(segment.spans[kept])
        arrays["doclens"].append(segment.doclens[kept])
        tokens = slice(None) if kept.all() else segment.tokens_of(np.flatnonzero(kept))
        for name in ("vectors",) if segment.vectors is not None else ("codes", "residuals"):
            arrays.setdefault(name, []).append(getattr(segment, name)[tokens])
    if "codes" in arrays:
        widest = np.result_type(*arrays["codes"])  # 16 bits are enough until a codec has more than 65,536 centroids
        arrays["codes"] = [codes.astype(widest, copy=False) for codes in arrays["codes"]]
        lists = InvertedLists.build(np.concatenate(arrays["codes"]), np.concatenate(arrays["doclens"]))
        arrays["list_centroids"] = [lists.centroids]
        arrays["list_offsets"] = [lists.offsets]
        arrays["list_windows"] = [lists.windows]
    return arrays
