"""One connection to the SQLite database of an index."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from typing import TYPE_CHECKING

from colbert_core.errors import IndexNotFoundError, StorageError
from colbert_core.storage.dates import instant
from colbert_core.storage.durable import disk_errors
from colbert_core.storage.opened import file_id

if TYPE_CHECKING:
    from pathlib import Path

    from colbert_core.storage.opened import FileId

# SQLite opens no longer path (SQLITE_MAX_PATHLEN), and its log's is four bytes longer than the database's.
_LONGEST_PATH = 507


class Connection(sqlite3.Connection):
    """A connection.

    Attributes:
        path: of its database; None in memory.
        file_id: of the database when it was opened.
        reusable: it may be used again.
        shared: other threads use it at the same time.
        closed: SQLite refuses every call.
    """

    path: Path | None = None
    file_id: FileId | None = None
    reusable = True
    shared = False
    closed = False

    def check_place(self) -> None:
        """Make sure that the path still leads to the database that is open here.

        Raises:
            IndexNotFoundError: there is nothing any more.
            StorageError: something else has its place, such as a newer index that was renamed to it.
        """
        if self.path is None:
            return
        with disk_errors(self.path):
            now = file_id(self.path)
        if now == self.file_id:
            return
        folder = self.path.parent
        if now is None:
            raise IndexNotFoundError(f"There is no index at {folder} any more: {self.path.name} is gone.")
        raise StorageError(f"The index {folder} was overwritten with a new one; open it again.")

    def close(self) -> None:
        """Close it for good."""
        super().close()
        self.closed = True


def roll_back(connection: sqlite3.Connection) -> None:
    """Leave a transaction, if there is one."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def count_tables(connection: sqlite3.Connection) -> int:
    """Count the tables and indexes in the database; there are none if its making was cut off."""
    return int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def check_length(path: Path) -> None:
    """Make sure that SQLite can open a path.

    Raises:
        StorageError: it is too long.
    """
    length = len(os.fsencode(path))
    if length > _LONGEST_PATH and sys.platform != "win32":
        raise StorageError(
            f"The path of {path.name} has {length} bytes, and SQLite takes up to {_LONGEST_PATH}: choose a shorter path "
            f"than {path.parent}."
        )


def connect(path: Path, mode: str, timeout: float) -> Connection:
    """Open a database on disk, in one of SQLite's modes."""
    connection: Connection = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        factory=Connection,
        timeout=milliseconds(timeout) / 1000,
    )
    connection.path = path
    add_functions(connection)
    return connection


def use_log(connection: Connection, timeout: float) -> None:
    """Switch to SQLite's write-ahead log. While somebody else does so SQLite says that it is locked, and does not wait."""
    until = time.monotonic() + timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


def attach(connection: Connection, path: Path) -> None:
    """Open another database in a connection, by the name ``copied``; outside of a transaction. Nobody uses it afterwards."""
    connection.reusable = False
    with disk_errors(path, reading=True):
        connection.execute("ATTACH ? AS copied", (str(path),))


def add_functions(connection: Connection) -> None:
    """Add what filters call."""
    connection.create_function("casefold", 1, str.casefold, deterministic=True)
    connection.create_function("instant", 1, instant, deterministic=True)


def milliseconds(seconds: float) -> int:
    """Seconds as SQLite takes them."""
    return int(1000 * min(max(seconds, 0), 10**6))
