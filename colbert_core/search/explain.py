"""Compute the evidence of a window for a query: which of its tokens match. Vectors and spans in, a value out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.evidence.evidence import MIN_SIMILARITY, Evidence, Match
from colbert_core.text.words import analyser
from colbert_core.vectors.background import Background
from colbert_core.vectors.maxsim import maxsim

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from colbert_core.types import Passage, TokenEmbeddings, TokenEncoder

# A word of the passage answers one of the query if their cosine exceeds what both owe to the passage's subject by so many of
# the standard deviations that the query's vector has over the collection. Of 60 pairs of words that mean the same, 55 are
# found, and stop words have .044 of the weight; with 2.0 the weight is .052, with 2.25 a pair less is found.
_SPREADS = 2.15
# A cosine of so many standard deviations above the mean is rare. Of the words of questions that are no stop words, all reach it
# beside their passage, and .19 to .38 beside another; with 3 these are .17 to .26, but two pairs of words are lost.
_RARE = 2.5
# How much more a word counts the closer it is to what the passage's words have in common. With the fourth power those that say
# nothing of their own stand for the subject; a plain mean leaves a quarter more of the weight to stop words.
_POWER, _ROUNDS = 4, 2


def evidence_of(
    query: str,
    query_vectors: NDArray[np.float32],
    query_spans: NDArray[np.int32],
    passage: Passage,
    window: tuple[int, int],
    vectors: NDArray[np.float32],
    token_spans: NDArray[np.int32],
    min_similarity: float | None,
    background: Background | None = None,
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
        min_similarity: least cosine of a match; None leaves to the lifts what counts.
        background: the vectors of the collection; None where there is none, which makes the window its own background.
    """
    means, spreads = (background or Background.of_vectors(vectors)).cosines(query_vectors)
    # In a handful of passages on one subject every word is as similar as the others, so that nothing would be rare.
    usual = np.minimum(means + np.float32(_RARE) * spreads, np.float32(MIN_SIMILARITY))
    of_subject = cosines_of_subject(query_vectors, vectors) + np.float32(_SPREADS) * spreads[:, None]
    expected = np.maximum(of_subject, usual[:, None])
    similarities = query_vectors @ vectors.T  # (n_q, n)
    best = similarities.argmax(axis=1)
    matches = tuple(
        Match((int(span[0]), int(span[1])), (int(token_spans[place, 0]), int(token_spans[place, 1])), float(row[place]))
        for span, row, place in zip(query_spans, similarities, best.tolist(), strict=True)
    )
    return Evidence(
        query,
        passage.id,
        passage.text,
        window,
        matches,
        token_spans,
        similarities,
        min_similarity,
        background=usual.astype(np.float32),
        expected=expected.astype(np.float32),
    )


def cosines_of_subject(queries: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the part of each cosine that is due to what a window is about, whichever of its words is asked.

    Vectors of one window have a direction in common, and words that say little of their own, such as "the" and "it", have
    hardly another one. For each word that direction is the sum ``h`` of the other words' vectors; the part of a cosine is
    ``cos(q, h) * cos(d, h)``, what is left of it if both are projected to ``h``.

    Args:
        queries: *Shape:* (n_q, dim), float32, unit rows.
        vectors: *Shape:* (n, dim), float32, unit rows, n at least 1.

    Returns:
        *Shape:* (n_q, n), float32, from 0 to 1; 0 in a window of one vector.
    """
    weights = np.ones(len(vectors), np.float32)
    for _ in range(_ROUNDS + 1):
        common = weights @ vectors
        common /= max(float(np.linalg.norm(common)), 1e-6)
        weights = np.maximum(vectors @ common, 0) ** _POWER
    others = weights @ vectors - weights[:, None] * vectors  # (n, dim)
    lengths = np.maximum(np.linalg.norm(others, axis=1), 1e-6)
    of_queries = np.maximum(queries @ others.T / lengths, 0)  # (n_q, n)
    of_vectors = np.maximum(np.einsum("nd,nd->n", vectors, others) / lengths, 0)
    return np.asarray(of_queries * of_vectors, np.float32)


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


def spans_of_window(
    encoder: TokenEncoder, text: str, window: tuple[int, int], n: int | None = None
) -> NDArray[np.int32] | None:
    """Return the characters of each of a window's ``n`` vectors without running a model. *Shape:* (n, 2), int32.

    Return None if the vectors are not one for each token of this encoder: they were pooled, another encoder made them, or the
    encoder is the user's own and does not know the characters. Where ``n`` is None, whoever has the vectors must see to that.
    """
    windows_of: Any = getattr(encoder, "passage_spans", None)
    for span, token_spans in [] if windows_of is None else windows_of(text):
        if tuple(span) == tuple(window) and n in (None, len(token_spans)):
            spans: NDArray[np.int32] = token_spans
            return spans
    return None


def evidence_anew(
    encoder: TokenEncoder,
    query: str,
    query_vectors: NDArray[np.float32],
    passage: Passage,
    min_similarity: float | None,
    background: Background | None,
) -> Evidence:
    """Match the words of a query with those of a passage that is encoded for it; the arguments are those of ``evidence_of``."""
    span, vectors, token_spans = best_window(query_vectors, encoder.encode_passages([passage.text], progress=False))
    spans = query_spans(encoder, query, len(query_vectors))
    return evidence_of(query, query_vectors, spans, passage, span, vectors, token_spans, min_similarity, background)


def best_window(
    query_vectors: NDArray[np.float32], embeddings: TokenEmbeddings
) -> tuple[tuple[int, int], NDArray[np.float32], NDArray[np.int32]]:
    """Find the window of one text that scores highest, the first of equal ones. Return its span, vectors and token spans."""
    best = int(maxsim(query_vectors, embeddings.vectors, embeddings.doclens).argmax())
    start = int(embeddings.doclens[:best].sum())
    tokens = slice(start, start + int(embeddings.doclens[best]))
    first, last = embeddings.window_spans[best].tolist()
    return (first, last), embeddings.vectors[tokens], embeddings.token_spans[tokens]
