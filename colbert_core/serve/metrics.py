"""Figures of a service for Prometheus: how many requests, how long they took, and how many are under way."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Seconds: from what an overhead is to what somebody waits for.
_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
# Where several workers put their figures together, as prometheus_client has it.
SHARED = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """The figures of one service.

    Attributes:
        requests: counts answers by route, method and status.
        seconds: how long they took, by route.
        working: requests that are being worked on or wait.
        added: passages that were added.
        shards: how long shards worked on their calls, by index and shard.
        lost: calls that were lost with a shard's process or node, likewise.
    """

    def __init__(self) -> None:
        """Begin to count."""
        self.registry = CollectorRegistry()
        names = ("route", "method")
        self.requests = Counter("colbert_requests_total", "Answers.", (*names, "status"), registry=self.registry)
        self.seconds = Histogram(
            "colbert_request_seconds", "Seconds until an answer.", names, registry=self.registry, buckets=_BUCKETS
        )
        self.working = Gauge(
            "colbert_requests_in_progress",
            "Requests that are worked on or wait.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.added = Counter("colbert_passages_added_total", "Passages added or replaced.", ("index",), registry=self.registry)
        parts = ("index", "shard")
        self.shards = Histogram(
            "colbert_shard_seconds", "Seconds that a shard worked on a call.", parts, registry=self.registry, buckets=_BUCKETS
        )
        self.lost = Counter("colbert_shard_calls_lost_total", "Calls that a shard lost.", parts, registry=self.registry)

    def count_shard(self, index: str, shard: int, seconds: float | None) -> None:
        """Count a call to a shard of an index.

        Args:
            index: its name.
            shard: the shard's number.
            seconds: how long it worked; None if the call was lost.
        """
        if seconds is None:
            self.lost.labels(index, str(shard)).inc()
        else:
            self.shards.labels(index, str(shard)).observe(seconds)

    def text(self) -> bytes:
        """Write all figures, those of all workers together, as Prometheus reads them."""
        registry = self.registry
        if SHARED in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


class Counted:
    """Counts what an application answers."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Stand before an application."""
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.working.inc()
        try:
            await self._app(scope, receive, sending)
        finally:
            self._metrics.working.dec()
            # The pattern of the route and not the path, which may be anything: each new label takes memory for ever.
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if route != "other" else "any"
            self._metrics.requests.labels(route, method, str(status)).inc()
            self._metrics.seconds.labels(route, method).observe(time.perf_counter() - begun)
