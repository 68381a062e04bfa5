"""Call the shards of an index: an actor for each replica, and calls that move on to another replica when one is lost."""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from itertools import count
from os import PathLike
from typing import TYPE_CHECKING, Any

from colbert_core.cluster.nodes import answer, load_ray, lost_errors, version
from colbert_core.errors import FilterWarning, ReadOnlyIndexError, ShardUnavailableError, StorageError
from colbert_core.index.index import Index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from colbert_core.cluster.fetching import Publication, PublishedShard
    from colbert_core.cluster.layout import Layout
    from colbert_core.model.fingerprint import EncoderFingerprint

    Calls = Mapping[int, tuple[str, tuple[Any, ...], dict[str, Any]]]
    """For each shard that is asked: a method of ``Index``, its arguments and its options."""
    Watch = Callable[[int, float | None], None]

_log = logging.getLogger(__name__)

# Calls that an actor works on at a time; others wait their turn.
_CALLS_AT_ONCE = 8
# Methods that change an index. A published one cannot be: what was changed in the cache of one machine would be lost.
_WRITES = {"add", "delete", "delete_where", "update_metadata", "_extend_codec", "_merge", "_put_part", "_take_files"}


@dataclass(frozen=True)
class About:
    """What an actor says of its shard and of itself.

    Attributes:
        version: of this package on its node.
        node: address of its node.
        made_with: which encoder the shard was made with.
        nbits: bits per component of the shard's vectors; None for uncompressed.
        codec: id of the shard's codec; None for uncompressed.
        generation: how many commits the shard has had.
    """

    version: str
    node: str
    made_with: EncoderFingerprint
    nbits: int | None
    codec: str | None
    generation: int


@dataclass(frozen=True)
class ReplicaHealth:
    """How a replica of a shard is.

    Attributes:
        node: address of its node; None if it did not answer.
        generation: how many commits of the shard it has seen; None likewise. All replicas read the same folder, so one that was
            started again has caught up when it answers.
        problem: why it did not answer; None if it did.
    """

    node: str | None
    generation: int | None
    problem: str | None


@dataclass(frozen=True)
class ShardHealth:
    """How a shard is.

    Attributes:
        shard: its number.
        replicas: each of its actors.
    """

    shard: int
    replicas: tuple[ReplicaHealth, ...]

    @property
    def is_up(self) -> bool:
        """Whether a replica answers."""
        return any(replica.problem is None for replica in self.replicas)


class Shard:
    """One replica of a shard; a Ray actor."""

    def __init__(self, folder: Path | PublishedShard, timeout: float, shards: int) -> None:
        self._folder, self._timeout, self._shards = folder, timeout, shards
        self._opening = threading.Lock()
        self._index: Index | None = None
        # Whoever asks says it, for all shards together. An actor is a process of its own.
        warnings.simplefilter("ignore", FilterWarning)

    def about(self) -> About:
        """Say what this is."""
        index = self._opened()
        node = str(load_ray().util.get_node_ip_address())
        stats = index.stats()
        return About(version(), node, index.made_with, stats.nbits, index.codec_id, stats.generation)

    def call(self, method: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, float]:
        """Call a method of the index; what it returned, and the seconds that took."""
        begun = time.perf_counter()
        result = getattr(self._opened(), method)(*arguments, **options)
        return result, time.perf_counter() - begun

    def _opened(self) -> Index:
        """The index. It is not opened with the actor: an error would come out as the actor's death."""
        with self._opening:
            if self._index is None:
                folder = self._folder if isinstance(self._folder, PathLike) else self._folder.fetch()
                self._index = Index.open(folder, timeout=self._timeout)
                self._index._look_at_a_share(self._shards)
            return self._index


class Replicas:
    """The actors of all shards, several for each where searches are shared.

    Attributes:
        layout: where the shards are.
        actors: of each shard.
        timeout: seconds that a call may take, lost actors and their new start included.
        allow_partial: a search may go without the shards that are down.
        closed: the actors have been ended.
        watch: told of each call that a shard answered, and the seconds that took it, or None if it was lost; None tells nobody.
    """

    def __init__(
        self, ray: Any, layout: Layout | Publication, actors: list[list[Any]], timeout: float, *, allow_partial: bool
    ) -> None:
        self.layout, self.actors = layout, actors
        self.timeout, self.allow_partial = timeout, allow_partial
        self.closed = False
        self.watch: Watch | None = None
        self._ray = ray
        self._turns = count()

    @classmethod
    def start(
        cls,
        ray: Any,
        layout: Layout | Publication,
        *,
        shards: int,
        replicas: int,
        timeout: float,
        allow_partial: bool,
        num_cpus: float,
    ) -> Replicas:
        """Start the actors, as far from each other as there are nodes."""
        remote = ray.remote(Shard).options(
            num_cpus=num_cpus,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=_CALLS_AT_ONCE,
            scheduling_strategy="SPREAD",
        )
        actors = [[remote.remote(layout.shard(shard), timeout, shards) for _ in range(replicas)] for shard in range(shards)]
        return cls(ray, layout, actors, timeout, allow_partial=allow_partial)

    def __len__(self) -> int:
        """Number of shards."""
        return len(self.actors)

    def ask(self, calls: Calls, *, patiently: bool = False) -> dict[int, Any]:
        """Call some shards; their answers.

        Args:
            calls: what to ask.
            patiently: wait for as long as their work takes; ``timeout`` is for those that are lost meanwhile.

        Raises:
            ShardUnavailableError: one gave none in time.
        """
        answers, missing = self.attempt(calls, wait=True, patiently=patiently)
        if missing:
            raise self.unavailable(missing)
        return answers

    def ask_all(self, method: str, *arguments: Any, patiently: bool = False) -> list[Any]:
        """Call a method of every shard, as ``ask`` does; the answers in the order of the shards.

        Raises:
            ShardUnavailableError: one gave none in time.
        """
        answers = self.ask(dict.fromkeys(range(len(self)), (method, arguments, {})), patiently=patiently)
        return [answers[shard] for shard in sorted(answers)]

    def ask_or_do_without(self, calls: Calls) -> tuple[dict[int, Any], dict[int, Exception | None]]:
        """Call some shards, with ``allow_partial`` only those that are there; the answers, and why the others gave none.

        Raises:
            ShardUnavailableError: one gave none in time; not with ``allow_partial``.
        """
        if not self.allow_partial:
            return self.ask(calls), {}
        answers, missing = self.attempt(calls, wait=False)
        if missing:
            _log.warning("%s: shards %s are down; this result is without them.", self.layout.folder, shard_list(missing))
        return answers, missing

    def attempt(
        self, calls: Calls, *, wait: bool, patiently: bool = False
    ) -> tuple[dict[int, Any], dict[int, Exception | None]]:
        """Call some shards; the answers, and the shards without one with the last error if there was any.

        Args:
            calls: what to ask.
            wait: for lost actors to be started again.
            patiently: as in ``ask``.

        Raises:
            ValueError: the index is closed.
            ReadOnlyIndexError: a call would change an index that is published.
        """
        if self.closed:
            raise ValueError("The index is closed; open it again.")
        if any(method in _WRITES for method, *_ in calls.values()):
            self.check_writable()
        asking = _Round(self._ray, self.actors, calls, next(self._turns), self.watch, wait=wait)
        return asking.run(self.timeout, patiently=patiently)

    def check_writable(self) -> None:
        """Make sure that the shards can be changed.

        Raises:
            ReadOnlyIndexError: the index is published.
        """
        if self.layout.read_only:
            raise ReadOnlyIndexError(
                f"{self.layout.folder} is published, so it can be searched only; change the folder that it was published from, "
                "or one that it is restored to, and publish that again."
            )

    def health(self, timeout: float) -> list[ShardHealth]:
        """Ask every replica how it is, all at once, for so many seconds at most.

        Raises:
            ValueError: the index is closed.
        """
        if self.closed:
            raise ValueError("The index is closed; open it again.")
        asked = [[actor.about.remote() for actor in of_shard] for of_shard in self.actors]
        everyone = [reference for of_shard in asked for reference in of_shard]
        done = set(self._ray.wait(everyone, num_returns=len(everyone), timeout=timeout)[0])
        lost: tuple[type[Exception], ...] = (*lost_errors(self._ray), StorageError)

        def health(reference: Any) -> ReplicaHealth:
            if reference not in done:
                return ReplicaHealth(None, None, f"It did not answer within {timeout:g} s.")
            try:
                about: About = answer(self._ray, reference)
            except lost as error:
                return ReplicaHealth(None, None, str(error)[:1000])
            return ReplicaHealth(about.node, about.generation, None)

        return [ShardHealth(shard, tuple(map(health, of_shard))) for shard, of_shard in enumerate(asked)]

    def unavailable(self, missing: Mapping[int, Exception | None]) -> ShardUnavailableError:
        """The error that says which shards did not answer, and why."""
        reason = next((f" Shard {shard}: {error!s:.1000}" for shard, error in missing.items() if error), "")
        return ShardUnavailableError(
            f"{len(missing)} of the {len(self)} shards of {self.layout.folder} did not answer within "
            f"{self.timeout:g} s ({shard_list(missing)}). `ray status` shows which nodes are down; replicas=2 keeps searches "
            f"going meanwhile, and allow_partial=True searches the other shards.{reason}",
            sorted(missing),
        )

    def close(self) -> None:
        """End the actors. Ray itself goes on."""
        if self.closed:
            return
        self.closed = True
        if self._ray.is_initialized():
            for of_shard in self.actors:
                for actor in of_shard:
                    self._ray.kill(actor)


class _Round:
    """Calls a method of some shards, all at once; a call that is lost goes to the next replica.

    When all replicas have lost it, the first one that Ray has started again gets it. All calls may be repeated: an add replaces
    what it added before, a delete finds nothing the second time.
    """

    def __init__(
        self, ray: Any, replicas: list[list[Any]], calls: Calls, turn: int, watch: Watch | None, *, wait: bool
    ) -> None:
        """Begin.

        Args:
            ray: connected.
            replicas: the actors of each shard.
            calls: a method, its arguments and options for each shard that is asked.
            turn: which replica is asked first.
            watch: as in ``Replicas``.
            wait: for lost actors to be started again; otherwise there is no answer of a shard whose actors are all lost, or
                that cannot be read.
        """
        self._ray, self._replicas, self._calls, self._turn, self._wait = ray, replicas, calls, turn, wait
        self._watch = watch
        self._lost: tuple[type[Exception], ...] = lost_errors(ray) if wait else (*lost_errors(ray), StorageError)
        self._tries = Counter[int]()
        self._calling: dict[Any, int] = {}  # a reference for each call, and which shard will answer
        self._asking: dict[Any, tuple[int, Any]] = {}  # the same for actors that were only asked whether they are there

    def run(self, timeout: float, *, patiently: bool) -> tuple[dict[int, Any], dict[int, Exception | None]]:
        """Collect the answers; return them, and the shards without one with their last error if there was any.

        Args:
            timeout: seconds after which to give up.
            patiently: give up only that long after an actor was lost, if it is not there again.
        """
        until = time.monotonic() + timeout
        answers: dict[int, Any] = {}
        errors: dict[int, Exception] = {}
        for shard in self._calls:
            self._call(shard)
        while self._calling or self._asking:
            left = None if patiently and not self._asking else max(0.0, until - time.monotonic())
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
                    self._tell(shard, None)
                    until = time.monotonic() + timeout if patiently else until
                    self._call_again(shard)
                continue
            if is_question:
                self._asking = {reference: entry for reference, entry in self._asking.items() if entry[0] != shard}
                self._call(shard, actor)
            elif isinstance(result, About):
                answers[shard] = result
            else:
                answers[shard], seconds = result
                self._tell(shard, seconds)
        return answers, {shard: errors.get(shard) for shard in self._calls if shard not in answers}

    def _tell(self, shard: int, seconds: float | None) -> None:
        if self._watch is not None:
            self._watch(shard, seconds)

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


def shard_list(shards: Iterable[int]) -> str:
    """The numbers of shards, for messages; the first ten."""
    numbers = sorted(shards)
    return f"{', '.join(map(str, numbers[:10]))}{', …' if len(numbers) > 10 else ''}"
