"""``ColBERTRetriever``: a LangChain retriever over an index of colbert_core."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field, field_validator

from colbert_core import Index, PassageIndex, TokenEncoder, hits_of_blank_query, open_index
from langchain_colbert.documents import (
    Filter,
    add_documents,
    delete_documents,
    to_documents,
    to_found_document,
    to_where,
)
from langchain_colbert.options import (
    MAX_CHARACTERS,
    SEARCH_KWARGS,
    Mode,
    Text,
    check_options,
    opened,
    ranking,
    relevance_score,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from os import PathLike

    from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
    from langchain_core.retrievers import LangSmithRetrieverParams


class ColBERTRetriever(BaseRetriever):
    """Retrieve documents by late interaction: every word of the question finds its best match in every passage.

    Setup:
        Nothing beyond the package: no network, no GPU and no API key. Without a ``model``, the checkpoint that ships with
        the package encodes.

    Key init args:
        index: the index to search, a ``colbert_core.Index``, ``colbert_core.cluster.ShardedIndex`` or
            ``colbert_core.serve.Client``, or the URL of one that a service has. ``from_texts`` and ``from_documents`` make an
            ``Index``, ``from_index`` opens one.
        k: documents to return, 4 by default.
        filter: return only documents whose metadata match, such as ``{"year": {"$gte": 2020}}``; or a function of a document.
        score_threshold: least ``relevance_score``, from 0 to 1.
        text: "window" returns of a long document the part that matched; "passage", the default, all of it.
        max_characters: most characters of such a part, 2,000 by default.
        mode: "hybrid" ranks by meaning and the question's words, which finds identifiers and rare names as well; "maxsim" by
            meaning; "words" by words alone, without a model. The default is "hybrid" if the index has words, else "maxsim".
        weight: of the words with "hybrid", from 0 to 1; 0.1 to 0.5 by default, by how rare they are.
        evidence: put the words that matched into ``metadata["evidence"]``, ready for JSON.
        show_progress: False shows no bars where documents are added.

    Instantiate:
        ```python
        from langchain_colbert import ColBERTRetriever
        from langchain_core.documents import Document

        retriever = ColBERTRetriever.from_texts(
            ["Cats purr when they are content.", "Dogs wag their tails.", "Rust is a systems language."],
            metadatas=[{"kind": "pet"}, {"kind": "pet"}, {"kind": "language"}],
            ids=["cats", "dogs", "rust"],
            k=1,
        )
        ```

    Usage:
        ```python
        for document in retriever.invoke("What do happy cats do?"):
            print(document.id, document.page_content)
        for document in retriever.invoke("What do happy cats do?", k=2, filter={"kind": "pet"}):
            print(document.metadata["rank"], round(document.metadata["relevance_score"], 1), document.id)
        ```

        ```text
        cats Cats purr when they are content.
        1 0.7 cats
        2 0.4 dogs
        ```

        ``await retriever.ainvoke(...)`` takes the same arguments, and so do ``batch``, ``bind`` and ``with_config``.

    Words and meanings together:
        ```python
        retriever.add_documents([Document("Ticket ZX-4711 is about the heating.", id="ticket")])
        (document,) = retriever.invoke("Who reported ZX-4711?")  # mode="maxsim" for meanings alone
        print(document.id, document.metadata["coverage"] > 0)
        ```

        ```text
        ticket True
        ```

    Use within a chain:
        ```python
        from langchain_core.language_models import ParrotFakeChatModel
        from langchain_core.output_parsers import StrOutputParser
        from langchain_core.prompts import ChatPromptTemplate
        from langchain_core.runnables import RunnablePassthrough

        prompt = ChatPromptTemplate.from_template("Context: {context} Question: {question}")
        llm = ParrotFakeChatModel()  # repeats its prompt; put any chat model here
        context = retriever | (lambda documents: documents[0].page_content)
        chain = {"context": context, "question": RunnablePassthrough()} | prompt | llm | StrOutputParser()
        print(chain.invoke("What do happy cats do?"))
        ```

        ```text
        Context: Cats purr when they are content. Question: What do happy cats do?
        ```

    Every document is a new object with the id under which it was added. Its metadata are the user's own, plus ``score``
    (MaxSim), ``relevance_score`` (0 to 1), ``rank`` (from 1) and, on request, ``evidence``, always of this search. The key
    ``colbert`` holds them once more, and under ``yours`` what the user had under such a key. None of it counts where documents
    are compared, so a union of several searches has each document once, and none of it is indexed when you add a document
    that was found: your own metadata come back.

    ``relevance_score`` is what documents are ranked by, and what ``score_threshold`` is about. In a hybrid search it is
    ``maxsim_relevance`` + ``weight`` * ``coverage``; where that sum is above 1 the documents are in its order, and 1 is
    reported. Both parts are in the metadata as well: the relevance by MaxSim alone, and how much of the question's words the
    document has, from 0 to 1. With ``mode="words"`` there is no MaxSim:
    ``score`` and ``relevance_score`` are the ``coverage``, and only documents with one of the words are found.

    A blank question, which an LLM sends where only metadata count, gives the first ``k`` documents that the filter matches, in
    the order in which they were added, with score and relevance 0. Without a filter it gives none, and the log warns.

    A document may have any length. It is indexed in windows of what the model reads at once, and the best window finds it.
    With ``text="window"``, ``metadata["colbert"]`` has the characters of what you get in the whole text as ``span``, and those
    of the window as ``window``.

    Batches and threads may share one retriever. Copies and pickles share the model. They copy an index in memory, and open one
    on disk again.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", validate_assignment=True)

    index: PassageIndex = Field(exclude=True)
    """The index to search; other retrievers may share it."""
    k: int = Field(default=4, ge=1)
    """Documents to return; ``invoke(query, k=...)`` overrides it for one call."""
    filter: dict[str, Any] | Callable[[Document], bool] | None = None
    """Return only documents whose metadata match, or that a function of a document accepts.

    The operators are those of ``colbert_core.storage.filters``.

    ``invoke(query, filter={})`` lifts it for one call.
    """
    score_threshold: float | None = Field(default=None, ge=0, le=1)
    """Least ``relevance_score`` of a document, from 0 to 1."""
    text: Text = "passage"
    """"passage" returns whole texts, "window" of each the window that matched, with the sentences around it."""
    max_characters: int = Field(default=MAX_CHARACTERS, ge=1)
    """Most characters of a document with ``text="window"``; a window that has more stays whole."""
    mode: Mode | None = None
    """"hybrid" ranks by meaning and words, "maxsim" by meaning, "words" by words alone, which loads no model.

    None is "hybrid" if the index has words or a weight is given, else "maxsim": an index that was made without words, or before
    there were any and was not changed since, or one of your own that has no method ``has_words``.
    """
    weight: float | None = Field(default=None, ge=0, le=1)
    """Of the words in a hybrid search, from 0 to 1; None for the index's own.

    It goes with the field ``mode``: where ``search_kwargs`` or a call name another mode, it is dropped.
    """
    evidence: bool = False
    """Put the words of the document that match the question into ``metadata["evidence"]``, with their characters."""
    show_progress: bool | None = None
    """Show bars; False shows none, and None shows them on a terminal or in a notebook once a second has passed."""
    search_kwargs: dict[str, Any] = Field(default_factory=dict)
    """The fields from ``k`` to ``weight`` once more, as retrievers of vector stores take them; they beat the fields."""

    @field_validator("index", mode="before")
    @classmethod
    def _open_url(cls, given: Any) -> Any:
        return opened(given)

    @field_validator("search_kwargs")
    @classmethod
    def _check_search_kwargs(cls, value: dict[str, Any]) -> dict[str, Any]:
        if unknown := value.keys() - set(SEARCH_KWARGS):
            raise ValueError(f"search_kwargs takes {', '.join(SEARCH_KWARGS)}, got {', '.join(sorted(unknown))}.")
        return value

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        metadatas: Sequence[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        model: str | PathLike[str] | TokenEncoder | None = None,
        **fields: Any,
    ) -> ColBERTRetriever:
        """Index texts in memory.

        Args:
            texts: one string per document, of any length.
            metadatas: one dict per text.
            ids: one string per text; random ids by default.
            model: a checkpoint's name or folder, or a loaded encoder; None for the model in the box.
            fields: of the retriever, such as ``k``.

        Raises:
            TypeError: ``texts`` is one string.
            ValueError: the lists have different lengths, or an id stands twice.
        """
        return cls.from_documents(to_documents(texts, metadatas, ids), model=model, **fields)

    @classmethod
    def from_documents(
        cls, documents: Iterable[Document], *, model: str | PathLike[str] | TokenEncoder | None = None, **fields: Any
    ) -> ColBERTRetriever:
        """Index documents in memory; those without an id get a random one.

        Args:
            documents: the documents; the index copies them.
            model: a checkpoint's name or folder, or a loaded encoder; None for the model in the box.
            fields: of the retriever, such as ``k``.

        Raises:
            ValueError: an id stands twice.
        """
        retriever = cls(index=Index.create(None, model), **fields)
        retriever.add_documents(documents)
        return retriever

    @classmethod
    def from_index(
        cls, path_or_url: str | PathLike[str], *, model: str | PathLike[str] | TokenEncoder | None = None, **fields: Any
    ) -> ColBERTRetriever:
        """Open an index on disk, whoever made it: the command line, LangChain or LlamaIndex; or one that a service has.

        Args:
            path_or_url: folder of the index, or its URL, such as "http://127.0.0.1:8080/v1/indexes/wiki".
            model: a checkpoint's name or folder, or a loaded encoder; None for the one with which the index was made, which is
                loaded at the first search.
            fields: of the retriever, such as ``k``.

        Raises:
            IndexNotFoundError: there is no index.
            EncoderMismatchError: the index was made with another model.
            ServiceError: the service does not answer as one does.
            ValueError: there is a model for a service, which has its own.
        """
        return cls(index=open_index(path_or_url, model), **fields)

    def add_documents(self, documents: Iterable[Document], *, ids: Sequence[str | None] | None = None) -> list[str]:
        """Add documents, replacing those whose id is known, and return their ids in order.

        Args:
            documents: the documents; the index copies them.
            ids: one id or None for each document, which beats the document's own. A document with neither gets a random id.
        """
        return add_documents(self.index, documents, ids, self.show_progress)

    def delete(self, ids: Iterable[str] | None = None, *, filter: Filter | None = None) -> None:
        """Delete documents by ids, where unknown ones are no error, or by a filter; ``filter={}`` deletes all.

        Raises:
            ValueError: neither or both are given.
        """
        delete_documents(self.index, ids, filter)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Filter | None = None,
        score_threshold: float | None = None,
        text: Text | None = None,
        max_characters: int | None = None,
        mode: Mode | None = None,
        weight: float | None = None,
    ) -> list[Document]:
        return self._search(
            query,
            k=k,
            filter=filter,
            score_threshold=score_threshold,
            text=text,
            max_characters=max_characters,
            mode=mode,
            weight=weight,
        )

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Filter | None = None,
        score_threshold: float | None = None,
        text: Text | None = None,
        max_characters: int | None = None,
        mode: Mode | None = None,
        weight: float | None = None,
    ) -> list[Document]:
        return await asyncio.to_thread(
            self._search,
            query,
            k=k,
            filter=filter,
            score_threshold=score_threshold,
            text=text,
            max_characters=max_characters,
            mode=mode,
            weight=weight,
        )

    def _search(self, query: str, **call: Any) -> list[Document]:
        settings: dict[str, Any] = {name: getattr(self, name) for name in SEARCH_KWARGS}
        search_kwargs = self._check_search_kwargs(self.search_kwargs)  # again, because users may change the dict in place
        for given in (search_kwargs, {name: value for name, value in call.items() if value is not None}):
            if given.get("mode") not in (None, "hybrid"):
                settings["weight"] = None  # it was for the mode that this one replaces
            settings |= given
        check_options(settings["text"], settings["max_characters"], settings["mode"])
        ranked_by = ranking(self.index, settings["mode"], settings["weight"])
        k: int = settings["k"]
        restrictions: dict[str, Any] = {"where": to_where(settings["filter"]), "min_relevance": settings["score_threshold"]}
        hits = hits_of_blank_query(self.index, [query], k, **restrictions)
        if hits is None:
            hits = self.index.search(query, k, **restrictions, evidence=self.evidence, **ranked_by)
        return [
            to_found_document(
                hit,
                settings["text"],
                settings["max_characters"],
                score=hit.score,
                relevance_score=relevance_score(hit),
                rank=hit.rank,
                coverage=hit.coverage,
                maxsim_relevance=hit.relevance if ranked_by.get("mode") == "hybrid" else None,
            )
            for hit in hits
        ]

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        params = super()._get_ls_params(**kwargs)
        params["ls_vector_store_provider"] = "colbert"
        params["ls_embedding_provider"] = "colbert"
        params["ls_embedding_model"] = self.index.encoder_name or "vectors from elsewhere"
        return params
