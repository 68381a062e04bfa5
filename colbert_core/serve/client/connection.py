"""Requests over HTTP, by httpx: sent again where that is safe, and with errors that name the service."""

from __future__ import annotations

import asyncio
import math
import os
import time
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from colbert_core.errors import ServiceError, ServiceTimeoutError, ServiceUnreachableError
from colbert_core.extras import import_extra
from colbert_core.serve.client.answers import error_of, read
from colbert_core.threads import new_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from colbert_core.serve.client.address import Address
    from colbert_core.serve.client.calls import Call

T = TypeVar("T")

# How often a request is sent at most, and the seconds before it is sent again: .2, .4, .8, or what the service says.
_TIMES, _FIRST_WAIT, _LONGEST_WAIT = 4, 0.2, 10.0
# Seconds to connect. A host that is there answers at once; one that drops packets never does.
_CONNECT = 5.0
# Seconds that a connection waits for its next request. uvicorn closes it after five, and what is sent just then is lost.
_IDLE = 2.0
_BUSY = (429, 503)


class Connections:
    """How to reach a service: what both kinds of connection have in common.

    Attributes:
        address: of the service.
        token: shown with each request; None for none.
        timeout: seconds for each answer.
    """

    def __init__(self, address: Address, token: str | None, timeout: float) -> None:
        """Check what is given; nothing is connected yet.

        Raises:
            TypeError: the token is no string.
            ValueError: the timeout is not above 0, or the token cannot be a header.
            MissingExtraError: httpx is not installed.
        """
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
            raise ValueError(f"timeout is a number of seconds above 0, got {timeout!r:.80}.")
        if token is not None and not isinstance(token, str):
            raise TypeError(f"token must be a str, got {type(token).__name__}.")
        if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token != ""):
            raise ValueError("token must be printable ASCII without blanks at its ends; it may have come with a line break.")
        self._httpx: Any = import_extra("httpx", "The client of a service", "httpx")
        self.address, self.token, self.timeout = address, token, timeout

    def _settings(self) -> dict[str, Any]:
        httpx = self._httpx
        headers = {"Accept": "application/json", "User-Agent": "colbert"}
        return {
            "headers": headers | ({} if self.token is None else {"Authorization": f"Bearer {self.token}"}),
            "timeout": httpx.Timeout(self.timeout, connect=min(self.timeout, _CONNECT)),
            "limits": httpx.Limits(keepalive_expiry=_IDLE),
            "verify": self.address.root.lower().startswith("https"),  # to read certificates takes longer than ten searches
        }

    def _request(self, call: Call[Any]) -> dict[str, Any]:
        headers = {} if call.body is None else {"Content-Type": "application/json"}
        return {"method": call.method, "url": self.address.within(call.path), "content": call.body, "headers": headers}

    def _wait(self, call: Call[Any], waits: Iterator[float], outcome: httpx.Response | Exception) -> float | None:
        """Seconds until the call is sent again; None if it was answered well.

        Raises:
            ServiceError, ColBERTError, TypeError, ValueError: it failed, and is not sent again.
        """
        if isinstance(outcome, Exception):
            seconds = next(waits, None) if call.again and self._was_reset(outcome) else None
            if seconds is None:
                raise self._broken(outcome, call) from outcome
            return seconds
        if outcome.is_success:
            return None
        if outcome.has_redirect_location:
            raise ServiceError(
                f"{self.address} has moved to {outcome.headers['location']!r:.200} ({outcome.status_code}); use that address."
            )
        # Such an answer comes before anything is done, so that anything may be asked again.
        seconds = next(waits, None) if outcome.status_code in _BUSY else None
        if seconds is None:
            raise error_of(outcome.status_code, outcome.content, self.address)
        return _seconds(outcome.headers.get("retry-after"), seconds)

    def _was_reset(self, error: Exception) -> bool:
        httpx = self._httpx
        return isinstance(error, httpx.ReadError | httpx.WriteError | httpx.CloseError | httpx.RemoteProtocolError)

    def _broken(self, error: Exception, call: Call[Any]) -> Exception:
        """The error of a request that was not answered."""
        httpx, said = self._httpx, str(error) or type(error).__name__
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return ServiceUnreachableError(
                f"Nothing answers at {self.address.root} ({said}); is `colbert serve` running there, and is this its address?"
            )
        if isinstance(error, httpx.TimeoutException):
            return ServiceTimeoutError(
                f"{self.address} did not answer within {self.timeout:g} s; give more as timeout=..., or ask for less at a time."
            )
        if self._was_reset(error):
            unknown = "" if call.again else " Nobody knows whether it was done; look before you ask again."
            return ServiceUnreachableError(f"The connection to {self.address} broke ({said}).{unknown}")
        return ServiceError(f"{self.address} could not be asked: {said}.")


class Connection(Connections):
    """Requests that wait for their answers. Threads may share one, and a forked process has connections of its own."""

    def __init__(self, address: Address, token: str | None, timeout: float) -> None:
        super().__init__(address, token, timeout)
        self._lock, self._closed = new_lock(), False
        self._made: tuple[int, Any] = (0, None)
        self._inherited: Any = None

    def send(self, call: Call[T]) -> T:
        """Send a request and read the answer.

        Raises:
            ServiceError: the service did not answer, or not as one does.
            ColBERTError, TypeError, ValueError: as the engine's own.
        """
        waits = _waits()
        while True:
            outcome: httpx.Response | Exception
            try:
                outcome = self._client().request(**self._request(call))
            except self._httpx.RequestError as error:
                outcome = error
            seconds = self._wait(call, waits, outcome)
            if seconds is None:
                return call.read(read(outcome.content, self.address))  # type: ignore[union-attr]  # an error was raised
            time.sleep(seconds)

    def _client(self) -> httpx.Client:
        process, client = self._made
        if self._closed:
            raise ValueError(f"The client of {self.address} is closed; make a new one.")
        if client is None or process != os.getpid():
            with self._lock:
                process, client = self._made
                if client is None or process != os.getpid():
                    # The connections of the process that forked stay its own: they are neither used nor closed here.
                    client = self._httpx.Client(**self._settings())
                    self._inherited, self._made = self._made, (os.getpid(), client)
                    weakref.finalize(self, _close_own, client, os.getpid())  # where nobody closes what a URL has opened
        made: httpx.Client = client
        return made

    def close(self) -> None:
        """Close the connections."""
        process, client = self._made
        if client is not None:
            _close_own(client, process)
        self._closed = True


class AsyncConnection(Connections):
    """Requests that are awaited; each event loop has connections of its own."""

    def __init__(self, address: Address, token: str | None, timeout: float) -> None:
        super().__init__(address, token, timeout)
        self._made: tuple[Any, Any] = (None, None)
        self._closed = False

    async def send(self, call: Call[T]) -> T:
        """As ``Connection.send``."""
        waits = _waits()
        while True:
            outcome: httpx.Response | Exception
            try:
                outcome = await self._client().request(**self._request(call))
            except self._httpx.RequestError as error:
                outcome = error
            seconds = self._wait(call, waits, outcome)
            if seconds is None:
                return call.read(read(outcome.content, self.address))  # type: ignore[union-attr]  # an error was raised
            await asyncio.sleep(seconds)

    def _client(self) -> httpx.AsyncClient:
        if self._closed:
            raise ValueError(f"The client of {self.address} is closed; make a new one.")
        made_in, client = self._made
        if made_in is not (here := asyncio.get_running_loop()):
            client = self._httpx.AsyncClient(**self._settings())
            self._made = (here, client)
        made: httpx.AsyncClient = client
        return made

    async def close(self) -> None:
        """Close the connections of this event loop."""
        made_in, client = self._made
        if client is not None and made_in is asyncio.get_running_loop():
            await client.aclose()
        self._closed = True


def _close_own(client: httpx.Client, process: int) -> None:
    """Close connections, but for those of the process that forked this one."""
    if process == os.getpid():
        client.close()


def _waits() -> Iterator[float]:
    return (_FIRST_WAIT * 2**n for n in range(_TIMES - 1))


def _seconds(header: str | None, otherwise: float) -> float:
    """The seconds of a Retry-After, within reason; a date, which proxies may send, is not worth reading."""
    try:
        seconds = float(header or "")
    except ValueError:
        return otherwise
    return min(max(seconds, 0.0), _LONGEST_WAIT) if math.isfinite(seconds) else otherwise
