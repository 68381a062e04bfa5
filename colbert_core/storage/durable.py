"""Files and folders that survive a power failure, checksums of files, and the errors of disks under this package's names.

Whatever is written whole goes the same way: write it under another name, sync it, rename it, sync the folder that now has the
name. So a reader sees the old content or the new one, and a power failure leaves one of them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sqlite3
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from colbert_core.errors import (
    ColBERTError,
    DamagedIndexError,
    IndexLockedError,
    IndexWriteError,
    ReadOnlyIndexError,
    StorageError,
)
from colbert_core.paths import as_path
from colbert_core.storage.aside import contents, folder_aside

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from os import PathLike
    from pathlib import Path

    from numpy.typing import NDArray

# What a disk that cannot sync a folder answers: one over a network or in user space, or a folder that may not be listed.
_CANNOT_SYNC_FOLDERS = (errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)


# SQLite opens paths of up to 507 bytes; what is written beside an index has a path that is up to 60 bytes longer than its own.
_LONG_PATH = 440


class Checksum(NamedTuple):
    """What a file held.

    Attributes:
        size: bytes.
        sha256: of its content, in hexadecimal digits.
    """

    size: int
    sha256: str


# Syncing


def sync(descriptor: int) -> None:
    """Have the disk keep what was written to an open file; on macOS fsync leaves it in the disk's own memory."""
    if sys.platform == "darwin":
        import fcntl

        with contextlib.suppress(OSError):  # disks over a network have no such call; SQLite then does with fsync, too
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def sync_file(path: Path) -> None:
    """Have the disk keep what a closed file holds."""
    _sync_path(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows syncs only what is open for writing


def sync_folder(folder: Path) -> None:
    """Have the disk keep the names in a folder; Windows has no such call and does not need it."""
    if os.name == "nt":
        return
    try:
        _sync_path(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC_FOLDERS:
            raise


def sync_tree(folder: Path) -> None:
    """Have the disk keep a folder and everything in it, at any depth."""
    for path in folder.rglob("*"):
        (sync_folder if path.is_dir() else sync_file)(path)
    sync_folder(folder)


def _sync_path(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def step(name: str) -> None:
    """Tell Python's audit hooks which step of a write has been taken; tests stop the process there."""
    sys.audit("colbert_core.step", name)


# Writing whole files and folders


@contextlib.contextmanager
def written_aside(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """A path to write to, which takes the place of ``path`` durably when the block ends, and is removed if it fails.

    What a killed process has left there is written over or removed by the next call for the same file.

    Args:
        path: the file to write or replace.
        shared: several processes may write it at once, so that each needs a path of its own; the last one wins.
    """
    with folder_aside(path) if shared else contextlib.nullcontext() as work:
        unfinished = path.with_name(f".{path.name}.unfinished") if work is None else work / path.name
        try:
            yield unfinished
            sync_file(unfinished)
            unfinished.replace(path)
            sync_folder(path.absolute().parent)
        finally:
            unfinished.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, *, shared: bool = False) -> None:
    """Write a whole file; ``shared`` as for ``written_aside``."""
    with written_aside(path, shared=shared) as unfinished:
        unfinished.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a whole file of text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: dict[str, Any], *, shared: bool = False) -> None:
    """Write a whole file of JSON; ``shared`` as for ``written_aside``."""
    write_bytes(path, f"{json.dumps(value, indent=1)}\n".encode(), shared=shared)


def write_npy(path: Path, parts: Iterable[NDArray[Any]], row: tuple[int, ...], dtype: Any) -> None:
    """Write a whole ``.npy`` file of an array whose parts are never in memory together.

    Args:
        path: of the file.
        parts: each *Shape:* (n, *row); they follow each other along the first axis.
        row: shape of one row.
        dtype: of all parts.
    """

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
        assert file.tell() == start  # NumPy leaves room in the header for any number of rows


def write_synced(path: Path, pieces: Iterable[bytes | memoryview]) -> Checksum:
    """Write a file piece by piece and sync it, hashing what goes by; its name in the folder is not synced."""
    hasher, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in pieces:
            hasher.update(piece)
            size += file.write(piece)
        file.flush()
        step("file written")
        sync(file.fileno())
    step("file synced")
    return Checksum(size, hasher.hexdigest())


def put_in_place(work: Path, folder: Path) -> None:
    """Put a finished folder into its place, durably: everything in it is synced before it has a name there.

    It is renamed where that can be. In a folder that is there already and does not give way, such as a mount point, it goes
    piece by piece, and all of it is taken away again if one cannot.

    Args:
        work: the finished folder.
        folder: a place with nothing there, or a folder without ``contents``.

    Raises:
        OSError: the disk failed, or somebody else has put something there.
    """
    sync_tree(work)
    try:
        if folder.is_dir():
            folder.rmdir()
        work.rename(folder)
    except OSError:
        if not folder.is_dir() or contents(folder):
            raise
        _move_into(work, folder)
    sync_folder(folder.absolute().parent)


def _move_into(work: Path, folder: Path) -> None:
    """Move what is in a folder into another one, or nothing of it if something fails."""
    moved = []
    try:
        for path in sorted(work.iterdir()):
            moved.append(folder / path.name)
            shutil.move(path, folder / path.name)  # perhaps to another disk
        with contextlib.suppress(OSError):
            work.rmdir()
        sync_tree(folder)
    except BaseException:
        for path in moved:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        raise


def check_target(path: str | PathLike[str]) -> None:
    """Make sure that a file can be written there, before the work that it is to hold.

    Raises:
        FileNotFoundError: its folder is not there.
        IsADirectoryError: it is a folder.
    """
    path = as_path(path)
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} into; make it, or name another.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file.")


# Checksums


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum_files(files: Iterable[Path]) -> dict[str, Checksum]:
    """Size and SHA-256 of each file, by its path.

    Raises:
        FileNotFoundError: one is missing.
    """
    return {str(path): Checksum(path.stat().st_size, sha256_of(path)) for path in files}


# Errors


@contextlib.contextmanager
def disk_errors(path: Path | str | None, locked: str = "", *, reading: bool = False) -> Iterator[None]:
    """Raise SQLite's and the file system's errors under the names of this package.

    Args:
        path: what is read or written, for the messages; None for an index in memory.
        locked: the message if somebody else holds the database; empty for one that names the path.
        reading: nothing is written, so that there is nothing to say of it.
    """
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.IntegrityError):
        raise
    except sqlite3.DataError as error:
        raise ValueError(f"A text or metadata is too large for SQLite ({error}); cut it.") from error
    except UnicodeDecodeError as error:  # of a message of SQLite's that quotes what is no text
        raise DamagedIndexError(f"{path} is damaged ({error}); restore the index from a copy.") from error
    except sqlite3.OperationalError as error:
        named = _named_error(error, path, locked, reading=reading)
        if named is None:
            raise
        raise named from error
    except sqlite3.DatabaseError as error:
        raise DamagedIndexError(f"{path} is damaged ({error}); restore the index from a copy.") from error
    except OSError as error:
        if isinstance(error, ColBERTError):
            raise
        raise _write_error(path, str(error), error.errno, reading=reading) from error


def _named_error(
    error: sqlite3.OperationalError, path: Path | str | None, locked: str, *, reading: bool
) -> StorageError | None:
    message = str(error)

    def says(*words: str) -> bool:
        return any(word in message for word in words)

    if says("locked", "busy", "locking"):
        return IndexLockedError(locked or f"Another process holds {path} ({message}); try again when it is done.")
    if says("readonly"):
        return ReadOnlyIndexError(f"{path} cannot be written to ({message}).")
    if says("full", "I/O", "unable to open"):
        return _write_error(path, message, _reason(message, path), reading=reading)
    if says("no such table", "no such column", "unsupported file format", "Could not decode"):
        return DamagedIndexError(f"{path} is damaged ({message}); restore the index from a copy.")
    return None


def _write_error(path: Path | str | None, message: str, number: int | None, *, reading: bool) -> IndexWriteError:
    known = "could not be read ({})." if reading else "could not be written or read ({}); the index is as before."
    hints = {
        errno.ENOSPC: " The disk is full: make room.",
        errno.EMFILE: " This process has no file descriptors left: close some files, or raise its limit (ulimit -n).",
        errno.ENFILE: " This machine has no file descriptors left: close some files, or raise its limit.",
        errno.ENAMETOOLONG: " Choose a shorter path.",
    }
    return IndexWriteError(f"{path} {known.format(message)}{hints.get(number or 0, '')}")


def _reason(message: str, path: Path | str | None) -> int | None:
    """The system's number of an error of SQLite's, which does not say it."""
    if "full" in message:
        return errno.ENOSPC
    if "open" not in message:
        return None
    if _has_no_descriptors():
        return errno.EMFILE
    return errno.ENAMETOOLONG if len(os.fsencode(str(path))) > _LONG_PATH else None


def _has_no_descriptors() -> bool:
    """Whether this process can open no more files; SQLite does not say why it could not open one."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return True
    return False
