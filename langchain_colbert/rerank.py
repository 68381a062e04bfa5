"""``ColBERTRerank``: a LangChain document compressor that reranks by late interaction what another retriever found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator, model_validator

from colbert_core import Passage, PassageIndex
from langchain_colbert.compressor import ModelCompressor, copy_metadata
from langchain_colbert.found import found_in, own_metadata, with_found
from langchain_colbert.options import opened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

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
        index: the index that holds the documents, instead: its vectors score them, so that nothing is encoded but the question.
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

    With ``index=store`` a document that stands in it, by its id and with the same text, is scored by the index's vectors, as a
    search does. Others are encoded by the index's model.

    It returns copies of the documents, best first, with their id and metadata and ``relevance_score`` (0 to 1). Where
    ``ColBERTRetriever`` found them, ``score`` and ``rank`` become those of the reranker, too. As with the retriever's, they do
    not count where documents are compared, and are not indexed when you add the documents.
    It loads the model at the first use. Threads may share one reranker; copies and pickles share the model.
    """

    top_n: int | None = Field(default=3, ge=1)
    """Documents to keep; None for all."""
    score_threshold: float | None = Field(default=None, ge=0, le=1)
    """Least relevance of a document, from 0 to 1."""
    index: PassageIndex | None = Field(default=None, exclude=True)
    """An ``Index``, a store or retriever that has one, or its URL at a service, instead of ``model`` and ``device``."""
    evidence: bool = False
    """Put the words of the document that match the question into ``metadata["evidence"]``, with their characters."""

    @field_validator("index", mode="before")
    @classmethod
    def _index_of(cls, given: Any) -> Any:
        """Take the index out of a store or a retriever, or open the one at a URL."""
        given = opened(given)
        if given is None or isinstance(given, PassageIndex):
            return given
        if isinstance(given, str | Path):  # a string has a method of this name
            raise ValueError(f"index is an open index or a store, not a path; open it: index=Index.open({str(given)!r}).")
        return getattr(given, "index", given)

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if self.index is not None and (self.model is not None or self.device is not None):
            raise ValueError("The index has its own model: give index=... without model and device.")
        return self

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
        passages = [Passage(document.id or str(place), document.page_content) for place, document in enumerate(documents)]
        places = {id(passage): place for place, passage in enumerate(passages)}
        hits = self._reranker().rank(
            query, passages, self.top_n, self.score_threshold, evidence=self.evidence, progress=self.show_progress
        )
        return [_add_score(documents[places[id(hit.passage)]], hit) for hit in hits]


def _add_score(document: Document, hit: Hit) -> Document:
    metadata = copy_metadata(document)
    found = found_in(metadata) | {"coverage": None, "maxsim_relevance": None}  # they were part of the first stage's score
    found["relevance_score"] = hit.relevance
    found["evidence"] = None if hit.evidence is None else hit.evidence.to_dict()
    if "rank" in found:
        found |= {"score": hit.score, "rank": hit.rank}  # not those of the first stage beside the order of the second
    return with_found(document, own_metadata(metadata), **found)
