"""Files that are compressed on their own."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tempfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colbert_core.documents.part import UnreadableFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LARGEST_INNER = 2**28
"""Most bytes that a compressed file may become: 256 MiB. A few kilobytes can become terabytes."""

_SUFFIXES = (".gz", ".bz2", ".xz")
_CHUNK = 2**20


@contextmanager
def decompressed(path: Path) -> Iterator[Path]:
    """Give a file for a while that has what is in a compressed one, and its name without .gz, .bz2 or .xz.

    Errors that are raised meanwhile name the compressed file.

    Raises:
        UnreadableFileError: it is damaged, or becomes larger than ``LARGEST_INNER``.
        OSError: it cannot be opened.
    """
    name = path.name[: -len(path.suffix)] if path.suffix.lower() in _SUFFIXES else path.name
    with tempfile.TemporaryDirectory(prefix="colbert-") as folder:
        inner = Path(folder) / (name or "inner")
        _decompress(path, inner)
        try:
            yield inner
        except Exception as error:
            error.args = tuple(part.replace(str(inner), str(path)) if isinstance(part, str) else part for part in error.args)
            raise


def _decompress(path: Path, inner: Path) -> None:
    with path.open("rb") as file:
        begins = file.read(3)
        file.seek(0)
        opened: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open}
        left = LARGEST_INNER
        try:
            with opened.get(begins[:2], lzma.open)(file) as source, inner.open("wb") as target:
                while chunk := source.read(_CHUNK):
                    left -= len(chunk)
                    if left < 0:
                        message = f"{path} becomes larger than {LARGEST_INNER >> 20} MiB; decompress it first."
                        raise UnreadableFileError(message, "too large")
                    target.write(chunk)
        except (EOFError, zlib.error, lzma.LZMAError, OSError, ValueError) as error:
            if isinstance(error, UnreadableFileError) or (isinstance(error, OSError) and error.errno is not None):
                raise
            raise UnreadableFileError(f"{path} cannot be decompressed: {error}", "damaged") from None
