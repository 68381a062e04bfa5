"""Inverted lists: for each centroid, the windows with a token whose nearest centroid it is. Arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class InvertedLists:
    """The lists of all centroids that occur, one after the other.

    PLAID (Santhanam et al., CIKM 2022), section 4.2, lists passages instead of tokens, because these lists are shorter. Here
    they list windows.

    Attributes:
        centroids: *Shape:* (m,), ascending; the centroids that have a list.
        offsets: *Shape:* (m + 1,), int64, ascending; list ``i`` is ``windows[offsets[i]:offsets[i + 1]]``, never empty.
        windows: *Shape:* (n,), int32; each list ascends and names no window twice.
    """

    centroids: NDArray[Any]
    offsets: NDArray[np.int64]
    windows: NDArray[np.int32]
    _expanded: dict[int, tuple[NDArray[np.int64], NDArray[np.int32]]] = field(default_factory=dict, repr=False)

    @classmethod
    def build(cls, codes: NDArray[Any], doclens: NDArray[np.int32]) -> InvertedLists:
        """Invert the codes of windows.

        Args:
            codes: *Shape:* (n_tokens,), the centroid of each token.
            doclens: *Shape:* (n_windows,), the number of tokens of each window.
        """
        order = np.argsort(codes, kind="stable")  # a stable sort: among equal codes, windows ascend
        windows = np.repeat(np.arange(len(doclens), dtype=np.int32), doclens)[order]
        codes = codes[order]
        is_new = np.ones(len(codes), np.bool_)
        is_new[1:] = (codes[1:] != codes[:-1]) | (windows[1:] != windows[:-1])
        windows, codes = windows[is_new], codes[is_new]
        starts = np.flatnonzero(np.diff(codes, prepend=codes[:1] + 1)) if len(codes) else np.empty(0, np.int64)
        return cls(codes[starts], np.append(starts, len(codes)).astype(np.int64), windows)

    def by_centroid(self, n_centroids: int, n_windows: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return the lists as the kernels read them: where the list of every centroid begins, and ``windows``.

        Args:
            n_centroids: centroids of the codec. There may be more of them than when the lists were built, never fewer.
            n_windows: windows of the segment.

        Returns:
            *Shape:* (n_centroids + 1,), int64; and ``windows``.

        Raises:
            IndexError: a list leads nowhere; the file is damaged.
        """
        expanded = self._expanded.get(n_centroids)
        if expanded is None:
            from colbert_core.kernels import plain

            self.check(n_centroids, n_windows)
            counts = np.zeros(n_centroids + 1, np.int64)
            counts[self.centroids.astype(np.int64) + 1] = np.diff(self.offsets)
            expanded = np.cumsum(counts), plain(self.windows)
            self._expanded.clear()
            self._expanded[n_centroids] = expanded
        return expanded

    def check(self, n_centroids: int, n_windows: int) -> None:
        """Make sure that every list is of a centroid and names windows, each once and in order.

        Args:
            n_centroids: centroids of the codec.
            n_windows: windows of the segment.

        Raises:
            IndexError: a list leads nowhere; the file is damaged.
        """
        centroids, offsets, windows = self.centroids, self.offsets, self.windows
        # Compare instead of subtracting: differences of damaged numbers may wrap around and look right.
        if (centroids[1:] <= centroids[:-1]).any() or (len(centroids) and int(centroids[-1]) >= n_centroids):
            raise IndexError(f"the lists are not those of {n_centroids} centroids in their order")
        if offsets[0] != 0 or offsets[-1] != len(windows) or (offsets[1:] <= offsets[:-1]).any():
            raise IndexError("the lists do not fit together")
        if len(windows) and not 0 <= int(windows.min()) <= int(windows.max()) < n_windows:
            raise IndexError(f"a list names window {int(windows.max())} of {n_windows}")
        ascends = windows[1:] > windows[:-1]
        ascends[offsets[1:-1] - 1] = True  # from one list to the next
        if not ascends.all():
            raise IndexError("a list names a window twice, or out of order")

    def reaching(self, allowed: NDArray[np.bool_]) -> NDArray[Any]:
        """Return the centroids whose list names an allowed window. The lists have been checked.

        Args:
            allowed: *Shape:* (n_windows,), bool.
        """
        if not len(self.centroids):
            return self.centroids
        return self.centroids[np.logical_or.reduceat(allowed[self.windows], self.offsets[:-1])]
