"""What can be asked of an index: searches, passages, vectors and figures. Nothing here changes it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from colbert_core.checks import id_list
from colbert_core.errors import DamagedIndexError, UnsupportedIndexError
from colbert_core.index.base import IndexBase
from colbert_core.index.extension import sample_of
from colbert_core.index.restriction import Restriction
from colbert_core.index.state import damage_named
from colbert_core.index.tuning import count_windows, tune
from colbert_core.index.verification import check, sample_queries, verify
from colbert_core.index.windows import evidence_of_windows, take_files, unchanged, window_vectors

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from colbert_core.evidence.evidence import Evidence
    from colbert_core.index.reports import IndexStats, Tuning, Verification
    from colbert_core.index.versions import Versions
    from colbert_core.index.view import View
    from colbert_core.index.windows import Question, Window
    from colbert_core.search.lexical import WordCounts
    from colbert_core.storage.fields import Outline, Survey
    from colbert_core.storage.sources import Source
    from colbert_core.types import Hit, Page, Passage, Where
    from colbert_core.vectors.background import Background, Moments
    from colbert_core.vectors.segment import Segment

    Matrices = Sequence[NDArray[np.float32]]


class ReadableIndex(IndexBase):
    """The reading half of an ``Index``: each call sees one whole state, the newest."""

    _versions: Versions
    _nbits: int | None
    _pool_factor: float

    @property
    def codec_id(self) -> str | None:
        """SHA-256 of the codec, hexadecimal; None while the index is uncompressed. Equal codecs have equal ids."""
        file = self._versions.read(lambda view: view.state).codec_file
        return None if file is None else file.sha256

    def _be_one_of(self, shards: int) -> None:
        """Be one of so many parts of a collection, over which passages are spread at random.

        A search then looks at this part's share of what it would look at in the whole, unless its config says otherwise. Of
        filters that ask for what no passage has, who asks all parts says it.
        """
        self._versions.shards, self._versions.advice = shards, None

    def has_words(self) -> bool:
        """Whether hybrid search is to be had; not so of an index that was made without words, or before there were any."""

        def look(view: View) -> bool:
            try:
                return view.reader.words.analyser() is not None
            except UnsupportedIndexError:
                return False

        return self._versions.read(look)

    def word_counts(self, texts: Iterable[str]) -> WordCounts:
        """Count what the collection says about the words of some queries, so that parts of one can be searched as a whole.

        Raises:
            ValueError: the index was made without words.
        """
        listed = list(texts)
        return self._versions.read(lambda view: view.lexicon.counts(view.reader, listed))

    def background(self) -> Background | None:
        """How the vectors of the collection are spread, for evidence of passages whose vectors lie elsewhere; None without any.

        Raises:
            DamagedIndexError: a file cannot be used.
        """
        return self._versions.read(lambda view: view.background)

    def _moments(self, known: tuple[str, int] | None) -> tuple[tuple[str, int], Moments | None] | None:
        """Sums over the vectors, and the moment of which they are; None if that is the one that is ``known``."""

        def look(view: View) -> tuple[tuple[str, int], Moments | None] | None:
            moment = view.state.identity, view.state.generation
            with damage_named(view.name):
                return None if moment == known else (moment, view.state.moments)

        return self._versions.read(look)

    def _window_vectors(self, windows: Sequence[Window]) -> Matrices:
        """The vectors of windows. *Shape:* (n, dim) each, float32.

        Raises:
            StaleRead: one has changed since it was found.
        """
        return unchanged(self._versions.read(lambda view: window_vectors(view, windows)))

    def _evidence(
        self, questions: Sequence[Question], min_similarity: float | None, background: Background | None
    ) -> list[list[Evidence | None]]:
        """The evidence of windows for their questions; None of one whose vectors are not one for each token.

        Raises:
            StaleRead: a window has changed since it was found.
        """
        vectors = self._window_vectors([window for question in questions for window in question.windows])
        return evidence_of_windows(questions, vectors, min_similarity, background)

    def _hits(self, matrices: Matrices, k: int, restriction: Restriction, **options: Any) -> list[list[Hit]]:
        return self._versions.read(lambda view: view.hits(matrices, k, **options), restriction)

    def _mean(self, matrices: Matrices, k: int, restriction: Restriction, **options: Any) -> list[Hit]:
        return self._versions.read(lambda view: view.mean(matrices, k, **options), restriction)

    def _diverse(
        self, matrices: Matrices, k: int, fetch_k: int, weight: float, restriction: Restriction, **options: Any
    ) -> list[Hit]:
        return self._versions.read(lambda view: view.diverse(matrices, k, fetch_k, weight, **options), restriction)

    def _explain(self, query: str, passage: str | Passage, min_similarity: float | None, *, by_words: bool) -> Evidence:
        passage_id, (matrix,) = passage if isinstance(passage, str) else passage.id, self._matrices([query])
        return self._versions.read(lambda view: view.explain(query, matrix, passage_id, min_similarity, by_words=by_words))

    def _sources(self) -> list[tuple[Source, int]]:
        """The files that the index was made of, by their names, each with the number of its passages that are left."""
        return self._versions.read(lambda view: view.reader.sources.all())

    def _owners(self, ids: Sequence[str]) -> dict[str, str]:
        """The name of the file of each of these passages that is of one."""

        def look(view: View) -> dict[str, str]:
            rows = view.reader.rows_of(ids)
            owners = view.reader.sources.owners(list(rows.values()))
            return {passage_id: owners[row] for passage_id, row in rows.items() if row in owners}

        return self._versions.read(look)

    def _take_files(self, names: Sequence[str]) -> tuple[list[str], list[Passage], Segment | None]:
        return self._versions.read(lambda view: take_files(view, names))

    def _sample(self, n: int) -> NDArray[np.float32]:
        """Vectors of ``n`` live tokens, or of all if there are fewer. *Shape:* (n, dim), float32."""
        return sample_of(self._versions, n)

    def _codec_arrays(self) -> dict[str, NDArray[Any]]:
        """What the codec is made of; empty while the index is uncompressed."""
        codec = self._versions.read(lambda view: view.state).snapshot.codec
        return {} if codec is None else codec.to_arrays()

    def _next_row(self) -> int:
        return self._versions.read(lambda view: int(view.reader.about()["next_row"]))

    def _survey(self, paths: Sequence[str], value: str | None = None) -> Survey:
        return self._versions.read(lambda view: view.reader.survey(paths, value))

    def _page(self, restriction: Restriction, limit: int | None, after: str | None) -> Page[Passage]:
        return self._versions.read(lambda view: view.page(limit, after), restriction)

    def _count(self, restriction: Restriction) -> int:
        return self._versions.read(lambda view: view.count(), restriction)

    def _outline(self, limit: int, after: str | None) -> Outline:
        return self._versions.read(lambda view: view.reader.outline(limit, after))

    def _tune(self, matrices: list[NDArray[np.float32]] | None, k: int, target_recall: float, progress: bool | None) -> Tuning:
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

    def _embeddings(self, ids: Sequence[str]) -> list[NDArray[np.float32] | None]:
        return self._versions.read(lambda view: view.embeddings(ids, self.dim))

    def stats(self) -> IndexStats:
        """Figures of the newest state."""
        stats = self._versions.read(lambda view: view.stats(dim=self.dim, nbits=self._nbits, encoder_name=self.encoder_name))
        return replace(stats, pool_factor=self._pool_factor)

    def _verify(self, n_queries: int, progress: bool | None) -> Verification:
        return self._versions.read(lambda view: verify(view, n_queries, progress))

    def _check(self) -> tuple[list[str], int]:
        """What is wrong, in words, and the number of passages without checksums; no search is measured."""
        try:
            return self._versions.read(lambda view: check(view, progress=False))
        except DamagedIndexError as error:
            return [str(error)], 0

    def _queries(self, n: int) -> tuple[list[NDArray[np.float32]], int]:
        """The vectors of at most ``n`` passages as queries, *Shape:* (n_q, dim) each, and how many windows the index has."""
        return self._versions.read(lambda view: (sample_queries(view, n), count_windows(view)))

    def __len__(self) -> int:
        return self._versions.read(lambda view: view.reader.count())

    def __contains__(self, passage_id: object) -> bool:
        try:
            wanted = id_list([passage_id])  # type: ignore[list-item]
        except (TypeError, ValueError):  # no text, so nobody's id
            return False
        return bool(self._versions.read(lambda view: view.reader.rows_of(wanted)))
