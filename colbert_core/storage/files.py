"""Where the arrays of an index lie: as files in its folder, or in memory. The database knows which of them belong to it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from typing import TYPE_CHECKING, Protocol

import numpy as np

from colbert_core.errors import DamagedIndexError, IndexWriteError, StorageError
from colbert_core.storage.changes import StaleRead
from colbert_core.storage.durable import Checksum, disk_errors, step, sync_folder, write_synced
from colbert_core.storage.folder import DATABASE, FILES, OUR_FILE
from colbert_core.storage.opened import OpenFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from colbert_core.storage.changes import File
    from colbert_core.storage.connection import Connection

# On disk, arrays of fewer bytes lie in SQLite: a row is cheaper than a file with two syncs.
_LARGEST_ROW = 2**20


class Files(Protocol):
    """Contents that never change, each by the name of its SHA-256.

    Attributes:
        name: of the index, for messages.
    """

    name: str

    def takes(self, size: int) -> bool:
        """Whether arrays of so many bytes belong here, not into a row of the database."""

    def read(self, file: File) -> NDArray[np.uint8]:
        """The bytes of a file. *Shape:* (n_bytes,), uint8, mapped from disk where they lie there.

        Raises:
            DamagedIndexError: the file is missing or cut short.
            StaleRead: it is missing because a newer state of the index has no such file.
        """

    def write(self, pieces: Iterable[bytes | memoryview]) -> Checksum:
        """Write a file, which is durable when this returns. Its name is the SHA-256.

        Raises:
            IndexWriteError: the disk is full or failed.
        """

    def add(self, name: str, content: NDArray[np.uint8]) -> None:
        """Write a file of another index under its name, as it is; durable after the next ``sync``."""

    def sync(self) -> None:
        """Have the disk keep the names of the files."""

    def names(self) -> set[str]:
        """The names of all files that are there, also of those that no commit names."""

    def remove(self, names: Iterable[str], connection: Connection) -> None:
        """Remove these files. Only under the write lock, or a file may be one just written.

        Args:
            names: of the files.
            connection: to the database on whose word they are removed. Files that lie beside another one stay.
        """

    def close(self) -> None:
        """Let go of what is in memory."""


class MemoryFiles:
    """The files of an index in memory.

    Attributes:
        name: for messages.
        contents: bytes by name; another dict after each ``remove``.
    """

    def __init__(self, contents: Mapping[str, bytes] | None = None) -> None:
        self.name = "the index in memory"
        self.contents = dict(contents or {})

    def takes(self, size: int) -> bool:  # noqa: ARG002
        """Always: a row of a database in memory saves nothing."""
        return True

    def read(self, file: File) -> NDArray[np.uint8]:
        """See ``Files.read``."""
        content = self.contents.get(file.name)
        if content is None:
            raise StaleRead(file.name)
        return np.frombuffer(content, np.uint8)

    def write(self, pieces: Iterable[bytes | memoryview]) -> Checksum:
        """Keep the pieces, joined."""
        content = b"".join(pieces)
        checksum = Checksum(len(content), hashlib.sha256(content).hexdigest())
        self.contents[checksum.sha256] = content
        return checksum

    def add(self, name: str, content: NDArray[np.uint8]) -> None:
        """See ``Files.add``."""
        self.contents[name] = content.tobytes()

    def sync(self) -> None:
        """Nothing to do."""

    def names(self) -> set[str]:
        """See ``Files.names``."""
        return set(self.contents)

    def remove(self, names: Iterable[str], connection: Connection) -> None:  # noqa: ARG002
        """See ``Files.remove``."""
        gone = set(names)
        self.contents = {name: content for name, content in self.contents.items() if name not in gone}

    def close(self) -> None:
        """Forget all contents."""
        self.contents = {}


class FolderFiles:
    """The files of an index on disk.

    Attributes:
        name: the folder of the index, for messages.
    """

    def __init__(self, folder: Path, newest_names: Callable[[], set[str]]) -> None:
        """Take where the files are.

        Args:
            folder: of the index.
            newest_names: returns the names of the files that belong to the newest state of the index.
        """
        self.name = str(folder)
        self._folder = folder
        self._files = folder / FILES
        self._newest_names = newest_names

    def takes(self, size: int) -> bool:
        """Whether they are not too small for a file."""
        return size >= _LARGEST_ROW

    def read(self, file: File) -> NDArray[np.uint8]:
        """See ``Files.read``."""
        path = self._files / file.name
        try:
            with (
                disk_errors(path, reading=True),
                OpenFolder(self._folder) as folder,
                folder.inner(FILES) as files,
                files.open(file.name) as content,
            ):
                size = os.fstat(content.fileno()).st_size
                if size == file.size:
                    return np.memmap(content, np.uint8, "r") if size else np.empty(0, np.uint8)
        except IndexWriteError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            if file.name not in self._newest_names():
                raise StaleRead(file.name) from None
            raise DamagedIndexError(f"{path} is missing; restore the index from a copy.") from None
        raise DamagedIndexError(f"{path} has {size} bytes where {file.size} were written; restore the index from a copy.")

    def write(self, pieces: Iterable[bytes | memoryview]) -> Checksum:
        """Write the pieces to a file of another name, sync it, rename it, sync the folder."""
        with disk_errors(self._folder), self._unfinished() as unfinished:
            checksum = write_synced(unfinished, pieces)
            unfinished.replace(self._files / checksum.sha256)
            step("file renamed")
            self.sync()
            step("folder synced")
        return checksum

    def add(self, name: str, content: NDArray[np.uint8]) -> None:
        """See ``Files.add``."""
        with disk_errors(self._folder), self._unfinished() as unfinished:
            write_synced(unfinished, [content.data])
            unfinished.replace(self._files / name)

    def sync(self) -> None:
        """See ``Files.sync``."""
        with disk_errors(self._folder):
            sync_folder(self._files)

    def names(self) -> set[str]:
        """See ``Files.names``; of the files that this package writes."""
        with disk_errors(self._folder):
            if not self._files.exists():  # tools that copy folders may leave out an empty one
                return set()
            return {path.name for path in self._files.iterdir() if OUR_FILE.fullmatch(path.name)}

    def remove(self, names: Iterable[str], connection: Connection) -> None:
        """See ``Files.remove``."""
        with self._beside(connection) as files:
            for name in names:
                with contextlib.suppress(OSError):  # on Windows a reader may still map it; the next writer tries again
                    files.unlink(name)

    def close(self) -> None:
        """Nothing to do: what is mapped goes with the arrays."""

    @contextlib.contextmanager
    def _beside(self, connection: Connection) -> Iterator[OpenFolder]:
        """The folder of the files, held open, so that renaming the index meanwhile leads nowhere else.

        Raises:
            StorageError: it lies beside another database than that of the connection.
        """
        with disk_errors(self._folder), OpenFolder(self._folder) as folder:
            if folder.file_id(DATABASE) != connection.file_id:
                raise StorageError(f"The index {self._folder} was overwritten with a new one; open it again.")
            with folder.inner(FILES) as files:
                yield files

    @contextlib.contextmanager
    def _unfinished(self) -> Iterator[Path]:
        """A path to write to, which is removed if the block fails."""
        self._files.mkdir(exist_ok=True)  # tools that copy folders may leave out an empty one
        unfinished = self._files / f"{uuid.uuid4().hex}.unfinished"
        try:
            yield unfinished
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise
