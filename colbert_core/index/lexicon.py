"""The words of one moment of an index, and what a search has read of them so far."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from colbert_core.search.lexical import WordCounts, coverage, weight_for
from colbert_core.text.words import analyser

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from colbert_core.storage.transaction import Reader

    Span = tuple[int, int]
    Posting = tuple[NDArray[np.int64], NDArray[np.int64]]

# Places and counts that are kept for the next search, 32 MB: over 26,000 passages those of some ten thousand terms.
_MOST_KEPT = 2**21


class Lexicon:
    """Which passages have a term, for one generation of an index. All its reads share one.

    Attributes:
        moment: identity and generation of the index.
        analyser: name of the way in which texts are cut.
        rows: pids of all passages with words, *Shape:* (n,), ascending.
        lengths: number of terms of each, *Shape:* (n,).
    """

    def __init__(self, reader: Reader, moment: tuple[str, int]) -> None:
        """Read the lengths of all passages.

        Raises:
            ValueError: the index has no words.
            UnsupportedIndexError: it has none yet.
        """
        name = reader.words.analyser()
        if name is None:
            raise ValueError("The index was made without words; search it with mode='maxsim', or make it with words='english'.")
        self.moment, self.analyser = moment, name
        self._analyser = analyser(name)
        self.rows, self.lengths = reader.words.lengths()
        self._kept: OrderedDict[str, Posting] = OrderedDict()
        self._n_kept = 0
        self._lock = threading.Lock()

    def counts(self, reader: Reader, texts: Iterable[str]) -> WordCounts:
        """Count the passages, their terms, and the passages that have each term of these queries."""
        terms = {term for text in texts for term in self._analyser.query_terms(text)}
        found = {term: len(self._posting(reader, term)[0]) for term in sorted(terms)}
        return WordCounts(len(self.rows), int(self.lengths.sum()), found)

    def coverage(self, reader: Reader, text: str, counts: WordCounts | None) -> tuple[NDArray[np.float64], float]:
        """Compute how well each passage covers the words of a query, *Shape:* (n,), from 0 to 1; and the usual weight of that.

        Args:
            reader: of this moment.
            text: the query.
            counts: of the whole collection, of which this index is a part; None where it is the whole.
        """
        postings = {term: self._posting(reader, term) for term in self._analyser.query_terms(text)}
        if counts is None:
            found = {term: len(places) for term, (places, _) in postings.items()}
            counts = WordCounts(len(self.rows), int(self.lengths.sum()), found)
        return coverage(postings, self.lengths, counts), weight_for(postings, counts)

    def best_window(self, query: str, text: str, windows: list[Span]) -> Span:
        """Choose the window of a passage that has most of the different words of a query, the first of equals."""
        if len(windows) == 1:
            return windows[0]
        found = list(self._analyser.pieces(text, {*self._analyser.query_terms(query)}))

        def count(window: Span) -> int:
            first, last = window
            return len({piece.term for piece in found if first <= piece.span[0] and piece.span[1] <= last})

        return max(windows, key=count)

    def _posting(self, reader: Reader, term: str) -> Posting:
        """The places in ``rows`` of the passages that have a term, and how often each has it."""
        with self._lock:
            if term in self._kept:
                self._kept.move_to_end(term)
                return self._kept[term]
        found, times = reader.words.postings(term)
        if len(self.rows):
            places = np.minimum(np.searchsorted(self.rows, found), len(self.rows) - 1)
            is_there = self.rows[places] == found
            posting = (places[is_there], times[is_there])
        else:
            posting = (found[:0], times[:0])
        with self._lock:
            if term not in self._kept:
                self._kept[term] = posting
                self._n_kept += len(posting[0]) + 32
            while self._n_kept > _MOST_KEPT and len(self._kept) > 1:
                _, (dropped, _) = self._kept.popitem(last=False)
                self._n_kept -= len(dropped) + 32
        return posting
