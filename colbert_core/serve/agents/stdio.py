"""The protocol over standard input and output, with nothing else on standard output, whatever prints there.

The SDK's own transport reads with a thread that nobody can stop, so Ctrl-C waits for a line; it drops what is being worked on
when the input ends; and it never answers a line that it cannot parse. This one is the same otherwise: a JSON message on each
line.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
from mcp.shared.message import SessionMessage
from mcp.types import INVALID_REQUEST, ErrorData, JSONRPCError, JSONRPCMessage, JSONRPCRequest, JSONRPCResponse
from pydantic import ValidationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from colbert_core.serve.agents.server import AgentServer

    Incoming = SessionMessage | Exception

logger = logging.getLogger(__name__)

_AT_A_TIME = 65_536
# Lines that wait to be worked on; the client waits before it can write more.
_WAITING = 64


async def run_stdio(server: AgentServer, reading: int, writing: int, longest: int) -> None:
    """Serve until the input ends and what was asked before is answered.

    Args:
        server: the server.
        reading: descriptor to read messages from.
        writing: descriptor to write messages to.
        longest: bytes of the longest line.
    """
    async with _streams(reading, writing, longest) as (read_stream, write_stream):
        inner = server._mcp_server
        await inner.run(read_stream, write_stream, inner.create_initialization_options())


@contextmanager
def descriptors() -> Iterator[tuple[int, int]]:
    """Descriptors of standard input and output that nobody else has.

    Meanwhile standard input is empty, and whatever is printed, in C or by a process that is started as well, goes to standard
    error.
    """
    sys.stdout.flush()
    reading, writing = os.dup(0), os.dup(1)
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        yield reading, writing
    finally:
        sys.stdout.flush()
        os.dup2(reading, 0)
        os.dup2(writing, 1)
        os.close(writing)  # the other one may still be read by a thread that waits there


class _UnderWay:
    """Requests that are being worked on."""

    def __init__(self) -> None:
        self._ids: set[str | int] = set()
        self._nothing = anyio.Event()

    def begin(self, id_: str | int) -> None:
        self._ids.add(id_)

    def end(self, id_: str | int | None) -> None:
        self._ids.discard(id_)
        if not self._ids:
            self._nothing.set()
            self._nothing = anyio.Event()

    async def none_left(self) -> None:
        while self._ids:
            await self._nothing.wait()


@asynccontextmanager
async def _streams(
    reading: int, writing: int, longest: int
) -> AsyncIterator[tuple[MemoryObjectReceiveStream[Incoming], MemoryObjectSendStream[SessionMessage]]]:
    to_server, read_stream = anyio.create_memory_object_stream[Any](0)
    write_stream, from_server = anyio.create_memory_object_stream[SessionMessage](0)
    under_way, output = _UnderWay(), _Output(writing)
    lines = _Lines(reading, longest)

    async def read() -> None:
        async with to_server:
            with suppress(anyio.BrokenResourceError):  # the server has ended, as for Ctrl-C
                async for line in lines:
                    await take(line)
                await under_way.none_left()

    async def take(line: bytes) -> None:
        message = _parsed(line)
        if isinstance(message, JSONRPCError):
            await output.write(JSONRPCMessage(message))
        elif message is not None:
            if isinstance(message.root, JSONRPCRequest):
                under_way.begin(message.root.id)
            await to_server.send(SessionMessage(message))

    async def write() -> None:
        async with from_server:
            async for sent in from_server:
                await output.write(sent.message)
                if isinstance(sent.message.root, JSONRPCResponse | JSONRPCError):
                    under_way.end(sent.message.root.id)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        tasks.start_soon(write)
        yield read_stream, write_stream


class _Output:
    """Writes messages to a descriptor, one after the other, for as long as somebody reads them."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._turn = descriptor, anyio.Lock()
        self._is_read = True

    async def write(self, message: JSONRPCMessage) -> None:
        async with self._turn:
            if self._is_read:
                await anyio.to_thread.run_sync(self._write, message, abandon_on_cancel=True)

    def _write(self, message: JSONRPCMessage) -> None:
        left = memoryview(message.model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n")
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            logger.error("Nobody reads the answers any more: %s", error)
            self._is_read = False


def _parsed(line: bytes) -> JSONRPCMessage | JSONRPCError | None:
    """The message of a line; what to answer where it is none but has an id, and None where it has not even that."""
    if not line.strip():
        return None
    try:
        return JSONRPCMessage.model_validate_json(line)
    except ValidationError:
        pass
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    try:
        # JSON may hold halves of characters, which nothing can be written with; each becomes a question mark.
        return JSONRPCMessage.model_validate_json(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):  # of pydantic as well
        logger.error("A line of standard input is no message of the protocol: %r", line[:200])
    id_ = value.get("id") if isinstance(value, dict) else None
    if not isinstance(id_, str | int):
        return None
    error = ErrorData(code=INVALID_REQUEST, message="This is no message of the protocol.")
    return JSONRPCError(jsonrpc="2.0", id=id_, error=error)


class _Lines:
    """The lines of a descriptor, read by a thread that ends with the process, so that nobody has to wait for it."""

    def __init__(self, descriptor: int, longest: int) -> None:
        self._descriptor, self._longest = descriptor, longest
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = threading.Semaphore(_WAITING)
        threading.Thread(target=self._read, name="standard input", daemon=True).start()

    def __aiter__(self) -> _Lines:
        return self

    async def __anext__(self) -> bytes:
        line = await self._lines.get()
        if line is None:
            raise StopAsyncIteration
        self._room.release()
        return line

    def _read(self) -> None:
        rest, too_long = bytearray(), False
        while data := self._data():
            *ended, begun = data.split(b"\n")
            for part in ended:
                rest += part
                if not too_long and len(rest) <= self._longest:
                    self._room.acquire()
                    self._put(bytes(rest))
                else:
                    logger.error("A line of standard input has more than %d bytes and was passed over.", self._longest)
                rest, too_long = bytearray(), False
            rest += begun
            if len(rest) > self._longest:
                rest, too_long = bytearray(), True
        if rest and not too_long:
            self._put(bytes(rest))
        self._put(None)

    def _data(self) -> bytes:
        try:
            return os.read(self._descriptor, _AT_A_TIME)
        except OSError as error:
            logger.error("Standard input cannot be read any more: %s", error)
            return b""

    def _put(self, line: bytes | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._lines.put_nowait, line)
        except RuntimeError:  # the loop has ended, and nobody wants lines any more
            return
