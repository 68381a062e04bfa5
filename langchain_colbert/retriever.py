"""``ColBERTRetriever``: an index of colbert_core as a LangChain retriever."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field

from colbert_core import Hit, Index, Passage, TokenEncoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
    from langchain_core.retrievers import LangSmithRetrieverParams


class ColBERTRetriever(BaseRetriever):
    """Retrieve documents by late interaction: every word of the question finds its best match in every passage.

    Needs no network, no GPU and no API key: without a ``model``, the checkpoint that ships with the package encodes.

    Instantiate:
        .. code-block:: python

            retriever = ColBERTRetriever.from_texts(["Cats purr.", "Rust is a language."], k=1)

    Usage:
        .. code-block:: python

            retriever.invoke("Which pets make a sound?")        # one document
            retriever.invoke("Which pets make a sound?", k=2)   # two, for this call
            await retriever.ainvoke("Which pets make a sound?")

    Use within a chain:
        .. code-block:: python

            chain = {"context": retriever, "question": RunnablePassthrough()} | prompt | llm

    Every document is a new object with the id it was added under. Its metadata are the user's own and, where the user
    has no such key, ``score`` (MaxSim), ``relevance_score`` (0 to 1) and ``rank`` (from 1).
    Batches and threads may share one retriever.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    index: Index = Field(exclude=True)
    """What is searched; it may be shared with other retrievers."""
    k: int = Field(default=4, ge=1)
    """Documents to return; ``invoke(query, k=...)`` overrides it for one call."""

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        metadatas: Sequence[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str] | None = None,
        model: str | Path | TokenEncoder | None = None,
        **fields: Any,
    ) -> ColBERTRetriever:
        """Index texts in memory.

        Args:
            texts: one string per document, of any length.
            metadatas: one dict per text.
            ids: one string per text; random ones by default.
            model: a checkpoint's name or folder, or a loaded encoder; None for the model in the box.
            fields: of the retriever, such as ``k``.

        Raises:
            TypeError: ``texts`` is one string.
            ValueError: the lists have different lengths, or an id stands twice.
        """
        if isinstance(texts, str):
            raise TypeError("texts must be a list of strings, got one str; write [text].")
        texts = list(texts)
        for name, values in (("metadatas", metadatas), ("ids", ids)):
            if values is not None and len(values) != len(texts):
                raise ValueError(f"There are {len(texts)} texts but {len(values)} {name}; give one for each text.")
        documents = [
            Document(text, metadata={} if metadatas is None else metadatas[i], id=None if ids is None else ids[i])
            for i, text in enumerate(texts)
        ]
        return cls.from_documents(documents, model=model, **fields)

    @classmethod
    def from_documents(
        cls, documents: Iterable[Document], *, model: str | Path | TokenEncoder | None = None, **fields: Any
    ) -> ColBERTRetriever:
        """Index documents in memory; those without an id get a random one.

        Args:
            documents: they are copied.
            model: a checkpoint's name or folder, or a loaded encoder; None for the model in the box.
            fields: of the retriever, such as ``k``.

        Raises:
            ValueError: an id stands twice.
        """
        retriever = cls(index=Index.create(None, model), **fields)
        retriever.add_documents(documents)
        return retriever

    def add_documents(self, documents: Iterable[Document]) -> list[str]:
        """Add documents, replacing those whose id is known, and return their ids in order."""
        return self.index.add(
            [Passage(document.id or str(uuid.uuid4()), document.page_content, document.metadata) for document in documents]
        )

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return [_to_document(hit) for hit in self.index.search(query, self.k if k is None else k)]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        hits = await asyncio.to_thread(self.index.search, query, self.k if k is None else k)
        return [_to_document(hit) for hit in hits]

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        params = super()._get_ls_params(**kwargs)
        params["ls_vector_store_provider"] = "colbert"
        params["ls_embedding_model"] = getattr(self.index.encoder, "name", type(self.index.encoder).__name__)
        return params


def _to_document(hit: Hit) -> Document:
    found = {"score": hit.score, "relevance_score": hit.relevance, "rank": hit.rank}
    return Document(hit.passage.text, metadata=found | hit.passage.metadata, id=hit.passage.id)
