"""The protocol over streamable HTTP: under which names it is reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp.server.transport_security import TransportSecuritySettings

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def security_of(host: str, names: Sequence[str] = ()) -> TransportSecuritySettings:
    """Which ``Host`` and ``Origin`` a request may have, so that no web page reaches the server through a name of its own.

    Args:
        host: address that the server listens at.
        names: further names by which it is reached, such as that of a proxy before it.
    """
    hosts = list(dict.fromkeys([*_LOOPBACK, f"[{host}]" if ":" in host else host, *names]))
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[each for name in hosts for each in (name, f"{name}:*")],
        allowed_origins=[
            each for name in hosts for scheme in ("http", "https") for each in (f"{scheme}://{name}", f"{scheme}://{name}:*")
        ],
    )
