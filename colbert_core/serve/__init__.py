"""Indexes that others can ask: over HTTP, with a page to look at, and as tools of an agent.

The engine needs none of what this package needs: ``pip install fastapi uvicorn prometheus-client`` for the service,
``pip install mcp`` for the tools of agents, ``pip install httpx`` for the client.
"""

from typing import TYPE_CHECKING

from colbert_core.lazy import lazy_names

if TYPE_CHECKING:
    from colbert_core.serve.app import make_app
    from colbert_core.serve.catalogue import Catalogue
    from colbert_core.serve.client.asynchronous import AsyncClient
    from colbert_core.serve.client.sync import Client
    from colbert_core.serve.limits import Limits

__all__ = ["AsyncClient", "Catalogue", "Client", "Limits", "make_app"]

_PLACES = {
    "AsyncClient": "colbert_core.serve.client.asynchronous",
    "Catalogue": "colbert_core.serve.catalogue",
    "Client": "colbert_core.serve.client.sync",
    "Limits": "colbert_core.serve.limits",
    "make_app": "colbert_core.serve.app",
}

if not TYPE_CHECKING:
    __getattr__ = lazy_names(__name__, _PLACES)


def __dir__() -> list[str]:
    return sorted(__all__)
