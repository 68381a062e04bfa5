"""A collection of passages that can be searched, added to and deleted from at any time, by many threads at once."""

from __future__ import annotations

import copy
import threading
from collections import Counter
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.maxsim import unit_vectors
from colbert_core.pooling import check_factor, pool_embeddings
from colbert_core.search import Snapshot, check_count, check_passages, check_relevance, search_exact
from colbert_core.types import Hit, Passage, TokenEmbeddings, TokenEncoder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from numpy.typing import NDArray

# Deleted and replaced passages are cleared away once they are more than this part of all rows, or of all token vectors.
_MOST_DEAD = 0.5


class Index:
    """Passages and their token vectors, in memory and uncompressed; every search is exact.

    Searches read a snapshot and never wait. Writes run one at a time and show at once when their call returns; one that
    fails or is interrupted changes nothing. Passages go in and come out as copies.

    Example:
        >>> index = Index.create()
        >>> index.add([Passage("a", "Cats purr when they are content."), Passage("b", "Rust is a systems language.")])
        ['a', 'b']
        >>> index.search("happy pets", k=1)[0].passage.id
        'a'
    """

    def __init__(self, encoder: TokenEncoder) -> None:
        """Take a built encoder; ``create`` is the usual door."""
        self.encoder = encoder
        self._lock = threading.Lock()
        # The snapshot is the truth, and one assignment publishes the next: an interrupted write leaves the one before.
        self._snapshot = Snapshot([], np.empty(0, np.bool_), _no_embeddings(encoder.dim))
        self._spare = _spare_room()
        self._rows: dict[str, int] = {}
        self._rows_of = self._snapshot

    @classmethod
    def create(
        cls, path: str | PathLike[str] | None = None, encoder: str | PathLike[str] | TokenEncoder | None = None
    ) -> Index:
        """Make an empty index.

        Args:
            path: None: this version keeps an index in memory only.
            encoder: a checkpoint's name or folder, or a loaded encoder; None for the model in the box.

        Raises:
            ValueError: a path was given.
        """
        if path is not None:
            raise ValueError(f"This version keeps an index in memory only, got path={path!r}; pass None.")
        from colbert_core.encoder import as_encoder  # here, so that importing the package does not import torch

        return cls(as_encoder(encoder))

    def add(self, passages: Iterable[Passage], *, pool_factor: float = 1, progress: bool | None = None) -> list[str]:
        """Add passages; one whose id is known already replaces the old one. All of them, or on an error none.

        Args:
            passages: with ids that differ from each other.
            pool_factor: keep about 1 / pool_factor of each passage's vectors, the means of similar ones, at some cost in
                quality; 1 keeps all of them. The model's own tokens, such as [CLS], always stay.
            progress: show a bar; None shows it on a terminal once a second has passed.

        Returns:
            Their ids, in the order given.

        Raises:
            TypeError: something is not a ``Passage``, or pool_factor is no number.
            ValueError: two passages of this call have the same id, or pool_factor is below 1.
        """
        pool_factor = check_factor(pool_factor)
        given = check_passages(passages)
        ids = [passage.id for passage in given]
        repeated = [passage_id for passage_id, count in Counter(ids).items() if count > 1]
        if repeated:
            raise ValueError(
                f"{len(repeated)} ids stand more than once in this call, among them {repeated[0]!r}; "
                "give every passage its own id, or keep the one you want."
            )
        if not given:
            return []
        stored = [_copied(passage) for passage in given]
        embeddings = self.encoder.encode_passages([passage.text for passage in stored], progress=progress)
        embeddings = pool_embeddings(embeddings.check(len(stored), self.encoder.dim), pool_factor)
        with self._lock:
            self._commit(ids, stored, embeddings)
        return ids

    def delete(self, ids: Iterable[str]) -> int:
        """Delete passages by id; unknown ids are no error.

        Returns:
            How many passages are gone.

        Raises:
            TypeError: ``ids`` is one string.
        """
        wanted = dict.fromkeys(_id_list(ids))
        with self._lock:
            known = [passage_id for passage_id in wanted if passage_id in self._rows_by_id()]
            self._commit(known, [], _no_embeddings(self.encoder.dim))
        return len(known)

    def get(self, ids: Iterable[str]) -> list[Passage | None]:
        """Copies of the passages with these ids, in their order; None where there is none.

        Raises:
            TypeError: ``ids`` is one string.
        """
        wanted = _id_list(ids)
        with self._lock:
            rows, passages = self._rows_by_id(), self._snapshot.passages
            found = [passages[rows[passage_id]] if passage_id in rows else None for passage_id in wanted]
        return [None if passage is None else _copied(passage) for passage in found]

    def search(self, query: str | NDArray[np.float32], k: int = 10, *, min_relevance: float | None = None) -> list[Hit]:
        """Find the passages that match a query best.

        Args:
            query: text, or its vectors, *Shape:* (n_q, dim); rows are scaled to length 1.
            k: most hits, at least 1; there are exactly min(k, number of passages) unless ``min_relevance`` drops some.
            min_relevance: least relevance of a hit, from 0 to 1.

        Returns:
            Hits, best first, equal scores by id; none from an empty index.

        Raises:
            TypeError: the query is neither a string nor an array, or k is no whole number.
            ValueError: the query is blank, k is below 1, or vectors are of another dim, zero or not finite.
        """
        return self.search_many([query], k, min_relevance=min_relevance)[0]

    def search_many(
        self, queries: Iterable[str | NDArray[np.float32]], k: int = 10, *, min_relevance: float | None = None
    ) -> list[list[Hit]]:
        """``search`` for several queries over one snapshot.

        Texts are encoded together, in batches of other shapes than alone, so scores may differ in their last digits.
        """
        if isinstance(queries, str | np.ndarray):
            raise TypeError(f"queries must be a list, got one {type(queries).__name__}; use search for a single query.")
        k, min_relevance = check_count(k, "k"), check_relevance(min_relevance, "min_relevance")
        matrices = self._query_matrices(list(queries))
        snapshot = self._snapshot
        found = (search_exact(snapshot, matrix, k, min_relevance) for matrix in matrices)
        return [[replace(hit, passage=_copied(hit.passage)) for hit in hits] for hits in found]

    def __len__(self) -> int:
        return int(self._snapshot.live.sum())

    def __contains__(self, passage_id: object) -> bool:
        with self._lock:
            return passage_id in self._rows_by_id()

    def __repr__(self) -> str:
        return f"Index(in memory, {len(self)} passages, {getattr(self.encoder, 'name', self.encoder)!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"encoder": self.encoder, "snapshot": _compacted(self._snapshot)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["encoder"])  # type: ignore[misc]
        self._snapshot = state["snapshot"]

    def _query_matrices(self, queries: list[str | NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        for position, query in enumerate(queries):
            if not isinstance(query, str | np.ndarray):
                raise TypeError(f"Query {position} must be a str or a NumPy array of vectors, got {type(query).__name__}.")
        texts = [query for query in queries if isinstance(query, str)]
        encoded = iter(self.encoder.encode_queries(texts) if texts else [])
        return [
            unit_vectors(query, self.encoder.dim, f"Query {position}") if isinstance(query, np.ndarray) else next(encoded)
            for position, query in enumerate(queries)
        ]

    # What follows runs under the lock.

    def _commit(self, gone: Iterable[str], added: list[Passage], embeddings: TokenEmbeddings) -> None:
        """Publish a snapshot without the passages ``gone`` and with those ``added``, whose ``owners`` count from 0."""
        rows, before = self._rows_by_id(), self._snapshot
        n_rows = len(before.live)
        live = np.concatenate([before.live, np.ones(len(added), np.bool_)])
        live[[rows[passage_id] for passage_id in gone if passage_id in rows]] = False
        embeddings = replace(embeddings, owners=embeddings.owners + np.int32(n_rows))
        both = {
            name: spare.append(getattr(before.embeddings, name), getattr(embeddings, name))
            for name, spare in self._spare.items()
        }
        del before.passages[n_rows:]  # left there by a write that was interrupted
        before.passages.extend(added)
        after = Snapshot(before.passages, live, TokenEmbeddings(**both))
        live_tokens = after.embeddings.doclens[live[after.embeddings.owners]].sum()
        fewest = 1 - _MOST_DEAD
        if live.sum() < fewest * len(live) or live_tokens < fewest * len(after.embeddings.vectors):
            self._snapshot = _compacted(after)
            self._spare = _spare_room()  # the old rows go with it
            return
        self._snapshot = after
        for passage_id in gone:
            rows.pop(passage_id, None)
        rows.update((passage.id, row) for row, passage in enumerate(added, n_rows))
        self._rows_of = after

    def _rows_by_id(self) -> dict[str, int]:
        """The row of each live passage. A cache, made anew if it does not belong to the snapshot."""
        if self._rows_of is not self._snapshot:
            live, passages = self._snapshot.live, self._snapshot.passages
            self._rows = {passages[row].id: row for row in np.flatnonzero(live).tolist()}
            self._rows_of = self._snapshot
        return self._rows


class _SpareRoom:
    """Room behind an array that is appended to, so that a thousand small appends do not copy it a thousand times."""

    def __init__(self) -> None:
        self._data: NDArray[Any] = np.empty(0)

    def append(self, array: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
        """``array`` and ``rows`` one after the other; ``array`` itself, and every earlier result, stays as it is."""
        used, needed = len(array), len(array) + len(rows)
        if array.base is not self._data or needed > len(self._data):
            # Half as much again: over many appends each row is copied three times at most.
            data: NDArray[Any] = np.empty((max(needed, used * 3 // 2), *array.shape[1:]), array.dtype)
            data[:used] = array
            self._data = data
        self._data[used:needed] = rows
        return self._data[:needed]


def _spare_room() -> dict[str, _SpareRoom]:
    return {field.name: _SpareRoom() for field in fields(TokenEmbeddings)}


def _compacted(snapshot: Snapshot) -> Snapshot:
    """The live passages alone, in new arrays."""
    live, embeddings = snapshot.live, snapshot.embeddings
    windows = live[embeddings.owners]
    tokens = np.repeat(windows, embeddings.doclens)
    new_rows = np.cumsum(live, dtype=np.int32) - np.int32(1)
    kept = TokenEmbeddings(
        vectors=embeddings.vectors[tokens],
        token_spans=embeddings.token_spans[tokens],
        doclens=embeddings.doclens[windows],
        window_spans=embeddings.window_spans[windows],
        owners=new_rows[embeddings.owners[windows]],
    )
    return Snapshot([snapshot.passages[row] for row in np.flatnonzero(live)], np.ones(live.sum(), np.bool_), kept)


def _no_embeddings(dim: int) -> TokenEmbeddings:
    spans, counts = np.empty((0, 2), np.int32), np.empty(0, np.int32)
    return TokenEmbeddings(np.empty((0, dim), np.float32), spans, counts, spans, counts)


def _copied(passage: Passage) -> Passage:
    try:
        return replace(passage, metadata=copy.deepcopy(passage.metadata))
    except Exception as error:  # whatever the user's own objects raise
        raise TypeError(f"Metadata of passage {passage.id!r} cannot be copied ({error}); keep plain values in it.") from error


def _id_list(ids: Iterable[str]) -> list[str]:
    if isinstance(ids, str):
        raise TypeError(f"ids must be a list of strings, got one str; write [{ids!r}].")
    checked = list(ids)
    for position, passage_id in enumerate(checked):
        if not isinstance(passage_id, str):
            raise TypeError(f"Id {position} must be a str, got {type(passage_id).__name__}: {passage_id!r:.80}")
    return checked
