"""A folder to make something in, beside its place or in it. What a killed process leaves there, the next one removes."""

from __future__ import annotations

import contextlib
import fnmatch
import gc
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Locked by SQLite while its process lives. The number of a process would do for one machine only, until it is given again.
_OWNER = "owner.sqlite"
# What file systems, file managers and version control put into folders by themselves.
_LITTER = (
    *("lost+found", ".snapshot", ".nfs*", ".Trash*", ".fseventsd", ".Spotlight-V100", ".TemporaryItems"),
    *(".DS_Store", "._*", ".AppleDouble", ".directory", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN"),
    *("System Volume Information", ".gitkeep", ".keep", ".gitignore", ".gitattributes"),
)


def contents(folder: Path) -> list[str]:
    """The names in a folder, ascending, without those that count for nothing.

    Those are what a file manager or a file system has put there by itself (``.DS_Store``, ``lost+found``), ``.gitkeep`` and the
    like, and what ``folder_aside`` and ``folder_begun`` have made there.
    """
    name = folder.absolute().name
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if not any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in _LITTER)
        and not is_aside(entry, name)
        and not (entry.name == _begun(name) and entry.is_dir() and not entry.is_symlink())
    )


def is_free(folder: Path) -> bool:
    """Whether something may be made here: there is nothing, or a folder without ``contents``."""
    return not folder.exists() or (folder.is_dir() and not contents(folder))


def some_names(names: list[str]) -> str:
    """A few of the names for a message, and how many there are beside them."""
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@contextlib.contextmanager
def folder_aside(target: Path) -> Iterator[Path]:
    """An empty folder beside ``target``, which is removed when the block ends.

    It is inside of ``target`` where that is a folder already and nothing can be made beside it: a mount point in a folder of
    somebody else's. If the process is killed before the block ends, the next call for the same target removes it.

    Args:
        target: what is to be made; its folder is made if it is not there.

    Raises:
        OSError: the disk is full or failed.
    """
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    owner = None
    while owner is None:  # somebody who takes the new folder for one that was left may be faster
        try:
            work = _new_folder(target, target.parent)
        except OSError:
            if not target.is_dir():
                raise
            work = _new_folder(target, target)
        owner = _claimed(work)
    try:
        yield work
    finally:
        _remove(work, owner)


def folder_begun(target: Path) -> Path:
    """A folder in which several calls may make ``target``, one after the other; it is as the last one left it.

    It lies where ``folder_aside`` makes its own, and is made if it is not there. Nothing locks it.

    Args:
        target: what is to be made; its folder is made if it is not there.

    Raises:
        OSError: the disk is full or failed.
    """
    target = target.absolute()
    beside, inside = target.with_name(_begun(target.name)), target / _begun(target.name)
    if inside.is_dir():
        return inside
    try:
        beside.mkdir(parents=True, exist_ok=True)
    except OSError:
        if not target.is_dir():
            raise
        inside.mkdir()
        return inside
    return beside


def _begun(name: str) -> str:
    return f".{name}.unfinished"


def remove_leftovers(target: Path) -> None:
    """Remove the folders that killed processes have left beside ``target`` and in it.

    Raises:
        OSError: the disk failed.
    """
    target = target.absolute()
    for place in (target.parent, target):
        with contextlib.suppress(PermissionError):  # a folder that nobody may look into has nothing of ours
            for left in list(place.iterdir()) if place.is_dir() else ():
                if is_aside(left, target.name):
                    _remove_if_left(left)


def is_aside(path: Path, name: str) -> bool:
    """Whether a path may be a folder that ``folder_aside`` made for a target of this name."""
    return path.name.startswith(f".{name}.making-") and path.is_dir() and not path.is_symlink()


def _new_folder(target: Path, place: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=f".{target.name}.making-", dir=place))


def _remove(work: Path, owner: sqlite3.Connection) -> None:
    """Remove a folder that this process owns, its mark last: what cannot be removed now, the next call knows by that."""
    with contextlib.suppress(OSError):
        for path in work.iterdir():
            if path.name != _OWNER:
                remove = shutil.rmtree if path.is_dir() and not path.is_symlink() else Path.unlink
                remove(path)
        owner.close()
        (work / _OWNER).unlink()
        work.rmdir()
    owner.close()


def _remove_if_left(work: Path) -> None:
    if not (work / _OWNER).exists():
        with contextlib.suppress(OSError):
            work.rmdir()  # it was killed before it could lock the folder; one that is not empty is not ours
        return
    owner = _claimed(work)
    if owner is None:
        gc.collect()  # a call in this process that Ctrl-C ended may hang in a cycle of references, its lock with it
        owner = _claimed(work)
    if owner is not None:
        _remove(work, owner)


def _claimed(work: Path) -> sqlite3.Connection | None:
    """A connection that holds the lock of a folder until it is closed; None if another one does, or the folder is gone."""
    owner = sqlite3.connect(work / _OWNER, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        owner.execute("BEGIN EXCLUSIVE")
        if (work / _OWNER).exists():
            return owner
    except sqlite3.OperationalError:
        pass
    owner.close()
    return None
