"""A folder to make something in, beside its place. What a killed process leaves there, the next one removes."""

from __future__ import annotations

import contextlib
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


@contextlib.contextmanager
def folder_aside(target: Path) -> Iterator[Path]:
    """An empty folder beside ``target``, which is removed when the block ends.

    If the process is killed before, the next call for the same target removes it.

    Args:
        target: what is to be made; its folder is made if it is not there.

    Raises:
        OSError: the disk is full or failed.
    """
    parent = target.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    owner = None
    while owner is None:  # somebody who takes the new folder for one that was left may be faster
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.making-", dir=parent))
        owner = _claimed(work)
    try:
        yield work
    finally:
        _remove(work, owner)


def remove_leftovers(target: Path) -> None:
    """Remove the folders that killed processes have left beside ``target``.

    Raises:
        OSError: the disk failed.
    """
    parent = target.absolute().parent
    for left in parent.iterdir() if parent.is_dir() else ():
        if is_aside(left, target.name):
            _remove_if_left(left)


def is_aside(path: Path, name: str) -> bool:
    """Whether a path may be a folder that ``folder_aside`` made for a target of this name."""
    return path.name.startswith(f".{name}.making-") and path.is_dir() and not path.is_symlink()


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
