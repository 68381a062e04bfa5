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
import sqlite3
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.arrays import dump_arrays, load_arrays
from colbert_core.errors import (
    DamagedIndexError,
    IndexExistsError,
    IndexLockedError,
    IndexNotFoundError,
    IndexWriteError,
    ReadOnlyIndexError,
    StorageError,
    UnsupportedIndexError,
)
from colbert_core.filters import metadata_fields
from colbert_core.types import Passage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from colbert_core.filters import Condition

FORMAT = 1
"""Version of the layout; raise it when an older version of this package would misread what is written."""

_DATABASE = "index.sqlite"
_FILES = "files"
# Told apart from other SQLite databases by PRAGMA application_id: "ColB".
_APPLICATION = 0x436F6C42
# Arrays of fewer bytes lie in SQLite: a row is cheaper than a file with two syncs.
_LARGEST_ROW = 2**20
# Values bound in one statement; SQLite takes at least 32,766.
_BOUND = 30_000

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
        self.folder = folder
        self.timeout = timeout
        self.read_only = False
        self.memory: dict[str, bytes] = {}  # the files of an index in memory
        self.only = threading.RLock()  # and the lock of its one connection
        self._idle: list[sqlite3.Connection] = []
        self._idle_lock = threading.Lock()
        self._writing = threading.Lock()
        self._process = os.getpid()
        self._abandoned: list[sqlite3.Connection] = []
        self._closed = False

    @classmethod
    def create(cls, folder: Path | None, about: Mapping[str, Any], *, overwrite: bool, timeout: float) -> Store:
        """Make an empty store; on disk it is there, whole, once a single SQLite transaction is.

        Raises:
            IndexExistsError: there is something at the folder.
        """
        store = cls(folder, timeout=timeout)
        if folder is not None:
            if folder.exists() and not _is_vacant(folder):
                if not (folder / _DATABASE).is_file():
                    raise IndexExistsError(f"{folder} exists already and holds no index; choose another path.")
                if not overwrite:
                    raise IndexExistsError(f"{folder} is an index already; open it with Index.open, or overwrite it.")
                return cls._emptied(folder, about, timeout=timeout)
            with _disk_errors(folder):
                (folder / _FILES).mkdir(parents=True, exist_ok=True)
        with store._connected(new=True) as connection, _disk_errors(folder):
            connection.execute("BEGIN IMMEDIATE")
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
        return store

    @classmethod
    def _emptied(cls, folder: Path, about: Mapping[str, Any], *, timeout: float) -> Store:
        """The store in this folder, with nothing in it any more; whoever reads it sees the old state or the new."""
        try:
            store = cls.open(folder, timeout=timeout)
        except IndexLockedError:
            raise
        except StorageError as error:
            raise IndexExistsError(
                f"{folder} holds no index that can be overwritten ({error}); remove it yourself, or choose another path."
            ) from error
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
        return store

    @classmethod
    def open(cls, folder: Path, *, timeout: float) -> Store:
        """Open the store in a folder, for reading only if the folder cannot be written to.

        Raises:
            IndexNotFoundError: there is none.
            DamagedIndexError: one of its files is missing or cut short.
            UnsupportedIndexError: a newer version wrote it, or something else did.
        """
        if not folder.exists():
            raise IndexNotFoundError(f"There is no index at {folder}; make one with Index.create or `colbert index`.")
        if not (folder / _DATABASE).is_file():
            raise IndexNotFoundError(f"{folder} holds no index: there is no {_DATABASE} in it.")
        store = cls(folder, timeout=timeout)
        with store._connected(new=True) as connection, _disk_errors(folder):
            names = ("application_id", "user_version")
            application, version = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
            if application != _APPLICATION and not _count_tables(connection):
                raise IndexNotFoundError(f"{folder} holds no index: its making was interrupted. Make it again.")
            if application != _APPLICATION:
                raise UnsupportedIndexError(f"{folder / _DATABASE} is an SQLite database of something else, not an index.")
            if version > FORMAT:
                raise UnsupportedIndexError(
                    f"{folder} has format {version}, and this version of colbert-retrievers reads up to {FORMAT}; update it."
                )
        for _ in range(100):  # a writer may replace files meanwhile
            with contextlib.suppress(StaleRead), store.read() as reader:
                for file in reader.files():
                    reader.load(file)
                break
        return store

    @classmethod
    def from_bytes(cls, database: bytes, memory: dict[str, bytes], *, timeout: float) -> Store:
        """What ``to_bytes`` gave, in memory."""
        store = cls(None, timeout=timeout)
        with store._connected(new=True) as connection:
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
        with self._connected() as connection:
            if self.folder is None:
                yield Reader(self, connection)
                return
            connection.execute("BEGIN")
            try:
                yield Reader(self, connection)
            finally:
                _roll_back(connection)

    @contextlib.contextmanager
    def write(self) -> Iterator[Writer]:
        """Hold the write lock of the index; commit inside it, once. Without a commit nothing changes.

        Raises:
            IndexLockedError: another writer holds it for longer than the timeout.
            ReadOnlyIndexError: the folder cannot be written to.
        """
        if self.read_only:
            raise ReadOnlyIndexError(f"{self.folder} cannot be written to; copy the index to a place where it can be changed.")
        until = time.monotonic() + self.timeout
        locked = f"Another writer has held {self.folder or 'the index'} for {self.timeout:g} s; try again when it is done."
        if not self._writing.acquire(timeout=self.timeout):
            raise IndexLockedError(locked)
        try:
            with self._connected() as connection:
                writer = Writer(self, connection)
                if self.folder is not None:
                    with _disk_errors(self.folder, locked):
                        connection.execute(f"PRAGMA busy_timeout = {int(1000 * max(until - time.monotonic(), 0))}")
                        connection.execute("BEGIN IMMEDIATE")
                try:
                    _step("locked")
                    writer.collect()
                    yield writer
                finally:
                    _roll_back(connection)
                    self._collect_after(connection)
        finally:
            self._writing.release()

    def _collect_after(self, connection: sqlite3.Connection) -> None:
        """Remove the files that a commit left behind; if another writer is at work already, it will."""
        if self.folder is not None:
            connection.execute("PRAGMA busy_timeout = 0")
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return
            finally:
                connection.execute(f"PRAGMA busy_timeout = {int(1000 * self.timeout)}")
        try:
            Writer(self, connection).collect()
        finally:
            _roll_back(connection)
        _step("collected")

    def copy(self, folder: Path) -> None:
        """Write the newest state to a new folder, which is an index once this returns and not before.

        Raises:
            IndexExistsError: there is something at the folder.
        """
        if folder.exists() and not _is_vacant(folder):
            raise IndexExistsError(f"{folder} exists already; choose another path.")
        with self.read() as reader, reader.moment(), _disk_errors(folder):
            (folder / _FILES).mkdir(parents=True, exist_ok=True)
            for file in reader.files():
                data = reader.bytes_of(file)
                if data is not None:
                    _write_synced(folder / _FILES / file.name, [data.data])
            _sync_folder(folder / _FILES)
            unfinished = folder / f"{_DATABASE}.unfinished"
            unfinished.unlink(missing_ok=True)
            with contextlib.closing(sqlite3.connect(unfinished, isolation_level=None)) as target:
                reader.connection.backup(target)
                target.execute("UPDATE about SET value = ? WHERE key = 'identity'", (uuid.uuid4().hex,))
                target.execute("PRAGMA journal_mode = WAL")
            with unfinished.open("rb+") as database:
                os.fsync(database.fileno())
            unfinished.replace(folder / _DATABASE)
            _sync_folder(folder)
            _sync_folder(folder.absolute().parent)

    def vacuum(self) -> None:
        """Give back the room of what was deleted; left for another time if somebody else is at work."""
        guard = self.only if self.folder is None else contextlib.nullcontext()
        with self._connected() as connection, guard, contextlib.suppress(IndexLockedError), _disk_errors(self.folder):
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # or the log keeps as much room as the whole database

    def close(self) -> None:
        """Close all connections. The last one to a folder leaves it without SQLite's log, fit for read-only media."""
        with self._idle_lock:
            self._closed = True
            connections, self._idle = self._idle, []
        for connection in connections if self._process == os.getpid() else []:
            if self.folder is not None and not self.read_only:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()
        self.memory = {}

    # Connections. Each is used by one thread at a time; that of an index in memory by all, under a lock.

    @contextlib.contextmanager
    def _connected(self, *, new: bool = False) -> Iterator[sqlite3.Connection]:
        with self._idle_lock:
            if self._closed:
                raise ValueError("The index is closed; open it again.")
            if self._process != os.getpid():
                # SQLite's connections do not survive a fork. They are kept, for closing them would touch the parent's files.
                self._abandoned, self._idle = self._idle, []
                self._process, self._writing = os.getpid(), threading.Lock()
            in_memory = self.folder is None
            if in_memory and not self._idle and not new:
                raise ValueError("An index in memory cannot be used in a forked process; pickle it, or put it on disk.")
            if in_memory and self._idle:
                connection: sqlite3.Connection | None = self._idle[0]
            else:
                connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self._connect()
        try:
            yield connection
        except BaseException:
            if new:  # whoever was about to use it will not
                connection.close()
                raise
            self._give_back(connection)
            raise
        self._give_back(connection)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if self.folder is not None:
            _roll_back(connection)  # Ctrl-C can come between any two lines
        with self._idle_lock:
            if self._closed:
                connection.close()
            elif connection not in self._idle:
                self._idle.append(connection)

    def _connect(self) -> sqlite3.Connection:
        if self.folder is None:
            return _prepared(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))
        path = self.folder.absolute() / _DATABASE
        with _disk_errors(self.folder):
            if not self.read_only:
                connection = _opened(path, self.timeout, "rwc")
                try:
                    connection.execute("PRAGMA journal_mode = WAL")
                    # NORMAL would take .03 ms a commit in place of 4, and lose acknowledged commits when the power fails.
                    connection.execute("PRAGMA synchronous = FULL")
                    _count_tables(connection)
                    self.read_only = not os.access(self.folder, os.W_OK)
                    return connection
                except sqlite3.OperationalError as error:
                    connection.close()
                    if not any(words in str(error) for words in ("readonly", "unable to open")):
                        raise
                    self.read_only = True
                except BaseException:
                    connection.close()
                    raise
            # SQLite cannot share a database in this mode that it may not write beside, but reads one that nobody writes.
            log = path.with_name(f"{_DATABASE}-wal")
            if log.exists() and log.stat().st_size:
                raise ReadOnlyIndexError(
                    f"{self.folder} cannot be written to and was not closed cleanly; open and close it once where it can be."
                )
            return _opened(path, self.timeout, "ro&immutable=1")


class Reader:
    """One state of a store: of a folder that of a transaction, of an index in memory the newest."""

    def __init__(self, store: Store, connection: sqlite3.Connection) -> None:
        """Handed out by ``Store.read`` and ``Store.write``."""
        self._store = store
        self.connection = connection
        self.blobs: dict[str, bytes] = {}

    def moment(self) -> contextlib.AbstractContextManager[Any]:
        """While this is held, what is read belongs together in memory as well."""
        return self._store.only if self._store.folder is None else contextlib.nullcontext()

    def about(self) -> dict[str, Any]:
        """All settings."""
        return dict(self._all("SELECT key, value FROM about"))

    def generation(self) -> int:
        """How many commits there have been."""
        return int(self._all("SELECT value FROM about WHERE key = 'generation'")[0][0])

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

    def check(self, file: File) -> str | None:
        """What is wrong with a file, by its checksum."""
        digest = hashlib.sha256(self._raw(file).data).hexdigest()
        return None if digest == file.sha256 else f"{self._name(file)} has changed since it was written (checksum)"

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
            size = path.stat().st_size
            if size != file.size:
                raise DamagedIndexError(
                    f"{path} has {size} bytes where {file.size} were written; restore the index from a copy."
                )
            return np.memmap(path, np.uint8, "r")
        except FileNotFoundError:
            with self._store.read() as newest:
                if file.name not in {other.name for other in newest.files()}:
                    raise StaleRead(file.name) from None
            raise DamagedIndexError(f"{path} is missing; restore the index from a copy.") from None

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
        if len(found) != len(set(rows)):
            raise StaleRead("passages")
        return [Passage(found[row][0], found[row][1], json.loads(found[row][2])) for row in rows]

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
        if len(found) != len(set(rows)):
            raise StaleRead("passages")
        return [found[row] for row in rows]

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
        found = self._all(f"SELECT row FROM passages WHERE {sql} ORDER BY row", values)  # noqa: S608
        return np.array([row for (row,) in found], np.int64)

    def integrity(self) -> list[str]:
        """What SQLite finds wrong with its file."""
        found = [str(line) for (line,) in self._all("PRAGMA integrity_check(10)")]
        return [] if found == ["ok"] else found

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self.moment(), _disk_errors(self._store.folder):
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
            with _disk_errors(folder):
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
        with self.moment(), _disk_errors(self._store.folder):
            if self._store.folder is None:
                self.connection.execute("BEGIN")
            try:
                self._apply(changes)
                _step("rows written")
                self.connection.execute("COMMIT")
            finally:
                _roll_back(self.connection)
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

    def collect(self) -> None:
        """Remove every file that is no part of the index. Only under the write lock, or a file may be one just written."""
        named, folder = {file.name for file in self.files()}, self._store.folder
        if folder is None:
            self._store.memory = {name: data for name, data in self._store.memory.items() if name in named}
            return
        for path in (folder / _FILES).glob("*"):
            if path.name not in named:
                with contextlib.suppress(OSError):  # on Windows a reader may still map it; the next writer tries again
                    path.unlink()


def _write_about(connection: sqlite3.Connection, about: Mapping[str, Any]) -> None:
    connection.executemany(
        "INSERT INTO about VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", list(about.items())
    )


def _chunks(values: Iterable[Any]) -> Iterator[list[Any]]:
    listed = list(values)
    return (listed[start : start + _BOUND] for start in range(0, len(listed), _BOUND))


def _is_vacant(folder: Path) -> bool:
    """Whether an index may be made in this folder: it is empty, or the making of one was cut off there."""
    if not folder.is_dir():
        return False
    ours = {_FILES, *(f"{_DATABASE}{end}" for end in ("", "-wal", "-shm", "-journal", ".unfinished", ".unfinished-journal"))}
    if {entry.name for entry in folder.iterdir()} - ours:
        return False
    database = folder / _DATABASE
    try:
        with contextlib.closing(sqlite3.connect(database)) if database.exists() else contextlib.nullcontext() as connection:
            return connection is None or not _count_tables(connection)
    except sqlite3.Error:
        return False


def _count_tables(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _opened(path: Path, timeout: float, mode: str) -> sqlite3.Connection:
    address = f"{path.as_uri()}?mode={mode}"
    return _prepared(sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=timeout))


def _prepared(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.create_function("casefold", 1, str.casefold, deterministic=True)
    return connection


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


@contextlib.contextmanager
def _disk_errors(folder: Path | None, locked: str = "") -> Iterator[None]:
    """SQLite's and the file system's errors under the names of this package."""
    try:
        yield
    except sqlite3.OperationalError as error:
        message = str(error)
        if "locked" in message or "busy" in message:
            raise IndexLockedError(
                locked or f"Another process holds {folder} ({message}); try again when it is done."
            ) from error
        if "readonly" in message:
            raise ReadOnlyIndexError(f"{folder} cannot be written to ({message}).") from error
        if "full" in message or "I/O" in message:
            raise IndexWriteError(
                f"{folder} could not be written ({message}); the index is as before. Make room first."
            ) from error
        if "unable to open" in message:
            raise IndexWriteError(f"{folder} could not be opened ({message}).") from error
        raise
    except sqlite3.DatabaseError as error:
        if isinstance(error, (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError)):
            raise
        raise DamagedIndexError(f"{folder}: {_DATABASE} is damaged ({error}); restore the index from a copy.") from error
    except OSError as error:
        if isinstance(error, (StorageError, FileNotFoundError)):
            raise
        raise IndexWriteError(f"{folder} could not be written ({error}); the index is as before.") from error


def _write_synced(path: Path, pieces: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Write a file so that it survives a power failure; its size and SHA-256."""
    hasher, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in pieces:
            hasher.update(piece)
            size += file.write(piece)
        file.flush()
        _step("file written")
        os.fsync(file.fileno())
    _step("file synced")
    return size, hasher.hexdigest()


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
