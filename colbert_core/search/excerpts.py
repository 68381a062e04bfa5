"""The sentences of some passages that carry what matches a query, within a budget of tokens. Nothing is encoded here."""

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

# Between sentences that are not neighbours in the passage.
GAP = " … "

# A passage's own score counts so much beside its sentence's: a sentence of a good passage goes before an equal one of a poor
# one. Of 600 questions over encyclopedia articles .985 kept an answer at 15 % of the tokens of 10 passages, .975 without, .978
# with 1.
_PASSAGE_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What is left of a passage.

    Attributes:
        passage: the whole one.
        spans: (start, end) characters of each stretch that was kept, in order and apart.
        text: the stretches; " … " stands for what was left out between two.
        n_tokens: of the text, by whatever counted them.
        n_tokens_before: of the whole passage.
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

    A sentence scores by MaxSim over its own tokens, and half of what its passage scores. The tokens' vectors were made in the
    context of the passage: a sentence that says "it" has vectors that know of what.

    Args:
        query_vectors: *Shape:* (n_q, dim), float32.
        passages: what was retrieved, in the order in which the excerpts are wanted.
        embeddings: of the passages' texts.
        count_tokens: the length of a text.
        max_tokens: most tokens of all excerpts together.
        keep_ratio: instead, the most as a part of what all passages have.

    Returns:
        One for each passage of which anything is left, in their order.
    """
    sentences = [splitter.sentences(passage.text) for passage in passages]
    scores = sentence_scores(query_vectors, embeddings, sentences)
    wholes = np.full(len(passages), -np.inf, np.float32)
    np.maximum.at(wholes, embeddings.owners, maxsim(query_vectors, embeddings.vectors, embeddings.doclens))
    scores = [some + _PASSAGE_WEIGHT * whole for some, whole in zip(scores, wholes, strict=True)]
    return fitted(passages, sentences, scores, count_tokens, max_tokens=max_tokens, keep_ratio=keep_ratio)


def fitted(
    passages: Sequence[Passage],
    sentences: Sequence[Sequence[tuple[int, int]]],
    scores: Sequence[NDArray[np.float32]],
    count_tokens: Callable[[str], int],
    *,
    max_tokens: int | None,
    keep_ratio: float | None,
) -> list[Excerpt]:
    """Take sentences by falling score, those that fit; of equals the first.

    Args:
        passages: as for ``excerpts``, and so are the last three.
        sentences: characters of the sentences of each passage, half-open, in order and apart.
        scores: *Shape:* (n_sentences,) for each passage.
        count_tokens: the length of a text.
        max_tokens: most tokens of all excerpts together.
        keep_ratio: instead, the most as a part of what all passages have.
    """
    before = [count_tokens(passage.text) for passage in passages]
    budget = max_tokens if keep_ratio is None else math.floor(keep_ratio * sum(before))
    assert budget is not None
    kept: list[list[int]] = [[] for _ in passages]
    everything = [(number, place) for number, some in enumerate(sentences) for place in range(len(some))]
    order = sorted(everything, key=lambda at: (-scores[at[0]][at[1]], at))
    left, lengths = budget, [0] * len(passages)
    for number, place in order:
        # The whole excerpt is counted again, since the length of a text is not the sum of its parts'.
        chosen = sorted([*kept[number], place])
        length = count_tokens(_joined(passages[number].text, _stretches(sentences[number], chosen)))
        if length - lengths[number] <= left:
            left -= length - lengths[number]
            lengths[number], kept[number] = length, chosen
    found = []
    for passage, some, chosen, length, whole in zip(passages, sentences, kept, lengths, before, strict=True):
        if chosen:
            spans = _stretches(some, chosen)
            found.append(Excerpt(passage, tuple(spans), _joined(passage.text, spans), length, whole))
    return found


def sentence_scores(
    query_vectors: NDArray[np.float32], embeddings: TokenEmbeddings, sentences: Sequence[Sequence[tuple[int, int]]]
) -> list[NDArray[np.float32]]:
    """MaxSim of a query and the tokens that begin in a sentence; of several windows that hold a token, the best.

    Args:
        query_vectors: *Shape:* (n_q, dim), float32.
        embeddings: of the texts, one for each list of sentences.
        sentences: characters of the sentences of each text, half-open, in order and apart.

    Returns:
        For each text *Shape:* (n_sentences,), float32; minus n_q for a sentence without tokens.
    """
    owners = np.repeat(embeddings.owners, embeddings.doclens)  # (n_tokens,)
    found = []
    for owner, some in enumerate(sentences):
        first, last = np.searchsorted(owners, [owner, owner + 1]).tolist()
        spans = embeddings.token_spans[first:last]
        starts = np.array([start for start, _ in some], np.int64)
        scores = np.full((len(query_vectors), len(some)), -1.0, np.float32)
        if len(some):
            is_of_text = spans[:, 0] < spans[:, 1]
            places = np.maximum(np.searchsorted(starts, spans[is_of_text, 0], side="right") - 1, 0)
            cosines = query_vectors @ embeddings.vectors[first:last][is_of_text].T  # (n_q, n)
            np.maximum.at(scores.T, places, cosines.T)
        found.append(scores.sum(axis=0))
    return found


def _stretches(sentences: Sequence[tuple[int, int]], chosen: Sequence[int]) -> list[tuple[int, int]]:
    """The characters of chosen sentences, neighbours with what is between them."""
    spans: list[tuple[int, int]] = []
    before = None
    for place in chosen:
        start, end = sentences[place]
        if before is not None and place == before + 1:
            start = spans.pop()[0]
        spans.append((start, end))
        before = place
    return spans


def _joined(text: str, spans: Sequence[tuple[int, int]]) -> str:
    return GAP.join(text[start:end] for start, end in spans)
