"""What a blank query finds for a framework: an LLM sends one where a question is about metadata alone."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from colbert_core.checks import check_count, check_relevance
from colbert_core.text.blank import is_blank
from colbert_core.types import Hit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from colbert_core.types import PassageIndex, Where

logger = logging.getLogger(__name__)


def hits_of_blank_query(
    index: PassageIndex,
    queries: Sequence[str],
    k: int,
    *,
    where: Where | None = None,
    ids: Iterable[str] | None = None,
    min_relevance: float | None = None,
) -> list[Hit] | None:
    """What a retriever gives for a query without a word, so that an agent can go on: the passages that its filter matches.

    ``Index.search`` refuses a blank query, for nothing can be ranked by it.

    Args:
        index: the index to look into; one of your own that has no method ``passages`` gives None for a filter.
        queries: the texts of the query. It is blank if each of them is.
        k: most hits, at least 1.
        where: as in ``Index.search``; ``{}`` is no filter.
        ids: as in ``Index.search``.
        min_relevance: least relevance; above 0 there are no hits.

    Returns:
        None if there is something to search by. Otherwise the passages that the filter or the ids let through, in the order in
        which they were added, with score and relevance 0 and an empty span, as no part of them matched; and without a filter no
        hits, of which the log warns.

    Raises:
        TypeError, ValueError: as ``Index.search``, but for the query.
    """
    if not all(isinstance(query, str) and is_blank(query) for query in queries):
        return None
    k, least = check_count(k, "k"), check_relevance(min_relevance, "min_relevance") or 0.0
    if not where and ids is None:
        logger.warning("The query is empty and there is no filter, so nothing is found; ask with at least one word.")
        return []
    passages = getattr(index, "passages", None)
    if passages is None:
        return None
    found = passages(where, ids=ids, limit=k)
    return [] if least else [Hit(passage, 0.0, 0.0, rank, (0, 0)) for rank, passage in enumerate(found, 1)]
