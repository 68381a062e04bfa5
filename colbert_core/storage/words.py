"""The words of passages, in SQLite's full-text index: which passages have a term and how often, and how many terms each has.

Terms are made by an ``Analyser``, so the index itself only divides them at blanks. It keeps no texts; to take a passage out,
its terms are made again from the text, which is there until then.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import zlib
from typing import TYPE_CHECKING

import numpy as np

from colbert_core.errors import DamagedIndexError, UnsupportedIndexError
from colbert_core.storage.tables import Tables
from colbert_core.text.words import ANALYSERS, JOINTS, VERSION, analyser

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from numpy.typing import NDArray


WORDS = (
    "CREATE VIRTUAL TABLE words USING fts5(terms, content='', columnsize=0, tokenize=\"ascii tokenchars '" + JOINTS + "'\")",
    "CREATE TABLE lengths(row INTEGER PRIMARY KEY, n INTEGER NOT NULL)",
)
"""The statements that make the tables. Indexes of format 3 have none until the first write to them."""

SHADOWS = (
    "CREATE TABLE 'words_data'(id INTEGER PRIMARY KEY, block BLOB)",
    "CREATE TABLE 'words_idx'(segid, term, pgno, PRIMARY KEY(segid, term)) WITHOUT ROWID",
    "CREATE TABLE 'words_config'(k PRIMARY KEY, v) WITHOUT ROWID",
)
"""The tables that SQLite makes for them by itself."""

# Each occurrence of a term in a passage; a view of ours that lies beside the database, in the connection.
_OCCURRENCES = "CREATE VIRTUAL TABLE IF NOT EXISTS temp.occurrences USING fts5vocab(main, words, instance)"
_AT_A_TIME = 1000


@functools.cache
def has_fts5() -> bool:
    """Whether SQLite was built with its full-text index, as nearly all are."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute(WORDS[0])
        except sqlite3.OperationalError:
            return False
    return True


class WordTables(Tables):
    """The words of an index, over a connection to its database."""

    _first = "words"

    def analyser(self) -> str | None:
        """The analyser by which the index counts words; None for no words.

        Raises:
            UnsupportedIndexError: it would count them, and has not yet, or not in the way of this version.
            DamagedIndexError: it names an analyser that there is not.
        """
        name, is_made = self._setting()
        if name is not None and not (is_made and self.are_there()):
            if not has_fts5():
                reason = "the SQLite of this Python was built without FTS5; use another Python"
            else:
                reason = "it was made before there were any; its next change adds them, or `colbert compact`"
            raise UnsupportedIndexError(f"{self._name} has no words to search by: {reason}.")
        return name

    # Read

    def lengths(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows of all passages, ascending, and how many terms each has. *Shape:* (n,) each."""
        entries = np.array(self._ask("SELECT row, n FROM lengths ORDER BY row"), np.int64).reshape(-1, 2)
        return entries[:, 0].copy(), entries[:, 1].copy()

    def postings(self, term: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows of the passages that have a term, ascending, and how often each has it. *Shape:* (n,) each."""
        self._ask(_OCCURRENCES)
        rows = self._ask("SELECT doc FROM temp.occurrences WHERE term = ?", (term,))
        numbers = np.fromiter((row for (row,) in rows), np.int64, len(rows))  # ascending, once for each occurrence
        firsts = np.flatnonzero(np.concatenate([numbers[:1] == numbers[:1], numbers[1:] != numbers[:-1]]))
        return numbers[firsts], np.diff(firsts, append=len(numbers))

    def count_bytes(self) -> int:
        """About how many bytes the tables take."""
        n_passages = int(self._ask("SELECT count(*) FROM lengths")[0][0]) if self.are_there() else 0
        if not n_passages:  # also of an index without words, which has the tables as well
            return 0
        return int(self._ask("SELECT sum(length(block)) FROM words_data")[0][0]) + 8 * n_passages

    def count_pieces(self) -> int:
        """In how many pieces the words lie, each of one commit or several; a search looks into all of them."""
        return int(self._ask("SELECT count(DISTINCT segid) FROM words_idx")[0][0]) if self.are_there() else 0

    def is_due(self) -> bool:
        """Whether the next change counts the words of all passages, since the index has none yet or in another way."""
        name, is_made = self._setting()
        return name is not None and has_fts5() and not (is_made and self.are_there())

    def problems(self) -> list[str]:
        """Whether the tables hold other words than the passages, in words."""
        name, is_made = self._setting()
        if not is_made or not self.are_there():
            return []
        wanted, lengths = 0, {}
        if name is not None:
            terms_of = analyser(name).terms
            for row, text in self._ask("SELECT row, text FROM passages"):
                terms = terms_of(text)
                lengths[row] = len(terms)
                wanted += sum(_mark(row, term) for term in terms)
        self._ask(_OCCURRENCES)
        found = sum(_mark(row, term) for row, term in self._ask("SELECT doc, term FROM temp.occurrences"))
        if found == wanted and dict(self._ask("SELECT row, n FROM lengths")) == lengths:
            return []
        return ["The words of the index are not those of its passages; a copy (save) counts them anew"]

    # Write, within a transaction

    def prepare(self) -> None:
        """Make the tables where there are none, and count the words of an index made before there were any."""
        if not has_fts5():
            return
        if not self.are_there():
            for statement in WORDS:
                self._connection.execute(statement)
        _, is_made = self._setting()
        if not is_made:
            self.fill()

    def fill(self) -> None:
        """Count the words of all passages anew."""
        if not self.are_there():
            return
        name, _ = self._setting()
        self.clear()
        if name is not None:
            rows = self._connection.execute("SELECT row, CAST(text AS BLOB) FROM passages ORDER BY row")
            while chunk := rows.fetchmany(_AT_A_TIME):
                self.add((row, text.decode(errors="replace")) for row, text in chunk)
        setting = ("words", words_setting(name))
        self._connection.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", setting)

    def add(self, texts: Iterable[tuple[int, str]]) -> None:
        """Add passages, each its row and text."""
        name, _ = self._setting()
        if name is None or not self.are_there():
            return
        terms_of = analyser(name).terms
        for row, text in texts:
            terms = terms_of(text)
            self._connection.execute("INSERT INTO words(rowid, terms) VALUES (?, ?)", (row, " ".join(terms)))
            self._connection.execute("INSERT INTO lengths VALUES (?, ?)", (row, len(terms)))

    def remove(self, rows: Collection[int]) -> None:
        """Take out passages, whose texts are still there."""
        name, _ = self._setting()
        if name is None or not rows or not self.are_there():
            return
        if len(rows) == self._ask("SELECT count(*) FROM lengths")[0][0]:
            self.clear()
            return
        terms_of, run = analyser(name).terms, self._connection.execute
        for row in rows:
            for (text,) in run("SELECT CAST(text AS BLOB) FROM passages WHERE row = ?", (row,)).fetchall():
                terms = " ".join(terms_of(text.decode(errors="replace")))  # a damaged passage can be deleted, too
                run("INSERT INTO words(words, rowid, terms) VALUES ('delete', ?, ?)", (row, terms))
            run("DELETE FROM lengths WHERE row = ?", (row,))

    def clear(self) -> None:
        """Take out all passages."""
        self._connection.execute("INSERT INTO words(words) VALUES ('delete-all')")
        self._connection.execute("DELETE FROM lengths")

    def optimize(self) -> None:
        """Put in one piece what many commits have added."""
        if self.are_there():
            self._connection.execute("INSERT INTO words(words) VALUES ('optimize')")

    def _setting(self) -> tuple[str | None, bool]:
        """The analyser, None for no words; and whether the tables are of it, or still to be made.

        An index made before there were words counts those of its texts if an encoder made its vectors.
        """
        about = dict(self._ask("SELECT key, value FROM about WHERE key IN ('words', 'encoder')"))
        stored = about.get("words")
        if stored is None:
            return ("english" if about.get("encoder") is not None else None), False
        if stored == "":
            return None, True
        name, _, version = str(stored).partition(" ")
        if name not in ANALYSERS:
            raise DamagedIndexError(f"{self._name} is damaged: it counts words by {stored!r:.80}; restore it from a copy.")
        return name, version == str(VERSION)


def words_setting(name: str | None) -> str:
    """Write down an analyser, with the version of its terms, for the settings of an index; None for no words."""
    return "" if name is None else f"{name} {VERSION}"


def _mark(row: int, term: str) -> int:
    return zlib.crc32(f"{row} {term}".encode())
