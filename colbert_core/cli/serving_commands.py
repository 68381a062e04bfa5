"""Commands that let others ask an index: over HTTP, and as tools of an agent."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from colbert_core.cli.reading import index_place

if TYPE_CHECKING:
    import argparse

    from colbert_core.cli.options import Command

_SERVE = """\
Serve indexes over HTTP: search, list, explain, rerank, and a page to look at. Each INDEX is an index, a folder of collections,
or an address where `colbert cluster publish` put one, such as s3://bucket/wiki; without any it reranks and encodes only. It
listens on this machine alone, and only reads, unless told otherwise.
SIGHUP opens the indexes anew; Ctrl-C and SIGTERM end it once requests that are under way are done.
"""

_MCP = """\
Serve indexes as tools of an AI agent, by the Model Context Protocol: search, get_passage, explain, list_collections. Each
INDEX is an index, a folder of collections, or an address such as s3://bucket/wiki. The agent's program starts this command, and
talks to it over standard input and output; with --http it listens instead.
"""


def add_serving_commands(command: Command) -> None:
    """Add ``colbert serve`` and ``colbert mcp``."""
    serve = command("serve", _serve, "serve indexes over HTTP, with a page to look at", about=_SERVE)
    serve.add_argument("indexes", nargs="*", type=index_place, metavar="INDEX")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8080, help="port to listen at; 0 takes a free one (default: 8080)")
    serve.add_argument(
        "--token-file", metavar="FILE", help="file with the token that requests have to send; needed beyond this machine"
    )
    writable = serve.add_mutually_exclusive_group()
    writable.add_argument("--read-only", action="store_true", help="let requests change nothing (the default)")
    writable.add_argument("--writable", action="store_true", help="let requests add, change and delete passages")
    serve.add_argument("--workers", type=int, default=1, metavar="N", help="processes that answer (default: 1)")
    serve.add_argument(
        "--replicas", type=int, default=1, metavar="N", help="actors for each shard of an index in shards (default: 1)"
    )
    serve.add_argument("--model", metavar="M", help="model that reads questions (default: that of each index)")

    mcp = command("mcp", _mcp, "serve indexes as tools of an AI agent (MCP)", about=_MCP)
    mcp.add_argument("indexes", nargs="+", type=index_place, metavar="INDEX")
    mcp.add_argument(
        "--max-tokens", type=int, metavar="N", help="most tokens of an answer; a call may ask for less (default: 4000)"
    )
    mcp.add_argument("--writable", action="store_true", help="add a tool that adds passages")
    mcp.add_argument("--model", metavar="M", help="model that reads questions (default: that of each index)")
    mcp.add_argument("--http", action="store_true", help="listen for requests over streamable HTTP, at /mcp")
    mcp.add_argument("--host", help="address to listen at, with --http (default: 127.0.0.1)")
    mcp.add_argument("--port", type=int, help="port to listen at, with --http; 0 takes a free one (default: 8081)")
    mcp.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="file with the token that requests must have, with --http; needed where other machines reach the address",
    )
    mcp.add_argument(
        "--allow-host",
        action="append",
        metavar="NAME",
        help="further name by which clients reach it, with --http, such as that of a proxy; may be given several times",
    )


def _serve(options: argparse.Namespace) -> int:
    from colbert_core.serve.running import Settings, serve

    settings = Settings(
        tuple(place if isinstance(place, str) else str(place.absolute()) for place in options.indexes),
        encoder=options.model,
        host=options.host,
        port=options.port,
        token_file=None if options.token_file is None else str(Path(options.token_file).absolute()),
        writable=options.writable,
        workers=options.workers,
        replicas=options.replicas,
    )
    serve(settings, lambda address: print(f"colbert: Serving at {address}; Ctrl-C ends it.", file=sys.stderr, flush=True))
    return 0


def _mcp(options: argparse.Namespace) -> int:
    from colbert_core.serve.agents.running import Listening, serve_agents

    given = {
        "host": options.host,
        "port": options.port,
        "token_file": options.token_file,
        "names": options.allow_host,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if given and not options.http:
        raise ValueError("--host, --port, --token-file and --allow-host are of --http; give it as well, or leave them out.")
    serve_agents(
        options.indexes,
        encoder=options.model,
        max_tokens=options.max_tokens,
        writable=options.writable,
        place=Listening(**given, say=_say_address) if options.http else None,
    )
    return 0


def _say_address(address: str) -> None:
    print(f"colbert: agents find the tools at {address}", file=sys.stderr, flush=True)
