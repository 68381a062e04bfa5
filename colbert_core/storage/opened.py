"""Files and folders held open: whatever is renamed meanwhile leads nowhere else, and no link leads out of a folder."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from colbert_core.errors import DamagedIndexError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO, Self

# Windows opens no folders. There a path has to do; nobody can rename a folder there while files in it are open.
_OPENS_FOLDERS = os.open in os.supports_dir_fd and hasattr(os, "O_DIRECTORY")

FileId = tuple[int, int]
"""Device and inode of a file: paths with the same lead to the same file, and while it is open no other file gets them."""


def file_id(path: Path) -> FileId | None:
    """Which file is at a path; None if there is none."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


class OpenFolder:
    """A folder that stays the same one whatever is renamed."""

    def __init__(self, path: Path, within: OpenFolder | None = None) -> None:
        """Open a folder.

        Args:
            path: the folder; a link may lead there.
            within: the folder that holds it; then it must be no link.
        """
        self._path = path
        self._descriptor: int | None = None
        if _OPENS_FOLDERS:
            flags = os.O_RDONLY | os.O_DIRECTORY
            if within is None:
                self._descriptor = os.open(path, flags)
            else:
                self._descriptor = os.open(path.name, flags | os.O_NOFOLLOW, dir_fd=within._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def inner(self, name: str) -> OpenFolder:
        """A folder in this one."""
        check_no_link(self._path / name)
        return OpenFolder(self._path / name, self)

    def file_id(self, name: str) -> FileId | None:
        """Which file has this name here; None if none has."""
        if self._descriptor is None:
            return file_id(self._path / name)
        try:
            found = os.stat(name, dir_fd=self._descriptor)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def open(self, name: str) -> BinaryIO:
        """Open a regular file for reading.

        Raises:
            DamagedIndexError: it is a link, a pipe or something else.
        """
        path = self._path / name
        check_no_link(path)
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        flags |= getattr(os, "O_NONBLOCK", 0)  # a pipe would wait for somebody who writes into it
        descriptor = os.open(path if self._descriptor is None else name, flags, dir_fd=self._descriptor)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise DamagedIndexError(f"{path} is no regular file; restore the index from a copy.")
            return os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise

    def unlink(self, name: str) -> None:
        """Remove a file."""
        if self._descriptor is None:
            (self._path / name).unlink()
        else:
            os.unlink(name, dir_fd=self._descriptor)


def check_no_link(path: Path) -> None:
    """Make sure that what an index has in its folder is no link.

    Raises:
        DamagedIndexError: it is one.
    """
    if path.is_symlink():
        raise DamagedIndexError(f"{path} is a link, and an index reads nothing outside its folder; copy the folder by cp -rL.")
