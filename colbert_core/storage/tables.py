"""Tables that lie beside those of the passages, and which indexes made before there were any have not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from colbert_core.storage.connection import Connection


class Tables:
    """Some tables of an index, over a connection to its database."""

    _first: ClassVar[str]
    """Name of the first of them."""

    def __init__(self, connection: Connection, ask: Callable[..., list[Any]], name: str) -> None:
        """Take what a ``Reader`` has.

        Args:
            connection: to the database.
            ask: runs a query with values and returns its rows.
            name: of the index, for messages.
        """
        self._connection, self._ask, self._name = connection, ask, name

    def are_there(self) -> bool:
        """Whether the index has them; in one made before there were any, the first write makes them."""
        return bool(self._ask("SELECT count(*) FROM sqlite_master WHERE name = ?", (self._first,))[0][0])
