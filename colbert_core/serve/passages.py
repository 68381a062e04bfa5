"""Routes that list, add, change and delete passages."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from colbert_core.serve.requests import (
    AddRequest,
    CountRequest,
    DeleteRequest,
    GetRequest,
    ListRequest,
    MetadataRequest,
)
from colbert_core.serve.service import Served, warnings_of
from colbert_core.types import Passage
from colbert_core.values import passage_as_json

if TYPE_CHECKING:
    from colbert_core.cluster import ShardedIndex
    from colbert_core.index.index import Index

router = APIRouter(prefix="/v1/indexes/{name}", tags=["passages"])


@router.get("/passages")
async def first_passages(
    name: str, service: Served, limit: Annotated[int | None, Query(ge=1)] = None, after: str | None = None
) -> JSONResponse:
    """List passages, page by page. Answers ``{"passages": [...], "next": "..."}``; ``next`` is null on the last page."""
    return await list_passages(name, ListRequest(limit=limit, after=after), service)


@router.post("/passages/list")
async def list_passages(name: str, body: ListRequest, service: Served) -> JSONResponse:
    """List the passages that a filter matches, page by page. Answers as ``GET passages`` does."""
    limit = service.limits.page_limit(body.limit)

    def find(index: Index | ShardedIndex) -> dict[str, Any]:
        page = index.passages(body.where, ids=body.ids, limit=limit, after=body.after)
        passages = [passage_as_json(passage) for passage in page]
        return {"passages": passages, "next": page.next, **warnings_of(index, body.where, bool(page))}

    return JSONResponse(await service.read(name, find))


@router.post("/passages/get")
async def get_passages(name: str, body: GetRequest, service: Served) -> JSONResponse:
    """Get passages by their ids. Answers ``{"passages": [...]}`` in this order, with null where there is none."""
    service.limits.check_k(len(body.ids), "The number of ids")
    found = await service.read(name, lambda index: index.get(body.ids))
    return JSONResponse({"passages": [None if passage is None else passage_as_json(passage) for passage in found]})


@router.get("/passages/{passage_id:path}")
async def get_passage(name: str, passage_id: str, service: Served) -> JSONResponse:
    """Get one passage. Answers ``{"id": ..., "text": ..., "metadata": {...}}``, or 404."""
    (passage,) = await service.read(name, lambda index: index.get([passage_id]))
    if passage is None:
        raise HTTPException(404, f"There is no passage with the id {passage_id!r:.100}.")
    return JSONResponse(passage_as_json(passage))


@router.post("/passages")
async def add_passages(name: str, body: AddRequest, service: Served) -> JSONResponse:
    """Add passages, or replace those whose ids are known. Answers ``{"ids": [...]}`` once they are durable."""
    service.limits.check_number(len(body.passages), service.limits.passages, "passages")
    passages = [Passage(each.id, each.text, each.metadata) for each in body.passages]
    ids = await service.write(name, lambda index: index.add(passages, progress=False))
    service.metrics.added.labels(name).inc(len(ids))
    return JSONResponse({"ids": ids})


@router.post("/passages/delete")
async def delete_passages(name: str, body: DeleteRequest, service: Served) -> JSONResponse:
    """Delete passages by their ids, or by a filter; ``{}`` is all of them. Answers ``{"deleted": n}``."""
    ids, where = body.ids, body.where
    if (ids is None) == (where is None):
        raise ValueError("Give ids, or where to delete by a filter; one of them.")
    if ids is not None:
        n_deleted = await service.write(name, lambda index: index.delete(ids))
    else:
        n_deleted = await service.write(name, lambda index: index.delete_where(where or {}))
    return JSONResponse({"deleted": n_deleted})


@router.delete("/passages/{passage_id:path}")
async def delete_passage(name: str, passage_id: str, service: Served) -> JSONResponse:
    """Delete one passage. Answers ``{"deleted": 1}``, or 0 if there was none."""
    return JSONResponse({"deleted": await service.write(name, lambda index: index.delete([passage_id]))})


@router.patch("/passages")
async def update_metadata(name: str, body: MetadataRequest, service: Served) -> JSONResponse:
    """Change metadata; nothing is encoded. Answers ``{"changed": n}``."""
    if body.ids is None and body.where is None:
        raise ValueError("Give ids or where, to say of which passages; where={} is all of them.")
    n_changed = await service.write(
        name, lambda index: index.update_metadata(body.metadata, ids=body.ids, where=body.where, remove=body.remove)
    )
    return JSONResponse({"changed": n_changed})


@router.post("/count")
async def count(name: str, body: CountRequest, service: Served) -> JSONResponse:
    """Count the passages, or those that a filter matches. Answers ``{"count": n}``."""
    return JSONResponse({"count": await service.read(name, lambda index: index.count(body.where))})


@router.get("/fields")
async def fields(
    name: str, service: Served, limit: Annotated[int | None, Query(ge=1)] = None, after: str | None = None
) -> JSONResponse:
    """Tell which metadata there are. Answers ``{"fields": [...], "next": "..."}``."""
    most = service.limits.page_limit(limit)
    page = await service.read(name, lambda index: index.fields(limit=most, after=after))
    return JSONResponse({"fields": [asdict(field) for field in page], "next": page.next})
