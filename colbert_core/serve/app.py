"""The service as an ASGI application."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI

import colbert_core
from colbert_core.serve import pages, passages, reranking, searching, status, streams
from colbert_core.serve.access import Access
from colbert_core.serve.failures import answer_errors
from colbert_core.serve.limits import Limits
from colbert_core.serve.metrics import Counted
from colbert_core.serve.service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from colbert_core.serve.catalogue import Catalogue


def make_app(
    catalogue: Catalogue,
    *,
    writable: bool = False,
    token: str | None = None,
    limits: Limits | None = None,
) -> FastAPI:
    """Make an ASGI application that answers questions to indexes over HTTP.

    Args:
        catalogue: the indexes.
        writable: whether requests may add, change and delete passages.
        token: what ``Authorization: Bearer`` has to say; None asks for none, and answers this machine alone.
        limits: of a request, and of many at once; None for the defaults.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.create_task(service.warm_up())
        try:
            yield
        finally:
            warming.cancel()

    service = Service(catalogue, limits or Limits(), writable=writable)
    app = FastAPI(
        title="colbert",
        version=colbert_core.__version__,
        description="Late-interaction (ColBERT) search over HTTP.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    answer_errors(app)
    for module in (status, searching, reranking, streams, passages, pages):
        app.include_router(module.router)
    app.add_middleware(Access, limits=service.limits, token=token)
    app.add_middleware(Counted, metrics=service.metrics)
    return app
