"""Open the index in a folder, or make it: what a store of a framework does when something is added to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from colbert_core.errors import IndexExistsError
from colbert_core.index.index import Index
from colbert_core.paths import as_path
from colbert_core.storage.folder import is_vacant

if TYPE_CHECKING:
    from os import PathLike

    from colbert_core.types import TokenEncoder


def open_or_create(path: str | PathLike[str] | None, encoder: str | PathLike[str] | TokenEncoder | None = None) -> Index:
    """Open the index in a folder, or make an empty one where there is none. Whoever is second opens what the first one made.

    Args:
        path: the folder; None makes an index in memory.
        encoder: as in ``Index.open`` and ``Index.create``.

    Raises:
        IndexExistsError: the path is taken by something else.
        StorageError, EncoderMismatchError: as ``Index.open``.
    """
    folder = None if path is None else as_path(path)
    if folder is not None and folder.is_dir() and not is_vacant(folder):
        return Index.open(folder, encoder)
    try:
        return Index.create(folder, encoder)
    except IndexExistsError:
        if folder is None or not folder.is_dir():
            raise
        return Index.open(folder, encoder)
