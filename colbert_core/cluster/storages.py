"""Files at an address: in an object storage such as S3, by pyarrow, or in a folder. What the files mean is known elsewhere.

pyarrow comes with Ray Data, and ``build`` reads its sources by it, so that both take the same addresses and credentials. fsspec
would need s3fs and aiobotocore beside it.
"""

from __future__ import annotations

import contextlib
import re
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from colbert_core.errors import ClusterUnreachableError
from colbert_core.extras import import_extra
from colbert_core.paths import as_path
from colbert_core.storage.durable import disk_errors, step, written_aside

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from os import PathLike
    from pathlib import Path

# A file is read so many bytes at a time.
_PIECE = 2**22


@dataclass(frozen=True)
class Entry:
    """A file that is there.

    Attributes:
        size: bytes.
        changed: when it was written, in seconds since 1970.
    """

    size: int
    changed: float


class Storage(Protocol):
    """Files by their names, such as "files/abc", below one address.

    Attributes:
        name: the address without passwords, for messages.
    """

    name: str

    def read(self, name: str) -> Iterator[bytes]:
        """Read a file piece by piece.

        Raises:
            FileNotFoundError: there is none.
            ClusterUnreachableError: the storage does not answer, or refuses.
        """

    def write(self, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        """Write a new file, which is there under its name once it is whole, and not at all if this fails.

        Raises:
            ClusterUnreachableError: the storage does not answer, or refuses.
            IndexWriteError: the disk is full or failed.
        """

    def copy(self, name: str, to: str) -> None:
        """Copy a file, in one step: who reads ``to`` sees the old content or the new one. Raises as ``write`` does."""

    def entries(self, folder: str) -> dict[str, Entry]:
        """The files in a folder by their names there; none if there is no folder."""

    def remove(self, name: str) -> None:
        """Remove a file that is there."""


def storage_at(address: str | PathLike[str]) -> Storage:
    """The storage at an address: "s3://bucket/folder" or whatever else pyarrow knows, or a folder of this machine.

    Raises:
        ValueError: pyarrow knows no such address.
        MissingExtraError: pyarrow is not installed.
    """
    text = str(address)
    if not is_address(text):
        return FolderStorage(as_path(address).absolute())
    if text.startswith("file://"):
        return FolderStorage(as_path(urllib.parse.unquote(urllib.parse.urlsplit(text).path)))
    fs = import_extra("pyarrow.fs", "An object storage", "pyarrow", "'ray[data]>=2.52'")
    try:
        filesystem, inner = fs.FileSystem.from_uri(text)
    except ValueError as error:
        reason = str(error).replace(text, shown(text))
        raise ValueError(
            f"{shown(text)} is no address that pyarrow knows, such as s3://bucket/folder ({reason:.300}); "
            "the URL of a service begins with http:// or https://."
        ) from None
    except OSError as error:
        raise _refusal(shown(text), "used", error) from None
    if not inner.strip("/"):
        raise ValueError(f"{shown(text)} names no bucket; an address is such as s3://bucket/folder.")
    return ObjectStorage(filesystem, inner.rstrip("/"), shown(text))


def is_address(place: object) -> bool:
    """Whether this names something in a storage, "s3://bucket/folder", and not a path."""
    return isinstance(place, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", place) is not None


def shown(address: str) -> str:
    """An address for messages: without user, password and settings."""
    parts = urllib.parse.urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


class FolderStorage:
    """Files in a folder of this machine, written as safely as an index."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder

    def read(self, name: str) -> Iterator[bytes]:
        """See ``Storage.read``."""
        path = self._folder / name
        try:
            with path.open("rb") as file:
                yield from iter(lambda: file.read(_PIECE), b"")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _refusal(str(path), "read", error) from None

    def write(self, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        """See ``Storage.write``."""
        path = self._folder / name
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_aside(path, shared=True) as unfinished, unfinished.open("wb") as file:
                for piece in pieces:
                    file.write(piece)
                step("file written")

    def copy(self, name: str, to: str) -> None:
        """See ``Storage.copy``."""
        self.write(to, self.read(name))

    def entries(self, folder: str) -> dict[str, Entry]:
        """See ``Storage.entries``."""
        place = self._folder / folder
        if not place.is_dir():
            return {}
        with disk_errors(place, reading=True):
            found = [(path.name, path.stat()) for path in place.iterdir() if path.is_file()]
        return {name: Entry(status.st_size, status.st_mtime) for name, status in found}

    def remove(self, name: str) -> None:
        """See ``Storage.remove``."""
        with disk_errors(self._folder / name):
            (self._folder / name).unlink(missing_ok=True)


class ObjectStorage:
    """Files in an object storage. There a file appears when it is whole."""

    def __init__(self, filesystem: Any, folder: str, name: str) -> None:
        """Take what is connected.

        Args:
            filesystem: of pyarrow.
            folder: the bucket, and what lies in it behind slashes.
            name: of the address, for messages.
        """
        self.name = name
        self._filesystem, self._folder = filesystem, folder

    def read(self, name: str) -> Iterator[bytes]:
        """See ``Storage.read``."""
        with self._errors(name, "read"), self._filesystem.open_input_stream(f"{self._folder}/{name}") as stream:
            while piece := stream.read(_PIECE):
                yield piece

    def write(self, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        """See ``Storage.write``."""
        with self._errors(name, "written"):
            stream = self._filesystem.open_output_stream(f"{self._folder}/{name}")
            try:
                for piece in pieces:
                    stream.write(piece)
                stream.close()
            except BaseException:
                with contextlib.suppress(OSError):  # pyarrow cannot give up a file: what was begun is there once it is closed
                    stream.close()
                    self._filesystem.delete_file(f"{self._folder}/{name}")
                raise

    def copy(self, name: str, to: str) -> None:
        """See ``Storage.copy``."""
        with self._errors(to, "written"):
            self._filesystem.copy_file(f"{self._folder}/{name}", f"{self._folder}/{to}")

    def entries(self, folder: str) -> dict[str, Entry]:
        """See ``Storage.entries``."""
        fs = import_extra("pyarrow.fs", "An object storage", "pyarrow", "'ray[data]>=2.52'")
        with self._errors(folder, "listed"):
            found = self._filesystem.get_file_info(fs.FileSelector(f"{self._folder}/{folder}", allow_not_found=True))
        return {
            entry.base_name: Entry(entry.size, entry.mtime.timestamp()) for entry in found if entry.type == fs.FileType.File
        }

    def remove(self, name: str) -> None:
        """See ``Storage.remove``."""
        with self._errors(name, "removed"), contextlib.suppress(FileNotFoundError):
            self._filesystem.delete_file(f"{self._folder}/{name}")

    @contextlib.contextmanager
    def _errors(self, name: str, done: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _refusal(f"{self.name}/{name}", done, error) from None


# What storages say, and what to do about it.
_REASONS = (
    (("NO_SUCH_BUCKET", "bucket does not exist", "NoSuchBucket"), "there is no such bucket; make it, or name another"),
    (
        ("ACCESS_DENIED", "AccessDenied", "HTTP status 403", "FORBIDDEN", "Permission denied"),
        "this machine may not; give it the right to read, list, write and remove there",
    ),
    (
        ("INVALID_ACCESS_KEY_ID", "InvalidAccessKeyId", "SIGNATURE_DOES_NOT_MATCH", "INVALID_CLIENT_TOKEN_ID"),
        "the key is unknown or wrong; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    (("NETWORK_CONNECTION", "curlCode"), "nothing answers there; is the address right, and the network up?"),
)


def _refusal(name: str, done: str, error: OSError) -> ClusterUnreachableError:
    """The error that says in one line what could not be done, why, and what to do."""
    message = " ".join(str(error).split())
    for words, reason in _REASONS:
        if any(word in message for word in words):
            return ClusterUnreachableError(f"{name} cannot be {done}: {reason}.")
    return ClusterUnreachableError(f"{name} cannot be {done} ({message:.300}); is it there, and may this machine?")
