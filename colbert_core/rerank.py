"""Order passages that something else retrieved by how well they answer a query."""

from __future__ import annotations

from typing import TYPE_CHECKING

from colbert_core.embeddings import encode_queries
from colbert_core.search import as_snapshot, check_count, check_passages, check_relevance, search, to_hits

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from colbert_core.types import Hit, Passage, TokenEncoder


class Reranker:
    """Late interaction over a handful of candidates, without an index.

    Example:
        >>> reranker = Reranker()
        >>> hits = reranker.rank("happy pets", [Passage("a", "Rust is a language."), Passage("b", "Cats purr.")], top_n=1)
        >>> hits[0].passage.id
        'b'
    """

    def __init__(self, encoder: str | PathLike[str] | TokenEncoder | None = None, *, device: str | None = None) -> None:
        """Load or take an encoder.

        Args:
            encoder: a checkpoint's name or folder, or a loaded encoder; None for the model in the box.
            device: where an encoder given by name runs; None for the best device present.
        """
        from colbert_core.encoder import as_encoder  # here, so that importing the package does not import torch

        self.encoder = as_encoder(encoder, device=device)

    def rank(
        self,
        query: str,
        passages: Iterable[Passage],
        top_n: int | None = None,
        min_relevance: float | None = None,
        *,
        progress: bool | None = None,
    ) -> list[Hit]:
        """Score all passages and return them best first; equal scores keep the order given.

        Args:
            query: the question.
            passages: candidates, the same objects come back; their ids need not differ.
            top_n: most hits, at least 1; None for all.
            min_relevance: least relevance of a hit, from 0 to 1.
            progress: show a bar; None shows it on a terminal once a second has passed.

        Raises:
            TypeError: the query is not a string, or something is not a ``Passage``.
            ValueError: the query is blank, or top_n is below 1.
        """
        passages = check_passages(passages)
        top_n = len(passages) if top_n is None else check_count(top_n, "top_n")
        min_relevance = check_relevance(min_relevance, "min_relevance")
        (query_vectors,) = encode_queries(self.encoder, [query])
        if not passages:
            return []
        embeddings = self.encoder.encode_passages([passage.text for passage in passages], progress=progress)
        embeddings.check(len(passages), self.encoder.dim)
        best = search(as_snapshot(embeddings), query_vectors, top_n, tie=list)
        return to_hits([passages[row] for row in best.rows], best, len(query_vectors), min_relevance)

    def __repr__(self) -> str:
        return f"Reranker({getattr(self.encoder, 'name', self.encoder)!r})"
