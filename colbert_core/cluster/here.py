"""Shards in this process, one after the other. This needs no Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from colbert_core.cluster.calls import ReplicaHealth, Replicas, Shards, shard_list
from colbert_core.cluster.layout import Layout
from colbert_core.errors import ShardUnavailableError, StorageError
from colbert_core.progress import progress_bar
from colbert_core.threads import spread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from colbert_core.cluster.calls import Calls
    from colbert_core.cluster.fetching import Publication

_NODE = "localhost"
_ABOUT: tuple[str, tuple[Any, ...], dict[str, Any]] = ("about", (), {})


class Here(Replicas):
    """Shards in this process. ``timeout`` is for writers of other processes alone: nothing that is here can be lost.

    They are called in turn, by the thread that asks, which keeps its arrays for the next call; several queries are spread over
    threads by each shard. Two threads that were started for a query of four shards were hardly faster: they took 1.75 times as
    long as one index, beside 1.9.
    """

    def __init__(self, layout: Layout | Publication, *, shards: int, timeout: float, allow_partial: bool) -> None:
        super().__init__(layout, shards, timeout, allow_partial=allow_partial)
        self._shards = Shards({shard: layout.shard(shard) for shard in range(shards)}, timeout, shards, _NODE)

    def fetch(self, *, partly: bool, progress: bool | None) -> None:
        """As of ``Replicas``."""
        if isinstance(self.layout, Layout):
            return
        with progress_bar("Fetching", len(self), "shard", progress) as bar:

            def fetch(shard: int) -> None:
                self._call(shard, _ABOUT, raising=not partly)
                bar.update()

            spread(fetch, range(len(self)))

    def unavailable(self, missing: Mapping[int, Exception | None]) -> ShardUnavailableError:
        """As of ``Replicas``."""
        reason = next((f" Shard {shard}: {error!s:.1000}" for shard, error in missing.items() if error), "")
        return ShardUnavailableError(
            f"{len(missing)} of the {len(self)} shards of {self.layout.folder} cannot be read ({shard_list(missing)}); "
            f"allow_partial=True searches the other shards.{reason}",
            sorted(missing),
        )

    def _attempt(
        self,
        calls: Calls,
        *,
        wait: bool,
        patiently: bool,  # noqa: ARG002 - it takes as long as it takes
    ) -> tuple[dict[int, Any], dict[int, Exception | None]]:
        answers: dict[int, Any] = {}
        missing: dict[int, Exception | None] = {}
        for shard, call in sorted(calls.items()):
            found = self._call(shard, call, raising=wait)
            if isinstance(found, StorageError):
                missing[shard] = found
            else:
                answers[shard], seconds = found
            if self.watch is not None:
                self.watch(shard, None if shard in missing else seconds)
        return answers, missing

    def _call(self, shard: int, call: tuple[str, tuple[Any, ...], dict[str, Any]], *, raising: bool) -> Any:
        """The answer of a shard and its seconds, or why it cannot be read."""
        try:
            return self._shards.call(shard, *call)
        except StorageError as error:
            if raising:
                raise
            return error

    def _health(self, timeout: float) -> list[list[ReplicaHealth]]:  # noqa: ARG002 - they answer at once
        def health(shard: int) -> list[ReplicaHealth]:
            found = self._call(shard, _ABOUT, raising=False)
            if isinstance(found, StorageError):
                return [ReplicaHealth(None, None, str(found)[:1000])]
            about, _ = found
            return [ReplicaHealth(about.node, about.generation, None)]

        return [health(shard) for shard in range(len(self))]

    def _end(self) -> None:
        self._shards.close()
