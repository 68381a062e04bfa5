"""Why a passage was found: which of its words match which words of the query, as values, pages and terminal text."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from colbert_core.evidence import highlight
from colbert_core.extras import import_extra

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

# Cosine from which a match counts.
MIN_SIMILARITY = 0.5

# Thai and Lao, Burmese, Khmer: scripts that write no blanks between words.
_DENSE = (("\u0e00", "\u0eff"), ("\u1000", "\u109f"), ("\u1780", "\u17ff"))


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


@dataclass(frozen=True, eq=False)
class Evidence:
    """Compares the best window of a passage with a query, token by token.

    A notebook shows the passage with its evidence marked.

    Attributes:
        query: text of the query.
        passage_id: id of the passage.
        text: the whole passage; spans count its characters.
        window: (start, end) of the window that scored highest; nothing outside it is evidence.
        matches: one for each query vector, in their order.
        token_spans: *Shape:* (n, 2), int32, the characters of each of the window's vectors; empty for the model's own tokens.
        similarities: *Shape:* (n_q, n), float32, the cosine of every query vector and every vector of the window.
        min_similarity: cosine from which a match counts, from -1 to 1.
        shared: characters of the query and of the passage of each word that both have, where words ranked as well.
    """

    query: str
    passage_id: str
    text: str = field(repr=False)
    window: tuple[int, int]
    matches: tuple[Match, ...] = field(repr=False)
    token_spans: NDArray[np.int32] = field(repr=False)
    similarities: NDArray[np.float32] = field(repr=False)
    min_similarity: float = MIN_SIMILARITY
    shared: tuple[tuple[tuple[int, int], tuple[int, int]], ...] = field(default=(), repr=False)

    @property
    def score(self) -> float:
        """MaxSim of the window: the sum of the matches' similarities, from -n_q to n_q."""
        return float(sum(match.similarity for match in self.matches))

    @property
    def relevance(self) -> float:
        """The score divided by the number of query vectors, clamped to [0, 1]."""
        return min(max(self.score / len(self.matches), 0.0), 1.0)

    @cached_property
    def highlights(self) -> tuple[Highlight, ...]:
        """Words of the passage with a match of at least ``min_similarity``, in the order of the text; neighbours are joined.

        The weight says how much more similar a match is than the window's vectors are on average: in a passage on the
        subject everything is somewhat similar to every query word. A word that both have, where words ranked, stands out as
        much as the strongest.
        """
        lifts = [match.similarity - float(row.mean()) for match, row in zip(self.matches, self.similarities, strict=True)]
        lifts += [max(lifts, default=0.0) if max(lifts, default=0.0) > 0 else 1.0] * len(self.shared)
        places_of: dict[tuple[int, int], list[int]] = {}  # of each word the places of its matches
        for place, match in enumerate(self._all_matches):
            has_letters = _has_letters(self.query, match.query_span) and _has_letters(self.text, match.span)
            if has_letters and match.similarity >= self.min_similarity and lifts[place] > 0:
                places_of.setdefault(_whole_word(self.text, match.span, self.window), []).append(place)
        merged: list[tuple[int, int, list[int]]] = []
        for (start, end), places in sorted(places_of.items()):
            if merged and self.text[merged[-1][1] : start].strip() == "" and start - merged[-1][1] < 2:
                before = merged.pop()
                merged.append((before[0], max(end, before[1]), before[2] + places))
            else:
                merged.append((start, end, places))
        greatest = max((lifts[place] for places in places_of.values() for place in places), default=1.0)
        return tuple(
            Highlight(
                start,
                end,
                weight=max(lifts[place] for place in places) / greatest,
                similarity=max(self._all_matches[place].similarity for place in places),
                terms=tuple(dict.fromkeys(self._term_of(place) for place in sorted(places))),
            )
            for start, end, places in merged
        )

    @cached_property
    def _all_matches(self) -> tuple[Match, ...]:
        return (*self.matches, *(Match(query_span, span, 1.0) for query_span, span in self.shared))

    @property
    def unmatched(self) -> tuple[str, ...]:
        """Words of the query without a match of at least ``min_similarity``, in the order of the query."""
        return tuple(self.query[start:end] for start, end in self._unmatched_spans)

    @cached_property
    def _unmatched_spans(self) -> tuple[tuple[int, int], ...]:
        best: dict[tuple[int, int], float] = {}
        for match in self._all_matches:
            if _has_letters(self.query, match.query_span):
                word = _whole_word(self.query, match.query_span, (0, len(self.query)))
                best[word] = max(best.get(word, -1.0), match.similarity)
        return tuple(word for word, value in sorted(best.items()) if value < self.min_similarity)

    def to_dict(self) -> dict[str, Any]:
        """Return score, relevance, window, highlights and unmatched words as JSON can hold them."""
        return {
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
        }

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

    def _term_of(self, place: int) -> str:
        start, end = _whole_word(self.query, self._all_matches[place].query_span, (0, len(self.query)))
        return self.query[start:end]

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


def _has_letters(text: str, span: tuple[int, int]) -> bool:
    """Tell whether there is something to mark: letters, digits, symbols or emoji, but not punctuation or an empty span."""
    return any(character.isalnum() or unicodedata.category(character) in ("So", "Sc", "Sm") for character in text[slice(*span)])


def _whole_word(text: str, span: tuple[int, int], within: tuple[int, int]) -> tuple[int, int]:
    """Extend a piece of a word to the whole word. In scripts without blanks between words the piece stays as it is."""
    start, end = span
    while start > within[0] and _belong_together(text[start - 1], text[start]):
        start -= 1
    while end < within[1] and _belong_together(text[end - 1], text[end]):
        end += 1
    return start, end


def _belong_together(before: str, behind: str) -> bool:
    if unicodedata.combining(behind) or behind in "\u200d\ufe0f" or before == "\u200d":
        return True  # an accent, or the parts of one emoji
    return _is_of_word(before) and _is_of_word(behind)


def _is_of_word(character: str) -> bool:
    if unicodedata.combining(character):
        return True
    # Han, kana, Hangul and the like are wide; Thai, Lao, Burmese and Khmer write no blanks either.
    is_dense = unicodedata.east_asian_width(character) in "WF" or any(a <= character <= b for a, b in _DENSE)
    return character.isalnum() and not is_dense


def _label(text: str, span: tuple[int, int]) -> str:
    if span[0] == span[1]:
        return "·"  # the model's own token
    piece = text[slice(*span)].replace("$", r"\$")
    return piece if len(piece) <= 20 else f"{piece[:19]}…"
