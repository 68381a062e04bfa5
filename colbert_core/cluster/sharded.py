"""Search a sharded index like one ``Index``: a query encoded once, shards here or in Ray actors, exact merging of answers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from colbert_core.checks import check_count
from colbert_core.cluster.actors import Actors
from colbert_core.cluster.calls import shard_list
from colbert_core.cluster.fetching import find_layout
from colbert_core.cluster.here import Here
from colbert_core.cluster.nodes import check_version, connect, is_at_hand, version
from colbert_core.cluster.refitting import extension_of
from colbert_core.cluster.windows import Found, evidence_of_hits, search_again, vectors_of_hits
from colbert_core.cluster.writing import WritableShards
from colbert_core.errors import ClusterError, DamagedIndexError, EncoderMismatchError, UnsupportedIndexError
from colbert_core.index.advice import Advice
from colbert_core.index.restriction import Restriction
from colbert_core.model.fingerprint import LazyEncoder, loaded_encoder
from colbert_core.search.diversity import diversify
from colbert_core.search.explain import evidence_anew, mark_shared
from colbert_core.search.lexical import WordCounts
from colbert_core.types import Hit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from os import PathLike

    import numpy as np
    from numpy.typing import NDArray

    from colbert_core.cluster.calls import About, Calls, Replicas, ShardHealth
    from colbert_core.evidence.evidence import Evidence
    from colbert_core.model.fingerprint import EncoderFingerprint
    from colbert_core.search.lexical import ByWords
    from colbert_core.types import Passage, Query, TokenEncoder


class PartialHits(list[Hit]):
    """Hits of the shards that answered; what ``allow_partial=True`` gives.

    Attributes:
        missing_shards: numbers of the shards that did not; empty if the hits are those of the whole collection.
    """

    def __init__(self, hits: Iterable[Hit], missing_shards: Sequence[int]) -> None:
        super().__init__(hits)
        self.missing_shards = tuple(missing_shards)


class ShardedIndex(WritableShards):
    """An index in shards, here or on the machines of a Ray cluster, which does what an ``Index`` does.

    A query is encoded once, here, and each shard finds its best; merged, these are the best of all, in the order and with the
    scores of one index with the same codec. Where words rank as well, all shards are asked first how often they have the words
    of the query, so that a word is as rare for each of them as it is in the whole collection. Passages are added to and deleted
    from the shard that their id hashes to, on disk, safe when the call returns; all replicas of a shard read the same folder.

    A shard whose process or node died is asked again on another replica, or on the same one once Ray has started it again.
    What cannot be had in time is a ``ShardUnavailableError``, or with ``allow_partial`` a result that says which shards are
    missing. A ``where`` that is a function is sent to the shards, and must be one that can be.

    What differs from an ``Index``: ``add``, ``clear`` and ``compact`` keep the codec, to which ``refit`` adds centroids. What
    writes is a commit of each shard, not of all together. ``create`` and ``convert`` are refused: ``build`` makes shards,
    because their codec is fitted to passages of all of them.

    Example:
        >>> with ShardedIndex.open("wiki.cluster") as index:
        ...     hits = index.search("happy pets", k=3)
    """

    def __init__(self, replicas: Replicas, encoder: TokenEncoder | None, settings: dict[str, Any]) -> None:
        """Use ``open``."""
        self._replicas = replicas
        self._settings = settings
        self._pool_factor = replicas.layout.read().pool_factor  # vectors are pooled before they are sent to their shards
        fingerprint = self._agree(self._ask_about())
        self._encoder = LazyEncoder(fingerprint, encoder)
        self._advice = Advice()
        self._has_words = False
        self._known_moments = {}

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
        """Open the shards in this process, or in actors on the machines of a Ray cluster.

        There is an actor for each shard, or for each core of the cluster if it has fewer, as far from each other as there are
        nodes. In this process the thread that asks searches the shards in turn, and Ray is not needed.

        Args:
            folder: what ``build`` made, under a path that every node sees; or the address that ``publish`` put it at, such as
                "s3://bucket/folder", from where each actor fetches its shard first. Then it can be searched only.
            encoder: a checkpoint's name or folder, or a loaded encoder; None for the one it was made with, which is then
                loaded when it is first needed.
            replicas: actors that have each shard, which share the searches and stand in for each other.
            address: of the Ray cluster, "host:port", "ray://host:port" or "auto"; "local" for this process; None for the
                cluster at hand, or else this process. With replicas it is Ray on this machine alone instead, which is started
                and stays until the process ends.
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
            MissingExtraError: there is an address or there are replicas, and Ray is not installed.
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
        if address == "local" and replicas > 1:
            raise ValueError(
                f"address 'local' has one replica of each shard, this process, and replicas is {replicas}; leave one out."
            )
        waits: dict[str, Any] = {"timeout": timeout, "allow_partial": allow_partial}
        started: Replicas
        if address == "local" or (address is None and replicas == 1 and not is_at_hand()):
            started = Here(layout, shards=n_shards, **waits)
        else:
            started = Actors(connect(address, timeout), layout, shards=n_shards, replicas=replicas, num_cpus=num_cpus, **waits)
        settings = {"replicas": replicas, "address": address, "num_cpus": num_cpus, "cache": cache, **waits}
        try:
            started.fetch(partly=allow_partial, progress=progress)
            return cls(started, loaded, settings)
        except BaseException:
            started.close()
            raise

    def _ask_about(self) -> dict[int, About]:
        """What the shards say of themselves; all of the same codec, if a refit was done between their answers."""
        calls: Calls = dict.fromkeys(range(len(self._replicas)), ("about", (), {}))
        for _ in range(2):
            abouts: dict[int, About]
            abouts, missing = self._replicas.ask_or_do_without(calls)
            if not abouts:
                raise self._replicas.unavailable(missing)
            if len({about.codec for about in abouts.values()}) == 1:
                break
        return abouts

    def _agree(self, abouts: Mapping[int, About]) -> EncoderFingerprint:
        """The model that all shards were made with; they have the same codec, too, or one extends the other."""
        folder, first = self._replicas.layout.folder, min(abouts)
        extension = None if len({about.codec for about in abouts.values()}) == 1 else extension_of(self._replicas.layout)
        refit = set() if extension is None else {extension.id, extension.extends}
        for shard, about in abouts.items():
            check_version(version(), about.version, about.node)
            if not about.made_with.agrees_with(abouts[first].made_with):
                raise EncoderMismatchError(
                    f"Shard {first} of {folder} was made with {abouts[first].made_with.encoder}, shard {shard} "
                    f"with {about.made_with.encoder}; build those that are not of the model you want again."
                )
            of_first = abouts[first]
            if about.nbits != of_first.nbits or not (about.codec == of_first.codec or {about.codec, of_first.codec} <= refit):
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
        if texts is not None:
            shown = partial(self._hits_with_evidence, texts, matrices, k, restriction, words=words, **options)
            return search_again(shown, repr(self))
        answers, missing = self._search(matrices, k, restriction, options, words)
        n_queries = len(matrices if words is None else words.texts)
        value: Callable[[Hit], float] = (lambda hit: hit.score) if words is None else (lambda hit: hit.value)
        return [self._merge([best[place] for best in answers], k, value, missing) for place in range(n_queries)]

    def _hits_with_evidence(
        self,
        texts: Sequence[str],
        matrices: Sequence[NDArray[np.float32]],
        k: int,
        restriction: Restriction,
        *,
        words: ByWords | None,
        **options: Any,
    ) -> list[list[Hit]]:
        """What is found, with its evidence.

        Raises:
            StaleRead: a passage has changed since it was found, or a shard is lost.
        """
        all_hits = self._hits(matrices, k, restriction, words=words, **options)
        found = [Found(*each) for each in zip(texts, matrices, all_hits, strict=True)]
        all_evidence = evidence_of_hits(self._replicas, self.encoder, found, None, self.background())
        for hits, of_hits in zip(all_hits, all_evidence, strict=True):
            marked = [self._marked(evidence, by_words=words is not None) for evidence in of_hits]
            hits[:] = [replace(hit, evidence=evidence) for hit, evidence in zip(hits, marked, strict=True)]
        return all_hits

    def _diverse(
        self,
        matrices: Sequence[NDArray[np.float32]],
        k: int,
        fetch_k: int,
        weight: float,
        restriction: Restriction,
        **options: Any,
    ) -> list[Hit]:
        def choose() -> list[Hit]:
            (hits,) = self._hits(matrices, max(k, fetch_k), restriction, **options)
            order = diversify([hit.value for hit in hits], vectors_of_hits(self._replicas, hits), k, weight)
            hits[:] = [replace(hits[place], rank=rank) for rank, place in enumerate(order, 1)]
            return hits

        return search_again(choose, repr(self))

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
        """What each shard found for the queries, and which shards did not answer.

        Raises:
            ValueError: the config scores by XTR's rule.
        """
        if (config := options.get("config")) is not None and getattr(config, "n_tokens", None) is not None:
            raise ValueError(
                f"SearchConfig(n_tokens={config.n_tokens}) scores by the nearest tokens of a whole collection, and no shard "
                "knows those of the others; leave n_tokens out, or search one index."
            )
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

    def _marked(self, evidence: Evidence, *, by_words: bool) -> Evidence:
        words = self._replicas.layout.read().words
        return mark_shared(evidence, words) if by_words and isinstance(words, str) else evidence

    def _explain(self, query: str, passage: str | Passage, min_similarity: float | None, *, by_words: bool) -> Evidence:
        passage_id, (matrix,) = passage if isinstance(passage, str) else passage.id, self._matrices([query])
        restriction = Restriction(ids=[passage_id])

        def show() -> Evidence:
            (hits,) = self._hits([matrix], 1, restriction, config=None, exact=True, min_relevance=None)
            if hits:
                ((evidence,),) = evidence_of_hits(
                    self._replicas, self.encoder, [Found(query, matrix, hits)], min_similarity, self.background()
                )
                return self._marked(evidence, by_words=by_words)
            (known,) = self.get([passage_id])
            if known is None:
                raise ValueError(f"There is no passage with the id {passage_id!r} in {self!r}.")
            return evidence_anew(self.encoder, query, matrix, known, min_similarity, self.background())

        return search_again(show, repr(self))

    def word_counts(self, texts: Iterable[str]) -> WordCounts:
        """Count what the collection says about the words of some queries, so that parts of one can be searched as a whole.

        Raises:
            ValueError: a shard was made without words.
            UnsupportedIndexError: a shard has none yet.
            ShardUnavailableError: a shard gave no answer in time.
        """
        counts, missing = self._count_words(list(texts))
        if missing:
            raise self._replicas.unavailable(dict.fromkeys(missing))
        return WordCounts.together(counts.values())

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
        """Close the shards, or end their actors. A closed index cannot be used any more; closing it again is no error."""
        self._replicas.close()

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
