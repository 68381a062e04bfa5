"""How much a service takes on: of one request, and of many at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Entries of a page, where a request does not say.
_PAGE = 100


class TooLargeError(ValueError):
    """A request asks for more than the limits allow."""


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

    def check_queries(self, queries: Sequence[str | list[list[float]]]) -> None:
        """Make sure that there are not too many queries, texts or vectors, and no text is too long.

        Raises:
            TooLargeError: there are, or one is.
        """
        self.check_number(len(queries), self.queries, "queries")
        for place, query in enumerate(queries):
            if isinstance(query, str) and len(query) > self.query_characters:
                raise TooLargeError(
                    f"Query {place} has {len(query)} characters, and at most {self.query_characters} are allowed."
                )

    def check_k(self, k: int, subject: str = "k") -> None:
        """Make sure that nobody asks for too many hits, or passages of a page.

        Raises:
            TooLargeError: somebody does.
        """
        if k > self.k:
            raise TooLargeError(f"{subject} is {k}, and at most {self.k} is allowed; ask again for the rest.")

    def page_limit(self, limit: int | None) -> int:
        """Return how many entries a page has: what a request says, or the default.

        Raises:
            TooLargeError: it says too many.
        """
        if limit is None:
            return min(_PAGE, self.k)
        self.check_k(limit, "limit")
        return limit

    @staticmethod
    def check_number(n: int, most: int, things: str) -> None:
        """Make sure that there are at most so many.

        Raises:
            TooLargeError: there are more.
        """
        if n > most:
            raise TooLargeError(f"There are {n} {things}, and at most {most} are allowed in one request; divide them.")
