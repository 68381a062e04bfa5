"""What an index holds, kept so that nothing is lost: SQLite for everything that changes, files that never change for vectors.

A folder on disk::

    index.sqlite         passages, their metadata in a searchable form, which files belong to the index, a generation counter
    files/<hash>         arrays (see ``arrays``), named by their content; written and synced before the transaction naming them

A commit is one SQLite transaction, so atomicity, durability, locking between processes and recovery are SQLite's. Small
arrays lie in SQLite as well. The same code keeps an index in memory: what differs is in ``MemoryConnections`` and
``MemoryFiles``.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import uuid
from typing import TYPE_CHECKING, Any

from colbert_core.errors import (
    IndexExistsError,
    IndexLockedError,
    IndexNotFoundError,
    IndexWriteError,
    StorageError,
)
from colbert_core.storage.aside import folder_aside, remove_leftovers
from colbert_core.storage.changes import Changes, StaleRead
from colbert_core.storage.connection import Connection, attach, count_tables
from colbert_core.storage.database import Connections, DiskConnections, MemoryConnections
from colbert_core.storage.durable import disk_errors, step, sync_folder
from colbert_core.storage.files import Files, FolderFiles, MemoryFiles
from colbert_core.storage.folder import APPLICATION, COPY, DATABASE, FILES, check_database, check_free, is_vacant
from colbert_core.storage.schema import FORMAT, SCHEMA, check_schema
from colbert_core.storage.transaction import Outcome, Reader, Writer, write_about

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

# How long overwriting waits for a writer of the index that is there.
_TIMEOUT = 60.0


class Store:
    """The passages and files of one index. Any number of threads and processes may read while one writes.

    Attributes:
        folder: where it is, absolute; None for memory.
        connections: to its database.
    """

    def __init__(self, folder: Path | None, *, timeout: float) -> None:
        """Use ``create`` or ``open``.

        Args:
            folder: None for memory.
            timeout: seconds to wait for another writer.
        """
        self.folder = None if folder is None else folder.absolute()  # the working folder may change
        self.connections: Connections
        self._files: Files
        if self.folder is None:
            self.connections, self._files = MemoryConnections(timeout), MemoryFiles()
        else:
            self.connections = DiskConnections(self.folder / DATABASE, timeout)
            self._files = _files_of(self.folder, self.connections)

    @classmethod
    def create(cls, folder: Path | None, about: Mapping[str, Any], *, overwrite: bool, timeout: float) -> Store:
        """Make an empty store; on disk it is there, whole, once a single SQLite transaction is.

        Raises:
            IndexExistsError: there is something at the folder.
        """
        with disk_errors(folder):
            is_taken = folder is not None and folder.exists() and not is_vacant(folder)
            if folder is not None and is_taken:
                check_free(folder, overwrite=overwrite)
        if folder is not None and is_taken:
            return cls._emptied(folder, about, timeout=timeout)
        store = cls(folder, timeout=timeout)
        try:
            store._make(lambda writer: writer.begin(about))
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def open(cls, folder: Path, *, timeout: float) -> Store:
        """Open the store in a folder, for reading only if the folder cannot be written to.

        Raises:
            IndexNotFoundError: there is none.
            DamagedIndexError: one of its files is missing or cut short.
            UnsupportedIndexError: a newer or much older version wrote it, or something else did.
        """
        with disk_errors(folder, reading=True):
            check_database(folder)
        store = cls(folder, timeout=timeout)
        try:
            with store.connections.used() as connection, disk_errors(folder):
                if not count_tables(connection):
                    raise IndexNotFoundError(f"{folder} holds no index: its making was interrupted. Make it again.")
                check_schema(connection, str(folder))
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
        """Make a store in memory of what ``to_bytes`` returned."""
        store = cls(None, timeout=timeout)
        with store.connections.used(create=True) as connection:
            connection.deserialize(database)
        store._files = MemoryFiles(memory)
        return store

    def to_bytes(self) -> tuple[bytes, dict[str, bytes]]:
        """A store in memory as values that can be pickled."""
        assert isinstance(self._files, MemoryFiles)
        with self.read() as reader, reader.moment():
            contents = self._files.contents
            return reader.connection.serialize(), {file.name: contents[file.name] for file in reader.files()}

    @contextlib.contextmanager
    def read(self) -> Iterator[Reader]:
        """One state of the store, for a moment; whoever holds it keeps SQLite from cleaning up its log."""
        with self.connections.reading() as connection:
            yield Reader(connection, self._files, self.connections.guard)

    @contextlib.contextmanager
    def write(self, attached: Path | None = None) -> Iterator[Writer]:
        """Hold the write lock of the index; commit inside it, once. Without a commit nothing changes.

        Args:
            attached: what ``Reader.dump`` wrote, for ``Writer.take_over``.

        Raises:
            IndexLockedError: another writer holds it for longer than the timeout.
            ReadOnlyIndexError: the folder cannot be written to.
        """
        writer = None
        try:
            with self.connections.writing(attached) as connection:
                writer = self._writer(connection)
                try:
                    step("locked")
                    yield writer
                finally:
                    self._end(writer)
        except IndexWriteError as error:
            self._tell_outcome(writer, error)
            raise

    def copy(self, folder: Path, *, overwrite: bool = False, check: Callable[[Reader], object] = Reader.moment_of) -> None:
        """Write the newest state to a new folder, which is an index once this returns and not before.

        Args:
            folder: new or empty.
            check: raises if what is about to be copied is another index by now.
            overwrite: it may be an index, which is replaced in one transaction. Who has it open reads its old state, or is
                told that it was overwritten, and can no longer write to it.

        Raises:
            IndexExistsError: there is something at the folder.
            IndexLockedError: another writer holds the lock of that index for longer than the timeout.
            StaleRead: a writer replaced a file of an index in memory meanwhile; begin again.
        """
        with disk_errors(folder):
            remove_leftovers(folder / FILES / COPY)
            is_taken = folder.exists() and not is_vacant(folder)
            if is_taken and not overwrite:
                raise IndexExistsError(f"{folder} exists already; choose another path, or overwrite it (overwrite=True).")
            if is_taken:
                check_free(folder, overwrite=True)
        target = (
            Store._open_to_overwrite(folder, timeout=self.connections.timeout)
            if is_taken
            else Store(folder, timeout=self.connections.timeout)
        )
        try:
            with self.read() as reader, reader.moment(), contextlib.ExitStack() as stack:
                check(reader)
                with disk_errors(folder):
                    (folder / FILES).mkdir(parents=True, exist_ok=True)
                    dump = reader.dump(stack.enter_context(folder_aside(folder / FILES / COPY)) / "dump.sqlite")
                if is_taken:
                    writer = stack.enter_context(target.write(dump))
                    writer.take_over(reader)
                else:
                    target._make(lambda writer: writer.take_over(reader), dump)
        finally:
            target.close()

    def vacuum(self) -> None:
        """Give back the room of what was deleted; another time, if somebody else is at work or there is no room for it."""
        with (
            self.connections.used() as connection,
            self.connections.guard,
            contextlib.suppress(IndexLockedError, IndexWriteError),
            disk_errors(self._files.name),
        ):
            connection.execute("PRAGMA busy_timeout = 0")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # or the log keeps as much room as the whole database

    def close(self) -> None:
        """Let go of everything; see ``DiskConnections.close``."""
        self.connections.close()
        self._files.close()

    @classmethod
    def _emptied(cls, folder: Path, about: Mapping[str, Any], *, timeout: float) -> Store:
        """The store in this folder, with nothing in it any more; whoever reads it sees the old state or the new."""
        store = cls._open_to_overwrite(folder, timeout=timeout)
        try:
            with store.write() as writer:
                unset = dict.fromkeys(writer.about().keys() - about.keys() - {"generation", "next_row"})
                rows = writer.rows()
                writer.commit(
                    Changes(
                        about={**unset, **about, "identity": uuid.uuid4().hex},
                        removed=rows,
                        sources={source.name: None for source, _ in writer.sources.all()},
                        tombstones=[*rows, *writer.dead().tolist()],
                        dropped=[file.name for file in writer.files()],
                    )
                )
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def _open_to_overwrite(cls, folder: Path, *, timeout: float) -> Store:
        try:
            return cls.open(folder, timeout=timeout)
        except IndexLockedError:
            raise
        except StorageError as error:
            raise IndexExistsError(
                f"{folder} holds no index that can be overwritten ({error}); remove it yourself, or choose another path."
            ) from error

    def _writer(self, connection: Connection) -> Writer:
        return Writer(connection, self._files, self.connections.guard)

    def _end(self, writer: Writer) -> None:
        """Remove the files that nobody needs after a write; what cannot be done now, the next writer will do."""
        writer.discard()
        self.connections.roll_back(writer.connection)
        if writer.outcome is Outcome.COMMITTED:
            with contextlib.suppress(sqlite3.Error, OSError, StorageError):
                self.connections.begin_cleaning(writer.connection)
                writer.clean()
                self.connections.roll_back(writer.connection)
                step("collected")

    def _tell_outcome(self, writer: Writer | None, error: IndexWriteError) -> None:
        """Raise what is known of a commit that ended in an error, once the database has been asked again."""
        if writer is None or writer.outcome is not Outcome.UNKNOWN:
            return
        try:
            with self.connections.writing() as connection:
                asked = self._writer(connection)
                is_in = asked.moment_of() != writer.before
                asked.touch()
                self._end(asked)
            known = "the change is in the index all the same" if is_in else "the index is as before"
        except (sqlite3.Error, OSError, StorageError):
            known = "whether the change is in the index is known once it can be written to again; look before you repeat it"
        raise IndexWriteError(f"{self._files.name} could not be written to ({error.__cause__}); {known}.") from error

    def _make(self, fill: Callable[[Writer], None], attached: Path | None = None) -> None:
        """Make a database where there is none, and fill it; what is there is an index once the one transaction is committed.

        Whoever makes one in the same folder meanwhile, or copies one there, waits for SQLite's lock.

        Args:
            fill: makes the one commit.
            attached: as in ``write``.

        Raises:
            IndexExistsError: somebody else was first.
        """
        folder, writer = self.folder, None
        try:
            if folder is not None:
                with disk_errors(folder):
                    (folder / FILES).mkdir(parents=True, exist_ok=True)
                    if attached is None:
                        remove_leftovers(folder / FILES / COPY)
            with self.connections.used(create=True) as connection, disk_errors(folder):
                writer = self._writer(connection)
                try:
                    if attached is not None:
                        attach(connection, attached)
                    connection.execute("BEGIN IMMEDIATE")
                    if count_tables(connection):
                        raise IndexExistsError(f"{folder} has become an index meanwhile; open it with Index.open.")
                    for statement in SCHEMA:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA application_id = {APPLICATION}")
                    connection.execute(f"PRAGMA user_version = {FORMAT}")
                    write_about(connection, {"identity": uuid.uuid4().hex, "generation": 0, "next_row": 1})
                    step("schema written")
                    if folder is not None:
                        sync_folder(folder)
                        sync_folder(folder.parent)
                    fill(writer)
                    step("created")
                finally:
                    self._end(writer)
        except IndexWriteError as error:
            self._tell_outcome(writer, error)
            raise


@contextlib.contextmanager
def made_aside(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A path beside ``folder`` for a new index, which takes that place when the block ends, and is removed if it fails.

    Args:
        folder: where the index is to be.
        overwrite: it may take the place of another index, which stays until then.

    Raises:
        IndexExistsError: there is something at the folder.
    """
    with contextlib.ExitStack() as stack:
        with disk_errors(folder):
            remove_leftovers(folder)
            check_free(folder, overwrite=overwrite)
            work = stack.enter_context(folder_aside(folder))
        yield work / "new"
        if _renamed(work / "new", folder):
            return
        # Not by renaming: who has an old index open would go on with it, and who makes one there meanwhile as well.
        with disk_errors(folder):
            check_free(folder, overwrite=overwrite)
        made = Store.open(work / "new", timeout=_TIMEOUT)
        try:
            made.copy(folder, overwrite=overwrite)
        finally:
            made.close()


def _renamed(made: Path, folder: Path) -> bool:
    """Rename a finished index to its place if that is free; whether it was."""
    with disk_errors(folder):
        if folder.exists() and any(folder.iterdir()):
            return False
        try:
            made.rename(folder)  # an empty folder gives way; one that is not empty any more, a mount point or a link does not
        except OSError:
            return False
        sync_folder(folder.absolute().parent)
        return True


def _files_of(folder: Path, connections: Connections) -> FolderFiles:
    # Of the connections and not of a store, which would hold the files that hold it, and wait for the garbage collector.
    return FolderFiles(folder, functools.partial(_newest_names, connections))


def _newest_names(connections: Connections) -> set[str]:
    """The names of the files of an index as it is now."""
    with connections.reading() as connection, disk_errors(connections.name):
        return {name for (name,) in connection.execute("SELECT name FROM files")}
