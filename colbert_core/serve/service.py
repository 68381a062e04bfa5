"""What the routes of a service share: the indexes, the limits, and the threads that work."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import Depends, Request

from colbert_core.errors import ColBERTError, ReadOnlyIndexError
from colbert_core.serve.metrics import Metrics
from colbert_core.serve.work import Work
from colbert_core.threads import get_num_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from colbert_core.cluster import ShardedIndex
    from colbert_core.index.index import Index
    from colbert_core.serve.catalogue import Catalogue
    from colbert_core.serve.limits import Limits

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Writers of one process: an index takes one at a time, and each uses all cores to encode.
_WRITERS = 1


class Service:
    """The indexes that are served, and how.

    Attributes:
        catalogue: the indexes.
        limits: of a request, and of many.
        writable: whether requests may change anything.
        reading: threads of searches.
        writing: threads of changes.
        metrics: figures of what it does.
        problem: why the service is not ready; None once it is.
    """

    def __init__(self, catalogue: Catalogue, limits: Limits, *, writable: bool) -> None:
        """Use ``make_app``."""
        self.catalogue, self.limits, self.writable = catalogue, limits, writable
        self.reading = Work(limits.at_once or get_num_threads(), limits.waiting)
        self.writing = Work(_WRITERS, limits.waiting)
        self.metrics = Metrics()
        catalogue.watch = self.metrics.count_shard
        self.problem: str | None = "The indexes are being opened; come again in a moment."

    async def warm_up(self) -> None:
        """Open every index and load what encodes, so that the first question is as quick as any other."""
        try:
            await asyncio.to_thread(self._warm_up)
            self.problem = None
        except (ColBERTError, ValueError, TypeError, OSError) as error:
            logger.error("The service is not ready: %s", error, exc_info=error)
            self.problem = f"An index could not be opened ({type(error).__name__}); the log of the service says why."

    def _warm_up(self) -> None:
        for name in self.catalogue.names():
            index = self.catalogue.get(name)
            if index.encoder_name is not None:
                index.search("warm up", k=1)
        if not self.catalogue.names():
            self.catalogue.encoder().encode_queries(["warm up"])

    async def read(self, name: str, work: Callable[[Index | ShardedIndex], T]) -> T:
        """Ask an index something, in a thread.

        Raises:
            IndexNotFoundError: there is no index of this name.
            TooBusyError: too many requests wait.
        """
        return await self.reading.run(lambda: work(self.catalogue.get(name)))

    async def write(self, name: str, work: Callable[[Index | ShardedIndex], T]) -> T:
        """Change an index, in a thread; it is done when what was written is durable.

        Raises:
            ReadOnlyIndexError: this service only reads.
            IndexNotFoundError: there is no index of this name.
            TooBusyError: too many requests wait.
        """
        self.check_writable()
        return await self.writing.run(lambda: work(self.catalogue.get(name)))

    def check_writable(self) -> None:
        """Make sure that requests may change something.

        Raises:
            ReadOnlyIndexError: they may not.
        """
        if not self.writable:
            raise ReadOnlyIndexError("This service only reads; start it with --writable to change indexes over HTTP.")


def warnings_of(index: Index | ShardedIndex, where: Mapping[str, Any] | None, found: bool) -> dict[str, list[str]]:
    """What an answer says of its filter: that it asks for what no passage has, where nothing was found."""
    return {} if found or where is None or not (said := index.complaints(where)) else {"warnings": said}


def service_of(request: Request) -> Service:
    """The service of a request's application."""
    service: Any = request.app.state.service
    assert isinstance(service, Service)
    return service


Served = Annotated[Service, Depends(service_of)]
