"""Hard negatives for training: what a retriever ranks high and nobody judged relevant. Nothing is trained here."""

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

# Texts asked for together, about 100 MB: where they are on disk, all of it may be read each time.
_TEXTS_AT_A_TIME = 2**18

# How much deeper than the window a search goes where that holds too few: twice as deep each time, up to so many times.
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
    """Examples with hard negatives, one for each query and passage that is relevant to it.

    Negatives are drawn at random from a window of a retriever's ranks. The first ranks are left out, since what stands there
    and was never judged is often relevant. Where the window holds too few, as in a small collection, the ranks behind it
    follow, nearest first. A query that finds fewer in all gets fewer, which is logged.

    With a margin, a candidate is taken for a false negative if its score is above ``margin`` times the positive's, as in
    NV-Retriever (Moreira et al., 2024, arXiv 2407.15831, section 3, "TopK-PercPos"). For scores below zero that is the
    positive's less (1 - margin) of its size. A positive that the retriever does not find has no score, and nothing is dropped
    on its account.

    Args:
        queries: text by id.
        qrels: for each query the grade of judged passages by id; above 0 is relevant. No judged passage above 0 becomes a
            negative of its query. Queries without a relevant one are passed over.
        search_many: the k best passages of each of some queries, as ids and scores, best first, such as ``searcher(index)``.
        texts: passages by their ids; it is asked for many at a time.
        n_negatives: of each example.
        ranks: first and last rank of the window, both in it, counted from 1 over what the retriever returns.
        margin: from above 0 to 1, such as .95; None drops nothing.
        seed: of the draw. It is made for each example by its own, so examples do not depend on each other.
        progress: show a bar; None shows it on a terminal once a second has passed.

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
    return _mined(queries, positives, search_many, texts, n_negatives, (first, last), margin, seed, progress)


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
    """``mine`` for examples without ids: their positives become an index in memory, and are each other's candidates.

    Args:
        pairs: queries and positives; negatives they have are not used.
        encoder: what to search with: a checkpoint's name or folder, or a loaded one; None for the model in the box.
        n_negatives: see ``mine``.
        ranks: see ``mine``.
        margin: see ``mine``.
        seed: see ``mine``.
        progress: show bars; None shows them on a terminal once a second has passed.

    Raises:
        ValueError: see ``mine``.
    """
    queries, qrels, passages = as_collection(pairs)
    index = Index.create(None, encoder)
    index.add([Passage(name, text) for name, text in passages.items()], progress=progress)
    return mine(
        queries,
        qrels,
        searcher(index),
        lambda names: [passages[name] for name in names],
        n_negatives=n_negatives,
        ranks=ranks,
        margin=margin,
        seed=seed,
        progress=progress,
    )


def as_collection(pairs: Iterable[Example]) -> tuple[dict[str, str], dict[str, dict[str, int]], dict[str, str]]:
    """Queries, qrels and passages of examples without ids: each distinct text gets one, its number from 0.

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
    queries, passages = ({name: text for text, name in ids.items()} for ids in (query_ids, passage_ids))
    return queries, qrels, passages


def searcher(index: Index) -> SearchMany:
    """How ``mine`` searches an index.

    Of a document that was cut into ``ID#1``, ``ID#2`` and so on the best piece counts, as ``ID``, which is what the judgements
    and texts of a collection have; so many pieces are asked for that there are k documents, unless the index has no more.
    """

    def search_many(queries: list[str], k: int) -> list[Ranked]:
        found: dict[int, Ranked] = {}
        pending, depth = [*range(len(queries))], k
        while pending:
            pieces = dict(zip(pending, index.search_many([queries[i] for i in pending], depth), strict=True))
            found |= {i: by_document(hits)[:k] for i, hits in pieces.items()}
            pending = [i for i, hits in pieces.items() if len(found[i]) < k and len(hits) == depth]
            depth *= 2
        return [found[i] for i in range(len(queries))]

    return search_many


def _mined(
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
    waiting = iter(positives)
    n_examples = n_short = 0
    drawn: list[tuple[str, list[str]]] = []  # query, and its positive and negatives
    with progress_bar("Mining", len(positives), "query", progress) as bar:
        while batch := {query_id: positives[query_id] for query_id in islice(waiting, _AT_A_TIME)}:
            for query_id, ranked in _deep_enough(queries, batch, search_many, n_negatives, ranks, margin).items():
                for positive in batch[query_id]:
                    candidates = _candidates(ranked, batch[query_id], positive, ranks[0], margin)
                    chosen = _drawn(candidates, ranks[1], n_negatives, np.random.default_rng([seed, n_examples]))
                    drawn.append((query_id, [positive, *chosen]))
                    n_examples += 1
                    n_short += len(chosen) < n_negatives
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
    names = list(dict.fromkeys(name for _, passage_ids in drawn for name in passage_ids))
    text_of = dict(zip(names, texts(names), strict=True)) if names else {}
    for query_id, passage_ids in drawn:
        positive, *negatives = (text_of[name] for name in passage_ids)
        yield Example(queries[query_id], positive, tuple(negatives))


def _deep_enough(
    queries: Mapping[str, str],
    batch: dict[str, list[str]],
    search_many: SearchMany,
    n_negatives: int,
    ranks: tuple[int, int],
    margin: float | None,
) -> dict[str, Ranked]:
    """What is found for each query, so deep that there are enough candidates, or no more, or no sense in going on."""
    found: dict[str, Ranked] = {}

    def is_deep_enough(query_id: str, depth: int) -> bool:
        ranked, relevant = found[query_id], batch[query_id]
        if len(ranked) < depth:
            return True  # the retriever has no more
        if margin is not None and not {*relevant} <= {passage_id for passage_id, _ in ranked}:
            return False
        return all(len(_candidates(ranked, relevant, one, ranks[0], margin)) >= n_negatives for one in relevant)

    pending, depth = [*batch], ranks[1]
    while pending and depth <= ranks[1] * _DEEPEST:
        found |= zip(pending, search_many([queries[query_id] for query_id in pending], depth), strict=True)
        pending = [query_id for query_id in pending if not is_deep_enough(query_id, depth)]
        depth *= 2
    return {query_id: found[query_id] for query_id in batch}


def _candidates(ranked: Ranked, relevant: list[str], positive: str, first: int, margin: float | None) -> list[tuple[int, str]]:
    """Rank and id of what may be a negative, from the first rank of the window to the end."""
    highest = dict(ranked).get(positive) if margin is not None else None
    limit = np.inf if highest is None or margin is None else highest - (1 - margin) * abs(highest)
    return [
        (rank, passage_id)
        for rank, (passage_id, score) in enumerate(ranked, 1)
        if rank >= first and passage_id not in relevant and score <= limit
    ]


def _drawn(candidates: list[tuple[int, str]], last: int, n_negatives: int, rng: np.random.Generator) -> list[str]:
    """So many of the window, or all of it and what follows, by rank."""
    n_inside = sum(rank <= last for rank, _ in candidates)
    if n_inside <= n_negatives:
        return [passage_id for _, passage_id in candidates[:n_negatives]]
    return [candidates[i][1] for i in np.sort(rng.choice(n_inside, n_negatives, replace=False))]
