"""Run the MCP server over standard input and output, or over HTTP, until the client goes or a signal comes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from colbert_core.extras import import_extra
from colbert_core.serve.catalogue import Catalogue
from colbert_core.serve.limits import Limits
from colbert_core.serve.listening import listening

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

_SDK = "'mcp>=1.12,<2'"
# Seconds that answers under way have when the server over HTTP ends.
_LAST_SECONDS = 5


@dataclass(frozen=True)
class Listening:
    """Where the server listens.

    Attributes:
        host: address.
        port: of it; 0 takes a free one.
        token_file: holds the token that requests must have; needed where other machines reach the address.
        names: further names by which the server is reached, such as that of a proxy.
        say: is told the address once requests are taken.
    """

    host: str = "127.0.0.1"
    port: int = 8081
    token_file: Path | None = None
    names: Sequence[str] = ()
    say: Callable[[str], None] = logger.info


def serve_agents(
    paths: Sequence[Path | str],
    *,
    encoder: str | None = None,
    max_tokens: int | None = None,
    writable: bool = False,
    limits: Limits | None = None,
    place: Listening | None = None,
) -> None:
    """Serve indexes to agents.

    Args:
        paths: indexes, folders of collections, and addresses where indexes are published.
        encoder: a checkpoint's name or folder for all of them; None for the one that each was made with.
        max_tokens: most tokens of an answer; None for 4,000.
        writable: whether there is a tool that adds passages.
        limits: of a call, and of many at once.
        place: where to listen by HTTP; None for standard input and output, which end the server when the input ends.

    Raises:
        IndexNotFoundError: a folder is neither an index nor has any collection in it.
        MissingExtraError: a package is not installed.
        OSError: nobody can listen there, or the file of the token cannot be read.
        ValueError: other machines would reach the server without a token, or max_tokens is too small.
    """
    import_extra("mcp.server.fastmcp", "colbert mcp", "mcp", _SDK)
    from colbert_core.serve import access
    from colbert_core.serve.agents import http, server, stdio

    limits = limits or Limits()
    settings: dict[str, Any] = {"writable": writable, "limits": limits}
    if max_tokens is not None:
        settings["max_tokens"] = max_tokens
    catalogue = Catalogue(paths, encoder)
    try:
        if place is None:
            import anyio

            agents = server.make_agent_server(catalogue, **settings)
            with stdio.descriptors() as (reading, writing):
                anyio.run(stdio.run_stdio, agents, reading, writing, limits.body_bytes)
            return
        token = None if place.token_file is None else access.read_token(place.token_file)
        access.check_bind(place.host, token)
        agents = server.make_agent_server(catalogue, **settings, security=http.security_of(place.host, place.names))
        _listen(access.Access(agents.streamable_http_app(), limits, token, place.names), place)
    finally:
        catalogue.close()


def _listen(app: Any, place: Listening) -> None:
    uvicorn: Any = import_extra("uvicorn", "colbert mcp --http", "uvicorn", "uvicorn")
    with listening(place.host, place.port) as (listener, address):
        place.say(f"{address}/mcp")
        config = uvicorn.Config(
            app,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=_LAST_SECONDS,
            h11_max_incomplete_event_size=65_536,
        )
        uvicorn.Server(config).run([listener])
