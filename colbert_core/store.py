"""What an index holds, kept so that nothing is lost: SQLite for everything that changes, files that never change for vectors.

A folder on disk::

    index.sqlite         passages, their metadata in a searchable form, which files belong to the index, a generation counter
    files/<hash>         arrays (see ``arrays``), named by their content; written and synced before the transaction naming them

A commit is one SQLite transaction, so atomicity, durability, locking between processes and recovery are SQLite's. Small
arrays lie in SQLite as well. The same code keeps an index in memory, over one connection to a private database.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sqlite3
import sys
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.arrays import dump_arrays, load_arrays
from colbert_core.connections import Connection, Connections, count_tables, disk_errors, roll_back
from colbert_core.errors import (
    DamagedIndexError,
    IndexExistsError,
    IndexLockedError,
    IndexNotFoundError,
    IndexWriteError,
    StorageError,
    UnsupportedIndexError,
)
from colbert_core.filters import metadata_fields
from colbert_core.types import Passage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from colbert_core.filters import Condition

FORMAT = 2
"""Version of the layout; raise it when an older version of this package would misread what is written."""

_DATABASE = "index.sqlite"
_FILES = "files"
_SIDE_FILES = ("-wal", "-shm", "-journal")
_OUR_FILE = re.compile(r"[0-9a-f]{64}|[0-9a-f]{32}\.unfinished")
# Told apart from other SQLite databases by PRAGMA application_id: "ColB".
_APPLICATION = 0x436F6C42
# Arrays of fewer bytes lie in SQLite: a row is cheaper than a file with two syncs.
_LARGEST_ROW = 2**20
# Values bound in one statement; SQLite takes at least 32,766.
_BOUND = 30_000
# How long overwriting waits for a writer of the index that is there.
_TIMEOUT = 60.0

_SCHEMA = """
CREATE TABLE about(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE passages(row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, text TEXT NOT NULL, metadata TEXT NOT NULL);
CREATE TABLE fields(path TEXT, kind TEXT, value, row INTEGER, PRIMARY KEY (path, kind, value, row)) WITHOUT ROWID;
CREATE INDEX fields_of_row ON fields(row);
CREATE TABLE files(
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, position INTEGER NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL, data BLOB
);
CREATE TABLE dead(row INTEGER PRIMARY KEY);
"""


_TABLES = ("about", "passages", "fields", "files", "dead")


@dataclass(frozen=True)
class File:
    """Arrays that belong to an index.

    Attributes:
        name: made of their content.
        kind: "segment" or "codec".
        position: of a segment, the row of its first passage; segments follow each other by it.
        size: bytes.
        sha256: of the bytes, hexadecimal.
    """

    name: str
    kind: str
    position: int
    size: int
    sha256: str


@dataclass
class Changes:
    """What one commit does, all of it or nothing.

    Attributes:
        about: settings to write.
        added: passages, which get the next rows in this order; one whose id is known replaces the old one.
        metadata: of ``added``, as JSON.
        removed: rows of passages that go.
        files: to be part of the index from now on.
        dropped: names of files that are not any more.
        buried: dead rows of which no window is left in any file.
    """

    about: dict[str, Any] = field(default_factory=dict)
    added: Sequence[Passage] = ()
    metadata: Sequence[str] = ()
    removed: Sequence[int] = ()
    files: list[File] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    buried: Sequence[int] = ()


class StaleRead(Exception):  # noqa: N818  (no error: the reader starts again)
    """What was being read has been replaced meanwhile; read again at the newest generation."""


class Store:
    """The passages and files of one index. Any number of threads and processes may read while one writes."""

    def __init__(self, folder: Path | None, *, timeout: float) -> None:
        """``create`` and ``open`` are the doors.

        Args:
            folder: None for memory.
            timeout: seconds to wait for another writer.
        """
        self.folder = None if folder is None else folder.absolute()  # the working folder may change
        self.connections = Connections(None if self.folder is None else self.folder / _DATABASE, timeout)
        self.memory: dict[str, bytes] = {}  # the files of an index in memory

    @classmethod
    def create(cls, folder: Path | None, about: Mapping[str, Any], *, overwrite: bool, timeout: float) -> Store:
        """Make an empty store; on disk it is there, whole, once a single SQLite transaction is.

        Raises:
            IndexExistsError: there is something at the folder.
        """
        store = cls(folder, timeout=timeout)
        if folder is not None:
            with disk_errors(folder):
                if folder.exists() and not _is_vacant(folder):
                    _check_free(folder, overwrite=overwrite)
                    return cls._emptied(folder, about, timeout=timeout)
                (folder / _FILES).mkdir(parents=True, exist_ok=True)
        try:
            with store.connections.used(create=True) as connection, disk_errors(folder):
                connection.execute("BEGIN IMMEDIATE")
                if count_tables(connection):
                    raise IndexExistsError(f"{folder} has become an index meanwhile; open it with Index.open.")
                for statement in _SCHEMA.strip().split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                connection.execute(f"PRAGMA user_version = {FORMAT}")
                start = {"identity": uuid.uuid4().hex, "generation": 0, "next_row": 1}
                _write_about(connection, {**start, **about})
                _step("schema written")
                connection.execute("COMMIT")
                _step("created")
                if folder is not None:
                    _sync_folder(folder)
                    _sync_folder(folder.absolute().parent)
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def _emptied(cls, folder: Path, about: Mapping[str, Any], *, timeout: float) -> Store:
        """The store in this folder, with nothing in it any more; whoever reads it sees the old state or the new."""
        store = cls._to_overwrite(folder, timeout=timeout)
        try:
            with store.write() as writer:
                unset = dict.fromkeys(writer.about().keys() - about.keys() - {"generation", "next_row"})
                rows = writer.rows()
                writer.commit(
                    Changes(
                        about={**unset, **about, "identity": uuid.uuid4().hex},
                        removed=rows,
                        buried=[*rows, *writer.dead().tolist()],
                        dropped=[file.name for file in writer.files()],
                    )
                )
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def _to_overwrite(cls, folder: Path, *, timeout: float) -> Store:
        try:
            return cls.open(folder, timeout=timeout)
        except IndexLockedError:
            raise
        except StorageError as error:
            raise IndexExistsError(
                f"{folder} holds no index that can be overwritten ({error}); remove it yourself, or choose another path."
            ) from error

    @classmethod
    def open(cls, folder: Path, *, timeout: float) -> Store:
        """Open the store in a folder, for reading only if the folder cannot be written to.

        Raises:
            IndexNotFoundError: there is none.
            DamagedIndexError: one of its files is missing or cut short.
            UnsupportedIndexError: a newer or much older version wrote it, or something else did.
        """
        _check_database(folder)
        store = cls(folder, timeout=timeout)
        try:
            with store.connections.used() as connection, disk_errors(folder):
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if not count_tables(connection):
                    raise IndexNotFoundError(f"{folder} holds no index: its making was interrupted. Make it again.")
            if version > FORMAT:
                raise UnsupportedIndexError(
                    f"{folder} has format {version}, and this version of colbert-retrievers reads up to {FORMAT}; update it."
                )
            if version < FORMAT:
                raise UnsupportedIndexError(f"{folder} has format {version}, which is no longer read; build the index again.")
            for _ in range(100):  # a writer may replace files meanwhile
                with contextlib.suppress(StaleRead), store.read() as reader:
                    for file in reader.files():
                        reader.load(file)
                    break
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def from_bytes(cls, database: bytes, memory: dict[str, bytes], *, timeout: float) -> Store:
        """What ``to_bytes`` gave, in memory."""
        store = cls(None, timeout=timeout)
        with store.connections.used(create=True) as connection:
            connection.deserialize(database)
        store.memory = dict(memory)
        return store

    def to_bytes(self) -> tuple[bytes, dict[str, bytes]]:
        """A store in memory as values that can be pickled."""
        with self.read() as reader, reader.moment():
            return reader.connection.serialize(), {file.name: self.memory[file.name] for file in reader.files()}

    @contextlib.contextmanager
    def read(self) -> Iterator[Reader]:
        """One state of the store, for a moment; whoever holds it keeps SQLite from cleaning up its log."""
        with self.connections.used() as connection:
            if self.folder is not None:
                with disk_errors(self.folder):
                    connection.execute("BEGIN")
            yield Reader(self, connection)

    @contextlib.contextmanager
    def write(self) -> Iterator[Writer]:
        """Hold the write lock of the index; commit inside it, once. Without a commit nothing changes.

        Raises:
            IndexLockedError: another writer holds it for longer than the timeout.
            ReadOnlyIndexError: the folder cannot be written to.
        """
        with self.connections.writing() as connection:
            writer = Writer(self, connection)
            try:
                _step("locked")
                writer.collect()
                yield writer
            finally:
                if self.folder is not None:
                    roll_back(connection)
                self._collect_after(connection)

    def _collect_after(self, connection: Connection) -> None:
        """Remove the files that a commit left behind; what cannot be done now, the next writer will do."""
        with contextlib.suppress(sqlite3.Error, OSError, StorageError):
            if self.folder is not None:
                self.connections.tidy(connection)
                connection.execute("PRAGMA busy_timeout = 0")
                connection.execute("BEGIN IMMEDIATE")
            Writer(self, connection).collect()
            if self.folder is not None:
                roll_back(connection)
            _step("collected")

    def copy(self, folder: Path, *, overwrite: bool = False) -> None:
        """Write the newest state to a new folder, which is an index once this returns and not before.

        Args:
            folder: new or empty.
            overwrite: it may be an index, which is replaced in one transaction. Who has it open reads its old state, or is
                told that it was overwritten, and can no longer write to it.

        Raises:
            IndexExistsError: there is something at the folder.
            IndexLockedError: another writer holds the lock of that index for longer than the timeout.
            StaleRead: a writer replaced a file of an index in memory meanwhile; begin again.
        """
        if folder.exists() and not _is_vacant(folder):
            if not overwrite:
                raise IndexExistsError(f"{folder} exists already; choose another path, or overwrite it (overwrite=True).")
            _check_free(folder, overwrite=True)
            self._replace(folder)
            return
        with self.read() as reader, reader.moment(), disk_errors(folder):
            (folder / _FILES).mkdir(parents=True, exist_ok=True)
            for file in reader.files():
                data = reader.bytes_of(file)
                if data is not None:
                    _write_synced(folder / _FILES / file.name, [data.data])
            _sync_folder(folder / _FILES)
            unfinished = folder / f"{_DATABASE}.unfinished"
            for name in (unfinished.name, *(f"{unfinished.name}{end}" for end in _SIDE_FILES)):
                (folder / name).unlink(missing_ok=True)
            with contextlib.closing(sqlite3.connect(unfinished, isolation_level=None)) as target:
                reader.connection.backup(target)
                target.execute("UPDATE about SET value = ? WHERE key = 'identity'", (uuid.uuid4().hex,))
                target.execute("PRAGMA journal_mode = WAL")
            with unfinished.open("rb+") as database:
                _sync(database.fileno())
            unfinished.replace(folder / _DATABASE)
            _sync_folder(folder)
            _sync_folder(folder.absolute().parent)

    def _replace(self, folder: Path) -> None:
        target = Store._to_overwrite(folder, timeout=self.connections.timeout)
        try:
            with target.write() as writer, self.read() as reader, reader.moment(), disk_errors(folder):
                (folder / _FILES).mkdir(exist_ok=True)
                for file in reader.files():
                    data = reader.bytes_of(file)
                    if data is not None and not (folder / _FILES / file.name).exists():
                        unfinished = folder / _FILES / f"{uuid.uuid4().hex}.unfinished"
                        _write_synced(unfinished, [data.data])
                        unfinished.replace(folder / _FILES / file.name)
                _sync_folder(folder / _FILES)
                writer.take_over(reader)
        finally:
            target.close()

    def vacuum(self) -> None:
        """Give back the room of what was deleted; another time, if somebody else is at work or there is no room for it."""
        guard = self.connections.only if self.folder is None else contextlib.nullcontext()
        with (
            self.connections.used() as connection,
            guard,
            contextlib.suppress(IndexLockedError, IndexWriteError),
            disk_errors(self.folder),
        ):
            connection.execute("PRAGMA busy_timeout = 0")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # or the log keeps as much room as the whole database

    def close(self) -> None:
        """Let go of everything; see ``Connections.close``."""
        self.connections.close()
        self.memory = {}


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
        path = folder / _FILES / file.name
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
        unfinished = folder / _FILES / f"{uuid.uuid4().hex}.unfinished"
        try:
            with disk_errors(folder):
                (folder / _FILES).mkdir(exist_ok=True)  # tools that copy folders may leave out an empty one
                size, digest = _write_synced(unfinished, dump_arrays(arrays))
                unfinished.replace(folder / _FILES / digest)
                _step("file renamed")
                _sync_folder(folder / _FILES)
                _step("folder synced")
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
                _step("rows written")
                self.connection.execute("COMMIT")
            finally:
                roll_back(self.connection)
        _step("committed")

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
        _write_about(self.connection, {**changes.about, "generation": about["generation"] + 1, "next_row": rows.stop})

    def take_over(self, other: Reader) -> None:
        """Replace everything by what another store holds, whose files are here already; durable when this returns."""
        for table in _TABLES:
            self.connection.execute(f"DELETE FROM {table}")  # noqa: S608
            columns = len(self.connection.execute(f"PRAGMA table_info({table})").fetchall())
            self.connection.executemany(
                f"INSERT INTO {table} VALUES ({', '.join('?' * columns)})",  # noqa: S608
                other.connection.execute(f"SELECT * FROM {table}"),  # noqa: S608
            )
        _write_about(self.connection, {"identity": uuid.uuid4().hex})
        _step("rows written")
        self.connection.execute("COMMIT")
        _step("committed")

    def collect(self) -> None:
        """Remove every file that is no part of the index. Only under the write lock, or a file may be one just written."""
        named, folder = {file.name for file in self.files()}, self._store.folder
        if folder is None:
            self._store.memory = {name: data for name, data in self._store.memory.items() if name in named}
            return
        for path in (folder / _FILES).glob("*"):
            if path.name not in named and _OUR_FILE.fullmatch(path.name):
                with contextlib.suppress(OSError):  # on Windows a reader may still map it; the next writer tries again
                    path.unlink()


def _write_about(connection: sqlite3.Connection, about: Mapping[str, Any]) -> None:
    connection.executemany(
        "INSERT INTO about VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", list(about.items())
    )


def _metadata(text: str) -> dict[str, Any]:
    loaded: dict[str, Any] = {} if text == "{}" else json.loads(text)  # most have none, and parsing takes 4 us
    return loaded


def _chunks(values: Iterable[Any]) -> Iterator[list[Any]]:
    listed = list(values)
    return (listed[start : start + _BOUND] for start in range(0, len(listed), _BOUND))


@contextlib.contextmanager
def made_aside(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A path beside ``folder`` for a new index, which takes that place when the block ends, and is removed if it fails.

    Args:
        folder: where the index is to be.
        overwrite: it may take the place of another index, which stays until then.

    Raises:
        IndexExistsError: there is something at the folder.
    """
    _check_free(folder, overwrite=overwrite)
    parent = folder.absolute().parent
    with disk_errors(folder):
        parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=parent))
    try:
        yield work / "new"
        _check_free(folder, overwrite=overwrite)
        if folder.exists() and not _is_vacant(folder):
            # Not by renaming: who has the old index open would go on with it, and remove the files of the new one.
            made = Store.open(work / "new", timeout=_TIMEOUT)
            try:
                made.copy(folder, overwrite=True)
            finally:
                made.close()
        else:
            with disk_errors(folder):
                if folder.exists():
                    folder.rename(work / "old")
                (work / "new").rename(folder)
                _sync_folder(parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check_free(folder: Path, *, overwrite: bool) -> None:
    """Whether an index may be made here.

    Raises:
        IndexExistsError: it may not.
    """
    if not folder.exists() or _is_vacant(folder):
        return
    if not (_is_ours(folder) and (folder / _DATABASE).is_file()):
        raise IndexExistsError(f"{folder} exists already and holds no index, or more than that; choose another path.")
    if not overwrite:
        raise IndexExistsError(
            f"{folder} is an index already; open it with Index.open, or overwrite it (overwrite=True, --overwrite)."
        )


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds nothing but what an index has there."""
    databases = (_DATABASE, f"{_DATABASE}.unfinished")
    ours = {_FILES, *databases, *(f"{name}{end}" for name in databases for end in _SIDE_FILES)}
    if not folder.is_dir() or {entry.name for entry in folder.iterdir()} - ours:
        return False
    return all(_OUR_FILE.fullmatch(entry.name) for entry in (folder / _FILES).glob("*"))


def _is_vacant(folder: Path) -> bool:
    """Whether a folder is empty, or the making of an index was cut off there."""
    if not _is_ours(folder):
        return False
    database = folder / _DATABASE
    if not database.exists():
        return True
    try:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            return not count_tables(connection)
    except sqlite3.Error:
        return False


def _check_database(folder: Path) -> None:
    """Whether a folder holds an index, without touching anything: opening a database of something else would change it.

    Raises:
        IndexNotFoundError: there is none.
        UnsupportedIndexError: something else is there.
        DamagedIndexError: the database is no database.
    """
    database = folder / _DATABASE
    if not folder.exists():
        raise IndexNotFoundError(f"There is no index at {folder}; make one with Index.create or `colbert index`.")
    if not database.is_file():
        raise IndexNotFoundError(f"{folder} holds no index: there is no {_DATABASE} in it.")
    with disk_errors(database), database.open("rb") as file:
        header = file.read(100)
    if not header:
        raise IndexNotFoundError(f"{folder} holds no index: its making was interrupted. Make it again.")
    if header[:16] != b"SQLite format 3\0":
        raise DamagedIndexError(f"{database} is no SQLite database; restore the index from a copy.")
    log = database.with_name(f"{_DATABASE}-wal")
    has_log = log.exists() and log.stat().st_size > 0
    # The header is as it was before what the log still holds. See "The SQLite file format", section 1.3.
    if int.from_bytes(header[68:72], "big") != _APPLICATION and not has_log and any(header[28:32]):
        address = f"{database.absolute().as_uri()}?mode=ro&immutable=1"
        with disk_errors(database), contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
            has_tables = count_tables(connection)
        if has_tables:
            raise UnsupportedIndexError(f"{database} is an SQLite database of something else, not an index.")


def _write_synced(path: Path, pieces: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Write a file so that it survives a power failure; its size and SHA-256."""
    hasher, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in pieces:
            hasher.update(piece)
            size += file.write(piece)
        file.flush()
        _step("file written")
        _sync(file.fileno())
    _step("file synced")
    return size, hasher.hexdigest()


def _sync(descriptor: int) -> None:
    """Make what was written durable; on macOS fsync leaves it in the disk's own memory."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    """Make new names in a folder durable; Windows has no such call and does not need it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _step(name: str) -> None:
    """Tell Python's audit hooks which step of a write has been taken; tests stop the process there."""
    sys.audit("colbert_core.step", name)
