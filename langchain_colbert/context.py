"""``ColBERTContextCompressor``: of what was retrieved, only the sentences that carry what matches the question."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from colbert_core import Passage, Reranker
from langchain_colbert.compressor import ModelCompressor, copied_metadata

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.callbacks import Callbacks
    from langchain_core.documents import Document


class ColBERTContextCompressor(ModelCompressor):
    """Cut documents down to the sentences that matter, so that the LLM reads a third of the tokens.

    No LLM is asked: the tokens of every sentence are matched with those of the question, in the context of the document.

    Setup:
        Nothing beyond the package: no network, no GPU and no API key. Without a ``model``, the checkpoint that ships with
        the package scores.

    Key init args:
        keep_ratio: what part of the tokens of all documents to keep at most, 0.35 by default.
        max_tokens: instead, the most tokens of all documents together.
        count_tokens: the length of a text, such as your LLM's; the model's own tokenizer counts by default.
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

        found = ColBERTRetriever.from_texts([text], ids=["cats"])
        retriever = ContextualCompressionRetriever(base_compressor=compressor, base_retriever=found)
        print(retriever.invoke("Why do cats purr?")[0].page_content)
        ```

        ```text
        They purr when they are content.
        ```

    Documents keep their order, id and metadata; those of which nothing is left are left out. Sentences keep their order, and
    " … " stands for what is left out between two. ``metadata["excerpt_spans"]`` has the characters of the original text, in
    which a retriever's ``metadata["evidence"]`` counts as well.
    """

    keep_ratio: float | None = Field(default=None, gt=0, le=1)
    """What part of the tokens of all documents to keep at most; 0.35 where there is no ``max_tokens`` either."""
    max_tokens: int | None = Field(default=None, ge=1)
    """The most tokens of all documents together."""
    count_tokens: Callable[[str], int] | None = Field(default=None, exclude=True)
    """The length of a text; None for the model's own tokenizer."""

    @model_validator(mode="after")
    def _check_budget(self) -> Self:
        Reranker.check_budget(self.max_tokens, self.keep_ratio)
        return self

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return the documents with the sentences that matter, in their order.

        Raises:
            ValueError: the query is blank, or a loaded encoder cannot count and there is no ``count_tokens``.
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
            progress=False,
        )
        compressed = []
        for excerpt in excerpts:
            document = documents[int(excerpt.passage.id)]
            metadata = copied_metadata(document) | {"excerpt_spans": [list(span) for span in excerpt.spans]}
            compressed.append(document.model_copy(update={"page_content": excerpt.text, "metadata": metadata}))
        return compressed
