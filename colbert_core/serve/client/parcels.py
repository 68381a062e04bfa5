"""Passages to add, in requests of a bounded size, and what to say of those that are in when one fails."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from colbert_core.checks import check_ids, check_passages
from colbert_core.errors import PartialAddError, ServiceTimeoutError, ServiceUnreachableError
from colbert_core.index.batches import dump_all
from colbert_core.types import Passage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# A request ends at either: about what an index encodes and commits together, which takes ten seconds on two cores.
_BYTES = 2**18
_PASSAGES = 1024


@dataclass(frozen=True)
class Parcel:
    """Passages of one request.

    Attributes:
        ids: of the passages.
        body: of the request, JSON.
    """

    ids: list[str]
    body: bytes


def parcels(passages: Iterable[Passage]) -> Iterator[Parcel]:
    """Divide passages into requests; of a stream no more than one is in memory.

    Raises:
        TypeError, ValueError: as ``Index.add``. A list is checked before the first request, a stream as it comes.
    """
    if isinstance(passages, list | tuple | Passage):
        passages = check_passages(passages)
        check_ids(Counter(passage.id for passage in passages))
        dump_all(passages)
    return _divided(passages)


def _divided(passages: Iterable[Passage]) -> Iterator[Parcel]:
    seen: set[str] = set()
    ids: list[str] = []
    pieces: list[bytes] = []
    size = 0
    for item in passages:
        (passage,) = check_passages([item])
        check_ids(Counter([passage.id]), seen)
        seen.add(passage.id)
        (metadata,) = dump_all([passage])
        name, text = (json.dumps(value, ensure_ascii=False) for value in (passage.id, passage.text))
        piece = f'{{"id": {name}, "text": {text}, "metadata": {metadata}}}'.encode()
        if pieces and (size + len(piece) > _BYTES or len(pieces) >= _PASSAGES):
            yield _packed(ids, pieces)
            ids, pieces, size = [], [], 0
        ids.append(passage.id)
        pieces.append(piece)
        size += len(piece)
    if pieces:
        yield _packed(ids, pieces)


def _packed(ids: list[str], pieces: list[bytes]) -> Parcel:
    return Parcel(ids, b'{"passages": [' + b", ".join(pieces) + b"]}")


def partial(error: Exception, added: list[str], under_way: list[str]) -> Exception:
    """Return the error of an ``add`` that failed: the one at hand if nothing is in, else one that says what is.

    Args:
        error: what went wrong.
        added: ids that are in.
        under_way: ids of the request that failed, or none if none had been sent.
    """
    added = added + (error.added if isinstance(error, PartialAddError) else [])
    open_end = ""
    if under_way and isinstance(error, ServiceUnreachableError | ServiceTimeoutError):
        open_end = (
            f" Of the {len(under_way)} from {under_way[0]!r} to {under_way[-1]!r} nobody knows whether they are in; to add "
            "them again does no harm."
        )
    if not added:
        if open_end:
            error.args = (f"{error}{open_end}",)
        return error
    message = f"{len(added)} passages of this call are in the index, up to {added[-1]!r}; the next ones are not: {error}"
    return PartialAddError(message + open_end, added)
