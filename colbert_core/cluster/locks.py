"""Locks of files that end with their process, on every system: SQLite's."""

from __future__ import annotations

import contextlib
import math
import sqlite3
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PAUSE = 0.05


@contextlib.contextmanager
def alone(path: Path, seconds: float = math.inf) -> Iterator[None]:
    """Wait until nobody else has the lock, neither alone nor shared.

    Raises:
        sqlite3.OperationalError: somebody has it for longer than the seconds.
    """
    with contextlib.closing(_locked(path, "BEGIN EXCLUSIVE", seconds)):
        yield


def shared(path: Path) -> sqlite3.Connection:
    """Share a lock with others for as long as the connection lives; waits for who has it alone."""
    return _locked(path, "BEGIN; SELECT count(*) FROM sqlite_master", math.inf)


def _locked(path: Path, statements: str, seconds: float) -> sqlite3.Connection:
    until = time.monotonic() + seconds
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    while True:
        try:
            for statement in statements.split("; "):
                connection.execute(statement).fetchall()
            return connection
        except sqlite3.OperationalError as error:
            connection.rollback()
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() >= until:
                connection.close()
                raise
            time.sleep(_PAUSE)
