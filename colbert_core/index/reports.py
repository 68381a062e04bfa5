"""What an index says of itself: figures, problems, and what tuning found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from colbert_core.search.config import SearchConfig
    from colbert_core.types import Passage

    Where = Mapping[str, Any] | Callable[[Passage], bool]


@dataclass(frozen=True)
class IndexStats:
    """Figures of an index.

    Attributes:
        passages: that can be found.
        windows: of these passages.
        tokens: vectors of these windows.
        dim: components of a vector.
        nbits: bits per component of a compressed vector; None where vectors are kept as they are.
        centroids: of the codec; 0 while the index is uncompressed.
        segments: files or rows of vectors.
        dead_tokens: of deleted and replaced passages, still taking room; ``compact`` clears them away.
        vector_bytes: codec, codes, residuals and inverted lists, or the vectors themselves.
        encoder: name of the encoder the index was made with; None for vectors from elsewhere.
        generation: commits so far.
    """

    passages: int
    windows: int
    tokens: int
    dim: int
    nbits: int | None
    centroids: int
    segments: int
    dead_tokens: int
    vector_bytes: int
    encoder: str | None
    generation: int

    @property
    def bytes_per_token(self) -> float:
        """``vector_bytes`` for each token that can be found."""
        return self.vector_bytes / self.tokens if self.tokens else 0.0


@dataclass(frozen=True)
class Verification:
    """What ``verify`` found.

    Attributes:
        problems: in words; none if the index is sound.
        recall: part of the 10 best passages of scoring all that a plain search finds; None without passages.
        queries: how many were sampled for that.
    """

    problems: list[str]
    recall: float | None
    queries: int

    @property
    def ok(self) -> bool:
        """Whether the index is sound."""
        return not self.problems


@dataclass(frozen=True)
class Tuning:
    """What ``tune`` chose, and what it measured.

    Attributes:
        config: the quickest that finds enough; for ``search(config=...)``.
        recall: part of the ``k`` best passages of scoring all that it finds.
        milliseconds: of a search by one thread, the median.
        tried: for each config that was looked at, its recall and milliseconds.
    """

    config: SearchConfig
    recall: float
    milliseconds: float
    tried: list[tuple[SearchConfig, float, float]]
