"""Find the quickest search of an index that finds enough of what scoring every passage would find."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from colbert_core.index.reports import Tuning
from colbert_core.index.verification import sample_queries
from colbert_core.progress import progress_bar
from colbert_core.search.config import ladder_of_configs

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from numpy.typing import NDArray

    from colbert_core.index.view import View
    from colbert_core.search.config import SearchConfig

    Find = Callable[[NDArray[np.float32], SearchConfig | None], Iterable[Hashable]]

# Passages that stand in for queries where none are given.
N_QUERIES = 50


def tune(
    view: View, queries: Sequence[NDArray[np.float32]] | None, k: int, target_recall: float, progress: bool | None
) -> Tuning:
    """Measure ever more thorough searches until one finds enough, and the next ones only take longer.

    Args:
        view: the moment to search, with at least one passage.
        queries: *Shape:* (n_q, dim) each, at least one; None takes 50 passages, each as a query of up to 32 of its vectors.
        k: hits that are wanted.
        target_recall: part of the ``k`` best passages that has to be found on average, from 0 to 1.
        progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

    Raises:
        ValueError: no passage has vectors.
    """
    matrices = queries or sample_queries(view, N_QUERIES)

    def find(matrix: NDArray[np.float32], config: SearchConfig | None) -> list[int]:
        return view.rank(matrix, k, config=config, exact=config is None).pids

    return find_quickest(find, matrices, ladder_of_configs(k, count_windows(view)), target_recall, progress, view.name)


def count_windows(view: View) -> int:
    """Number of windows that a search may have to look at."""
    return sum(len(part.segment.pids) for part in view.state.snapshot.parts)


def find_quickest(
    find: Find,
    queries: Sequence[NDArray[np.float32]],
    ladder: Sequence[SearchConfig],
    target_recall: float,
    progress: bool | None,
    name: str,
) -> Tuning:
    """Try configs from the least thorough on.

    Args:
        find: the passages that a search with a config finds for a query; None scores everything.
        queries: *Shape:* (n_q, dim) each, float32, unit rows.
        ladder: configs, each looking at more than the one before.
        target_recall: as for ``tune``.
        progress: as for ``tune``.
        name: the index, for messages.

    Raises:
        ValueError: there is no query, since no passage has vectors; or nothing is found for one.
    """
    best = _search_all(find, queries, None)[0] if queries else [set()]
    if not all(best):
        raise ValueError(f"{name} cannot be tuned: there is nothing to read in its passages; add some with text.")
    tried: list[tuple[SearchConfig, float, float]] = []
    with progress_bar("Tuning", len(ladder), "config", progress) as bar:
        for config in ladder:
            found, milliseconds = _search_all(find, queries, config)
            recall = float(np.mean([len(ours & all_) / len(all_) for ours, all_ in zip(found, best, strict=True)]))
            tried.append((config, recall, milliseconds))
            bar.update()
            if recall >= target_recall and milliseconds > 2 * min(
                quickest for _, reached, quickest in tried if reached >= target_recall
            ):
                break  # what comes now looks at more
    good = [entry for entry in tried if entry[1] >= target_recall]
    # Rounding may have cost the last config one of many nearly equal passages.
    chosen = min(good, key=lambda entry: entry[2]) if good else max(tried, key=lambda entry: entry[1])
    return Tuning(*chosen, tried)


def _search_all(
    find: Find, queries: Sequence[NDArray[np.float32]], config: SearchConfig | None
) -> tuple[list[set[Hashable]], float]:
    """What is found for each query, and the median of the milliseconds. None scores everything."""
    found, seconds = [], []
    for query in queries:
        start = time.perf_counter()
        passages = find(query, config)
        seconds.append(time.perf_counter() - start)
        found.append(set(passages))
    return found, 1000 * float(np.median(seconds))
