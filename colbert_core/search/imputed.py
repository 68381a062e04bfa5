"""XTR's score: only the nearest tokens of each query vector count, and what is not among them is imputed.

Lee et al., "Rethinking the Role of Token Retrieval in Multi-Vector Retrieval", NeurIPS 2023, section 3.2. A query vector gives
a passage the best cosine of those of its tokens that were found, or else the lowest cosine that was found at all, the query
vector's bar: what was missed is no nearer than that. So the score is MaxSim with no cosine below its bar.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from colbert_core.threads import spread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from colbert_core.vectors.codec import ResidualCodec
    from colbert_core.vectors.segment import Segment

# Tokens whose vectors are decompressed at a time, by one thread: 8 MB at dim 128.
_TOKENS_AT_A_TIME = 2**14
# What float32 may lose of one cosine of a few hundred terms, as in ``plain_scorer``.
_FLOAT_ERROR = 1e-6


class ImputedScorer:
    """Scores by XTR's rule; the sum over the query vectors, so that its relevance is XTR's mean.

    As ``PlainScorer`` does, it chooses in float32, and scores what it chose in double precision, so that equal windows tie.

    Attributes:
        bars: the cosine of each query vector with the last of its nearest tokens. *Shape:* (n_q,), float32.
        margin: how much ``roughly`` may be wrong by.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        codec: ResidualCodec | None,
        query: NDArray[np.float32],
        windows: Sequence[NDArray[np.int32]],
        n_tokens: int,
        bars: NDArray[np.float32] | None = None,
    ) -> None:
        """Look at all tokens of some windows.

        Args:
            segments: where the tokens are.
            codec: what has compressed them; None for vectors as they are.
            query: *Shape:* (n_q, dim), float32, unit rows.
            windows: those that will be scored, for each segment, ascending.
            n_tokens: tokens that count for each query vector, at least 1; of fewer tokens the farthest is the last.
            bars: those of another scorer, where these windows are only some of its; None finds them.
        """
        self._segments, self._codec, self._query, self._windows = segments, codec, query, windows
        self.margin = _FLOAT_ERROR * len(query)
        self._best = [np.empty((len(chosen), len(query)), np.float32) for chosen in windows]
        wanted = 0 if bars is not None else n_tokens

        def look(piece: tuple[int, slice]) -> NDArray[np.float32]:
            number, places = piece
            chosen = self._windows[number][places]
            doclens = self._segments[number].doclens[chosen]
            cosines = self._vectors(number, chosen) @ self._query.T
            np.maximum.reduceat(cosines, np.cumsum(doclens) - doclens, axis=0, out=self._best[number][places])
            return _highest(np.ascontiguousarray(cosines.T), wanted)

        highest = np.empty((len(query), 0), np.float32)
        for of_piece in spread(
            look, [(n, piece) for n, chosen in enumerate(windows) for piece in _pieces(segments[n], chosen)]
        ):
            highest = _highest(np.concatenate([highest, of_piece], axis=1), wanted)
        lowest = highest.min(axis=1) if highest.size else np.full(len(query), -1, np.float32)
        self.bars: NDArray[np.float32] = lowest if bars is None else bars

    def roughly(self, number: int, windows: NDArray[np.int32]) -> NDArray[np.float32]:
        """Score some of the windows of a segment. *Shape:* (n,), float32."""
        best = self._best[number][np.searchsorted(self._windows[number], windows)]
        scores: NDArray[np.float32] = np.maximum(best, self.bars).sum(axis=1)
        return scores

    def exactly(self, number: int, windows: NDArray[np.int32]) -> NDArray[np.float64]:
        """Score some windows of a segment, each by itself. *Shape:* (n,), float64."""
        scores, query = np.empty(len(windows)), self._query.astype(np.float64)
        for place in range(len(windows)):
            vectors = self._vectors(number, windows[place : place + 1]).astype(np.float64)
            scores[place] = np.maximum((query @ vectors.T).max(axis=1), self.bars).sum()
        return scores

    def _vectors(self, number: int, windows: NDArray[np.int32]) -> NDArray[np.float32]:
        """The vectors of these windows. *Shape:* (n_tokens, dim), float32."""
        segment = self._segments[number]
        first, end = int(windows[0]), int(windows[-1]) + 1
        if end - first == len(windows):  # in a row, as all windows are
            tokens: NDArray[np.int64] | slice = slice(int(segment.offsets[first]), int(segment.offsets[end]))
        else:
            tokens = segment.tokens_of(windows)
        return segment.unit_vectors[tokens] if segment.vectors is not None else segment.vectors_of(tokens, self._codec)


def _pieces(segment: Segment, windows: NDArray[np.int32]) -> Iterator[slice]:
    """Cut windows into pieces of about as many tokens, at least a window each."""
    ends = np.cumsum(segment.doclens[windows], dtype=np.int64)
    start = 0
    while start < len(windows):
        before = int(ends[start - 1]) if start else 0
        end = max(int(np.searchsorted(ends, before + _TOKENS_AT_A_TIME, side="right")), start + 1)
        yield slice(start, end)
        start = end


def _highest(cosines: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """The ``n`` highest of each row, in any order; all of them if there are fewer."""
    rest = cosines.shape[1] - n
    return cosines if rest <= 0 else cosines[:, :0] if not n else np.partition(cosines, rest, axis=1)[:, rest:]
