"""A collection of passages, on disk or in memory, that can be searched, added to and deleted from at any time."""

from __future__ import annotations

import contextlib
import copy
import threading
import time
import weakref
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from colbert_core.checks import check_count, check_passages, check_relevance, check_share, check_similarity
from colbert_core.errors import DamagedIndexError, EncoderMismatchError, IndexLockedError, PartialAddError, StorageError
from colbert_core.evidence.evidence import MIN_SIMILARITY, Evidence
from colbert_core.index.compaction import buried, compressed, extended, merged, misfits, recompressed, sampled, written
from colbert_core.index.state import State
from colbert_core.model.fingerprint import EncoderFingerprint, about_encoder, loaded_encoder
from colbert_core.progress import progress_bar
from colbert_core.search.config import SearchConfig, ladder_of_configs
from colbert_core.search.diversity import diversified
from colbert_core.search.explain import best_window, evidence_of, query_spans, spans_of_window
from colbert_core.search.hits import Ranked, to_hits
from colbert_core.search.mean import averaged
from colbert_core.search.ranking import search
from colbert_core.storage.changes import Changes, File, StaleRead
from colbert_core.storage.store import Store, made_aside
from colbert_core.threads import spread
from colbert_core.types import Hit, Passage, TokenEmbeddings
from colbert_core.vectors.codec import MOST_CENTROIDS, NBITS, ResidualCodec, count_centroids, sample_size
from colbert_core.vectors.embeddings import query_matrices, vectors_for
from colbert_core.vectors.pooling import check_factor, pool_embeddings
from colbert_core.vectors.segment import Segment, as_segment
from colbert_core.vectors.snapshot import Part, Snapshot, vectors_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from os import PathLike

    from numpy.typing import NDArray

    from colbert_core.index.foreign import ForeignIndex
    from colbert_core.storage.transaction import Reader
    from colbert_core.types import TokenEncoder

    Where = Mapping[str, Any] | Callable[[Passage], bool]
from colbert_core.checks import check_ids, id_list
from colbert_core.index.batches import batched, dump_all
from colbert_core.index.reports import IndexStats, Tuning, Verification
from colbert_core.index.restriction import compile_condition, restriction_of

T = TypeVar("T")
# Passages stay uncompressed up to here: scoring all of them takes 10 ms, and a codec would have little to learn from.
_FIRST_FIT = 2**17
# An add that goes on longer is compressed in the middle; up to there, a codec that sees all of it is worth the room.
_FIRST_FIT_AMID = 2**20
# ``compact`` compresses from here on: fewer vectors than centroids' worth teach nothing.
_SMALLEST_FIT = 2**10
# A codec gets more centroids when the collection has grown so many times.
_GROWTH = 4
# How often a search starts again because another thread replaced what it was reading.
_TRIES = 100
_SEED = 12345
_TIMEOUT = 60.0
# Of any model there is; more is a mistake.
_LARGEST_DIM = 2**16


class Index:
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

    def __init__(self, store: Store, encoder: TokenEncoder | None) -> None:
        """``create`` and ``open`` are the doors."""
        with store.read() as reader:
            about = reader.about()
        self._store = store
        self._identity: str = about["identity"]
        self._dim: int = about["dim"]
        self._nbits: int | None = about["nbits"]
        self._made_with = EncoderFingerprint.from_about(about, self._named())
        self._encoder = encoder
        self._newest: State | None = None
        self._device: str | None = None
        self._make_locks()
        store.connections.after_fork = weakref.WeakMethod(self._make_locks)
        self._closed = weakref.finalize(self, store.close)
        if encoder is not None:
            self._made_with.check(encoder)

    def _make_locks(self) -> None:
        self._encoder_lock = threading.Lock()
        self._state_lock = threading.Lock()

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
        _check_device(device)
        loaded = loaded_encoder(encoder) if encoder is not None or dim is None else None
        if codec is not None:
            nbits = codec.nbits if nbits is None else nbits
        about = {**_about_vectors(path, loaded, dim, nbits), **about_encoder(loaded)}
        if codec is not None and (codec.dim, codec.nbits) != (about["dim"], about["nbits"]):
            raise ValueError(
                f"The codec is for dim {codec.dim} and {codec.nbits} bits, the index for dim {about['dim']} and "
                f"{about['nbits'] or 32} bits; give one codec and encoder that belong together."
            )
        index = cls(Store.create(_as_path(path), about, overwrite=overwrite, timeout=_checked_timeout(timeout)), loaded)
        index._device = device
        if codec is not None:
            index._take_codec(codec, None)
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
        _check_device(device)
        store = Store.open(Path(path), timeout=_checked_timeout(timeout))
        try:
            loaded = None if encoder is None else loaded_encoder(encoder)
            index = cls(store, loaded)
            index._device = device
            index._read(index._state)  # a file that cannot be used is found now, not by the first search
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
            progress: show a bar; None shows it on a terminal once a second has passed.

        Raises:
            IndexExistsError: there is something at ``path``.
            DamagedIndexError: a file of the other index is damaged.
            EncoderMismatchError: the encoder's vectors have another dim.
        """
        loaded = None
        if encoder is not None:
            loaded = loaded_encoder(encoder)
            if loaded.dim != foreign.codec.dim:
                raise EncoderMismatchError(
                    f"The {foreign.kind} index holds vectors of dim {foreign.codec.dim}, but the encoder "
                    f"{getattr(loaded, 'name', loaded)!r:.200} has dim {loaded.dim}; name the one it was made with."
                )
        about = {
            **_about_vectors(path, loaded, foreign.codec.dim, foreign.codec.nbits),
            **about_encoder(loaded, foreign.encoder),
        }
        folder = _as_path(path)
        if folder is None:
            index = cls(Store.create(None, about, overwrite=False, timeout=_TIMEOUT), loaded)
            index._take_over(foreign, progress)
            return index
        with made_aside(folder) as aside, cls(Store.create(aside, about, overwrite=False, timeout=_TIMEOUT), loaded) as index:
            index._take_over(foreign, progress)
        return cls.open(folder, loaded)

    def _take_over(self, foreign: ForeignIndex, progress: bool | None) -> None:
        self._take_codec(foreign.codec, foreign.n_tokens)
        with progress_bar("Importing", len(foreign), "passage", progress) as bar:
            for batch in foreign.batches():
                self._commit(batch.passages, dump_all(batch.passages), batch.windows, [])
                bar.update(len(batch.passages))

    def _take_codec(self, codec: ResidualCodec, n_tokens: int | None) -> None:
        with self._store.write() as writer:
            file = writer.put("codec", 0, {name: [array] for name, array in codec.to_arrays().items()})
            writer.commit(Changes(about={"codec_tokens": n_tokens}, files=[file]))

    @property
    def codec_id(self) -> str | None:
        """SHA-256 of the codec, hexadecimal; None while the index is uncompressed. Equal codecs have equal ids."""
        file = self._read(self._state).codec_file
        return None if file is None else file.sha256

    @property
    def made_with(self) -> EncoderFingerprint:
        """Where the vectors come from."""
        return self._made_with

    @property
    def encoder(self) -> TokenEncoder:
        """What encodes texts; loaded at first use where the index was opened without one.

        Raises:
            EncoderMismatchError: the index holds vectors from elsewhere, or its encoder cannot be loaded or has changed.
        """
        with self._encoder_lock:
            if self._encoder is None:
                self._encoder = self._made_with.load()
            return self._encoder

    @property
    def encoder_name(self) -> str | None:
        """Name of the encoder the index was made with, which is not loaded for it; None for vectors from elsewhere."""
        return self._made_with.name

    @property
    def dim(self) -> int:
        """Components of every vector."""
        return self._dim

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
            progress: show a bar; None shows it on a terminal once a second has passed.

        Returns:
            Their ids, in the order given.

        Raises:
            TypeError: something is not a ``Passage``, metadata is not JSON, or pool_factor is no number.
            ValueError: two passages of this call have the same id, pool_factor is below 1, or embeddings do not fit.
            PartialAddError: any error after the first batch was committed; ``added`` says what is in.
            IndexLockedError: another writer was busy for longer than the timeout.
            IndexWriteError: the disk is full.
        """
        pool_factor = check_factor(pool_factor)
        total = len(passages) if isinstance(passages, (list, tuple)) else None
        if total is not None or isinstance(passages, Passage):
            passages = check_passages(passages)
            check_ids(Counter(passage.id for passage in passages))
            dump_all(passages)
        vectors = vectors_for(passages, embeddings, self._dim) if embeddings is not None else None
        # Of vectors without tokens nobody knows which are a model's own.
        n_protected = None if embeddings is None or isinstance(embeddings, TokenEmbeddings) else 0
        added: list[str] = []
        seen: set[str] = set()
        batches = batched(passages)
        batch: list[Passage] | None = []
        try:
            batch = next(batches, None)
            following = next(batches, None) if batch else None
            with progress_bar("Indexing", total, "passage", progress if following else False) as bar:
                while batch:
                    ids = [passage.id for passage in batch]
                    check_ids(Counter(ids), seen)
                    metadata = dump_all(batch)
                    if vectors is not None:
                        encoded = vectors(batch)
                    else:
                        texts = [passage.text for passage in batch]
                        encoded = self.encoder.encode_passages(texts, progress=False if following or added else progress)
                        encoded.check(len(batch), self._dim)
                    self._commit(batch, metadata, pool_embeddings(encoded, pool_factor, n_protected), added)
                    seen.update(ids)
                    bar.update(len(batch))
                    batch, following = following, next(batches, None) if following else None
                    if refit:
                        self._refit_if_due(_FIRST_FIT_AMID if batch else _FIRST_FIT, progress)
            if vectors is not None:
                vectors([])
        except Exception as error:
            if not added:
                raise
            rest = "all of them" if batch is None and total in (None, len(added)) else "the next ones are not"
            raise PartialAddError(
                f"{len(added)} passages of this call are in the index, up to {added[-1]!r}; {rest}: {error}", added
            ) from error
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(
                f"{len(added)} passages of this call are in the index{f', up to {added[-1]!r}' if added else ''}."
            )
            raise
        return added

    def delete(self, ids: Iterable[str]) -> int:
        """Delete passages by id; unknown ids are no error.

        Returns:
            How many passages are gone.

        Raises:
            TypeError: ``ids`` is one string.
        """
        wanted = list(dict.fromkeys(id_list(ids)))
        return self._delete(lambda reader: sorted(reader.rows_of(wanted).values()))

    def delete_where(self, where: Where) -> int:
        """Delete the passages that a filter matches; ``{}`` matches all of them.

        Returns:
            How many passages are gone.

        Raises:
            TypeError, ValueError: the filter is wrong; see ``search``.
        """
        condition = compile_condition(where)
        if isinstance(where, Mapping):
            return self._delete(lambda reader: condition(reader).tolist())
        # A function of the user's may take long: it runs before the index is locked. What is replaced meanwhile has a new row
        # and stays.
        rows = set(self._read(lambda reader: condition(reader).tolist()))
        return self._delete(lambda reader: [row for row in reader.rows() if row in rows])

    def clear(self) -> None:
        """Delete all passages, and the codec that was fitted to them."""
        with self._store.write() as writer:
            state, rows = self._state(writer), writer.rows()
            writer.commit(
                Changes(
                    about={"codec_tokens": None},
                    removed=rows,
                    buried=np.union1d(rows, writer.dead()).tolist(),
                    dropped=[file.name for file in (*state.files, state.codec_file) if file],
                ),
            )

    def ids(self, where: Where | None = None) -> list[str]:
        """The ids of all passages, or of those that a filter matches, in the order in which they were added.

        Raises:
            TypeError, ValueError: the filter is wrong; see ``search``.
        """
        condition = None if where is None else compile_condition(where)

        def read(reader: Reader) -> list[str]:
            with reader.moment():
                return reader.ids(reader.rows() if condition is None else condition(reader).tolist())

        return self._read(read)

    def get(self, ids: Iterable[str]) -> list[Passage | None]:
        """The passages with these ids, in their order; None where there is none.

        Raises:
            TypeError: ``ids`` is one string.
        """
        wanted = id_list(ids)

        def read(reader: Reader) -> list[Passage | None]:
            with reader.moment():
                rows = reader.rows_of(wanted)
                found = dict(zip(rows, reader.passages(list(rows.values())), strict=True))
            return [copy.deepcopy(found.get(passage_id)) for passage_id in wanted]  # the same id may stand twice

        return self._read(read)

    def embeddings(self, ids: Iterable[str]) -> list[NDArray[np.float32]]:
        """The vectors of these passages as the index keeps them, those of all windows one after the other.

        Returns:
            For each id *Shape:* (n_tokens, dim), float32, unit rows; n_tokens differs.

        Raises:
            TypeError: ``ids`` is one string.
            ValueError: there is no passage with an id.
        """
        wanted = id_list(ids)

        def read(reader: Reader) -> list[NDArray[np.float32]]:
            with reader.moment():
                state, rows = self._state(reader), reader.rows_of(wanted)
            unknown = [passage_id for passage_id in wanted if passage_id not in rows]
            if unknown:
                raise ValueError(
                    f"There is no passage with the id {unknown[0]!r} ({len(unknown)} of {len(wanted)} are unknown)."
                )
            try:
                return [vectors_of(state.snapshot, rows[passage_id]) for passage_id in wanted]
            except (KeyError, IndexError) as error:
                raise DamagedIndexError(f"{self._named()} is damaged ({error}); run verify to see where.") from error

        return self._read(read)

    def search(
        self,
        query: str | NDArray[np.float32],
        k: int = 10,
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        min_relevance: float | None = None,
        config: SearchConfig | None = None,
        exact: bool = False,
        evidence: bool = False,
    ) -> list[Hit]:
        """Find the passages that match a query best.

        Args:
            query: text, or its vectors, *Shape:* (n_q, dim); rows are scaled to length 1.
            k: most hits, at least 1; there are exactly min(k, number of matching passages) unless ``min_relevance`` drops some.
            where: only passages whose metadata match: ``{"year": {"$gte": 2020}, "lang": "en"}``, by the operators of
                ``colbert_core.filters``; or a function of a passage, which is called for every passage (of an index in
                memory, while it is locked).
            ids: only passages with these ids; an empty list matches none.
            min_relevance: least relevance of a hit, from 0 to 1.
            config: how much of a compressed index to look at; None chooses by k.
            exact: score every passage that may be found. Scores are the same either way.
            evidence: give each hit the ``evidence`` of its window, as ``explain`` does; the query must be text.

        Returns:
            Hits, best first, equal scores by id; none from an empty index.

        Raises:
            TypeError: the query is neither a string nor an array, or no string where evidence is wanted; k is no whole number,
                or a filter's value is of a wrong type.
            ValueError: the query is blank, k is below 1, vectors are of another dim, zero or not finite, or a filter's
                operator is unknown.
            EncoderMismatchError: the query is text and the index has no encoder.
            DamagedIndexError: a file of the index has changed.
        """
        restrict = {"where": where, "ids": ids, "min_relevance": min_relevance, "config": config}
        return self.search_many([query], k, exact=exact, evidence=evidence, **restrict)[0]  # type: ignore[arg-type]

    def search_many(
        self,
        queries: Iterable[str | NDArray[np.float32]],
        k: int = 10,
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        min_relevance: float | None = None,
        config: SearchConfig | None = None,
        exact: bool = False,
        evidence: bool = False,
    ) -> list[list[Hit]]:
        """``search`` for several queries over one state of the index, by as many threads as ``set_num_threads`` allows.

        Texts are encoded together, in batches of other shapes than alone, so scores may differ in their last digits.
        """
        if isinstance(queries, str | np.ndarray):
            raise TypeError(f"queries must be a list, got one {type(queries).__name__}; use search for a single query.")
        k, min_relevance = check_count(k, "k"), check_relevance(min_relevance, "min_relevance")
        restriction = restriction_of(where, ids)
        queries = list(queries)
        if evidence and (bare := [query for query in queries if not isinstance(query, str)]):
            raise TypeError(f"evidence needs the words of each query, got a {type(bare[0]).__name__}; search by text for it.")
        matrices = self._query_matrices(queries)

        def read(reader: Reader) -> list[list[Hit]]:
            state, rows = self._moment(reader, restriction)
            one_by_one = threading.Lock()  # the reader's connection is for one thread at a time

            def tie(tied: list[int]) -> list[str]:
                with one_by_one:
                    return reader.ids(tied)

            def ranked(matrix: NDArray[np.float32]) -> Ranked:
                return self._ranked(tie, state, matrix, k, rows, config, exact=exact, device=self._device)

            # A GPU is busy with one query; several at once only take more of its memory.
            found = spread(ranked, matrices) if self._device is None else [ranked(matrix) for matrix in matrices]
            passages = iter(reader.passages([row for best in found for row in best.rows]))  # all with one look
            all_hits = [
                to_hits(list(islice(passages, len(best.rows))), best, len(matrix), min_relevance)
                for best, matrix in zip(found, matrices, strict=True)
            ]
            if not evidence:
                return all_hits
            return [
                [
                    replace(hit, evidence=self._evidence(state, str(query), matrix, row, hit.passage, hit.span))
                    for hit, row in zip(hits, best.rows, strict=False)  # a threshold may have dropped the last hits
                ]
                for query, matrix, hits, best in zip(queries, matrices, all_hits, found, strict=True)
            ]

        return self._read(read)

    def explain(self, query: str, passage: str | Passage | Hit, *, min_similarity: float = MIN_SIMILARITY) -> Evidence:
        """Show which words of a passage answer which words of a query, in the window of the passage that scores highest.

        The vectors are those that the index keeps, so the similarities add up to the score that a search gives. Where they
        were pooled, the window is encoded anew and they do not.

        Args:
            query: text.
            passage: a passage of the index: its id, itself, or a hit.
            min_similarity: cosine from which a match counts as found, from -1 to 1.

        Raises:
            TypeError: the query is not a string.
            ValueError: the query is blank, the threshold is out of range, or there is no passage with this id.
            EncoderMismatchError: the index has no encoder.
            DamagedIndexError: a file of the index has changed.
        """
        if not isinstance(query, str):
            raise TypeError(f"explain needs the words of the query, got a {type(query).__name__}.")
        check_similarity(min_similarity)
        passage = passage.passage if isinstance(passage, Hit) else passage
        passage_id = passage.id if isinstance(passage, Passage) else passage
        if not isinstance(passage_id, str):
            raise TypeError(f"passage must be an id, a Passage or a Hit, got {passage_id!r:.80}.")
        (matrix,) = self._query_matrices([query])

        def read(reader: Reader) -> Evidence:
            with reader.moment():
                state, rows = self._state(reader), list(reader.rows_of([passage_id]).values())
            if not rows:
                raise ValueError(f"There is no passage with the id {passage_id!r} in {self._named()}.")
            (found,) = reader.passages(rows)
            best = self._ranked(reader.ids, state, matrix, 1, np.array(rows, np.int64), None, exact=True, device=self._device)
            return self._evidence(state, query, matrix, rows[0], found, best.spans[0], min_similarity)

        return self._read(read)

    def search_mean(
        self,
        queries: Iterable[str | NDArray[np.float32]],
        k: int = 10,
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        min_relevance: float | None = None,
        config: SearchConfig | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        """Find the passages that match several queries best on average, such as a question and made-up answers to it (HyDE).

        The best of each query are looked at, twice as many each time, until no other passage can have a higher mean (the
        threshold algorithm of Fagin, Lotem and Naor, PODS 2001, section 4).

        Args:
            queries: at least one, each as in ``search``.
            k: as in ``search``, and so are the others.
            where: as in ``search``.
            ids: as in ``search``.
            min_relevance: as in ``search``, of the mean.
            config: as in ``search``, for each query.
            exact: as in ``search``.

        Returns:
            Hits, best first; score and relevance are means over the queries, the span is that of the query that matches best.

        Raises:
            ValueError: there are no queries; otherwise as ``search``.
        """
        if isinstance(queries, str | np.ndarray):
            raise TypeError(f"queries must be a list, got one {type(queries).__name__}; use search for a single query.")
        k, min_relevance = check_count(k, "k"), check_relevance(min_relevance, "min_relevance")
        restriction = restriction_of(where, ids)
        matrices = self._query_matrices(list(queries))
        if not matrices:
            raise ValueError("There are no queries to search by; give at least one.")

        def read(reader: Reader) -> list[Hit]:
            state, rows = self._moment(reader, restriction)

            def ranked(matrix: NDArray[np.float32], k: int, rows: NDArray[np.int64] | None) -> Ranked:
                return self._ranked(reader.ids, state, matrix, k, rows, config, exact=exact, device=self._device)

            best, relevances = averaged(ranked, matrices, k, rows, reader.ids)
            hits = to_hits(reader.passages(best.rows), best, 1, None)
            means = [replace(hit, relevance=relevance) for hit, relevance in zip(hits, relevances, strict=True)]
            return [hit for hit in means if min_relevance is None or hit.relevance >= min_relevance]

        return self._read(read)

    def search_diverse(
        self,
        query: str | NDArray[np.float32],
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
            query: as in ``search``.
            k: most hits, at least 1.
            fetch_k: how many of the best are chosen from; k if that is more.
            lambda_mult: from 0 (as different as possible) to 1 (as relevant as possible).
            where: as in ``search``, and so are the others.
            ids: as in ``search``.
            min_relevance: as in ``search``.
            config: as in ``search``.
            exact: as in ``search``.

        Returns:
            Hits in the order in which they were taken; ``rank`` is that order.
        """
        k, fetch_k = check_count(k, "k"), check_count(fetch_k, "fetch_k")
        min_relevance = check_relevance(min_relevance, "min_relevance")
        weight = check_share(lambda_mult, "lambda_mult")
        restriction = restriction_of(where, ids)
        (matrix,) = self._query_matrices([query])

        def read(reader: Reader) -> list[Hit]:
            state, rows = self._moment(reader, restriction)
            best = self._ranked(reader.ids, state, matrix, max(k, fetch_k), rows, config, exact=exact, device=self._device)
            hits = self._hits(reader, best, len(matrix), min_relevance)
            windows = [vectors_of(state.snapshot, row, span) for row, span in zip(best.rows, best.spans, strict=True)]
            order = diversified([hit.relevance for hit in hits], windows[: len(hits)], k, weight)
            return [replace(hits[place], rank=rank) for rank, place in enumerate(order, 1)]

        return self._read(read)

    def tune(
        self,
        target_recall: float = 0.95,
        *,
        k: int = 10,
        queries: Iterable[str | NDArray[np.float32]] | None = None,
        progress: bool | None = None,
    ) -> Tuning:
        """Find the quickest search that finds enough of what scoring every passage would find.

        Args:
            target_recall: part of the ``k`` best passages that has to be found on average, from 0 to 1.
            k: hits that are wanted.
            queries: texts or matrices like those to come, fifty or more; None takes 50 passages, each as a query of up to 32
                of its own vectors.
            progress: show a bar; None shows it on a terminal once a second has passed.

        Returns:
            The config with its measured recall and time, on the CPU. The last one that is tried scores everything.

        Raises:
            ValueError: the index is empty, or there are no queries.
        """
        target_recall, k = check_share(target_recall, "target_recall"), check_count(k, "k")
        given = None if queries is None else self._query_matrices(list(queries))
        if given == [] or not len(self):
            raise ValueError(f"{self!r} cannot be tuned without {'queries' if given == [] else 'passages'}; give some.")

        def read(reader: Reader) -> Tuning:
            state, rows = self._moment(reader, None)
            matrices = given or [vectors_of(state.snapshot, row)[:32] for row in self._sampled_rows(reader, 50)]

            def found(config: SearchConfig | None) -> tuple[list[set[int]], float]:
                hits, seconds = [], []
                for matrix in matrices:
                    start = time.perf_counter()
                    best = self._ranked(reader.ids, state, matrix, k, rows, config, exact=config is None, device=None)
                    seconds.append(time.perf_counter() - start)
                    hits.append(set(best.rows))
                return hits, 1000 * float(np.median(seconds))

            best, _ = found(None)
            tried: list[tuple[SearchConfig, float, float]] = []
            ladder = ladder_of_configs(k, sum(len(part.segment.rows) for part in state.snapshot.parts))
            with progress_bar("Tuning", len(ladder), "config", progress) as bar:
                for config in ladder:
                    hits, milliseconds = found(config)
                    share = float(np.mean([len(some & all_) / len(all_) for some, all_ in zip(hits, best, strict=True)]))
                    tried.append((config, share, milliseconds))
                    bar.update()
                    if share >= target_recall and milliseconds > 2 * min(
                        time_ for _, part, time_ in tried if part >= target_recall
                    ):
                        break  # what comes now looks at more
            reached = [entry for entry in tried if entry[1] >= target_recall]
            # Rounding may have cost the last config one of many nearly equal passages.
            chosen = min(reached, key=lambda entry: entry[2]) if reached else max(tried, key=lambda entry: entry[1])
            return Tuning(*chosen, tried)

        return self._read(read)

    def compact(self, *, progress: bool | None = None) -> None:
        """Put everything into one segment, without what was deleted, and give the room back.

        An index with ``nbits`` that is not compressed yet is compressed if it has 1,024 tokens or more. Searches go on
        meanwhile, writers wait.

        Args:
            progress: show a bar; None shows it on a terminal once a second has passed.
        """
        self._refit_if_due(_SMALLEST_FIT, progress)
        with self._store.write() as writer:
            state = self._state(writer)
            if len(state.files) > 1 or any(not part.live.all() for part in state.snapshot.parts):
                writer.commit(merged(writer, state, range(len(state.files))))
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
        target, own = Path(path), self._store.folder
        if overwrite and own is not None and target.resolve() == own.resolve():  # also through a link
            return
        for _ in range(_TRIES):
            with contextlib.suppress(StaleRead):
                self._store.copy(target, overwrite=overwrite)
                return
        raise IndexLockedError(
            f"{self._named()} changed {_TRIES} times while it was copied; save it while fewer writers are at work."
        )

    def stats(self) -> IndexStats:
        """Figures of the newest state."""

        def read(reader: Reader) -> IndexStats:
            with reader.moment():
                state, passages = self._state(reader), reader.count()
            parts, codec = state.snapshot.parts, state.snapshot.codec
            live = state.live_tokens()
            return IndexStats(
                passages=passages,
                windows=sum(int(part.live.sum()) for part in parts),
                tokens=live,
                dim=self._dim,
                nbits=self._nbits,
                centroids=0 if codec is None else len(codec.centroids),
                segments=len(parts),
                dead_tokens=sum(part.segment.n_tokens for part in parts) - live,
                vector_bytes=sum(file.size for file in (*state.files, state.codec_file) if file),
                encoder=self._made_with.name,
                generation=state.generation,
            )

        return self._read(read)

    def verify(self, n_queries: int = 20, *, progress: bool | None = None) -> Verification:
        """Check every checksum, that all parts fit together, and how much a plain search finds.

        Args:
            n_queries: how many passages are sampled, each as a query of up to 32 of its own vectors.
            progress: show a bar; None shows it on a terminal once a second has passed.
        """
        n_queries = check_count(n_queries, "n_queries", "queries")

        def read(reader: Reader) -> Verification:
            problems = []
            try:
                with reader.moment():
                    state, rows = self._state(reader), np.array(reader.rows(), np.int64)
            except DamagedIndexError as error:
                problems.append(str(error))
            problems += reader.integrity()
            files = reader.files()
            with progress_bar("Verifying", len(files), "file", progress) as bar:
                for file in files:
                    problems += reader.check(file)
                    bar.update(1)
            if problems:
                return Verification(list(dict.fromkeys(problems)), None, 0)
            problems += misfits(state.snapshot, rows)
            if problems or not len(rows):
                return Verification(problems, None, 0)
            shares = []
            for row in self._sampled_rows(reader, n_queries):
                query = vectors_of(state.snapshot, row)[:32]
                found, best = (
                    self._ranked(reader.ids, state, query, 10, None, None, exact=exact, device=None).rows
                    for exact in (False, True)
                )
                shares.append(len(set(found) & set(best)) / len(best))
            return Verification([], float(np.mean(shares)), len(shares))

        return self._read(read)

    def close(self) -> None:
        """Let go of the files. A closed index cannot be used any more; closing it again is no error."""
        self._closed()
        self._newest = None

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._read(lambda reader: reader.count())

    def __contains__(self, passage_id: object) -> bool:
        if not isinstance(passage_id, str):
            return False
        try:
            (wanted,) = id_list([passage_id])
        except ValueError:  # no text, so nobody's id
            return False
        return bool(self._read(lambda reader: reader.rows_of([wanted])))

    def __repr__(self) -> str:
        where = "in memory" if self._store.folder is None else repr(str(self._store.folder))
        try:
            content = f"{len(self)} passages"
        except (StorageError, ValueError):
            content = "unreadable" if self._closed.alive else "closed"
        return f"Index({where}, {content}, {self._made_with.encoder})"

    def __reduce__(self) -> tuple[Any, ...]:
        """In memory, a copy of everything; on disk, the folder."""
        folder = self._store.folder
        content = self._store.to_bytes() if folder is None else str(folder.absolute())
        return _unpickled, (content, self._encoder, self._store.connections.timeout, self._device)

    # Reading

    def _read(self, work: Callable[[Reader], T]) -> T:
        """Do something with the newest state; again if another thread or process replaced a part of it meanwhile."""
        for _ in range(_TRIES):
            try:
                with self._store.read() as reader:
                    self._check_identity(reader)
                    return work(reader)
            except StaleRead:
                continue
        raise IndexLockedError(
            f"{self._named()} changed {_TRIES} times while it was read; read it while fewer writers are at work."
        )

    def _check_identity(self, reader: Reader) -> int:
        """The reader's generation, if this is still the index that was opened."""
        identity, generation = reader.moment_of()
        if identity != self._identity:
            raise StorageError(f"{self._named()} was overwritten with a new one; open it again.")
        return generation

    def _moment(
        self, reader: Reader, restriction: Callable[[Reader], NDArray[np.int64]] | None
    ) -> tuple[State, NDArray[np.int64] | None]:
        """The newest vectors and the rows that may be found, which belong together."""
        with reader.moment():
            return self._state(reader), None if restriction is None else restriction(reader)

    def _state(self, reader: Reader) -> State:
        """The vectors of the reader's generation. Segments that are mapped already are used again."""
        with reader.moment(), self._state_lock:
            generation = self._check_identity(reader)
            known = self._newest
            if known is not None and known.generation == generation:
                return known
            mapped = {} if known is None else dict(zip((file.name for file in known.files), known.snapshot.parts, strict=True))
            files, codec_files = reader.files("segment"), reader.files("codec")
            codec_file = codec_files[0] if codec_files else None
            if known is not None and codec_file == known.codec_file:
                codec = known.snapshot.codec
            else:
                codec = None if codec_file is None else _checked(codec_file, ResidualCodec.from_arrays, reader.load(codec_file))
            if codec is not None and (codec.dim, codec.nbits) != (self._dim, self._nbits):
                raise DamagedIndexError(
                    f"The codec of {self!r} has dim {codec.dim} and {codec.nbits} bits; restore it from a copy."
                )
            dead = reader.dead()
            parts = []
            for file in files:
                part = mapped.get(file.name)
                if part is not None and known is not None and known.generation > generation:
                    part = Part(part.segment, np.ones(len(part.live), np.bool_))  # it has lost what is deleted only later
                if part is None:
                    segment = _checked(file, Segment.from_arrays, reader.load(file), self._dim, codec)
                    part = Part(segment, np.ones(len(segment.rows), np.bool_))
                parts.append(buried(part, dead))
            state = State(generation, Snapshot(tuple(parts), codec), tuple(files), codec_file)
            if known is None or known.generation < generation:
                self._newest = state
            return state

    def _ranked(
        self,
        tie: Callable[[list[int]], list[str]],
        state: State,
        matrix: NDArray[np.float32],
        k: int,
        rows: NDArray[np.int64] | None,
        config: SearchConfig | None,
        *,
        exact: bool,
        device: str | None,
    ) -> Ranked:
        try:
            return search(state.snapshot, matrix, k, tie=tie, rows=rows, config=config, exact=exact, device=device)
        except IndexError as error:
            raise DamagedIndexError(f"{self._named()} is damaged ({error}); run verify to see where.") from error

    def _sampled_rows(self, reader: Reader, n: int) -> list[int]:
        rows = np.array(reader.rows(), np.int64)
        sampled_rows: list[int] = np.random.default_rng(_SEED).choice(rows, min(n, len(rows)), replace=False).tolist()
        return sampled_rows

    def _hits(self, reader: Reader, best: Ranked, n_q: int, min_relevance: float | None) -> list[Hit]:
        return to_hits(reader.passages(best.rows), best, n_q, min_relevance)

    def _evidence(
        self,
        state: State,
        query: str,
        matrix: NDArray[np.float32],
        row: int,
        passage: Passage,
        window: tuple[int, int],
        min_similarity: float = MIN_SIMILARITY,
    ) -> Evidence:
        """The vectors are read from the index and their characters found by the tokenizer alone, so no model runs."""
        try:
            vectors = vectors_of(state.snapshot, row, window)
        except (KeyError, IndexError) as error:
            raise DamagedIndexError(f"{self._named()} is damaged ({error}); run verify to see where.") from error
        spans = spans_of_window(self.encoder, passage.text, window, len(vectors))
        if spans is None:
            window, vectors, spans = best_window(matrix, self.encoder.encode_passages([passage.text], progress=False))
        asked = query_spans(self.encoder, query, len(matrix))
        return evidence_of(query, matrix, asked, passage, window, vectors, spans, min_similarity)

    def _query_matrices(self, queries: list[str | NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        return query_matrices(queries, self._dim, lambda: self.encoder)

    # Writing

    def _commit(
        self, passages: Sequence[Passage], metadata: list[str], windows: TokenEmbeddings | Segment, added: list[str]
    ) -> None:
        """Add passages whose windows are known, with rows that count from 0; ``added`` learns their ids once they are in."""
        segment = windows if isinstance(windows, Segment) else as_segment(windows)
        codec = self._read(self._state).snapshot.codec
        small = compressed(segment, codec)  # before the lock, for it takes time
        ids = [passage.id for passage in passages]
        with self._store.write() as writer:
            state, first = self._state(writer), writer.about()["next_row"]
            if state.snapshot.codec is not codec:
                small = compressed(segment, state.snapshot.codec)
            replaced = sorted(writer.rows_of(ids).values())
            segment = replace(small, rows=small.rows + first)
            changes = written(writer, state, np.array(replaced, np.int64), segment)
            writer.commit(replace(changes, added=passages, metadata=metadata))
            added += ids

    def _delete(self, chosen: Callable[[Reader], list[int]]) -> int:
        with self._store.write() as writer:
            state, rows = self._state(writer), chosen(writer)
            if rows:
                changes = written(writer, state, np.array(rows, np.int64), None)
                writer.commit(replace(changes, removed=rows))
        return len(rows)

    def _refit_if_due(self, first: int, progress: bool | None) -> None:
        """Compress what has become large enough, and give a codec that it has outgrown more centroids.

        Centroids are found outside the write lock. If another writer is busy for long, or has done it, a later add will.
        """
        state, about = self._read(lambda reader: (self._state(reader), reader.about()))
        n_tokens, codec = state.live_tokens(), state.snapshot.codec
        n_centroids = count_centroids(n_tokens)
        is_given = codec is not None and about["codec_tokens"] is None
        is_full = codec is not None and len(codec.centroids) + n_centroids > MOST_CENTROIDS
        least = first if codec is None or is_given else max(_GROWTH * about["codec_tokens"], 1)
        if self._nbits is None or n_tokens < least or is_full or is_given:
            return
        sample = sampled(state.snapshot, sample_size(n_centroids))
        new = ResidualCodec.fit(sample, n_centroids, self._nbits) if codec is None else codec.extended(sample, n_centroids)
        try:
            with self._store.write() as writer:
                now = self._state(writer)
                if now.codec_file != state.codec_file or not now.files:
                    return
                changes = recompressed(writer, now, new, progress) if codec is None else extended(writer, now, new)
                changes.about["codec_tokens"] = n_tokens
                writer.commit(changes)
        except IndexLockedError:
            return

    def _named(self) -> str:
        return "The index in memory" if self._store.folder is None else f"The index {self._store.folder}"


def _about_vectors(
    path: str | PathLike[str] | None, encoder: TokenEncoder | None, dim: int | None, nbits: int | None
) -> dict[str, Any]:
    if dim is not None and check_count(dim, "dim", "components") > _LARGEST_DIM:
        raise ValueError(f"dim must be at most {_LARGEST_DIM}, got {dim}.")
    if dim is not None and encoder is not None and encoder.dim != dim:
        raise ValueError(
            f"dim is {dim}, but the encoder {getattr(encoder, 'name', encoder)!r} makes vectors of dim {encoder.dim}."
        )
    if nbits is None:
        nbits = 32 if path is None else 4
    if isinstance(nbits, bool) or nbits not in (*NBITS, 32):
        raise ValueError(f"nbits must be 1, 2, 4, 8, or 32 for uncompressed vectors, got {nbits!r}.")
    width = dim if encoder is None else encoder.dim
    return {"dim": None if width is None else int(width), "nbits": None if nbits == 32 else int(nbits), "codec_tokens": None}


def _checked_timeout(timeout: float) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise ValueError(f"timeout is a number of seconds, at least 0, got {timeout!r}.")
    return timeout


def _check_device(device: str | None) -> None:
    if device is not None:
        from colbert_core.search.torch_scorer import resolved_device  # here, because it imports torch

        resolved_device(device)


def _as_path(path: str | PathLike[str] | None) -> Path | None:
    return None if path is None else Path(path)


def _checked(file: File, make: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return make(*arguments)
    except ValueError as error:
        raise DamagedIndexError(f"File {file.name} of the index is damaged: {error}; restore the index from a copy.") from None


def _unpickled(content: Any, encoder: TokenEncoder | None, timeout: float, device: str | None) -> Index:
    if isinstance(content, str):
        return Index.open(content, encoder, timeout=timeout, device=device)
    index = Index(Store.from_bytes(*content, timeout=timeout), encoder)
    index._device = device
    return index
