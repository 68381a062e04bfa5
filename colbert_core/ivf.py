"""Inverted lists: for each centroid, the windows that have a token there. Arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class InvertedLists:
    """The lists of the centroids that occur, one after the other.

    PLAID (Santhanam et al., CIKM 2022), section 4.2: lists of passages rather than tokens, which are shorter.

    Attributes:
        centroids: *Shape:* (m,), ascending; those with a list.
        offsets: *Shape:* (m + 1,), int64; list ``i`` is ``windows[offsets[i]:offsets[i + 1]]``.
        windows: *Shape:* (n,), int32; ascending and different within each list.
    """

    centroids: NDArray[Any]
    offsets: NDArray[np.int64]
    windows: NDArray[np.int32]

    @classmethod
    def build(cls, codes: NDArray[Any], doclens: NDArray[np.int32]) -> InvertedLists:
        """Invert the codes of windows.

        Args:
            codes: *Shape:* (n_tokens,), the centroid of each token.
            doclens: *Shape:* (n_windows,), tokens in each window.
        """
        order = np.argsort(codes, kind="stable")  # of equal codes, the first window comes first
        windows = np.repeat(np.arange(len(doclens), dtype=np.int32), doclens)[order]
        codes = codes[order]
        is_new = np.ones(len(codes), np.bool_)
        is_new[1:] = (codes[1:] != codes[:-1]) | (windows[1:] != windows[:-1])
        windows, codes = windows[is_new], codes[is_new]
        starts = np.flatnonzero(np.diff(codes, prepend=codes[:1] + 1)) if len(codes) else np.empty(0, np.int64)
        return cls(codes[starts], np.append(starts, len(codes)).astype(np.int64), windows)

    def mark(self, centroids: NDArray[np.intp], marked: NDArray[np.bool_]) -> None:
        """Set ``marked`` at every window in the lists of these centroids.

        Raises:
            IndexError: a list names a window that there is not; the file is damaged.
        """
        places = np.searchsorted(self.centroids, centroids)
        places = places[places < len(self.centroids)]
        places = places[np.isin(self.centroids[places], centroids)]
        for start, end in zip(self.offsets[places].tolist(), self.offsets[places + 1].tolist(), strict=True):
            marked[self.windows[start:end]] = True

    def reaching(self, allowed: NDArray[np.bool_]) -> NDArray[Any]:
        """The centroids whose list has an allowed window.

        Args:
            allowed: *Shape:* (n_windows,), bool.
        """
        if not len(self.centroids):
            return self.centroids
        return self.centroids[np.logical_or.reduceat(allowed[self.windows], self.offsets[:-1])]
