"""How many threads the package uses, work spread over them, and what is left of them in a forked process.

GNU's OpenMP, which PyTorch and FAISS compute with on Linux, keeps its threads between calls. A forked process inherits the
list of them but no thread, and would wait for them for ever. So a fork first sends home those of the thread that forks; both
processes start new ones when they need them.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import functools
import logging
import os
import sys
import threading
import weakref
from collections import deque
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from colbert_core.cores import count_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger(__name__)

_MOST = 1024
_chosen: int | None = None  # what set_num_threads was given
_within = threading.local()  # has ``spread`` in a thread that does a part of spread work


def get_num_threads() -> int:
    """Return how many threads a call may use: what ``set_num_threads`` was given, else the cores this process has.

    Those are the cores that it may run on, or fewer if a container grants fewer (``docker run --cpus``, Kubernetes' limits).
    """
    return count_cores() if _chosen is None else _chosen


def set_num_threads(n: int) -> None:
    """Set how many threads this process uses to build and search an index, and to encode on the CPU.

    The loops that build and search run without the GIL. One query is searched by one thread, several by several. Texts are
    encoded in batches, each by one thread. PyTorch's own setting is for the rest of your program, and stays as it is.

    Args:
        n: number of threads, from 1 to 1,024.

    Raises:
        TypeError: n is no whole number.
        ValueError: n is below 1 or above 1,024.
    """
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n must be a whole number of threads, got {n!r}.")
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}.")
    if n > _MOST:  # OpenMP ends the process when it gets no more
        raise ValueError(f"n must be at most {_MOST} threads, got a number of {n.bit_length()} bits.")
    global _chosen
    _chosen = n


def openmp_threads(n: int) -> int:
    """Return how many of ``n`` threads FAISS may use: all, but one where a fork has left it without the others."""
    return 1 if _lost_threads else n


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Have PyTorch compute in the calling thread alone while the block runs; what other threads do and see stays as it is.

    Threads that PyTorch starts for one operation wait for each other at its end. As soon as one has to share its core, all
    wait for it: with another process on one of two cores a pass of two threads took 6 times as long as one of one thread.
    """
    import torch  # here, because it takes seconds

    torch.get_num_threads()  # sets this thread's number, once; afterwards it is ours to change
    libraries, set_mkl = _openmp(), _mkl()
    before = [library.get_num_threads() for library in libraries]
    mkl_before = set_mkl(1)
    try:
        for library in libraries:
            library.set_num_threads(1)
        yield
    finally:
        for library, n in zip(libraries, before, strict=True):
            library.set_num_threads(n)
        set_mkl(mkl_before)


@functools.cache
def _mkl() -> Callable[[int], int]:
    """Sets how many threads MKL takes for the calling thread, and returns how many it took: 0 for as many as all take.

    PyTorch's wheels have an MKL within that counts for itself. With two threads it divides a product of a few rows otherwise,
    so the last bits of float32 vectors depended on PyTorch's number (4e-7, on a processor without AVX-512).
    """
    import torch

    folder = Path(torch.__file__).parent / "lib"
    for library in ("libtorch_cpu.so", "torch_cpu.dll"):
        with contextlib.suppress(OSError, AttributeError):
            setter = ctypes.CDLL(str(folder / library)).MKL_Set_Num_Threads_Local
            setter.argtypes, setter.restype = [ctypes.c_int], ctypes.c_int
            return setter
    return lambda n: n


@functools.cache
def _openmp() -> list[Any]:
    """The OpenMP libraries in this process once PyTorch is. Each thread has a number of its own in them."""
    from threadpoolctl import ThreadpoolController

    return [library for library in ThreadpoolController().lib_controllers if library.user_api == "openmp"]


def new_lock() -> threading.Lock:
    """Make a lock that is free in a forked process, where the thread that held it is not."""
    lock = threading.Lock()
    _locks.add(lock)
    return lock


def spread(work: Callable[[T], R], pieces: Sequence[T]) -> list[R]:
    """Call ``work`` on each piece, by as many threads as are allowed, and return the results in order.

    The first error is raised. Inside a thread of another ``spread`` the pieces are done one after the other, so there are
    never more threads than allowed. After Ctrl-C the threads end as well.
    """
    n_threads = min(get_num_threads(), len(pieces))
    if n_threads <= 1 or getattr(_within, "spread", False):
        return [work(piece) for piece in pieces]
    return _Spread(work, pieces, n_threads).results()


class _Spread(Generic[T, R]):
    """Work that is shared out to threads.

    Ctrl-C comes to the main thread alone, and at any line of Python: in a lock, an event or a pool of the standard library it
    leaves threads behind that wait for ever. So what is written in Python runs in other threads, also what starts the threads.
    The main thread calls only C while it waits, and looks afterwards at what is done, since Ctrl-C may take the message away.
    """

    def __init__(self, work: Callable[[T], R], pieces: Sequence[T], n_threads: int) -> None:
        self._work = work
        self._left = deque(enumerate(pieces))
        self._n_pieces = len(self._left)
        self._threads = [Thread(target=self._run, name=f"colbert_{n}", daemon=True) for n in range(n_threads)]
        self._done: dict[int, R] = {}
        self._failed: dict[int, BaseException | None] = {}  # None for a piece that was left
        self._ended: SimpleQueue[None] = SimpleQueue()
        self._begun = self._stopped = self._all_here = False

    def results(self) -> list[R]:
        """Do the work."""
        try:
            _thread.start_new_thread(self._begin, ())
            self._wait()
        except BaseException:
            self._stopped = True
            if self._begun:  # if not, they will find that there is nothing to do
                self._wait()
            raise
        errors = [error for _, error in sorted(self._failed.items()) if error is not None]
        if errors:
            try:
                raise errors[0]
            finally:
                self._failed.clear()  # its traceback leads here
                errors.clear()
        return [self._done[n] for n in range(self._n_pieces)]

    def _wait(self) -> None:
        while not self._is_complete():
            self._ended.get()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _is_complete(self) -> bool:
        return self._all_here and len(self._done) + len(self._failed) == self._n_pieces

    def _begin(self) -> None:
        self._begun = True
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError:  # the system gives no more threads; those that are there do it all
            self._run()
        self._all_here = True
        self._ended.put(None)

    def _run(self) -> None:
        _within.spread = True
        while self._left:
            with contextlib.suppress(IndexError):  # another thread took the last one
                self._do(*self._left.popleft())
        if self._is_complete():
            self._ended.put(None)

    def _do(self, number: int, piece: T) -> None:
        if self._stopped:
            self._failed[number] = None
            return
        try:
            self._done[number] = self._work(piece)
        except BaseException as error:
            self._stopped = True
            self._failed[number] = error


# Forks

_PAUSE_HARD = 2  # of omp.h: give up the threads as well

_locks: weakref.WeakSet[threading.Lock] = weakref.WeakSet()
_process = os.getpid()
_ready = False  # the fork under way was told of in time, and no thread of OpenMP is left
_lost_threads = False  # this process was forked, and OpenMP waits for threads that it does not have


def _before_fork() -> None:
    global _ready
    _ready = False
    # A process forked by C code alone has lost its threads already, and would wait for them here.
    if os.getpid() == _process and not _lost_threads:
        with contextlib.suppress(OSError, AttributeError):  # GCC's before version 9 cannot be told
            for library in _gnu_openmp():
                library.omp_pause_resource_all(_PAUSE_HARD)
            _ready = True


def _after_fork_in_child() -> None:
    global _process, _lost_threads
    for lock in list(_locks):
        lock._at_fork_reinit()  # type: ignore[attr-defined]  # as the standard library does with its own
    _process = os.getpid()
    loaded = [name for name in ("torch", "faiss") if name in sys.modules]
    if not _ready and not _lost_threads and loaded and sys.platform == "linux":
        _lost_threads = True
        _use_one_thread()
        logger.info("PyTorch and FAISS compute with one thread in this process: it was forked, without its parent's threads.")


def _use_one_thread() -> None:
    for name, setting in (("torch", "set_num_threads"), ("faiss", "omp_set_num_threads")):
        if name in sys.modules:
            getattr(sys.modules[name], setting)(1)


def _gnu_openmp() -> list[Any]:
    """Return the copies of GNU's OpenMP in this process; PyTorch and FAISS bring one each. Others survive a fork."""
    if not {"torch", "faiss"} & set(sys.modules) or sys.platform != "linux":
        return []
    with Path("/proc/self/maps").open("rb") as maps:
        paths = {os.fsdecode(line.split(None, 5)[5].strip()) for line in maps if b"libgomp" in line}
    return [ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_NOLOAD) for path in paths]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
