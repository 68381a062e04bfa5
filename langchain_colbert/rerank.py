"""``ColBERTRerank``: late interaction as a LangChain document compressor, over what another retriever found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from colbert_core import Passage
from langchain_colbert.compressor import ModelCompressor, copied_metadata

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.callbacks import Callbacks
    from langchain_core.documents import Document

    from colbert_core import Hit


class ColBERTRerank(ModelCompressor):
    """Rerank documents by late interaction, whatever retrieved them.

    Setup:
        Nothing beyond the package: no network, no GPU and no API key. Without a ``model``, the checkpoint that ships with
        the package scores.

    Key init args:
        model: a checkpoint's name or folder, or a loaded encoder.
        top_n: documents to keep, 3 by default; None for all.
        score_threshold: least relevance, from 0 to 1.
        evidence: say in ``metadata["evidence"]`` which words matched, ready for JSON.

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

    top_n: int | None = Field(default=3, ge=1)
    """Documents to keep; None for all."""
    score_threshold: float | None = Field(default=None, ge=0, le=1)
    """Least relevance of a document, from 0 to 1."""
    evidence: bool = False
    """Put the words of the document that match the question into ``metadata["evidence"]``, with their characters."""

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
        hits = self._reranker().rank(query, passages, self.top_n, self.score_threshold, evidence=self.evidence)
        return [_scored(documents[int(hit.passage.id)], hit) for hit in hits]


def _scored(document: Document, hit: Hit) -> Document:
    found: dict[str, Any] = {"relevance_score": hit.relevance}
    if hit.evidence is not None:
        found["evidence"] = hit.evidence.to_dict()
    return document.model_copy(update={"metadata": copied_metadata(document) | found})
