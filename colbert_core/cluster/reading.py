"""Read an index in shards: passages, vectors, figures, and whether all of it is sound."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial, reduce
from itertools import chain, zip_longest
from operator import add, or_
from typing import TYPE_CHECKING

from colbert_core.checks import id_list
from colbert_core.cluster.layout import shard_of
from colbert_core.index.base import IndexBase
from colbert_core.index.restriction import Restriction
from colbert_core.index.tuning import N_QUERIES, find_quickest
from colbert_core.index.verification import RECALL_AT, verified
from colbert_core.progress import progress_bar
from colbert_core.search.config import ladder_of_configs
from colbert_core.storage.fields import together
from colbert_core.types import Page
from colbert_core.vectors.background import Background

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from colbert_core.cluster.calls import About, Calls, Replicas
    from colbert_core.index.advice import Advice
    from colbert_core.index.reports import IndexStats, Tuning, Verification
    from colbert_core.search.config import SearchConfig
    from colbert_core.storage.fields import Outline, Survey
    from colbert_core.types import Passage, Where
    from colbert_core.vectors.background import Moments


class ReadableShards(IndexBase):
    """The reading half of a ``ShardedIndex``, without its searches."""

    _replicas: Replicas
    _pool_factor: float
    _advice: Advice
    _has_words: bool
    _known_moments: dict[int, tuple[tuple[str, int], Moments | None]]

    def get(self, ids: Iterable[str]) -> list[Passage | None]:
        """The passages with these ids, in their order; None where there is none."""
        wanted = id_list(ids)
        routed = self._route(list(dict.fromkeys(wanted)))
        answers = self._replicas.ask({shard: ("get", (of_shard,), {}) for shard, of_shard in routed.items()})
        passages = {
            passage_id: passage
            for shard, of_shard in routed.items()
            for passage_id, passage in zip(of_shard, answers[shard], strict=True)
        }
        return [passages[passage_id] for passage_id in wanted]

    def ids(self, where: Where | None = None) -> list[str]:
        """The ids of all passages, or of those that a filter matches, shard by shard."""
        self._advise(Restriction(where))
        return [passage_id for ids in self._replicas.ask_all("ids", where) for passage_id in ids]

    def _page(self, restriction: Restriction, limit: int | None, after: str | None) -> Page[Passage]:
        """Shard by shard; ``after`` begins with the shard's number."""
        self._advise(restriction)
        routed = None if restriction.ids is None else self._route(restriction.ids)
        first, of_shard = (0, None) if after is None else self._place(after)
        found: list[Passage] = []
        for shard in range(first, len(self._replicas)):
            ids = None if routed is None else routed.get(shard, [])
            left = None if limit is None else max(limit - len(found), 1)
            options = {"ids": ids, "limit": left, "after": of_shard if shard == first else None}
            page: Page[Passage] = self._replicas.ask({shard: ("passages", (restriction.where,), options)})[shard]
            if page and limit is not None and len(found) == limit:
                return Page(found, f"{shard}:")
            found += page
            if page.next is not None:
                return Page(found, f"{shard}:{page.next}")
        return Page(found)

    def _place(self, after: str) -> tuple[int, str | None]:
        """The shard with which a page begins, and behind what.

        Raises:
            TypeError, ValueError: it comes from elsewhere.
        """
        if not isinstance(after, str):
            raise TypeError(f"after is what a page gave as its next, a str, got {type(after).__name__}: {after!r:.80}")
        shard, colon, of_shard = after.partition(":")
        if not (colon and re.fullmatch("[0-9]{1,9}", shard) and int(shard) < len(self._replicas)):
            raise ValueError(f"after is what a page of this index gave as its next, such as '0:', got {after!r:.80}.")
        return int(shard), of_shard or None

    def _count(self, restriction: Restriction) -> int:
        self._advise(restriction)
        return sum(self._replicas.ask_all("count", restriction.where))

    def _outline(self, limit: int, after: str | None) -> Outline:
        return together(self._replicas.ask_all("_outline", limit, after), limit)

    def has_words(self) -> bool:
        """Whether all shards have words, so that hybrid search is to be had."""
        self._has_words = self._has_words or all(self._replicas.ask_all("has_words"))  # they do not lose them again
        return self._has_words

    def stats(self) -> IndexStats:
        """Figures of all shards together; ``generation`` counts the commits of all."""
        each: list[IndexStats] = self._replicas.ask_all("stats")
        sums = ("passages", "windows", "tokens", "segments", "dead_tokens", "vector_bytes", "generation", "word_bytes")
        summed = {name: sum(getattr(stats, name) for stats in each) for name in sums}
        centroids = max(stats.centroids for stats in each)  # a refit goes from shard to shard
        return replace(each[0], pool_factor=self._pool_factor, centroids=centroids, **summed)

    def _survey(self, paths: Sequence[str], value: str | None = None) -> Survey:
        surveys: list[Survey] = self._replicas.ask_all("_survey", paths, value)
        return reduce(or_, surveys)

    def _advise(self, restriction: Restriction) -> None:
        """Warn of a filter that asks for what no passage of any shard has.

        The shards are asked for this before they are asked for anything else, but only when a field is first compared with a
        type: what one of them has had counts as there from then on. A shard that is down may have it.
        """
        expected = self._advice.unsaid(restriction.expected)
        if not expected:
            return
        calls: Calls = {shard: ("_survey", ([each.path for each in expected],), {}) for shard in range(len(self._replicas))}
        answers, missing = self._replicas.attempt(calls, wait=not self._replicas.allow_partial)
        if missing and not self._replicas.allow_partial:
            raise self._replicas.unavailable(missing)
        if not missing:
            self._advice.say(expected, reduce(or_, answers.values()))

    @property
    def codec_id(self) -> str | None:
        """SHA-256 of the codec that all shards have, hexadecimal; None where vectors are kept as they are.

        That of the first shard while a ``refit`` is not done.
        """
        about: About = self._replicas.ask({0: ("about", (), {})})[0]
        return about.codec

    def background(self) -> Background | None:
        """How the vectors of all shards together are spread; None without any. Only shards that have changed send sums."""
        known = self._known_moments
        calls: Calls = {shard: ("_moments", (known[shard][0] if shard in known else None,), {}) for shard in self._shards}
        answers, _ = self._replicas.ask_or_do_without(calls)
        told = {shard: known[shard] if answers[shard] is None else answers[shard] for shard in sorted(answers)}
        self._known_moments = {**known, **told}
        moments = [each for _, each in told.values() if each is not None]
        return Background.of_moments(reduce(add, moments)) if moments else None

    @property
    def _shards(self) -> range:
        """The numbers of all shards."""
        return range(len(self._replicas))

    def _embeddings(self, ids: Sequence[str]) -> list[NDArray[np.float32] | None]:
        routed = self._route(list(dict.fromkeys(ids)))
        answers = self._replicas.ask({shard: ("_embeddings", (of_shard,), {}) for shard, of_shard in routed.items()})
        vectors = dict(chain.from_iterable(zip(of_shard, answers[shard], strict=True) for shard, of_shard in routed.items()))
        return [vectors[passage_id] for passage_id in ids]

    def _queries(self, n: int) -> tuple[list[NDArray[np.float32]], int]:
        """The vectors of at most ``n`` passages as queries, from all shards in turns, and the windows of the largest shard."""
        answers: list[tuple[list[NDArray[np.float32]], int]] = self._replicas.ask_all("_queries", n)
        in_turns = chain.from_iterable(zip_longest(*(queries for queries, _ in answers)))
        return [query for query in in_turns if query is not None][:n], max(n_windows for _, n_windows in answers)

    def _find(self, query: NDArray[np.float32], k: int, config: SearchConfig | None, exact: bool) -> list[str]:
        """The ids of the best passages of all shards."""
        (hits,) = self._hits([query], k, Restriction(), config=config, exact=exact, min_relevance=None)
        return [hit.passage.id for hit in hits]

    def _tune(self, matrices: list[NDArray[np.float32]] | None, k: int, target_recall: float, progress: bool | None) -> Tuning:
        """What is found of all shards together counts, and each of them looks at as much as the config says."""
        sampled, n_windows = self._queries(N_QUERIES)

        def find(query: NDArray[np.float32], config: SearchConfig | None) -> list[str]:
            return self._find(query, k, config, config is None)

        ladder = ladder_of_configs(k, n_windows)
        return find_quickest(find, matrices or sampled, ladder, target_recall, progress, repr(self))

    def _verify(self, n_queries: int, progress: bool | None) -> Verification:
        problems: list[str] = []
        n_unchecked = 0
        with progress_bar("Verifying", 2 * len(self._replicas), "step", progress) as bar:
            for shard, (of_shard, unchecked) in enumerate(self._replicas.ask_all("_check", patiently=True)):
                problems += [f"Shard {shard}: {problem}" for problem in of_shard]
                n_unchecked += unchecked
            bar.update(len(self._replicas))
            if not problems:
                astray: Calls = {
                    shard: ("count", (partial(_is_astray, shard=shard, n_shards=len(self._replicas)),), {})
                    for shard in self._shards
                }
                for shard, n in sorted(self._replicas.ask(astray, patiently=True).items()):
                    if n:
                        problems.append(f"Shard {shard}: {n} passages belong to other shards, and are not found by their ids")
            bar.update(len(self._replicas))
        queries = [] if problems else self._queries(n_queries)[0]
        return verified(problems, n_unchecked, queries, lambda query, exact: self._find(query, RECALL_AT, None, exact))

    def _route(self, ids: Sequence[str]) -> dict[int, list[str]]:
        """The ids by the shards that they belong to."""
        routed: dict[int, list[str]] = {}
        for passage_id in ids:
            routed.setdefault(shard_of(passage_id, len(self._replicas)), []).append(passage_id)
        return routed

    def __len__(self) -> int:
        return sum(self._replicas.ask_all("__len__"))

    def __contains__(self, passage_id: object) -> bool:
        return isinstance(passage_id, str) and self.get([passage_id]) != [None]


def _is_astray(passage: Passage, *, shard: int, n_shards: int) -> bool:
    """Whether a passage of this shard belongs to another one."""
    return shard_of(passage.id, n_shards) != shard
