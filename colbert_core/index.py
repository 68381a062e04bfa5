"""A collection of passages that can be searched, added to and deleted from at any time, by many threads at once."""

from __future__ import annotations

import copy
import threading
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.maxsim import unit_vectors
from colbert_core.search import Snapshot, check_count, check_relevance, search_exact
from colbert_core.types import Hit, Passage, TokenEmbeddings, TokenEncoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from os import PathLike

    from numpy.typing import NDArray

# Rows of deleted passages are cleared away once they are more than this part of all rows.
_MOST_DEAD = 0.5


class Index:
    """Passages and their token vectors, in memory and uncompressed; every search is exact.

    Reads take a snapshot and never wait. Writes run one at a time and show at once when their call returns; one that
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
        self._reset()

    @classmethod
    def create(cls, path: str | PathLike[str] | None = None, encoder: str | TokenEncoder | None = None) -> Index:
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

    def add(self, passages: Iterable[Passage], *, progress: bool | None = None) -> list[str]:
        """Add passages; one whose id is known already replaces the old one. All of them, or on an error none.

        Args:
            passages: with ids that differ from each other.
            progress: show a bar; None shows it on a terminal once a second has passed.

        Returns:
            Their ids, in the order given.

        Raises:
            TypeError: something is not a ``Passage``.
            ValueError: two passages of this call have the same id.
        """
        given = list(passages)
        for position, passage in enumerate(given):
            if not isinstance(passage, Passage):
                raise TypeError(f"Item {position} is a {type(passage).__name__}, not a Passage; write Passage(id, text).")
        ids = [passage.id for passage in given]
        repeated = [passage_id for passage_id, count in Counter(ids).items() if count > 1]
        if repeated:
            raise ValueError(
                f"{len(repeated)} ids stand more than once in this call, among them {repeated[0]!r}; "
                "give every passage its own id, or keep the one you want."
            )
        if not given:
            return []
        stored = [replace(passage, metadata=copy.deepcopy(passage.metadata)) for passage in given]
        embeddings = self.encoder.encode_passages([passage.text for passage in stored], progress=progress)
        with self._lock:
            live = self._dead_marked(ids)
            first_row = len(live)
            self._passages.extend(stored)
            self._publish(
                np.concatenate([live, np.ones(len(stored), np.bool_)]),
                replace(embeddings, owners=embeddings.owners + np.int32(first_row)),
            )
            self._rows.update(zip(ids, range(first_row, first_row + len(ids)), strict=True))
            self._clear_dead()
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
            known = [passage_id for passage_id in wanted if passage_id in self._rows]
            self._publish(self._dead_marked(known), None)
            for passage_id in known:
                del self._rows[passage_id]
            self._clear_dead()
        return len(known)

    def get(self, ids: Iterable[str]) -> list[Passage | None]:
        """Copies of the passages with these ids, in their order; None where there is none.

        Raises:
            TypeError: ``ids`` is one string.
        """
        wanted = _id_list(ids)
        with self._lock:
            found = [self._passages[self._rows[i]] if i in self._rows else None for i in wanted]
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
        self, queries: Sequence[str | NDArray[np.float32]], k: int = 10, *, min_relevance: float | None = None
    ) -> list[list[Hit]]:
        """``search`` for several queries over one snapshot; texts are encoded together."""
        if isinstance(queries, str):
            raise TypeError("queries must be a list, got one str; use search for a single query.")
        k, min_relevance = check_count(k, "k"), check_relevance(min_relevance, "min_relevance")
        matrices = self._query_matrices(queries)
        snapshot = self._snapshot
        found = (search_exact(snapshot, matrix, k, min_relevance) for matrix in matrices)
        return [[replace(hit, passage=_copied(hit.passage)) for hit in hits] for hits in found]

    def __len__(self) -> int:
        return int(self._snapshot.live.sum())

    def __contains__(self, passage_id: object) -> bool:
        return passage_id in self._rows

    def __repr__(self) -> str:
        return f"Index(in memory, {len(self)} passages, {self.encoder!r})"

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {"encoder": self.encoder, "passages": self._live_passages(), "embeddings": self._live_embeddings()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["encoder"])  # type: ignore[misc]
        self._fill(state["passages"], state["embeddings"])

    def _query_matrices(self, queries: Sequence[str | NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        texts = [query for query in queries if not isinstance(query, np.ndarray)]
        encoded = iter(self.encoder.encode_queries(texts) if texts else [])
        return [
            unit_vectors(query, self.encoder.dim, f"Query {position}") if isinstance(query, np.ndarray) else next(encoded)
            for position, query in enumerate(queries)
        ]

    # What follows runs under the lock. Writers grow these; readers see only the last published snapshot.

    def _reset(self) -> None:
        self._passages: list[Passage] = []  # by row
        self._rows: dict[str, int] = {}  # live rows by id
        self._columns = {
            "vectors": _Growing((self.encoder.dim,), np.float32),
            "token_spans": _Growing((2,), np.int32),
            "doclens": _Growing((), np.int32),
            "window_spans": _Growing((2,), np.int32),
            "owners": _Growing((), np.int32),
        }
        self._publish(np.empty(0, np.bool_), None)

    def _publish(self, live: NDArray[np.bool_], added: TokenEmbeddings | None) -> None:
        if added is not None:
            for name, column in self._columns.items():
                column.append(getattr(added, name))
        self._snapshot = Snapshot(
            self._passages, live, TokenEmbeddings(**{name: column.view() for name, column in self._columns.items()})
        )

    def _dead_marked(self, ids: Iterable[str]) -> NDArray[np.bool_]:
        live = self._snapshot.live.copy()
        live[[self._rows[passage_id] for passage_id in ids if passage_id in self._rows]] = False
        return live

    def _live_passages(self) -> list[Passage]:
        return [self._passages[row] for row in np.flatnonzero(self._snapshot.live)]

    def _live_embeddings(self) -> TokenEmbeddings:
        live, all_rows = self._snapshot.live, self._snapshot.embeddings
        windows = live[all_rows.owners]
        tokens = np.repeat(windows, all_rows.doclens)
        new_rows = np.cumsum(live, dtype=np.int32) - 1
        return TokenEmbeddings(
            vectors=all_rows.vectors[tokens],
            token_spans=all_rows.token_spans[tokens],
            doclens=all_rows.doclens[windows],
            window_spans=all_rows.window_spans[windows],
            owners=new_rows[all_rows.owners[windows]],
        )

    def _fill(self, passages: list[Passage], embeddings: TokenEmbeddings) -> None:
        self._reset()
        self._passages.extend(passages)
        self._rows.update((passage.id, row) for row, passage in enumerate(passages))
        self._publish(np.ones(len(passages), np.bool_), embeddings)

    def _clear_dead(self) -> None:
        live = self._snapshot.live
        if len(live) - live.sum() > _MOST_DEAD * len(live):
            self._fill(self._live_passages(), self._live_embeddings())


class _Growing:
    """An append-only array. Views handed out earlier keep their rows: growing writes behind them, or moves elsewhere."""

    def __init__(self, row_shape: tuple[int, ...], dtype: type) -> None:
        self._data: NDArray[Any] = np.empty((0, *row_shape), dtype)
        self._used = 0

    def append(self, rows: NDArray[Any]) -> None:
        needed = self._used + len(rows)
        if needed > len(self._data):
            # Half as much again: a thousand small adds copy each row three times at most, not a thousand times.
            grown = np.empty((max(needed, len(self._data) * 3 // 2), *self._data.shape[1:]), self._data.dtype)
            grown[: self._used] = self._data[: self._used]
            self._data = grown
        self._data[self._used : needed] = rows
        self._used = needed

    def view(self) -> NDArray[Any]:
        return self._data[: self._used]


def _copied(passage: Passage) -> Passage:
    return replace(passage, metadata=copy.deepcopy(passage.metadata))


def _id_list(ids: Iterable[str]) -> list[str]:
    if isinstance(ids, str):
        raise TypeError(f"ids must be a list of strings, got one str; write [{ids!r}].")
    return list(ids)
