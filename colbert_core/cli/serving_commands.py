"""Commands that let others ask an index: over HTTP, and as tools of an agent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from colbert_core.cli.options import Command

_SERVE = """\
Serve indexes over HTTP: search, list, explain, rerank, and a page to look at. Each INDEX is an index, or a folder of
collections; without any it reranks and encodes only. It listens on this machine alone, and only reads, unless told otherwise.
"""


def add_serving_commands(command: Command) -> None:
    """Add ``colbert serve``."""
    serve = command("serve", _serve, "serve indexes over HTTP, with a page to look at", about=_SERVE)
    serve.add_argument("indexes", nargs="*", type=Path, metavar="INDEX")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8080, help="port to listen at; 0 takes a free one (default: 8080)")
    serve.add_argument("--writable", action="store_true", help="let requests add, change and delete passages")
    serve.add_argument("--model", metavar="M", help="model that reads questions (default: that of each index)")


def _serve(options: argparse.Namespace) -> int:
    from colbert_core.serve.running import serve

    serve(options.indexes, encoder=options.model, host=options.host, port=options.port, writable=options.writable)
    return 0
