"""Several indexes in one folder, each for itself: one for each tenant, customer or project."""

from __future__ import annotations

import contextlib
import re
import shutil
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from colbert_core.errors import IndexExistsError, IndexNotFoundError
from colbert_core.index.index import Index
from colbert_core.paths import as_path
from colbert_core.storage.aside import some_names
from colbert_core.storage.folder import DATABASE
from colbert_core.types import check_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike
    from pathlib import Path

    from colbert_core.types import TokenEncoder

# What file systems take, with what %XX makes of a letter.
_LONGEST_FOLDER = 200
# Written as they are in the name of a folder. No capitals: some file systems do not tell them apart.
_PLAIN = re.compile(r"[a-z0-9_-]")
_DROPPED = ".dropped-"


class Collections:
    """Named indexes in one folder. A search in one never sees another.

    Each is a folder of its own, which ``Index.open`` and the command line open as well. They share one model in memory.

    Example:
        >>> kb = Collections(folder)
        >>> acme = kb.create("acme")
        >>> acme.add([Passage("a", "Cats purr when they are content.")])
        ['a']
        >>> kb.names(), "globex" in kb
        (['acme'], False)
    """

    def __init__(self, path: str | PathLike[str], encoder: str | PathLike[str] | TokenEncoder | None = None) -> None:
        """Name the folder; it is made with its first collection.

        Args:
            path: the folder.
            encoder: a checkpoint's name or folder, or a loaded encoder, for all collections. None is the one that a
                collection was made with, and the model in the box for a new one.

        Raises:
            IndexExistsError: the folder is an index itself.
        """
        self.path = as_path(path).absolute()
        if (self.path / DATABASE).exists():
            raise IndexExistsError(f"{self.path} is an index itself, not a folder of collections; name its parent or another.")
        self._encoder = encoder  # a name stands for the same encoder in the whole process

    def create(self, name: str, **options: Any) -> Index:
        """Make a collection.

        Args:
            name: any text that is not too long for the name of a folder.
            options: as in ``Index.create``.

        Raises:
            IndexExistsError: there is one of this name.
            ValueError: the name is empty or too long.
        """
        if name in self and not options.get("overwrite"):
            raise IndexExistsError(f"There is a collection {name!r} in {self.path} already; open it, or choose another name.")
        return Index.create(self.folder_of(name), self._encoder, **options)

    def open(self, name: str, **options: Any) -> Index:
        """Open a collection.

        Args:
            name: of the collection.
            options: as in ``Index.open``.

        Raises:
            IndexNotFoundError: there is none of this name.
            StorageError, EncoderMismatchError: as ``Index.open``.
        """
        self._check_there(name)
        return Index.open(self.folder_of(name), self._encoder, **options)

    def names(self) -> list[str]:
        """The names of all collections, ascending; none while the folder is not there."""
        return sorted(self)

    def drop(self, name: str) -> None:
        """Remove a collection with all its passages. Whoever has it open is told that it is gone.

        Raises:
            IndexNotFoundError: there is none of this name.
        """
        self._check_there(name)
        aside = self.path / f"{_DROPPED}{uuid.uuid4().hex}"
        self.folder_of(name).rename(aside)  # in one step; what a killed process leaves there, the next drop removes
        for left in self.path.glob(f"{_DROPPED}*"):
            shutil.rmtree(left, ignore_errors=True)

    def copy(self, name: str, to: str) -> None:
        """Write a copy of the newest state of a collection under another name.

        Raises:
            IndexNotFoundError: there is no collection ``name``.
            IndexExistsError: there is a collection ``to`` already.
        """
        if to in self:
            raise IndexExistsError(f"There is a collection {to!r} in {self.path} already; drop it, or choose another name.")
        with self.open(name) as index:
            index.save(self.folder_of(to))

    def folder_of(self, name: str) -> Path:
        """The folder of a collection, whether it is there or not. Other letters than a to z stand there as %XX, as in a URL.

        Raises:
            ValueError: the name is empty or too long.
        """
        if not check_text(name, "The name of a collection"):
            raise ValueError("The name of a collection is empty; give it one.")
        written = "".join(
            letter if _PLAIN.match(letter) else "".join(f"%{byte:02X}" for byte in letter.encode()) for letter in name
        )
        if len(written) > _LONGEST_FOLDER:
            raise ValueError(f"The name of a collection is too long for a folder, {len(name)} letters: {name:.80}…")
        return self.path / written

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (self.folder_of(name) / DATABASE).exists()

    def __iter__(self) -> Iterator[str]:
        with contextlib.suppress(FileNotFoundError):
            for folder in self.path.iterdir():
                name = unquote(folder.name)
                if not folder.name.startswith(".") and (folder / DATABASE).exists() and self.folder_of(name) == folder:
                    yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Collections({str(self.path)!r}, {self.names()})"

    def _check_there(self, name: str) -> None:
        if name not in self:
            there = f"those are {some_names(self.names())}" if len(self) else "there are none"
            raise IndexNotFoundError(f"There is no collection {name!r} in {self.path}; {there}.")
