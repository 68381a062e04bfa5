"""Reader and Writer: what one transaction of an index can read and write."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sqlite3
import uuid
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from colbert_core.errors import DamagedIndexError, StorageError
from colbert_core.storage.arrays import dump_arrays, load_arrays
from colbert_core.storage.changes import Changes, File, StaleRead
from colbert_core.storage.checksums import (
    fill_checksums,
    find_changed_passages,
    find_changed_settings,
    make_checksums,
    write_checksum_of_settings,
    write_checksums,
)
from colbert_core.storage.connection import Connection, roll_back
from colbert_core.storage.durable import disk_errors, step
from colbert_core.storage.fields import Outline, Survey, outline, survey, unmet
from colbert_core.storage.metadata import load_metadata, replace_metadata, write_fields
from colbert_core.storage.schema import FORMAT
from colbert_core.storage.sources import SourceTables
from colbert_core.storage.words import WordTables
from colbert_core.types import Passage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from colbert_core.storage.files import Files
    from colbert_core.storage.filters import Condition, Expectation

# Values bound in one statement; SQLite takes at least 32,766.
_BOUND = 30_000

# Rows, generations and sizes stay below this, so that adding to them stays within SQLite's 64 bits.
_LARGEST = 2**62

# The setting that says which commit last changed metadata.
_METADATA_CHANGED = "metadata_changed"

_TABLES = ("about", "passages", "fields", "files", "dead", "checksums", "sources", "pieces")  # passages before their checksums


class Outcome(Enum):
    """What became of a commit.

    ``UNKNOWN``: an error or Ctrl-C came while SQLite made it durable. The log may hold it whole, and then it is in the index
    once the log is read anew, though whoever has the index open does not see it. Until the next commit, which is written
    over it, or until somebody has read the log anew, no file that it names may be removed.
    """

    NONE = 0
    UNKNOWN = 1
    COMMITTED = 2


class Reader:
    """One state of a store: on disk that of a transaction, in memory the newest at every call.

    Attributes:
        connection: to the database.
    """

    def __init__(self, connection: Connection, files: Files, guard: contextlib.AbstractContextManager[Any]) -> None:
        """Take what ``Store.read`` and ``Store.write`` hand out.

        Args:
            connection: to the database, within a transaction unless it is in memory.
            files: where arrays lie that are no rows of the database.
            guard: keeps the other threads off a database in memory while it is held.
        """
        self.connection = connection
        self._files = files
        self._guard = guard
        self._rows: dict[str, bytes] = {}  # contents of files that the next commit writes as rows, by name

    def moment(self) -> contextlib.AbstractContextManager[Any]:
        """While this is held, what is read belongs together in memory as well."""
        return self._guard

    def about(self) -> dict[str, Any]:
        """All settings.

        Raises:
            DamagedIndexError: which index this is, or where the next passage goes, is gone or makes no sense.
        """
        settings = dict(self._all("SELECT key, value FROM about"))
        self._check_moment(settings)
        if not _is_count(settings.get("next_row")):
            raise self._damaged(f"the row of its next passage is {settings.get('next_row')!r:.80}")
        return settings

    def moment_of(self) -> tuple[str, int]:
        """Which index this is, and how many commits there have been.

        Raises:
            DamagedIndexError: it does not say.
        """
        return self._check_moment(dict(self._all("SELECT key, value FROM about WHERE key IN ('identity', 'generation')")))

    @property
    def words(self) -> WordTables:
        """The words of the passages."""
        return WordTables(self.connection, self._all, self._files.name)

    @property
    def sources(self) -> SourceTables:
        """The files that the passages came of."""
        return SourceTables(self.connection, self._all, self._files.name)

    # Passages

    def count(self) -> int:
        """How many passages there are."""
        return int(self._all("SELECT count(*) FROM passages")[0][0])

    def rows(self, after: int = 0, limit: int = -1) -> list[int]:
        """The rows of all passages, ascending, or of the first ones behind a row."""
        return [row for (row,) in self._all("SELECT row FROM passages WHERE row > ? ORDER BY row LIMIT ?", (after, limit))]

    def rows_of(self, ids: Sequence[str]) -> dict[str, int]:
        """The row of each of these ids that is known."""
        return dict(self._all_of("SELECT id, row FROM passages WHERE id IN", ids))

    def ids(self, rows: Sequence[int]) -> list[str]:
        """The ids of these rows.

        Raises:
            StaleRead: one is gone meanwhile.
            DamagedIndexError: one is no text.
        """
        ids_by_row = dict(self._all_of("SELECT row, id FROM passages WHERE row IN", rows))
        self._check_complete(len(ids_by_row), len(set(rows)))
        ids = [ids_by_row[row] for row in rows]
        if not all(isinstance(passage_id, str) for passage_id in ids):
            raise self._damaged("the id of a passage is no text")
        return ids

    def passages(self, rows: Sequence[int]) -> list[Passage]:
        """The passages of these rows.

        Raises:
            StaleRead: one is gone meanwhile.
            DamagedIndexError: one is not what was written.
        """
        entries = self._all_of("SELECT row, id, text, metadata FROM passages WHERE row IN", rows)
        columns_by_row = {row: columns for row, *columns in entries}
        self._check_complete(len(columns_by_row), len(set(rows)))
        passages = []
        for row in rows:
            passage_id, text, metadata = columns_by_row[row]
            try:
                passages.append(Passage(passage_id, text, load_metadata(metadata)))
            except (ValueError, TypeError, RecursionError) as error:
                raise self._damaged(f"passage {passage_id!r:.80} in row {row} cannot be read ({error!s:.200})") from None
        return passages

    def changed(self, rows: Sequence[int]) -> list[str]:
        """Which of these passages are not what was written, in words; none if the index has no checksums yet."""
        with self._guard:  # in memory a writer could come between the reads
            return find_changed_passages(self._all_of, rows) if self.has_checksums() else []

    def changed_settings(self) -> list[str]:
        """Whether settings are not what was written, in words; the same holds."""
        with self._guard:
            return find_changed_settings(self._all) if self.has_checksums() else []

    def has_checksums(self) -> bool:
        """Whether the passages have checksums; in an index made before there were any, the first write adds them."""
        return bool(self._all("SELECT count(*) FROM sqlite_master WHERE name = 'checksums'")[0][0])

    def matching(self, condition: Condition) -> NDArray[np.int64]:
        """The rows that meet a condition. *Shape:* (n,), ascending."""
        try:
            entries = self._all(f"SELECT row FROM passages WHERE {condition.sql} ORDER BY row", condition.values)  # noqa: S608
        except sqlite3.OperationalError as error:
            if "user-defined function" in str(error):  # the only one folds the case of texts
                raise self._damaged("what filters compare is no text") from error
            raise ValueError(f"The filter is too large for SQLite ({error}); make it smaller, or use ids=.") from error
        return np.array([row for (row,) in entries], np.int64)

    def metadata_changed(self) -> int:
        """The commit that last changed metadata of passages that stayed; 0 if none has."""
        return int((self._all("SELECT value FROM about WHERE key = ?", (_METADATA_CHANGED,)) or [(0,)])[0][0] or 0)

    def outline(self, limit: int, after: str | None) -> Outline:
        """What the passages have in the first fields behind a path."""
        with self._guard:
            return outline(self._all, limit, after)

    def unmet(self, expected: Sequence[Expectation]) -> list[Expectation]:
        """Those of the expectations of a filter that no passage meets."""
        return unmet(self._all, expected) if expected else []

    def survey(self, paths: Sequence[str], value: str | None = None) -> Survey:
        """Which fields there are; the kinds of some, and those that have a string for a value."""
        return survey(self._all, paths, value)

    def dead(self) -> NDArray[np.int64]:
        """The rows that are gone but still have windows in some file. *Shape:* (n,), ascending."""
        return np.array([row for (row,) in self._all("SELECT row FROM dead ORDER BY row")], np.int64)

    def last_row(self) -> int:
        """The highest row of a passage, or of one that is gone but still has windows in some file; 0 without any."""
        rows = [row for table in ("passages", "dead") for (row,) in self._all(f"SELECT max(row) FROM {table}")]  # noqa: S608
        return max(row or 0 for row in rows)

    # Files

    def files(self, kind: str | None = None) -> list[File]:
        """The files of the index, by position.

        Raises:
            DamagedIndexError: an entry is none that a writer makes.
        """
        entries = self._all("SELECT name, kind, position, size, sha256 FROM files ORDER BY position, name")
        for entry in entries:
            name, its_kind, position, size, sha256 = entry
            is_file = _is_sha256(name) and _is_sha256(sha256) and its_kind in ("segment", "codec")
            if not (is_file and _is_count(position) and _is_count(size) and size):
                raise self._damaged(f"it names a file that no writer makes: {entry!r:.300}")
        return [file for file in (File(*entry) for entry in entries) if kind in (None, file.kind)]

    def load(self, file: File) -> dict[str, NDArray[Any]]:
        """The arrays of a file, mapped from disk where they lie there.

        Raises:
            DamagedIndexError: the file is missing, cut short or has a damaged header.
            StaleRead: it is missing because it has been replaced.
        """
        try:
            return load_arrays(self._content(file))
        except ValueError as error:
            raise DamagedIndexError(f"{self._name(file)} is damaged: {error}. Restore the index from a copy.") from None

    def check(self, file: File) -> list[str]:
        """What is wrong with a file, by its checksum."""
        try:
            digest = hashlib.sha256(self._content(file).data).hexdigest()
        except DamagedIndexError as error:
            return [str(error)]
        return [] if digest == file.sha256 else [f"{self._name(file)} has changed since it was written (checksum)"]

    def bytes_of(self, file: File) -> NDArray[np.uint8] | None:
        """The bytes of a file, None if they lie in SQLite."""
        return self._files.read(file) if self._row(file) is None else None

    def dump(self, path: Path) -> Path:
        """Copy the whole database to a file, for another store to take over; return its path."""
        with self._guard, disk_errors(path), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as copy:
            copy.execute("PRAGMA journal_mode = OFF")  # it is of use only if it is whole
            copy.execute("PRAGMA synchronous = OFF")
            self.connection.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # the log is of the other one
        return path

    def integrity(self) -> list[str]:
        """What SQLite finds wrong with its file."""
        lines = [str(line) for (line,) in self._all("PRAGMA integrity_check(10)")]
        return [] if lines == ["ok"] else lines

    def _content(self, file: File) -> NDArray[np.uint8]:
        row = self._rows.get(file.name) or self._row(file)
        return self._files.read(file) if row is None else np.frombuffer(row, np.uint8)

    def _row(self, file: File) -> bytes | None:
        entries = self._all("SELECT data FROM files WHERE name = ?", (file.name,))
        row: bytes | None = entries[0][0] if entries else None
        if row is not None and (not isinstance(row, bytes) or len(row) != file.size):
            raise self._damaged(f"file {file.name} has other bytes than the {file.size} that were written")
        return row

    def _name(self, file: File) -> str:
        return f"File {file.name} of {self._files.name}"

    def _check_moment(self, settings: Mapping[str, Any]) -> tuple[str, int]:
        identity, generation = settings.get("identity"), settings.get("generation")
        if not isinstance(identity, str) or not _is_count(generation):
            raise self._damaged(f"its settings are gone (identity {identity!r:.80}, generation {generation!r:.80})")
        return identity, generation

    def _damaged(self, what: str) -> DamagedIndexError:
        return DamagedIndexError(f"{self._files.name} is damaged: {what}; restore the index from a copy.")

    def _check_complete(self, n_found: int, n_wanted: int) -> None:
        if n_found == n_wanted:
            return
        if self.connection.shared:  # another thread may have committed between two reads
            raise StaleRead("passages")
        raise DamagedIndexError(
            f"{self._files.name} is damaged: vectors of {n_wanted - n_found} passages have no passage; run verify."
        )

    def _all_of(self, sql: str, values: Iterable[Any]) -> Iterator[Any]:
        """The rows of a query that ends in IN, asked about as many values at a time as SQLite takes."""
        listed = list(values)
        for start in range(0, len(listed), _BOUND):
            chunk = listed[start : start + _BOUND]
            yield from self._all(f"{sql} ({','.join('?' * len(chunk))})", chunk)

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._guard, disk_errors(self._files.name, reading=True):
            self._check_open()
            return self.connection.execute(sql, values).fetchall()

    def _check_open(self) -> None:
        if self.connection.closed:  # in memory another thread may have done so
            raise ValueError("The index is closed; open it again.")


class Writer(Reader):
    """A reader that holds the write lock.

    Attributes:
        outcome: what became of the commit.
        before: which index this was before it, and how many commits there had been.
        leftovers: names of files that no commit names any more; they may go once the commit has succeeded.
    """

    def __init__(self, connection: Connection, files: Files, guard: contextlib.AbstractContextManager[Any]) -> None:
        """Take what ``Reader`` takes."""
        super().__init__(connection, files, guard)
        self.outcome = Outcome.NONE
        self.before = ("", 0)
        self.leftovers: set[str] = set()
        self._written: set[str] = set()

    def put(self, kind: str, position: int, arrays: Mapping[str, Sequence[NDArray[Any]]]) -> File:
        """Write arrays, durably; they become part of the index when a commit names them.

        Args:
            kind: "segment" or "codec".
            position: see ``File``.
            arrays: each in one or several parts.
        """
        pieces = dump_arrays(arrays)
        if self._files.takes(sum(part.nbytes for parts in arrays.values() for part in parts)):
            there = self._files.names()
            size, digest = self._files.write(pieces)
            self._written |= {digest} - there
        else:
            content = b"".join(pieces)
            size, digest = len(content), hashlib.sha256(content).hexdigest()
            self._rows[digest] = content
        return File(digest, kind, position, size, digest)

    def commit(self, changes: Changes) -> None:
        """Apply changes in one transaction; durable when this returns.

        Raises:
            StorageError: another index has taken the place of this one.
            IndexWriteError: the disk is full or failed; ``outcome`` says whether the commit may have succeeded all the same.
        """
        with self._transaction():
            self._apply(changes)

    def begin(self, about: Mapping[str, Any]) -> None:
        """Write the settings of a new index, in one transaction; raises as ``commit`` does."""
        with self._transaction():
            write_about(self.connection, about)

    def take_over(self, other: Reader) -> None:
        """Replace everything by what another store holds, in one transaction; raises as ``commit`` does.

        Args:
            other: its state, whose ``dump`` is attached to this connection.
        """
        known = {file.name for file in self.files()}
        for file in other.files():
            content = other.bytes_of(file)
            if content is not None and file.name not in known:
                self._written |= {file.name} - self._files.names()
                self._files.add(file.name, content)
        self._files.sync()
        with self._transaction():
            for table in _TABLES:
                self.connection.execute(f"DELETE FROM main.{table}")  # noqa: S608
                if table == "checksums" and not other.has_checksums():
                    fill_checksums(self.connection)
                    continue
                if table in ("sources", "pieces") and not other.sources.are_there():
                    continue
                # Within SQLite: row by row through Python took 1.0 s for 30,000 passages where this takes .3.
                self.connection.execute(f"INSERT INTO main.{table} SELECT * FROM copied.{table}")  # noqa: S608
            write_about(self.connection, {"identity": uuid.uuid4().hex})
            self.words.fill()

    def touch(self) -> None:
        """Commit that nothing has changed. Whatever a commit with an unknown outcome left in the log is gone then."""
        with self._transaction():
            write_about(self.connection, {"generation": self.about()["generation"] + 1})

    def discard(self) -> None:
        """Remove what was written for a commit that was never tried. Only under the write lock, as it is still held."""
        if self.outcome is Outcome.NONE and self._written:
            with contextlib.suppress(OSError, StorageError):
                self._files.remove(self._written, self.connection)
            self._written = set()

    def clean(self) -> None:
        """Remove what the commit left over. Only under the write lock again."""
        self._files.remove(self.leftovers - {file.name for file in self.files()}, self.connection)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        connection = self.connection
        with self._guard, disk_errors(self._files.name):
            self._check_open()
            try:
                if not connection.in_transaction:  # on disk it began with the write lock
                    connection.execute("BEGIN")
                self.before = self.moment_of()
                if not self.has_checksums():
                    make_checksums(connection)
                self.words.prepare()
                self.sources.prepare()
                connection.execute(f"PRAGMA user_version = {FORMAT}")
                yield
                write_checksum_of_settings(connection)
                self.leftovers = self._files.names() - {file.name for file in self.files()}
                step("rows written")
                connection.check_place()
                self.outcome, connection.reusable = Outcome.UNKNOWN, False
                connection.execute("COMMIT")
                connection.reusable = True
                self.outcome = Outcome.COMMITTED
            finally:
                self.discard()
                roll_back(connection)
        step("committed")

    def _apply(self, changes: Changes) -> None:
        run_all = self.connection.executemany
        removed = {*changes.removed, *self.rows_of([passage.id for passage in changes.added]).values()}
        self.words.remove(removed)
        run_all("DELETE FROM passages WHERE row = ?", ((row,) for row in removed))
        run_all("DELETE FROM fields WHERE row = ?", ((row,) for row in removed))
        run_all("DELETE FROM checksums WHERE row = ?", ((row,) for row in removed))
        run_all("INSERT INTO dead VALUES (?)", ((row,) for row in removed))
        self.sources.unlink(removed)
        run_all("DELETE FROM dead WHERE row = ?", ((row,) for row in changes.tombstones))
        about = self.about()
        if replace_metadata(self.connection, changes.changed):
            changes.about[_METADATA_CHANGED] = about["generation"] + 1
        rows = range(about["next_row"], about["next_row"] + len(changes.added))
        passages = zip(rows, changes.added, changes.metadata, strict=True)
        added = [(row, passage.id, passage.text, metadata) for row, passage, metadata in passages]
        run_all("INSERT INTO passages VALUES (?, ?, ?, ?)", added)
        write_checksums(self.connection, added)
        write_fields(self.connection, ((row, metadata) for row, *_, metadata in added))
        run_all("DELETE FROM files WHERE name = ?", ((name,) for name in changes.dropped))
        run_all(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
            (
                (file.name, file.kind, file.position, file.size, file.sha256, self._rows.get(file.name))
                for file in changes.files
            ),
        )
        write_about(self.connection, {**changes.about, "generation": about["generation"] + 1, "next_row": rows.stop})
        self.words.add((row, text) for row, _, text, _ in added)
        self.sources.rename(changes.renamed)
        self.sources.write(changes.sources)
        if changes.owners:
            self.sources.link(rows, changes.owners)
        if changes.join_words:
            self.words.optimize()


def write_about(connection: sqlite3.Connection, about: Mapping[str, Any]) -> None:
    """Write settings; those that are there are replaced."""
    connection.executemany(
        "INSERT INTO about VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", list(about.items())
    )


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and 0 <= value < _LARGEST
