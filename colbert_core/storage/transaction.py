"""Reader and Writer: what one transaction of an index can read and write."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.errors import (
    DamagedIndexError,
    IndexWriteError,
)
from colbert_core.storage.arrays import dump_arrays, load_arrays
from colbert_core.storage.database import Connection, roll_back
from colbert_core.storage.durable import disk_errors
from colbert_core.storage.filters import metadata_fields
from colbert_core.types import Passage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from colbert_core.storage.filters import Condition
    from colbert_core.storage.store import Store
from colbert_core.storage.changes import Changes, File, StaleRead
from colbert_core.storage.durable import step, sync_folder, write_synced
from colbert_core.storage.folder import FILES, OUR_FILE

# Arrays of fewer bytes lie in SQLite: a row is cheaper than a file with two syncs.
_LARGEST_ROW = 2**20
# Values bound in one statement; SQLite takes at least 32,766.
_BOUND = 30_000


_TABLES = ("about", "passages", "fields", "files", "dead")


class Reader:
    """One state of a store: of a folder that of a transaction, of an index in memory the newest."""

    def __init__(self, store: Store, connection: Connection) -> None:
        """Handed out by ``Store.read`` and ``Store.write``."""
        self._store = store
        self.connection = connection
        self.blobs: dict[str, bytes] = {}

    def moment(self) -> contextlib.AbstractContextManager[Any]:
        """While this is held, what is read belongs together in memory as well."""
        return self._store.connections.only if self._store.folder is None else contextlib.nullcontext()

    def about(self) -> dict[str, Any]:
        """All settings."""
        return dict(self._all("SELECT key, value FROM about"))

    def moment_of(self) -> tuple[str, int]:
        """Which index this is, and how many commits there have been.

        Raises:
            DamagedIndexError: it does not say.
        """
        found = dict(self._all("SELECT key, value FROM about WHERE key IN ('identity', 'generation')"))
        if len(found) != 2 or not isinstance(found["generation"], int):
            raise DamagedIndexError(f"{self._store.folder} is damaged: its settings are gone; restore the index from a copy.")
        return str(found["identity"]), found["generation"]

    def count(self) -> int:
        """How many passages there are."""
        return int(self._all("SELECT count(*) FROM passages")[0][0])

    def rows(self) -> list[int]:
        """The rows of all passages, ascending."""
        return [row for (row,) in self._all("SELECT row FROM passages ORDER BY row")]

    def dead(self) -> NDArray[np.int64]:
        """The rows that are gone but still have windows in some file. *Shape:* (n,), ascending."""
        return np.array([row for (row,) in self._all("SELECT row FROM dead ORDER BY row")], np.int64)

    def files(self, kind: str | None = None) -> list[File]:
        """The files of the index, by position."""
        columns = "name, kind, position, size, sha256"
        found = self._all(f"SELECT {columns} FROM files ORDER BY position, name")  # noqa: S608
        return [file for file in (File(*entry) for entry in found) if kind in (None, file.kind)]

    def load(self, file: File) -> dict[str, NDArray[Any]]:
        """The arrays of a file, mapped from disk where they lie there.

        Raises:
            DamagedIndexError: the file is missing, cut short or has a damaged header.
            StaleRead: it is missing because it has been replaced.
        """
        try:
            return load_arrays(self._raw(file))
        except ValueError as error:
            raise DamagedIndexError(f"{self._name(file)} is damaged: {error}. Restore the index from a copy.") from None

    def check(self, file: File) -> list[str]:
        """What is wrong with a file, by its checksum."""
        try:
            digest = hashlib.sha256(self._raw(file).data).hexdigest()
        except DamagedIndexError as error:
            return [str(error)]
        return [] if digest == file.sha256 else [f"{self._name(file)} has changed since it was written (checksum)"]

    def bytes_of(self, file: File) -> NDArray[np.uint8] | None:
        """The bytes of a file, None if they lie in SQLite."""
        return None if self._blob(file) is not None else self._raw(file)

    def _blob(self, file: File) -> bytes | None:
        found = self._all("SELECT data FROM files WHERE name = ?", (file.name,))
        return found[0][0] if found else None

    def _raw(self, file: File) -> NDArray[np.uint8]:
        folder = self._store.folder
        data = self.blobs.get(file.name) or self._blob(file)
        if folder is None and data is None:
            data = self._store.memory.get(file.name)
            if data is None:
                raise StaleRead(file.name)
        if data is not None:
            return np.frombuffer(data, np.uint8)
        assert folder is not None
        path = folder / FILES / file.name
        try:
            with disk_errors(path):
                size = path.stat().st_size if path.exists() else None
                if size == file.size:
                    return np.memmap(path, np.uint8, "r")
        except IndexWriteError:
            if path.exists():
                raise
        if size is None:
            with self._store.read() as newest:
                if file.name not in {other.name for other in newest.files()}:
                    raise StaleRead(file.name)
            raise DamagedIndexError(f"{path} is missing; restore the index from a copy.")
        raise DamagedIndexError(f"{path} has {size} bytes where {file.size} were written; restore the index from a copy.")

    def _name(self, file: File) -> str:
        return f"File {file.name} of {self._store.folder or 'the index in memory'}"

    def passages(self, rows: Sequence[int]) -> list[Passage]:
        """The passages of these rows.

        Raises:
            StaleRead: one is gone meanwhile.
        """
        found = {
            row: (passage_id, text, metadata)
            for some in _chunks(rows)
            for row, passage_id, text, metadata in self._all(
                f"SELECT row, id, text, metadata FROM passages WHERE row IN ({','.join('?' * len(some))})",  # noqa: S608
                some,
            )
        }
        self._check_found(len(found), len(set(rows)))
        return [Passage(found[row][0], found[row][1], _metadata(found[row][2])) for row in rows]

    def ids(self, rows: Sequence[int]) -> list[str]:
        """The ids of these rows.

        Raises:
            StaleRead: one is gone meanwhile.
        """
        found = dict(
            entry
            for some in _chunks(rows)
            for entry in self._all(
                f"SELECT row, id FROM passages WHERE row IN ({','.join('?' * len(some))})",  # noqa: S608
                some,
            )
        )
        self._check_found(len(found), len(set(rows)))
        return [found[row] for row in rows]

    def _check_found(self, n_found: int, n_wanted: int) -> None:
        if n_found == n_wanted:
            return
        if self._store.folder is None:
            raise StaleRead("passages")
        raise DamagedIndexError(
            f"{self._store.folder} is damaged: vectors of {n_wanted - n_found} passages have no passage; run verify."
        )

    def rows_of(self, ids: Sequence[str]) -> dict[str, int]:
        """The row of each of these ids that is known."""
        return dict(
            entry
            for some in _chunks(ids)
            for entry in self._all(f"SELECT id, row FROM passages WHERE id IN ({','.join('?' * len(some))})", some)  # noqa: S608
        )

    def matching(self, condition: Condition) -> NDArray[np.int64]:
        """The rows that meet a condition. *Shape:* (n,), ascending."""
        sql, values = condition
        try:
            found = self._all(f"SELECT row FROM passages WHERE {sql} ORDER BY row", values)  # noqa: S608
        except sqlite3.OperationalError as error:
            raise ValueError(f"The filter is too large for SQLite ({error}); make it smaller, or use ids=.") from error
        return np.array([row for (row,) in found], np.int64)

    def integrity(self) -> list[str]:
        """What SQLite finds wrong with its file."""
        found = [str(line) for (line,) in self._all("PRAGMA integrity_check(10)")]
        return [] if found == ["ok"] else found

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self.moment(), disk_errors(self._store.folder):
            if self._store.folder is None and self._store.connections.closed:
                raise ValueError("The index is closed; open it again.")
            return self.connection.execute(sql, values).fetchall()


class Writer(Reader):
    """A reader that holds the write lock."""

    def put(self, kind: str, position: int, arrays: Mapping[str, Sequence[NDArray[Any]]]) -> File:
        """Write arrays, durably; they become part of the index when a commit names them.

        Args:
            kind: "segment" or "codec".
            position: see ``File``.
            arrays: each in one or several parts.
        """
        folder = self._store.folder
        if folder is None or sum(part.nbytes for parts in arrays.values() for part in parts) < _LARGEST_ROW:
            data = b"".join(dump_arrays(arrays))
            digest = hashlib.sha256(data).hexdigest()
            (self._store.memory if folder is None else self.blobs)[digest] = data
            return File(digest, kind, position, len(data), digest)
        unfinished = folder / FILES / f"{uuid.uuid4().hex}.unfinished"
        try:
            with disk_errors(folder):
                (folder / FILES).mkdir(exist_ok=True)  # tools that copy folders may leave out an empty one
                size, digest = write_synced(unfinished, dump_arrays(arrays))
                unfinished.replace(folder / FILES / digest)
                step("file renamed")
                sync_folder(folder / FILES)
                step("folder synced")
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise
        return File(digest, kind, position, size, digest)

    def commit(self, changes: Changes) -> None:
        """Apply changes in one transaction; durable when this returns."""
        with self.moment(), disk_errors(self._store.folder):
            if self._store.folder is None:
                if self._store.connections.closed:
                    raise ValueError("The index is closed; open it again.")
                self.connection.execute("BEGIN")
            try:
                self._apply(changes)
                step("rows written")
                self.connection.execute("COMMIT")
            finally:
                roll_back(self.connection)
        step("committed")

    def _apply(self, changes: Changes) -> None:
        run_all = self.connection.executemany
        removed = {*changes.removed, *self.rows_of([passage.id for passage in changes.added]).values()}
        run_all("DELETE FROM passages WHERE row = ?", ((row,) for row in removed))
        run_all("DELETE FROM fields WHERE row = ?", ((row,) for row in removed))
        run_all("INSERT INTO dead VALUES (?)", ((row,) for row in removed))
        run_all("DELETE FROM dead WHERE row = ?", ((row,) for row in changes.buried))
        about = self.about()
        rows = range(about["next_row"], about["next_row"] + len(changes.added))
        added = list(zip(rows, changes.added, changes.metadata, strict=True))
        run_all(
            "INSERT INTO passages VALUES (?, ?, ?, ?)",
            ((row, passage.id, passage.text, metadata) for row, passage, metadata in added),
        )
        run_all(
            "INSERT OR IGNORE INTO fields VALUES (?, ?, ?, ?)",
            ((*entry, row) for row, _, metadata in added for entry in metadata_fields(json.loads(metadata))),
        )
        run_all("DELETE FROM files WHERE name = ?", ((name,) for name in changes.dropped))
        run_all(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
            (
                (file.name, file.kind, file.position, file.size, file.sha256, self.blobs.get(file.name))
                for file in changes.files
            ),
        )
        write_about(self.connection, {**changes.about, "generation": about["generation"] + 1, "next_row": rows.stop})

    def take_over(self, other: Reader) -> None:
        """Replace everything by what another store holds, whose files are here already; durable when this returns."""
        for table in _TABLES:
            self.connection.execute(f"DELETE FROM {table}")  # noqa: S608
            columns = len(self.connection.execute(f"PRAGMA table_info({table})").fetchall())
            self.connection.executemany(
                f"INSERT INTO {table} VALUES ({', '.join('?' * columns)})",  # noqa: S608
                other.connection.execute(f"SELECT * FROM {table}"),  # noqa: S608
            )
        write_about(self.connection, {"identity": uuid.uuid4().hex})
        step("rows written")
        self.connection.execute("COMMIT")
        step("committed")

    def collect(self) -> None:
        """Remove every file that is no part of the index. Only under the write lock, or a file may be one just written."""
        named, folder = {file.name for file in self.files()}, self._store.folder
        if folder is None:
            self._store.memory = {name: data for name, data in self._store.memory.items() if name in named}
            return
        for path in (folder / FILES).glob("*"):
            if path.name not in named and OUR_FILE.fullmatch(path.name):
                with contextlib.suppress(OSError):  # on Windows a reader may still map it; the next writer tries again
                    path.unlink()


def write_about(connection: sqlite3.Connection, about: Mapping[str, Any]) -> None:
    connection.executemany(
        "INSERT INTO about VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", list(about.items())
    )


def _metadata(text: str) -> dict[str, Any]:
    loaded: dict[str, Any] = {} if text == "{}" else json.loads(text)  # most have none, and parsing takes 4 us
    return loaded


def _chunks(values: Iterable[Any]) -> Iterator[list[Any]]:
    listed = list(values)
    return (listed[start : start + _BOUND] for start in range(0, len(listed), _BOUND))
