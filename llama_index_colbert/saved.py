"""Where an index lies in a persist directory, which may hold other things: next to them, under names of its own.

``<name>.idx`` is the index itself, which ``Index.open`` and the command line read as well. ``<name>.idx.json`` says that this
package put it there, so that persisting again may replace it.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colbert_core import IndexNotFoundError

if TYPE_CHECKING:
    from os import PathLike

    from colbert_core import Index

NAME = "colbert"


def save(index: Index, persist_dir: str | PathLike[str], name: str = NAME, **about: Any) -> None:
    """Write a copy of the index, in place of the one that was written here before.

    Args:
        index: it stays where it is; one that lives in this very place is saved already.
        persist_dir: made if it is not there.
        name: tells several indexes in one directory from each other.
        about: what else to keep, as JSON can.

    Raises:
        FileExistsError: there is something under this name that did not come from here.
    """
    target, note = _paths(persist_dir, name)
    known = note.exists()
    if target.exists() and not known:
        raise FileExistsError(
            f"{target} is there already, and was not written by persist; choose another directory or name, or move it away."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    if not known:  # before the index, which could never be replaced without it
        _write(note, {})
    try:
        index.save(target, overwrite=True)
        _write(note, about)
    except BaseException:
        if not target.exists():
            note.unlink(missing_ok=True)
        raise


def find(persist_dir: str | PathLike[str], name: str = NAME) -> tuple[Path, dict[str, Any]]:
    """The folder to open, and what was kept about it. ``persist_dir`` may itself be an index, from the command line say.

    Raises:
        IndexNotFoundError: there is no such index.
    """
    folder, note = _paths(persist_dir, name)
    if folder.is_dir():
        return folder, json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
    # A directory without the name that was asked for must not be taken for it.
    if name != NAME or not folder.parent.is_dir():
        raise IndexNotFoundError(f"There is no index {name!r} in {persist_dir}: {folder} is missing.")
    return folder.parent, {}


def _paths(persist_dir: str | PathLike[str], name: str) -> tuple[Path, Path]:
    if name != Path(name).name:
        raise ValueError(f"An index's name becomes part of a file's name, so it has no '/' in it; got {name!r}.")
    # Without links and "..", so that an index knows its own place when it is saved there.
    folder = Path(persist_dir).resolve() / f"{name}.idx"
    return folder, folder.with_name(f"{folder.name}.json")


def _write(note: Path, about: dict[str, Any]) -> None:
    unfinished = note.with_name(f".{note.name}.{uuid.uuid4().hex}")
    try:
        unfinished.write_text(json.dumps({"written_by": "llama_index_colbert", "format": 1} | about), encoding="utf-8")
        unfinished.replace(note)  # a reader sees the old one or the new one, whole
    finally:
        unfinished.unlink(missing_ok=True)
