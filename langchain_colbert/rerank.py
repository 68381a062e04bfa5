"""``ColBERTRerank``: late interaction as a LangChain document compressor, over what another retriever found."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, PrivateAttr, field_serializer

from colbert_core import Passage, Reranker, TokenEncoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.callbacks import Callbacks


class ColBERTRerank(BaseDocumentCompressor):
    """Rerank documents by late interaction, whatever retrieved them.

    Setup:
        Nothing beyond the package: no network, no GPU and no API key. Without a ``model``, the checkpoint that ships with
        the package scores.

    Key init args:
        model: a checkpoint's name or folder, or a loaded encoder.
        top_n: documents to keep, 3 by default; None for all.
        score_threshold: least relevance, from 0 to 1.

    Instantiate:
        ```python
        from langchain_colbert import ColBERTRerank

        reranker = ColBERTRerank(top_n=1)
        ```

    Usage:
        ```python
        from langchain_core.documents import Document

        found = [Document("Rust is a systems language.", id="rust"), Document("Cats purr when they are content.", id="cats")]
        (best,) = reranker.compress_documents(found, "What do happy pets do?")
        print(best.id, list(best.metadata))
        ```

        ```text
        cats ['relevance_score']
        ```

    Use within a chain:
        ```python
        from langchain_classic.retrievers import ContextualCompressionRetriever
        from langchain_colbert import ColBERTRetriever

        found = ColBERTRetriever.from_documents(found)  # put any retriever here, such as BM25
        retriever = ContextualCompressionRetriever(base_compressor=reranker, base_retriever=found)
        print(retriever.invoke("What do happy pets do?")[0].page_content)
        ```

        ```text
        Cats purr when they are content.
        ```

    The documents that come back are copies, best first, with their id and metadata and ``relevance_score`` (0 to 1).
    The model is loaded at the first use. Threads may share one reranker; copies and pickles share the model.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    model: str | Path | TokenEncoder | None = None
    """A checkpoint's name or folder, or a loaded encoder; None for the model in the box."""
    top_n: int | None = Field(default=3, ge=1)
    """Documents to keep; None for all."""
    score_threshold: float | None = Field(default=None, ge=0, le=1)
    """Least relevance of a document, from 0 to 1."""
    device: str | None = None
    """Where a named model runs; None for the best device present."""

    _loaded: tuple[Any, Reranker] | None = PrivateAttr(default=None)

    @field_serializer("model")
    def _serialized_model(self, model: str | Path | TokenEncoder | None) -> str | None:
        return str(model) if isinstance(model, str | Path) else getattr(model, "name", None)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return the ``top_n`` documents that answer the query best, best first.

        None come back for none, or where none reaches the ``score_threshold``; a failure is an error.

        Raises:
            ValueError: the query is blank.
        """
        documents = list(documents)
        if not documents:
            return []
        passages = [Passage(str(position), document.page_content) for position, document in enumerate(documents)]
        hits = self._reranker().rank(query, passages, self.top_n, self.score_threshold)
        return [_scored(documents[int(hit.passage.id)], hit.relevance) for hit in hits]

    def _reranker(self) -> Reranker:
        """The loaded model; loaded again where ``model`` or ``device`` were changed, on this object or for a copy."""
        wanted = (self.model, self.device)
        loaded = self._loaded
        if loaded is None or loaded[0] != wanted:
            with _LOADING:
                loaded = self._loaded
                if loaded is None or loaded[0] != wanted:
                    loaded = self._loaded = (wanted, Reranker(self.model, device=self.device))
        return loaded[1]


# One lock for all: a lock inside the object would keep it from being copied and pickled.
_LOADING = threading.Lock()


def _scored(document: Document, relevance: float) -> Document:
    try:
        metadata: dict[str, Any] = copy.deepcopy(document.metadata)
    except Exception:  # another retriever's metadata may hold what cannot be copied, such as a lock
        metadata = dict(document.metadata)
    return document.model_copy(update={"metadata": metadata | {"relevance_score": relevance}})
