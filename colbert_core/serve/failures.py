"""What a service answers where something went wrong: a status, the name of the error and a sentence."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from colbert_core.errors import (
    ColBERTError,
    EncoderMismatchError,
    FilterWarning,
    IndexExistsError,
    IndexLockedError,
    IndexNotFoundError,
    MissingExtraError,
    PartialAddError,
    ReadOnlyIndexError,
    ShardUnavailableError,
    UnsupportedIndexError,
)
from colbert_core.serve.access import failure
from colbert_core.serve.limits import TooLargeError
from colbert_core.serve.work import TooBusyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import FastAPI
    from starlette.requests import Request

logger = logging.getLogger(__name__)

# The first that fits; what else goes wrong is no fault of the request.
_STATUS: list[tuple[type[Exception], int]] = [
    (TooBusyError, 429),
    (TooLargeError, 413),
    (IndexNotFoundError, 404),
    (IndexExistsError, 409),
    (ReadOnlyIndexError, 403),
    (IndexLockedError, 503),
    (ShardUnavailableError, 503),
    (EncoderMismatchError, 409),
    (UnsupportedIndexError, 409),
    (MissingExtraError, 501),
    (PartialAddError, 500),
    (ColBERTError, 500),
    (FilterWarning, 400),  # where the service was told to take warnings for errors
    (TypeError, 400),
    (ValueError, 400),
]
# Seconds after which a client may come again.
_AGAIN = "1"
# Characters of a value in a message.
_LONGEST = 80


def status_of(error: Exception) -> int:
    """Return the status of an error: 4xx where the request can be mended, 5xx where it cannot."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def body_of(error: Exception) -> dict[str, Any]:
    """Return an error as JSON holds it. What went wrong within is only logged: its message may name files."""
    status = status_of(error)
    if status == 500 and not isinstance(error, PartialAddError):
        return {"type": type(error).__name__, "message": "The index could not answer; the log of the service says why."}
    added = {"added": error.added} if isinstance(error, PartialAddError) else {}
    return {"type": type(error).__name__, "message": str(error), **added}


async def answer_error(_: Request, error: Exception) -> JSONResponse:
    """Answer an exception of a route."""
    status = status_of(error)
    if status >= 500:
        logger.error("A request failed: %s", error, exc_info=error)
    return JSONResponse(body_of(error), status, {"Retry-After": _AGAIN} if status in (429, 503) else None)


async def answer_invalid(_: Request, error: Exception) -> JSONResponse:
    """Answer a request that has other keys or values than it may have."""
    assert isinstance(error, RequestValidationError)
    return failure(422, "ValidationError", invalid_sentence(error.errors()))


def invalid_sentence(errors: Sequence[Any]) -> str:
    """Say what Pydantic found wrong with a request: the first three faults."""
    more = f" (and {len(errors) - 3} more)" if len(errors) > 3 else ""
    return "; ".join(map(_problem, errors[:3])) + more


def _problem(error: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"] if part != "body") or "The body"
    if error["type"] in ("json_invalid", "missing", "extra_forbidden"):
        return f"{place}: {error['msg']}"
    return f"{place}: {error['msg']}, got {error.get('input')!r:.{_LONGEST}}"


async def _answer_http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    return JSONResponse({"type": "HTTPError", "message": str(error.detail)}, error.status_code, headers)


def answer_errors(app: FastAPI) -> None:
    """Have an application answer every exception in this way."""
    for kind in (TooBusyError, ColBERTError, FilterWarning, TypeError, ValueError):
        app.add_exception_handler(kind, answer_error)
    app.add_exception_handler(RequestValidationError, answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http)
