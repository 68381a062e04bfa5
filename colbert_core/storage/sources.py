"""The files that an index was made of: how each was when it was read, and which passages came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from colbert_core.errors import DamagedIndexError
from colbert_core.storage.tables import Tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


SOURCES = (
    "CREATE TABLE sources(number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, path TEXT NOT NULL, size INTEGER NOT NULL, "
    "mtime INTEGER NOT NULL, sha256 TEXT NOT NULL, piece_tokens INTEGER NOT NULL, problem TEXT NOT NULL, n INTEGER NOT NULL)",
    "CREATE TABLE pieces(row INTEGER PRIMARY KEY, source INTEGER NOT NULL)",
    "CREATE INDEX pieces_of_source ON pieces(source)",
)
"""The statements that make the tables. Indexes up to format 4 have none until the first write to them."""

_WRITE = (
    "INSERT INTO sources(name, path, size, mtime, sha256, piece_tokens, problem, n) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (name) DO UPDATE SET path = excluded.path, size = excluded.size, mtime = excluded.mtime, "
    "sha256 = excluded.sha256, piece_tokens = excluded.piece_tokens, problem = excluded.problem, n = excluded.n"
)
# SQLite takes at least 32,766 values.
_AT_A_TIME = 30_000


@dataclass(frozen=True, slots=True)
class Source:
    """A file that was read into an index.

    Attributes:
        name: what the ids of its passages begin with.
        path: where it was, absolute.
        size: bytes.
        mtime: when it was last changed, in nanoseconds since 1970.
        sha256: of its content, hexadecimal; "" for a file that could not be read at all.
        piece_tokens: most tokens of a piece; 0 for as many as the encoder reads at once.
        problem: why it gave no passages, "kind: message"; "" if it was read.
        n_passages: how many passages it gave.
    """

    name: str
    path: str
    size: int
    mtime: int
    sha256: str = ""
    piece_tokens: int = 0
    problem: str = ""
    n_passages: int = 0


class SourceTables(Tables):
    """The files of an index, over a connection to its database."""

    _first = "sources"

    # Read

    def all(self) -> list[tuple[Source, int]]:
        """Every file by its name, and how many of its passages are in the index still.

        Raises:
            DamagedIndexError: an entry is none that a writer makes.
        """
        if not self.are_there():
            return []
        # Counted by rows in order, which takes 8 ms for 40,000 passages; by source and row it takes 70.
        left: dict[Any, int] = dict(self._ask("SELECT source, count(*) FROM pieces JOIN passages USING (row) GROUP BY source"))
        columns = "number, name, path, size, mtime, sha256, piece_tokens, problem, n"
        entries = self._ask(f"SELECT {columns} FROM sources ORDER BY name")  # noqa: S608
        kinds = [int, str, str, int, int, str, int, str, int]
        for entry in entries:
            if [type(value) for value in entry] != kinds:
                raise DamagedIndexError(
                    f"{self._name} is damaged: it was made of a file that no writer names ({entry!r:.200}); "
                    "restore it from a copy."
                )
        return [(Source(*entry[1:]), left.get(entry[0], 0)) for entry in entries]

    def known(self, names: Sequence[str]) -> set[str]:
        """Those of some names that are names of files of the index."""
        if not self.are_there():
            return set()
        return {name for (name,) in self._in_turns("SELECT name FROM sources WHERE name IN", names)}

    def rows_of(self, names: Iterable[str]) -> list[int]:
        """The rows of all passages of some files, ascending."""
        if not self.are_there():
            return []
        sql = "SELECT row FROM pieces JOIN passages USING (row) JOIN sources ON source = number WHERE name IN"
        return sorted(row for (row,) in self._in_turns(sql, list(names)))

    def owners(self, rows: Sequence[int]) -> dict[int, str]:
        """The name of the file of each of these rows that is of one."""
        if not self.are_there():
            return {}
        return dict(self._in_turns("SELECT row, name FROM pieces JOIN sources ON source = number WHERE row IN", rows))

    # Write, within a transaction

    def prepare(self) -> None:
        """Make the tables where there are none."""
        if not self.are_there():
            for statement in SOURCES:
                self._connection.execute(statement)

    def rename(self, names: Mapping[str, str]) -> None:
        """Give files other names, each by its old one."""
        self._connection.executemany("UPDATE sources SET name = ? WHERE name = ?", [(new, old) for old, new in names.items()])

    def write(self, sources: Mapping[str, Source | None]) -> None:
        """Write what is known of files now; None forgets one."""
        run = self._connection.execute
        for name, source in sources.items():
            if source is None:
                run("DELETE FROM pieces WHERE source IN (SELECT number FROM sources WHERE name = ?)", (name,))
                run("DELETE FROM sources WHERE name = ?", (name,))
                continue
            values = (source.path, source.size, source.mtime, source.sha256, source.piece_tokens, source.problem)
            run(_WRITE, (name, *values, source.n_passages))

    def link(self, rows: Iterable[int], names: Sequence[str]) -> None:
        """Say of which file each of these new rows is. The files are known."""
        numbers = dict(self._in_turns("SELECT name, number FROM sources WHERE name IN", list(dict.fromkeys(names))))
        self._connection.executemany(
            "INSERT INTO pieces VALUES (?, ?)", ((row, numbers[name]) for row, name in zip(rows, names, strict=True))
        )

    def unlink(self, rows: Iterable[int]) -> None:
        """Forget of which files rows are that are removed."""
        self._connection.executemany("DELETE FROM pieces WHERE row = ?", ((row,) for row in rows))

    def _in_turns(self, sql: str, values: Sequence[Any]) -> list[Any]:
        entries = []
        for start in range(0, len(values), _AT_A_TIME):
            chunk = values[start : start + _AT_A_TIME]
            entries += self._ask(f"{sql} ({','.join('?' * len(chunk))})", chunk)
        return entries
