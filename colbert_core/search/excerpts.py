"""Cut passages down to the sentences that match a query best, within a budget of tokens. Nothing is encoded here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from colbert_core.text import splitter
from colbert_core.vectors.maxsim import maxsim

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from colbert_core.types import Passage, TokenEmbeddings

# Stands between two sentences that are not neighbours in the passage.
GAP = " … "

# So much of its passage's score is added to a sentence's: of two equal sentences, the one of the better passage comes first. At
# 15 % of the tokens of 10 passages, .985 of 600 questions over encyclopedia articles kept an answer; .975 did with a weight of
# 0, and .978 with a weight of 1.
_PASSAGE_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What is left of a passage.

    Attributes:
        passage: the whole passage.
        spans: (start, end) characters of each part that is left, ascending, with something left out between two.
        text: these parts, joined by " … ".
        n_tokens: tokens of ``text``, as ``count_tokens`` counts them.
        n_tokens_before: tokens of the whole passage.
    """

    passage: Passage
    spans: tuple[tuple[int, int], ...]
    text: str
    n_tokens: int
    n_tokens_before: int


def excerpts(
    query_vectors: NDArray[np.float32],
    passages: Sequence[Passage],
    embeddings: TokenEmbeddings,
    count_tokens: Callable[[str], int],
    *,
    max_tokens: int | None,
    keep_ratio: float | None,
) -> list[Excerpt]:
    """Keep the sentences that score highest, over all passages together, as long as they fit into the budget.

    The best sentence of all stays in any case: an LLM that reads nothing, or only what fits and says nothing, cannot answer.

    The score of a sentence is MaxSim over its own tokens, plus half of its passage's score. The vectors of the tokens were made
    in the context of the passage, so a sentence that says "it" is found by what "it" stands for.

    Args:
        query_vectors: *Shape:* (n_q, dim), float32.
        passages: what was retrieved, in the order in which the excerpts are wanted.
        embeddings: embeddings of the passages' texts.
        count_tokens: returns the length of a text.
        max_tokens: most tokens of all excerpts together; more only where the best sentence alone has more.
        keep_ratio: instead, the part of all passages' tokens to keep at most.

    Returns:
        One excerpt for each passage of which anything is left, in their order; none only if no passage has a sentence.
    """
    sentences = [splitter.sentences(passage.text) for passage in passages]
    scores = score_sentences(query_vectors, embeddings, sentences)
    passage_scores = np.full(len(passages), -np.inf, np.float32)
    np.maximum.at(passage_scores, embeddings.owners, maxsim(query_vectors, embeddings.vectors, embeddings.doclens))
    scores = [own + _PASSAGE_WEIGHT * whole for own, whole in zip(scores, passage_scores, strict=True)]
    return choose_sentences(passages, sentences, scores, count_tokens, max_tokens=max_tokens, keep_ratio=keep_ratio)


def choose_sentences(
    passages: Sequence[Passage],
    sentences: Sequence[Sequence[tuple[int, int]]],
    scores: Sequence[NDArray[np.float32]],
    count_tokens: Callable[[str], int],
    *,
    max_tokens: int | None,
    keep_ratio: float | None,
) -> list[Excerpt]:
    """Take the best sentence, and then those that still fit, best first; of equal ones the first.

    Args:
        passages: what was retrieved.
        sentences: characters of the sentences of each passage, half-open and ascending.
        scores: for each passage *Shape:* (n_sentences,).
        count_tokens: returns the length of a text.
        max_tokens: most tokens of all excerpts together.
        keep_ratio: instead, the part of all passages' tokens to keep at most.
    """
    before = [count_tokens(passage.text) for passage in passages]
    budget = max_tokens if keep_ratio is None else math.floor(keep_ratio * sum(before))
    assert budget is not None
    kept: list[list[int]] = [[] for _ in passages]
    places = [(number, place) for number, spans in enumerate(sentences) for place in range(len(spans))]
    places.sort(key=lambda at: (-scores[at[0]][at[1]], at))
    left, lengths = budget, [0] * len(passages)
    for number, place in places:
        # Count the whole excerpt again: the length of a text is not the sum of the lengths of its parts.
        chosen = sorted([*kept[number], place])
        length = count_tokens(_join(passages[number].text, _join_neighbours(sentences[number], chosen)))
        if length - lengths[number] <= left or (number, place) == places[0]:
            left -= length - lengths[number]
            lengths[number], kept[number] = length, chosen
    found = []
    for number, passage in enumerate(passages):
        if kept[number]:
            spans = _join_neighbours(sentences[number], kept[number])
            found.append(Excerpt(passage, tuple(spans), _join(passage.text, spans), lengths[number], before[number]))
    return found


def score_sentences(
    query_vectors: NDArray[np.float32], embeddings: TokenEmbeddings, sentences: Sequence[Sequence[tuple[int, int]]]
) -> list[NDArray[np.float32]]:
    """Score each sentence by MaxSim over the tokens that begin in it. Where windows overlap, a token's best vector counts.

    Args:
        query_vectors: *Shape:* (n_q, dim), float32.
        embeddings: embeddings of the texts.
        sentences: characters of the sentences of each text, half-open and ascending.

    Returns:
        For each text *Shape:* (n_sentences,), float32; minus n_q for a sentence without tokens.
    """
    owners = np.repeat(embeddings.owners, embeddings.doclens)  # (n_tokens,)
    scores = []
    for owner, sentence_spans in enumerate(sentences):
        first, last = np.searchsorted(owners, [owner, owner + 1]).tolist()
        token_spans = embeddings.token_spans[first:last]
        starts = np.array([start for start, _ in sentence_spans], np.int64)
        best = np.full((len(query_vectors), len(sentence_spans)), -1.0, np.float32)
        if len(sentence_spans):
            is_of_text = token_spans[:, 0] < token_spans[:, 1]  # the model's own tokens have no characters
            places = np.maximum(np.searchsorted(starts, token_spans[is_of_text, 0], side="right") - 1, 0)
            cosines = query_vectors @ embeddings.vectors[first:last][is_of_text].T  # (n_q, n)
            np.maximum.at(best.T, places, cosines.T)
        scores.append(best.sum(axis=0))
    return scores


def _join_neighbours(sentences: Sequence[tuple[int, int]], chosen: Sequence[int]) -> list[tuple[int, int]]:
    """Return the characters of the chosen sentences; neighbours become one span, with what stands between them."""
    spans: list[tuple[int, int]] = []
    before = None
    for place in chosen:
        start, end = sentences[place]
        if before is not None and place == before + 1:
            start = spans.pop()[0]
        spans.append((start, end))
        before = place
    return spans


def _join(text: str, spans: Sequence[tuple[int, int]]) -> str:
    return GAP.join(text[start:end] for start, end in spans)
