"""Searches of an index, on one machine or in shards: what they take is checked here, and texts become vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.checks import check_count, check_relevance, check_share, check_similarity
from colbert_core.index.restriction import Restriction
from colbert_core.search.lexical import by_words
from colbert_core.text.blank import check_queries
from colbert_core.types import Hit, Passage, check_text
from colbert_core.vectors.embeddings import query_matrices

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from colbert_core.evidence.evidence import Evidence
    from colbert_core.model.fingerprint import EncoderFingerprint, LazyEncoder
    from colbert_core.search.config import SearchConfig
    from colbert_core.search.lexical import ByWords
    from colbert_core.types import Mode, Query, TokenEncoder, Where

# How far the length of a row may be from 1, as for the query vectors of an encoder.
_UNIT_ERROR = 1e-2


class SearchableIndex(ABC):
    """An index with an encoder that is loaded when it is first needed, and its searches."""

    _encoder: LazyEncoder

    @property
    def made_with(self) -> EncoderFingerprint:
        """Where the vectors come from."""
        return self._encoder.fingerprint

    @property
    def encoder(self) -> TokenEncoder:
        """What encodes texts; loaded at first use where the index was opened without one.

        Raises:
            EncoderMismatchError: the index holds vectors from elsewhere, or its encoder cannot be loaded or has changed.
        """
        return self._encoder.get()

    @property
    def encoder_name(self) -> str | None:
        """Name of the encoder the index was made with, which is not loaded for it; None for vectors from elsewhere."""
        return self.made_with.name

    @property
    def dim(self) -> int:
        """Components of every vector."""
        return self.made_with.dim

    def search(
        self,
        query: Query,
        k: int = 10,
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        min_relevance: float | None = None,
        config: SearchConfig | None = None,
        exact: bool = False,
        evidence: bool = False,
        mode: Mode = "maxsim",
        weight: float | None = None,
    ) -> list[Hit]:
        """Find the passages that match a query best.

        Args:
            query: text, or its vectors, *Shape:* (n_q, dim); rows are scaled to length 1.
            k: most hits, at least 1; there are exactly min(k, number of matching passages) unless ``min_relevance`` drops some.
            where: only passages whose metadata match: ``{"year": {"$gte": 2020}, "lang": "en"}``, by the operators of
                ``colbert_core.storage.filters``; or a function of a passage, which is called for every passage (of an index
                in memory, while it is locked; of one in shards, in their processes). A ``FilterWarning`` says where a condition
                names a field that no passage has, or a type that none of its values has.
            ids: only passages with these ids; an empty list matches none.
            min_relevance: least relevance of a hit, from 0 to 1.
            config: how much of a compressed index to look at; None chooses by k.
            exact: score every passage that may be found. Scores are the same either way.
            evidence: give each hit the ``evidence`` of its window, as ``explain`` does; the query must be text.
            mode: "maxsim" ranks by vectors; "hybrid" by relevance + weight * coverage of the query's words, which finds
                identifiers and rare names as well, and ``min_relevance`` is of that sum; "words" by coverage alone, among the
                passages that have one of the words, and loads no model.
            weight: of the coverage in hybrid mode, from 0 to 1; None for .1 to .5, by how rare the words of the query are.

        Returns:
            Hits, best first, equal scores by id; none from an empty index.

        Raises:
            TypeError: the query is neither a string nor an array, or no string where evidence is wanted; k is no whole number,
                or a filter's value is of a wrong type.
            ValueError: the query is blank, k is below 1, vectors are of another dim, zero or not finite, or a filter's
                operator is unknown.
            EncoderMismatchError: the query is text and the index has no encoder.
            DamagedIndexError: a file of the index has changed.
        """
        (hits,) = self.search_many(
            [query],
            k,
            where=where,
            ids=ids,
            min_relevance=min_relevance,
            config=config,
            exact=exact,
            evidence=evidence,
            mode=mode,
            weight=weight,
        )
        return hits

    def search_many(
        self,
        queries: Iterable[Query],
        k: int = 10,
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        min_relevance: float | None = None,
        config: SearchConfig | None = None,
        exact: bool = False,
        evidence: bool = False,
        mode: Mode = "maxsim",
        weight: float | None = None,
    ) -> list[list[Hit]]:
        """``search`` for several queries over one state of the index, by as many threads as ``set_num_threads`` allows.

        Texts are encoded together, in batches of other shapes than alone, so scores may differ in their last digits.
        """
        queries = _query_list(queries)
        if evidence and (without_words := [query for query in queries if not isinstance(query, str)]):
            kind = type(without_words[0]).__name__
            raise TypeError(f"evidence needs the words of each query, got a {kind}; search by text for it.")
        k, min_relevance = check_count(k, "k"), check_relevance(min_relevance, "min_relevance")
        restriction, words = Restriction(where, ids), by_words(mode, weight, queries)
        matrices = self._matrices(queries, None if evidence else words)
        texts = [str(query) for query in queries] if evidence else None
        return self._hits(
            matrices, k, restriction, config=config, exact=exact, min_relevance=min_relevance, texts=texts, words=words
        )

    def search_mean(
        self,
        queries: Iterable[Query],
        k: int = 10,
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        min_relevance: float | None = None,
        config: SearchConfig | None = None,
        exact: bool = False,
        mode: Mode = "maxsim",
        weight: float | None = None,
    ) -> list[Hit]:
        """Find the passages that match several queries best on average, such as a question and made-up answers to it (HyDE).

        The best of each query are looked at, twice as many each time, until no other passage can have a higher mean (the
        threshold algorithm of Fagin, Lotem and Naor, PODS 2001, section 4).

        Args:
            queries: at least one, each as in ``search``; so are the other arguments.
            k: most hits.
            where: as in ``search``.
            ids: as in ``search``.
            min_relevance: of the mean.
            config: for each query.
            exact: as in ``search``.
            mode: as in ``search``.
            weight: as in ``search``.

        Returns:
            Hits, best first; score, relevance and coverage are means over the queries, and the span is that of the query that
            matches best.

        Raises:
            ValueError: there are no queries; otherwise as ``search``.
        """
        queries = _query_list(queries)
        k, min_relevance = check_count(k, "k"), check_relevance(min_relevance, "min_relevance")
        restriction, words = Restriction(where, ids), by_words(mode, weight, queries)
        if not queries:
            raise ValueError("There are no queries to search by; give at least one.")
        matrices = self._matrices(queries, words)
        return self._mean(matrices, k, restriction, config=config, exact=exact, min_relevance=min_relevance, words=words)

    def search_diverse(
        self,
        query: Query,
        k: int = 10,
        fetch_k: int = 50,
        lambda_mult: float = 0.5,
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        min_relevance: float | None = None,
        config: SearchConfig | None = None,
        exact: bool = False,
        mode: Mode = "maxsim",
        weight: float | None = None,
    ) -> list[Hit]:
        """Find passages that match a query and differ from each other, by maximal marginal relevance.

        Of the ``fetch_k`` best, each step takes the one with the greatest ``lambda_mult * relevance - (1 - lambda_mult) *
        likeness``, where likeness is the mean MaxSim per vector, both ways, to the most similar one taken before
        (Carbonell and Goldstein, SIGIR 1998).

        Args:
            query: as in ``search``; so are the other arguments.
            k: most hits, at least 1.
            fetch_k: how many of the best are chosen from; k if that is more.
            lambda_mult: from 0 (as different as possible) to 1 (as relevant as possible).
            where: as in ``search``.
            ids: as in ``search``.
            min_relevance: as in ``search``.
            config: as in ``search``.
            exact: as in ``search``.
            mode: as in ``search``.
            weight: as in ``search``.

        Returns:
            Hits in the order in which they were taken; ``rank`` is that order.
        """
        k, fetch_k = check_count(k, "k"), check_count(fetch_k, "fetch_k")
        min_relevance, share = check_relevance(min_relevance, "min_relevance"), check_share(lambda_mult, "lambda_mult")
        restriction, words = Restriction(where, ids), by_words(mode, weight, [query])
        options: dict[str, Any] = {"config": config, "exact": exact, "min_relevance": min_relevance, "words": words}
        matrices = self._matrices([query], words)
        return self._diverse(matrices, k, fetch_k, share, restriction, **options)

    def search_vectors(
        self,
        matrices: Iterable[NDArray[np.float32]],
        k: int = 10,
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        min_relevance: float | None = None,
        config: SearchConfig | None = None,
        exact: bool = False,
        mean: bool = False,
        words: ByWords | None = None,
    ) -> list[list[Hit]]:
        """``search_many`` by what an encoder made, taken as it is: to scale it again would change its last digits.

        Args:
            matrices: *Shape:* (n_q, dim) each, float32, unit rows.
            k: as in ``search``, and so are the others.
            where: as in ``search``.
            ids: as in ``search``.
            min_relevance: as in ``search``.
            config: as in ``search``.
            exact: as in ``search``.
            mean: rank by the mean over all matrices, as ``search_mean`` does; there is one list of hits then.
            words: of the same queries, to rank by them as well; or by them alone, without matrices.

        Raises:
            ValueError: a matrix has another shape or type, or rows of another length.
        """
        k, min_relevance = check_count(k, "k"), check_relevance(min_relevance, "min_relevance")
        restriction, checked = Restriction(where, ids), check_unit_matrices(matrices, self.dim)
        options: dict[str, Any] = {"config": config, "exact": exact, "min_relevance": min_relevance, "words": words}
        return [self._mean(checked, k, restriction, **options)] if mean else self._hits(checked, k, restriction, **options)

    def explain(
        self,
        query: str,
        passage: str | Passage | Hit,
        *,
        min_similarity: float | None = None,
        mode: Mode = "maxsim",
    ) -> Evidence:
        """Show which words of a passage answer which words of a query, in the window of the passage that scores highest.

        The vectors are those that the index keeps, so the similarities add up to the score that a search gives. Where they
        were pooled, the passage is encoded anew.

        Args:
            query: text.
            passage: a passage of the index: its id, itself, or a hit.
            min_similarity: cosine from which a word of the query counts as found, and below which no word of the passage is
                marked, from -1 to 1. None leaves both to the lifts: by how much a cosine exceeds what is to be expected.
            mode: as in ``search``; where words rank, those that query and passage share are evidence as well.

        Raises:
            TypeError: the query is not a string.
            ValueError: the query is blank, the threshold is out of range, there is no such mode or no passage with this id, or
                the index was made without words.
            EncoderMismatchError: the index has no encoder.
            DamagedIndexError: a file of the index has changed.
        """
        if not isinstance(query, str):
            raise TypeError(f"explain needs the words of the query, got a {type(query).__name__}.")
        check_similarity(min_similarity)
        passage = passage.passage if isinstance(passage, Hit) else passage
        if not isinstance(passage, str | Passage):
            raise TypeError(f"passage must be an id, a Passage or a Hit, got {passage!r:.80}.")
        words = by_words(mode, None, [query])
        return self._explain(query, passage, min_similarity, by_words=words is not None)

    def _matrices(self, queries: list[Query], words: ByWords | None = None) -> list[NDArray[np.float32]]:
        """The vectors of queries; none where words alone rank, once the queries are checked."""
        if words is not None and words.alone:
            check_queries([check_text(text, f"Query {place}").strip() for place, text in enumerate(words.texts)])
            return []
        return query_matrices(queries, self.dim, self._encoder.get)

    @abstractmethod
    def _hits(
        self,
        matrices: Sequence[NDArray[np.float32]],
        k: int,
        restriction: Restriction,
        *,
        config: SearchConfig | None,
        exact: bool,
        min_relevance: float | None,
        texts: Sequence[str] | None = None,
        words: ByWords | None = None,
    ) -> list[list[Hit]]:
        """The best passages for each matrix, unit rows; with their evidence where the queries' texts are given."""

    @abstractmethod
    def _mean(
        self,
        matrices: Sequence[NDArray[np.float32]],
        k: int,
        restriction: Restriction,
        *,
        config: SearchConfig | None,
        exact: bool,
        min_relevance: float | None,
        words: ByWords | None = None,
    ) -> list[Hit]:
        """The best passages by the mean over at least one matrix, unit rows."""

    @abstractmethod
    def _diverse(
        self,
        matrices: Sequence[NDArray[np.float32]],
        k: int,
        fetch_k: int,
        weight: float,
        restriction: Restriction,
        *,
        config: SearchConfig | None,
        exact: bool,
        min_relevance: float | None,
        words: ByWords | None = None,
    ) -> list[Hit]:
        """Passages that match a query and differ from each other; ``weight`` is that of relevance, from 0 to 1."""

    @abstractmethod
    def _explain(self, query: str, passage: str | Passage, min_similarity: float | None, *, by_words: bool) -> Evidence:
        """The evidence of a passage, or of the one with this id."""


def _query_list(queries: Iterable[Query]) -> list[Query]:
    """Return several queries as a list.

    Raises:
        TypeError: they are a single query.
    """
    if isinstance(queries, str) or hasattr(queries, "__array__"):
        raise TypeError(f"queries must be a list, got one {type(queries).__name__}; use search for a single query.")
    return list(queries)


def check_unit_matrices(matrices: Iterable[NDArray[np.float32]], dim: int) -> Sequence[NDArray[np.float32]]:
    """Return query matrices that can be scored as they are.

    Args:
        matrices: *Shape:* (n_q, dim) each, float32, unit rows.
        dim: components that are wanted.

    Raises:
        ValueError: one is not.
    """
    checked = list(matrices)
    for position, matrix in enumerate(checked):
        is_matrix = isinstance(matrix, np.ndarray) and matrix.ndim == 2 and matrix.dtype == np.float32
        if not is_matrix or not len(matrix) or matrix.shape[1] != dim:
            got = f"{getattr(matrix, 'dtype', type(matrix).__name__)} {getattr(matrix, 'shape', '')}"
            raise ValueError(f"Query {position} must be float32 of shape (n, {dim}) with n >= 1, got {got}.")
        lengths = np.linalg.norm(matrix, axis=1)
        if not np.allclose(lengths, 1, atol=_UNIT_ERROR):
            raise ValueError(
                f"Query {position} must have rows of length 1, got lengths from {lengths.min():g} to {lengths.max():g}; "
                "use search_many, which scales them."
            )
    return checked
