"""Connections to the SQLite database of an index: shared by threads, let go before a fork, safe from Ctrl-C at any line."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections import Counter
from typing import TYPE_CHECKING

from colbert_core.errors import (
    IndexLockedError,
    IndexNotFoundError,
    ReadOnlyIndexError,
    StorageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
from colbert_core.storage.durable import disk_errors

# SQLite's log is written back into the database when a commit leaves it larger than this. Readers that follow each other
# without a gap keep SQLite from doing so by itself: 218 commits beside six of them left a log of 14 MB to 74 kB of data.
_LARGEST_LOG = 2**24

# Seconds that a fork waits for other threads to finish what they do with an index.
_FORK_WAITS = 10

_living: weakref.WeakSet[Connections] = weakref.WeakSet()


class Connection(sqlite3.Connection):
    """A connection, and whether it may be used again."""

    reusable = True


class Connections:
    """A pool for a database on disk; the one connection to a database in memory.

    Attributes:
        path: of the database; None for memory.
        timeout: seconds to wait for another writer.
        read_only: the folder cannot be written to.
        only: guards the one connection of a database in memory.
        closed: nothing can be done any more.
        after_fork: called in a forked process, to renew the owner's locks.
    """

    def __init__(self, path: Path | None, timeout: float) -> None:
        self.path = path
        self.timeout = timeout
        self.read_only = False
        self.closed = False
        self.after_fork: Callable[[], Callable[[], None] | None] | None = None
        self._idle: list[Connection] = []
        self._users: Counter[int] = Counter()  # threads, and how many connections each has now
        self._forking = False
        self._torn = False
        self._writing_with: Connection | None = None
        self._make_locks()
        _living.add(self)

    def _make_locks(self) -> None:
        self.only = threading.RLock()
        self._idle_lock = threading.Lock()  # a Condition would not survive Ctrl-C, being written in Python
        self._writing = threading.RLock()

    @contextlib.contextmanager
    def used(self, *, create: bool = False) -> Iterator[Connection]:
        """A connection for this thread, for a while; in memory the same for all.

        Args:
            create: the database may be made.
        """
        connection = self._taken(create=create)
        try:
            yield connection
        except BaseException:
            if create and self.path is not None:
                connection.reusable = False
            raise
        finally:
            self._give_back(connection)

    def _taken(self, *, create: bool) -> Connection:
        me = threading.get_ident()
        while self._forking and not self._users[me]:
            time.sleep(0.001)
        with self._idle_lock:
            if self.closed:
                raise ValueError("The index is closed; open it again.")
            if self._torn:
                raise StorageError(
                    "This process was forked while another thread of its parent was using the index; open it again here."
                )
            self._users[me] += 1
            if self.path is None:
                if not self._idle:
                    self._idle.append(
                        sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, factory=Connection)
                    )
                    _prepare(self._idle[0])
                return self._idle[0]
            if self._idle:
                return self._idle.pop()
        try:
            return self._connect(create=create)
        except BaseException:
            with self._idle_lock:
                self._finish()
            raise

    def _give_back(self, connection: Connection) -> None:
        if self.path is not None:
            with contextlib.suppress(sqlite3.Error):
                roll_back(connection)  # Ctrl-C can come between any two lines
        with self._idle_lock:
            self._finish()
            if self.path is None:
                return
            if connection is self._writing_with:  # before anyone can take it, or the next write would close it under them
                self._writing_with = None
            if not self.closed and connection.reusable:
                self._idle.append(connection)
                return
        connection.close()

    def _finish(self) -> None:
        me = threading.get_ident()
        self._users[me] -= 1
        if self._users[me] <= 0:
            del self._users[me]

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection that holds the write lock, of this process and between processes. No code of users runs within.

        Raises:
            IndexLockedError: somebody else holds it for longer than the timeout.
            ReadOnlyIndexError: the folder cannot be written to.
        """
        until = time.monotonic() + self.timeout
        folder = "the index" if self.path is None else self.path.parent
        locked = f"Another writer has held {folder} for {self.timeout:g} s; try again when it is done."
        try:
            if not self._writing.acquire(timeout=min(self.timeout, threading.TIMEOUT_MAX)):
                raise IndexLockedError(locked)
            if self._writing_with is not None:  # of a write of this thread, interrupted where no line of ours could end it
                self._writing_with.reusable = False
                if self.path is not None:
                    self._writing_with.close()
            with self.used() as connection:
                if self.read_only:
                    raise ReadOnlyIndexError(
                        f"{folder} cannot be written to; copy the index to a place where it can be changed."
                    )
                self._writing_with = connection
                if self.path is not None:
                    with disk_errors(self.path, locked):
                        connection.execute(f"PRAGMA busy_timeout = {_milliseconds(until - time.monotonic())}")
                        connection.execute("BEGIN IMMEDIATE")
                yield connection
        finally:
            # Owned by this thread: then it was acquired, however often, wherever the interrupt came.
            if self._writing._is_owned():  # type: ignore[attr-defined]
                self._writing_with = None
                with contextlib.suppress(RuntimeError):
                    while True:
                        self._writing.release()

    def tidy(self, connection: Connection) -> None:
        """After a commit: write a log that has become long back into the database, if no reader minds."""
        if self.path is None:
            return
        log = self.path.with_name(f"{self.path.name}-wal")
        if log.exists() and log.stat().st_size > _LARGEST_LOG:
            connection.execute("PRAGMA busy_timeout = 200")
            with contextlib.suppress(sqlite3.Error):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close all connections. The last one to a folder leaves it without SQLite's log, fit for read-only media."""
        with self.only, self._idle_lock:
            self.closed = True
            connections, self._idle = self._idle, []
        if self.path is not None and connections and not self.read_only:
            with contextlib.suppress(sqlite3.Error):
                connections[0].execute("PRAGMA busy_timeout = 0")
                connections[0].execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with self.only:  # a thread may be reading over the one in memory
            for connection in connections:
                connection.close()

    def _connect(self, *, create: bool) -> Connection:
        assert self.path is not None
        path = self.path
        with disk_errors(path):
            if not create and not path.exists():
                raise IndexNotFoundError(f"There is no index at {path.parent} any more: {path.name} is gone.")
            connection = _opened(path, "rwc" if create else "rw", self.timeout)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
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
            log = path.with_name(f"{path.name}-wal")
            if log.exists() and log.stat().st_size:
                raise ReadOnlyIndexError(
                    f"{path.parent} cannot be written to from here, and is being written to from elsewhere or was not closed "
                    "cleanly; open and close it once where it can be."
                )
            connection = _opened(path, "ro&immutable=1", self.timeout)
            connection.reusable = False  # it would not see a change
            return connection

    # Forks. What SQLite knows of connections and their locks must not be there in the child, and none of its own locks be held
    # by a thread that the child does not have: so the fork waits until nobody is within a call.

    def _before_fork(self) -> None:
        me, until = threading.get_ident(), time.monotonic() + _FORK_WAITS
        self._forking = True
        self._idle_lock.acquire()
        while self._users.keys() - {me} and time.monotonic() < until:
            self._idle_lock.release()
            time.sleep(0.001)
            self._idle_lock.acquire()
        if self.path is not None:
            for connection in self._idle:
                connection.close()
            self._idle = []

    def _after_fork_in_parent(self) -> None:
        self._forking = False
        self._idle_lock.release()

    def _after_fork_in_child(self) -> None:
        self._torn = bool(self._users)
        self._users.clear()
        self._forking = False
        self._writing_with = None
        self._make_locks()
        renew = self.after_fork() if self.after_fork is not None else None
        if renew is not None:
            renew()


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


def _opened(path: Path, mode: str, timeout: float) -> Connection:
    connection: Connection = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        factory=Connection,
        timeout=_milliseconds(timeout) / 1000,
    )
    _prepare(connection)
    return connection


def _prepare(connection: Connection) -> None:
    connection.create_function("casefold", 1, str.casefold, deterministic=True)


def _milliseconds(seconds: float) -> int:
    return int(1000 * min(max(seconds, 0), 10**6))


def roll_back(connection: sqlite3.Connection) -> None:
    """Leave a transaction, if there is one."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def count_tables(connection: sqlite3.Connection) -> int:
    """Tables and indexes in the database; none if its making was cut off."""
    return int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
