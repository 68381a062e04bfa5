"""Check an index: every checksum, whether its parts fit together, and how much a plain search finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from colbert_core.errors import DamagedIndexError
from colbert_core.index.reports import Verification
from colbert_core.index.state import damage_named
from colbert_core.progress import progress_bar
from colbert_core.text.blank import has_no_words
from colbert_core.vectors.snapshot import pids_with_vectors, vectors_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from numpy.typing import NDArray

    from colbert_core.index.view import View
    from colbert_core.vectors.snapshot import Snapshot

# The best passages by which recall is measured.
RECALL_AT = 10
_READ_AT_A_TIME = 1000
# As many vectors as a query of a ColBERT model has.
QUERY_LENGTH = 32


def verify(view: View, n_queries: int, progress: bool | None) -> Verification:
    """Check everything that an index holds.

    Args:
        view: the moment to check.
        n_queries: how many passages are sampled, each as a query of up to 32 of its own vectors.
        progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.
    """
    problems, n_unchecked = check(view, progress)
    queries = [] if problems else sample_queries(view, n_queries)
    return verified(problems, n_unchecked, queries, lambda query, exact: view.rank(query, RECALL_AT, exact=exact).pids)


def verified(
    problems: list[str],
    n_unchecked: int,
    queries: Sequence[NDArray[np.float32]],
    find: Callable[[NDArray[np.float32], bool], Iterable[Hashable]],
) -> Verification:
    """Measure how much a plain search finds, and say it with what was found before.

    Args:
        problems: what is wrong, in words.
        n_unchecked: number of passages without checksums.
        queries: *Shape:* (n_q, dim) each, float32, unit rows; none measures nothing.
        find: the ``RECALL_AT`` best passages for a query, by a plain search or, if its second argument says so, of all.
    """
    shares = []
    for query in queries:
        plain, best = (set(find(query, exact)) for exact in (False, True))
        shares.append(len(plain & best) / len(best))
    return Verification(problems, float(np.mean(shares)) if shares else None, len(shares), n_unchecked)


def sample_queries(view: View, n: int) -> list[NDArray[np.float32]]:
    """At most ``n`` passages drawn at random, each as a query of its first vectors. *Shape:* (n_q, dim) each, float32."""
    with damage_named(view.name):
        return [vectors_of(view.state.snapshot, pid)[:QUERY_LENGTH] for pid in view.sample_pids(n)]


def check(view: View, progress: bool | None) -> tuple[list[str], int]:
    """Look for damage; what there is, in words, and the number of passages whose texts have no checksums."""
    problems = []
    try:
        with view.reader.moment():  # in memory a writer could come between the two
            snapshot, pids = view.state.snapshot, np.array(view.reader.rows(), np.int64)
    except DamagedIndexError as error:
        problems.append(str(error))
    problems += _check_files(view, progress)
    if problems:
        return list(dict.fromkeys(problems)), 0
    n_unchecked = 0 if view.reader.has_checksums() else len(pids)
    problems = _check_passages(view, pids)
    problems = find_misfits(snapshot, pids if problems else np.setdiff1d(pids, _silent(view, snapshot, pids))) + problems
    problems += view.reader.changed_settings()
    problems += [] if problems else view.reader.words.problems()  # other texts have other words
    return problems, n_unchecked


def find_misfits(snapshot: Snapshot, pids: NDArray[np.int64]) -> list[str]:
    """What does not fit together in the vectors of these passages, in words.

    Args:
        snapshot: all vectors.
        pids: all passages that have vectors, *Shape:* (n,), ascending.
    """
    problems = []
    n_centroids = 0 if snapshot.codec is None else len(snapshot.codec.centroids)
    for number, part in enumerate(snapshot.parts):
        try:
            part.segment.check(n_centroids)
        except IndexError as error:
            problems.append(f"Segment {number} is damaged: {error}")
    in_parts = np.concatenate([np.unique(part.segment.pids[part.live]) for part in snapshot.parts] or [pids[:0]])
    n_without, n_astray = len(np.setdiff1d(pids, in_parts)), len(np.setdiff1d(in_parts, pids))
    if n_without or n_astray:
        problems.append(f"{n_without} passages have no vectors, and vectors of {n_astray} have no passage")
    if len(np.unique(in_parts)) != len(in_parts):
        problems.append(f"The vectors of {len(in_parts) - len(np.unique(in_parts))} passages lie in several segments")
    return problems


def _silent(view: View, snapshot: Snapshot, pids: NDArray[np.int64]) -> list[int]:
    """The passages that have no vectors because there is nothing to read in them."""
    without = np.setdiff1d(pids, pids_with_vectors(snapshot)).tolist()
    return [pid for pid, passage in zip(without, view.reader.passages(without), strict=True) if has_no_words(passage.text)]


def _check_passages(view: View, pids: NDArray[np.int64]) -> list[str]:
    """The passages that have changed since they were written, in words, and the first of each thousand that is none at all."""
    problems = []
    for start in range(0, len(pids), _READ_AT_A_TIME):
        chunk = pids[start : start + _READ_AT_A_TIME].tolist()
        problems += view.reader.changed(chunk)
        try:
            view.reader.passages(chunk)
        except DamagedIndexError as error:
            problems.append(str(error))
    return problems


def _check_files(view: View, progress: bool | None) -> list[str]:
    """What SQLite and the checksums of all files find, in words."""
    problems, files = view.reader.integrity(), view.reader.files()
    with progress_bar("Verifying", len(files), "file", progress) as bar:
        for file in files:
            problems += view.reader.check(file)
            bar.update(1)
    return problems
