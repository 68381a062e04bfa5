"""Find the best passages for one query matrix in one snapshot. Functions only: nothing is remembered between searches.

PLAID (Santhanam et al., CIKM 2022): query vectors probe their nearest centroids, inverted lists give candidate windows,
centroids alone rank these roughly, and the best are scored exactly over their decompressed vectors.
"""

from __future__ import annotations

import numbers
import operator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from colbert_core.maxsim import maxsim
from colbert_core.segment import as_segment
from colbert_core.types import Hit, Passage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from colbert_core.codec import ResidualCodec
    from colbert_core.segment import Segment
    from colbert_core.types import TokenEmbeddings


# What float32 may lose of one cosine of a few hundred terms; scores closer than this per query vector may change places.
_ROUNDING = 1e-6
# Of passages that tie by their centroids, at most so many times as many as were asked for are scored exactly.
_MOST_TIED = 4
# Tokens decompressed or looked up at a time: 16 MB of float32 at 128 dimensions.
_TOKENS_AT_A_TIME = 2**15


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """How much a search of a compressed index looks at. More of either finds more, and takes longer.

    Attributes:
        nprobe: centroids of each layer whose lists are read for each query vector, at least 1.
        n_exact: passages, the best by their centroids, that are scored exactly; at least k are in any case.
    """

    nprobe: int
    n_exact: int

    def __post_init__(self) -> None:
        check_count(self.nprobe, "nprobe", "centroids")
        check_count(self.n_exact, "n_exact")


def default_config(k: int) -> SearchConfig:
    """What finds at least 95 % of the ``k`` passages that scoring all of them with the same codes would find.

    Twice as many exact scores as that needs where a collection was built at once: one that grew has fewer centroids to rank
    by. Over 2.1 million tokens both then find .963 of the exact top 10; with 256 exact scores .950 and .944.

    Args:
        k: hits that are wanted.
    """
    return SearchConfig(nprobe=4 if k <= 10 else 8, n_exact=max(512, 8 * k))


@dataclass(frozen=True, slots=True)
class Part:
    """A segment and which of its windows count.

    Attributes:
        segment: windows.
        live: *Shape:* (n_windows,), bool, False where the passage was deleted or replaced.
    """

    segment: Segment
    live: NDArray[np.bool_]


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


def search(
    snapshot: Snapshot,
    query: NDArray[np.float32],
    k: int,
    *,
    tie: Callable[[list[int]], Sequence[Any]],
    rows: NDArray[np.int64] | None = None,
    config: SearchConfig | None = None,
    exact: bool = False,
) -> Ranked:
    """The ``k`` live passages whose best window scores highest; there are fewer only where there are fewer.

    A matrix product over many windows rounds equal windows differently in their last bits, so it only chooses; what it
    chose is scored again one by one, in double precision, and equal passages tie.

    Args:
        snapshot: what to search.
        query: *Shape:* (n_q, dim), float32, unit rows.
        k: most passages, at least 1.
        tie: sort keys among equals, for a list of rows.
        rows: *Shape:* (n,), ascending; only these passages. None for all.
        config: how much to look at; None chooses by k.
        exact: score every passage.

    Raises:
        IndexError: a file is damaged, so that a code or a list leads nowhere.
    """
    if not isinstance(config, SearchConfig | None):
        raise TypeError(f"config must be a SearchConfig, got {type(config).__name__}: {config!r:.80}")
    config = config or default_config(k)
    allowed = [part.live if rows is None else part.live & part.segment.find(rows) for part in snapshot.parts]
    n_exact = max(config.n_exact, k)
    chosen = [np.flatnonzero(some) for some in allowed]
    if snapshot.codec is not None and not exact and _count_passages(snapshot, chosen) > n_exact:
        similarities = query @ snapshot.codec.centroids.T  # (n_q, n_centroids)
        cells = _probe(snapshot, similarities, config.nprobe, None if rows is None else allowed)
        found = [_listed(part.segment, cells, some) for part, some in zip(snapshot.parts, allowed, strict=True)]
        if _count_passages(snapshot, found) >= k:
            chosen = found
        best = _best_by_centroids(snapshot, similarities, chosen, n_exact)
        # A passage's best window need not be among the candidates; all of its windows are scored.
        chosen = []
        for part in snapshot.parts:
            windows = part.segment.windows_of(best)
            chosen.append(windows[part.live[windows]])
    return _rank(snapshot, query, chosen, k, tie)


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


def as_snapshot(embeddings: TokenEmbeddings) -> Snapshot:
    """Token embeddings as something to search; the rows are their ``owners``."""
    segment = as_segment(embeddings)
    return Snapshot((Part(segment, np.ones(len(segment.rows), np.bool_)),))


def _probe(
    snapshot: Snapshot, similarities: NDArray[np.float32], nprobe: int, allowed: list[NDArray[np.bool_]] | None
) -> NDArray[np.intp]:
    """For every query vector the ``nprobe`` nearest centroids that lead to an allowed window. *Shape:* (n,).

    So many of each layer: older vectors belong to the wider centroids of their time, which the later ones would crowd out.
    """
    layers = () if snapshot.codec is None else snapshot.codec.layers
    if allowed is not None:
        reaching = [_lists(part.segment).reaching(some) for part, some in zip(snapshot.parts, allowed, strict=True)]
        closed = np.ones(similarities.shape[1], np.bool_)
        closed[np.concatenate(reaching)] = False
        similarities = np.where(closed, -np.inf, similarities).astype(np.float32)
    cells = []
    for start, end in pairwise([*layers, similarities.shape[1]]):
        n = min(nprobe, end - start)
        cells.append(start + np.argpartition(-similarities[:, start:end], n - 1, axis=1)[:, :n].ravel())
    return np.unique(np.concatenate(cells))


def _listed(segment: Segment, cells: NDArray[np.intp], allowed: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The allowed windows that have a token at one of these centroids. *Shape:* (n,)."""
    marked = np.zeros(len(allowed), np.bool_)
    _lists(segment).mark(cells, marked)
    return np.flatnonzero(marked & allowed)


def _lists(segment: Segment) -> Any:
    assert segment.lists is not None
    return segment.lists


def _best_by_centroids(
    snapshot: Snapshot, similarities: NDArray[np.float32], chosen: list[NDArray[np.intp]], n: int
) -> NDArray[np.int64]:
    """The ``n`` passages that score best with every token taken for its centroid. *Shape:* (n,) or a few more, ascending.

    PLAID, section 4.3 (centroid interaction).
    """
    table = np.ascontiguousarray(similarities.T)  # (n_centroids, n_q)
    all_rows, all_scores = [], []
    for part, windows in zip(snapshot.parts, chosen, strict=True):
        segment = part.segment
        assert segment.codes is not None
        scores = np.empty(len(windows), np.float32)
        for some, tokens in _blocks(segment, windows):
            doclens = segment.doclens[windows[some]]
            best = np.maximum.reduceat(table[segment.codes[tokens]], np.cumsum(doclens) - doclens)  # (n_windows, n_q)
            scores[some] = best.sum(axis=1)
        rows, scores, _ = best_windows(scores, segment.rows[windows])
        all_rows.append(rows)
        all_scores.append(scores)
    rows, scores = np.concatenate(all_rows), np.concatenate(all_scores)
    if n < len(rows):
        nth_best = np.partition(scores, len(rows) - n)[len(rows) - n]
        # Equals of the last one as well, so that they tie by what they are; but not endlessly many.
        equal = np.sort(rows[scores == nth_best])[: _MOST_TIED * n]
        rows = np.concatenate([rows[scores > nth_best], equal])
    return np.sort(rows)


def _rank(
    snapshot: Snapshot,
    query: NDArray[np.float32],
    chosen: list[NDArray[np.intp]],
    k: int,
    tie: Callable[[list[int]], Sequence[Any]],
) -> Ranked:
    """Score the chosen windows of each part exactly and keep the best ``k`` passages."""
    found = []
    for number, (part, windows) in enumerate(zip(snapshot.parts, chosen, strict=True)):
        segment = part.segment
        scores = np.empty(len(windows), np.float32)
        for some, tokens in _blocks(segment, windows):
            vectors = segment.vectors_of(tokens, snapshot.codec)
            scores[some] = maxsim(query, vectors, segment.doclens[windows[some]])
        rows, scores, places = best_windows(scores, segment.rows[windows])
        found.append((rows, scores, np.full(len(rows), number), windows[places]))
    if not any(len(rows) for rows, _, _, _ in found):
        return Ranked([], [], [])
    rows, scores, parts, windows = (np.concatenate(column) for column in zip(*found, strict=True))
    if k < len(rows):
        kth_best = np.partition(scores, len(rows) - k)[len(rows) - k]
        near = scores >= kth_best - _ROUNDING * len(query)
        rows, parts, windows = rows[near], parts[near], windows[near]
    double = query.astype(np.float64)
    precise = []
    for number, window in zip(parts.tolist(), windows.tolist(), strict=True):
        segment = snapshot.parts[number].segment
        doclens = segment.doclens[window : window + 1]
        tokens = slice(int(segment.ends[window]) - int(doclens[0]), int(segment.ends[window]))
        precise.append(float(maxsim(double, segment.vectors_of(tokens, snapshot.codec).astype(np.float64), doclens)[0]))
    keys = tie(rows.tolist())
    order = sorted(range(len(rows)), key=lambda place: (-precise[place], keys[place]))[:k]
    spans = [snapshot.parts[parts[place]].segment.spans[windows[place]].tolist() for place in order]
    return Ranked(rows[order].tolist(), [precise[place] for place in order], [(start, end) for start, end in spans])


def _blocks(segment: Segment, windows: NDArray[np.intp]) -> Iterator[tuple[slice, Any]]:
    """The windows a few at a time, with their tokens: a slice where these follow each other, else their numbers."""
    ends = np.cumsum(segment.doclens[windows], dtype=np.int64)
    first = 0
    while first < len(windows):
        start = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, start + _TOKENS_AT_A_TIME, side="right")))
        some = slice(first, last)
        if windows[last - 1] - windows[first] == last - 1 - first:
            yield (
                some,
                slice(
                    int(segment.ends[windows[first]] - segment.doclens[windows[first]]), int(segment.ends[windows[last - 1]])
                ),
            )
        else:
            yield some, segment.tokens_of(windows[some])
        first = last


def _count_passages(snapshot: Snapshot, chosen: list[NDArray[np.intp]]) -> int:
    rows = (part.segment.rows[windows] for part, windows in zip(snapshot.parts, chosen, strict=True))
    return sum(int((np.diff(some) != 0).sum()) + 1 for some in rows if len(some))


def best_windows(
    scores: NDArray[np.float32], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.intp]]:
    """The score of each passage's best window, and which window that is (the first of equals).

    Args:
        scores: *Shape:* (n_windows,), float32.
        rows: *Shape:* (n_windows,), ascending, each window's passage.

    Returns:
        *Shape:* (n_passages,) each: the rows, the scores, and the places of the windows in ``scores``.
    """
    # Sorted by row, then by falling score; the sort is stable, so of equal windows the first comes first.
    order = np.lexsort((-scores, rows))
    firsts = np.flatnonzero(np.diff(rows, prepend=-1))  # (n_passages,)
    places = order[firsts]
    return rows[firsts], scores[places], places


def to_hits(passages: Sequence[Passage], best: Ranked, n_q: int, min_relevance: float | None) -> list[Hit]:
    """Give ranked passages their ranks and relevances, down to ``min_relevance``.

    Args:
        passages: those of ``best.rows``.
        best: their scores and spans.
        n_q: query vectors that were scored.
        min_relevance: least relevance of a hit, None for no threshold.
    """
    hits = [
        Hit(passage, score, min(max(score / n_q, 0.0), 1.0), rank, span)
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
