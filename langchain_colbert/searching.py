"""The searching half of ``ColBERTVectorStore``."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Unpack

from langchain_core.runnables import run_in_executor
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever

from colbert_core import hits_of_blank_query
from langchain_colbert.documents import Filter, to_document, to_found_document, to_where
from langchain_colbert.options import (
    MAX_CHARACTERS,
    Options,
    by_type,
    check_options,
    ranking,
    relevance_score,
    retriever_arguments,
)

if TYPE_CHECKING:
    from langchain_core.documents import Document

    from colbert_core import Hit, IndexBase


class SearchableStore(VectorStore):
    """A vector store that searches an index of the engine."""

    @property
    @abstractmethod
    def index(self) -> IndexBase:
        """The index to search."""

    def similarity_search(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Filter | None = None,
        score_threshold: float | None = None,
        **options: Unpack[Options],
    ) -> list[Document]:
        """Return the ``k`` documents that match a query best, best first.

        A blank query, which an LLM sends where only metadata count, gives the first ``k`` documents that the filter matches, in
        the order in which they were added, with score and relevance 0; without a filter it gives none, and the log warns.

        Args:
            query: the question.
            k: most documents, at least 1.
            filter: return only documents whose metadata match, by the operators of ``colbert_core.storage.filters``; or a
                function of a document.
            score_threshold: least relevance, from 0 to 1.
            options: ``mode="hybrid"``, the default of an index that has words, ranks by the relevance plus ``weight`` times how
                much of the query's words a document has, and ``score_threshold`` is of this sum; ``mode="maxsim"``, the default
                of one that has none, by the relevance; ``mode="words"`` by the words alone, without a model.
                ``text="window"`` returns of each document the part that matched, with its characters in the whole in
                ``metadata["colbert"]``, and ``max_characters=...`` says how long it may be, as with ``ColBERTRetriever``.

        Raises:
            TypeError: there is no such option.
            ValueError: k is below 1, a filter's operator or the mode is unknown, there is a weight for
                another mode than "hybrid", or the index was made without words and is to be searched by them.
            UnsupportedIndexError: the index was made before there were words, and is to be searched by them.
        """
        hits = self._search(query, k, filter, score_threshold, options)
        return [_to_document(hit, options) for hit in hits]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Filter | None = None,
        score_threshold: float | None = None,
        **options: Unpack[Options],
    ) -> list[tuple[Document, float]]:
        """``similarity_search`` with the score that ranks; higher is better.

        With ``mode="maxsim"`` it is MaxSim, the sum of each query vector's best cosine. With "hybrid" it is the sum of the
        relevance and the weighted words, up to 1 + ``weight``, and with "words" the covered share, from 0 to 1.
        """
        hits = self._search(query, k, filter, score_threshold, options)
        return [(_to_document(hit, options), hit.score if hit.coverage is None else hit.value) for hit in hits]

    def similarity_search_with_relevance_scores(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Filter | None = None,
        score_threshold: float | None = None,
        **options: Unpack[Options],
    ) -> list[tuple[Document, float]]:
        """``similarity_search`` with the relevance, from 0 to 1.

        With ``mode="maxsim"`` it is MaxSim divided by the number of query vectors; with "hybrid" the sum that ranks, where 1 is
        reported for what is above 1; with "words" the covered share.
        """
        hits = self._search(query, k, filter, score_threshold, options)
        return [(_to_document(hit, options), relevance_score(hit)) for hit in hits]

    def search(self, query: str, search_type: str, **kwargs: Any) -> list[Document]:
        """Return documents by a search type of ``as_retriever``, which has to be named here."""
        search_type, kwargs = by_type(search_type, kwargs)
        return super().search(query, search_type, **kwargs)

    async def asearch(self, query: str, search_type: str, **kwargs: Any) -> list[Document]:
        """``search`` off the event loop."""
        search_type, kwargs = by_type(search_type, kwargs)
        return await super().asearch(query, search_type, **kwargs)

    def _search(self, query: str, k: int, filter: Filter | None, score_threshold: float | None, options: Options) -> list[Hit]:
        check_options(**options)
        index, restrictions = self.index, {"where": to_where(filter), "min_relevance": score_threshold}
        hits = hits_of_blank_query(index, [query], k, **restrictions)
        return index.search(query, k, **restrictions, **ranking(index, **options)) if hits is None else hits

    def _similarity_search_with_relevance_scores(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        # LangChain calls this name when it wraps a store.
        return self.similarity_search_with_relevance_scores(query, k, **kwargs)

    async def asimilarity_search_with_relevance_scores(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Filter | None = None,
        score_threshold: float | None = None,
        **options: Unpack[Options],
    ) -> list[tuple[Document, float]]:
        """``similarity_search_with_relevance_scores`` off the event loop."""
        search = self.similarity_search_with_relevance_scores
        return await run_in_executor(None, search, query, k, filter=filter, score_threshold=score_threshold, **options)

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
        score_threshold: float | None = None,
        **options: Unpack[Options],
    ) -> list[Document]:
        """Return documents that match a query and differ from each other, in the order in which they were chosen.

        Args:
            query: the question.
            k: most documents, at least 1.
            fetch_k: choose from so many of the best.
            lambda_mult: from 0 (as different as possible) to 1 (as relevant as possible).
            filter: as in ``similarity_search``.
            score_threshold: as in ``similarity_search``.
            options: as in ``similarity_search``.
        """
        check_options(**options)
        index, restrictions = self.index, {"where": to_where(filter), "min_relevance": score_threshold}
        hits = hits_of_blank_query(index, [query], k, **restrictions)
        if hits is None:
            hits = index.search_diverse(query, k, fetch_k, lambda_mult, **restrictions, **ranking(index, **options))
        return [_to_document(hit, options) for hit in hits]

    def similarity_search_by_vector(self, embedding: Any, k: int = 4, **kwargs: Any) -> list[Document]:
        """Refused: a query has one vector for each of its words; give them to ``store.index.search(matrix)``."""
        raise _no_single_vector()

    def max_marginal_relevance_search_by_vector(self, embedding: Any, k: int = 4, *_: Any, **kwargs: Any) -> list[Document]:
        """Refused: a query has one vector for each of its words; give them to ``store.index.search_diverse(matrix)``."""
        raise _no_single_vector()

    def as_retriever(self, **kwargs: Any) -> VectorStoreRetriever:
        """Make a retriever of this store.

        Args:
            kwargs: ``k``, ``filter``, ``score_threshold``, ``text``, ``max_characters``, ``mode``, ``weight``, and for "mmr"
                ``fetch_k`` and ``lambda_mult``, here or in ``search_kwargs``; ``search_type``, by default "mmr" if one of those
                two is given and "similarity" if not, or "hybrid" or "words", which are "similarity" with that mode, or
                "similarity_score_threshold"; and ``tags``, ``metadata`` and ``name`` of every retriever. Keywords given here
                beat ``search_kwargs``, and ``invoke(query, k=...)`` beats both for one call.

        Raises:
            TypeError: there is no such argument for this search type.
            ValueError: the search type, the mode or the text is unknown, or the type needs a ``score_threshold`` that is not
                given.
        """
        return super().as_retriever(**retriever_arguments(kwargs))


def _to_document(hit: Hit, options: Options) -> Document:
    """Make a document as it was added; only one that is a part of it says which."""
    if options.get("text") != "window":
        return to_document(hit.passage)
    return to_found_document(hit, "window", options.get("max_characters", MAX_CHARACTERS))


def _no_single_vector() -> NotImplementedError:
    return NotImplementedError(
        "A ColBERT index is searched by text, or by a matrix with one vector for each word: store.index.search(matrix)."
    )
