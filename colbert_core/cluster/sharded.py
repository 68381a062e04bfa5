"""Search a sharded index like one ``Index``: shards in Ray actors, a query encoded once, exact merging of their answers."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from colbert_core.checks import check_count, id_list
from colbert_core.cluster.calls import About, Replicas, shard_list
from colbert_core.cluster.fetching import fetch_all, find_layout
from colbert_core.cluster.layout import shard_of
from colbert_core.cluster.nodes import check_version, connect, version
from colbert_core.errors import ClusterError, DamagedIndexError, EncoderMismatchError, UnsupportedIndexError
from colbert_core.index.advice import Advice
from colbert_core.index.base import IndexBase
from colbert_core.index.restriction import Restriction
from colbert_core.index.writing import add_in_batches
from colbert_core.model.fingerprint import LazyEncoder, loaded_encoder
from colbert_core.rerank import Reranker
from colbert_core.search.explain import mark_shared
from colbert_core.search.lexical import WordCounts
from colbert_core.storage.fields import together
from colbert_core.types import Hit, Page
from colbert_core.vectors.embeddings import embeddings_of
from colbert_core.vectors.pooling import check_factor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from os import PathLike

    import numpy as np
    from numpy.typing import NDArray

    from colbert_core.cluster.calls import Calls, ShardHealth
    from colbert_core.evidence.evidence import Evidence
    from colbert_core.index.reports import IndexStats
    from colbert_core.model.fingerprint import EncoderFingerprint
    from colbert_core.search.lexical import ByWords
    from colbert_core.storage.fields import Outline, Survey
    from colbert_core.types import Passage, Query, TokenEmbeddings, TokenEncoder, Where
    from colbert_core.vectors.background import Background


class PartialHits(list[Hit]):
    """Hits of the shards that answered; what ``allow_partial=True`` gives.

    Attributes:
        missing_shards: numbers of the shards that did not; empty if the hits are those of the whole collection.
    """

    def __init__(self, hits: Iterable[Hit], missing_shards: Sequence[int]) -> None:
        super().__init__(hits)
        self.missing_shards = tuple(missing_shards)


class ShardedIndex(IndexBase):
    """An index in shards on the machines of a Ray cluster, with the searches, adds and deletes of an ``Index``.

    A query is encoded once, here, and each shard finds its best; merged, these are the best of all, in the order and with the
    scores of one index with the same codec. Where words rank as well, all shards are asked first how often they have the words
    of the query, so that a word is as rare for each of them as it is in the whole collection. Passages are added to and deleted
    from the shard that their id hashes to, on disk, safe when the call returns; all replicas of a shard read the same folder.

    A shard whose process or node died is asked again on another replica, or on the same one once Ray has started it again.
    What cannot be had in time is a ``ShardUnavailableError``, or with ``allow_partial`` a result that says which shards are
    missing. A ``where`` that is a function is sent to the shards, and must be one that can be.

    Example:
        >>> with ShardedIndex.open("wiki.cluster") as index:
        ...     hits = index.search("happy pets", k=3)
    """

    def __init__(self, replicas: Replicas, encoder: TokenEncoder | None, settings: dict[str, Any]) -> None:
        """Use ``open``."""
        self._replicas = replicas
        self._settings = settings
        self._pool_factor = replicas.layout.read().pool_factor  # vectors are pooled before they are sent to their shards
        fingerprint = self._agree()
        self._encoder = LazyEncoder(fingerprint, encoder)
        self._advice = Advice()
        self._background: Background | None = None
        self._has_words = False

    @classmethod
    def open(
        cls,
        folder: str | PathLike[str],
        encoder: str | PathLike[str] | TokenEncoder | None = None,
        *,
        replicas: int = 1,
        address: str | None = None,
        allow_partial: bool = False,
        timeout: float = 60.0,
        num_cpus: float = 0,
        cache: str | PathLike[str] | None = None,
        progress: bool | None = None,
    ) -> ShardedIndex:
        """Start an actor for each shard and replica, as far from each other as there are nodes.

        Args:
            folder: what ``build`` made, under a path that every node sees; or the address that ``publish`` put it at, such as
                "s3://bucket/folder", from where each actor fetches its shard first. Then it can be searched only.
            encoder: a checkpoint's name or folder, or a loaded encoder; None for the one it was made with, which is then
                loaded when it is first needed.
            replicas: actors for each shard, which share the searches and stand in for each other.
            address: of the Ray cluster, "host:port", "ray://host:port" or "auto"; None for the one at hand, or else Ray on
                this machine alone, which is started and stays until the process ends.
            allow_partial: a search goes without the shards that are down, says so in the log, and its hits are
                ``PartialHits``. Everything else still needs all shards.
            timeout: seconds that a call may take, lost actors and their new start included.
            num_cpus: cores that Ray sets aside for each actor.
            cache: folder of each machine for what is fetched; None for ``~/.cache/colbert-retrievers``.
            progress: show a bar while shards are fetched; None shows it on a terminal or in a notebook.

        Raises:
            IndexNotFoundError: there is no sharded index.
            DamagedIndexError: a shard is missing or damaged, or its building was not finished.
            EncoderMismatchError: shards, or the encoder, are of different models.
            ClusterUnreachableError: the cluster does not answer.
            ClusterError: shards have different codecs, or nodes different versions of this package.
            ShardUnavailableError: a shard could not be started in time.
            MissingExtraError: Ray is not installed.
        """
        check_count(replicas, "replicas", "actors")
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
            raise ValueError(f"timeout is a number of seconds above 0, got {timeout!r}.")
        layout = find_layout(folder, cache)
        n_shards = layout.read().shards
        missing = layout.missing(n_shards)
        if missing and not allow_partial:
            raise DamagedIndexError(
                f"{layout.folder} lacks {len(missing)} of its {n_shards} shards ({shard_list(missing)}); build it again with "
                "the same arguments, which makes those that are missing."
            )
        loaded = None if encoder is None else loaded_encoder(encoder)
        ray = connect(address, timeout)
        waits: dict[str, Any] = {"timeout": timeout, "allow_partial": allow_partial, "num_cpus": num_cpus}
        started = Replicas.start(ray, layout, shards=n_shards, replicas=replicas, **waits)
        settings = {"replicas": replicas, "address": address, "cache": cache, **waits}
        try:
            fetch_all(ray, layout, started.actors, partly=allow_partial, progress=progress)
            return cls(started, loaded, settings)
        except BaseException:
            started.close()
            raise

    def _agree(self) -> EncoderFingerprint:
        """The model that all shards were made with; they have the same codec, too."""
        folder = self._replicas.layout.folder
        calls: Calls = dict.fromkeys(range(len(self._replicas)), ("about", (), {}))
        abouts: dict[int, About]
        abouts, missing = self._replicas.ask_or_do_without(calls)
        if not abouts:
            raise self._replicas.unavailable(missing)
        first = min(abouts)
        for shard, about in abouts.items():
            check_version(version(), about.version, about.node)
            if not about.made_with.agrees_with(abouts[first].made_with):
                raise EncoderMismatchError(
                    f"Shard {first} of {folder} was made with {abouts[first].made_with.encoder}, shard {shard} "
                    f"with {about.made_with.encoder}; build those that are not of the model you want again."
                )
            if (about.codec, about.nbits) != (abouts[first].codec, abouts[first].nbits):
                raise ClusterError(
                    f"Shards {first} and {shard} of {folder} have different codecs "
                    f"({_codec_name(abouts[first])} and {_codec_name(about)}), so their scores cannot be compared; build them "
                    "again."
                )
        return replace(abouts[first].made_with, index=f"The sharded index {folder}")

    async def asearch(self, query: Query, k: int = 10, **options: Any) -> list[Hit]:
        """``search`` with the same options, while the event loop goes on."""
        return await asyncio.to_thread(self.search, query, k, **options)

    def _hits(
        self,
        matrices: Sequence[NDArray[np.float32]],
        k: int,
        restriction: Restriction,
        *,
        texts: Sequence[str] | None = None,
        words: ByWords | None = None,
        **options: Any,
    ) -> list[list[Hit]]:
        answers, missing = self._search(matrices, k, restriction, options, words)
        n_queries = len(matrices if words is None else words.texts)
        value: Callable[[Hit], float] = (lambda hit: hit.score) if words is None else (lambda hit: hit.value)
        all_hits = [self._merge([best[place] for best in answers], k, value, missing) for place in range(n_queries)]
        for text, hits in zip(texts or (), all_hits, strict=texts is not None):
            ranked = self._reranker().rank(text, [hit.passage for hit in hits], evidence=True, progress=False)
            evidence = {hit.passage.id: self._marked(hit.evidence, words is not None) for hit in ranked}
            hits[:] = [replace(hit, evidence=evidence[hit.passage.id]) for hit in hits]
        return all_hits

    def _mean(
        self,
        matrices: Sequence[NDArray[np.float32]],
        k: int,
        restriction: Restriction,
        *,
        words: ByWords | None = None,
        **options: Any,
    ) -> list[Hit]:
        answers, missing = self._search(matrices, k, restriction, {**options, "mean": True}, words)
        return self._merge([hits for (hits,) in answers], k, lambda hit: hit.value, missing)

    def _search(
        self,
        matrices: Sequence[NDArray[np.float32]],
        k: int,
        restriction: Restriction,
        options: dict[str, Any],
        words: ByWords | None,
    ) -> tuple[list[list[list[Hit]]], list[int]]:
        """What each shard found for the queries, and which shards did not answer."""
        shards: Iterable[int] = range(len(self._replicas))
        self._advise(restriction)
        without_counts: list[int] = []
        if words is not None:
            counts, without_counts = self._count_words(words.texts)
            words = replace(words, counts=WordCounts.together(counts.values()))
            # Of a shard that is not counted nothing may be found, or its passages would be scored by other counts.
            shards = sorted(counts)
            matrices = () if words.alone else matrices  # made for the evidence, if at all
        routed = None if restriction.ids is None else self._route(restriction.ids)
        found_by = {**options, "words": words, "where": restriction.where}
        if routed is None:
            calls: Calls = dict.fromkeys(shards, ("search_vectors", (matrices, k), found_by))
        else:
            calls = {shard: ("search_vectors", (matrices, k), {**found_by, "ids": routed.get(shard, [])}) for shard in shards}
        answers, missing = self._replicas.ask_or_do_without(calls)
        return [answers[shard] for shard in sorted(answers)], sorted([*missing, *without_counts])

    def _count_words(self, texts: Sequence[str]) -> tuple[dict[int, WordCounts], list[int]]:
        """What each shard says about the words of some queries, and which shards did not answer.

        Raises:
            ValueError: a shard was made without words.
            UnsupportedIndexError: a shard has none yet.
            ClusterError: shards cut texts into words in different ways.
        """
        calls: Calls = dict.fromkeys(range(len(self._replicas)), ("word_counts", (texts,), {}))
        counts: dict[int, WordCounts]
        counts, missing = self._replicas.ask_or_do_without(calls)
        for error in missing.values():
            if isinstance(error, UnsupportedIndexError):  # it is there, and will not have words however often it is asked
                raise error
        for shard in counts:
            if counts[shard].found.keys() != counts[first := min(counts)].found.keys():
                raise ClusterError(
                    f"Shards {first} and {shard} of {self._replicas.layout.folder} cut texts into words in different ways, so "
                    "their coverages cannot be compared; build them again."
                )
        return counts, list(missing)

    def _merge(self, each: list[list[Hit]], k: int, value: Callable[[Hit], float], missing: list[int]) -> list[Hit]:
        best = sorted((hit for hits in each for hit in hits), key=lambda hit: (-value(hit), hit.passage.id))[:k]
        hits = [replace(hit, rank=rank) for rank, hit in enumerate(best, 1)]
        return PartialHits(hits, missing) if self._replicas.allow_partial else hits

    def _marked(self, evidence: Evidence | None, by_words: bool) -> Evidence | None:
        words = self._replicas.layout.read().words
        return mark_shared(evidence, words) if by_words and evidence is not None and isinstance(words, str) else evidence

    def _reranker(self) -> Reranker:
        """What makes evidence, against one shard's vectors: ids are hashed to shards, so each is a sample of the whole."""
        if self._background is None:
            calls: Calls = {shard: ("background", (), {}) for shard in range(len(self._replicas))}
            answers, _ = self._replicas.ask_or_do_without(calls)
            self._background = next(filter(None, answers.values()), None)
        return Reranker(self.encoder).against(self._background)

    def _explain(self, query: str, passage: str | Passage, min_similarity: float | None, *, by_words: bool) -> Evidence:
        if isinstance(passage, str):
            (known,) = self.get([passage])
            if known is None:
                raise ValueError(f"There is no passage with the id {passage!r} in {self!r}.")
            passage = known
        evidence = self._reranker().explain(query, passage, min_similarity=min_similarity)
        return self._marked(evidence, by_words) or evidence

    def add(
        self,
        passages: Iterable[Passage],
        *,
        embeddings: Iterable[NDArray[np.float32]] | TokenEmbeddings | None = None,
        pool_factor: float = 1,
        progress: bool | None = None,
    ) -> list[str]:
        """Add passages; one whose id is known already replaces the old one. As ``Index.add``, with the codec that is there.

        They are encoded here; for millions there is ``build``.

        Args:
            passages: with ids that differ from each other.
            embeddings: their vectors, if they were made elsewhere.
            pool_factor: keep about 1 / pool_factor of each passage's vectors; a larger one of ``build`` counts.
            progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

        Returns:
            Their ids, in the order given.

        Raises:
            TypeError, ValueError: as ``Index.add``.
            PartialAddError: any error after some were added; ``added`` says which.
        """
        return add_in_batches(
            passages,
            embeddings,
            dim=self.dim,
            encode=lambda texts, _: self.encoder.encode_passages(texts, progress=False),
            commit=self._commit,
            pool_factor=max(check_factor(pool_factor), self._pool_factor),
            progress=progress,
            in_order=False,
        )

    def _commit(self, batch: list[Passage], _: list[str], windows: TokenEmbeddings, added: list[str]) -> None:
        """Add passages to their shards; ``added`` learns the ids of those that are in, whatever happens."""
        places: dict[int, list[int]] = {}
        for place, passage in enumerate(batch):
            places.setdefault(shard_of(passage.id, len(self._replicas)), []).append(place)
        calls = {
            shard: (
                "add",
                ([batch[place] for place in of_shard],),
                {"embeddings": embeddings_of(windows, of_shard), "refit": False, "progress": False},
            )
            for shard, of_shard in places.items()
        }
        done, missing = self._replicas.attempt(calls, wait=True)
        added += [passage.id for passage in batch if shard_of(passage.id, len(self._replicas)) in done]
        if missing:
            raise self._replicas.unavailable(missing)

    def delete(self, ids: Iterable[str]) -> int:
        """Delete passages by id; unknown ids are no error.

        Returns:
            How many passages are gone. Those of a shard that was lost after it had deleted them, and asked again, do not count.
        """
        routed = self._route(list(dict.fromkeys(id_list(ids))))
        return sum(self._replicas.ask({shard: ("delete", (of_shard,), {}) for shard, of_shard in routed.items()}).values())

    def delete_where(self, where: Where) -> int:
        """Delete the passages that a filter matches; ``{}`` matches all of them.

        Returns:
            As ``delete``.
        """
        self._advise(Restriction(where))
        return sum(self._replicas.ask_all("delete_where", where))

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

    def _update_metadata(self, restriction: Restriction, metadata: dict[str, Any], remove: list[str]) -> int:
        """Those of a shard that was lost after it had changed them, and asked again, do not count."""
        self._advise(restriction)
        shards: Iterable[int] = range(len(self._replicas))
        routed = None if restriction.ids is None else self._route(restriction.ids)
        calls = {
            shard: (
                "update_metadata",
                (metadata,),
                {"where": restriction.where, "ids": None if routed is None else routed[shard], "remove": remove},
            )
            for shard in (shards if routed is None else routed)
        }
        return sum(self._replicas.ask(calls).values())

    def has_words(self) -> bool:
        """Whether all shards have words, so that hybrid search is to be had."""
        self._has_words = self._has_words or all(self._replicas.ask_all("has_words"))  # they do not lose them again
        return self._has_words

    def stats(self) -> IndexStats:
        """Figures of all shards together; ``generation`` counts the commits of all."""
        each: list[IndexStats] = self._replicas.ask_all("stats")
        sums = ("passages", "windows", "tokens", "segments", "dead_tokens", "vector_bytes", "generation", "word_bytes")
        summed = {name: sum(getattr(stats, name) for stats in each) for name in sums}
        return replace(each[0], pool_factor=self._pool_factor, **summed)

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

    def health(self, timeout: float = 2.0) -> list[ShardHealth]:
        """How each shard is, and each of its replicas; whatever does not answer is said to be down, and is no error.

        Args:
            timeout: seconds to wait for their answers.

        Raises:
            ValueError: the index is closed.
        """
        return self._replicas.health(timeout)

    def watch(self, tell: Callable[[int, float | None], None]) -> None:
        """Have a function told of each call to a shard: its number and the seconds that it worked, or None if it was lost."""
        self._replicas.watch = tell

    def close(self) -> None:
        """End the actors. A closed index cannot be used any more; closing it again is no error. Ray itself goes on."""
        self._replicas.close()

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

    def __repr__(self) -> str:
        state = "closed, " if self._replicas.closed else ""
        folder = str(self._replicas.layout.folder)
        return f"ShardedIndex({folder!r}, {state}{len(self._replicas)} shards, {self.made_with.encoder})"

    def __reduce__(self) -> tuple[Any, ...]:
        """The folder, which is opened again, with actors of its own."""
        return _reopened, (self._replicas.layout.place, self._encoder.loaded, self._settings)


def _codec_name(about: About) -> str:
    return "none" if about.codec is None else f"{about.nbits} bits, {about.codec[:8]}"


def _reopened(folder: str, encoder: TokenEncoder | None, settings: Mapping[str, Any]) -> ShardedIndex:
    return ShardedIndex.open(folder, encoder, **settings)
