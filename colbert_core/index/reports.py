"""What an index says of itself: figures, problems, and what tuning found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from colbert_core.search.config import SearchConfig


@dataclass(frozen=True)
class IndexStats:
    """Figures of an index.

    Attributes:
        passages: number of passages that can be found.
        windows: number of their windows.
        tokens: number of vectors of these windows.
        dim: components of a vector.
        nbits: bits per component of a compressed vector; None where vectors are kept as they are.
        centroids: number of centroids of the codec; 0 while the index is uncompressed.
        segments: number of segments, in files or in SQLite.
        dead_tokens: number of vectors of deleted and replaced passages; they take room until ``compact`` clears them away.
        vector_bytes: size of codec, codes, residuals and inverted lists, or of the vectors themselves.
        encoder: name of the encoder that the index was made with; None for vectors from elsewhere.
        generation: number of commits so far.
        word_bytes: about the size of the index of words; 0 without words.
        pool_factor: about 1 / pool_factor of the vectors of what is added are kept.
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
    word_bytes: int = 0
    pool_factor: float = field(default=1.0, repr=False)

    @property
    def bytes_per_token(self) -> float:
        """``vector_bytes`` for each token that can be found."""
        return self.vector_bytes / self.tokens if self.tokens else 0.0


@dataclass(frozen=True)
class MetadataField:
    """What the passages of an index have in one field of their metadata.

    Attributes:
        path: its name in a filter, such as "year" or "author.name".
        types: how many passages have a value of which type: "string", "number", "boolean", "null", "list" or "object".
        passages: how many have the field.
        examples: up to three different values of each type, the smallest ones, and of lists their elements; a string of more
            than 100 characters is cut, and ends in "…".
    """

    path: str
    types: dict[str, int]
    passages: int
    examples: list[Any]


@dataclass(frozen=True)
class Verification:
    """What ``verify`` found.

    Attributes:
        problems: what is wrong, in words; empty if the index is sound.
        recall: part of the 10 truly best passages that a plain search finds, from 0 to 1; None without passages.
        queries: number of queries that the recall was measured with.
        unchecked: number of passages whose texts and metadata have no checksums; the index was made before there were any,
            and the next change to it adds them.
    """

    problems: list[str]
    recall: float | None
    queries: int
    unchecked: int = 0

    @property
    def ok(self) -> bool:
        """Whether the index is sound."""
        return not self.problems


@dataclass(frozen=True)
class Tuning:
    """What ``tune`` chose, and what it measured.

    Attributes:
        config: the quickest config that finds enough; pass it as ``search(config=...)``.
        recall: part of the ``k`` truly best passages that it finds, from 0 to 1.
        milliseconds: median time of a search by one thread.
        tried: each config that was measured, with its recall and milliseconds.
    """

    config: SearchConfig
    recall: float
    milliseconds: float
    tried: list[tuple[SearchConfig, float, float]]
