"""Save an index into a persist directory, next to what else is there, and find it again.

``<name>.idx`` is the index itself, which ``Index.open`` and the command line read as well. ``<name>.idx.json`` says that this
package wrote it, so persisting again may replace it.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colbert_core import IndexNotFoundError

if TYPE_CHECKING:
    from os import PathLike

    from colbert_core import IndexBase

NAME = "colbert"


def save(index: IndexBase, persist_dir: str | PathLike[str], name: str = NAME, **about: Any) -> None:
    """Write a copy of the index, and replace the one that was written here before.

    Args:
        index: the index, which stays where it is. One that already lives in this very place is not copied.
        persist_dir: the directory, made if it is not there.
        name: tells several indexes in one directory apart.
        about: what else to store, as JSON.

    Raises:
        FileExistsError: something under this name was not written by this function.
    """
    target, note = _paths(persist_dir, name)
    known = note.exists()
    if target.exists() and not known:
        raise FileExistsError(
            f"{target} is there already, and was not written by persist; choose another directory or name, or move it away."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    if not known:  # first, because an index without a note could never be replaced
        _write(note, {})
    try:
        index.save(target, overwrite=True)
        _write(note, about)
    except BaseException:
        if not target.exists():
            note.unlink(missing_ok=True)
        raise


def find(persist_dir: str | PathLike[str], name: str = NAME) -> tuple[Path, dict[str, Any]]:
    """Return the folder to open, and what was stored about it.

    ``persist_dir`` may itself be an index, such as one that the command line made.

    Raises:
        IndexNotFoundError: there is no such index.
    """
    folder, note = _paths(persist_dir, name)
    if folder.is_dir():
        return folder, json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
    # If another name was asked for, do not take the directory itself for that index.
    if name != NAME or not folder.parent.is_dir():
        raise IndexNotFoundError(f"There is no index {name!r} in {persist_dir}: {folder} is missing.")
    return folder.parent, {}


def _paths(persist_dir: str | PathLike[str], name: str) -> tuple[Path, Path]:
    if name != Path(name).name:
        raise ValueError(f"An index's name becomes part of a file's name, so it has no '/' in it; got {name!r}.")
    # Resolve links and "..", so that an index notices when it is saved to its own place.
    folder = Path(persist_dir).expanduser().resolve() / f"{name}.idx"
    return folder, folder.with_name(f"{folder.name}.json")


def _write(note: Path, about: dict[str, Any]) -> None:
    unfinished = note.with_name(f".{note.name}.{uuid.uuid4().hex}")
    try:
        unfinished.write_text(json.dumps({"written_by": "llama_index_colbert", "format": 1} | about), encoding="utf-8")
        unfinished.replace(note)  # in one step: a reader sees the old note or the new one
    finally:
        unfinished.unlink(missing_ok=True)
