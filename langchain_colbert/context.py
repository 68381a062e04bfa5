"""``ColBERTContextCompressor``: keep only the sentences of retrieved documents that match the question best."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from colbert_core import Passage, Reranker
from langchain_colbert.compressor import ModelCompressor, copy_metadata
from langchain_colbert.found import found_in, own_metadata, with_found

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.callbacks import Callbacks
    from langchain_core.documents import Document


class ColBERTContextCompressor(ModelCompressor):
    """Cut documents down to the sentences that matter, so that the LLM reads a third of the tokens.

    It asks no LLM: it matches the tokens of every sentence, in the context of the document, with those of the question.

    Setup:
        Nothing beyond the package: no network, no GPU and no API key. Without a ``model``, the checkpoint that ships with
        the package scores.

    Key init args:
        keep_ratio: the part of all documents' tokens to keep at most, 0.35 by default.
        max_tokens: instead, most tokens of all documents together.
        count_tokens: returns the length of a text, as your LLM counts it; the model's own tokenizer counts by default.
        model: a checkpoint's name or folder, or a loaded encoder.

    Instantiate:
        ```python
        from langchain_colbert import ColBERTContextCompressor

        compressor = ColBERTContextCompressor(max_tokens=10)
        ```

    Usage:
        ```python
        from langchain_core.documents import Document

        text = "Cats are mammals. They purr when they are content. Many live on farms. Some are kept indoors."
        (document,) = compressor.compress_documents([Document(text, id="cats")], "Why do cats purr?")
        print(document.id, document.metadata["excerpt_spans"])
        print(document.page_content)
        ```

        ```text
        cats [[18, 50]]
        They purr when they are content.
        ```

    Use within a chain:
        ```python
        from langchain_classic.retrievers import ContextualCompressionRetriever
        from langchain_colbert import ColBERTRetriever

        base = ColBERTRetriever.from_texts([text], ids=["cats"])
        retriever = ContextualCompressionRetriever(base_compressor=compressor, base_retriever=base)
        print(retriever.invoke("Why do cats purr?")[0].page_content)
        ```

        ```text
        They purr when they are content.
        ```

    Documents keep their order, id and metadata; one without any sentence left is dropped. The best sentence of all stays, even
    if it alone is above the budget, so a chain that found something never reads nothing. Sentences keep their order, and " … "
    stands for what was left out between two. ``metadata["excerpt_spans"]`` gives their characters in the original text, as a
    retriever's ``metadata["evidence"]`` does.
    """

    keep_ratio: float | None = Field(default=None, gt=0, le=1)
    """The part of all documents' tokens to keep at most; 0.35 if there is no ``max_tokens`` either."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of all documents together."""
    count_tokens: Callable[[str], int] | None = Field(default=None, exclude=True)
    """Returns the length of a text; None for the model's own tokenizer."""

    @model_validator(mode="after")
    def _check_budget(self) -> Self:
        Reranker.check_budget(self.max_tokens, self.keep_ratio)
        return self

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return the documents, in their order, with the sentences that matter.

        Raises:
            ValueError: the query is blank, or the encoder cannot count tokens and no ``count_tokens`` is given.
        """
        documents = list(documents)
        if not documents:
            return []
        passages = [Passage(str(position), document.page_content) for position, document in enumerate(documents)]
        excerpts = self._reranker().excerpts(
            query,
            passages,
            max_tokens=self.max_tokens,
            keep_ratio=self.keep_ratio,
            count_tokens=self.count_tokens,
            progress=self.show_progress,
        )
        compressed = []
        for excerpt in excerpts:
            document = documents[int(excerpt.passage.id)]
            metadata = copy_metadata(document)
            found = found_in(metadata) | {"excerpt_spans": [list(span) for span in excerpt.spans]}
            shortened = document.model_copy(update={"page_content": excerpt.text})
            compressed.append(with_found(shortened, own_metadata(metadata), **found))
        return compressed
