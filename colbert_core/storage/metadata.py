"""Give passages other metadata and ids where they are: with their checksums, and the rows by which filters find them."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any

from colbert_core.storage.checksums import write_checksums
from colbert_core.storage.filters import metadata_fields

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from colbert_core.types import Passage

_AT_A_TIME = 1000


def replace_metadata(connection: sqlite3.Connection, changed: Iterable[tuple[int, Passage, str]]) -> int:
    """Replace the ids and metadata of passages, within a transaction; how many they were.

    Args:
        connection: to the database.
        changed: row, passage with its id from now on, and new metadata as JSON of each. It may read the same database while it
            is asked.
    """
    n_changed, entries = 0, iter(changed)
    while chunk := list(islice(entries, _AT_A_TIME)):
        n_changed += len(chunk)
        rows = [(row,) for row, *_ in chunk]
        connection.executemany(
            "UPDATE passages SET id = ?, metadata = ? WHERE row = ?", [(passage.id, text, row) for row, passage, text in chunk]
        )
        connection.executemany("DELETE FROM checksums WHERE row = ?", rows)
        write_checksums(connection, [(row, passage.id, passage.text, text) for row, passage, text in chunk])
        connection.executemany("DELETE FROM fields WHERE row = ?", rows)
        write_fields(connection, ((row, text) for row, _, text in chunk))
    return n_changed


def write_fields(connection: sqlite3.Connection, metadata: Iterable[tuple[int, str]]) -> None:
    """Write the rows by which filters find passages, each given by its row and its metadata as JSON."""
    connection.executemany(
        "INSERT OR IGNORE INTO fields VALUES (?, ?, ?, ?)",
        ((*entry, row) for row, text in metadata for entry in metadata_fields(json.loads(text))),
    )


def _refuse(number: str) -> None:
    raise ValueError(f"{number} is no number of JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse)


def load_metadata(text: str) -> dict[str, Any]:
    """Read the metadata of a passage as they lie in the database.

    Raises:
        ValueError, TypeError, RecursionError: they are no JSON object.
    """
    if text == "{}":  # most have none, and parsing takes 4 us
        return {}
    loaded = _decoder.decode(text)
    if not isinstance(loaded, dict):
        raise TypeError(f"its metadata are a {type(loaded).__name__}, not an object")
    return loaded
