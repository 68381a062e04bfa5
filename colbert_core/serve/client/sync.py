"""``Client``: an index that a service has, as an index of this process."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from colbert_core.checks import id_list
from colbert_core.errors import IndexNotFoundError
from colbert_core.progress import progress_bar
from colbert_core.serve.client import calls
from colbert_core.serve.client.address import Address
from colbert_core.serve.client.connection import Connection
from colbert_core.serve.client.encoder import RemoteEncoder
from colbert_core.serve.client.parcels import parcels, partial
from colbert_core.types import Page

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Self

    from colbert_core.evidence.evidence import Evidence
    from colbert_core.index.reports import IndexStats, MetadataField
    from colbert_core.types import Hit, Mode, Passage, Query, TokenEncoder, Where


class Client:
    """An index that ``colbert serve`` has, used like an ``Index``: the retrievers and rerankers of both frameworks take it.

    Hits, passages and evidence are the engine's own, with the same scores to the last bit, and errors are those that the index
    raises. What the service cannot do, or is not there to do, is a ``ServiceError``.

    A request that the service is too busy for, or whose connection breaks, is sent again, three times at most. Where nobody
    knows whether a ``delete`` or an ``update_metadata`` was done, it is an error instead.

    Threads may share one client, and so may forked processes. A pickle has the address and the token, so keep it as you keep
    the token; it asks the service anew when it is read.

    Example:
        >>> with Client("http://127.0.0.1:8080", index="wiki") as index:
        ...     hits = index.search("happy pets", k=3, where={"lang": "en"})
    """

    def __init__(self, url: str, index: str | None = None, *, token: str | None = None, timeout: float = 60.0) -> None:
        """Ask the service which index that is.

        Args:
            url: of the service, "http://127.0.0.1:8080", or of one of its indexes, "http://127.0.0.1:8080/v1/indexes/wiki".
            index: name of the index; None for the one that the url names, or the only one there is.
            token: what the service wants to be shown, if it does.
            timeout: seconds that an answer may take.

        Raises:
            IndexNotFoundError: there is no index of this name, or none at all.
            ValueError: the url is none, several indexes are served and none is named, or it is named twice.
            ServiceUnreachableError: nothing answers there.
            ServiceDeniedError: the token is missing or wrong.
            MissingExtraError: httpx is not installed.
        """
        address = Address.of(url, index)
        if address.index is None:
            with _connected(address, token, timeout) as connection:
                address = Address(address.root, only_name(connection.send(calls.names()), address))
        self._connection = Connection(address, token, timeout)
        try:
            about = self._connection.send(calls.about())
        except BaseException:
            self._connection.close()
            raise
        self._encoder_name: str | None = about["encoder"]
        self._dim, self._has_words = int(about["dim"]), bool(about["has_words"])

    @staticmethod
    def indexes(url: str, *, token: str | None = None, timeout: float = 60.0) -> list[str]:
        """The names of the indexes that a service has, ascending.

        Args:
            url: of the service.
            token: as for a client, and so is the timeout.
            timeout: seconds that an answer may take.

        Raises:
            ServiceError: the service does not answer as one does.
        """
        with _connected(Address.of(url), token, timeout) as connection:
            listed: list[str] = connection.send(calls.names())
        return listed

    @property
    def url(self) -> str:
        """Of the index."""
        return str(self._connection.address)

    @property
    def encoder_name(self) -> str | None:
        """Name of the encoder the index was made with; None for vectors from elsewhere. As it was when the client was made."""
        return self._encoder_name

    @property
    def dim(self) -> int:
        """Components of every vector."""
        return self._dim

    @property
    def encoder(self) -> TokenEncoder:
        """What encodes texts as the index does: the service, so no model is loaded here."""
        index = self._connection.address.index
        assert index is not None
        return RemoteEncoder(self._connection, index, self._encoder_name, self._dim)

    def search(
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
        """As ``Index.search``.

        Raises:
            TypeError: ``where`` is a function, which cannot be sent; otherwise as ``Index.search``.
            ValueError: the service allows no k, query or body of this size; otherwise as ``Index.search``.
            ServiceError: the service does not answer; see ``Client``.
        """
        options = options_of(where, ids, min_relevance, mode, weight)
        return self._connection.send(calls.search(query, k, evidence=evidence, **options))

    def search_many(
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
        """As ``Index.search_many``: in one request, so over one state of the index. See ``search`` for errors."""
        options = options_of(where, ids, min_relevance, mode, weight)
        return self._connection.send(calls.search_many(queries, k, evidence=evidence, **options))

    def search_mean(
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
        """As ``Index.search_mean``. See ``search`` for errors."""
        return self._connection.send(calls.search_mean(queries, k, **options_of(where, ids, min_relevance, mode, weight)))

    def explain(
        self,
        query: str,
        passage: str | Passage | Hit,
        *,
        min_similarity: float | None = None,
        mode: Mode = "maxsim",
    ) -> Evidence:
        """As ``Index.explain``."""
        return self._connection.send(calls.explain(query, passage, min_similarity=min_similarity, mode=mode))

    def get(self, ids: Iterable[str]) -> list[Passage | None]:
        """As ``Index.get``; a thousand ids in one request, so that more may be of several moments."""
        wanted = id_list(ids)
        chunks = (wanted[start : start + calls.MOST_IDS] for start in range(0, len(wanted), calls.MOST_IDS))
        return [passage for chunk in chunks for passage in self._connection.send(calls.get(chunk))]

    def passages(
        self,
        where: Where | None = None,
        *,
        ids: Iterable[str] | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[Passage]:
        """As ``Index.passages``; without a limit it asks for a hundred at a time until there are no more."""
        wanted = None if ids is None else id_list(ids)
        page = self._connection.send(calls.passages(where, wanted, limit, after))
        while limit is None and page.next is not None:
            following = self._connection.send(calls.passages(where, wanted, limit, page.next))
            page.extend(following)
            page.next = following.next
        return page

    def count(self, where: Where | None = None) -> int:
        """As ``Index.count``."""
        return self._connection.send(calls.count(where))

    def fields(self, *, limit: int = 1000, after: str | None = None) -> Page[MetadataField]:
        """As ``Index.fields``."""
        return self._connection.send(calls.fields(limit, after))

    def stats(self) -> IndexStats:
        """As ``Index.stats``."""
        return self._connection.send(calls.stats())

    def has_words(self) -> bool:
        """As ``Index.has_words``. An index that has words keeps them, so it is asked only until it has some."""
        if not self._has_words:
            self._has_words = self._connection.send(calls.has_words())
        return self._has_words

    def add(self, passages: Iterable[Passage], *, progress: bool | None = None) -> list[str]:
        """As ``Index.add``: replaces passages whose id is known, and takes streams of any length.

        They are sent some hundred at a time, and each request is answered once it is durable.

        Args:
            passages: with ids that differ from each other. A list is checked before anything is sent.
            progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

        Returns:
            Their ids, in the order given.

        Raises:
            TypeError, ValueError: as ``Index.add``.
            ReadOnlyIndexError: the service only reads.
            PartialAddError: any error after the first request; ``added`` says what is in.
            ServiceError: the first request failed; to add the same passages again does no harm.
        """
        total = len(passages) if isinstance(passages, list | tuple) else None
        added: list[str] = []
        under_way: list[str] = []
        try:
            with progress_bar("Adding", total, "passage", progress) as bar:
                for parcel in parcels(passages):
                    under_way = parcel.ids
                    ids = self._connection.send(calls.add(parcel.body))
                    added += ids
                    under_way = []
                    bar.update(len(parcel.ids))
        except Exception as error:
            failed = partial(error, added, under_way)
            if failed is error:
                raise
            raise failed from error
        return added

    def delete(self, ids: Iterable[str]) -> int:
        """As ``Index.delete``."""
        return self._connection.send(calls.delete(ids))

    def delete_where(self, where: Where) -> int:
        """As ``Index.delete_where``."""
        return self._connection.send(calls.delete_where(where))

    def update_metadata(
        self,
        metadata: Mapping[str, Any],
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        remove: Iterable[str] = (),
    ) -> int:
        """As ``Index.update_metadata``."""
        return self._connection.send(calls.update_metadata(metadata, where=where, ids=ids, remove=remove))

    def close(self) -> None:
        """Close the connections. A closed client cannot be used any more; closing it again is no error."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.count()

    def __contains__(self, passage_id: object) -> bool:
        if not isinstance(passage_id, str):
            return False
        return self.get([passage_id]) != [None]

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.url, self._connection.token, self._connection.timeout)


def only_name(names: list[str], address: Address) -> str:
    """Return the name of the only index of a service.

    Raises:
        IndexNotFoundError: there is none.
        ValueError: there are several.
    """
    if not names:
        raise IndexNotFoundError(f"{address} serves no index.")
    if len(names) > 1:
        raise ValueError(f"{address} serves {len(names)} indexes: {', '.join(names)}; name one as index=...")
    return names[0]


def options_of(*values: Any) -> dict[str, Any]:
    """Name what restricts and ranks, in this order."""
    return dict(zip(("where", "ids", "min_relevance", "mode", "weight"), values, strict=True))


def _connected(address: Address, token: str | None, timeout: float) -> Any:
    return closing(Connection(address, token, timeout))


def _unpickled(url: str, token: str | None, timeout: float) -> Client:
    return Client(url, token=token, timeout=timeout)
