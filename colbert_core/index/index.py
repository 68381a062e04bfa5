"""A collection of passages, on disk or in memory, that can be searched, added to and deleted from at any time.

In reading order: ``Index`` (what users call), ``versions`` (the newest moment of an index), ``view`` (what can be asked of a
moment), ``writing`` (what changes it), ``compaction`` (what that does to segments).
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from colbert_core.checks import id_list
from colbert_core.errors import EncoderMismatchError, StorageError
from colbert_core.index import writing
from colbert_core.index.batches import dump_all
from colbert_core.index.extension import Extension, extend_codec
from colbert_core.index.reading import ReadableIndex
from colbert_core.index.settings import check_device, check_timeout, check_words, stored_settings, vector_settings
from colbert_core.index.versions import Versions
from colbert_core.model.fingerprint import EncoderFingerprint, LazyEncoder, about_encoder, loaded_encoder
from colbert_core.paths import as_path
from colbert_core.storage.store import Store, made_aside
from colbert_core.types import TokenEmbeddings
from colbert_core.vectors.pooling import check_factor, pool_embeddings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from os import PathLike
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from colbert_core.index.foreign import ForeignIndex
    from colbert_core.index.restriction import Restriction
    from colbert_core.types import Passage, TokenEncoder, Where
    from colbert_core.vectors.codec import ResidualCodec
    from colbert_core.vectors.segment import Segment

    Matrices = Sequence[NDArray[np.float32]]

_TIMEOUT = 60.0


class Index(ReadableIndex):
    """Passages and their token vectors. On disk a folder, compressed once it is large; in memory as it is.

    Any number of threads and processes may search while one writes: a search sees one whole state, the newest, and does
    not wait. What a call has added or deleted is safe on disk when the call returns; what failed or was interrupted is in
    as a whole or not at all. Passages go in and come out as copies, with their metadata in the form of ``plain_metadata``.

    Example:
        >>> index = Index.create()
        >>> index.add([Passage("a", "Cats purr when they are content."), Passage("b", "Rust is a systems language.")])
        ['a', 'b']
        >>> index.search("happy pets", k=1)[0].passage.id
        'a'
    """

    def __init__(self, store: Store, encoder: TokenEncoder | None, device: str | None = None) -> None:
        """Use ``create`` or ``open``."""
        name = "The index in memory" if store.folder is None else f"The index {store.folder}"
        with store.read() as reader:
            about, file = stored_settings(reader.about(), name), reader.connection.file_id
        self._store, self._closed = store, weakref.finalize(self, store.close)
        self._nbits: int | None = about["nbits"]
        self._pool_factor: float = about["pool_factor"]
        self._encoder = LazyEncoder(EncoderFingerprint.from_about(about, name), encoder)
        self._versions = Versions(store, name, about, file=file, device=device, encoder=self._encoder)
        store.connections.after_fork = weakref.WeakMethod(self._renew_locks)

    def _renew_locks(self) -> None:
        self._encoder.renew_lock()
        self._versions.renew_lock()

    @classmethod
    def create(
        cls,
        path: str | PathLike[str] | None = None,
        encoder: str | PathLike[str] | TokenEncoder | None = None,
        *,
        dim: int | None = None,
        nbits: int | None = None,
        overwrite: bool = False,
        timeout: float = _TIMEOUT,
        device: str | None = None,
        codec: ResidualCodec | None = None,
        words: str | Literal[False] | None = None,
        pool_factor: float = 1,
    ) -> Index:
        """Make an empty index.

        Args:
            path: the folder to make; None for an index in memory.
            encoder: a checkpoint's name or folder, or a loaded encoder; None for the model in the box.
            dim: components of the vectors; with ``dim`` and no encoder the index takes vectors from elsewhere only.
            nbits: bits per component of a compressed vector, 1, 2, 4 or 8, or 32 to keep vectors as they are; None for 4 on
                disk and 32 in memory. Collections of fewer than 131,072 tokens stay uncompressed for the time being.
            overwrite: empty the index that is at ``path`` already, in one step; anything else there is left alone.
            timeout: seconds that a writer waits for another one.
            device: where searches score, such as "cuda"; None for the CPU. A GPU scores every passage, so it needs no config.
            codec: compress with this one from the first passage on, and never with another, as the parts of one collection
                do; its bits are those of ``nbits``. None fits one to the collection once it is large enough.
            words: how texts are cut into words, for hybrid search: "english" (stems, without stop words), "words" (of any
                language, as they are) or "trigrams" (three letters each); False counts none. None is "english", and False for
                vectors from elsewhere.
            pool_factor: keep about 1 / pool_factor of the vectors of whatever is added, as ``add`` does; 1 keeps all of them.

        Raises:
            IndexExistsError: there is something at ``path``.
            TypeError: ``pool_factor`` is no number.
            ValueError: ``dim``, ``nbits`` or ``pool_factor`` is out of range, the encoder or the codec has another dim, or
                there is no such device.
        """
        check_device(device)
        loaded = loaded_encoder(encoder) if encoder is not None or dim is None else None
        settings = vector_settings(loaded, dim, nbits, codec, in_memory=path is None, pool_factor=pool_factor)
        about = {**settings, **about_encoder(loaded)}
        about["words"] = check_words(words, has_texts=loaded is not None)
        folder = None if path is None else as_path(path)
        index = cls(Store.create(folder, about, overwrite=overwrite, timeout=check_timeout(timeout)), loaded, device)
        if codec is not None:
            writing.take_codec(index._store, codec, fitted_on=None)
        return index

    @classmethod
    def open(
        cls,
        path: str | PathLike[str],
        encoder: str | PathLike[str] | TokenEncoder | None = None,
        *,
        timeout: float = _TIMEOUT,
        device: str | None = None,
    ) -> Index:
        """Open an index on disk, for reading only if its folder cannot be written to.

        Args:
            path: its folder.
            encoder: a checkpoint's name or folder, or a loaded encoder; None for the one the index was made with,
                which is then loaded when it is first needed.
            timeout: seconds that a writer waits for another one.
            device: as in ``create``.

        Raises:
            IndexNotFoundError: there is no index.
            DamagedIndexError: a file is missing or cut short.
            UnsupportedIndexError: a newer version of this package wrote it.
            EncoderMismatchError: the index was made with another encoder.
            ValueError: there is no such device.
        """
        check_device(device)
        store = Store.open(as_path(path), timeout=check_timeout(timeout))
        try:
            index = cls(store, None if encoder is None else loaded_encoder(encoder), device)
            index._versions.read(lambda view: view.state)  # a file that cannot be used is found now, not by the first search
        except BaseException:
            store.close()
            raise
        return index

    @classmethod
    def convert(
        cls,
        foreign: ForeignIndex,
        path: str | PathLike[str] | None = None,
        encoder: str | PathLike[str] | TokenEncoder | None = None,
        *,
        words: str | Literal[False] | None = None,
        progress: bool | None = None,
    ) -> Index:
        """Make an index of one that another library built, with its codec, codes and residuals: nothing is encoded again.

        Args:
            foreign: what ``read_foreign_index`` returned.
            path: the folder to make; None for an index in memory.
            encoder: what encoded it; None for the one the other index names.
            words: how texts are cut into words, as for ``create``; None is "english".
            progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

        Raises:
            IndexExistsError: there is something at ``path``.
            ValueError: words can be cut in no such way.
            DamagedIndexError: a file of the other index is damaged.
            EncoderMismatchError: the encoder's vectors have another dim.
        """
        loaded, codec = None if encoder is None else loaded_encoder(encoder), foreign.codec
        if loaded is not None and loaded.dim != codec.dim:
            raise EncoderMismatchError(
                f"The {foreign.kind} index holds vectors of dim {codec.dim}, but the encoder "
                f"{getattr(loaded, 'name', loaded)!r:.200} has dim {loaded.dim}; name the one it was made with."
            )
        settings = vector_settings(loaded, codec.dim, codec.nbits, codec, in_memory=path is None)
        about = {**settings, **about_encoder(loaded, foreign.encoder), "words": check_words(words, has_texts=True)}
        if path is None:
            index = cls(Store.create(None, about, overwrite=False, timeout=_TIMEOUT), loaded)
            writing.import_foreign(index._store, index._versions, foreign, progress)
            return index
        folder = as_path(path)
        with made_aside(folder) as aside, cls(Store.create(aside, about, overwrite=False, timeout=_TIMEOUT), loaded) as index:
            writing.import_foreign(index._store, index._versions, foreign, progress)
        return cls.open(folder, loaded)

    def add(
        self,
        passages: Iterable[Passage],
        *,
        embeddings: Iterable[NDArray[np.float32]] | TokenEmbeddings | None = None,
        pool_factor: float = 1,
        refit: bool = True,
        progress: bool | None = None,
    ) -> list[str]:
        """Add passages; one whose id is known already replaces the old one.

        They are taken, encoded and committed some thousand at most at a time, so memory stays bounded and ``passages`` may
        be a generator. Each batch is in the index whole or not at all. A list is checked before anything is added.

        Args:
            passages: with ids that differ from each other.
            embeddings: their vectors, if they were made elsewhere: one (n, dim) array for each passage, n at least 1, or
                what an encoder returned for all of them. Rows are scaled to length 1.
            pool_factor: keep about 1 / pool_factor of each passage's vectors, the means of similar ones, at some cost in
                quality; 1 keeps all of them. The model's own tokens, such as [CLS], always stay. If the index was made with
                a larger factor, that one counts.
            refit: compress the index when it has become large enough for that, and find more centroids when it has grown
                fourfold; this takes minutes for millions of tokens. False leaves that to a later add, or to ``compact``.
            progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

        Returns:
            Their ids, in the order given.

        Raises:
            TypeError: something is not a ``Passage``, metadata is not JSON, or pool_factor is no number.
            ValueError: two passages of this call have the same id, pool_factor is below 1, or embeddings do not fit.
            PartialAddError: any error after the first batch was committed; ``added`` says what is in.
            IndexLockedError: another writer was busy for longer than the timeout.
            IndexWriteError: the disk is full.
        """
        return writing.add_in_batches(
            passages,
            embeddings,
            dim=self.dim,
            encode=lambda texts, bar: self.encoder.encode_passages(texts, progress=bar),
            commit=partial(
                writing.commit_batch,
                self._store,
                self._versions,
                of_encoder=embeddings is None or isinstance(embeddings, TokenEmbeddings),
            ),
            pool_factor=max(check_factor(pool_factor), self._pool_factor),
            progress=progress,
            label="Indexing",
            refit=partial(self._refit_if_due, progress=progress) if refit else None,
        )

    def delete(self, ids: Iterable[str]) -> int:
        """Delete passages by id; unknown ids are no error.

        Returns:
            How many passages are gone.

        Raises:
            TypeError: ``ids`` is one string.
        """
        return writing.delete_ids(self._store, self._versions, id_list(ids))

    def delete_where(self, where: Where) -> int:
        """Delete the passages that a filter matches; ``{}`` matches all of them.

        Returns:
            How many passages are gone.

        Raises:
            TypeError, ValueError: the filter is wrong; see ``search``.
        """
        return writing.delete_where(self._store, self._versions, where)

    def _update_metadata(self, restriction: Restriction, metadata: dict[str, Any], remove: list[str]) -> int:
        return writing.update_metadata(self._store, self._versions, restriction, metadata, remove)

    def clear(self) -> None:
        """Delete all passages, and the codec that was fitted to them."""
        writing.clear_passages(self._store, self._versions)

    def compact(self, *, progress: bool | None = None) -> None:
        """Put everything into one segment, without what was deleted, and give the room back.

        The words for hybrid search are put into one piece as well, and counted where the index was made before there were any.
        An index with ``nbits`` that is not compressed yet is compressed if it has 1,024 tokens or more. Searches go on
        meanwhile, writers wait.

        Args:
            progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.
        """
        self._refit_if_due(writing.SMALLEST_FIT, progress=progress)
        self._merge()

    def _merge(self) -> None:
        writing.merge_segments(self._store, self._versions)
        self._store.vacuum()

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write a copy of the newest state to a folder, which ``Index.open`` opens.

        Args:
            path: a folder that is new or empty.
            overwrite: take the place of an index that is at ``path`` already, in one step; anything else there is left
                alone. An index on disk is at its own path already, so that there is nothing to do.

        Raises:
            IndexExistsError: there is something at ``path``.
        """
        target, own = as_path(path), self._store.folder
        if overwrite and own is not None and target.resolve() == own.resolve():  # also through a link
            return
        self._versions.copy_to(target, overwrite=overwrite)

    def close(self) -> None:
        """Let go of the files. A closed index cannot be used any more; closing it again is no error."""
        self._closed()
        self._versions.forget()

    def _put_files(self, passages: Sequence[Passage], files: writing.FileChanges) -> None:
        """Add passages of files, replacing those that these files gave before, in one commit."""
        metadata = dump_all(passages)
        windows = None
        if passages:
            windows = self.encoder.encode_passages([passage.text for passage in passages], progress=False)
            windows = pool_embeddings(windows, self._pool_factor)
        writing.commit_batch(self._store, self._versions, passages, metadata, windows, [], of_encoder=True, files=files)

    def _put_part(
        self,
        passages: Sequence[Passage],
        windows: TokenEmbeddings | Segment | None,
        files: writing.FileChanges,
        home: Sequence[str],
    ) -> None:
        """What ``_put_files`` of an index in shards has for this one of them."""
        writing.commit_part(self._store, self._versions, passages, windows, files, home)

    def _extend_codec(self, path: Path) -> None:
        """Take the codec with more centroids that is written down in a file, unless that is done already."""
        extend_codec(self._store, self._versions, Extension.read(path))

    def _put_windows(self, passages: Sequence[Passage], windows: Segment) -> None:
        """Add passages in one commit; their windows are compressed by the codec of this index, or by none if it has none."""
        writing.commit_batch(self._store, self._versions, passages, dump_all(passages), windows, [])

    def _refit_if_due(self, first: int, *, progress: bool | None) -> None:
        if self._nbits is not None:
            writing.refit_if_due(self._store, self._versions, self._nbits, first, progress)

    def __repr__(self) -> str:
        where = "in memory" if self._store.folder is None else repr(str(self._store.folder))
        try:
            content = f"{len(self)} passages"
        except (StorageError, ValueError):
            content = "unreadable" if self._closed.alive else "closed"
        return f"Index({where}, {content}, {self.made_with.encoder})"

    def __reduce__(self) -> tuple[Any, ...]:
        """In memory, a copy of everything; on disk, the folder."""
        folder = self._store.folder
        content = self._store.to_bytes() if folder is None else str(folder.absolute())
        return _unpickled, (content, self._encoder.loaded, self._store.connections.timeout, self._versions.device)


def _unpickled(content: Any, encoder: TokenEncoder | None, timeout: float, device: str | None) -> Index:
    if isinstance(content, str):
        return Index.open(content, encoder, timeout=timeout, device=device)
    return Index(Store.from_bytes(*content, timeout=timeout), encoder, device)
