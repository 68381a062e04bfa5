"""Score a small uncompressed collection by NumPy alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from colbert_core.vectors.maxsim import maxsim

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from colbert_core.vectors.segment import Segment


# What float32 may lose of one cosine of a few hundred terms; scores closer than this per query vector may change places.
_FLOAT_ERROR = 1e-6


class PlainScorer:
    """Scores with NumPy, for collections so small that nothing needs to be compiled.

    A matrix product over many windows rounds equal windows differently in their last bits, so it only chooses. What it chose is
    scored again one by one, in double precision, so that equal windows tie.

    Attributes:
        margin: how much ``roughly`` may be wrong by.
    """

    def __init__(self, segments: Sequence[Segment], query: NDArray[np.float32]) -> None:
        self._segments = segments
        self._query = query
        self.margin = _FLOAT_ERROR * len(query)

    def roughly(self, number: int, windows: NDArray[np.int32]) -> NDArray[np.float32]:
        """Score some windows of a segment. *Shape:* (n,), float32."""
        segment = self._segments[number]
        return maxsim(self._query, segment.unit_vectors[segment.tokens_of(windows)], segment.doclens[windows])

    def exactly(self, number: int, windows: NDArray[np.int32]) -> NDArray[np.float64]:
        """Score some windows of a segment, each by itself. *Shape:* (n,), float64."""
        segment, query = self._segments[number], self._query.astype(np.float64)
        scores, all_vectors = np.empty(len(windows)), segment.unit_vectors
        for place, window in enumerate(windows.tolist()):
            vectors = all_vectors[segment.offsets[window] : segment.offsets[window + 1]].astype(np.float64)
            scores[place] = (query @ vectors.T).max(axis=1).sum()
        return scores
