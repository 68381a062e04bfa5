"""One moment of an index, and everything that can be asked of it: hits, texts, vectors and evidence that belong together."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.index.paging import row_of
from colbert_core.index.reports import IndexStats
from colbert_core.index.state import damage_named
from colbert_core.search.diversity import diversify
from colbert_core.search.explain import evidence_anew, evidence_of, mark_shared, query_spans, spans_of_window
from colbert_core.search.hits import Ranked, is_relevant, to_hits
from colbert_core.search.hybrid import rank_by_coverage, rank_hybrid
from colbert_core.search.mean import rank_by_mean
from colbert_core.search.ranking import config_for, imputed_bars, search
from colbert_core.storage.changes import StaleRead
from colbert_core.threads import spread
from colbert_core.types import Page
from colbert_core.vectors.snapshot import pids_with_vectors, vectors_of, windows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from colbert_core.evidence.evidence import Evidence
    from colbert_core.index.advice import Advice
    from colbert_core.index.lexicon import Lexicon
    from colbert_core.index.restriction import Restriction
    from colbert_core.index.state import State
    from colbert_core.model.fingerprint import LazyEncoder
    from colbert_core.search.config import SearchConfig
    from colbert_core.search.lexical import ByWords
    from colbert_core.storage.transaction import Reader
    from colbert_core.types import Hit, Passage
    from colbert_core.vectors.background import Background

_SEED = 12345


@dataclass(frozen=True)
class View:
    """One moment of an index. ``Versions.read`` makes it, and it is good for as long as that call lasts.

    Attributes:
        reader: texts, metadata and filters of this moment.
        newest: maps the vectors of this moment, for a reader.
        newest_words: looks up the words of this moment, for a reader.
        restriction: which passages may be found; None for all.
        device: PyTorch's name of where searches score; None for the CPU.
        encoder: what encodes texts for evidence, loaded when that is first asked for.
        name: the index, for messages.
        advice: warns of filters that ask for what no passage has; None says nothing.
        shards: of so many parts of a collection this is one, and looks at its share of what a search of the whole looks at.
    """

    reader: Reader
    newest: Callable[[Reader], State]
    newest_words: Callable[[Reader], Lexicon]
    restriction: Restriction | None
    device: str | None
    encoder: LazyEncoder
    name: str
    advice: Advice | None
    shards: int = 1
    _kept: list[tuple[State, NDArray[np.int64] | None]] = field(default_factory=list)
    _one_by_one: threading.Lock = field(default_factory=threading.Lock)  # the connection is for one thread at a time

    @property
    def _moment(self) -> tuple[State, NDArray[np.int64] | None]:
        # No cached_property, which until Python 3.12 holds one lock for all views: whoever has it waits for the guard, and
        # whoever holds the guard may ask for the moment.
        with self.reader.moment():  # in memory a writer could come between the two
            if not self._kept:
                self._kept.append((self.newest(self.reader), self._allowed()))
            return self._kept[0]

    @property
    def state(self) -> State:
        """The vectors of this moment; mapped when they are first asked for.

        Raises:
            DamagedIndexError: a file cannot be used.
        """
        return self._moment[0]

    @property
    def pids(self) -> NDArray[np.int64] | None:
        """The passages that may be found. *Shape:* (n,), ascending; None for all."""
        return self._moment[1]

    def _allowed(self) -> NDArray[np.int64] | None:
        return None if self.restriction is None else self.restriction.pids(self.reader, self.advice)

    # Searches

    def rank(
        self,
        query: NDArray[np.float32],
        k: int,
        *,
        pids: NDArray[np.int64] | None = None,
        config: SearchConfig | None = None,
        exact: bool = False,
        device: str | None = None,
        bars: NDArray[np.float32] | None = None,
    ) -> Ranked:
        """Rank the best ``k`` passages for one query.

        Args:
            query: *Shape:* (n_q, dim), float32, unit rows.
            k: most passages.
            pids: *Shape:* (n,), ascending; only these passages. None for all.
            config: how much to look at; None chooses by k.
            exact: score every passage.
            device: where to score; None for the CPU.
            bars: what ``imputed_bars`` gave.

        Raises:
            DamagedIndexError: a code or a list leads nowhere.
        """
        snapshot = self.state.snapshot
        config = config or config_for(snapshot, k, len(query), self.shards)
        options: dict[str, Any] = {"config": config, "exact": exact, "device": device, "bars": bars}
        with damage_named(self.name):
            return search(snapshot, query, k, sort_keys=self._sort_keys, pids=pids, **options)

    def _ranker(
        self, queries: Sequence[NDArray[np.float32]], words: ByWords | None, *, config: SearchConfig | None, exact: bool
    ) -> Callable[[int, int, NDArray[np.int64] | None], Ranked]:
        """Make the function that ranks the best ``k`` passages for the query of a number, among some pids or all."""

        @functools.cache
        def bars(number: int) -> NDArray[np.float32] | None:
            with damage_named(self.name):
                return imputed_bars(self.state.snapshot, queries[number], config, pids=self.pids, exact=exact)

        def by_vectors(
            number: int, k: int, pids: NDArray[np.int64] | None, config: SearchConfig | None = config, all_: bool = exact
        ) -> Ranked:
            known = None if pids is self.pids else bars(number)  # those of all passages also where some are ranked once more
            return self.rank(queries[number], k, pids=pids, config=config, exact=all_, device=self.device, bars=known)

        if words is None:
            return by_vectors
        lexicon, covered = self._coverages(words)
        snapshot = self.state.snapshot

        def rank(number: int, k: int, pids: NDArray[np.int64] | None) -> Ranked:
            coverage, weight = covered[number]
            rows, keys = lexicon.rows, self._sort_keys
            if words.alone:
                found, values = rank_by_coverage(k, rows=rows, coverage=coverage, pids=pids, sort_keys=keys)
                return Ranked(found, values, self._windows_with(lexicon, words.texts[number], found), values, values)
            n_q = len(queries[number])
            # A head longer than k needs no wider search: what is found of the best k is what a search for k finds.
            chosen = config or config_for(snapshot, k, n_q, self.shards)
            return rank_hybrid(
                lambda k, pids, all_: by_vectors(number, k, pids, chosen, exact or all_),
                n_q,
                k,
                weight=weight,
                rows=rows,
                coverage=coverage,
                pids=pids,
                sort_keys=keys,
            )

        return rank

    def _coverages(self, words: ByWords) -> tuple[Lexicon, list[tuple[NDArray[np.float64], float]]]:
        """The words of this moment; for each query how well each of their passages covers it, and the weight of that."""
        with self.reader.moment():  # in memory a writer could come between the reads
            state, lexicon = self.state, self.lexicon
            if lexicon.moment != (state.identity, state.generation):
                raise StaleRead("words")
            covered = [lexicon.coverage(self.reader, text, words.counts) for text in words.texts]
        return lexicon, [(each, usual if words.weight is None else words.weight) for each, usual in covered]

    @property
    def lexicon(self) -> Lexicon:
        """The words of this moment.

        Raises:
            ValueError: the index was made without words.
            UnsupportedIndexError: it has none yet.
        """
        return self.newest_words(self.reader)

    def _windows_with(self, lexicon: Lexicon, query: str, pids: list[int]) -> list[tuple[int, int]]:
        """Of each passage the window that has most of the different words of a query, the first of equals."""
        with self._one_by_one:
            passages = self.reader.passages(pids)
        windows = [windows_of(self.state.snapshot, pid) for pid in pids]
        return [
            lexicon.best_window(query, passage.text, of_passage or [(0, len(passage.text))])
            for passage, of_passage in zip(passages, windows, strict=True)
        ]

    def hits(
        self,
        queries: Sequence[NDArray[np.float32]],
        k: int,
        *,
        config: SearchConfig | None = None,
        exact: bool = False,
        min_relevance: float | None = None,
        texts: Sequence[str] | None = None,
        words: ByWords | None = None,
    ) -> list[list[Hit]]:
        """Find the best passages for each query, by as many threads as ``set_num_threads`` allows.

        Args:
            queries: *Shape:* (n_q, dim) each, float32, unit rows.
            k: most hits for each.
            config: how much to look at; None chooses by k.
            exact: score every passage.
            min_relevance: least relevance of a hit; None for no threshold.
            texts: words of the queries, to give each hit its evidence; None gives none.
            words: rank by the words of the queries as well, or by them alone; None for MaxSim alone.
        """
        rank = self._ranker(queries, words, config=config, exact=exact)
        pids, lengths = self.pids, _lengths(queries, words)
        # A GPU is busy with one query; several at once only take more of its memory.
        numbers = range(len(lengths))
        rankings = (
            spread(lambda number: rank(number, k, pids), numbers)
            if self.device is None
            else [rank(number, k, pids) for number in numbers]
        )
        passages = iter(self._passages([pid for ranking in rankings for pid in ranking.pids]))  # all with one look
        all_hits = [
            to_hits(list(islice(passages, len(ranking.pids))), ranking, n_q, min_relevance)
            for ranking, n_q in zip(rankings, lengths, strict=True)
        ]
        if texts is None:
            return all_hits
        return [
            [
                replace(hit, evidence=self.evidence(text, query, pid, hit.passage, hit.span, by_words=words is not None))
                for hit, pid in zip(hits, ranking.pids, strict=False)  # a threshold may have dropped the last hits
            ]
            for text, query, hits, ranking in zip(texts, queries, all_hits, rankings, strict=True)
        ]

    def mean(
        self,
        queries: Sequence[NDArray[np.float32]],
        k: int,
        *,
        config: SearchConfig | None = None,
        exact: bool = False,
        min_relevance: float | None = None,
        words: ByWords | None = None,
    ) -> list[Hit]:
        """Find the passages that match several queries best on average; the arguments are those of ``hits``."""
        rank = self._ranker(queries, words, config=config, exact=exact)
        ranking, relevances = rank_by_mean(rank, _lengths(queries, words), k, self.pids, self._sort_keys)
        hits = to_hits(self._passages(ranking.pids), ranking, 1, None)
        means = [replace(hit, relevance=relevance) for hit, relevance in zip(hits, relevances, strict=True)]
        return [hit for hit in means if is_relevant(hit, min_relevance)]

    def diverse(
        self,
        queries: Sequence[NDArray[np.float32]],
        k: int,
        fetch_k: int,
        weight: float,
        *,
        config: SearchConfig | None = None,
        exact: bool = False,
        min_relevance: float | None = None,
        words: ByWords | None = None,
    ) -> list[Hit]:
        """Find passages that match a query and differ from each other, by maximal marginal relevance.

        Args:
            queries: one, *Shape:* (n_q, dim), float32, unit rows; none where words alone rank.
            k: most hits.
            fetch_k: how many of the best are chosen from; k if that is more.
            weight: of relevance, from 0 to 1; the rest is the weight of being unlike.
            config: as in ``hits``.
            exact: as in ``hits``.
            min_relevance: as in ``hits``.
            words: as in ``hits``.
        """
        ranking = self._ranker(queries, words, config=config, exact=exact)(0, max(k, fetch_k), self.pids)
        (n_q,) = _lengths(queries, words)
        hits = to_hits(self._passages(ranking.pids), ranking, n_q, min_relevance)
        with damage_named(self.name):
            windows = [vectors_of(self.state.snapshot, pid, hit.span) for pid, hit in zip(ranking.pids, hits, strict=False)]
        order = diversify([hit.value for hit in hits], windows, k, weight)
        return [replace(hits[place], rank=rank) for rank, place in enumerate(order, 1)]

    # Evidence

    def explain(
        self, query: str, vectors: NDArray[np.float32], passage_id: str, min_similarity: float | None, *, by_words: bool
    ) -> Evidence:
        """Show which words of a passage answer which words of a query, in the window that scores highest.

        Args:
            query: its words.
            vectors: of the query, *Shape:* (n_q, dim), float32, unit rows.
            passage_id: which passage.
            min_similarity: cosine from which a match counts as found; None leaves that to the lifts.
            by_words: words that both have are evidence as well.

        Raises:
            ValueError: there is no passage with this id.
        """
        _, pids_by_id = self._pids_of([passage_id])
        pids = list(pids_by_id.values())
        if not pids:
            raise ValueError(f"There is no passage with the id {passage_id!r} in {self.name}.")
        (passage,) = self.reader.passages(pids)
        ranking = self.rank(vectors, 1, pids=np.array(pids, np.int64), exact=True, device=self.device)
        if not ranking.pids:  # there is nothing to read in it
            return evidence_anew(self.encoder.get(), query, vectors, passage, min_similarity, self.background)
        return self.evidence(query, vectors, pids[0], passage, ranking.spans[0], min_similarity, by_words=by_words)

    def evidence(
        self,
        query: str,
        vectors: NDArray[np.float32],
        pid: int,
        passage: Passage,
        span: tuple[int, int],
        min_similarity: float | None = None,
        *,
        by_words: bool = False,
    ) -> Evidence:
        """Match the words of a query with those of a window.

        The window's vectors are read from the index and the tokenizer finds their characters, so no model runs. Where the
        vectors were pooled, the passage is encoded anew.

        Args:
            query: its words.
            vectors: of the query, *Shape:* (n_q, dim), float32, unit rows.
            pid: of the passage.
            passage: its text and id.
            span: characters of the window, half-open.
            min_similarity: cosine from which a match counts as found; None leaves that to the lifts.
            by_words: words ranked as well, so those that both have are evidence.
        """
        if by_words:
            return mark_shared(self.evidence(query, vectors, pid, passage, span, min_similarity), self.lexicon.analyser)
        encoder, snapshot = self.encoder.get(), self.state.snapshot
        with damage_named(self.name):
            window_vectors = vectors_of(snapshot, pid, span)
        token_spans = spans_of_window(encoder, passage.text, span, len(window_vectors))
        if token_spans is None:
            return evidence_anew(encoder, query, vectors, passage, min_similarity, self.background)
        words = query_spans(encoder, query, len(vectors))
        return evidence_of(query, vectors, words, passage, span, window_vectors, token_spans, min_similarity, self.background)

    @property
    def background(self) -> Background | None:
        """How the vectors of this moment are spread; None if there is none."""
        with damage_named(self.name):
            return self.state.background

    # Passages

    def ids(self) -> list[str]:
        """The ids of the passages that may be found, in the order in which they were added."""
        with self.reader.moment():
            allowed = self._allowed()
            return self.reader.ids(self.reader.rows() if allowed is None else allowed.tolist())

    def page(self, limit: int | None, after: str | None) -> Page[Passage]:
        """Copies of the passages that may be found, in the order in which they were added.

        Args:
            limit: most passages; None for all.
            after: what the page before gave as its ``next``; None for the first page.

        Raises:
            ValueError: ``after`` comes from elsewhere.
        """
        with self.reader.moment():
            name = self.reader.moment_of()[0][:8]
            first, allowed = row_of(after, name), self._allowed()
            if allowed is None:
                rows = self.reader.rows(first, -1 if limit is None else limit + 1)
            else:
                rows = allowed[np.searchsorted(allowed, first, side="right") :].tolist()
            shown = rows[:limit]
            return Page(self.reader.passages(shown), f"{name}-{shown[-1]}" if len(rows) > len(shown) else None)

    def count(self) -> int:
        """How many passages may be found."""
        with self.reader.moment():
            allowed = self._allowed()
            return self.reader.count() if allowed is None else len(allowed)

    def get(self, ids: Sequence[str]) -> list[Passage | None]:
        """Copies of the passages with these ids, in their order; None where there is none."""
        with self.reader.moment():
            pids = self.reader.rows_of(ids)
            known = [passage_id for passage_id in ids if passage_id in pids]  # the same id may stand twice
            passages = iter(self.reader.passages([pids[passage_id] for passage_id in known]))
        return [next(passages) if passage_id in pids else None for passage_id in ids]

    def embeddings(self, ids: Sequence[str], dim: int) -> list[NDArray[np.float32] | None]:
        """The vectors of these passages, those of all windows one after the other. *Shape:* (n_tokens, dim) each, float32.

        There are none of a passage with nothing to read, and None stands for one that is not there.
        """
        state, pids = self._pids_of(ids)
        with damage_named(self.name):
            return [vectors_of(state.snapshot, pids[each], dim=dim) if each in pids else None for each in ids]

    def sample_pids(self, n: int) -> list[int]:
        """At most ``n`` passages that have vectors, drawn at random but the same for the same collection."""
        pids = pids_with_vectors(self.state.snapshot)
        sampled: list[int] = np.random.default_rng(_SEED).choice(pids, min(n, len(pids)), replace=False).tolist()
        return sampled

    def stats(self, *, dim: int, nbits: int | None, encoder_name: str | None) -> IndexStats:
        """Figures of this moment; what does not change while an index is open is given."""
        with self.reader.moment():
            state, n_passages, word_bytes = self.state, self.reader.count(), self.reader.words.count_bytes()
        parts, codec, n_live = state.snapshot.parts, state.snapshot.codec, state.live_tokens()
        return IndexStats(
            passages=n_passages,
            windows=sum(int(part.live.sum()) for part in parts),
            tokens=n_live,
            dim=dim,
            nbits=nbits,
            centroids=0 if codec is None else len(codec.centroids),
            segments=len(parts),
            dead_tokens=sum(part.segment.n_tokens for part in parts) - n_live,
            vector_bytes=sum(file.size for file in (*state.files, state.codec_file) if file),
            encoder=encoder_name,
            generation=state.generation,
            word_bytes=word_bytes,
        )

    def _pids_of(self, ids: Sequence[str]) -> tuple[State, dict[str, int]]:
        """The vectors of this moment, and the pid of each of these ids that is known."""
        with self.reader.moment():  # in memory a writer could come between the two
            return self.state, self.reader.rows_of(ids)

    def _passages(self, pids: list[int]) -> list[Passage]:
        """The passages of what was ranked, with the metadata by which they were chosen.

        Raises:
            StaleRead: in memory another thread has changed metadata meanwhile; a passage that was replaced is gone instead.
        """
        with self.reader.moment():
            if self.reader.connection.shared and self.reader.metadata_changed() > self.state.generation:
                raise StaleRead("metadata")
            return self.reader.passages(pids)

    def _sort_keys(self, pids: list[int]) -> list[str]:
        """Passage ids, which order equal scores."""
        with self._one_by_one:
            return self.reader.ids(pids)


def _lengths(queries: Sequence[NDArray[np.float32]], words: ByWords | None) -> list[int]:
    """What the score of each query is divided by: its number of vectors; 1 where words alone rank."""
    return [1] * len(words.texts) if words is not None and words.alone else [len(query) for query in queries]
