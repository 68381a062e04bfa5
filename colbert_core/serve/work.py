"""Work of requests, done by a bounded number of threads; those who cannot wait any more are told so at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class TooBusyError(Exception):
    """More requests wait than may wait; the client should come again in a second."""


class Work:
    """Threads that do what requests ask for, in the order in which they came.

    Attributes:
        n_running: requests that are being worked on or wait.
    """

    def __init__(self, at_once: int, waiting: int) -> None:
        """Take so many at a time.

        Args:
            at_once: requests that are worked on at a time.
            waiting: requests that may wait beside them.
        """
        self._most, self._limiter = at_once + waiting, anyio.CapacityLimiter(at_once)
        self.n_running = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Do something in a thread. It is not interrupted when the client goes away: what is written is written whole.

        Raises:
            TooBusyError: too many are waiting already.
        """
        if self.n_running >= self._most:
            raise TooBusyError(f"{self.n_running} requests are under way or wait, and more may not; come again in a second.")
        self.n_running += 1
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._limiter)
        finally:
            self.n_running -= 1
