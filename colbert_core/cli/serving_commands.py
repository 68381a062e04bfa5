"""Commands that let others ask an index: over HTTP, and as tools of an agent."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from colbert_core.cli.options import Command

_SERVE = """\
Serve indexes over HTTP: search, list, explain, rerank, and a page to look at. Each INDEX is an index, or a folder of
collections; without any it reranks and encodes only. It listens on this machine alone, and only reads, unless told otherwise.
SIGHUP opens the indexes anew; Ctrl-C and SIGTERM end it once requests that are under way are done.
"""


def add_serving_commands(command: Command) -> None:
    """Add ``colbert serve``."""
    serve = command("serve", _serve, "serve indexes over HTTP, with a page to look at", about=_SERVE)
    serve.add_argument("indexes", nargs="*", type=Path, metavar="INDEX")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8080, help="port to listen at; 0 takes a free one (default: 8080)")
    serve.add_argument(
        "--token-file", metavar="FILE", help="file with the token that requests have to send; needed beyond this machine"
    )
    writable = serve.add_mutually_exclusive_group()
    writable.add_argument("--read-only", action="store_true", help="let requests change nothing (the default)")
    writable.add_argument("--writable", action="store_true", help="let requests add, change and delete passages")
    serve.add_argument("--workers", type=int, default=1, metavar="N", help="processes that answer (default: 1)")
    serve.add_argument("--model", metavar="M", help="model that reads questions (default: that of each index)")


def _serve(options: argparse.Namespace) -> int:
    from colbert_core.serve.running import Settings, serve

    settings = Settings(
        tuple(str(path.absolute()) for path in options.indexes),
        encoder=options.model,
        host=options.host,
        port=options.port,
        token_file=None if options.token_file is None else str(Path(options.token_file).absolute()),
        writable=options.writable,
        workers=options.workers,
    )
    serve(settings, lambda address: print(f"colbert: Serving at {address}; Ctrl-C ends it.", file=sys.stderr, flush=True))
    return 0
