"""Compute the evidence of a window for a query: which of its tokens match. Vectors and spans in, a value out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.evidence.evidence import Evidence, Match
from colbert_core.text.words import analyser
from colbert_core.vectors.maxsim import maxsim

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from colbert_core.types import Passage, TokenEmbeddings, TokenEncoder


def evidence_of(
    query: str,
    query_vectors: NDArray[np.float32],
    query_spans: NDArray[np.int32],
    passage: Passage,
    window: tuple[int, int],
    vectors: NDArray[np.float32],
    token_spans: NDArray[np.int32],
    min_similarity: float,
) -> Evidence:
    """Match every query vector with the most similar vector of a window; of equal ones the first.

    Args:
        query: text of the query.
        query_vectors: *Shape:* (n_q, dim), float32.
        query_spans: *Shape:* (n_q, 2), int32, characters of the query.
        passage: the passage of the window.
        window: characters of the window, half-open.
        vectors: *Shape:* (n, dim), float32, n at least 1.
        token_spans: *Shape:* (n, 2), int32, characters of the passage.
        min_similarity: least cosine of a match; a weaker one does not count.
    """
    similarities = query_vectors @ vectors.T  # (n_q, n)
    best = similarities.argmax(axis=1)
    matches = tuple(
        Match((int(span[0]), int(span[1])), (int(token_spans[place, 0]), int(token_spans[place, 1])), float(row[place]))
        for span, row, place in zip(query_spans, similarities, best.tolist(), strict=True)
    )
    return Evidence(query, passage.id, passage.text, window, matches, token_spans, similarities, min_similarity)


def mark_shared(evidence: Evidence, words: str) -> Evidence:
    """Add the words that query and window share, as an analyser of this name cuts them."""
    return replace(evidence, shared=analyser(words).shared(evidence.query, evidence.text, evidence.window))


def query_spans(encoder: TokenEncoder, query: str, n_q: int) -> NDArray[np.int32]:
    """Return the characters of each query vector. *Shape:* (n_q, 2), int32.

    All are empty if the encoder is the user's own and does not know them.
    """
    spans_of: Any = getattr(encoder, "query_spans", None)
    spans = np.zeros((n_q, 2), np.int32) if spans_of is None else spans_of(query)
    return spans if len(spans) == n_q else np.zeros((n_q, 2), np.int32)


def spans_of_window(encoder: TokenEncoder, text: str, window: tuple[int, int], n: int) -> NDArray[np.int32] | None:
    """Return the characters of each of a window's ``n`` vectors without running a model. *Shape:* (n, 2), int32.

    Return None if the vectors are not one for each token of this encoder: they were pooled, another encoder made them, or the
    encoder is the user's own and does not know the characters.
    """
    windows_of: Any = getattr(encoder, "passage_spans", None)
    for span, token_spans in [] if windows_of is None else windows_of(text):
        if tuple(span) == tuple(window) and len(token_spans) == n:
            spans: NDArray[np.int32] = token_spans
            return spans
    return None


def best_window(
    query_vectors: NDArray[np.float32], embeddings: TokenEmbeddings
) -> tuple[tuple[int, int], NDArray[np.float32], NDArray[np.int32]]:
    """Find the window of one text that scores highest, the first of equal ones. Return its span, vectors and token spans."""
    best = int(maxsim(query_vectors, embeddings.vectors, embeddings.doclens).argmax())
    start = int(embeddings.doclens[:best].sum())
    tokens = slice(start, start + int(embeddings.doclens[best]))
    first, last = embeddings.window_spans[best].tolist()
    return (first, last), embeddings.vectors[tokens], embeddings.token_spans[tokens]
