"""Run the service: where it listens, in how many processes, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import shutil
import signal
import socket
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colbert_core.checks import check_count
from colbert_core.extras import import_extra
from colbert_core.serve.limits import Limits
from colbert_core.serve.listening import listening
from colbert_core.threads import get_num_threads, set_num_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi import FastAPI

# What workers, which are processes of their own, read the settings from.
_SETTINGS = "COLBERT_SERVE_SETTINGS"
# Seconds for requests that are under way when the service is to end; a commit that has begun is finished in any case.
_GRACE = 30
# Seconds for a worker to import torch, on a busy machine; one that does not answer for so long is replaced.
_START = 60
_PACKAGES = "fastapi uvicorn prometheus-client"


@dataclass(frozen=True)
class Settings:
    """How to serve indexes.

    Attributes:
        paths: indexes, folders of collections, and addresses of published ones; none for a service that reranks and encodes
            only.
        encoder: a checkpoint's name or folder for all of them; None for the one that each was made with.
        host: address to listen at.
        port: of it; 0 takes a free one.
        token_file: file with the token that requests have to send; None asks for none.
        writable: whether requests may add, change and delete passages.
        workers: processes that answer; each loads the model.
        replicas: actors for each shard of an index in shards, of each worker.
        limits: of a request, and of many at once.
    """

    paths: tuple[str, ...]
    encoder: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    token_file: str | None = None
    writable: bool = False
    workers: int = 1
    replicas: int = 1
    limits: Limits = field(default_factory=Limits)


def serve(settings: Settings, announce: Callable[[str], object] = str) -> None:
    """Serve indexes over HTTP until SIGINT or SIGTERM ends it; requests that are under way finish first.

    SIGHUP opens every index anew, with several workers by new ones. A worker that dies is replaced.

    Args:
        settings: what to serve, and how.
        announce: called with the address once the service listens.

    Raises:
        IndexNotFoundError: a folder is neither an index nor has any collection in it.
        ValueError: others than this machine could ask without a token, or the token is too short.
        OSError: the address cannot be had, or the file of the token cannot be read.
        MissingExtraError: a package is not installed.
    """
    uvicorn: Any = import_extra("uvicorn", "colbert serve", "uvicorn", _PACKAGES)
    for module in ("fastapi", "prometheus_client"):
        import_extra(module, "colbert serve", module, _PACKAGES)
    from colbert_core.serve.access import check_bind

    check_count(settings.workers, "workers", "processes")
    app = app_of(settings)  # what is wrong with the settings is an error here, not in each worker
    check_bind(settings.host, settings.token_file)
    options: dict[str, Any] = {
        "log_level": "warning",
        "access_log": False,
        "http": "h11",  # bounds the headers of a request
        "ws": "none",
        "server_header": False,
        "proxy_headers": False,
        "timeout_graceful_shutdown": _GRACE,
        "timeout_worker_healthcheck": _START,
    }
    with listening(settings.host, settings.port) as (listener, address):
        announce(address)
        if settings.workers == 1:
            uvicorn.Server(uvicorn.Config(app, **options)).run(sockets=[listener])
            return
        app.state.service.catalogue.close()
        with _shared(settings):
            _supervise(uvicorn.Config(f"{__name__}:worker_app", factory=True, workers=settings.workers, **options), listener)


def _supervise(config: Any, listener: socket.socket) -> None:
    """Run workers, replace those that die, and all of them at SIGHUP."""
    from uvicorn import Server
    from uvicorn.supervisors import Multiprocess

    parameters = inspect.signature(Multiprocess).parameters
    target: dict[str, Any] = {"target": Server(config).run} if "target" in parameters else {}  # up to uvicorn 0.50
    Multiprocess(config, sockets=[listener], **target).run()


def app_of(settings: Settings) -> FastAPI:
    """Make the application of a service.

    Raises:
        IndexNotFoundError, IndexExistsError, ValueError, OSError: see ``serve``.
    """
    from colbert_core.serve.access import read_token
    from colbert_core.serve.app import make_app
    from colbert_core.serve.catalogue import Catalogue

    token = None if settings.token_file is None else read_token(Path(settings.token_file))
    catalogue = Catalogue(settings.paths, settings.encoder, replicas=settings.replicas)
    app = make_app(catalogue, writable=settings.writable, token=token, limits=settings.limits)
    lifespan = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan_with_signals(app: FastAPI) -> Any:
        if hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, catalogue.reopen)
        async with lifespan(app):
            yield
        catalogue.close()

    app.router.lifespan_context = lifespan_with_signals
    return app


def worker_app() -> FastAPI:
    """Make the application of a worker, by the settings that ``serve`` has left to it."""
    given = json.loads(os.environ[_SETTINGS])
    settings = Settings(**{**given, "paths": tuple(given["paths"]), "limits": Limits(**given["limits"])})
    set_num_threads(max(1, get_num_threads() // settings.workers))
    return app_of(settings)


@contextlib.contextmanager
def _shared(settings: Settings) -> Iterator[None]:
    """Leave the settings to workers, and a folder for their figures."""
    figures = tempfile.mkdtemp(prefix="colbert-serve-")
    before = dict(os.environ)
    os.environ[_SETTINGS] = json.dumps(asdict(settings))
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = figures
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(figures, ignore_errors=True)
