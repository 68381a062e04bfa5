"""Inverted lists: for each centroid, the windows with a token whose nearest centroid it is. Arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


# Lists of more windows are not checked as a whole by a search, which checks what it reads: at a million passages that would be
# .4 GB to read before the first answer.
_CHECKED_AS_A_WHOLE = 2**22


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
    _checked: set[int] = field(default_factory=set, repr=False)

    @classmethod
    def build(cls, codes: NDArray[Any], doclens: NDArray[np.int32]) -> InvertedLists:
        """Invert the codes of windows.

        Args:
            codes: *Shape:* (n_tokens,), the centroid of each token.
            doclens: *Shape:* (n_windows,), the number of tokens of each window.
        """
        from colbert_core.kernels import building, plain

        codes, doclens = plain(codes), plain(doclens)
        n_centroids = int(codes.max()) + 1 if len(codes) else 0
        last, counts = np.full(n_centroids, -1, np.int32), np.zeros(n_centroids, np.int64)
        building.count_listed(codes, doclens, last, counts)
        starts = np.cumsum(counts) - counts
        windows = np.empty(int(counts.sum()), np.int32)
        last[:] = -1
        building.list_windows(codes, doclens, last, starts.copy(), windows)
        occur = np.flatnonzero(counts)
        return cls(occur.astype(codes.dtype), np.append(starts[occur], len(windows)), windows)

    def by_centroid(
        self, n_centroids: int, n_windows: int, *, checked: bool = True
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return the lists as the kernels read them: where the list of every centroid begins, and ``windows``.

        Args:
            n_centroids: centroids of the codec. There may be more of them than when the lists were built, never fewer.
            n_windows: windows of the segment.
            checked: make sure of all windows; else, of long lists, only that each has a place, and the kernel has to look.

        Returns:
            *Shape:* (n_centroids + 1,), int64; and ``windows``.

        Raises:
            IndexError: a list leads nowhere; the file is damaged.
        """
        expanded = self._expanded.get(n_centroids)
        if expanded is None:
            from colbert_core.kernels import plain

            self._check_places(n_centroids)
            counts = np.zeros(n_centroids + 1, np.int64)
            counts[self.centroids.astype(np.int64) + 1] = np.diff(self.offsets)
            expanded = np.cumsum(counts), plain(self.windows)
            self._expanded.clear()
            self._expanded[n_centroids] = expanded
        if (checked or len(self.windows) <= _CHECKED_AS_A_WHOLE) and n_windows not in self._checked:
            self._check_windows(n_windows)
            self._checked.add(n_windows)
        return expanded

    def check(self, n_centroids: int, n_windows: int) -> None:
        """Make sure that every list is of a centroid and names windows, each once and in order.

        Args:
            n_centroids: centroids of the codec.
            n_windows: windows of the segment.

        Raises:
            IndexError: a list leads nowhere; the file is damaged.
        """
        self._check_places(n_centroids)
        self._check_windows(n_windows)

    def _check_places(self, n_centroids: int) -> None:
        centroids, offsets, windows = self.centroids, self.offsets, self.windows
        # Compare instead of subtracting: differences of damaged numbers may wrap around and look right.
        if (centroids[1:] <= centroids[:-1]).any() or (len(centroids) and int(centroids[-1]) >= n_centroids):
            raise IndexError(f"the lists are not those of {n_centroids} centroids in their order")
        if offsets[0] != 0 or offsets[-1] != len(windows) or (offsets[1:] <= offsets[:-1]).any():
            raise IndexError("the lists do not fit together")

    def _check_windows(self, n_windows: int) -> None:
        offsets, windows = self.offsets, self.windows
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
