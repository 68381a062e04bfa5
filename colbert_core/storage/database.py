"""Connections to the SQLite database of an index: shared by threads, let go before a fork, safe from Ctrl-C at any line."""

from __future__ import annotations

import contextlib
import gc
import os
import sqlite3
import threading
import time
import weakref
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from colbert_core.errors import (
    IndexLockedError,
    IndexNotFoundError,
    ReadOnlyIndexError,
    StorageError,
)
from colbert_core.storage.connection import (
    Connection,
    add_functions,
    attach,
    check_length,
    connect,
    count_tables,
    milliseconds,
    roll_back,
    use_log,
)
from colbert_core.storage.durable import disk_errors
from colbert_core.storage.opened import file_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# SQLite's log is written back into the database when a commit leaves it larger than this. Readers that follow each other
# without a gap keep SQLite from doing so by itself: 218 commits beside six of them left a log of 14 MB to 74 kB of data.
_LARGEST_LOG = 2**24

# Seconds that a fork waits for other threads to finish what they do with an index.
_FORK_WAITS = 10

# How often opening a database starts again because another one took its place meanwhile.
_TRIES = 10

_living: weakref.WeakSet[Connections] = weakref.WeakSet()


class _Use:
    """A thread's use of a connection.

    Nothing has to end it: it goes with the call that holds it, wherever Ctrl-C ends that call. A count of users went wrong
    there, and a forked process took the thread that was gone for one at work.
    """

    __slots__ = ("__weakref__", "thread")

    def __init__(self) -> None:
        self.thread = threading.get_ident()


class Connections(ABC):
    """Lends connections to one database to the threads of this process, and its write lock to one of them.

    Attributes:
        name: of the index, for messages.
        timeout: seconds to wait for another writer.
        read_only: the folder cannot be written to.
        closed: nothing can be done any more.
        after_fork: called in a forked process, to renew the owner's locks.
    """

    def __init__(self, name: str, timeout: float) -> None:
        """Take the index's name for messages, and how long to wait for another writer."""
        self.name = name
        self.timeout = timeout
        self.read_only = False
        self.closed = False
        self.after_fork: Callable[[], Callable[[], None] | None] | None = None
        self._users: weakref.WeakSet[_Use] = weakref.WeakSet()
        self._forking = False
        self._torn = False
        self._writing_with: Connection | None = None
        self._make_locks()
        _living.add(self)

    def _make_locks(self) -> None:
        self._idle_lock = threading.Lock()  # a Condition would not survive Ctrl-C, being written in Python
        self._writing = threading.RLock()

    # What differs between memory and disk

    @property
    @abstractmethod
    def guard(self) -> contextlib.AbstractContextManager[Any]:
        """What to hold so that several reads belong together: on disk the transaction sees to it."""

    @abstractmethod
    def roll_back(self, connection: Connection) -> None:
        """End what ``reading``, ``writing`` or ``begin_cleaning`` has begun on disk."""

    @abstractmethod
    def begin_cleaning(self, connection: Connection) -> None:
        """Take the write lock once more after a write, unless somebody else has it by now.

        Raises:
            sqlite3.Error: somebody has.
        """

    @abstractmethod
    def close(self) -> None:
        """Close all connections."""

    @abstractmethod
    def _take_idle(self) -> Connection | None:
        """A connection that is there already; called under the lock of the idle ones."""

    @abstractmethod
    def _connect(self, *, create: bool) -> Connection:
        """A new connection."""

    @abstractmethod
    def _give_back(self, connection: Connection, use: _Use) -> None:
        """End a thread's use of a connection."""

    @abstractmethod
    def _begin_reading(self, connection: Connection) -> None:
        """Fix the state that is read."""

    @abstractmethod
    def _begin_writing(self, connection: Connection, seconds: float, locked: str) -> None:
        """Take the lock between processes, or raise ``locked`` when the seconds are over."""

    @abstractmethod
    def _abandon(self, connection: Connection) -> None:
        """Give up the connection of a write that was interrupted where no line of ours could end it."""

    @abstractmethod
    def _let_go(self) -> None:
        """Close what a forked process must not inherit."""

    # What is the same for both

    @contextlib.contextmanager
    def used(self, *, create: bool = False) -> Iterator[Connection]:
        """Lend a connection to this thread for a while; in memory all threads have the same one.

        Args:
            create: the database may be made.
        """
        use = _Use()
        connection = self._take(use, create=create)
        try:
            yield connection
        except BaseException:
            if create:
                connection.reusable = False
            raise
        finally:
            self._give_back(connection, use)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Lend a connection that sees one state: on disk that of its transaction, in memory the newest at every call."""
        with self.used() as connection:
            self._begin_reading(connection)
            yield connection

    @contextlib.contextmanager
    def writing(self, attached: Path | None = None) -> Iterator[Connection]:
        """Lend a connection that holds the write lock, of this process and between processes. No code of users runs within.

        Args:
            attached: another database to read beside it, see ``attach``.

        Raises:
            IndexLockedError: somebody else holds it for longer than the timeout.
            ReadOnlyIndexError: the folder cannot be written to.
        """
        until = time.monotonic() + self.timeout
        locked = f"Another writer has held {self.name} for {self.timeout:g} s; try again when it is done."
        try:
            if not self._writing.acquire(timeout=min(self.timeout, threading.TIMEOUT_MAX)):
                raise IndexLockedError(locked)
            if self._writing_with is not None:  # of a write of this thread, interrupted where no line of ours could end it
                self._abandon(self._writing_with)
            with self.used() as connection:
                if self.read_only:
                    raise ReadOnlyIndexError(
                        f"{self.name} cannot be written to; copy the index to a place where it can be changed."
                    )
                if attached is not None:
                    attach(connection, attached)
                self._writing_with = connection
                self._begin_writing(connection, until - time.monotonic(), locked)
                yield connection
        finally:
            # Owned by this thread: then it was acquired, however often, wherever the interrupt came.
            if self._writing._is_owned():  # type: ignore[attr-defined]
                self._writing_with = None
                with contextlib.suppress(RuntimeError):
                    while True:
                        self._writing.release()

    def _take(self, use: _Use, *, create: bool) -> Connection:
        while self._must_wait(use.thread):
            time.sleep(0.001)
        with self._idle_lock:
            if self.closed:
                raise ValueError("The index is closed; open it again.")
            if self._torn:
                raise StorageError(
                    "This process was forked while another thread of its parent was using the index; open it again here."
                )
            self._users.add(use)
            idle = self._take_idle()
        return self._connect(create=create) if idle is None else idle

    def _must_wait(self, thread: int) -> bool:
        """Whether a fork is under way that waits for other threads, but not for this one."""
        if not self._forking:
            return False
        with self._idle_lock:
            return self._forking and not any(use.thread == thread for use in self._users)

    # Forks. What SQLite knows of connections and their locks must not be there in the child, and none of its own locks be held
    # by a thread that the child does not have: so the fork waits until nobody is within a call.

    def _before_fork(self) -> None:
        if len(self._users):
            gc.collect()  # a call that Ctrl-C ended may hang in a cycle of references
        me, until = threading.get_ident(), time.monotonic() + _FORK_WAITS
        self._forking = True
        self._idle_lock.acquire()
        while any(use.thread != me for use in self._users) and time.monotonic() < until:
            self._idle_lock.release()
            time.sleep(0.001)
            self._idle_lock.acquire()
        self._let_go()

    def _after_fork_in_parent(self) -> None:
        self._forking = False
        self._idle_lock.release()

    def _after_fork_in_child(self) -> None:
        self._torn = any(True for _ in self._users)
        self._users = weakref.WeakSet()
        self._forking = False
        self._writing_with = None
        self._make_locks()
        renew = self.after_fork() if self.after_fork is not None else None
        if renew is not None:
            renew()


class MemoryConnections(Connections):
    """The one connection to a database in memory, which all threads use. Its guard keeps them apart."""

    def __init__(self, timeout: float) -> None:
        """Make an empty database."""
        super().__init__("the index", timeout)
        self._connection: Connection = sqlite3.connect(
            ":memory:", isolation_level=None, check_same_thread=False, factory=Connection
        )
        self._connection.shared = True
        add_functions(self._connection)

    def _make_locks(self) -> None:
        super()._make_locks()
        self._guard = threading.RLock()

    @property
    def guard(self) -> contextlib.AbstractContextManager[Any]:
        """A lock."""
        return self._guard

    def close(self) -> None:
        """Close the connection, which loses the database, once no thread reads over it."""
        with self._guard, self._idle_lock:
            self.closed = True
            self._connection.close()

    def _take_idle(self) -> Connection:
        return self._connection

    def _connect(self, *, create: bool) -> Connection:  # noqa: ARG002
        return self._connection

    def _give_back(self, connection: Connection, use: _Use) -> None:  # noqa: ARG002
        with self._idle_lock:
            self._users.discard(use)

    # A transaction in memory lasts no longer than its thread holds the guard: the others share the connection. One that is
    # there when nobody holds the guard was left by a write that Ctrl-C ended where no line of ours could.

    def roll_back(self, connection: Connection) -> None:
        """Leave a transaction that a write has left behind, if there is one."""
        if connection.in_transaction:
            with self._guard:
                roll_back(connection)

    def begin_cleaning(self, connection: Connection) -> None:
        """Nothing to do: the writer has the lock until it ends."""

    def _begin_reading(self, connection: Connection) -> None:
        self.roll_back(connection)

    def _begin_writing(self, connection: Connection, seconds: float, locked: str) -> None:  # noqa: ARG002
        self.roll_back(connection)

    def _abandon(self, connection: Connection) -> None: ...

    def _let_go(self) -> None: ...


class DiskConnections(Connections):
    """A pool of connections to a database on disk, each of which one thread uses at a time."""

    def __init__(self, path: Path, timeout: float) -> None:
        """Take the path of the database; connections are made as they are needed."""
        super().__init__(str(path.parent), timeout)
        self._path = path
        self._idle: list[Connection] = []
        self._longest_log = _LARGEST_LOG

    @property
    def guard(self) -> contextlib.AbstractContextManager[Any]:
        """Nothing to hold."""
        return contextlib.nullcontext()

    def roll_back(self, connection: Connection) -> None:
        """Leave the transaction, if there is one."""
        roll_back(connection)

    def begin_cleaning(self, connection: Connection) -> None:
        """Shorten a long log, and take the write lock if nobody has it."""
        self._shorten_log(connection)
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute("BEGIN IMMEDIATE")

    def close(self) -> None:
        """Close all connections. The last one to a folder leaves it without SQLite's log, fit for read-only media."""
        with self._idle_lock:
            self.closed = True
            connections, self._idle = self._idle, []
        if connections and not self.read_only:
            with contextlib.suppress(sqlite3.Error):
                connections[0].execute("PRAGMA busy_timeout = 0")
                connections[0].execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for connection in connections:
            connection.close()

    def _take_idle(self) -> Connection | None:
        if not self._idle:
            return None
        with disk_errors(self._path, reading=True):
            now = file_id(self._path)  # 2 us
        while self._idle:
            connection = self._idle.pop()
            if connection.file_id == now:
                return connection
            connection.close()  # another index has the place of the one that it has open, or nothing has
        return None

    def _connect(self, *, create: bool) -> Connection:
        path = self._path
        check_length(path)
        for _ in range(_TRIES):
            with disk_errors(path, reading=True):
                there = file_id(path)
            if there is None and not create:
                raise IndexNotFoundError(f"There is no index at {path.parent} any more: {path.name} is gone.")
            connection = self._connected(path, create=create)
            # SQLite opens the database and its log by their paths, one after the other.
            with disk_errors(path, reading=True):
                connection.file_id = file_id(path)
            if connection.file_id is not None and there in (None, connection.file_id):
                return connection
            connection.close()
        raise StorageError(f"{path.parent} was overwritten with a new index {_TRIES} times while it was opened; open it again.")

    def _connected(self, path: Path, *, create: bool) -> Connection:
        with disk_errors(path):
            connection = connect(path, "rwc" if create else "rw", self.timeout)
            try:
                use_log(connection, self.timeout)
                # NORMAL would take .03 ms a commit in place of 4, and lose acknowledged commits when the power fails.
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA fullfsync = 1")  # where fsync alone does not reach the disk, which is macOS
                count_tables(connection)
            except BaseException as error:
                connection.close()
                means_read_only = any(words in str(error) for words in ("readonly", "unable to open"))
                if not (isinstance(error, sqlite3.OperationalError) and means_read_only) or os.access(path.parent, os.W_OK):
                    raise
            else:
                self.read_only = not os.access(path.parent, os.W_OK)
                return connection
            # SQLite cannot share a database in this mode that it may not write beside, but reads one that nobody writes.
            self.read_only = True
            log = self._log()
            if log.exists() and log.stat().st_size:
                raise ReadOnlyIndexError(
                    f"{path.parent} cannot be written to from here, and is being written to from elsewhere or was not closed "
                    "cleanly; open and close it once where it can be."
                )
            connection = connect(path, "ro&immutable=1", self.timeout)
            connection.reusable = False  # it would not see a change
            return connection

    def _give_back(self, connection: Connection, use: _Use) -> None:
        with contextlib.suppress(sqlite3.Error):
            roll_back(connection)  # Ctrl-C can come between any two lines
        with self._idle_lock:
            self._users.discard(use)
            if connection is self._writing_with:  # before anyone can take it, or the next write would close it under them
                self._writing_with = None
            if not self.closed and connection.reusable:
                self._idle.append(connection)
                return
        connection.close()

    def _begin_reading(self, connection: Connection) -> None:
        with disk_errors(self._path.parent):
            connection.execute("BEGIN")

    def _begin_writing(self, connection: Connection, seconds: float, locked: str) -> None:
        with disk_errors(self._path, locked):
            connection.execute(f"PRAGMA busy_timeout = {milliseconds(seconds)}")
            connection.execute("BEGIN IMMEDIATE")

    def _abandon(self, connection: Connection) -> None:
        connection.reusable = False
        connection.close()

    def _let_go(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle = []

    def _log(self) -> Path:
        return self._path.with_name(f"{self._path.name}-wal")

    def _shorten_log(self, connection: Connection) -> None:
        """Write a log that has become long back into the database, if no reader minds."""
        log = self._log()
        if log.exists() and log.stat().st_size > self._longest_log:
            connection.execute("PRAGMA busy_timeout = 200")
            for _ in range(2):
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                size = log.stat().st_size
                if size <= _LARGEST_LOG:
                    break
                gc.collect()  # a read that Ctrl-C ended may hang in a cycle of references, its transaction with it
            self._longest_log = max(_LARGEST_LOG, size * 5 // 4)  # a reader minds: do not wait for it at every commit


_held: list[Connections] = []  # by the fork that is under way


def _before_fork() -> None:
    _held[:] = list(_living)
    for connections in _held:
        connections._before_fork()


def _after_fork_in_parent() -> None:
    for connections in _held:
        connections._after_fork_in_parent()
    _held.clear()


def _after_fork_in_child() -> None:
    _held.clear()
    for connections in list(_living):
        connections._after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
