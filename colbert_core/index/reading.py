"""What can be asked of an index: searches, passages, vectors and figures. Nothing here changes it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from colbert_core.checks import check_count, check_relevance, check_share, id_list
from colbert_core.errors import UnsupportedIndexError
from colbert_core.index.base import IndexBase, check_unit_matrices
from colbert_core.index.restriction import Restriction
from colbert_core.index.tuning import tune
from colbert_core.index.verification import verify
from colbert_core.search.lexical import by_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from colbert_core.evidence.evidence import Evidence
    from colbert_core.index.reports import IndexStats, Tuning, Verification
    from colbert_core.index.versions import Versions
    from colbert_core.index.view import View
    from colbert_core.search.config import SearchConfig
    from colbert_core.search.lexical import ByWords, WordCounts
    from colbert_core.storage.fields import Outline, Survey
    from colbert_core.storage.sources import Source
    from colbert_core.types import Hit, Mode, Page, Passage, Query, Where
    from colbert_core.vectors.background import Background

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
        words: ByWords | None = None,
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
            words: of the same queries, to rank by them as well; or by them alone, without matrices.

        Raises:
            ValueError: a matrix has another shape or type, or rows of another length.
        """
        k, min_relevance = check_count(k, "k"), check_relevance(min_relevance, "min_relevance")
        restriction, checked = Restriction(where, ids), check_unit_matrices(matrices, self.dim)
        options: dict[str, Any] = {"config": config, "exact": exact, "min_relevance": min_relevance, "words": words}
        return [self._mean(checked, k, restriction, **options)] if mean else self._hits(checked, k, restriction, **options)

    def look_at_a_share(self, shards: int) -> None:
        """Search as one of so many parts of a collection, over which passages are spread at random.

        A search then looks at this part's share of what it would look at in the whole, unless its config says otherwise.
        """
        self._versions.shards = shards

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
        mode: Mode = "maxsim",
        weight: float | None = None,
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
            mode: as in ``search``.
            weight: as in ``search``.

        Returns:
            Hits in the order in which they were taken; ``rank`` is that order.
        """
        k, fetch_k = check_count(k, "k"), check_count(fetch_k, "fetch_k")
        options: dict[str, Any] = {"config": config, "exact": exact}
        options["min_relevance"], share = (
            check_relevance(min_relevance, "min_relevance"),
            check_share(lambda_mult, "lambda_mult"),
        )
        restriction, options["words"] = Restriction(where, ids), by_words(mode, weight, [query])
        matrices = self._matrices([query], options["words"])
        return self._versions.read(lambda view: view.diverse(matrices, k, fetch_k, share, **options), restriction)

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

    def stats(self) -> IndexStats:
        """Figures of the newest state."""
        stats = self._versions.read(lambda view: view.stats(dim=self.dim, nbits=self._nbits, encoder_name=self.encoder_name))
        return replace(stats, pool_factor=self._pool_factor)

    def verify(self, n_queries: int = 20, *, progress: bool | None = None) -> Verification:
        """Check every checksum, that all parts fit together, and how much a plain search finds.

        Args:
            n_queries: how many passages are sampled, each as a query of up to 32 of its own vectors.
            progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.
        """
        return self._versions.read(partial(verify, n_queries=check_count(n_queries, "n_queries", "queries"), progress=progress))

    def __len__(self) -> int:
        return self._versions.read(lambda view: view.reader.count())

    def __contains__(self, passage_id: object) -> bool:
        try:
            wanted = id_list([passage_id])  # type: ignore[list-item]
        except (TypeError, ValueError):  # no text, so nobody's id
            return False
        return bool(self._versions.read(lambda view: view.reader.rows_of(wanted)))
