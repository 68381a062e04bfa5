"""Publish snapshots of a sharded index to an object storage or a folder, from where it is searched or restored.

A snapshot has one moment of each shard, which others may go on writing to. Files go there by their SHA-256, so a later
snapshot uploads what has changed, and the manifest comes last: who reads meanwhile sees the old snapshot whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.checks import check_count
from colbert_core.cluster.layout import Layout
from colbert_core.cluster.manifests import NEWEST, SNAPSHOTS, Manifest, ShardFiles, read_manifest
from colbert_core.cluster.storages import storage_at
from colbert_core.errors import ClusterError, DamagedIndexError, IndexLockedError, IndexNotFoundError
from colbert_core.paths import as_path
from colbert_core.progress import progress_bar
from colbert_core.storage.aside import folder_aside
from colbert_core.storage.changes import StaleRead
from colbert_core.storage.connection import connect
from colbert_core.storage.durable import Checksum, disk_errors, sha256_of, step
from colbert_core.storage.folder import DATABASE, FILES
from colbert_core.storage.store import Store
from colbert_core.storage.words import WordTables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike
    from pathlib import Path

    from numpy.typing import NDArray

    from colbert_core.cluster.storages import Entry, Storage

# Files on their way at a time; an object storage takes 20 to 100 ms to begin with one.
_AT_ONCE = 8
_PIECE = 2**23
# Files of no snapshot that were written since may be of somebody who is publishing.
_KEPT_SECONDS = 86_400.0
# How often a shard is looked at again because a writer replaced a file of it meanwhile.
_TRIES = 100
_TIMEOUT = 60.0
_TIME = "%Y%m%dT%H%M%SZ"


def publish(
    folder: str | PathLike[str], address: str | PathLike[str], *, keep: int = 2, progress: bool | None = None
) -> Manifest:
    """Put a snapshot of a sharded index into an object storage or a folder; ``ShardedIndex.open`` and ``restore`` read it.

    Each shard is taken at one moment, while searches and writers go on. A later snapshot at the same address uploads only
    the files that are not there yet; the manifest comes last, so whoever opens the address finds the old snapshot or the
    new one, whole. Called again after an interruption it goes on. Where nothing has changed since the newest snapshot, there
    is nothing to do. One process may publish to an address at a time.

    Args:
        folder: what ``build`` made, on this machine or seen by it.
        address: such as "s3://bucket/folder", as pyarrow takes it; or a folder, for a backup on another disk.
        keep: how many snapshots stay, the new one included. With 2, those who read the one before can go on. What an older
            one alone is made of is removed once it is a day old.
        progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

    Returns:
        The manifest of the newest snapshot.

    Raises:
        ValueError: the address is none that pyarrow knows, or the folder itself.
        IndexNotFoundError: there is no sharded index.
        DamagedIndexError: its building was not finished, or a file of it has changed since it was written.
        ClusterUnreachableError: the storage does not answer, has no such bucket, or refuses.
        ClusterError: a refit is not done, or somebody else published to the same address meanwhile.
        IndexWriteError: a disk is full or failed.
        MissingExtraError: pyarrow is not installed.
    """
    check_count(keep, "keep", "snapshots")
    layout = Layout(as_path(folder).absolute())
    settings = layout.read_finished()
    storage = storage_at(address)
    if storage.name == str(layout.folder):
        raise ValueError(f"{layout.folder} is the index itself; publish it to another folder, or to an object storage.")
    newest = _newest(storage)
    uploads = _Uploads(storage)
    if newest is not None and newest.settings == settings and uploads.has(newest) and _moments(layout) == _moments_of(newest):
        return newest
    with progress_bar("Publishing", settings.shards, "shard", progress) as bar, ThreadPoolExecutor(_AT_ONCE) as pool:
        codec = None
        if layout.codec.is_file():
            codec = _checksum_of(layout.codec)
            uploads.put(codec, _mapped(layout.codec))
        shards, codecs = [], set()
        for number in range(settings.shards):
            shard, codec_id = _put_shard(layout.shard(number), uploads, pool)
            shards.append(shard)
            codecs.add(codec_id)
            bar.update()
    if len(codecs) > 1:
        layout.check_refit()
        raise ClusterError(f"{layout.folder} was refit while it was published; publish it again.")
    manifest = Manifest(_new_name(newest), settings, codec, tuple(shards))
    if (_newest(storage) or newest) != newest:
        raise ClusterError(
            f"Somebody else published to {storage.name} meanwhile; see whether you still want to, and do it again."
        )
    step("files published")
    name = f"{SNAPSHOTS}/{manifest.snapshot}.json"
    storage.write(name, [f"{json.dumps(manifest.to_json(), indent=1)}\n".encode()])
    step("snapshot published")
    storage.copy(name, NEWEST)
    step("manifest published")
    _remove_old(storage, keep)
    return manifest


def snapshots(address: str | PathLike[str]) -> list[Manifest]:
    """The snapshots at an address, oldest first.

    Raises:
        IndexNotFoundError: nothing was published there.
        ClusterUnreachableError: the storage does not answer, or refuses.
        DamagedIndexError: a manifest cannot be understood.
    """
    storage = storage_at(address)
    names = sorted(storage.entries(SNAPSHOTS))
    if not names:
        read_manifest(storage)  # says that there is none
    return [read_manifest(storage, f"{SNAPSHOTS}/{name}") for name in names]


def _newest(storage: Storage) -> Manifest | None:
    try:
        return read_manifest(storage)
    except IndexNotFoundError:
        return None


def _new_name(newest: Manifest | None) -> str:
    """A time that is later than that of the newest snapshot, whatever the clocks say: names order snapshots."""
    now = datetime.now(UTC)
    if newest is not None:
        now = max(now, datetime.strptime(newest.snapshot, _TIME).replace(tzinfo=UTC) + timedelta(seconds=1))
    return now.strftime(_TIME)


class _Uploads:
    """Puts files into a storage that are not there yet."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._there: dict[str, Entry] = storage.entries(FILES)
        self._begun: set[str] = set()
        self._lock = threading.Lock()

    def has(self, manifest: Manifest) -> bool:
        """Whether all files of a snapshot are there."""
        return all(self._is_there(sha256, size) for sha256, size in manifest.contents().items())

    def put(self, checksum: Checksum, content: NDArray[np.uint8]) -> None:
        """Upload a file, unless it is there.

        Raises:
            DamagedIndexError: it is not what its checksum says.
        """
        with self._lock:  # all shards have the codec's file
            if self._is_there(checksum.sha256, checksum.size) or checksum.sha256 in self._begun:
                return
            self._begun.add(checksum.sha256)
        if Checksum(len(content), hashlib.sha256(content.data).hexdigest()) != checksum:
            raise DamagedIndexError(
                f"File {checksum.sha256} has changed since it was written (checksum); nothing was published. "
                "Restore the index from a copy."
            )
        self._storage.write(f"{FILES}/{checksum.sha256}", _pieces(content))
        step("file published")

    def _is_there(self, sha256: str, size: int) -> bool:
        entry = self._there.get(sha256)
        return entry is not None and entry.size == size  # one cut short by a machine that failed has another size


def _pieces(content: NDArray[np.uint8]) -> Iterator[memoryview]:
    view = content.data
    return (view[start : start + _PIECE] for start in range(0, len(view), _PIECE))


def _mapped(path: Path) -> NDArray[np.uint8]:
    return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)


def _checksum_of(path: Path) -> Checksum:
    return Checksum(path.stat().st_size, sha256_of(path))


def _moments(layout: Layout) -> list[tuple[str, int]]:
    """Which index each shard is, and how many commits there have been."""
    return [_with_store(layout.shard(number), _moment_of) for number in range(layout.read().shards)]


def _moment_of(store: Store) -> tuple[str, int]:
    with store.read() as reader:
        return reader.moment_of()


def _with_store(folder: Path, work: Any) -> Any:
    store = Store.open(folder, timeout=_TIMEOUT)
    try:
        return work(store)
    finally:
        store.close()


def _moments_of(manifest: Manifest) -> list[tuple[str, int]]:
    return [(shard.identity, shard.generation) for shard in manifest.shards]


def _put_shard(folder: Path, uploads: _Uploads, pool: ThreadPoolExecutor) -> tuple[ShardFiles, str | None]:
    """Upload one moment of a shard; no writer waits for that. Return what it is made of, and the id of its codec."""
    with disk_errors(folder), folder_aside(folder) as work:
        (identity, generation, passages, codec), contents = _with_store(
            folder, lambda store: _copy_moment(store, work / DATABASE)
        )
        _forget_deleted(work / DATABASE)
        checksums = {DATABASE: _checksum_of(work / DATABASE)}
        checksums |= {f"{FILES}/{name}": Checksum(len(content), name) for name, content in contents.items()}
        contents[checksums[DATABASE].sha256] = _mapped(work / DATABASE)
        done = [pool.submit(uploads.put, checksum, contents[checksum.sha256]) for checksum in checksums.values()]
        try:
            for each in done:
                each.result()
        finally:
            for each in done:
                each.cancel()
        contents.clear()  # Windows removes no file that is mapped
    return ShardFiles(identity, generation, passages, checksums), codec


def _copy_moment(store: Store, database: Path) -> tuple[tuple[str, int, int, str | None], dict[str, NDArray[np.uint8]]]:
    """Copy the database of one moment, and map its files, which are there until the arrays go.

    Returns:
        Identity, generation, number of passages and id of the codec, None for none; and the files by their SHA-256, each
        *Shape:* (n_bytes,), uint8.
    """
    for _ in range(_TRIES):
        with contextlib.suppress(StaleRead), store.read() as reader:
            mapped = {file.name: reader.bytes_of(file) for file in reader.files()}
            codec = next((file.sha256 for file in reader.files("codec")), None)
            about = (*reader.moment_of(), reader.count(), codec)
            reader.dump(database)
            return about, {name: content for name, content in mapped.items() if content is not None}
    raise IndexLockedError(
        f"{store.folder} changed {_TRIES} times while it was copied; publish while fewer writers are at work."
    )


def _forget_deleted(database: Path) -> None:
    """Write a copied database anew: in the room that SQLite keeps for later are texts that were deleted, and so are words."""
    with disk_errors(database), contextlib.closing(connect(database, "rw", _TIMEOUT)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        WordTables(connection, lambda sql, values=(): connection.execute(sql, values).fetchall(), str(database)).optimize()
        connection.execute("VACUUM")


def _remove_old(storage: Storage, keep: int) -> None:
    """Remove the manifests of all but the newest snapshots, then the files that none of these has."""
    names = sorted(storage.entries(SNAPSHOTS))
    named: set[str] = set()
    for name in names[-keep:]:
        named.update(read_manifest(storage, f"{SNAPSHOTS}/{name}").contents())
    for name in names[:-keep]:
        storage.remove(f"{SNAPSHOTS}/{name}")
    until = time.time() - _KEPT_SECONDS
    for name, entry in storage.entries(FILES).items():
        if name not in named and entry.changed < until:
            storage.remove(f"{FILES}/{name}")
