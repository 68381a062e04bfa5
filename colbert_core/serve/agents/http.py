"""The protocol over streamable HTTP: who may reach it, and with which token."""

from __future__ import annotations

import hmac
import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp.server.transport_security import TransportSecuritySettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

# The shortest token that is taken; 16 random letters and digits hold 95 bits.
_SHORTEST_TOKEN = 16
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def read_token(path: Path) -> str:
    """Read the token that requests must have from a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no token.
    """
    token = path.read_text(encoding="utf-8").strip()
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or any(letter.isspace() for letter in token):
        raise ValueError(
            f"{path} holds no token: it has {len(token)} characters, and {_SHORTEST_TOKEN} or more letters, digits and signs "
            "without blanks are wanted; `openssl rand -hex 32` makes one."
        )
    return token


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_reach(host: str, token: str | None) -> None:
    """Make sure that nobody else reaches the server without a token.

    Raises:
        ValueError: somebody would.
    """
    if token is None and not is_loopback(host):
        raise ValueError(
            f"At {host} other machines reach the server, so it needs a token: give --token-file, or listen at 127.0.0.1."
        )


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


class Gate:
    """Lets requests through that have the token, and are not too large."""

    def __init__(self, app: ASGIApp, token: str | None, most_bytes: int) -> None:
        """Stand before an application.

        Args:
            app: the application.
            token: what requests must have; None for nothing.
            most_bytes: of a request.
        """
        self._app, self._token, self._most_bytes = app, token, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        if self._token is not None and not self._has_token(headers.get(b"authorization", b"")):
            await _refuse(send, 401, b"Send the token: Authorization: Bearer TOKEN", (b"www-authenticate", b"Bearer"))
            return
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._most_bytes or b"transfer-encoding" in headers:
            await _refuse(send, 413, b"The request is too large, or does not say how large it is (Content-Length).")
            return
        await self._app(scope, receive, send)

    def _has_token(self, header: bytes) -> bool:
        assert self._token is not None
        scheme, _, given = header.partition(b" ")
        return hmac.compare_digest(given.strip(), self._token.encode()) and scheme.lower() == b"bearer"


async def _refuse(send: Send, status: int, message: bytes, *headers: tuple[bytes, bytes]) -> None:
    plain = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(message)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": plain})
    await send({"type": "http.response.body", "body": message})


def http_app(server: Any, token: str | None, most_bytes: int) -> ASGIApp:
    """The server as an ASGI application, at ``/mcp``."""
    return Gate(server.streamable_http_app(), token, most_bytes)
