"""Bring published shards to a machine: into its cache, for searches, or into a folder that is a sharded index again.

A file has its own name once its checksum was right, and a shard's folder once all its files are there. So a process that is
killed leaves files that the next one need not fetch again, and nothing that looks whole and is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import shutil
import sqlite3
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from colbert_core.cluster.layout import Layout, linked_folder
from colbert_core.cluster.locks import alone, shared
from colbert_core.cluster.manifests import SNAPSHOTS, Manifest, read_manifest
from colbert_core.cluster.storages import is_address, shown, storage_at
from colbert_core.errors import DamagedIndexError, IndexExistsError, IndexNotFoundError
from colbert_core.paths import as_path
from colbert_core.progress import progress_bar
from colbert_core.storage.aside import folder_begun, is_free
from colbert_core.storage.changes import Changes
from colbert_core.storage.durable import Checksum, disk_errors, put_in_place, sha256_of, step, write_synced, written_aside
from colbert_core.storage.folder import DATABASE, FILES
from colbert_core.storage.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from colbert_core.cluster.layout import Settings
    from colbert_core.cluster.manifests import ShardFiles
    from colbert_core.cluster.storages import Storage

_log = logging.getLogger(__name__)

_TIMEOUT = 60.0


def restore(
    address: str | PathLike[str],
    folder: str | PathLike[str],
    *,
    snapshot: str | None = None,
    progress: bool | None = None,
) -> Manifest:
    """Make a sharded index of a snapshot that ``publish`` made; its folder is there once it is whole.

    Every file is checked by its SHA-256. Called again after an interruption it goes on with the files that are missing.

    Args:
        address: where it was published.
        folder: the folder to make, new or empty.
        snapshot: its name, one of ``snapshots``; None for the newest.
        progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

    Returns:
        The snapshot's manifest.

    Raises:
        IndexNotFoundError: nothing is published there, or no such snapshot.
        IndexExistsError: there is something at the folder.
        DamagedIndexError: a file is missing, or not what was published.
        ClusterUnreachableError: the storage does not answer, or refuses.
        IndexWriteError: the disk is full or failed.
        MissingExtraError: pyarrow is not installed.
    """
    target = as_path(folder).absolute()
    if not is_free(target):
        raise IndexExistsError(f"{target} exists already; restore to a folder that is new or empty.")
    storage = storage_at(address)
    manifest = _manifest_of(storage, snapshot)
    with disk_errors(target):
        begun = folder_begun(target)
        with alone(begun / ".lock"), progress_bar("Restoring", len(manifest.shards), "shard", progress) as bar:
            if not is_free(target):  # somebody else was at it
                raise IndexExistsError(f"{target} has come into being meanwhile; restore to another folder.")
            work = begun / manifest.snapshot
            work.mkdir(parents=True, exist_ok=True)
            layout = Layout(work)
            if manifest.codec is not None and not layout.codec.is_file():
                _fetch_file(storage, manifest.codec, layout.codec)
            for number, shard in enumerate(manifest.shards):
                if not layout.shard(number).is_dir():
                    _fetch_shard(storage, shard, layout.shard(number))
                _rename_index(layout.shard(number), shard.identity)
                bar.update()
            layout.write(manifest.settings)
            step("restored")
            put_in_place(work, target)
        shutil.rmtree(begun, ignore_errors=True)
    return manifest


def _manifest_of(storage: Storage, snapshot: str | None) -> Manifest:
    if snapshot is None:
        return read_manifest(storage)
    names = sorted(name.removesuffix(".json") for name in storage.entries(SNAPSHOTS))
    if snapshot not in names:
        raise IndexNotFoundError(
            f"There is no snapshot {snapshot!r:.80} at {storage.name}; there are {', '.join(names[-5:]) or 'none'}."
        )
    return read_manifest(storage, f"{SNAPSHOTS}/{snapshot}.json")


def _rename_index(folder: Path, identity: str) -> None:
    """Give a restored shard an identity of its own: who has the one open that it was is told that it is another one."""
    store = Store.open(folder, timeout=_TIMEOUT)
    try:
        with store.write() as writer:
            if writer.moment_of()[0] == identity:
                writer.commit(Changes(about={"identity": uuid.uuid4().hex}))
    finally:
        store.close()


# For searches


@dataclass(frozen=True)
class Publication:
    """The newest snapshot at an address, in the place of a ``Layout``.

    Attributes:
        place: the address.
        manifest: of the snapshot.
        cache: where machines keep what they fetched; None for the usual place.
    """

    place: str
    manifest: Manifest
    cache: str | None = None
    read_only = True

    @property
    def folder(self) -> str:
        """The address for messages."""
        return shown(self.place)

    def read(self) -> Settings:
        """What ``cluster.json`` said when the index was published."""
        return self.manifest.settings

    def missing(self, n_shards: int) -> list[int]:  # noqa: ARG002
        """None: an index in parts is not published."""
        return []

    def shard(self, number: int) -> PublishedShard:
        """A shard, which its actor fetches."""
        return PublishedShard(self.place, self.cache, self.manifest.snapshot, number, self.manifest.shards[number])


@dataclass
class PublishedShard:
    """One shard of a snapshot, as an actor gets it.

    Attributes:
        place: the address.
        cache: where this machine keeps what it fetched; None for the usual place.
        snapshot: name of the snapshot.
        number: of the shard.
        files: what it is made of.
    """

    place: str
    cache: str | None
    snapshot: str
    number: int
    files: ShardFiles
    _use: list[sqlite3.Connection] = field(default_factory=list)

    def fetch(self) -> Path:
        """Return the shard's folder in this machine's cache, which is fetched first if it is not there.

        The folder stays until ``let_go``, or the end of the process: another snapshot's actors remove the shards of older ones
        that nobody uses.

        Raises:
            DamagedIndexError: a file is missing at the address, or not what was published.
            ClusterUnreachableError: the storage does not answer, or refuses.
            IndexWriteError: the disk is full or failed.
        """
        of_address = _cache_folder(self.cache) / _key(self.place)
        target = Layout(of_address / self.snapshot).shard(self.number)
        lock = _lock_of(target)
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            use = shared(lock)
            while wrong := _wrong_file(target, self.files):
                use.close()
                is_damaged = target.is_dir()
                if is_damaged:
                    _log.warning("%s is damaged: its shard is fetched again, once nobody uses it.", wrong)
                with alone(lock, _TIMEOUT if is_damaged else math.inf):
                    if target.is_dir() and _wrong_file(target, self.files):
                        shutil.rmtree(target)
                    if not target.is_dir():
                        known = sorted(of_address.glob(f"*/{target.name}"), reverse=True)
                        _fetch_shard(storage_at(self.place), self.files, target, known)
                use = shared(lock)
            self._use.append(use)
            _remove_unused(of_address, self.snapshot, target.name)
        return target

    def let_go(self) -> None:
        """Leave the folder to those who remove what nobody uses."""
        while self._use:
            self._use.pop().close()


def find_layout(folder: str | PathLike[str], cache: str | PathLike[str] | None = None) -> Layout | Publication:
    """Where a sharded index is: a folder, or an address where one is published, whose manifest is read.

    Raises:
        IndexNotFoundError: nothing is published at the address.
        ClusterUnreachableError: the storage does not answer, or refuses.
        DamagedIndexError: the manifest cannot be understood.
        ValueError: a cache is named for a folder, which needs none, or pyarrow knows no such address.
        MissingExtraError: pyarrow is not installed.
    """
    if is_address(folder):
        return Publication(str(folder), read_manifest(storage_at(folder)), None if cache is None else str(cache))
    if cache is not None:
        raise ValueError(f"cache is for an index at an address such as s3://bucket/folder; {folder} is a folder. Leave it out.")
    return Layout(linked_folder(as_path(folder).absolute()))


# The cache::
#
#     CACHE/<address>/<snapshot>/shard-0000           an index folder
#     CACHE/<address>/<snapshot>/.shard-0000.lock     whose lock has who fetches it alone, and who uses it shared


def _cache_folder(cache: str | None) -> Path:
    """The cache of this machine."""
    if cache is not None:
        return as_path(cache).absolute()
    of_user = os.environ.get("XDG_CACHE_HOME")
    return (Path(of_user) if of_user else as_path("~/.cache")) / "colbert-retrievers"


def _key(place: str) -> str:
    """The name of an address in the cache: its last part, to be read, and a hash, to be told from others."""
    readable = "".join(letter if letter.isalnum() else "-" for letter in shown(place).rpartition("/")[2])
    return f"{readable[:40]}-{hashlib.sha256(place.encode()).hexdigest()[:16]}"


def _wrong_file(folder: Path, shard: ShardFiles) -> Path | None:
    """A file of a shard in the cache that is missing or has another size; the database may have, for SQLite writes to it."""
    for name, checksum in shard.files.items():
        path = folder / name
        if not path.is_file() or (name != DATABASE and path.stat().st_size != checksum.size):
            return path
    return None


def _remove_unused(of_address: Path, snapshot: str, name: str) -> None:
    """Remove a shard of older snapshots from the cache, unless somebody on this machine uses it."""
    for lock in of_address.glob(f"*/{_lock_of(Path(name))}"):
        if lock.parent.name < snapshot:
            with contextlib.suppress(sqlite3.OperationalError, OSError), alone(lock, 0):
                for left in (lock.with_name(name), folder_begun(lock.with_name(name))):
                    shutil.rmtree(left, ignore_errors=True)


def _fetch_shard(storage: Storage, shard: ShardFiles, target: Path, known: Iterable[Path] = ()) -> None:
    """Fetch the files of a shard, but those that are here in another snapshot's folder or from an interrupted call."""
    work = folder_begun(target)
    (work / FILES).mkdir(exist_ok=True)
    for name, checksum in shard.files.items():
        path = work / name
        if not path.is_file() and not any(_linked(folder / name, path, checksum) for folder in known if name != DATABASE):
            _fetch_file(storage, checksum, path)
            step("file fetched")
    put_in_place(work, target)


def _linked(path: Path, place: Path, checksum: Checksum) -> bool:
    """Give a file that is here already another name, if it is what its checksum says."""
    if not path.is_file() or Checksum(path.stat().st_size, sha256_of(path)) != checksum:
        return False
    with contextlib.suppress(OSError):  # some file systems have no links
        os.link(path, place)
    return place.is_file()


def _fetch_file(storage: Storage, checksum: Checksum, place: Path) -> None:
    """Fetch a file by its SHA-256; it has its name once it is whole and what it should be.

    Raises:
        DamagedIndexError: it is not.
    """
    name = f"{storage.name}/{FILES}/{checksum.sha256}"
    with written_aside(place) as unfinished:
        try:
            found = write_synced(unfinished, storage.read(f"{FILES}/{checksum.sha256}"))
        except FileNotFoundError:
            raise DamagedIndexError(
                f"{name} is missing, which the snapshot needs; open the index again, since a newer one may be published, or "
                "publish it again."
            ) from None
        if found != checksum:
            raise DamagedIndexError(
                f"{name} is damaged: it has {found.size} bytes and the SHA-256 {found.sha256:.12}…, where {checksum.size} and "
                f"{checksum.sha256:.12}… were published; remove it there and publish again."
            )


def _lock_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")
