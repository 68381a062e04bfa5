"""The tables of an index, and whether a database has these tables and nothing else.

A database that came by mail may have anything in their place: a view that never ends, a trigger that runs at each write, a
column that is computed when it is read. SQLite runs all of these as soon as it is asked for what looks like our table.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from colbert_core.errors import DamagedIndexError, UnsupportedIndexError
from colbert_core.storage.checksums import CHECKSUMS
from colbert_core.storage.sources import SOURCES
from colbert_core.storage.words import SHADOWS, WORDS

if TYPE_CHECKING:
    from colbert_core.storage.connection import Connection

SCHEMA = (
    "CREATE TABLE about(key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE passages(row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, text TEXT NOT NULL, metadata TEXT NOT NULL)",
    "CREATE TABLE fields(path TEXT, kind TEXT, value, row INTEGER, PRIMARY KEY (path, kind, value, row)) WITHOUT ROWID",
    "CREATE INDEX fields_of_row ON fields(row)",
    "CREATE TABLE files(name TEXT PRIMARY KEY, kind TEXT NOT NULL, position INTEGER NOT NULL, size INTEGER NOT NULL, "
    "sha256 TEXT NOT NULL, data BLOB)",
    "CREATE TABLE dead(row INTEGER PRIMARY KEY)",
    CHECKSUMS,
    *SOURCES,
)
"""The statements that make the tables of an index."""

FORMAT = 5
"""Version of the tables; raise it when an older version of this package would misread what is written."""

# Format 2 has no checksums of passages, format 3 no words, and format 4 no files of passages; the first write adds them.
OLDEST_FORMAT, _WITHOUT_WORDS, _WITHOUT_SOURCES = 2, 3, 4


def check_schema(connection: Connection, name: str) -> None:
    """Make sure that a database has the tables of an index of a format that is read, and nothing that SQLite would run.

    Args:
        connection: to the database.
        name: of the index, for messages.

    Raises:
        DamagedIndexError: a table is missing.
        UnsupportedIndexError: a newer or much older version wrote it, a table is another one, or there is a view, a trigger
            or a table of somebody else.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > FORMAT:
        raise UnsupportedIndexError(
            f"{name} has format {version}, and this version of colbert-retrievers reads up to {FORMAT}; update it."
        )
    if version < OLDEST_FORMAT:
        raise UnsupportedIndexError(f"{name} has format {version}, which is no longer read; build the index again.")
    words = {_plain(statement) for statement in WORDS}
    wanted = {_plain(statement) for statement in SCHEMA} | words
    may_be = {_plain(statement) for statement in SHADOWS}
    try:
        entries = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    except sqlite3.OperationalError as error:  # a name that is no UTF-8
        raise DamagedIndexError(f"{name} is damaged: its tables cannot be read ({error}); restore it from a copy.") from None
    for kind, entry, statement in entries:
        is_sqlites = kind in ("table", "index") and str(entry).startswith(("sqlite_autoindex_", "sqlite_stat"))
        if not is_sqlites and (not isinstance(statement, str) or _plain(statement) not in wanted | may_be):
            raise UnsupportedIndexError(
                f"{name} holds the {kind} {entry!r:.80} ({statement!r:.200}), which no version of this package makes; "
                "do not use it unless you know where it comes from."
            )
        wanted.discard(_plain(str(statement)))
    if version == OLDEST_FORMAT:
        wanted.discard(_plain(CHECKSUMS))
    if version <= _WITHOUT_WORDS or words <= wanted:  # SQLite may have been built without its full-text index
        wanted -= words
    if version <= _WITHOUT_SOURCES:
        wanted -= {_plain(statement) for statement in SOURCES}
    if wanted:
        raise DamagedIndexError(f"{name} is damaged: {min(wanted):.40}… is missing; restore it from a copy.")


def _plain(statement: str) -> str:
    """The words of a statement, however it is laid out."""
    return " ".join(statement.replace("(", " ( ").replace(")", " ) ").split())
