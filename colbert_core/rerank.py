"""Order passages that something else retrieved by how well they answer a query."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from colbert_core.checks import check_count, check_passages, check_relevance, check_share, check_similarity
from colbert_core.evidence.evidence import MIN_SIMILARITY, Evidence
from colbert_core.search.excerpts import Excerpt, excerpts
from colbert_core.search.explain import best_window, evidence_of, query_spans
from colbert_core.search.hits import to_hits
from colbert_core.search.ranking import search
from colbert_core.vectors.embeddings import encode_queries, of_owner, token_ends
from colbert_core.vectors.snapshot import as_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
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
        from colbert_core.model.encoder import as_encoder  # here, so that importing the package does not import torch

        self.encoder = as_encoder(encoder, device=device)

    def rank(
        self,
        query: str,
        passages: Iterable[Passage],
        top_n: int | None = None,
        min_relevance: float | None = None,
        *,
        evidence: bool = False,
        progress: bool | None = None,
    ) -> list[Hit]:
        """Score all passages and return them best first; equal scores keep the order given.

        Args:
            query: the question.
            passages: candidates, the same objects come back; their ids need not differ.
            top_n: most hits, at least 1; None for all.
            min_relevance: least relevance of a hit, from 0 to 1.
            evidence: give each hit the ``evidence`` of its window, as ``explain`` does.
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
        best = search(as_snapshot(embeddings), query_vectors, top_n, sort_keys=list)
        hits = to_hits([passages[row] for row in best.pids], best, len(query_vectors), min_relevance)
        if not evidence:
            return hits
        ends, asked = token_ends(embeddings), query_spans(self.encoder, query, len(query_vectors))
        explained = []
        for hit, row in zip(hits, best.pids, strict=False):  # a threshold may have dropped the last hits
            window, vectors, spans = best_window(query_vectors, of_owner(embeddings, row, ends))
            found = evidence_of(query, query_vectors, asked, hit.passage, window, vectors, spans, MIN_SIMILARITY)
            explained.append(replace(hit, evidence=found))
        return explained

    def explain(self, query: str, passage: Passage, *, min_similarity: float = MIN_SIMILARITY) -> Evidence:
        """Show which words of a passage answer which words of a query, in the window of the passage that scores highest.

        Args:
            query: the question.
            passage: any.
            min_similarity: cosine from which a match counts as found, from -1 to 1.

        Raises:
            TypeError: the query is not a string, or the passage is no ``Passage``.
            ValueError: the query is blank, or the threshold is out of range.
        """
        (passage,) = check_passages([passage])
        check_similarity(min_similarity)
        (matrix,) = encode_queries(self.encoder, [query])
        embeddings = self.encoder.encode_passages([passage.text], progress=False)
        embeddings.check(1, self.encoder.dim)
        window, vectors, spans = best_window(matrix, embeddings)
        asked = query_spans(self.encoder, query, len(matrix))
        return evidence_of(query, matrix, asked, passage, window, vectors, spans, min_similarity)

    def excerpts(
        self,
        query: str,
        passages: Iterable[Passage],
        *,
        max_tokens: int | None = None,
        keep_ratio: float | None = None,
        count_tokens: Callable[[str], int] | None = None,
        progress: bool | None = None,
    ) -> list[Excerpt]:
        """Cut passages down to the sentences that carry what matches the query, so that an LLM reads less.

        Args:
            query: the question.
            passages: what was retrieved; their order stays.
            max_tokens: most tokens of all excerpts together.
            keep_ratio: instead, the most as a part of what the passages have, above 0 to 1.
            count_tokens: the length of a text, such as an LLM's tokenizer gives; None for the model's own.
            progress: show a bar; None shows it on a terminal once a second has passed.

        Returns:
            One for each passage of which anything is left; none where not even the shortest of the sentences fits.

        Raises:
            TypeError: the query is not a string, or something is not a ``Passage``.
            ValueError: the query is blank, there is not exactly one budget, it is out of range, or the encoder cannot count.
        """
        passages = check_passages(passages)
        if (max_tokens is None) == (keep_ratio is None):
            raise ValueError(f"Give max_tokens or keep_ratio, one of them; got {max_tokens!r} and {keep_ratio!r}.")
        if max_tokens is not None:
            check_count(max_tokens, "max_tokens", "tokens")
        elif not check_share(keep_ratio, "keep_ratio"):
            raise ValueError("keep_ratio must be above 0, got 0.")
        counter: Any = getattr(self.encoder, "count_tokens", None) if count_tokens is None else count_tokens
        if counter is None:
            raise ValueError(f"{self.encoder!r} has no count_tokens; give the length of a text as count_tokens=...")
        (query_vectors,) = encode_queries(self.encoder, [query])
        if not passages:
            return []
        embeddings = self.encoder.encode_passages([passage.text for passage in passages], progress=progress)
        embeddings.check(len(passages), self.encoder.dim)
        return excerpts(query_vectors, passages, embeddings, counter, max_tokens=max_tokens, keep_ratio=keep_ratio)

    def __repr__(self) -> str:
        return f"Reranker({getattr(self.encoder, 'name', self.encoder)!r})"
