"""How much a service takes on: of one request, and of many at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a request may ask for, and how many may be under way; more is refused, with a status that says so.

    Attributes:
        body_bytes: most bytes of a request; more is 413.
        body_seconds: most seconds until a request has come whole; a slower one is 408. A stream of passages to add has as long
            for each of its lines.
        query_characters: longest query.
        queries: most queries of one request.
        k: most hits, of one query or on one page.
        passages: most passages of one request, but for a stream.
        at_once: requests that are worked on at a time; None for as many as there are threads.
        waiting: requests that may wait for their turn; one more is 429.
    """

    body_bytes: int = 16 * 2**20
    body_seconds: float = 30.0
    query_characters: int = 10_000
    queries: int = 100
    k: int = 1000
    passages: int = 10_000
    at_once: int | None = None
    waiting: int = 256
