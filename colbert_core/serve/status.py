"""Routes that tell how the service is, and which indexes it has."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

import colbert_core
from colbert_core.index.index import Index
from colbert_core.serve.service import Served
from colbert_core.values import stats_as_json

if TYPE_CHECKING:
    from colbert_core.cluster import ShardedIndex, ShardHealth
    from colbert_core.serve.service import Service

router = APIRouter(tags=["status"])


@router.get("/health")
async def health() -> JSONResponse:
    """Answer ``{"status": "ok"}`` as long as the service runs."""
    return JSONResponse({"status": "ok", "version": colbert_core.__version__})


@router.get("/ready")
async def ready(service: Served) -> JSONResponse:
    """Answer 200 once every index is open and its model loaded, 503 before."""
    if service.problem is not None:
        return JSONResponse({"status": "not ready", "message": service.problem}, 503, {"Retry-After": "1"})
    return JSONResponse({"status": "ready"})


@router.get("/metrics")
async def metrics(service: Served) -> Response:
    """Answer the figures of the service as Prometheus reads them."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/indexes")
async def indexes(service: Served) -> JSONResponse:
    """List the indexes. Answers ``{"indexes": [{"name": ..., "passages": n, "has_words": ...}, ...], "writable": ...}``."""
    listed = await service.reading.run(lambda: [_about(service, name) for name in service.catalogue.names()])
    return JSONResponse({"indexes": listed, "writable": service.writable})


@router.get("/v1/indexes/{name}")
async def index(name: str, service: Served) -> JSONResponse:
    """Answer the figures of one index."""
    return JSONResponse(
        await service.read(
            name,
            lambda index: {
                "name": name,
                "has_words": index.has_words(),
                "writable": service.writable,
                **stats_as_json(index.stats()),
            },
        )
    )


@router.get("/v1/indexes/{name}/shards")
async def shards(name: str, service: Served) -> JSONResponse:
    """Answer how each shard of an index is, also while some are down. An index in one piece has none.

    Answers ``{"name": ..., "shards": [{"shard": 0, "is_up": true, "replicas": [{"node": ..., "generation": n, "problem": null},
    ...]}, ...]}``; a replica that does not answer within two seconds has a problem, and no node.
    """

    def health(index: Index | ShardedIndex) -> list[dict[str, Any]]:
        return [] if isinstance(index, Index) else [health_as_json(each) for each in index.health()]

    return JSONResponse({"name": name, "shards": await service.read(name, health)})


def _about(service: Service, name: str) -> dict[str, Any]:
    index = service.catalogue.get(name)
    return {
        "name": name,
        "passages": len(index),
        "dim": index.dim,
        "encoder": index.encoder_name,
        "has_words": index.has_words(),
    }


def health_as_json(health: ShardHealth) -> dict[str, Any]:
    """Return how a shard is as values that JSON can hold."""
    return {"shard": health.shard, "is_up": health.is_up, "replicas": [asdict(replica) for replica in health.replicas]}
