"""Find the best passages for one query matrix in one snapshot. Functions only: nothing is remembered between searches.

PLAID (Santhanam et al., CIKM 2022): query vectors probe their nearest centroids, inverted lists give candidate windows,
centroids alone rank these roughly, and the best are scored exactly over their decompressed vectors.
"""

from __future__ import annotations

import numbers
import operator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from colbert_core.maxsim import maxsim
from colbert_core.segment import as_segment
from colbert_core.types import Hit, Passage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from colbert_core.codec import ResidualCodec
    from colbert_core.segment import Segment
    from colbert_core.types import TokenEmbeddings


# What float32 may lose of one cosine of a few hundred terms; scores closer than this per query vector may change places.
_FLOAT_ERROR = 1e-6
# Uncompressed collections of fewer tokens are scored by NumPy: it takes 2 ms at most, and nothing has to be compiled.
_SMALL = 2**13
# From so many tokens on, vectors are scored as bytes before the best are scored as they are; 5 times as fast.
_WORTH_BYTES = 2**16
# From so many windows on, narrowing down by the lists is faster than ranking all that are listed: the same time at 2,000,
# 1.2 times as fast at 4,000, 1.4 times at 8,000, 1.6 times at 26,000.
_WORTH_LISTS = 2**11


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """How much a search of a compressed index looks at. More of each finds more, and takes longer.

    Attributes:
        nprobe: centroids of each layer whose lists are read for each query vector, at least 1.
        n_candidates: windows, those listed at the nearest centroids, that are ranked by their centroids; None for all that
            are listed.
        n_exact: passages, the best by their centroids, that are scored over their residuals; at least k are in any case.
    """

    nprobe: int
    n_candidates: int | None = None
    n_exact: int = 512

    def __post_init__(self) -> None:
        check_count(self.nprobe, "nprobe", "centroids")
        if self.n_candidates is not None:
            check_count(self.n_candidates, "n_candidates", "windows")
        check_count(self.n_exact, "n_exact")


def default_config(k: int, n_windows: int = 0, n_q: int = 32) -> SearchConfig:
    """What finds at least 95 % of the ``k`` passages that scoring all of them with the same codes would find.

    Over 26,000 passages .984 of the top 10, and .98 of the top 100; half as much of each finds .95. A collection that grew has
    fewer centroids to rank by, and needs the rest.

    Args:
        k: hits that are wanted.
        n_windows: of the collection.
        n_q: vectors of the query.
    """
    growth = max(1.0, n_windows / 2**15) ** 0.25  # over 104,000 passages as many as over 26,000 find .93 of the top 100
    # A query of few vectors ranks more roughly by centroids: of 43 with 6 to 15, over 14,581 passages, as many find .993 of the
    # top 10 where twice as many find .998, and what is missing costs .006 of nDCG@10.
    shortness = min(max(32 / n_q, 1), 2)
    n_exact = round(max(256, 8 * k * growth) * shortness)
    return SearchConfig(nprobe=16, n_candidates=None if n_windows < _WORTH_LISTS else 4 * n_exact, n_exact=n_exact)


def ladder_of_configs(k: int, n_windows: int) -> list[SearchConfig]:
    """Configs to try, each looking at more than the one before; the last one looks at everything.

    Args:
        k: hits that are wanted.
        n_windows: of the collection.
    """
    ladder = []
    for factor in (2, 4, 8, 16, 32, 64, 128, 256):
        n_exact = factor * max(k, 8)
        if 4 * n_exact < n_windows:
            ladder += [SearchConfig(nprobe, 4 * n_exact, n_exact) for nprobe in (4, 8, 16, 32) if nprobe <= 4 * factor]
    return [*ladder, SearchConfig(2**16, None, max(n_windows, 1))]


@dataclass(frozen=True)
class Part:
    """A segment and which of its windows count.

    Attributes:
        segment: windows.
        live: *Shape:* (n_windows,), bool, False where the passage was deleted or replaced.
    """

    segment: Segment
    live: NDArray[np.bool_]

    @cached_property
    def n_passages(self) -> int:
        """Passages that count."""
        return _count_rows(self.segment.rows[self.live])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What an index held at one moment. It never changes, so a search needs no lock.

    Attributes:
        parts: all compressed by ``codec``, or none.
        codec: None where the vectors are kept as they are.
    """

    parts: tuple[Part, ...]
    codec: ResidualCodec | None = None


@dataclass(frozen=True, slots=True)
class Ranked:
    """The best passages, best first.

    Attributes:
        rows: which ones.
        scores: MaxSim of their best windows.
        spans: characters of those windows, half-open.
    """

    rows: list[int]
    scores: list[float]
    spans: list[tuple[int, int]]


class Scorer(Protocol):
    """Scores windows against one query. ``margin`` is what ``roughly`` may be wrong by."""

    margin: float

    def roughly(self, number: int, windows: NDArray[np.int32]) -> NDArray[np.float32]:
        """Scores of some windows of segment ``number``. *Shape:* (n,), float32."""
        ...

    def exactly(self, number: int, windows: NDArray[np.int32]) -> NDArray[np.floating[Any]]:
        """The same, and equal windows have equal scores whatever is scored beside them."""
        ...


def search(
    snapshot: Snapshot,
    query: NDArray[np.float32],
    k: int,
    *,
    tie: Callable[[list[int]], Sequence[Any]],
    rows: NDArray[np.int64] | None = None,
    config: SearchConfig | None = None,
    exact: bool = False,
    device: str | None = None,
) -> Ranked:
    """The ``k`` live passages whose best window scores highest; there are fewer only where there are fewer.

    Args:
        snapshot: what to search.
        query: *Shape:* (n_q, dim), float32, unit rows.
        k: most passages, at least 1.
        tie: sort keys among equals, for a list of rows.
        rows: *Shape:* (n,), ascending; only these passages. None for all.
        config: how much to look at; None chooses by k and the size of the collection.
        exact: score every passage.
        device: of PyTorch, such as "cuda", which then scores every passage and needs no config; None for the CPU.

    Raises:
        IndexError: a file is damaged, so that a code or a list leads nowhere.
    """
    if not isinstance(config, SearchConfig | None):
        raise TypeError(f"config must be a SearchConfig, got {type(config).__name__}: {config!r:.80}")
    parts, codec = snapshot.parts, snapshot.codec
    segments = [part.segment for part in parts]
    n_tokens = sum(segment.n_tokens for segment in segments)
    if device is not None:
        from colbert_core.gpu import TorchScorer  # here, because it imports torch

        return _rank(parts, TorchScorer(segments, codec, query, device), _all_windows(parts, rows), k, tie)
    if codec is None and n_tokens < _SMALL:
        return _rank(parts, PlainScorer(segments, query), _all_windows(parts, rows), k, tie)
    from colbert_core.scorer import KernelScorer  # here, because a small index needs no kernels

    scorer = KernelScorer(segments, codec, query)
    if exact or codec is None:
        roughly = not exact and n_tokens >= _WORTH_BYTES
        return _rank(parts, scorer, _all_windows(parts, rows), k, tie, roughly=roughly)
    config = config or default_config(k, sum(len(segment.rows) for segment in segments), len(query))
    n_exact = max(config.n_exact, k)
    n_found = sum(part.n_passages for part in parts) if rows is None else len(rows)
    if n_found <= n_exact:
        return _rank(parts, scorer, _all_windows(parts, rows), k, tie)
    allowed = [part.live if rows is None else part.live & part.segment.find(rows) for part in parts]
    reaching = None
    if rows is not None:
        lists = [_lists(segment).reaching(some) for segment, some in zip(segments, allowed, strict=True)]
        reaching = np.concatenate(lists).astype(np.intp)
    windows = scorer.shortlist(allowed, config.nprobe, config.n_candidates, n_exact, k, reaching)
    return _rank(parts, scorer, windows, k, tie)


def _all_windows(parts: Sequence[Part], rows: NDArray[np.int64] | None) -> list[NDArray[np.int32]]:
    """The windows that count, of these passages or all."""
    if rows is None:
        return [np.flatnonzero(part.live).astype(np.int32) for part in parts]
    return [_windows_of(part.segment, rows, part.live) for part in parts]


def _windows_of(segment: Segment, rows: NDArray[np.int64], live: NDArray[np.bool_]) -> NDArray[np.int32]:
    windows = segment.windows_of(rows)
    return windows[live[windows]].astype(np.int32)


def _rows_of(segments: Sequence[Segment], windows: Sequence[NDArray[np.int32]]) -> list[NDArray[np.int64]]:
    return [segment.rows[some] for segment, some in zip(segments, windows, strict=True)]


def _firsts(rows: NDArray[np.int64]) -> NDArray[np.intp]:
    """Where each passage begins in an ascending row of windows."""
    return np.flatnonzero(np.concatenate([rows[:1] >= 0, rows[1:] != rows[:-1]]))


def _greatest(scores: NDArray[Any], firsts: NDArray[np.intp]) -> NDArray[Any]:
    return np.maximum.reduceat(scores, firsts) if len(firsts) else scores


def _count_rows(rows: NDArray[np.int64]) -> int:
    return int(np.count_nonzero(np.diff(rows))) + 1 if len(rows) else 0


class PlainScorer:
    """With NumPy alone, for collections so small that nothing needs to be compiled.

    A matrix product over many windows rounds equal windows differently in their last bits, so it only chooses; what it chose is
    scored again one by one, in double precision, and equal windows tie.

    Attributes:
        margin: what ``roughly`` may be wrong by.
    """

    def __init__(self, segments: Sequence[Segment], query: NDArray[np.float32]) -> None:
        self._segments = segments
        self._query = query
        self.margin = _FLOAT_ERROR * len(query)

    def roughly(self, number: int, windows: NDArray[np.int32]) -> NDArray[np.float32]:
        """Scores of some windows of a segment. *Shape:* (n,), float32."""
        segment = self._segments[number]
        assert segment.vectors is not None
        return maxsim(self._query, segment.vectors[segment.tokens_of(windows)], segment.doclens[windows])

    def exactly(self, number: int, windows: NDArray[np.int32]) -> NDArray[np.float64]:
        """Scores of some windows of a segment, each by itself. *Shape:* (n,), float64."""
        segment, query = self._segments[number], self._query.astype(np.float64)
        assert segment.vectors is not None
        scores = np.empty(len(windows))
        for place, window in enumerate(windows.tolist()):
            vectors = segment.vectors[segment.offsets[window] : segment.offsets[window + 1]].astype(np.float64)
            scores[place] = (query @ vectors.T).max(axis=1).sum()
        return scores


def vectors_of(snapshot: Snapshot, row: int, span: tuple[int, int] | None = None) -> NDArray[np.float32]:
    """The vectors of a live passage, or of its window with this span. *Shape:* (n, dim), float32.

    Raises:
        KeyError: the snapshot has no such passage.
        IndexError: a file is damaged.
    """
    for part in snapshot.parts:
        segment = part.segment
        windows = segment.windows_of(np.array([row]))
        windows = windows[part.live[windows]]
        if span is not None:
            windows = windows[(segment.spans[windows] == span).all(axis=1)][:1]
        if len(windows):
            return np.array(segment.vectors_of(segment.tokens_of(windows), snapshot.codec))
    raise KeyError(row)


def diversified(relevances: Sequence[float], windows: Sequence[NDArray[np.float32]], k: int, weight: float) -> list[int]:
    """Which passages to take, by maximal marginal relevance, in the order they are taken.

    Carbonell and Goldstein (SIGIR 1998), equation 1, with the mean of MaxSim per vector, both ways, as likeness.

    Args:
        relevances: of each passage, from 0 to 1, the greatest first.
        windows: the vectors of its best window.
        k: how many to take at most.
        weight: of relevance, from 0 to 1; the rest is that of being unlike.
    """
    left, taken = list(range(len(relevances))), list[int]()
    likeness = dict.fromkeys(left, -1.0)  # to the most similar one taken; before that, no difference
    while left and len(taken) < k:
        best = max(left, key=lambda place: weight * relevances[place] - (1 - weight) * likeness[place])
        left.remove(best)
        taken.append(best)
        for place in left:
            likeness[place] = max(likeness[place], _likeness(windows[place], windows[best]))
    return taken


def _likeness(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    cosines = one @ other.T
    return float(cosines.max(axis=1).mean() + cosines.max(axis=0).mean()) / 2


def averaged(
    ranked: Callable[[NDArray[np.float32], int, NDArray[np.int64] | None], Ranked],
    queries: Sequence[NDArray[np.float32]],
    k: int,
    rows: NDArray[np.int64] | None,
    tie: Callable[[list[int]], Sequence[Any]],
) -> tuple[Ranked, list[float]]:
    """The ``k`` passages of the highest mean relevance to several queries, with mean scores, and these relevances.

    Args:
        ranked: finds the best ``k`` passages for a query, of some rows or of all.
        queries: *Shape:* (n_q, dim) each; n_q may differ.
        k: most passages.
        rows: *Shape:* (n,), ascending; only these passages. None for all.
        tie: sort keys among equals, for a list of rows.
    """
    depth = max(4 * k, 64)
    while True:
        heads = [ranked(query, depth, rows) for query in queries]
        found = sorted({row for head in heads for row in head.rows})
        if not found:
            return Ranked([], [], []), []
        whole = [ranked(query, len(found), np.array(found, np.int64)) for query in queries]
        matches: dict[int, list[tuple[float, float, tuple[int, int]]]] = {row: [] for row in found}
        for query, head in zip(queries, whole, strict=True):
            for row, score, span in zip(head.rows, head.scores, head.spans, strict=True):
                matches[row].append((relevance_of(score, len(query)), score, span))
        means = {row: sum(relevance for relevance, _, _ in some) / len(some) for row, some in matches.items()}
        keys = dict(zip(found, tie(found), strict=True))
        order = sorted(found, key=lambda row: (-means[row], keys[row]))[:k]
        # A passage that was not found is at most as good for each query as the last of its head.
        bar = sum(relevance_of(head.scores[-1], len(query)) for query, head in zip(queries, heads, strict=True)) / len(queries)
        if len(heads[0].rows) < depth or means[order[-1]] > bar:
            scores = [sum(score for _, score, _ in matches[row]) / len(queries) for row in order]
            spans = [max(matches[row], key=lambda match: match[0])[2] for row in order]
            return Ranked(order, scores, spans), [means[row] for row in order]
        depth *= 2


def as_snapshot(embeddings: TokenEmbeddings) -> Snapshot:
    """Token embeddings as something to search; the rows are their ``owners``."""
    segment = as_segment(embeddings)
    return Snapshot((Part(segment, np.ones(len(segment.rows), np.bool_)),))


def _lists(segment: Segment) -> Any:
    assert segment.lists is not None
    return segment.lists


def _rank(
    parts: Sequence[Part],
    scorer: Scorer,
    windows: list[NDArray[np.int32]],
    k: int,
    tie: Callable[[list[int]], Sequence[Any]],
    *,
    roughly: bool = True,
) -> Ranked:
    """Keep the best ``k`` passages of these windows, chosen by rough scores if wanted, ordered by exact ones."""
    if not any(map(len, windows)):
        return Ranked([], [], [])
    segments = [part.segment for part in parts]
    if roughly:
        rough = [scorer.roughly(number, some) for number, some in enumerate(windows)]
        heights = np.concatenate(
            [_greatest(some, _firsts(rows)) for some, rows in zip(rough, _rows_of(segments, windows), strict=True)]
        )
        if k < len(heights):
            bar = np.partition(heights, len(heights) - k)[len(heights) - k] - scorer.margin
            windows = [some[scores >= bar] for some, scores in zip(windows, rough, strict=True)]
    exact = [scorer.exactly(number, some) for number, some in enumerate(windows)]
    found = [
        best_windows(scores, rows) for scores, rows in zip(exact, _rows_of(segments, windows), strict=True)
    ]  # of each part: rows, scores, places
    rows = np.concatenate([rows for rows, _, _ in found])
    scores = np.concatenate([scores for _, scores, _ in found])
    spans = np.concatenate(
        [segment.spans[some[places]] for segment, some, (_, _, places) in zip(segments, windows, found, strict=True)]
    )
    if k < len(rows):
        near = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
        rows, scores, spans = rows[near], scores[near], spans[near]
    heights = scores.tolist()
    keys = tie(rows.tolist()) if len(set(heights)) < len(heights) else rows.tolist()
    order = sorted(range(len(rows)), key=lambda place: (-heights[place], keys[place]))[:k]
    return Ranked(
        [int(rows[place]) for place in order],
        [heights[place] for place in order],
        [(int(spans[place][0]), int(spans[place][1])) for place in order],
    )


def best_windows(
    scores: NDArray[np.floating[Any]], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]], NDArray[np.intp]]:
    """The score of each passage's best window, and which window that is (the first of equals).

    Args:
        scores: *Shape:* (n_windows,), float32.
        rows: *Shape:* (n_windows,), ascending, each window's passage.

    Returns:
        *Shape:* (n_passages,) each: the rows, the scores, and the places of the windows in ``scores``.
    """
    if len(rows) < 2 or bool((rows[1:] > rows[:-1]).all()):
        return rows, scores, np.arange(len(rows))
    # Sorted by row, then by falling score; the sort is stable, so of equal windows the first comes first.
    order = np.lexsort((-scores, rows))
    places = order[_firsts(rows)]
    return rows[places], scores[places], places


def relevance_of(score: float, n_q: int) -> float:
    """A MaxSim of ``n_q`` query vectors as a number from 0 to 1 that queries of any length share."""
    return min(max(score / n_q, 0.0), 1.0)


def to_hits(passages: Sequence[Passage], best: Ranked, n_q: int, min_relevance: float | None) -> list[Hit]:
    """Give ranked passages their ranks and relevances, down to ``min_relevance``.

    Args:
        passages: those of ``best.rows``.
        best: their scores and spans.
        n_q: query vectors that were scored.
        min_relevance: least relevance of a hit, None for no threshold.
    """
    hits = [
        Hit(passage, score, relevance_of(score, n_q), rank, span)
        for rank, (passage, score, span) in enumerate(zip(passages, best.scores, best.spans, strict=True), 1)
    ]
    return hits if min_relevance is None else [hit for hit in hits if hit.relevance >= min_relevance]


def check_passages(items: Iterable[object]) -> list[Passage]:
    """Return the items as a list if all are passages.

    Raises:
        TypeError: one is not.
    """
    if isinstance(items, Passage):
        raise TypeError(f"passages must be a list of passages, got one Passage; write [passage] ({items.id!r}).")
    checked: list[Passage] = []
    for position, item in enumerate(items):
        if not isinstance(item, Passage):
            raise TypeError(f"Item {position} is a {type(item).__name__}, not a Passage; write Passage(id, text).")
        checked.append(item)
    return checked


def check_count(value: object, name: str, what: str = "passages") -> int:
    """Return a number of something that makes sense.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is below 1.
    """
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = None
    if count is None or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number of {what}, got {value!r}.")
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}.")
    return count


def check_relevance(value: float | None, name: str) -> float | None:
    """Return a relevance threshold that makes sense.

    Raises:
        TypeError: it is no number.
        ValueError: it is not from 0 to 1.
    """
    return None if value is None else check_share(value, name, "a relevance", "; raw MaxSim scores are not thresholds")


def check_share(value: object, name: str, what: str = "a number", hint: str = "") -> float:
    """Return a number from 0 to 1.

    Raises:
        TypeError: it is no number.
        ValueError: it is not from 0 to 1.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {what} from 0 to 1, got {value!r:.80}.")
    share = float(value)
    if not 0 <= share <= 1:
        raise ValueError(f"{name} is {what} from 0 to 1, got {value!r}{hint}.")
    return share
