"""Passages that come line by line, as many as there are: read, added and answered while they come."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from colbert_core.errors import ColBERTError
from colbert_core.serve.access import NDJSON
from colbert_core.serve.failures import body_of, invalid_sentence
from colbert_core.serve.limits import TooLargeError
from colbert_core.serve.requests import PassageIn
from colbert_core.serve.service import Served, Service
from colbert_core.serve.work import TooBusyError
from colbert_core.types import Passage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

logger = logging.getLogger(__name__)
router = APIRouter(tags=["passages"])

# Added together: half a second to a few seconds of encoding on two cores, so that who adds hears often how far it is.
_BATCH_PASSAGES, _BATCH_CHARACTERS = 256, 2**16
# Seconds between two lines of progress. A client that reads none until it has sent all would fill its buffers otherwise.
_EVERY = 1.0

_OPENAPI = {
    "requestBody": {"required": True, "content": {NDJSON: {"schema": {"$ref": "#/components/schemas/PassageIn"}}}},
    "responses": {"200": {"description": "Lines of JSON.", "content": {NDJSON: {"schema": {"type": "object"}}}}},
}


class _Answering(StreamingResponse):
    """An answer that is written while the request is read.

    Starlette's own waits for the client to go away meanwhile, and would take the pieces of the body for itself.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Write the answer."""
        await self.stream_response(send)


@router.post("/v1/indexes/{name}/passages/stream", response_class=StreamingResponse, openapi_extra=_OPENAPI)
async def stream_passages(name: str, request: Request, service: Served) -> StreamingResponse:
    """Add passages that come as lines of JSON, in bounded memory, however many there are.

    Answers lines while they come: ``{"added": n}`` once a second, for what is durable; ``{"added": n, "done": true}`` at the
    end, or ``{"added": n, "line": n, "type": ..., "message": ...}`` where a line is no passage or could not be added. The first
    ``added`` passages are in the index then. Of two lines with one id the later one stays.
    """
    service.check_writable()
    await service.read(name, len)  # an index that is not there is 404, not a line
    return _Answering(_added(name, request, service), media_type=NDJSON)


async def _added(name: str, request: Request, service: Service) -> AsyncIterator[str]:
    n_added, told, number = 0, time.monotonic(), 0
    batch: dict[str, Passage] = {}
    n_characters = 0
    try:
        async for number_of_line, line in _lines(request, service.limits.body_bytes):
            number = number_of_line
            if not line.strip():
                continue
            passage = _passage(line)
            batch.pop(passage.id, None)
            batch[passage.id] = passage
            n_characters += len(passage.text)
            if len(batch) >= _BATCH_PASSAGES or n_characters >= _BATCH_CHARACTERS:
                n_added += await _add(name, batch, service)
                batch, n_characters = {}, 0
                if time.monotonic() - told >= _EVERY:
                    told = time.monotonic()
                    yield _as_line({"added": n_added})
        n_added += await _add(name, batch, service)
        yield _as_line({"added": n_added, "done": True})
    except ClientDisconnect:
        logger.info("A client went away after %d passages were added to %r.", n_added, name)
    except HTTPException as error:
        yield _as_line({"added": n_added, "line": number, "type": "HTTPError", "message": error.detail})
    except (ColBERTError, TooBusyError, ValueError, TypeError) as error:
        yield _as_line({"added": n_added, "line": number, **body_of(error)})


async def _lines(request: Request, longest: int) -> AsyncIterator[tuple[int, bytes]]:
    """The lines of a body with their numbers, from 1.

    Raises:
        TooLargeError: one is longer than ``longest`` bytes.
    """
    rest, number = bytearray(), 0
    async for chunk in request.stream():
        rest += chunk
        while (end := rest.find(b"\n")) >= 0:
            number += 1
            line = bytes(rest[:end])
            del rest[: end + 1]
            yield number, line
        if len(rest) > longest:
            raise TooLargeError(f"Line {number + 1} has more than {longest:,} bytes, which is the most of one passage.")
    if rest:
        yield number + 1, bytes(rest)


def _passage(line: bytes) -> Passage:
    """Read a passage.

    Raises:
        ValueError, TypeError: it is none.
    """
    try:
        read = PassageIn.model_validate(json.loads(line))
    except ValidationError as error:
        raise ValueError(invalid_sentence(error.errors())) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"The line is no JSON ({error}).") from None
    return Passage(read.id, read.text, read.metadata)


async def _add(name: str, batch: dict[str, Passage], service: Service) -> int:
    if batch:
        passages = list(batch.values())
        await service.write(name, lambda index: index.add(passages, progress=False))
        service.metrics.added.labels(name).inc(len(passages))
    return len(batch)


def _as_line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
