"""Checksums of what lies in the rows of an index: its passages, its settings and the names of its files.

SQLite's own check sees whether its pages fit together, not whether a letter in one has become another. The arrays in files
have their SHA-256. A passage has a CRC-32, which a byte that changed always changes, and which costs .4 % of adding it with
vectors that are given, without encoding (3 us of 800); who wants to deceive can compute one as well.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any

from colbert_core.storage.filters import metadata_fields

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence

CHECKSUMS = "CREATE TABLE checksums(row INTEGER PRIMARY KEY, crc32 INTEGER NOT NULL)"
"""The statement that makes their table. Indexes of format 2 have none until the first write to them."""

# Of the settings and the names of files, in ``about``.
_OF_SETTINGS = "crc32"
_AT_A_TIME = 1000

# Of a row as it lies on the disk, which may be no text any more.
_PASSAGE = "SELECT row, CAST(id AS BLOB), CAST(text AS BLOB), CAST(metadata AS BLOB) FROM passages"

# The rows by which its metadata are found, likewise.
_FIELDS = """SELECT row, CAST(path AS BLOB), CAST(kind AS BLOB),
    CASE typeof(value) WHEN 'text' THEN CAST(value AS BLOB) ELSE value END FROM fields WHERE row IN"""


def checksum(row: int, *columns: bytes) -> int:
    """The CRC-32 of a passage: of its row, and of id, text and metadata with their lengths."""
    crc = zlib.crc32(f"{row} {' '.join(str(len(column)) for column in columns)} ".encode())
    for column in columns:
        crc = zlib.crc32(column, crc)
    return crc


def write_checksums(connection: sqlite3.Connection, passages: Iterable[tuple[int, str, str, str]]) -> None:
    """Write those of new passages, each its row, id, text and metadata."""
    connection.executemany(
        "INSERT INTO checksums VALUES (?, ?)",
        ((row, checksum(row, *(column.encode() for column in columns))) for row, *columns in passages),
    )


def make_checksums(connection: sqlite3.Connection) -> None:
    """Make the table in an index made before there was one, with the checksums of what its passages are now."""
    connection.execute(CHECKSUMS)
    fill_checksums(connection)


def fill_checksums(connection: sqlite3.Connection) -> None:
    """Write the checksums of all passages, none of which has one."""
    rows = connection.execute(_PASSAGE)
    while chunk := rows.fetchmany(_AT_A_TIME):
        connection.executemany(
            "INSERT INTO checksums VALUES (?, ?)", [(row, checksum(row, *columns)) for row, *columns in chunk]
        )


def write_checksum_of_settings(connection: sqlite3.Connection) -> None:
    """Write that of the settings and the names of files, as the last change of a transaction."""
    crc = _checksum_of_settings(lambda sql: connection.execute(sql).fetchall())
    connection.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (_OF_SETTINGS, crc))


def find_changed_settings(ask: Callable[[str], list[Any]]) -> list[str]:
    """Whether the settings or the names of files have changed since they were written, in words.

    Args:
        ask: runs a query and returns its rows.
    """
    kept = dict(ask("SELECT key, value FROM about")).get(_OF_SETTINGS)
    if kept == _checksum_of_settings(ask):
        return []
    return ["The settings of the index, or the names of its files, have changed since they were written (checksum)"]


def find_changed_passages(ask: Callable[[str, Sequence[Any]], Iterable[Any]], rows: Sequence[int]) -> list[str]:
    """Which of these passages have changed since they were written, or are filtered by other metadata than theirs, in words.

    Args:
        ask: runs a query that ends in IN with these values and returns its rows.
        rows: of the passages.
    """
    kept = dict(ask("SELECT row, crc32 FROM checksums WHERE row IN", rows))
    fields: dict[int, set[tuple[Any, ...]]] = {row: set() for row in rows}
    for row, *entry in ask(_FIELDS, rows):
        fields[row].add(tuple(entry))
    problems = []
    for row, *columns in ask(f"{_PASSAGE} WHERE row IN", rows):
        if row not in kept:
            problem = "has no checksum"
        elif kept[row] != checksum(row, *columns):
            problem = "has changed since it was written (checksum)"
        elif fields[row] != _fields(columns[-1]):
            problem = "is filtered by other metadata than it has"
        else:
            continue
        problems.append(f"Passage {columns[0].decode(errors='replace')!r:.80} (row {row}) {problem}")
    return problems


def _checksum_of_settings(ask: Callable[[str], list[Any]]) -> int:
    settings = [entry for entry in ask("SELECT key, value FROM about ORDER BY key") if entry[0] != _OF_SETTINGS]
    files = ask("SELECT name, kind, position, size FROM files ORDER BY name")
    return zlib.crc32(repr([settings, files]).encode())


def _fields(metadata: bytes) -> set[tuple[Any, ...]]:
    """The rows in which filters look for metadata, as they lie on the disk."""
    entries = metadata_fields(json.loads(metadata))
    return {
        (path.encode(), kind.encode(), value.encode() if isinstance(value, str) else value) for path, kind, value in entries
    }
