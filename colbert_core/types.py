"""The values that cross the boundaries of the package. They check themselves, and do no more."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeGuard, TypeVar, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from colbert_core.evidence.evidence import Evidence

    Where = Mapping[str, Any] | Callable[["Passage"], bool]
    Query = str | NDArray[Any] | torch.Tensor | Sequence[Sequence[float]]
    Mode = Literal["maxsim", "hybrid", "words"]

T = TypeVar("T")


def check_text(text: object, subject: str) -> str:
    """Return ``text`` if it is a string that every tokenizer and file can hold.

    Raises:
        TypeError: it is not a ``str``.
        ValueError: it holds a lone surrogate, half of a character that UTF-8 cannot encode.
    """
    if not isinstance(text, str):
        raise TypeError(f"{subject} must be a str, got {type(text).__name__}: {text!r:.80}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{subject} has a lone surrogate {text[error.start]!r} at character {error.start}, which UTF-8 cannot "
            "encode; decode the source with the right encoding, or use text.encode('utf-8', 'replace').decode()."
        ) from None
    return text


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of text that can be found: what users put in and what they get back.

    Attributes:
        id: the user's own name for it, not empty. Adding a passage under a known id replaces the old one.
        text: any length; what the model cannot read at once is encoded in overlapping windows. One with nothing to read, such
            as an empty page, is kept and given back by its id or metadata, and no query finds it.
        metadata: kept and given back in the plain form of ``plain_metadata``: dates as strings, for example.

    Raises:
        TypeError: id or text is not a ``str``, or metadata is not a ``dict``.
        ValueError: id is empty, or id or text holds a lone surrogate.
    """

    id: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not check_text(self.id, "Passage id"):
            raise ValueError("Passage id is empty; give every passage a non-empty string id.")
        check_text(self.text, f"Text of passage {self.id!r}")
        if not isinstance(self.metadata, dict):
            raise TypeError(f"Metadata of passage {self.id!r} must be a dict, got {type(self.metadata).__name__}.")


class Page(list[T]):
    """A part of a list that may go on, such as ``Index.passages`` gives.

    Attributes:
        next: what to give as ``after`` for the page that follows; None if this is the last one.
    """

    def __init__(self, items: Iterable[T] = (), next: str | None = None) -> None:  # noqa: A002
        super().__init__(items)
        self.next = next


@dataclass(frozen=True, slots=True)
class TokenEmbeddings:
    """The token vectors of a list of texts, packed without padding.

    A text longer than the model reads has several windows, which follow each other. All spans are character offsets
    into the text the caller gave.

    Attributes:
        vectors: *Shape:* (n_tokens, dim), float32, every row of length 1.
        token_spans: *Shape:* (n_tokens, 2), int32, half-open. Empty (start = end) for the model's own tokens, such as [CLS].
        doclens: *Shape:* (n_windows,), int32, vectors in each window, at least 1.
        window_spans: *Shape:* (n_windows, 2), int32, half-open.
        owners: *Shape:* (n_windows,), int32, position of each window's text in the caller's list; ascending.
    """

    vectors: NDArray[np.float32]
    token_spans: NDArray[np.int32]
    doclens: NDArray[np.int32]
    window_spans: NDArray[np.int32]
    owners: NDArray[np.int32]

    def check(self, n_texts: int, dim: int) -> TokenEmbeddings:
        """Return these embeddings if they are what the attributes say, for so many texts and components.

        Raises:
            ValueError: they are not; an encoder of the user's own may be wrong, and must not spoil an index.
        """
        n_tokens, n_windows = len(self.vectors), len(self.doclens)
        if self.vectors.shape != (n_tokens, dim) or self.vectors.dtype != np.float32:
            problem = f"vectors must be float32 of shape (n_tokens, {dim}), got {self.vectors.dtype} {self.vectors.shape}"
        elif (self.token_spans.shape, self.window_spans.shape) != ((n_tokens, 2), (n_windows, 2)):
            problem = f"spans must be two per token and window, got {self.token_spans.shape} and {self.window_spans.shape}"
        elif (backwards := (np.diff(self.window_spans, axis=1, prepend=0, append=2**31 - 1) < 0).any(axis=1)).any():
            problem = f"a window's span must be two ascending places in a text, got {self.window_spans[backwards][0]}"
        elif (n_windows and self.doclens.min() < 1) or self.doclens.sum() != n_tokens:
            problem = f"doclens must be at least 1 and add up to the {n_tokens} vectors, got {self.doclens}"
        elif len(self.owners) != n_windows or not np.array_equal(np.unique(self.owners), np.arange(n_texts)):
            problem = f"each of the {n_texts} texts must own a window, got the owners {self.owners}"
        elif (np.diff(self.owners) < 0).any():
            problem = f"owners must ascend, got {self.owners}"
        elif not np.allclose(np.einsum("td,td->t", self.vectors, self.vectors), 1, atol=1e-2):  # False for a NaN as well
            problem = "every vector must have length 1, and be neither zero nor NaN"
        else:
            return self
        raise ValueError(f"The encoder's token embeddings cannot be used: {problem}.")


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found, and how well it matched.

    Attributes:
        passage: the whole passage.
        score: MaxSim of its best window: the sum over query vectors of the best cosine, so -n_q to n_q.
        relevance: score / number of query vectors, clamped to [0, 1]; comparable between queries, so thresholds act on it.
        rank: 1 for the best.
        span: (start, end) characters of the best window in ``passage.text``.
        evidence: which of its words answer which of the query's, where the search was asked for it.
        coverage: how much of the query's words it has, from 0 to 1, where the search was asked to rank by words.
        hybrid_relevance: relevance + weight * coverage, by which a hybrid search ranks. Where words alone rank there is no
            MaxSim: this, ``score`` and ``relevance`` are the coverage.
    """

    passage: Passage
    score: float
    relevance: float
    rank: int
    span: tuple[int, int]
    evidence: Evidence | None = field(default=None, repr=False, compare=False)
    coverage: float | None = None
    hybrid_relevance: float | None = None

    def __setstate__(self, state: Sequence[Any]) -> None:
        """Take what was pickled; a hit from before there were coverages has none."""
        for each, value in zip_longest(fields(self), state):
            object.__setattr__(self, each.name, value)

    @property
    def value(self) -> float:
        """What thresholds compare: ``hybrid_relevance`` where words rank, else ``relevance``."""
        return self.relevance if self.hybrid_relevance is None else self.hybrid_relevance

    @property
    def text(self) -> str:
        """The text of the best window: the whole passage unless it is longer than the model reads."""
        return self.passage.text[self.span[0] : self.span[1]]


@runtime_checkable
class TokenEncoder(Protocol):
    """What an index or a reranker needs of an encoder; ``Encoder`` is one, and so may be your own.

    ``progress`` says whether to show a bar: True does, False does not, None does on a terminal or in a notebook once a second
    has passed.
    """

    @property
    def dim(self) -> int:
        """Components of every vector."""

    def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """One (n_q, dim) float32 matrix of unit rows for each text."""

    def encode_passages(self, texts: Sequence[str], *, progress: bool | None = None) -> TokenEmbeddings:
        """The packed token vectors of all texts."""


def is_encoder(value: object) -> TypeGuard[TokenEncoder]:
    """Tell if a value has what a ``TokenEncoder`` has; ``isinstance`` overlooks what ``__getattr__`` gives, from 3.12 on."""
    return all(hasattr(value, name) for name in ("dim", "encode_queries", "encode_passages"))


@runtime_checkable
class PassageIndex(Protocol):
    """What a retriever needs of an index: an ``Index``, or a ``colbert_core.cluster.ShardedIndex`` on several machines."""

    @property
    def encoder_name(self) -> str | None:
        """Name of the encoder the index was made with."""

    def add(self, passages: Iterable[Passage], *, progress: bool | None = None) -> list[str]:
        """Add passages, replacing those whose id is known; ``progress`` as for a ``TokenEncoder``."""

    def delete(self, ids: Iterable[str]) -> int:
        """Delete passages by id."""

    def delete_where(self, where: Where) -> int:
        """Delete the passages that a filter matches."""

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        min_relevance: float | None = None,
        evidence: bool = False,
        mode: Mode = "maxsim",
        weight: float | None = None,
    ) -> list[Hit]:
        """The passages that match a query best, by MaxSim or by words, on request with the evidence."""

    def search_mean(
        self,
        queries: Iterable[str],
        k: int = 10,
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        min_relevance: float | None = None,
        mode: Mode = "maxsim",
        weight: float | None = None,
    ) -> list[Hit]:
        """The passages that match several queries best on average."""

    def explain(self, query: str, passage: Hit) -> Evidence:
        """Which words of a passage answer which words of a query."""
