"""Who may ask, from where, and how much of a request is taken: an ASGI layer before everything else."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from colbert_core.serve.limits import Limits

# What a browser needs to show the page that asks for the token, and a supervisor to see that the service runs; no data.
OPEN_PATHS = ("/", "/docs", "/health", "/ready", "/page/")
_SHORTEST_TOKEN = 16
# Sent with every answer: nothing of ours is to run in, or be shown by, somebody else's page.
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_CLOSE = {"Connection": "close"}  # what is left of the body is not read
NDJSON = "application/x-ndjson"


def read_token(path: Path) -> str:
    """Read the token of a file: its text without blanks around it.

    Raises:
        ValueError: it has fewer than 16 characters, or a blank within, or others than HTTP can send.
        OSError: the file cannot be read.
    """
    token = path.read_text(encoding="utf-8").strip()
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(
            f"The token in {path} must be one word of at least {_SHORTEST_TOKEN} printable ASCII characters, got {len(token)} "
            "characters; `openssl rand -hex 32` makes one."
        )
    return token


def is_loopback(host: str) -> bool:
    """Tell if an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name, whose address may change
        return False


def check_bind(host: str, token: str | None) -> None:
    """Make sure that nobody but this machine can ask where no token is asked for.

    Raises:
        ValueError: others could.
    """
    if token is None and not is_loopback(host):
        raise ValueError(
            f"Whoever reaches {host} could ask without a token; give --token-file FILE, or listen at 127.0.0.1, where only "
            "this machine can ask."
        )


class Access:
    """Refuses requests without the token, from other sites' pages, too large or too slow ones, before they are looked at."""

    def __init__(self, app: ASGIApp, limits: Limits, token: str | None, names: Sequence[str] = ()) -> None:
        """Stand before an application.

        Args:
            app: it.
            limits: of a body.
            token: what ``Authorization: Bearer`` has to say; None asks for none, and answers only requests that name this
                machine as their host, so that no page elsewhere can pretend to (DNS rebinding).
            names: further hosts that requests may name, such as that of a proxy before it.
        """
        self._app, self._limits, self._names = app, limits, frozenset(names)
        self._digest = None if token is None else _digest(token.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, sending = Headers(scope=scope), _with_headers(send)
        refusal = self._refusal(scope["path"], headers)
        if refusal is not None:
            await refusal(scope, receive, sending)
            return
        body = _Body(receive, self._limits, streams=_streams(headers))
        await self._app(scope, body.receive, sending)

    def _refusal(self, path: str, headers: Headers) -> JSONResponse | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._digest is None and not is_loopback(name := _without_port(host)) and name not in self._names:
            return failure(
                403, "ForbiddenError", f"This service answers to its own machine only, not as {host!r:.80}; ask 127.0.0.1."
            )
        if origin is not None and origin.partition("://")[2] != host:
            return failure(403, "ForbiddenError", f"A page of {origin!r:.80} may not ask this service.")
        if self._digest is not None and not _is_open(path) and not self._knows(headers.get("authorization", "")):
            return failure(
                401,
                "UnauthorizedError",
                "The token is missing or wrong; send the header 'Authorization: Bearer TOKEN'.",
                **{"WWW-Authenticate": "Bearer"},
            )
        length = headers.get("content-length", "")
        if length.isdecimal() and len(length) < 20 and int(length) > self._limits.body_bytes and not _streams(headers):
            return failure(413, "TooLargeError", _too_large(self._limits), **_CLOSE)
        return None

    def _knows(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        # Digests of equal length: the time to compare them tells nothing about the token.
        given = _digest(token.strip().encode("utf-8", "surrogateescape"))
        return hmac.compare_digest(given, self._digest or b"") and scheme.lower() == "bearer"


class _Body:
    """The body of a request, as much of it as may come in the time there is.

    Of a stream each piece has that time, and there is no end to it; its reader bounds the lines.
    """

    def __init__(self, receive: Receive, limits: Limits, *, streams: bool) -> None:
        self._receive, self._limits, self._streams = receive, limits, streams
        self._n_bytes, self._whole = 0, False
        self._until = asyncio.get_running_loop().time() + limits.body_seconds

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()  # waits for the client to go away
        loop = asyncio.get_running_loop()
        until = loop.time() + self._limits.body_seconds if self._streams else self._until
        try:
            async with asyncio.timeout_at(until):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(
                408,
                f"The request did not come whole within {self._limits.body_seconds:g} seconds; send it again, quicker.",
                _CLOSE,
            ) from None
        if message["type"] == "http.request":
            self._n_bytes += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self._n_bytes > self._limits.body_bytes and not self._streams:
                raise HTTPException(413, _too_large(self._limits), _CLOSE)
        return message


def failure(status: int, kind: str, message: str, **headers: str) -> JSONResponse:
    """Make the answer for what is no exception."""
    return JSONResponse({"type": kind, "message": message}, status, headers)


def _streams(headers: Headers) -> bool:
    return headers.get("content-type", "").startswith(NDJSON)


def _too_large(limits: Limits) -> str:
    return (
        f"The request has more than {limits.body_bytes:,} bytes, which is the most; divide it, or stream passages as {NDJSON}."
    )


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _is_open(path: str) -> bool:
    return any(path.startswith(open_) if open_ == "/page/" else path == open_ for open_ in OPEN_PATHS)


def _without_port(host: str) -> str:
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]


def _with_headers(send: Send) -> Callable[[Message], Awaitable[None]]:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            known = {name for name, _ in message.get("headers", [])}
            message["headers"] = [*message.get("headers", []), *(pair for pair in _HEADERS if pair[0] not in known)]
        await send(message)

    return sending
