"""Why a passage was found: which of its words match which words of the query, as values, pages and terminal text."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.evidence import highlight, telling
from colbert_core.evidence.words import word_of, words_in, words_of
from colbert_core.extras import import_extra

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    Span = tuple[int, int]

# An answer of less than this part of the passage's strongest is noise, and its mark would hardly be seen; but the best answer
# of each word stays. So goes every tenth mark, many of them on "it" and "the", and none of 60 pairs of words is lost.
_FAINTEST = 0.065
# Where nothing is known of the collection, a word of the query is found from this cosine on.
MIN_SIMILARITY = 0.5
# A word that no word of the passage answers is crossed out below this cosine, however low the background of a small collection.
_LEAST_FOUND = 0.32


@dataclass(frozen=True, slots=True)
class Match:
    """A token of the query and the most similar token of the passage.

    Attributes:
        query_span: characters of the query, half-open; empty for the model's own tokens, such as [CLS] and [MASK].
        span: characters of the passage, half-open; empty if the most similar is one of the model's own tokens.
        similarity: cosine of the two, from -1 to 1. The similarities of all matches add up to the score.
    """

    query_span: tuple[int, int]
    span: tuple[int, int]
    similarity: float


@dataclass(frozen=True, slots=True)
class Highlight:
    """Words of the passage that match words of the query.

    Attributes:
        start: first character, in the passage.
        end: character behind the last.
        weight: how much the words stand out from the rest of the passage, above 0 to 1; 1 for the strongest highlight.
        similarity: highest cosine of a match in these words.
        terms: words of the query that they match, in the order of the query.
    """

    start: int
    end: int
    weight: float
    similarity: float
    terms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A word of the passage that answers a word of the query.

    Attributes:
        start: first character, in the passage.
        end: character behind the last.
        strength: its lift by the greatest of the passage, above 0 to 1.
        similarity: highest cosine of the two words.
    """

    start: int
    end: int
    strength: float
    similarity: float


@dataclass(frozen=True, slots=True)
class QueryWord:
    """A word of the query, with all words of the passage that answer it.

    Attributes:
        start: first character, in the query.
        end: character behind the last.
        text: the word.
        found: False if it is among the unmatched.
        answers: the strongest first. A word such as "did" may be found without one: it is there, and says nothing.
    """

    start: int
    end: int
    text: str
    found: bool
    answers: tuple[Answer, ...]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Compares the best window of a passage with a query, token by token.

    What counts is the *lift* of a query vector and a word of the passage: by how much their cosine exceeds what was to be
    expected of the two. "the" is similar to much in any passage, and in one on bread it is similar to "bread".

    A notebook shows the passage with its evidence marked. Evidence is equal to other evidence of the same values.

    Attributes:
        query: text of the query.
        passage_id: id of the passage.
        text: the whole passage; spans count its characters.
        window: (start, end) of the window that scored highest; nothing outside it is evidence.
        matches: one for each query vector, in their order.
        token_spans: *Shape:* (n, 2), int32, the characters of each of the window's vectors; empty for the model's own tokens.
        similarities: *Shape:* (n_q, n), float32, the cosine of every query vector and every vector of the window.
        min_similarity: cosine from which a word counts as found, and below which none is marked, from -1 to 1; None leaves
            both to the lifts.
        shared: characters of the query and of the passage of each word that both have, where words ranked as well.
        background: *Shape:* (n_q,), float32, the cosine that few words of the collection reach with each query vector, from
            which a word of the query counts as found; None where there is no ``expected`` either.
        expected: *Shape:* (n_q, n), float32, the cosine that was to be expected of each pair. None, as in evidence that was
            pickled before there were lifts, marks the best match of each query vector if it has at least the least cosine.
    """

    query: str
    passage_id: str
    text: str = field(repr=False)
    window: tuple[int, int]
    matches: tuple[Match, ...] = field(repr=False)
    token_spans: NDArray[np.int32] = field(repr=False)
    similarities: NDArray[np.float32] = field(repr=False)
    min_similarity: float | None = None
    shared: tuple[tuple[tuple[int, int], tuple[int, int]], ...] = field(default=(), repr=False)
    background: NDArray[np.float32] | None = field(default=None, repr=False)
    expected: NDArray[np.float32] | None = field(default=None, repr=False)

    @property
    def score(self) -> float:
        """MaxSim of the window: the sum of the matches' similarities, from -n_q to n_q."""
        return float(sum(match.similarity for match in self.matches))

    @property
    def relevance(self) -> float:
        """The score divided by the number of query vectors, clamped to [0, 1]."""
        return min(max(self.score / len(self.matches), 0.0), 1.0)

    @property
    def lifts(self) -> NDArray[np.float32]:
        """By how much each cosine exceeds what was to be expected. *Shape:* (n_q, n), float32.

        Where nothing was, that is the mean of the row.
        """
        expected = self.similarities.mean(axis=1, keepdims=True) if self.expected is None else self.expected
        return np.asarray(self.similarities - expected, np.float32)

    @cached_property
    def words(self) -> tuple[QueryWord, ...]:
        """The words of the query in their order, each with all words of the passage that lift above what was to be expected.

        Answers of less than a fifteenth of the strongest are left out, but for the best of each word.
        """
        greatest = max((lift for answers in self._answers.values() for lift, _ in answers.values()), default=1.0)
        return tuple(
            QueryWord(
                *word,
                self.query[slice(*word)],
                found=word not in self._unmatched_spans,
                answers=tuple(
                    Answer(*span, lift / greatest, similarity) for span, (lift, similarity) in _clear(answers, greatest)
                ),
            )
            for word, answers in sorted(self._answers.items())
        )

    @cached_property
    def highlights(self) -> tuple[Highlight, ...]:
        """Words of the passage that answer a word of the query, in the order of the text.

        Neighbours that answer the same words about as well are joined. A word that both have, where words ranked, is marked
        whole, as strongly as its vectors lift and at least faintly: all words that both have counted, "who" as well.
        """
        marked: dict[Span, list[tuple[QueryWord, Answer]]] = {}
        for word in self.words:
            for answer in word.answers:
                marked.setdefault((answer.start, answer.end), []).append((word, answer))
        highlights: list[Highlight] = []
        for (start, end), pairs in sorted(marked.items()):
            terms = tuple(dict.fromkeys(word.text for word, _ in pairs))
            weight = max(answer.strength for _, answer in pairs)
            similarity = max(answer.similarity for _, answer in pairs)
            if highlights and self._are_one(highlights[-1], start, weight, terms):
                before = highlights.pop()
                start, end = before.start, max(end, before.end)
                weight, similarity = max(weight, before.weight), max(similarity, before.similarity)
                terms = tuple(word.text for word in self.words if word.text in {*terms, *before.terms})
            highlights.append(Highlight(start, end, weight, similarity, tuple(dict.fromkeys(terms))))
        return tuple(highlights)

    def _are_one(self, before: Highlight, start: int, weight: float, terms: tuple[str, ...]) -> bool:
        if self.text[before.end : start].strip() or start - before.end > 1:
            return False
        # Not what is strong with what is weak: "the United States" would have the weight of "States".
        are_alike = before.terms == terms and min(weight, before.weight) >= max(weight, before.weight) / 2
        return are_alike or self.expected is None or start < before.end

    @cached_property
    def _answers(self) -> dict[Span, dict[Span, tuple[float, float]]]:
        """Of each word of the query the words of the passage that answer it, each with its lift and cosine."""
        answers: dict[Span, dict[Span, tuple[float, float]]] = {word: {} for word in self._query_words if word is not None}
        greatest = 0.0
        for word, span, lift, similarity in self._lifted():
            lift_before, similarity_before = answers[word].get(span, (0.0, -1.0))
            answers[word][span] = (max(lift, lift_before), max(similarity, similarity_before))
            greatest = max(greatest, lift)
        for query_span, span in self.shared:  # "Miyazaki's" is one word of those that rank, and two of these
            asked, answer = self._asked_in(query_span), word_of(self.text, span, self.window)
            if asked and answer is not None:
                pieces = words_in(self._passage_words, span)
                lifts = [answers.get(word, {}).get(piece, (0.0, 0.0))[0] for word in asked for piece in pieces]
                answers.setdefault(asked[0], {})[answer] = (max([*lifts, _FAINTEST * greatest]) or 1.0, 1.0)
        return answers

    def _asked_in(self, query_span: Span) -> list[Span]:
        """The words of the query in some of its characters."""
        word = word_of(self.query, query_span, (0, len(self.query)))
        return words_in(self._query_words, query_span) or ([] if word is None else [word])

    def _lifted(self) -> Iterator[tuple[Span, Span, float, float]]:
        """A word of the query, one of the passage, lift and cosine, wherever a vector of the one lifts one of the other."""
        least = self._least_cosine
        lifts = self.lifts
        if self.expected is None:  # only the matches are known to mean anything
            for word, match, row in zip(self._query_words, self.matches, self.similarities, strict=True):
                answer = word_of(self.text, match.span, self.window)
                lift = match.similarity - float(row.mean())
                if word is not None and answer is not None and match.similarity >= least and lift > 0:
                    yield word, answer, lift, match.similarity
            return
        places = np.nonzero((lifts > 0) & (self.similarities >= least))
        for row, column in zip(*(place.tolist() for place in places), strict=True):
            word, answer = self._query_words[row], self._passage_words[column]
            if word is not None and answer is not None:
                yield word, answer, float(lifts[row, column]), float(self.similarities[row, column])

    @property
    def _least_cosine(self) -> float:
        if self.min_similarity is not None:
            return self.min_similarity
        return MIN_SIMILARITY if self.expected is None else -1.0

    @cached_property
    def _query_words(self) -> list[Span | None]:
        """The word of each query vector; None of the model's own tokens and punctuation."""
        return words_of(self.query, [match.query_span for match in self.matches], (0, len(self.query)))

    @cached_property
    def _passage_words(self) -> list[Span | None]:
        """The word of each of the window's vectors; None of the model's own tokens and punctuation."""
        return words_of(self.text, [(start, end) for start, end in self.token_spans.tolist()], self.window)

    @property
    def unmatched(self) -> tuple[str, ...]:
        """Words of the query that the passage says nothing of, in the order of the query.

        No word of the passage lifts above what was to be expected, or is as similar as few words of the collection are. Given
        a ``min_similarity``, they are the words without a match of at least that.
        """
        return tuple(self.query[start:end] for start, end in self._unmatched_spans)

    @cached_property
    def _unmatched_spans(self) -> tuple[tuple[int, int], ...]:
        found = {word for word, answers in self._answers.items() if answers} if self.min_similarity is None else set()
        found |= {word for span, _ in self.shared for word in self._asked_in(span)}
        for word, best, least in zip(self._query_words, self._best_cosines(), self._least_to_be_found(), strict=True):
            if word is not None and best >= least:
                found.add(word)
        return tuple(sorted({word for word in self._query_words if word is not None} - found))

    def _best_cosines(self) -> list[float]:
        """The highest cosine of each query vector with a word of the window; with any vector where a cosine decides."""
        columns = [column for column, word in enumerate(self._passage_words) if word is not None]
        if self.min_similarity is not None or self.expected is None or not columns:
            return [match.similarity for match in self.matches]
        return [float(best) for best in self.similarities[:, columns].max(axis=1)]

    def _least_to_be_found(self) -> list[float]:
        if self.min_similarity is not None or self.background is None:
            return [self._least_cosine] * len(self.matches)
        least: list[float] = np.maximum(self.background, _LEAST_FOUND).tolist()
        return least

    def to_dict(self, *, full: bool = False) -> dict[str, Any]:
        """Return the evidence as JSON can hold it: score, relevance, window, highlights, unmatched words, answers of each word.

        Args:
            full: add all that ``from_dict`` needs to make the same evidence again: texts, vectors' cosines and their spans.
        """
        told: dict[str, Any] = {
            "score": self.score,
            "relevance": self.relevance,
            "window": list(self.window),
            "highlights": [
                {
                    "start": mark.start,
                    "end": mark.end,
                    "text": self.text[mark.start : mark.end],
                    "weight": round(mark.weight, 4),
                    "similarity": round(mark.similarity, 4),
                    "terms": list(mark.terms),
                }
                for mark in self.highlights
            ],
            "unmatched": list(self.unmatched),
            "words": [self._word_to_dict(word) for word in self.words],
        }
        return told | self._all_values() if full else told

    def _word_to_dict(self, word: QueryWord) -> dict[str, Any]:
        answers = [
            {
                "start": answer.start,
                "end": answer.end,
                "text": self.text[answer.start : answer.end],
                "strength": round(answer.strength, 4),
                "similarity": round(answer.similarity, 4),
            }
            for answer in word.answers
        ]
        return {"word": word.text, "start": word.start, "end": word.end, "found": word.found, "answers": answers}

    def _all_values(self) -> dict[str, Any]:
        return {
            "query": self.query,
            "passage_id": self.passage_id,
            "text": self.text,
            "matches": [[list(match.query_span), list(match.span), match.similarity] for match in self.matches],
            "token_spans": self.token_spans.tolist(),
            "similarities": telling.as_numbers(self.similarities),
            "min_similarity": self.min_similarity,
            "shared": [[list(query_span), list(span)] for query_span, span in self.shared],
            "background": telling.as_numbers(self.background),
            "expected": telling.as_numbers(self.expected),
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Evidence:
        """Make the evidence again of which ``to_dict(full=True)`` told, perhaps by way of JSON.

        Raises:
            TypeError: it is no mapping.
            ValueError: a value is missing, is of another kind, or does not fit to the others.
        """
        values = telling.values_of(told)
        return cls(**values | {"matches": tuple(Match(*match) for match in values["matches"])})

    def __eq__(self, other: object) -> bool:
        """Whether the other one is evidence of the same values."""
        if not isinstance(other, Evidence):
            return NotImplemented
        values = (self.query, self.passage_id, self.text, self.window, self.matches, self.min_similarity, self.shared)
        if values != (
            other.query,
            other.passage_id,
            other.text,
            other.window,
            other.matches,
            other.min_similarity,
            other.shared,
        ):
            return False
        arrays = ("token_spans", "similarities", "background", "expected")
        return all(_are_equal(getattr(self, name), getattr(other, name)) for name in arrays)

    def __hash__(self) -> int:
        return hash((self.query, self.passage_id, self.window, self.matches))

    def to_html(self) -> str:
        """Return one HTML element: the query with its unmatched words crossed out, and the window with its evidence marked.

        It is self-contained and loads nothing; texts are escaped.
        """
        caption = f"{self.passage_id} · relevance {self.relevance:.3f}"
        return highlight.as_html(self._query_pieces(), self.text, self._marks(), self.window, caption)

    def to_terminal(self, *, color: bool = True) -> str:
        """Return the window on one line, with its evidence in colour, or between square brackets."""
        return highlight.as_terminal(self.text, self._marks(), self.window, color=color)

    def plot(self, ax: Any = None) -> Any:
        """Draw the cosines of all words of the query and of the window as a heat map, the best of each row framed.

        Args:
            ax: matplotlib axes to draw into; new ones by default.

        Returns:
            The axes.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        modules = ("matplotlib", "matplotlib.pyplot", "matplotlib.patches")
        _, pyplot, patches = (import_extra(module, "plot", "matplotlib") for module in modules)
        n_q, n = self.similarities.shape
        if ax is None:
            _, ax = pyplot.subplots(figsize=(min(2 + 0.28 * n, 40), 1.2 + 0.32 * n_q), layout="constrained")
        image = ax.imshow(self.similarities, aspect="auto", cmap="YlOrBr", vmin=0, vmax=1)
        ax.figure.colorbar(image, ax=ax, label="cosine", fraction=0.03, pad=0.01)
        ax.set_yticks(range(n_q), [_label(self.query, match.query_span) for match in self.matches])
        spans = [(int(start), int(end)) for start, end in self.token_spans]
        ax.set_xticks(range(n), [_label(self.text, span) for span in spans], rotation=90)
        for row, column in enumerate(self.similarities.argmax(axis=1).tolist()):
            ax.add_patch(patches.Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="tab:blue", linewidth=1.5))
        ax.set_title(f"{self.passage_id}: score {self.score:.2f}", parse_math=False)
        return ax

    def _repr_html_(self) -> str:
        return self.to_html()

    def _marks(self) -> list[tuple[int, int, float, str]]:
        return [
            (mark.start, mark.end, mark.weight, f"{', '.join(mark.terms)}: {mark.similarity:.2f}") for mark in self.highlights
        ]

    def _query_pieces(self) -> list[tuple[str, bool]]:
        """Cut the query into pieces, each with a flag: True if nothing matches it."""
        pieces, at = [], 0
        for start, end in self._unmatched_spans:
            pieces += [(self.query[at:start], False), (self.query[start:end], True)]
            at = end
        return [*pieces, (self.query[at:], False)]


def as_page(evidence: Iterable[Evidence], title: str) -> str:
    """Make an HTML document of the evidence of several passages."""
    return highlight.page((passage_evidence.to_html() for passage_evidence in evidence), title)


def _clear(answers: dict[Span, tuple[float, float]], greatest: float) -> list[tuple[Span, tuple[float, float]]]:
    """Answers of one word that are more than noise, the strongest first."""
    ordered = sorted(answers.items(), key=lambda item: (-item[1][0], item[0]))
    return ordered[:1] + [answer for answer in ordered[1:] if answer[1][0] >= _FAINTEST * greatest]


def _are_equal(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    return one is other or (one is not None and other is not None and np.array_equal(one, other))


def _label(text: str, span: tuple[int, int]) -> str:
    if span[0] == span[1]:
        return "·"  # the model's own token
    piece = text[slice(*span)].replace("$", r"\$")
    return piece if len(piece) <= 20 else f"{piece[:19]}…"
