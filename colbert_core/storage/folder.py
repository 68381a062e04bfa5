"""What may lie in the folder of an index, and whether a folder holds one."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from typing import TYPE_CHECKING

from colbert_core.errors import (
    DamagedIndexError,
    IndexExistsError,
    IndexNotFoundError,
    UnsupportedIndexError,
)
from colbert_core.storage.aside import contents, is_aside, some_names
from colbert_core.storage.connection import count_tables
from colbert_core.storage.opened import check_no_link

if TYPE_CHECKING:
    from pathlib import Path

DATABASE = "index.sqlite"
SIDE_FILES = ("-wal", "-shm", "-journal")
"""What SQLite puts beside a database, by the end of the name."""
FILES = "files"
COPY = "copy"
"""What is copied into an index lies beside this name in ``files`` meanwhile, in a folder of ``folder_aside``."""
OUR_FILE = re.compile(r"[0-9a-f]{64}|[0-9a-f]{32}\.unfinished")
"""Names that this package gives in ``files``: a SHA-256, or what a write has not finished."""
APPLICATION = 0x436F6C42
"""SQLite's ``application_id`` of an index, "ColB", which tells it from other databases."""


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Make sure that an index may be made in this folder.

    Raises:
        IndexExistsError: there is something in it.
    """
    if not folder.exists() or is_vacant(folder):
        return
    if not folder.is_dir():
        raise IndexExistsError(f"{folder} is a file; choose another path.")
    if strange := _strangers(folder):
        raise IndexExistsError(
            f"{folder} exists already and holds {some_names(strange)}, which is no part of an index; choose another path, or "
            "move that away."
        )
    if not (folder / DATABASE).is_file():
        raise IndexExistsError(f"{folder} exists already, and its {DATABASE} is no file; choose another path.")
    if not overwrite:
        raise IndexExistsError(
            f"{folder} is an index already; open it with Index.open, or overwrite it (overwrite=True, --overwrite). "
            "`colbert add` adds files to it."
        )


def is_vacant(folder: Path) -> bool:
    """Whether a folder is empty, or the making of an index was cut off there."""
    if not folder.is_dir() or _strangers(folder):
        return False
    database = folder / DATABASE
    if not database.exists():
        return True
    try:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            return not count_tables(connection)
    except sqlite3.Error:
        return False


def check_database(folder: Path) -> None:
    """Make sure that a folder holds an index. Nothing is touched: opening a database of something else would change it.

    Raises:
        IndexNotFoundError: there is none.
        UnsupportedIndexError: something else is there.
        DamagedIndexError: the database is no database.
    """
    database = folder / DATABASE
    if not folder.exists():
        raise IndexNotFoundError(f"There is no index at {folder}; make one with Index.create or `colbert index`.")
    beside = [database.with_name(f"{DATABASE}{end}") for end in SIDE_FILES]
    for path in (folder / FILES, database, *beside):
        check_no_link(path)
    for path in beside:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise DamagedIndexError(f"{path} is no regular file; restore the index from a copy.")
    if not database.is_file():
        raise IndexNotFoundError(f"{folder} holds no index: there is no {DATABASE} in it.")
    if not database.stat().st_size:
        raise IndexNotFoundError(f"{folder} holds no index: its making was interrupted. Make it again.")
    # Through SQLite, which keeps all its descriptors of a file until it needs none: whoever closes another one gives up every
    # lock of this process on that file, and the next process that closes the index takes itself for the last one and removes
    # the log under our feet.
    address = f"{database.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
            is_ours = connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION
            has_tables = is_ours or count_tables(connection) > 0
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorname == "SQLITE_NOTADB":
            raise DamagedIndexError(f"{database} is no SQLite database; restore the index from a copy.") from None
        return  # perhaps it is being written to: this look takes no lock; what opens it next knows
    # What a log still holds is not seen here, so with one the number may be out of date, and says nothing.
    log = database.with_name(f"{DATABASE}-wal")
    if has_tables and not is_ours and not (log.exists() and log.stat().st_size > 0):
        raise UnsupportedIndexError(f"{database} is an SQLite database of something else, not an index.")


def _strangers(folder: Path) -> list[str]:
    """What a folder holds that is no part of an index."""
    databases = (DATABASE, f"{DATABASE}.unfinished")
    ours = {FILES, *databases, *(f"{name}{end}" for name in databases for end in SIDE_FILES)}
    strange = [name for name in contents(folder) if name not in ours]
    if (folder / FILES).is_dir():
        files = folder / FILES
        names = (name for name in contents(files) if not OUR_FILE.fullmatch(name) and not is_aside(files / name, COPY))
        strange += [f"{FILES}/{name}" for name in names]
    return strange
