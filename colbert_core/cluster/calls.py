"""Call the shards of an index, wherever they are: in this process, or in actors on the machines of a cluster."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

from colbert_core.cluster.nodes import version
from colbert_core.errors import ReadOnlyIndexError, ShardUnavailableError
from colbert_core.index.index import Index
from colbert_core.threads import new_lock

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

# Methods that change an index. A published one cannot be: what was changed in the cache of one machine would be lost.
_WRITES = {"add", "delete", "delete_where", "update_metadata", "_extend_codec", "_merge", "_put_part", "_take_files"}


@dataclass(frozen=True)
class About:
    """What a shard says of itself.

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


class Shards:
    """Some shards of an index in one process, opened when they are first asked."""

    def __init__(self, places: Mapping[int, Path | PublishedShard], timeout: float, n_shards: int, node: str) -> None:
        """Begin.

        Args:
            places: the folder of each shard, or where it is fetched from.
            timeout: seconds that a writer waits for another one.
            n_shards: how many the whole index has.
            node: address of this machine.
        """
        self._places, self._timeout, self._n_shards, self._node = places, timeout, n_shards, node
        self._opening = new_lock()
        self._indexes: dict[int, Index] = {}

    def about(self, shard: int) -> About:
        """Say what a shard is, and where."""
        index = self._opened(shard)
        stats = index.stats()
        return About(version(), self._node, index.made_with, stats.nbits, index.codec_id, stats.generation)

    def call(self, shard: int, method: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, float]:
        """Call a method of a shard's index, or ``about``; what it returned, and the seconds that took."""
        begun = time.perf_counter()
        if method == "about":
            return self.about(shard), time.perf_counter() - begun
        result = getattr(self._opened(shard), method)(*arguments, **options)
        return result, time.perf_counter() - begun

    def close(self) -> None:
        """Close those that were opened."""
        for index in self._indexes.values():
            index.close()
        for place in self._places.values():
            if not isinstance(place, PathLike):
                place.let_go()

    def _opened(self, shard: int) -> Index:
        with self._opening:
            if shard not in self._indexes:
                place = self._places[shard]
                index = Index.open(place if isinstance(place, PathLike) else place.fetch(), timeout=self._timeout)
                index._be_one_of(self._n_shards)
                self._indexes[shard] = index
            return self._indexes[shard]


class Replicas(ABC):
    """All shards of an index, and how they are called.

    Attributes:
        layout: where the shards are.
        timeout: seconds that a call may take, lost actors and their new start included.
        allow_partial: a search may go without the shards that are down.
        closed: they have been closed.
        watch: told of each call that a shard answered, and the seconds that took it, or None if it was lost; None tells nobody.
    """

    def __init__(self, layout: Layout | Publication, n_shards: int, timeout: float, *, allow_partial: bool) -> None:
        self.layout, self.timeout, self.allow_partial = layout, timeout, allow_partial
        self.closed = False
        self.watch: Watch | None = None
        self._n_shards = n_shards

    def __len__(self) -> int:
        """Number of shards."""
        return self._n_shards

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
            wait: for lost actors to be started again; otherwise there is no answer of a shard that is lost or cannot be read.
            patiently: as in ``ask``.

        Raises:
            ValueError: the index is closed.
            ReadOnlyIndexError: a call would change an index that is published.
        """
        self._check_open()
        if any(method in _WRITES for method, *_ in calls.values()):
            self.check_writable()
        return self._attempt(calls, wait=wait, patiently=patiently)

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
        self._check_open()
        return [ShardHealth(shard, tuple(of_shard)) for shard, of_shard in enumerate(self._health(timeout))]

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("The index is closed; open it again.")

    def close(self) -> None:
        """Close all shards; closing them again is no error."""
        if not self.closed:
            self.closed = True
            self._end()

    @abstractmethod
    def fetch(self, *, partly: bool, progress: bool | None) -> None:
        """Have the shards of a published index fetched, which takes as long as it takes; nothing to do for a folder.

        Args:
            partly: a shard that cannot be fetched is left to those who ask for it.
            progress: show a bar.
        """

    @abstractmethod
    def unavailable(self, missing: Mapping[int, Exception | None]) -> ShardUnavailableError:
        """The error that says which shards did not answer, and why."""

    @abstractmethod
    def _attempt(self, calls: Calls, *, wait: bool, patiently: bool) -> tuple[dict[int, Any], dict[int, Exception | None]]: ...

    @abstractmethod
    def _health(self, timeout: float) -> list[list[ReplicaHealth]]: ...

    @abstractmethod
    def _end(self) -> None: ...


def shard_list(shards: Iterable[int]) -> str:
    """The numbers of shards, for messages; the first ten."""
    numbers = sorted(shards)
    return f"{', '.join(map(str, numbers[:10]))}{', …' if len(numbers) > 10 else ''}"
