"""Hard negatives for training: passages that a retriever ranks high and nobody judged relevant. Nothing is trained here."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from colbert_core.evaluation.trec import by_document
from colbert_core.index.index import Index
from colbert_core.progress import progress_bar
from colbert_core.train.examples import Example
from colbert_core.types import Passage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from os import PathLike

    from colbert_core.index.base import IndexBase
    from colbert_core.types import TokenEncoder

    SearchMany = Callable[[list[str], int], list[list[tuple[str, float]]]]
    Texts = Callable[[list[str]], list[str]]
    Ranked = list[tuple[str, float]]

logger = logging.getLogger(__name__)

# Queries searched together.
_AT_A_TIME = 64

# Texts asked for together, about 100 MB. They are many, since each request may read a whole collection from disk.
_TEXTS_AT_A_TIME = 2**18

# A search that finds too few candidates is made again twice as deep, down to so many times the last rank of the window.
_DEEPEST = 16


def mine(
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    search_many: SearchMany,
    texts: Texts,
    *,
    n_negatives: int,
    ranks: tuple[int, int] = (10, 100),
    margin: float | None = None,
    seed: int = 12345,
    progress: bool | None = None,
) -> Iterator[Example]:
    """Make examples with hard negatives, one for each query and each passage that is relevant to it.

    Negatives are drawn at random from a window of a retriever's ranks. The first ranks are left out, since an unjudged passage
    there is often relevant. If the window holds too few, as in a small collection, the ranks after it follow, nearest first. An
    example whose query finds too few in all has fewer negatives, which is logged.

    What answers a query is no negative of it under another id either: neither a passage whose text is that of a relevant one or
    of the query itself, whatever the capitals and blanks, nor what is relevant to another query of the same text, nor the
    passage with the query's own id, which is the query in ArguAna and Quora.

    With a margin, a candidate counts as a false negative if its score is above ``margin`` times that of the positive, as in
    NV-Retriever (Moreira et al., 2024, arXiv 2407.15831, section 3, "TopK-PercPos"). For scores below zero the limit is the
    positive's score less (1 - margin) of its size. A positive that the retriever does not find has no score, and drops nothing.

    Args:
        queries: texts by id.
        qrels: for each query the grade of judged passages by id; above 0 is relevant. A relevant passage never becomes a
            negative of its query. Queries without a relevant passage are passed over.
        search_many: returns the k best passages for each of several queries, as ids and scores, best first, such as
            ``searcher(index)``.
        texts: returns the texts of passages by their ids; it is asked for many at a time.
        n_negatives: number of negatives of each example.
        ranks: first and last rank of the window, both included, counted from 1 over what the retriever returns.
        margin: above 0, at most 1, such as .95; None drops nothing.
        seed: seed of the draw. Each example has a draw of its own, so examples do not depend on each other.
        progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

    Raises:
        ValueError: the window, the margin or the number is out of range, or a judged query has no text.
    """
    first, last = ranks
    if not 1 <= first <= last:
        raise ValueError(f"ranks must be two ranks from 1 up, the first not behind the last, got {ranks!r}.")
    if n_negatives < 1:
        raise ValueError(f"n_negatives must be at least 1, got {n_negatives}.")
    if margin is not None and not 0 < margin <= 1:
        raise ValueError(f"margin must be above 0 and at most 1, got {margin!r}.")
    positives = {
        query_id: relevant
        for query_id, judged in qrels.items()
        if (relevant := [passage_id for passage_id, grade in judged.items() if grade > 0])
    }
    if lost := [query_id for query_id in positives if query_id not in queries]:
        raise ValueError(f"{len(lost)} judged queries have no text, the first is {lost[0]!r}; give the queries of these qrels.")
    miner = _Miner(search_many, texts, n_negatives, (first, last), margin, seed)
    return miner.mine(_as_queries(queries, positives), len(positives), progress)


def mine_pairs(
    pairs: Iterable[Example],
    encoder: str | PathLike[str] | TokenEncoder | None = None,
    *,
    n_negatives: int,
    ranks: tuple[int, int] = (10, 100),
    margin: float | None = None,
    seed: int = 12345,
    progress: bool | None = None,
) -> Iterator[Example]:
    """Mine negatives for examples without ids: their positives are put into an index in memory, where they are searched.

    Args:
        pairs: queries and positives; their negatives are not used.
        encoder: a checkpoint's name or folder, or a loaded encoder; None for the model in the box.
        n_negatives: see ``mine``.
        ranks: see ``mine``.
        margin: see ``mine``.
        seed: see ``mine``.
        progress: show bars; None shows them on a terminal or in a notebook once a second has passed.

    Raises:
        ValueError: see ``mine``.
    """
    numbered, judged, passages = as_collection(pairs)
    # The numbers of queries and passages have nothing to do with each other.
    queries = {f"query {name}": text for name, text in numbered.items()}
    qrels = {f"query {name}": grades for name, grades in judged.items()}
    index = Index.create(None, encoder)
    index.add([Passage(passage_id, text) for passage_id, text in passages.items()], progress=progress)
    return mine(
        queries,
        qrels,
        searcher(index),
        lambda ids: [passages[passage_id] for passage_id in ids],
        n_negatives=n_negatives,
        ranks=ranks,
        margin=margin,
        seed=seed,
        progress=progress,
    )


def as_collection(pairs: Iterable[Example]) -> tuple[dict[str, str], dict[str, dict[str, int]], dict[str, str]]:
    """Make queries, qrels and passages of examples without ids. The id of a text is its number among different texts, from 0.

    Example:
        >>> as_collection([Example("q", "a"), Example("q", "b")])
        ({'0': 'q'}, {'0': {'0': 1, '1': 1}}, {'0': 'a', '1': 'b'})
    """
    query_ids: dict[str, str] = {}
    passage_ids: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for pair in pairs:
        query_id = query_ids.setdefault(pair.query, str(len(query_ids)))
        passage_id = passage_ids.setdefault(pair.positive, str(len(passage_ids)))
        qrels.setdefault(query_id, {})[passage_id] = 1
    queries, passages = ({text_id: text for text, text_id in ids.items()} for ids in (query_ids, passage_ids))
    return queries, qrels, passages


def searcher(index: IndexBase) -> SearchMany:
    """Return a search of an index for ``mine``.

    A document that was cut into ``ID#1``, ``ID#2`` and so on has the score of its best piece, as ``ID``, the id that judgements
    and texts have. The search asks for more pieces until there are k documents, or the index has no more.
    """

    def search_many(queries: list[str], k: int) -> list[Ranked]:
        rankings: dict[int, Ranked] = {}
        pending, depth = [*range(len(queries))], k
        while pending:
            pieces = dict(zip(pending, index.search_many([queries[i] for i in pending], depth), strict=True))
            rankings |= {i: by_document(hits)[:k] for i, hits in pieces.items()}
            pending = [i for i, hits in pieces.items() if len(rankings[i]) < k and len(hits) == depth]
            depth *= 2
        return [rankings[i] for i in range(len(queries))]

    return search_many


@dataclass
class _Query:
    """A query and what was drawn for it.

    Attributes:
        text: the query.
        positives: ids of the passages relevant to it; each makes an example.
        relevant: ids of the passages that are relevant to it or to another query of the same text.
        excluded: ids that are never its negatives.
        first_example: number of its first example among all, for the draw.
        negatives: ids of the negatives of each example.
        pool: ids from which a draw takes its negatives.
    """

    text: str
    positives: list[str]
    relevant: list[str]
    excluded: set[str]
    first_example: int
    negatives: list[list[str]] = field(default_factory=list)
    pool: set[str] = field(default_factory=set)

    @property
    def drawn(self) -> list[str]:
        """Ids of all passages of its examples."""
        return [*self.positives, *(passage_id for negatives in self.negatives for passage_id in negatives)]


def _as_queries(queries: Mapping[str, str], positives: dict[str, list[str]]) -> Iterator[_Query]:
    """Make the queries that have a relevant passage."""
    relevant: dict[str, dict[str, None]] = {}
    for query_id, passage_ids in positives.items():
        relevant.setdefault(_folded(queries[query_id]), {}).update(dict.fromkeys(passage_ids))
    n_examples = 0
    for query_id, passage_ids in positives.items():
        same = [*relevant[_folded(queries[query_id])]]
        yield _Query(queries[query_id], passage_ids, same, {query_id, *same}, n_examples)
        n_examples += len(passage_ids)


@dataclass
class _Miner:
    """The settings of ``mine``."""

    search_many: SearchMany
    texts: Texts
    n_negatives: int
    ranks: tuple[int, int]
    margin: float | None
    seed: int

    def mine(self, queries: Iterator[_Query], n_queries: int, progress: bool | None) -> Iterator[Example]:
        """Draw negatives for each query, and make its examples."""
        n_examples = n_short = 0
        drawn: list[_Query] = []
        with progress_bar("Mining", n_queries, "query", progress) as bar:
            while True:
                batch = list(islice(queries, _AT_A_TIME))
                self._draw(batch)
                drawn += batch
                bar.update(len(batch))
                if batch and sum(len(query.drawn) for query in drawn) < _TEXTS_AT_A_TIME:
                    continue
                for query, texts_by_id in self._without_copies(drawn):
                    for positive, negatives in zip(query.positives, query.negatives, strict=True):
                        n_examples += 1
                        n_short += len(negatives) < self.n_negatives
                        yield Example(query.text, texts_by_id[positive], tuple(texts_by_id[name] for name in negatives))
                drawn.clear()
                if not batch:
                    break
        if n_short:
            logger.warning(
                "%d of %d examples have fewer than %d negatives: the retriever found no more that are neither relevant nor "
                "within the margin. Widen ranks, or raise margin.",
                n_short, n_examples, self.n_negatives,
            )  # fmt: skip

    def _without_copies(self, queries: list[_Query]) -> Iterator[tuple[_Query, dict[str, str]]]:
        """Draw again where a negative is the query or a relevant passage under another id; return the texts as well.

        Texts may come from a file that is read from its beginning, so those of all queries are asked for at once: first what
        was drawn, and for queries that drew a copy all that the next draw may take.
        """
        texts_by_id: dict[str, str] = {}
        pending = queries
        suspects = [query.drawn for query in queries]
        while pending:
            wanted = dict.fromkeys(name for query in pending for name in query.relevant)
            wanted |= dict.fromkeys(name for names in suspects for name in names)
            needed = [name for name in wanted if name not in texts_by_id]
            texts_by_id |= zip(needed, self.texts(needed), strict=True) if needed else ()
            with_copies = []
            for query, names in zip(pending, suspects, strict=True):
                answers = {_folded(query.text), *(_folded(texts_by_id[name]) for name in query.relevant)}
                copies = {name for name in names if _folded(texts_by_id[name]) in answers} - query.excluded
                query.excluded |= copies
                with_copies += [query] * bool(copies)
            pending = with_copies
            self._draw(pending)
            suspects = [[*query.pool] for query in pending]
        yield from ((query, texts_by_id) for query in queries)

    def _draw(self, queries: list[_Query]) -> None:
        """Draw the negatives of some queries."""
        last = self.ranks[1]
        for query, ranked in zip(queries, self._search_deep_enough(queries), strict=True):
            query.negatives, query.pool = [], set()
            for number, positive in enumerate(query.positives, query.first_example):
                candidates = self._candidates(query, ranked, positive)
                n_inside = sum(rank <= last for rank, _ in candidates)
                # By rank; if the window holds too few, all of it and the next ones.
                pool = [name for _, name in candidates[: max(n_inside, self.n_negatives)]]
                query.pool.update(pool)
                if n_inside > self.n_negatives:
                    rng = np.random.default_rng([self.seed, number])
                    pool = [pool[i] for i in np.sort(rng.choice(n_inside, self.n_negatives, replace=False))]
                query.negatives.append(pool)

    def _search_deep_enough(self, queries: list[_Query]) -> list[Ranked]:
        """Search for each query as deep as it takes to find enough candidates, within ``_DEEPEST``."""
        rankings: dict[int, Ranked] = {}

        def is_deep_enough(place: int, depth: int) -> bool:
            ranked, query = rankings[place], queries[place]
            if len(ranked) < depth:
                return True  # the retriever has no more
            if self.margin is not None and not {*query.positives} <= {name for name, _ in ranked}:
                return False
            return all(len(self._candidates(query, ranked, positive)) >= self.n_negatives for positive in query.positives)

        pending, depth = [*range(len(queries))], self.ranks[1]
        while pending and depth <= self.ranks[1] * _DEEPEST:
            for start in range(0, len(pending), _AT_A_TIME):
                part = pending[start : start + _AT_A_TIME]
                rankings |= zip(part, self.search_many([queries[place].text for place in part], depth), strict=True)
            pending = [place for place in pending if not is_deep_enough(place, depth)]
            depth *= 2
        return [rankings[place] for place in range(len(queries))]

    def _candidates(self, query: _Query, ranked: Ranked, positive: str) -> list[tuple[int, str]]:
        """Return rank and id of the passages that may be negatives, from the first rank of the window to the end."""
        target = None if self.margin is None else dict(ranked).get(positive)  # the positive's score
        limit = np.inf if target is None or self.margin is None else target - (1 - self.margin) * abs(target)
        return [
            (rank, name)
            for rank, (name, score) in enumerate(ranked, 1)
            if rank >= self.ranks[0] and name not in query.excluded and score <= limit
        ]


def _folded(text: str) -> str:
    """Return what two texts have in common that differ in capitals and blanks only."""
    return " ".join(text.casefold().split())
