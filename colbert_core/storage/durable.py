"""Files that survive a power failure, and the errors of disks under the names of this package."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from os import PathLike


import sqlite3
from typing import TYPE_CHECKING

from colbert_core.errors import (
    DamagedIndexError,
    IndexLockedError,
    IndexWriteError,
    ReadOnlyIndexError,
    StorageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from os import PathLike

    from numpy.typing import NDArray


import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray


class Checksum(NamedTuple):
    """What a file held.

    Attributes:
        size: bytes.
        sha256: of its content, in hexadecimal digits.
    """

    size: int
    sha256: str


def checksum_files(files: Iterable[Path]) -> dict[str, Checksum]:
    """Size and SHA-256 of each file, by its path.

    Raises:
        FileNotFoundError: one is missing.
    """
    found = {}
    for path in files:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[str(path)] = Checksum(path.stat().st_size, digest)
    return found


def check_target(path: str | PathLike[str]) -> None:
    """Make sure that a file can be written there, before the work that it is to hold.

    Raises:
        FileNotFoundError: its folder is not there.
        IsADirectoryError: it is a folder.
    """
    path = Path(path)
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} into; make it, or name another.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file.")


@contextlib.contextmanager
def disk_errors(path: Path | None, locked: str = "") -> Iterator[None]:
    """SQLite's and the file system's errors under the names of this package."""
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.IntegrityError):
        raise
    except sqlite3.DataError as error:
        raise ValueError(f"A text or metadata is too large for SQLite ({error}); cut it.") from error
    except sqlite3.OperationalError as error:
        named = _named(str(error), path, locked)
        if named is None:
            raise
        raise named from error
    except sqlite3.DatabaseError as error:
        raise DamagedIndexError(f"{path} is damaged ({error}); restore the index from a copy.") from error
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise IndexWriteError(f"{path} could not be written or read ({error}); the index is as before.") from error


def _named(message: str, path: Path | None, locked: str) -> StorageError | None:
    def says(*words: str) -> bool:
        return any(word in message for word in words)

    if says("locked", "busy", "locking"):
        return IndexLockedError(locked or f"Another process holds {path} ({message}); try again when it is done.")
    if says("readonly"):
        return ReadOnlyIndexError(f"{path} cannot be written to ({message}).")
    if says("full", "I/O", "unable to open"):
        return IndexWriteError(f"{path} could not be written or read ({message}); the index is as before. Is the disk full?")
    if says("no such table", "no such column"):
        return DamagedIndexError(f"{path} is damaged ({message}); restore the index from a copy.")
    return None


# Files


def write_npy(path: Path, parts: Iterable[NDArray[Any]], row: tuple[int, ...], dtype: Any) -> None:
    """One array in parts that are never in memory together. NumPy leaves room in the header for the number of rows."""

    def header(n: int) -> dict[str, Any]:
        return {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (n, *row)}

    with written_aside(path) as unfinished, unfinished.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header(0))
        start, n = file.tell(), 0
        for part in parts:
            file.write(np.ascontiguousarray(part).data.cast("B") if part.size else b"")
            n += len(part)
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header(n))
        assert file.tell() == start


def write_json(path: Path, value: dict[str, Any]) -> None:
    with disk_errors(path), written_aside(path) as unfinished:
        unfinished.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of ``path`` when the block ends, and is removed if it fails.

    Always the same, so that what a killed process has left there is written over.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        yield unfinished
        sync_file(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_synced(path: Path, pieces: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Write a file so that it survives a power failure; its size and SHA-256."""
    hasher, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in pieces:
            hasher.update(piece)
            size += file.write(piece)
        file.flush()
        step("file written")
        sync(file.fileno())
    step("file synced")
    return size, hasher.hexdigest()


def sync(descriptor: int) -> None:
    """Make what was written durable; on macOS fsync leaves it in the disk's own memory."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make new names in a folder durable; Windows has no such call and does not need it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def step(name: str) -> None:
    """Tell Python's audit hooks which step of a write has been taken; tests stop the process there."""
    sys.audit("colbert_core.step", name)
