"""Hard negatives for training: passages that a retriever ranks high and nobody judged relevant. Nothing is trained here."""

from __future__ import annotations

import logging
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
    return _mine(queries, positives, search_many, texts, n_negatives, (first, last), margin, seed, progress)


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
    queries, qrels, passages = as_collection(pairs)
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


def searcher(index: Index) -> SearchMany:
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


def _mine(
    queries: Mapping[str, str],
    positives: dict[str, list[str]],
    search_many: SearchMany,
    texts: Texts,
    n_negatives: int,
    ranks: tuple[int, int],
    margin: float | None,
    seed: int,
    progress: bool | None,
) -> Iterator[Example]:
    query_ids = iter(positives)
    n_examples = n_short = 0
    drawn: list[tuple[str, list[str]]] = []  # query, and its positive and negatives
    with progress_bar("Mining", len(positives), "query", progress) as bar:
        while batch := {query_id: positives[query_id] for query_id in islice(query_ids, _AT_A_TIME)}:
            for query_id, ranked in _search_deep_enough(queries, batch, search_many, n_negatives, ranks, margin).items():
                for positive in batch[query_id]:
                    candidates = _candidates(ranked, batch[query_id], positive, ranks[0], margin)
                    negatives = _draw(candidates, ranks[1], n_negatives, np.random.default_rng([seed, n_examples]))
                    drawn.append((query_id, [positive, *negatives]))
                    n_examples += 1
                    n_short += len(negatives) < n_negatives
            bar.update(len(batch))
            if sum(len(passage_ids) for _, passage_ids in drawn) >= _TEXTS_AT_A_TIME:
                yield from _with_texts(drawn, queries, texts)
                drawn.clear()
    yield from _with_texts(drawn, queries, texts)
    if n_short:
        logger.warning(
            "%d of %d examples have fewer than %d negatives: the retriever found no more that are neither relevant nor within "
            "the margin. Widen ranks, or raise margin.",
            n_short, n_examples, n_negatives,
        )  # fmt: skip


def _with_texts(drawn: list[tuple[str, list[str]]], queries: Mapping[str, str], texts: Texts) -> Iterator[Example]:
    """Make examples of ids."""
    needed = list(dict.fromkeys(passage_id for _, passage_ids in drawn for passage_id in passage_ids))
    texts_by_id = dict(zip(needed, texts(needed), strict=True)) if needed else {}
    for query_id, passage_ids in drawn:
        positive, *negatives = (texts_by_id[passage_id] for passage_id in passage_ids)
        yield Example(queries[query_id], positive, tuple(negatives))


def _search_deep_enough(
    queries: Mapping[str, str],
    batch: dict[str, list[str]],
    search_many: SearchMany,
    n_negatives: int,
    ranks: tuple[int, int],
    margin: float | None,
) -> dict[str, Ranked]:
    """Search for each query as deep as it takes to find enough candidates, within ``_DEEPEST``."""
    rankings: dict[str, Ranked] = {}

    def is_deep_enough(query_id: str, depth: int) -> bool:
        ranked, relevant = rankings[query_id], batch[query_id]
        if len(ranked) < depth:
            return True  # the retriever has no more
        if margin is not None and not {*relevant} <= {passage_id for passage_id, _ in ranked}:
            return False
        return all(len(_candidates(ranked, relevant, positive, ranks[0], margin)) >= n_negatives for positive in relevant)

    pending, depth = [*batch], ranks[1]
    while pending and depth <= ranks[1] * _DEEPEST:
        rankings |= zip(pending, search_many([queries[query_id] for query_id in pending], depth), strict=True)
        pending = [query_id for query_id in pending if not is_deep_enough(query_id, depth)]
        depth *= 2
    return {query_id: rankings[query_id] for query_id in batch}


def _candidates(ranked: Ranked, relevant: list[str], positive: str, first: int, margin: float | None) -> list[tuple[int, str]]:
    """Return rank and id of the passages that may be negatives, from the first rank of the window to the end."""
    target = None if margin is None else dict(ranked).get(positive)  # the positive's score
    limit = np.inf if target is None or margin is None else target - (1 - margin) * abs(target)
    return [
        (rank, passage_id)
        for rank, (passage_id, score) in enumerate(ranked, 1)
        if rank >= first and passage_id not in relevant and score <= limit
    ]


def _draw(candidates: list[tuple[int, str]], last: int, n_negatives: int, rng: np.random.Generator) -> list[str]:
    """Draw negatives from the window, by rank; if it holds too few, take all of it and the next ones."""
    n_inside = sum(rank <= last for rank, _ in candidates)
    if n_inside <= n_negatives:
        return [passage_id for _, passage_id in candidates[:n_negatives]]
    return [candidates[i][1] for i in np.sort(rng.choice(n_inside, n_negatives, replace=False))]
