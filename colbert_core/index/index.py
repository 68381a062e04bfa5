"""A collection of passages, on disk or in memory, that can be searched, added to and deleted from at any time.

In reading order: ``Index`` (what users call), ``versions`` (the newest moment of an index), ``view`` (what can be asked of a
moment), ``writing`` (what changes it), ``compaction`` (what that does to segments).
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from colbert_core.checks import check_count, check_relevance, check_share, id_list
from colbert_core.errors import EncoderMismatchError, StorageError
from colbert_core.index import writing
from colbert_core.index.base import IndexBase, check_unit_matrices
from colbert_core.index.restriction import Restriction
from colbert_core.index.settings import check_device, check_timeout, stored_settings, vector_settings
from colbert_core.index.tuning import tune
from colbert_core.index.verification import verify
from colbert_core.index.versions import Versions
from colbert_core.model.fingerprint import EncoderFingerprint, LazyEncoder, about_encoder, loaded_encoder
from colbert_core.paths import as_path
from colbert_core.storage.store import Store, made_aside
from colbert_core.types import TokenEmbeddings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from os import PathLike

    import numpy as np
    from numpy.typing import NDArray

    from colbert_core.evidence.evidence import Evidence
    from colbert_core.index.foreign import ForeignIndex
    from colbert_core.index.reports import IndexStats, Tuning, Verification
    from colbert_core.search.config import SearchConfig
    from colbert_core.storage.fields import Survey
    from colbert_core.types import Hit, Passage, Query, TokenEncoder, Where
    from colbert_core.vectors.codec import ResidualCodec

    Matrices = Sequence[NDArray[np.float32]]

_TIMEOUT = 60.0


class Index(IndexBase):
    """Passages and their token vectors. On disk a folder, compressed once it is large; in memory as it is.

    Any number of threads and processes may search while one writes: a search sees one whole state, the newest, and does
    not wait. What a call has added or deleted is safe on disk when the call returns; what failed or was interrupted is in
    as a whole or not at all. Passages go in and come out as copies; metadata are what JSON can hold.

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

        Raises:
            IndexExistsError: there is something at ``path``.
            ValueError: ``dim`` or ``nbits`` is out of range, the encoder or the codec has another dim, or there is no such
                device.
        """
        check_device(device)
        loaded = loaded_encoder(encoder) if encoder is not None or dim is None else None
        about = {**vector_settings(loaded, dim, nbits, codec, in_memory=path is None), **about_encoder(loaded)}
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
        progress: bool | None = None,
    ) -> Index:
        """Make an index of one that another library built, with its codec, codes and residuals: nothing is encoded again.

        Args:
            foreign: what ``read_foreign_index`` returned.
            path: the folder to make; None for an index in memory.
            encoder: what encoded it; None for the one the other index names.
            progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

        Raises:
            IndexExistsError: there is something at ``path``.
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
        about = {**settings, **about_encoder(loaded, foreign.encoder)}
        if path is None:
            index = cls(Store.create(None, about, overwrite=False, timeout=_TIMEOUT), loaded)
            writing.import_foreign(index._store, index._versions, foreign, progress)
            return index
        folder = as_path(path)
        with made_aside(folder) as aside, cls(Store.create(aside, about, overwrite=False, timeout=_TIMEOUT), loaded) as index:
            writing.import_foreign(index._store, index._versions, foreign, progress)
        return cls.open(folder, loaded)

    @property
    def codec_id(self) -> str | None:
        """SHA-256 of the codec, hexadecimal; None while the index is uncompressed. Equal codecs have equal ids."""
        file = self._versions.read(lambda view: view.state).codec_file
        return None if file is None else file.sha256

    def search_vectors(
        self,
        matrices: Iterable[NDArray[np.float32]],
        k: int = 10,
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        min_relevance: float | None = None,
        config: SearchConfig | None = None,
        exact: bool = False,
        mean: bool = False,
    ) -> list[list[Hit]]:
        """``search_many`` by what an encoder made, taken as it is: to scale it again would change its last digits.

        Args:
            matrices: *Shape:* (n_q, dim) each, float32, unit rows.
            k: as in ``search``, and so are the others.
            where: as in ``search``.
            ids: as in ``search``.
            min_relevance: as in ``search``.
            config: as in ``search``.
            exact: as in ``search``.
            mean: rank by the mean over all matrices, as ``search_mean`` does; there is one list of hits then.

        Raises:
            ValueError: a matrix has another shape or type, or rows of another length.
        """
        k, min_relevance = check_count(k, "k"), check_relevance(min_relevance, "min_relevance")
        restriction, checked = Restriction(where, ids), check_unit_matrices(matrices, self.dim)
        if mean:
            return [self._mean(checked, k, restriction, config=config, exact=exact, min_relevance=min_relevance)]
        return self._hits(checked, k, restriction, config=config, exact=exact, min_relevance=min_relevance)

    def _hits(self, matrices: Matrices, k: int, restriction: Restriction, **options: Any) -> list[list[Hit]]:
        return self._versions.read(lambda view: view.hits(matrices, k, **options), restriction)

    def _mean(self, matrices: Matrices, k: int, restriction: Restriction, **options: Any) -> list[Hit]:
        return self._versions.read(lambda view: view.mean(matrices, k, **options), restriction)

    def search_diverse(
        self,
        query: Query,
        k: int = 10,
        fetch_k: int = 50,
        lambda_mult: float = 0.5,
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        min_relevance: float | None = None,
        config: SearchConfig | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        """Find passages that match a query and differ from each other, by maximal marginal relevance.

        Of the ``fetch_k`` best, each step takes the one with the greatest ``lambda_mult * relevance - (1 - lambda_mult) *
        likeness``, where likeness is the mean MaxSim per vector, both ways, to the most similar one taken before
        (Carbonell and Goldstein, SIGIR 1998).

        Args:
            query: as in ``search``; so are the other arguments.
            k: most hits, at least 1.
            fetch_k: how many of the best are chosen from; k if that is more.
            lambda_mult: from 0 (as different as possible) to 1 (as relevant as possible).
            where: as in ``search``.
            ids: as in ``search``.
            min_relevance: as in ``search``.
            config: as in ``search``.
            exact: as in ``search``.

        Returns:
            Hits in the order in which they were taken; ``rank`` is that order.
        """
        k, fetch_k = check_count(k, "k"), check_count(fetch_k, "fetch_k")
        min_relevance, weight = check_relevance(min_relevance, "min_relevance"), check_share(lambda_mult, "lambda_mult")
        restriction, (matrix,) = Restriction(where, ids), self._matrices([query])
        return self._versions.read(
            lambda view: view.diverse(matrix, k, fetch_k, weight, config=config, exact=exact, min_relevance=min_relevance),
            restriction,
        )

    def _explain(self, query: str, passage: str | Passage, min_similarity: float) -> Evidence:
        passage_id, (matrix,) = passage if isinstance(passage, str) else passage.id, self._matrices([query])
        return self._versions.read(lambda view: view.explain(query, matrix, passage_id, min_similarity))

    def _survey(self, paths: Sequence[str], value: str | None = None) -> Survey:
        return self._versions.read(lambda view: view.reader.survey(paths, value))

    def tune(
        self,
        target_recall: float = 0.95,
        *,
        k: int = 10,
        queries: Iterable[Query] | None = None,
        progress: bool | None = None,
    ) -> Tuning:
        """Find the quickest search that finds enough of what scoring every passage would find.

        Args:
            target_recall: part of the ``k`` best passages that has to be found on average, from 0 to 1.
            k: hits that are wanted.
            queries: texts or matrices like those to come, fifty or more; None takes 50 passages, each as a query of up to 32
                of its own vectors.
            progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

        Returns:
            The config with its measured recall and time, on the CPU. The last one that is tried scores everything.

        Raises:
            ValueError: the index is empty, or there are no queries.
        """
        target_recall, k = check_share(target_recall, "target_recall"), check_count(k, "k")
        matrices = None if queries is None else self._matrices(list(queries))
        if matrices == [] or not len(self):
            raise ValueError(f"{self!r} cannot be tuned without {'queries' if matrices == [] else 'passages'}; give some.")
        return self._versions.read(lambda view: tune(view, matrices, k, target_recall, progress))

    def get(self, ids: Iterable[str]) -> list[Passage | None]:
        """The passages with these ids, in their order; None where there is none.

        Raises:
            TypeError: ``ids`` is one string.
        """
        wanted = id_list(ids)
        return self._versions.read(lambda view: view.get(wanted))

    def ids(self, where: Where | None = None) -> list[str]:
        """The ids of all passages, or of those that a filter matches, in the order in which they were added.

        Raises:
            TypeError, ValueError: the filter is wrong; see ``search``.
        """
        return self._versions.read(lambda view: view.ids(), Restriction(where))

    def embeddings(self, ids: Iterable[str]) -> list[NDArray[np.float32]]:
        """The vectors of these passages as the index keeps them, those of all windows one after the other.

        Returns:
            For each id *Shape:* (n_tokens, dim), float32, unit rows; n_tokens differs, and is 0 where nothing can be read.

        Raises:
            TypeError: ``ids`` is one string.
            ValueError: there is no passage with an id.
        """
        wanted = id_list(ids)
        return self._versions.read(lambda view: view.embeddings(wanted, self.dim))

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
                quality; 1 keeps all of them. The model's own tokens, such as [CLS], always stay.
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
            pool_factor=pool_factor,
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

    def clear(self) -> None:
        """Delete all passages, and the codec that was fitted to them."""
        writing.clear_passages(self._store, self._versions)

    def compact(self, *, progress: bool | None = None) -> None:
        """Put everything into one segment, without what was deleted, and give the room back.

        An index with ``nbits`` that is not compressed yet is compressed if it has 1,024 tokens or more. Searches go on
        meanwhile, writers wait.

        Args:
            progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.
        """
        self._refit_if_due(writing.SMALLEST_FIT, progress=progress)
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

    def stats(self) -> IndexStats:
        """Figures of the newest state."""
        return self._versions.read(lambda view: view.stats(dim=self.dim, nbits=self._nbits, encoder_name=self.encoder_name))

    def verify(self, n_queries: int = 20, *, progress: bool | None = None) -> Verification:
        """Check every checksum, that all parts fit together, and how much a plain search finds.

        Args:
            n_queries: how many passages are sampled, each as a query of up to 32 of its own vectors.
            progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.
        """
        return self._versions.read(partial(verify, n_queries=check_count(n_queries, "n_queries", "queries"), progress=progress))

    def close(self) -> None:
        """Let go of the files. A closed index cannot be used any more; closing it again is no error."""
        self._closed()
        self._versions.forget()

    def _refit_if_due(self, first: int, *, progress: bool | None) -> None:
        if self._nbits is not None:
            writing.refit_if_due(self._store, self._versions, self._nbits, first, progress)

    def __len__(self) -> int:
        return self._versions.read(lambda view: view.reader.count())

    def __contains__(self, passage_id: object) -> bool:
        try:
            wanted = id_list([passage_id])  # type: ignore[list-item]
        except (TypeError, ValueError):  # no text, so nobody's id
            return False
        return bool(self._versions.read(lambda view: view.reader.rows_of(wanted)))

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
