"""Run the service: where it listens, as whom, and how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from colbert_core.extras import import_extra

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from colbert_core.serve.limits import Limits


def serve(
    paths: Sequence[Path],
    *,
    encoder: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8080,
    writable: bool = False,
    limits: Limits | None = None,
) -> None:
    """Serve indexes over HTTP until a signal ends it; writes that are under way finish first.

    Args:
        paths: indexes, and folders of collections; none for a service that reranks and encodes only.
        encoder: a checkpoint's name or folder for all of them; None for the one that each was made with.
        host: address to listen at.
        port: of it; 0 takes a free one.
        writable: whether requests may add, change and delete passages.
        limits: of a request, and of many at once.

    Raises:
        IndexNotFoundError: a folder is neither an index nor has any collection in it.
        MissingExtraError: a package is not installed.
    """
    uvicorn: Any = import_extra("uvicorn", "colbert serve", "uvicorn", "fastapi uvicorn prometheus-client")
    from colbert_core.serve.app import make_app
    from colbert_core.serve.catalogue import Catalogue

    app = make_app(Catalogue(paths, encoder), writable=writable, limits=limits)
    uvicorn.run(app, host=host, port=port, log_level="warning")
