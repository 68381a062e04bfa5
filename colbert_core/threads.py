"""How many threads the package uses, and work spread over them."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")

_chosen: int | None = None  # what set_num_threads was given
_within = threading.local()  # has ``spread`` in a thread that does a part of spread work


def get_num_threads() -> int:
    """Return how many threads a call may use: what ``set_num_threads`` was given, else the cores this process may run on."""
    if _chosen is not None:
        return _chosen
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def set_num_threads(n: int) -> None:
    """Set how many threads this process uses to build and search an index, and to encode on the CPU.

    The loops that build and search run without the GIL. One query is searched by one thread, several by several. PyTorch's
    own setting, which encoding follows, is changed as well, now or when PyTorch is first needed.

    Args:
        n: number of threads, at least 1.

    Raises:
        TypeError: n is no whole number.
        ValueError: n is below 1.
    """
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n must be a whole number of threads, got {n!r}.")
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}.")
    global _chosen
    _chosen = n
    if "torch" in sys.modules:
        apply_to_torch()


def apply_to_torch() -> None:
    """Set PyTorch's number of threads to what ``set_num_threads`` was given, if it was called."""
    if _chosen is not None:
        import torch  # here, because it takes seconds

        torch.set_num_threads(_chosen)


def spread(work: Callable[[T], R], pieces: Sequence[T]) -> list[R]:
    """Call ``work`` on each piece, by as many threads as are allowed, and return the results in order.

    The first error is raised. Inside a thread of another ``spread`` the pieces are done one after the other, so there are
    never more threads than allowed.
    """
    n_threads = min(get_num_threads(), len(pieces))
    if n_threads <= 1 or getattr(_within, "spread", False):
        return [work(piece) for piece in pieces]

    def enter() -> None:
        _within.spread = True

    with ThreadPoolExecutor(n_threads, "colbert", initializer=enter) as pool:
        try:
            return list(pool.map(work, pieces))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
