"""``AsyncClient``: what ``Client`` is, for code that awaits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from colbert_core.checks import id_list
from colbert_core.progress import progress_bar
from colbert_core.serve.client import calls
from colbert_core.serve.client.address import Address
from colbert_core.serve.client.connection import AsyncConnection
from colbert_core.serve.client.parcels import parcels, partial
from colbert_core.serve.client.sync import only_name, options_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Self

    from colbert_core.evidence.evidence import Evidence
    from colbert_core.index.reports import IndexStats, MetadataField
    from colbert_core.serve.client.calls import Call
    from colbert_core.types import Hit, Mode, Page, Passage, Query, Where

T = TypeVar("T")


class AsyncClient:
    """An index that ``colbert serve`` has, for code that awaits: a web service of your own, or an agent.

    Its methods are those of ``Client``, with the same values, errors and retries, as coroutines. It is no ``PassageIndex``, so
    frameworks take a ``Client``, whose calls their async methods make in threads.

    Each event loop has connections of its own. Tasks may share one client.

    Example:
        >>> async with AsyncClient("http://127.0.0.1:8080", index="wiki") as index:
        ...     hits = await index.search("happy pets", k=3)
    """

    def __init__(self, url: str, index: str | None = None, *, token: str | None = None, timeout: float = 60.0) -> None:
        """Remember where the service is; the first call asks it.

        Args:
            url: as for ``Client``, and so are the others.
            index: name of the index.
            token: what the service wants to be shown.
            timeout: seconds that an answer may take.

        Raises:
            ValueError: the url is none, or the index is named twice.
            MissingExtraError: httpx is not installed.
        """
        self._connection = AsyncConnection(Address.of(url, index), token, timeout)

    @staticmethod
    async def indexes(url: str, *, token: str | None = None, timeout: float = 60.0) -> list[str]:
        """As ``Client.indexes``."""
        connection = AsyncConnection(Address.of(url), token, timeout)
        try:
            return await connection.send(calls.names())
        finally:
            await connection.close()

    @property
    def url(self) -> str:
        """Of the index, or of the service before the first call where no index was named."""
        return str(self._connection.address)

    async def search(
        self,
        query: Query,
        k: int = 10,
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        min_relevance: float | None = None,
        evidence: bool = False,
        mode: Mode = "maxsim",
        weight: float | None = None,
    ) -> list[Hit]:
        """As ``Client.search``."""
        options = options_of(where, ids, min_relevance, mode, weight)
        return await self._send(calls.search(query, k, evidence=evidence, **options))

    async def search_many(
        self,
        queries: Iterable[Query],
        k: int = 10,
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        min_relevance: float | None = None,
        evidence: bool = False,
        mode: Mode = "maxsim",
        weight: float | None = None,
    ) -> list[list[Hit]]:
        """As ``Client.search_many``."""
        options = options_of(where, ids, min_relevance, mode, weight)
        return await self._send(calls.search_many(queries, k, evidence=evidence, **options))

    async def search_mean(
        self,
        queries: Iterable[Query],
        k: int = 10,
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        min_relevance: float | None = None,
        mode: Mode = "maxsim",
        weight: float | None = None,
    ) -> list[Hit]:
        """As ``Client.search_mean``."""
        return await self._send(calls.search_mean(queries, k, **options_of(where, ids, min_relevance, mode, weight)))

    async def explain(
        self,
        query: str,
        passage: str | Passage | Hit,
        *,
        min_similarity: float | None = None,
        mode: Mode = "maxsim",
    ) -> Evidence:
        """As ``Client.explain``."""
        return await self._send(calls.explain(query, passage, min_similarity=min_similarity, mode=mode))

    async def get(self, ids: Iterable[str]) -> list[Passage | None]:
        """As ``Client.get``."""
        wanted = id_list(ids)
        found: list[Passage | None] = []
        for start in range(0, len(wanted), calls.MOST_IDS):
            part = await self._send(calls.get(wanted[start : start + calls.MOST_IDS]))
            found += part
        return found

    async def passages(
        self,
        where: Where | None = None,
        *,
        ids: Iterable[str] | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[Passage]:
        """As ``Client.passages``."""
        wanted = None if ids is None else id_list(ids)
        page = await self._send(calls.passages(where, wanted, limit, after))
        while limit is None and page.next is not None:
            following = await self._send(calls.passages(where, wanted, limit, page.next))
            page.extend(following)
            page.next = following.next
        return page

    async def count(self, where: Where | None = None) -> int:
        """As ``Client.count``."""
        return await self._send(calls.count(where))

    async def fields(self, *, limit: int = 1000, after: str | None = None) -> Page[MetadataField]:
        """As ``Client.fields``."""
        return await self._send(calls.fields(limit, after))

    async def stats(self) -> IndexStats:
        """As ``Client.stats``."""
        return await self._send(calls.stats())

    async def has_words(self) -> bool:
        """As ``Client.has_words``; it asks each time."""
        return await self._send(calls.has_words())

    async def add(self, passages: Iterable[Passage], *, progress: bool | None = None) -> list[str]:
        """As ``Client.add``, from any iterable."""
        total = len(passages) if isinstance(passages, list | tuple) else None
        added: list[str] = []
        under_way: list[str] = []
        try:
            with progress_bar("Adding", total, "passage", progress) as bar:
                for parcel in parcels(passages):
                    under_way = parcel.ids
                    ids = await self._send(calls.add(parcel.body))
                    added += ids
                    under_way = []
                    bar.update(len(parcel.ids))
        except Exception as error:
            failed = partial(error, added, under_way)
            if failed is error:
                raise
            raise failed from error
        return added

    async def delete(self, ids: Iterable[str]) -> int:
        """As ``Client.delete``."""
        return await self._send(calls.delete(ids))

    async def delete_where(self, where: Where) -> int:
        """As ``Client.delete_where``."""
        return await self._send(calls.delete_where(where))

    async def update_metadata(
        self,
        metadata: Mapping[str, Any],
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        remove: Iterable[str] = (),
    ) -> int:
        """As ``Client.update_metadata``."""
        return await self._send(calls.update_metadata(metadata, where=where, ids=ids, remove=remove))

    async def close(self) -> None:
        """Close the connections. A closed client cannot be used any more; closing it again is no error."""
        await self._connection.close()

    async def _send(self, call: Call[T]) -> T:
        """Send a call to the index, which is looked for first where none was named."""
        address = self._connection.address
        if address.index is None:
            names = await self._connection.send(calls.names())
            self._connection.address = Address(address.root, only_name(names, address))
        return await self._connection.send(call)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self.url!r})"
