"""Find the quickest search of an index that finds enough of what scoring every passage would find."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from colbert_core.index.reports import Tuning
from colbert_core.index.state import damage_named
from colbert_core.index.verification import QUERY_LENGTH
from colbert_core.progress import progress_bar
from colbert_core.search.config import ladder_of_configs
from colbert_core.vectors.snapshot import vectors_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from colbert_core.index.view import View
    from colbert_core.search.config import SearchConfig

# Passages that stand in for queries where none are given.
_N_QUERIES = 50


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
    snapshot = view.state.snapshot
    if not any(part.live.any() for part in snapshot.parts):
        raise ValueError(f"{view.name} cannot be tuned: there is nothing to read in its passages; add some with text.")
    with damage_named(view.name):
        matrices = queries or [vectors_of(snapshot, pid)[:QUERY_LENGTH] for pid in view.sample_pids(_N_QUERIES)]
    best, _ = _search_all(view, matrices, k, None)
    tried: list[tuple[SearchConfig, float, float]] = []
    ladder = ladder_of_configs(k, sum(len(part.segment.pids) for part in snapshot.parts))
    with progress_bar("Tuning", len(ladder), "config", progress) as bar:
        for config in ladder:
            pids, milliseconds = _search_all(view, matrices, k, config)
            recall = float(np.mean([len(ours & all_) / len(all_) for ours, all_ in zip(pids, best, strict=True)]))
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
    view: View, matrices: Sequence[NDArray[np.float32]], k: int, config: SearchConfig | None
) -> tuple[list[set[int]], float]:
    """The pids that are found for each query, on the CPU, and the median of the milliseconds. None scores everything."""
    pids, seconds = [], []
    for matrix in matrices:
        start = time.perf_counter()
        ranking = view.rank(matrix, k, config=config, exact=config is None)
        seconds.append(time.perf_counter() - start)
        pids.append(set(ranking.pids))
    return pids, 1000 * float(np.median(seconds))
