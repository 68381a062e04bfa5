"""Which indexes are served, by name. Each is opened when it is first asked for, and kept."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from colbert_core.checks import check_count
from colbert_core.cluster.layout import NAME, is_cluster
from colbert_core.cluster.manifests import read_manifest
from colbert_core.cluster.storages import is_address, shown, storage_at
from colbert_core.errors import IndexExistsError, IndexNotFoundError
from colbert_core.index.collections import Collections
from colbert_core.index.index import Index
from colbert_core.paths import as_path
from colbert_core.storage.aside import some_names
from colbert_core.storage.folder import DATABASE, is_vacant
from colbert_core.threads import new_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from os import PathLike

    from colbert_core.cluster import ShardedIndex
    from colbert_core.types import Mode, TokenEncoder

    Identity = tuple[int, int] | str
    """Of an index in a folder its file, of a published one its snapshot."""

_log = logging.getLogger(__name__)

# Seconds between two looks for a newer snapshot at an address; each reads a manifest, in 20 to 100 ms.
_LOOK_SECONDS = 60.0


class Catalogue:
    """Named indexes: folders that are indexes, addresses where some are published, and folders of collections that come and go.

    A name that somebody asks for is looked up among those there are; it never becomes part of a path otherwise than
    ``Collections`` writes it.

    An index that takes the place of another one is opened when it is next asked for. One in shards takes seconds to open, so it
    is opened beside the old one, which answers until the new one does. So is a newer snapshot of one that is published, for
    which an address is looked at once a minute while somebody asks.

    Attributes:
        watch: told of each call to a shard: the index, the shard, and the seconds that it worked, or None if it was
            lost; None tells nobody.

    Example:
        >>> catalogue = Catalogue([folder / "wiki.idx"])
        >>> catalogue.names()
        ['wiki']
        >>> len(catalogue.get("wiki"))
        2
    """

    def __init__(
        self,
        paths: Iterable[str | PathLike[str]] = (),
        encoder: str | PathLike[str] | TokenEncoder | None = None,
        *,
        indexes: Mapping[str, Index] | None = None,
        timeout: float = 60.0,
        replicas: int = 1,
    ) -> None:
        """Look at the folders; nothing is opened yet.

        Args:
            paths: each an index, in one piece or in shards, whose name is that of its folder without a suffix; or a folder of
                collections, which have their own names, and of other indexes. It may be empty, and fill later. Or an address
                where an index in shards is published, such as "s3://bucket/wiki", whose last part is the name.
            encoder: a checkpoint's name or folder, or a loaded encoder; None for the one that each index was made with.
            indexes: further ones by name, such as indexes in memory. They are not closed with the catalogue.
            timeout: seconds that a writer waits for another one.
            replicas: actors for each shard of an index in shards.

        Raises:
            IndexNotFoundError: a folder is not there, or holds other things than indexes; or nothing is published.
            IndexExistsError: two indexes have the same name.
            ClusterUnreachableError: an object storage does not answer, or refuses.
            TypeError: ``paths`` is a single one.
            ValueError: an address is that of a service, or pyarrow knows no such one.
        """
        if isinstance(paths, str | Path):
            raise TypeError(f"paths must be a list, got {paths!r}; write [{str(paths)!r}].")
        self._encoder, self._timeout, self._replicas = encoder, timeout, check_count(replicas, "replicas", "actors")
        self._lock = new_lock()
        self._loaded: TokenEncoder | None = None
        self._given = dict(indexes or {})
        self._places: dict[str, Path | str] = {}  # folders and addresses
        self._looked: dict[str, float] = {}  # when each address was last looked at
        self._collections: list[Collections] = []
        self._opened: dict[str, tuple[Identity, Index | ShardedIndex]] = {}
        self._replacing: dict[str, Identity] = {}  # the shards that are being opened beside others, or could not be
        self.watch: Callable[[str, int, float | None], None] | None = None
        for place in paths:
            if is_address(place):
                self._add_address(str(place))
            elif _is_index(path := as_path(place)):
                self._add(path.stem, path.absolute())
            else:
                self._add_collections(path)
        self.names()  # two of one name are found now

    def names(self) -> list[str]:
        """The names of all indexes, ascending.

        Raises:
            IndexExistsError: two indexes have the same name.
        """
        names = [*self._given, *self._places, *(name for collections in self._collections for name, _ in _within(collections))]
        if len(set(names)) < len(names):
            name = next(name for name in names if names.count(name) > 1)
            raise IndexExistsError(f"Two indexes are named {name!r}; rename the folder of one, or serve it elsewhere.")
        return sorted(names)

    def get(self, name: str) -> Index | ShardedIndex:
        """The index of this name, opened.

        Raises:
            IndexNotFoundError: there is none.
            StorageError, EncoderMismatchError: it cannot be opened; see ``Index.open``.
        """
        if name in self._given:
            return self._given[name]
        place = self._place_of(name)
        if isinstance(place, str):
            return self._published(name, place)
        folder, identity = place, _identity(place)
        with self._lock:
            kept = self._opened.get(name)
            if kept is not None and kept[0] != identity and is_cluster(folder) and not isinstance(kept[1], Index):
                if self._replacing.get(name) != identity:
                    self._replacing[name] = identity
                    threading.Thread(target=self._replace, args=(name, folder, identity), daemon=True).start()
            elif kept is None or kept[0] != identity:  # dropped and made anew, or moved here from elsewhere
                kept = self._opened[name] = (identity, self._open(name, folder))
            return kept[1]

    def _published(self, name: str, address: str) -> Index | ShardedIndex:
        """The index at an address; from time to time somebody looks whether there is a newer snapshot."""
        with self._lock:
            if (kept := self._opened.get(name)) is None:
                identity = _identity(address)  # before it is opened: what comes between the two is seen by the next look
                kept = self._opened[name] = (identity, self._open(name, address))
                self._looked[name] = time.monotonic()
            elif time.monotonic() - self._looked[name] > _LOOK_SECONDS:
                self._looked[name] = time.monotonic()
                threading.Thread(target=self._look, args=(name, address), daemon=True).start()
            return kept[1]

    def _look(self, name: str, address: str) -> None:
        """Open a newer snapshot, if there is one."""
        try:
            identity = _identity(address)
        except Exception:  # whoever asks is answered by what was fetched before
            _log.exception("%s cannot be looked at for a newer snapshot; that is tried again.", shown(address))
            return
        with self._lock:
            kept = self._opened.get(name)
            if kept is None or identity in (kept[0], self._replacing.get(name)):
                return
            self._replacing[name] = identity
        self._replace(name, address, identity)

    def _replace(self, name: str, place: Path | str, identity: Identity) -> None:
        """Open shards that took the place of others, and only then let go of those; each is closed once nobody has it."""
        try:
            index = self._open(name, place)
        except Exception:  # the old ones answer on; tried again when something else takes their place, or at ``reopen``
            where = shown(place) if isinstance(place, str) else place
            _log.exception("%s cannot be opened, so the index that was there before is still searched.", where)
            if isinstance(place, str):  # the next look tries again: an object storage may have failed for a moment
                with self._lock:
                    self._replacing.pop(name, None)
            return
        with self._lock:
            if self._replacing.get(name) == identity:
                self._opened[name] = (identity, index)
                del self._replacing[name]

    def encoder(self) -> TokenEncoder:
        """What encodes texts of no index: the encoder of the catalogue, else of its first index, else the model in the box.

        Raises:
            EncoderMismatchError: the first index has none.
            StorageError, CheckpointError: it cannot be opened, or the model cannot be loaded.
        """
        if self._encoder is None and (names := self.names()):
            return self.get(names[0]).encoder
        loaded = self._loaded
        if loaded is None:  # threads that come here at once get the same one
            from colbert_core.model.encoder import as_encoder  # here, because it imports torch

            loaded = self._loaded = as_encoder(self._encoder)  # kept: a process forgets a model that nobody has
        return loaded

    def reopen(self) -> None:
        """Open every index anew when it is next asked for. Those who are still searching the old one finish."""
        with self._lock:
            self._opened.clear()  # each is closed once nobody has it any more
            self._replacing.clear()
            self._loaded = None

    def close(self) -> None:
        """Close what was opened."""
        with self._lock:
            for _, index in self._opened.values():
                index.close()
            self._opened.clear()

    def __len__(self) -> int:
        return len(self.names())

    def __repr__(self) -> str:
        return f"Catalogue({self.names()})"

    def _add(self, name: str, place: Path | str) -> None:
        if name in self._places:
            one, other = (shown(each) if isinstance(each, str) else each for each in (self._places[name], place))
            raise IndexExistsError(f"{one} and {other} would both be named {name!r}; rename one of the folders.")
        self._places[name] = place

    def _add_address(self, address: str) -> None:
        if address.lower().startswith(("http://", "https://")):
            raise ValueError(f"{shown(address)} is a service, which answers by itself; name a folder, or s3://bucket/folder.")
        _identity(address)  # whether anything is published there
        self._add(PurePosixPath(shown(address)).stem, address)

    def _add_collections(self, path: Path) -> None:
        collections = Collections(path, self._encoder)
        if not any(_within(collections)) and not (path.is_dir() and is_vacant(path)):
            raise IndexNotFoundError(f"{path} is no index, and no folder of indexes; `colbert index` makes an index.")
        self._collections.append(collections)

    def _place_of(self, name: str) -> Path | str:
        if name in self._places:
            return self._places[name]
        for collections in self._collections:
            with contextlib.suppress(ValueError):  # too long for a folder, or empty: nobody's name
                if name in collections:
                    return collections.folder_of(name)
        for collections in self._collections:  # this one takes a look at every folder
            for other, folder in _within(collections):
                if other == name:
                    return folder
        raise IndexNotFoundError(f"There is no index {name!r:.100} here; those are {some_names(self.names())}.")

    def _open(self, name: str, place: Path | str) -> Index | ShardedIndex:
        if isinstance(place, str) or is_cluster(place):
            from colbert_core.cluster import ShardedIndex

            index = ShardedIndex.open(place, self._encoder, replicas=self._replicas, progress=False)
            index.watch(partial(self._tell, name))
            return index
        return Index.open(place, self._encoder, timeout=self._timeout)

    def _tell(self, name: str, shard: int, seconds: float | None) -> None:
        if self.watch is not None:
            self.watch(name, shard, seconds)


def mode_of(index: Index | ShardedIndex, mode: Mode | None, weight: float | None = None) -> Mode:
    """What ranks where a request does not say: words as well, if the index has some or a weight is given."""
    return mode or ("hybrid" if weight is not None or index.has_words() else "maxsim")


def _is_index(folder: Path) -> bool:
    return (folder / DATABASE).exists() or is_cluster(folder)


def _within(collections: Collections) -> Iterator[tuple[str, Path]]:
    """Names and folders of all indexes in a folder: collections have their names, others those of their folders."""
    if not collections.path.is_dir():
        return
    named = {collections.folder_of(name): name for name in collections}
    for folder in sorted(collections.path.iterdir()):
        if folder in named or (not folder.name.startswith(".") and _is_index(folder)):
            yield named.get(folder, folder.stem), folder


def _identity(place: Path | str) -> Identity:
    """Tell an index from one that took its place: device and inode of the file that makes its folder one, or its snapshot.

    Raises:
        IndexNotFoundError: it is gone, or nothing is published.
        ClusterUnreachableError: the object storage does not answer, or refuses.
    """
    if isinstance(place, str):
        return read_manifest(storage_at(place)).snapshot
    folder = place
    for file in (DATABASE, NAME):
        with contextlib.suppress(FileNotFoundError):
            found = (folder / file).stat()
            return found.st_dev, found.st_ino
    raise IndexNotFoundError(f"The index {folder.stem!r} is gone; it was there when the service started.")
