"""Search a sharded index like one ``Index``: shards in Ray actors, a query encoded once, exact merging of their answers."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.checks import check_count, check_ids, check_passages, check_relevance, id_list
from colbert_core.cluster.layout import Layout, shard_of
from colbert_core.cluster.nodes import answer, check_version, connect, load_ray, lost_errors, version
from colbert_core.errors import (
    ClusterError,
    DamagedIndexError,
    EncoderMismatchError,
    PartialAddError,
    ShardUnavailableError,
    StorageError,
)
from colbert_core.evidence.evidence import MIN_SIMILARITY, Evidence
from colbert_core.index.batches import batched
from colbert_core.index.index import Index
from colbert_core.model.fingerprint import loaded_encoder
from colbert_core.progress import progress_bar
from colbert_core.rerank import Reranker
from colbert_core.storage.filters import compile_where, dump_metadata
from colbert_core.types import Hit, TokenEmbeddings
from colbert_core.vectors.embeddings import embeddings_of, query_matrices, vectors_for
from colbert_core.vectors.pooling import check_factor, pool_embeddings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from os import PathLike

    from numpy.typing import NDArray

    from colbert_core.index.index import Where
    from colbert_core.index.reports import IndexStats
    from colbert_core.model.fingerprint import EncoderFingerprint
    from colbert_core.search.config import SearchConfig
    from colbert_core.types import Passage, TokenEncoder

    Query = str | NDArray[np.float32]
    Calls = Mapping[int, tuple[str, tuple[Any, ...], dict[str, Any]]]

_log = logging.getLogger(__name__)

# Calls that an actor works on at a time; others wait their turn.
_CALLS_AT_ONCE = 8


class PartialHits(list[Hit]):
    """Hits of the shards that answered; what ``allow_partial=True`` gives.

    Attributes:
        missing_shards: numbers of those that did not; empty if the hits are those of the whole collection.
    """

    def __init__(self, hits: Iterable[Hit], missing_shards: Sequence[int]) -> None:
        super().__init__(hits)
        self.missing_shards = tuple(missing_shards)


@dataclass(frozen=True)
class _About:
    """What an actor says of its shard and of itself."""

    version: str
    node: str
    made_with: EncoderFingerprint
    nbits: int | None
    codec: str | None


class _EncodedIndex(Index):
    """An index whose queries come as an encoder made them, and are not scaled again: that would cost their last digits."""

    def _query_matrices(self, queries: list[Query]) -> list[NDArray[np.float32]]:
        return queries  # type: ignore[return-value]


class _Shard:
    """One replica of a shard; a Ray actor."""

    def __init__(self, folder: Path, timeout: float) -> None:
        self._folder, self._timeout = folder, timeout
        self._opening = threading.Lock()
        self._index: Index | None = None

    def _opened(self) -> Index:
        """The index; not opened with the actor, for what is wrong with it would come out as the actor's death."""
        with self._opening:
            if self._index is None:
                self._index = _EncodedIndex.open(self._folder, timeout=self._timeout)
            return self._index

    def about(self) -> _About:
        index = self._opened()
        node = str(load_ray().util.get_node_ip_address())
        return _About(version(), node, index.made_with, index.stats().nbits, index.codec_id)

    def call(self, method: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        return getattr(self._opened(), method)(*arguments, **options)


class _Round:
    """A method of some shards called, all at once; a call that is lost goes to the next replica.

    When all have lost it, the first that Ray has started again gets it. All calls may be repeated: an add replaces what it
    added before, a delete finds nothing the second time.
    """

    def __init__(self, ray: Any, replicas: list[list[Any]], calls: Calls, turn: int, *, wait: bool) -> None:
        """Begin.

        Args:
            ray: connected.
            replicas: the actors of each shard.
            calls: for each shard that is asked a method, its arguments and options.
            turn: which replica is asked first.
            wait: for lost actors to be started again; without, a shard whose actors are all lost, or that cannot be read, is
                done without.
        """
        self._ray, self._replicas, self._calls, self._turn, self._wait = ray, replicas, calls, turn, wait
        self._lost: tuple[type[Exception], ...] = lost_errors(ray) if wait else (*lost_errors(ray), StorageError)
        self._tries = Counter[int]()
        self._calling: dict[Any, int] = {}  # references, and which shard will answer
        self._asking: dict[Any, tuple[int, Any]] = {}  # the same and the actor, which was only asked whether it is there

    def run(self, until: float) -> tuple[dict[int, Any], dict[int, Exception | None]]:
        """The answers, and the shards without one, with the last error if there was any.

        Args:
            until: when to give up, by ``time.monotonic``.
        """
        answers: dict[int, Any] = {}
        errors: dict[int, Exception] = {}
        for shard in self._calls:
            self._call(shard)
        while self._calling or self._asking:
            left = max(0.0, until - time.monotonic())
            done, _ = self._ray.wait([*self._calling, *self._asking], num_returns=1, timeout=left)
            if not done:
                break
            is_question = done[0] in self._asking
            shard, actor = self._asking.pop(done[0]) if is_question else (self._calling.pop(done[0]), None)
            try:
                result = answer(self._ray, done[0])
            except self._lost as error:
                errors[shard] = error
                if not is_question:
                    self._call_again(shard)
                continue
            if is_question:
                self._asking = {reference: entry for reference, entry in self._asking.items() if entry[0] != shard}
                self._call(shard, actor)
            else:
                answers[shard] = result
        return answers, {shard: errors.get(shard) for shard in self._calls if shard not in answers}

    def _call(self, shard: int, actor: Any = None) -> None:
        actors = self._replicas[shard]
        actor = actor or actors[(self._turn + self._tries[shard]) % len(actors)]
        method, arguments, options = self._calls[shard]
        sent = actor.about.remote() if method == "about" else actor.call.remote(method, arguments, options)
        self._calling[sent] = shard

    def _call_again(self, shard: int) -> None:
        self._tries[shard] += 1
        if self._tries[shard] % len(self._replicas[shard]):
            self._call(shard)
        elif self._wait:
            for actor in self._replicas[shard]:  # Ray holds the question back until the actor is there again
                self._asking[actor.about.options(max_task_retries=-1).remote()] = (shard, actor)


class ShardedIndex:
    """An index in shards on the machines of a Ray cluster, with the searches, adds and deletes of an ``Index``.

    A query is encoded once, here, and each shard finds its best; merged, these are the best of all, in the order and with the
    scores of one index with the same codec. Passages are added to and deleted from the shard that their id hashes to, on disk,
    safe when the call returns; all replicas of a shard read the same folder.

    A shard whose process or node died is asked again on another replica, or on the same one once Ray has started it again.
    What cannot be had in time is an error, or with ``allow_partial`` a result that says which shards are missing.

    Example:
        >>> with ShardedIndex.open("wiki.cluster") as index:
        ...     hits = index.search("happy pets", k=3)
    """

    def __init__(
        self, ray: Any, layout: Layout, replicas: list[list[Any]], encoder: TokenEncoder | None, settings: dict[str, Any]
    ) -> None:
        """``open`` is the door."""
        self._ray, self._layout, self._replicas, self._encoder = ray, layout, replicas, encoder
        self._settings = settings
        self._timeout: float = settings["timeout"]
        self._allow_partial: bool = settings["allow_partial"]
        self._turns = count()
        self._encoder_lock = threading.Lock()
        self._closed = False
        self._made_with, self._nbits = self._agreed()
        if encoder is not None:
            self._made_with.check(encoder)

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
    ) -> ShardedIndex:
        """Start an actor for each shard and replica, as far from each other as there are nodes.

        Args:
            folder: what ``build`` made, under a path that every node sees.
            encoder: a checkpoint's name or folder, or a loaded encoder; None for the one it was made with, which is then
                loaded when it is first needed.
            replicas: actors for each shard, which share the searches and stand in for each other.
            address: of the Ray cluster, "host:port", "ray://host:port" or "auto"; None for the one at hand, or else Ray on
                this machine alone, which is started and stays until the process ends.
            allow_partial: a search goes without the shards that are down, says so in the log, and its hits are
                ``PartialHits``. Everything else still needs all shards.
            timeout: seconds that a call may take, lost actors and their new start included.
            num_cpus: cores that Ray sets aside for each actor.

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
        layout = Layout(Path(folder).absolute())
        n_shards = layout.read().shards
        missing = layout.missing(n_shards)
        if missing and not allow_partial:
            raise DamagedIndexError(
                f"{layout.folder} lacks {len(missing)} of its {n_shards} shards ({_listed(missing)}); build it again with the "
                "same arguments, which makes those that are missing."
            )
        loaded = None if encoder is None else loaded_encoder(encoder)
        ray = connect(address, timeout)
        remote = ray.remote(_Shard).options(
            num_cpus=num_cpus,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=_CALLS_AT_ONCE,
            scheduling_strategy="SPREAD",
        )
        actors = [[remote.remote(layout.shard(shard), timeout) for _ in range(replicas)] for shard in range(n_shards)]
        settings = {
            "replicas": replicas,
            "address": address,
            "allow_partial": allow_partial,
            "timeout": timeout,
            "num_cpus": num_cpus,
        }
        try:
            return cls(ray, layout, actors, loaded, settings)
        except BaseException:
            _end(ray, actors)
            raise

    def _agreed(self) -> tuple[EncoderFingerprint, int | None]:
        """The model and bits that all shards have in common."""
        abouts, missing = self._ask_or_do_without({shard: ("about", (), {}) for shard in range(len(self._replicas))})
        if not abouts:
            raise self._unavailable(missing)
        first = min(abouts)
        for shard, about in abouts.items():
            check_version(version(), about.version, about.node)
            if not about.made_with.agrees_with(abouts[first].made_with):
                raise EncoderMismatchError(
                    f"Shard {first} of {self._layout.folder} was made with {abouts[first].made_with.encoder}, shard {shard} "
                    f"with {about.made_with.encoder}; build those that are not of the model you want again."
                )
            if (about.codec, about.nbits) != (abouts[first].codec, abouts[first].nbits):
                raise ClusterError(
                    f"Shards {first} and {shard} of {self._layout.folder} have different codecs "
                    f"({_codec_name(abouts[first])} and {_codec_name(about)}), so their scores cannot be compared; build them "
                    "again."
                )
        return replace(abouts[first].made_with, index=f"The sharded index {self._layout.folder}"), abouts[first].nbits

    @property
    def encoder(self) -> TokenEncoder:
        """What encodes texts; loaded at first use where the index was opened without one.

        Raises:
            EncoderMismatchError: the index holds vectors from elsewhere, or its encoder cannot be loaded or has changed.
        """
        with self._encoder_lock:
            if self._encoder is None:
                self._encoder = self._made_with.load()
            return self._encoder

    @property
    def encoder_name(self) -> str | None:
        """Name of the encoder the index was made with, which is not loaded for it; None for vectors from elsewhere."""
        return self._made_with.name

    @property
    def dim(self) -> int:
        """Components of every vector."""
        return self._made_with.dim

    def search(
        self,
        query: Query,
        k: int = 10,
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        min_relevance: float | None = None,
        config: SearchConfig | None = None,
        exact: bool = False,
        evidence: bool = False,
    ) -> list[Hit]:
        """Find the passages that match a query best; as ``Index.search``.

        Args:
            query: text, or its vectors, *Shape:* (n_q, dim).
            k: most hits, at least 1; there are exactly min(k, number of matching passages) unless ``min_relevance`` drops some.
            where: only passages whose metadata match; a function is sent to the shards, and must be one that can be.
            ids: only passages with these ids.
            min_relevance: least relevance of a hit, from 0 to 1.
            config: how much each shard looks at; None chooses by k.
            exact: score every passage.
            evidence: give each hit the ``evidence`` of its window; the hits are encoded anew for it, here.

        Raises:
            ShardUnavailableError: a shard is down; not with ``allow_partial``.
            TypeError, ValueError, EncoderMismatchError, DamagedIndexError: as ``Index.search``.
        """
        restrict: dict[str, Any] = {"where": where, "ids": ids, "min_relevance": min_relevance, "config": config}
        return self.search_many([query], k, exact=exact, evidence=evidence, **restrict)[0]

    async def asearch(self, query: Query, k: int = 10, **options: Any) -> list[Hit]:
        """``search`` with the same options, while the event loop goes on."""
        return await asyncio.to_thread(self.search, query, k, **options)

    def search_many(
        self,
        queries: Iterable[Query],
        k: int = 10,
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        min_relevance: float | None = None,
        config: SearchConfig | None = None,
        exact: bool = False,
        evidence: bool = False,
    ) -> list[list[Hit]]:
        """``search`` for several queries, which go to the shards together."""
        queries = queries if isinstance(queries, str | np.ndarray) else list(queries)
        if evidence and (bare := [query for query in queries if not isinstance(query, str)]):
            raise TypeError(f"evidence needs the words of each query, got a {type(bare[0]).__name__}; search by text for it.")
        options = {"where": where, "min_relevance": min_relevance, "config": config, "exact": exact}
        matrices, found, missing = self._found("search_many", queries, k, ids, options)
        all_hits = [
            self._merged([best[place] for best in found], k, lambda hit: hit.score, missing) for place in range(len(matrices))
        ]
        for query, hits in zip(queries, all_hits, strict=True):
            if evidence:
                ranked = Reranker(self.encoder).rank(str(query), [hit.passage for hit in hits], evidence=True, progress=False)
                explained = {one.passage.id: one.evidence for one in ranked}
                hits[:] = [replace(hit, evidence=explained[hit.passage.id]) for hit in hits]
        return all_hits

    def explain(self, query: str, passage: str | Passage | Hit, *, min_similarity: float = MIN_SIMILARITY) -> Evidence:
        """Show which words of a passage answer which words of a query; as ``Index.explain``, but it is encoded anew, here.

        Raises:
            ValueError: there is no passage with this id, or as ``Reranker.explain``.
            ShardUnavailableError: the shard of the passage is down.
        """
        passage = passage.passage if isinstance(passage, Hit) else passage
        if isinstance(passage, str):
            (found,) = self.get([passage])
            if found is None:
                raise ValueError(f"There is no passage with the id {passage!r} in {self!r}.")
            passage = found
        return Reranker(self.encoder).explain(query, passage, min_similarity=min_similarity)

    def search_mean(
        self,
        queries: Iterable[Query],
        k: int = 10,
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        min_relevance: float | None = None,
        config: SearchConfig | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        """Find the passages that match several queries best on average; as ``Index.search_mean``."""
        options = {"where": where, "min_relevance": min_relevance, "config": config, "exact": exact}
        _, found, missing = self._found("search_mean", queries, k, ids, options)
        return self._merged(found, k, lambda hit: hit.relevance, missing)

    def _found(
        self, method: str, queries: Iterable[Query], k: int, ids: Iterable[str] | None, options: dict[str, Any]
    ) -> tuple[list[NDArray[np.float32]], list[Any], list[int]]:
        """The queries as matrices, what each shard found for them, and which shards did not answer."""
        if isinstance(queries, str | np.ndarray):
            raise TypeError(f"queries must be a list, got one {type(queries).__name__}; use search for a single query.")
        k = check_count(k, "k")
        check_relevance(options["min_relevance"], "min_relevance")
        if isinstance(options["where"], Mapping):
            compile_where(options["where"])
        shards = range(len(self._replicas))
        routed = dict.fromkeys(shards) if ids is None else self._routed(id_list(ids), all_shards=True)
        matrices = query_matrices(list(queries), self.dim, lambda: self.encoder)
        calls = {shard: (method, (matrices, k), {**options, "ids": routed[shard]}) for shard in shards}
        found, missing = self._ask_or_do_without(calls)
        return matrices, [found[shard] for shard in sorted(found)], sorted(missing)

    def _merged(self, found: list[list[Hit]], k: int, height: Callable[[Hit], float], missing: list[int]) -> list[Hit]:
        best = sorted((hit for hits in found for hit in hits), key=lambda hit: (-height(hit), hit.passage.id))[:k]
        hits = [replace(hit, rank=rank) for rank, hit in enumerate(best, 1)]
        return PartialHits(hits, missing) if self._allow_partial else hits

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
            pool_factor: keep about 1 / pool_factor of each passage's vectors.
            progress: show a bar; None shows it on a terminal once a second has passed.

        Returns:
            Their ids, in the order given.

        Raises:
            TypeError, ValueError: as ``Index.add``.
            PartialAddError: any error after some were added; ``added`` says which.
        """
        pool_factor = check_factor(pool_factor)
        total = len(passages) if isinstance(passages, list | tuple) else None
        if total is not None:
            passages = check_passages(passages)
            check_ids(Counter(passage.id for passage in passages))
            for passage in passages:
                dump_metadata(passage.metadata, f"Metadata of passage {passage.id!r}")
        vectors = vectors_for(passages, embeddings, self.dim) if embeddings is not None else None
        n_protected = None if embeddings is None or isinstance(embeddings, TokenEmbeddings) else 0
        added: list[str] = []
        seen: set[str] = set()
        try:
            with progress_bar("Adding", total, "passage", progress) as bar:
                for batch in batched(passages):
                    check_ids(Counter(passage.id for passage in batch), seen)
                    if vectors is not None:
                        encoded = vectors(batch)
                    else:
                        encoded = self.encoder.encode_passages([passage.text for passage in batch], progress=False)
                        encoded.check(len(batch), self.dim)
                    self._add_batch(batch, pool_embeddings(encoded, pool_factor, n_protected), added)
                    seen.update(passage.id for passage in batch)
                    bar.update(len(batch))
            if vectors is not None:
                vectors([])
        except Exception as error:
            if not added:
                raise
            raise PartialAddError(f"{len(added)} passages of this call are in the index: {error}", added) from error
        return added

    def _add_batch(self, batch: list[Passage], windows: TokenEmbeddings, added: list[str]) -> None:
        """Add passages to their shards; ``added`` learns the ids of those that are in, whatever happens."""
        places: dict[int, list[int]] = {}
        for place, passage in enumerate(batch):
            places.setdefault(shard_of(passage.id, len(self._replicas)), []).append(place)
        calls = {
            shard: (
                "add",
                ([batch[place] for place in mine],),
                {"embeddings": embeddings_of(windows, mine), "refit": False, "progress": False},
            )
            for shard, mine in places.items()
        }
        done, missing = self._try(calls, wait=True)
        added += [passage.id for passage in batch if shard_of(passage.id, len(self._replicas)) in done]
        if missing:
            raise self._unavailable(missing)

    def delete(self, ids: Iterable[str]) -> int:
        """Delete passages by id; unknown ids are no error.

        Returns:
            How many passages are gone. Those of a shard that was lost after it had deleted them, and asked again, do not count.
        """
        routed = self._routed(list(dict.fromkeys(id_list(ids))))
        return sum(self._ask({shard: ("delete", (mine,), {}) for shard, mine in routed.items()}).values())

    def delete_where(self, where: Where) -> int:
        """Delete the passages that a filter matches; ``{}`` matches all of them.

        Returns:
            As ``delete``.
        """
        return sum(self._everywhere("delete_where", where))

    def get(self, ids: Iterable[str]) -> list[Passage | None]:
        """The passages with these ids, in their order; None where there is none."""
        wanted = id_list(ids)
        routed = self._routed(list(dict.fromkeys(wanted)))
        answers = self._ask({shard: ("get", (mine,), {}) for shard, mine in routed.items()})
        found = {
            passage_id: passage
            for shard, mine in routed.items()
            for passage_id, passage in zip(mine, answers[shard], strict=True)
        }
        return [found[passage_id] for passage_id in wanted]

    def ids(self, where: Where | None = None) -> list[str]:
        """The ids of all passages, or of those that a filter matches, shard by shard."""
        return [passage_id for ids in self._everywhere("ids", where) for passage_id in ids]

    def stats(self) -> IndexStats:
        """Figures of all shards together; ``generation`` counts the commits of all."""
        each: list[IndexStats] = self._everywhere("stats")
        sums = ("passages", "windows", "tokens", "segments", "dead_tokens", "vector_bytes", "generation")
        return replace(each[0], **{name: sum(getattr(one, name) for one in each) for name in sums})

    def close(self) -> None:
        """End the actors. A closed index cannot be used any more; closing it again is no error. Ray itself goes on."""
        if not self._closed:
            self._closed = True
            _end(self._ray, self._replicas)

    def __enter__(self) -> ShardedIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return sum(self._everywhere("__len__"))

    def __contains__(self, passage_id: object) -> bool:
        return isinstance(passage_id, str) and self.get([passage_id]) != [None]

    def __repr__(self) -> str:
        state = "closed, " if self._closed else ""
        return f"ShardedIndex({str(self._layout.folder)!r}, {state}{len(self._replicas)} shards, {self._made_with.encoder})"

    def __reduce__(self) -> tuple[Any, ...]:
        """The folder, which is opened again, with actors of its own."""
        return _reopened, (str(self._layout.folder), self._encoder, self._settings)

    # Asking

    def _everywhere(self, method: str, *arguments: Any) -> list[Any]:
        answers = self._ask({shard: (method, arguments, {}) for shard in range(len(self._replicas))})
        return [answers[shard] for shard in sorted(answers)]

    def _routed(self, ids: list[str], *, all_shards: bool = False) -> dict[int, list[str]]:
        """The ids by the shards that they belong to."""
        routed: dict[int, list[str]] = {shard: [] for shard in range(len(self._replicas))} if all_shards else {}
        for passage_id in ids:
            routed.setdefault(shard_of(passage_id, len(self._replicas)), []).append(passage_id)
        return routed

    def _ask(self, calls: Calls) -> dict[int, Any]:
        """The answers of all shards that are asked.

        Raises:
            ShardUnavailableError: one gave none.
        """
        answers, missing = self._try(calls, wait=True)
        if missing:
            raise self._unavailable(missing)
        return answers

    def _ask_or_do_without(self, calls: Calls) -> tuple[dict[int, Any], dict[int, Exception | None]]:
        """The answers; with ``allow_partial`` of the shards that are there, and why the others are not."""
        if not self._allow_partial:
            return self._ask(calls), {}
        answers, missing = self._try(calls, wait=False)
        if missing:
            _log.warning("%s: shards %s are down; this result is without them.", self._layout.folder, _listed(missing))
        return answers, missing

    def _try(self, calls: Calls, *, wait: bool) -> tuple[dict[int, Any], dict[int, Exception | None]]:
        if self._closed:
            raise ValueError("The index is closed; open it again.")
        until = time.monotonic() + self._timeout
        return _Round(self._ray, self._replicas, calls, next(self._turns), wait=wait).run(until)

    def _unavailable(self, missing: Mapping[int, Exception | None]) -> ShardUnavailableError:
        reason = next((f" Shard {shard}: {error!s:.1000}" for shard, error in missing.items() if error), "")
        return ShardUnavailableError(
            f"{len(missing)} of the {len(self._replicas)} shards of {self._layout.folder} did not answer within "
            f"{self._timeout:g} s ({_listed(missing)}). `ray status` shows which nodes are down; replicas=2 keeps searches "
            f"going meanwhile, and allow_partial=True searches the other shards.{reason}",
            sorted(missing),
        )


def _codec_name(about: _About) -> str:
    return "none" if about.codec is None else f"{about.nbits} bits, {about.codec[:8]}"


def _listed(shards: Iterable[int]) -> str:
    numbers = sorted(shards)
    return f"{', '.join(map(str, numbers[:10]))}{', …' if len(numbers) > 10 else ''}"


def _end(ray: Any, actors: list[list[Any]]) -> None:
    if ray.is_initialized():
        for replicas in actors:
            for actor in replicas:
                ray.kill(actor)


def _reopened(folder: str, encoder: TokenEncoder | None, settings: dict[str, Any]) -> ShardedIndex:
    return ShardedIndex.open(folder, encoder, **settings)
