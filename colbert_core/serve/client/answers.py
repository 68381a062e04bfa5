"""What went wrong, as an exception: the one that the engine would have raised, or one that names the service and the fix."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from colbert_core import errors
from colbert_core.errors import (
    ColBERTError,
    PartialAddError,
    ServiceBusyError,
    ServiceDeniedError,
    ServiceError,
    ShardUnavailableError,
)

if TYPE_CHECKING:
    from colbert_core.serve.client.address import Address

# Errors of the service that are no names of the engine's.
_BY_NAME: dict[str, type[Exception]] = {
    "TypeError": TypeError,
    "ValueError": ValueError,
    "TooLargeError": ValueError,
    "ValidationError": ValueError,
    "TooBusyError": ServiceBusyError,
}
_BY_NAME |= {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, ColBERTError)}
# Characters of an answer in a message.
_LONGEST = 200


def error_of(status: int, content: bytes, address: Address) -> Exception:
    """Return the exception for an answer that is no success.

    Args:
        status: of HTTP.
        content: of the answer.
        address: who answered.
    """
    body = _object(content)
    if body is None:
        return _unnamed(status, content.decode("utf-8", "replace").strip(), address)
    kind, message = _BY_NAME.get(str(body.get("type"))), str(body.get("message") or body.get("detail") or "")
    if kind is None:
        return _unnamed(status, message, address)
    if kind is PartialAddError:
        return PartialAddError(message, [str(each) for each in body.get("added", [])])
    if kind is ShardUnavailableError:
        return ShardUnavailableError(message, list(body.get("shards", [])))
    return kind(message if status < 500 and not issubclass(kind, ServiceError) else f"{address} answered: {message}")


def read(content: bytes, address: Address) -> dict[str, Any]:
    """Return the answer of a success.

    Raises:
        ServiceError: it is not JSON as the service writes it; somebody else listens there.
    """
    body = _object(content)
    if body is None:
        raise ServiceError(
            f"{address} answered something else than JSON ({content[:40]!r}); is it a service that `colbert serve` started?"
        )
    return body


def _unnamed(status: int, message: str, address: Address) -> Exception:
    """The exception for a status, where nobody says which it is: a proxy, another program, or the server itself."""
    said = f": {message:.{_LONGEST}}" if message else ""
    if status == 401:
        return ServiceDeniedError(f"{address} wants a token{said}; give the right one as token=...")
    if status == 403:
        return ServiceDeniedError(f"{address} refused this (403){said}; give a token that may do it as token=...")
    if status == 404:
        return ServiceError(f"{address} has no such page (404){said}; is it a service that `colbert serve` started?")
    if status == 413:
        return ServiceError(f"{address} takes no request of this size (413){said}; send less at a time.")
    if status in (429, 503):
        return ServiceBusyError(f"{address} has too much to do ({status}){said}; ask again later, or fewer at a time.")
    return ServiceError(f"{address} answered with status {status}{said}.")


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(content)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None
