"""``ColBERTRerank``: a LangChain document compressor that reranks by late interaction what another retriever found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from colbert_core import Passage
from langchain_colbert.compressor import ModelCompressor, copy_metadata
from langchain_colbert.found import found_in, own_metadata, with_found

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
        evidence: put the words that matched into ``metadata["evidence"]``, ready for JSON.

    Instantiate:
        ```python
        from langchain_colbert import ColBERTRerank

        reranker = ColBERTRerank(top_n=1)
        ```

    Usage:
        ```python
        from langchain_core.documents import Document

        documents = [
            Document("Rust is a systems language.", id="rust"),
            Document("Cats purr when they are content.", id="cats"),
        ]
        (best,) = reranker.compress_documents(documents, "What do happy pets do?")
        print(best.id, list(best.metadata))
        ```

        ```text
        cats ['relevance_score', 'colbert']
        ```

    Use within a chain:
        ```python
        from langchain_classic.retrievers import ContextualCompressionRetriever
        from langchain_colbert import ColBERTRetriever

        base = ColBERTRetriever.from_documents(documents)  # put any retriever here, such as BM25
        retriever = ContextualCompressionRetriever(base_compressor=reranker, base_retriever=base)
        print(retriever.invoke("What do happy pets do?")[0].page_content)
        ```

        ```text
        Cats purr when they are content.
        ```

    It returns copies of the documents, best first, with their id and metadata and ``relevance_score`` (0 to 1). Where
    ``ColBERTRetriever`` found them, ``score`` and ``rank`` become those of the reranker, too. As with the retriever's, they do
    not count where documents are compared, and are not indexed when you add the documents.
    It loads the model at the first use. Threads may share one reranker; copies and pickles share the model.
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

        The list is empty if no documents are given or none reaches the ``score_threshold``. A failure is an error.

        Raises:
            ValueError: the query is blank.
        """
        documents = list(documents)
        if not documents:
            return []
        passages = [Passage(str(position), document.page_content) for position, document in enumerate(documents)]
        hits = self._reranker().rank(query, passages, self.top_n, self.score_threshold, evidence=self.evidence)
        return [_add_score(documents[int(hit.passage.id)], hit) for hit in hits]


def _add_score(document: Document, hit: Hit) -> Document:
    metadata = copy_metadata(document)
    found = found_in(metadata)
    found["relevance_score"] = hit.relevance
    found["evidence"] = None if hit.evidence is None else hit.evidence.to_dict()
    if "rank" in found:
        found |= {"score": hit.score, "rank": hit.rank}  # not those of the first stage beside the order of the second
    return with_found(document, own_metadata(metadata), **found)
