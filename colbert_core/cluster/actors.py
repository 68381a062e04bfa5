"""Shards in the actors of a Ray cluster, and calls that move on to another replica when one is lost."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Any

from colbert_core.cluster.calls import About, ReplicaHealth, Replicas, Shards, shard_list
from colbert_core.cluster.layout import Layout
from colbert_core.cluster.nodes import answer, load_ray, lost_errors
from colbert_core.errors import ShardUnavailableError, StorageError
from colbert_core.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from colbert_core.cluster.calls import Calls, Watch
    from colbert_core.cluster.fetching import Publication, PublishedShard

# Calls that an actor works on at a time; others wait their turn.
_CALLS_AT_ONCE = 8


class Actor:
    """One replica of some shards, in a process of its own."""

    def __init__(self, places: Mapping[int, Path | PublishedShard], timeout: float, n_shards: int) -> None:
        # Nothing is opened here: an error would come out as the actor's death.
        self._shards = Shards(places, timeout, n_shards, str(load_ray().util.get_node_ip_address()))

    def about(self, shard: int) -> About:
        """As of ``Shards``."""
        return self._shards.about(shard)

    def call(self, calls: Calls) -> dict[int, tuple[Any, float]]:
        """Call some shards, one after the other: there is an actor for each core. A query of all of them came once."""
        return {shard: self._shards.call(shard, *call) for shard, call in calls.items()}


class Actors(Replicas):
    """Shards in actors, several for each where searches are shared.

    Attributes:
        actors: of each shard; some shards may have the same.
    """

    def __init__(
        self,
        ray: Any,
        layout: Layout | Publication,
        *,
        shards: int,
        replicas: int,
        timeout: float,
        allow_partial: bool,
        num_cpus: float,
    ) -> None:
        """Start the actors, as far from each other as there are nodes.

        Where there are more shards than cores, some share an actor: more actors would be more calls for the same cores.
        """
        super().__init__(layout, shards, timeout, allow_partial=allow_partial)
        self._ray = ray
        self._turns = count()
        remote = ray.remote(Actor).options(
            num_cpus=num_cpus,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=_CALLS_AT_ONCE,
            scheduling_strategy="SPREAD",
        )
        n = min(shards, max(1, int(ray.cluster_resources().get("CPU", 1))))
        places = [{shard: layout.shard(shard) for shard in range(first, shards, n)} for first in range(n)]
        started = [[remote.remote(mine, timeout, shards) for _ in range(replicas)] for mine in places]
        self.actors = [started[shard % n] for shard in range(shards)]

    def fetch(self, *, partly: bool, progress: bool | None) -> None:
        """As of ``Replicas``; every actor fetches its own."""
        if isinstance(self.layout, Layout):
            return
        waiting = [actor.about.remote(shard) for shard, of_shard in enumerate(self.actors) for actor in of_shard]
        # Whoever asks next hears of an actor that died, and whether Ray has started it again.
        left_alone = (*lost_errors(self._ray), StorageError) if partly else lost_errors(self._ray)
        with progress_bar("Fetching", len(waiting), "shard", progress) as bar:
            while waiting:
                done, waiting = self._ray.wait(waiting, num_returns=1)
                with contextlib.suppress(*left_alone):
                    answer(self._ray, done[0])
                bar.update()

    def unavailable(self, missing: Mapping[int, Exception | None]) -> ShardUnavailableError:
        """The error that says which shards did not answer, and why."""
        reason = next((f" Shard {shard}: {error!s:.1000}" for shard, error in missing.items() if error), "")
        return ShardUnavailableError(
            f"{len(missing)} of the {len(self)} shards of {self.layout.folder} did not answer within "
            f"{self.timeout:g} s ({shard_list(missing)}). `ray status` shows which nodes are down; replicas=2 keeps searches "
            f"going meanwhile, and allow_partial=True searches the other shards.{reason}",
            sorted(missing),
        )

    def _attempt(self, calls: Calls, *, wait: bool, patiently: bool) -> tuple[dict[int, Any], dict[int, Exception | None]]:
        asking = _Round(self._ray, self.actors, calls, next(self._turns), self.watch, wait=wait)
        return asking.run(self.timeout, patiently=patiently)

    def _health(self, timeout: float) -> list[list[ReplicaHealth]]:
        asked = [[actor.about.remote(shard) for actor in of_shard] for shard, of_shard in enumerate(self.actors)]
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

        return [list(map(health, of_shard)) for of_shard in asked]

    def _end(self) -> None:
        """End the actors. Ray itself goes on."""
        if self._ray.is_initialized():
            for actor in {actor for of_shard in self.actors for actor in of_shard}:
                self._ray.kill(actor)


class _Round:
    """Calls a method of some shards, all at once, those of an actor together; a call that is lost goes to the next replica.

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
        self._answers: dict[int, Any] = {}
        self._errors: dict[int, Exception] = {}
        self._calling: dict[Any, list[int]] = {}  # a reference for each call, and which shards will answer
        self._asking: dict[Any, tuple[int, Any]] = {}  # the same for actors that were only asked whether they are there

    def run(self, timeout: float, *, patiently: bool) -> tuple[dict[int, Any], dict[int, Exception | None]]:
        """Collect the answers; return them, and the shards without one with their last error if there was any.

        Args:
            timeout: seconds after which to give up.
            patiently: give up only that long after an actor was lost, if it is not there again.
        """
        until = time.monotonic() + timeout
        together: dict[Any, list[int]] = {}
        for shard in self._calls:
            together.setdefault(self._next_of(shard), []).append(shard)
        for actor, of_actor in together.items():
            self._call(actor, of_actor)
        while self._calling or self._asking:
            left = None if patiently and not self._asking else max(0.0, until - time.monotonic())
            done, _ = self._ray.wait([*self._calling, *self._asking], num_returns=1, timeout=left)
            if not done:
                break
            if done[0] in self._asking:
                self._is_there(done[0])
            elif not self._answered(done[0]) and patiently:
                until = time.monotonic() + timeout
        return self._answers, {shard: self._errors.get(shard) for shard in self._calls if shard not in self._answers}

    def _answered(self, reference: Any) -> bool:
        """Take the answer to a call; when it was lost, call again and return False."""
        shards = self._calling.pop(reference)
        try:
            answers = answer(self._ray, reference)
        except self._lost as error:
            if len(shards) > 1:  # each for itself now: perhaps one of them alone is the cause
                for shard in shards:
                    self._call(self._next_of(shard), [shard])
            else:
                self._errors[shards[0]] = error
                self._tell(shards[0], None)
                self._call_again(shards[0])
            return False
        for shard, (result, seconds) in answers.items():
            self._answers[shard] = result
            self._tell(shard, seconds)
        return True

    def _is_there(self, reference: Any) -> None:
        """Call an actor that answers again; the others of its shard need not answer any more."""
        shard, actor = self._asking.pop(reference)
        try:
            answer(self._ray, reference)
        except self._lost as error:
            self._errors[shard] = error
        else:
            self._asking = {other: entry for other, entry in self._asking.items() if entry[0] != shard}
            self._call(actor, [shard])

    def _tell(self, shard: int, seconds: float | None) -> None:
        if self._watch is not None:
            self._watch(shard, seconds)

    def _next_of(self, shard: int) -> Any:
        """The replica of a shard whose turn it is."""
        actors = self._replicas[shard]
        return actors[(self._turn + self._tries[shard]) % len(actors)]

    def _call(self, actor: Any, shards: list[int]) -> None:
        self._calling[actor.call.remote({shard: self._calls[shard] for shard in shards})] = shards

    def _call_again(self, shard: int) -> None:
        self._tries[shard] += 1
        if self._tries[shard] % len(self._replicas[shard]):
            self._call(self._next_of(shard), [shard])
        elif self._wait:
            for actor in self._replicas[shard]:  # Ray holds the question back until the actor is there again
                self._asking[actor.about.options(max_task_retries=-1).remote(shard)] = (shard, actor)
