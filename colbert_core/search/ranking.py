"""Find the best passages for one query matrix in one snapshot. Functions only: nothing is remembered between searches.

PLAID (Santhanam et al., CIKM 2022): query vectors probe their nearest centroids, inverted lists give candidate windows,
centroids alone rank these roughly, and the best are scored exactly over their decompressed vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from colbert_core.search.config import SearchConfig, default_config
from colbert_core.search.hits import Ranked
from colbert_core.search.imputed import ImputedScorer
from colbert_core.search.plain_scorer import PlainScorer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from colbert_core.vectors.codec import ResidualCodec
    from colbert_core.vectors.inverted_lists import InvertedLists
    from colbert_core.vectors.segment import Segment
    from colbert_core.vectors.snapshot import Part, Snapshot

    SortKeys = Callable[[list[int]], Sequence[Any]]

# Uncompressed collections of fewer tokens are scored by NumPy: it takes 2 ms at most, and nothing has to be compiled.
_SMALL = 2**13
# The kernels count the query vectors of each layer of a codec within 23 bits: 64 times as many are below 2**23.
_MOST_VECTORS = 100_000
# A table of every query vector and centroid has at most so many numbers, of three bytes each; a longer query does without.
_LARGEST_TABLE = 2**29
# If a filter allows at most one of so many windows, looking at their codes is faster than looking through all lists.
_FEW_ALLOWED = 8


class Scorer(Protocol):
    """Scores windows against one query."""

    @property
    def margin(self) -> float:
        """How far the rough scores of two windows may be wrong to each other."""
        ...

    def roughly(self, number: int, windows: NDArray[np.int32]) -> NDArray[np.float32]:
        """Score some windows of segment ``number``. *Shape:* (n,), float32."""
        ...

    def exactly(self, number: int, windows: NDArray[np.int32]) -> NDArray[np.floating[Any]]:
        """Score them so that equal windows have equal scores, whatever is scored beside them."""
        ...


def search(
    snapshot: Snapshot,
    query: NDArray[np.float32],
    k: int,
    *,
    sort_keys: SortKeys,
    pids: NDArray[np.int64] | None = None,
    config: SearchConfig | None = None,
    exact: bool = False,
    device: str | None = None,
    bars: NDArray[np.float32] | None = None,
) -> Ranked:
    """Rank the ``k`` live passages whose best window scores highest; there are fewer only where there are fewer.

    Args:
        snapshot: what to search.
        query: *Shape:* (n_q, dim), float32, unit rows.
        k: most passages, at least 1.
        sort_keys: gives a sort key for each pid of a list, to order equal scores; an index gives passage ids.
        pids: *Shape:* (n,), ascending; only these passages. None for all.
        config: how much to look at; None chooses by k and the size of the collection.
        exact: score every passage.
        device: PyTorch's name of a device, such as "cuda", which then scores every passage and needs no config; None for the
            CPU.
        bars: what ``imputed_bars`` gave for the config, where some of the passages are ranked once more; None computes them.

    Raises:
        TypeError: config is no ``SearchConfig``.
        ValueError: the query has more than 100,000 vectors, or a config with ``n_tokens`` is given for a device.
        IndexError: a file is damaged, so that a code or a list leads nowhere, or a vector is none.
    """
    if not isinstance(config, SearchConfig | None):
        raise TypeError(f"config must be a SearchConfig, got {type(config).__name__}: {config!r:.80}")
    if len(query) > _MOST_VECTORS:
        raise ValueError(f"A query has at most {_MOST_VECTORS:,} vectors, got {len(query):,}; search by parts of it.")
    parts, codec = snapshot.parts, snapshot.codec
    if not parts:
        return Ranked([], [], [])
    segments = [part.segment for part in parts]
    if config is not None and config.n_tokens is not None:
        if device is not None:
            raise ValueError(
                f"SearchConfig(n_tokens={config.n_tokens}) scores on the CPU, but this index is searched on {device!r}; leave "
                "device or n_tokens out."
            )
        return _search_imputed(snapshot, query, k, sort_keys, config, pids, bars, exact=exact)
    if device is not None:
        from colbert_core.search.torch_scorer import TorchScorer  # here, because it imports torch

        return _rank(parts, TorchScorer(segments, codec, query, device), _all_windows(parts, pids), k, sort_keys)
    if codec is None and sum(segment.n_tokens for segment in segments) < _SMALL:
        return _rank(parts, PlainScorer(segments, query), _all_windows(parts, pids), k, sort_keys)
    from colbert_core.search.kernel_scorer import BoundedScorer, KernelScorer  # here, because a small index needs no kernels

    if exact or codec is None or len(query) * len(codec.centroids) > _LARGEST_TABLE:
        return _rank(parts, BoundedScorer(segments, codec, query), _all_windows(parts, pids), k, sort_keys, bounded=True)
    scorer = KernelScorer(segments, codec, query)
    config = config or config_for(snapshot, k, len(query))
    n_exact = max(config.n_exact, k)
    n_passages = sum(part.n_passages for part in parts) if pids is None else len(pids)
    if n_passages <= n_exact:
        return _rank(parts, scorer, _all_windows(parts, pids), k, sort_keys)
    allowed, open_centroids = _allowed(parts, codec, pids)
    windows = scorer.shortlist(allowed, config.nprobe, config.n_candidates, n_exact, k, open_centroids)
    return _rank(parts, scorer, windows, k, sort_keys)


def imputed_bars(
    snapshot: Snapshot,
    query: NDArray[np.float32],
    config: SearchConfig | None,
    *,
    pids: NDArray[np.int64] | None = None,
    exact: bool = False,
) -> NDArray[np.float32] | None:
    """What XTR's rule takes for a cosine that was not found, by each query vector. *Shape:* (n_q,), float32.

    Args:
        snapshot: what is searched.
        query: *Shape:* (n_q, dim), float32, unit rows.
        config: None, or one without ``n_tokens``, scores by MaxSim, and has no bars.
        pids: *Shape:* (n,), ascending; the passages that may be found, whose tokens alone count. None for all.
        exact: look at all of their tokens, not only at those of the candidates.
    """
    if not isinstance(config, SearchConfig) or config.n_tokens is None:
        return None
    windows = _listed_windows(snapshot, query, config, pids, exact=exact)
    return ImputedScorer([part.segment for part in snapshot.parts], snapshot.codec, query, windows, config.n_tokens).bars


def _search_imputed(
    snapshot: Snapshot,
    query: NDArray[np.float32],
    k: int,
    sort_keys: SortKeys,
    config: SearchConfig,
    pids: NDArray[np.int64] | None,
    bars: NDArray[np.float32] | None,
    *,
    exact: bool,
) -> Ranked:
    """Rank by XTR's rule; the arguments are those of ``search``."""
    parts, segments = snapshot.parts, [part.segment for part in snapshot.parts]
    assert config.n_tokens is not None
    windows = _listed_windows(snapshot, query, config, pids, exact=exact)
    scorer = ImputedScorer(segments, snapshot.codec, query, windows, config.n_tokens, bars)
    if sum(len(np.unique(part.segment.pids[chosen])) for part, chosen in zip(parts, windows, strict=True)) < k:
        windows = _all_windows(parts, pids)
        scorer = ImputedScorer(segments, snapshot.codec, query, windows, config.n_tokens, scorer.bars)
    return _rank(parts, scorer, windows, k, sort_keys)


def _listed_windows(
    snapshot: Snapshot,
    query: NDArray[np.float32],
    config: SearchConfig,
    pids: NDArray[np.int64] | None,
    *,
    exact: bool,
) -> list[NDArray[np.int32]]:
    """The windows that the lists lead to, or all of an uncompressed collection."""
    parts, codec = snapshot.parts, snapshot.codec
    if exact or codec is None or len(query) * len(codec.centroids) > _LARGEST_TABLE:
        return _all_windows(parts, pids)
    from colbert_core.search.kernel_scorer import KernelScorer

    allowed, open_centroids = _allowed(parts, codec, pids)
    scorer = KernelScorer([part.segment for part in parts], codec, query)
    return scorer.candidates(allowed, config.nprobe, config.n_candidates, open_centroids)


def _allowed(
    parts: Sequence[Part], codec: ResidualCodec, pids: NDArray[np.int64] | None
) -> tuple[list[NDArray[np.bool_]], NDArray[np.intp] | None]:
    """Which windows of each segment may be found, and the centroids whose lists have one; None for all."""
    if pids is None:
        return [part.live for part in parts], None
    allowed = [part.live & part.segment.find(pids) for part in parts]
    reaching = [_reaching(part.segment, codec, windows) for part, windows in zip(parts, allowed, strict=True)]
    return allowed, np.concatenate(reaching).astype(np.intp)


def config_for(snapshot: Snapshot, k: int, n_q: int, shards: int = 1) -> SearchConfig:
    """Choose a config for ``k`` passages of a snapshot, by a query of ``n_q`` vectors.

    Args:
        snapshot: what is searched.
        k: hits that are wanted.
        n_q: number of query vectors.
        shards: of so many parts of a collection, over which passages are spread at random, the snapshot is one.
    """
    segments = [part.segment for part in snapshot.parts]
    n_windows, n_tokens = sum(len(segment.pids) for segment in segments), sum(segment.n_tokens for segment in segments)
    n_layers = 1 if snapshot.codec is None else len(snapshot.codec.layers)
    return default_config(k, n_windows * shards, n_q, n_tokens * shards, n_layers).share(shards)


def best_windows(
    scores: NDArray[np.floating[Any]], pids: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]], NDArray[np.intp]]:
    """Find each passage's best window, the first of equals.

    Args:
        scores: *Shape:* (n_windows,), float32 or float64.
        pids: *Shape:* (n_windows,), ascending, each window's passage.

    Returns:
        *Shape:* (n_passages,) each: the pids, the scores, and the places of the windows in ``scores``.
    """
    if len(pids) < 2 or bool((pids[1:] > pids[:-1]).all()):
        return pids, scores, np.arange(len(pids))
    # Sorted by pid, then by falling score; the sort is stable, so of equal windows the first comes first.
    order = np.lexsort((-scores, pids))
    places = order[_first_windows(pids)]
    return pids[places], scores[places], places


def _rank(
    parts: Sequence[Part],
    scorer: Scorer,
    windows: list[NDArray[np.int32]],
    k: int,
    sort_keys: SortKeys,
    *,
    bounded: bool = False,
) -> Ranked:
    """Keep the best ``k`` passages of these windows, chosen by rough scores, ordered by exact ones.

    ``bounded`` says that no rough score is wrong by more than half the scorer's margin.
    """
    if not any(map(len, windows)):
        return Ranked([], [], [])
    segments = [part.segment for part in parts]
    windows = _choose(segments, scorer, windows, k, bounded=bounded)
    pids, scores, spans = _passages(segments, scorer, windows)
    if k < len(pids):
        top = np.flatnonzero(scores >= _kth_highest(scores, k))  # with all that tie with the last
        pids, scores, spans = pids[top], scores[top], spans[top]
    values = scores.tolist()
    keys = sort_keys(pids.tolist()) if len(set(values)) < len(values) else pids.tolist()
    order = sorted(range(len(pids)), key=lambda place: (-values[place], keys[place]))[:k]
    return Ranked(
        [int(pids[place]) for place in order],
        [values[place] for place in order],
        [(int(spans[place][0]), int(spans[place][1])) for place in order],
    )


def _passages(
    segments: Sequence[Segment], scorer: Scorer, windows: list[NDArray[np.int32]]
) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]], NDArray[np.int32]]:
    """The passages of these windows, the exact score of each one's best window, and its characters."""
    best = [
        best_windows(scorer.exactly(number, chosen), segment.pids[chosen])
        for number, (segment, chosen) in enumerate(zip(segments, windows, strict=True))
    ]  # of each segment: pids, scores, places in its windows
    if len(best) == 1:
        pids, scores, places = best[0]
        return pids, scores, segments[0].spans[windows[0][places]]
    pids = np.concatenate([pids for pids, _, _ in best])
    scores = np.concatenate([scores for _, scores, _ in best])
    spans = np.concatenate(
        [segment.spans[chosen[places]] for segment, chosen, (_, _, places) in zip(segments, windows, best, strict=True)]
    )
    return pids, scores, spans


def _choose(
    segments: Sequence[Segment], scorer: Scorer, windows: list[NDArray[np.int32]], k: int, *, bounded: bool
) -> list[NDArray[np.int32]]:
    """The windows that may be of the best ``k`` passages, by rough scores and what these may be wrong by."""
    rough = [scorer.roughly(number, chosen) for number, chosen in enumerate(windows)]
    passage_scores = np.concatenate(
        [
            _greatest(scores, _first_windows(segment.pids[chosen]))
            for segment, scores, chosen in zip(segments, rough, windows, strict=True)
        ]
    )
    if k >= len(passage_scores):
        return windows
    highest = _kth_highest(passage_scores, k)
    bar = highest - scorer.margin
    if bounded:
        # The k that seem best have at least their own scores, so the k-th best of all is no worse than the worst of them.
        seeming = [chosen[scores >= highest] for chosen, scores in zip(windows, rough, strict=True)]
        _, exact, _ = _passages(segments, scorer, seeming)
        bar = max(bar, _kth_highest(exact, k) - scorer.margin / 2)
    return [chosen[scores >= bar] for chosen, scores in zip(windows, rough, strict=True)]


def _kth_highest(scores: NDArray[Any], k: int) -> Any:
    return np.partition(scores, len(scores) - k)[len(scores) - k]


def _all_windows(parts: Sequence[Part], pids: NDArray[np.int64] | None) -> list[NDArray[np.int32]]:
    """The live windows, of these passages or all."""
    if pids is None:
        return [np.flatnonzero(part.live).astype(np.int32) for part in parts]
    theirs = [part.segment.windows_of(pids) for part in parts]
    return [windows[part.live[windows]].astype(np.int32) for part, windows in zip(parts, theirs, strict=True)]


def _first_windows(pids: NDArray[np.int64]) -> NDArray[np.intp]:
    """Where each passage begins among windows in the order of their pids."""
    return np.flatnonzero(np.concatenate([pids[:1] >= 0, pids[1:] != pids[:-1]]))


def _greatest(scores: NDArray[Any], firsts: NDArray[np.intp]) -> NDArray[Any]:
    return np.maximum.reduceat(scores, firsts) if len(firsts) else scores


def _reaching(segment: Segment, codec: ResidualCodec, allowed: NDArray[np.bool_]) -> NDArray[Any]:
    """The centroids that have a token of an allowed window. Of few windows their codes say it, of many the lists."""
    windows = np.flatnonzero(allowed).astype(np.int32)
    if len(windows) > len(allowed) / _FEW_ALLOWED:
        return _lists(segment, codec).reaching(allowed)
    segment.check_codes(len(codec.centroids))
    return np.unique(segment.plain_codes[segment.tokens_of(windows)])


def _lists(segment: Segment, codec: ResidualCodec) -> InvertedLists:
    assert segment.lists is not None
    segment.lists.by_centroid(len(codec.centroids), len(segment.pids))  # checks them, once
    return segment.lists
