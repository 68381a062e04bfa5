"""Ask shards for the vectors and the evidence of windows that a search has found in them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from colbert_core.cluster.layout import shard_of
from colbert_core.errors import IndexLockedError
from colbert_core.index.windows import Question, Window
from colbert_core.search.explain import evidence_anew, query_spans, spans_of_window
from colbert_core.storage.changes import StaleRead

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from colbert_core.cluster.calls import Calls, Replicas
    from colbert_core.evidence.evidence import Evidence
    from colbert_core.types import Hit, TokenEncoder
    from colbert_core.vectors.background import Background

T = TypeVar("T")

# How often a search starts again because what it had found was changed.
_TRIES = 100


class Found(NamedTuple):
    """What was found for a query.

    Attributes:
        query: its words.
        vectors: *Shape:* (n_q, dim), float32, unit rows.
        hits: the passages.
    """

    query: str
    vectors: NDArray[np.float32]
    hits: Sequence[Hit]


def search_again(work: Callable[[], T], name: str) -> T:
    """Search, and ask for more of what was found; again, if a writer changed it or a shard was lost between the two.

    Args:
        work: does both.
        name: of the index, for messages.

    Raises:
        IndexLockedError: every one of 100 tries was overtaken.
    """
    for _ in range(_TRIES):
        with contextlib.suppress(StaleRead):
            return work()
    raise IndexLockedError(f"{name} changed {_TRIES} times while it was searched; search it while fewer writers are at work.")


def vectors_of_hits(replicas: Replicas, hits: Sequence[Hit]) -> list[NDArray[np.float32]]:
    """The vectors of the windows of hits, as their shards keep them. *Shape:* (n, dim) each, float32, unit rows.

    Raises:
        StaleRead: a passage has changed since it was found, or a shard is lost.
    """
    places: dict[int, list[int]] = {}
    for place, hit in enumerate(hits):
        places.setdefault(shard_of(hit.passage.id, len(replicas)), []).append(place)
    calls: Calls = {
        shard: ("_window_vectors", ([_window(hits[place]) for place in of_shard],), {}) for shard, of_shard in places.items()
    }
    answers = _ask(replicas, calls)
    found = {
        place: vectors for shard, of_shard in places.items() for place, vectors in zip(of_shard, answers[shard], strict=True)
    }
    return [found[place] for place in range(len(hits))]


def evidence_of_hits(
    replicas: Replicas,
    encoder: TokenEncoder,
    found: Sequence[Found],
    min_similarity: float | None,
    background: Background | None,
) -> list[list[Evidence]]:
    """The evidence of hits, computed in their shards by the vectors that these keep.

    Only the tokenizer runs, here. Where the vectors are not one for each token, as pooled ones are not, the passage is encoded
    anew, here as well.

    Args:
        replicas: of the shards.
        encoder: what encoded the collection.
        found: queries with their hits.
        min_similarity: cosine from which a match counts as found; None leaves that to the lifts.
        background: the vectors of all shards together; None where there are none.

    Raises:
        StaleRead: a passage has changed since it was found, or a shard is lost.
    """
    questions: dict[int, dict[int, Question]] = {}
    places: dict[int, list[tuple[int, int]]] = {}
    for number, (query, vectors, hits) in enumerate(found):
        spans = query_spans(encoder, query, len(vectors))
        for place, hit in enumerate(hits):
            window = _window(hit, spans_of_window(encoder, hit.passage.text, hit.span))
            if window.token_spans is not None:
                shard = shard_of(hit.passage.id, len(replicas))
                question = questions.setdefault(shard, {}).setdefault(number, Question(query, vectors, spans, []))
                question.windows.append(window)
                places.setdefault(shard, []).append((number, place))
    calls: Calls = {
        shard: ("_evidence", (list(of_shard.values()), min_similarity, background), {}) for shard, of_shard in questions.items()
    }
    told: dict[tuple[int, int], Evidence | None] = {}
    for shard, answer in _ask(replicas, calls).items():
        told |= zip(places[shard], (each for of_question in answer for each in of_question), strict=True)

    def told_or_made(number: int, place: int, hit: Hit) -> Evidence:
        query, vectors, _ = found[number]
        return told.get((number, place)) or evidence_anew(encoder, query, vectors, hit.passage, min_similarity, background)

    return [[told_or_made(number, place, hit) for place, hit in enumerate(hits)] for number, (_, _, hits) in enumerate(found)]


def _window(hit: Hit, token_spans: NDArray[np.int32] | None = None) -> Window:
    return Window(hit.passage.id, hit.passage.text, hit.span, token_spans)


def _ask(replicas: Replicas, calls: Calls) -> dict[int, Any]:
    answers, missing = replicas.ask_or_do_without(calls)
    if missing:
        raise StaleRead("shards")
    return answers
