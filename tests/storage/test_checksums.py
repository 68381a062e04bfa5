"""Checksums over texts, metadata and settings: whatever changes in the database, ``verify`` says so."""

from __future__ import annotations

import contextlib
import pickle
import random
import shutil
import sqlite3
import zlib
from pathlib import Path

import pytest
from builders.indexes import THREE

from colbert_core import EncoderMismatchError, Index, Passage, StorageError
from colbert_core.storage.checksums import checksum

BEFORE = Path(__file__).parents[1] / "data" / "before"


def sql(path, statement, *values):
    connection = sqlite3.connect(path / "index.sqlite")
    rows = connection.execute(statement, values).fetchall()
    connection.commit()
    connection.close()
    return rows


@pytest.fixture
def three(path, words):
    with Index.create(path, words) as index:
        index.add(THREE)
    return path


def problems(path, words):
    with Index.open(path, words) as index:
        return index.verify().problems


def test_a_checksum_is_the_crc_of_row_lengths_id_text_and_metadata():
    assert checksum(7, b"id", b"text", b"{}") == zlib.crc32(b"7 2 4 2 idtext{}")
    assert checksum(7, b"i", b"dtext", b"{}") != checksum(7, b"id", b"text", b"{}")  # a letter that wandered


def test_every_passage_has_the_checksum_of_what_lies_on_the_disk(three):
    rows = sql(three, "SELECT passages.row, id, text, metadata, crc32 FROM passages JOIN checksums USING (row)")
    assert len(rows) == 3
    for row, *columns, crc in rows:
        assert crc == checksum(row, *(column.encode() for column in columns))


@pytest.mark.parametrize("words_changed", ["the cat sit", "the cat sat ", ""])
def test_a_changed_text_is_named_by_its_passage(three, words, words_changed):
    sql(three, "UPDATE passages SET text = ? WHERE id = 'a'", words_changed)
    assert problems(three, words) == ["Passage 'a' (row 1) has changed since it was written (checksum)"]


def test_every_changed_passage_is_named(three, words):
    sql(three, "UPDATE passages SET text = text || '.' WHERE id <> 'b'")
    assert problems(three, words) == [
        "Passage 'a' (row 1) has changed since it was written (checksum)",
        "Passage 'c' (row 3) has changed since it was written (checksum)",
    ]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("UPDATE passages SET id = 'A' WHERE id = 'a'", "Passage 'A' (row 1) has changed since it was written (checksum)"),
        (
            """UPDATE passages SET metadata = '{"n": 7}' WHERE id = 'a'""",
            "Passage 'a' (row 1) has changed since it was written (checksum)",
        ),
        (
            "UPDATE passages SET text = CAST(x'74686520ff' AS TEXT) WHERE id = 'a'",
            "Passage 'a' (row 1) has changed since it was written (checksum)",
        ),
        ("UPDATE fields SET value = 7 WHERE row = 1", "Passage 'a' (row 1) is filtered by other metadata than it has"),
        ("UPDATE fields SET value = '1' WHERE row = 1", "Passage 'a' (row 1) is filtered by other metadata than it has"),
        ("UPDATE fields SET path = 'm' WHERE row = 1", "Passage 'a' (row 1) is filtered by other metadata than it has"),
        ("UPDATE fields SET kind = 's' WHERE row = 1", "Passage 'a' (row 1) is filtered by other metadata than it has"),
        ("DELETE FROM fields WHERE row = 1", "Passage 'a' (row 1) is filtered by other metadata than it has"),
        ("UPDATE checksums SET crc32 = 5 WHERE row = 1", "Passage 'a' (row 1) has changed since it was written (checksum)"),
        ("DELETE FROM checksums WHERE row = 1", "Passage 'a' (row 1) has no checksum"),
        (
            "UPDATE about SET value = 'another' WHERE key = 'identity'",
            "The settings of the index, or the names of its files, have changed since they were written (checksum)",
        ),
        (
            "UPDATE files SET position = 2",
            "The settings of the index, or the names of its files, have changed since they were written (checksum)",
        ),
    ],
)
def test_whatever_a_row_held_is_named_when_it_changes(three, words, change, problem):
    sql(three, change)
    assert problem in problems(three, words)


def test_texts_of_two_passages_that_changed_places_are_named(three, words):
    first, second = (sql(three, "SELECT text FROM passages WHERE row = ?", row)[0][0] for row in (1, 2))
    sql(three, "UPDATE passages SET text = CASE row WHEN 1 THEN ? ELSE ? END WHERE row < 3", second, first)
    assert len(problems(three, words)) == 2


def content(path, words):
    """All that a user can get out of an index."""
    with Index.open(path, words) as index:
        found = [[(hit.passage, hit.score) for hit in index.search(query, k=9)] for query in ("cat sat", "bird")]
        filtered = [index.ids(where={"n": n}) for n in (1, 2, 3)]
        return index.get(index.ids()), found, filtered, index.stats(), index.encoder_name


@pytest.mark.timeout(0)
def test_no_flipped_bit_of_the_database_is_passed_over(three, words, request):
    """Each is refused by name, or named by ``verify``, or changes nothing that a user can get."""
    database = three / "index.sqlite"
    whole, expected = database.read_bytes(), content(three, words)
    places = [place for place, byte in enumerate(whole) if byte]
    n = request.config.getoption("--fuzz") // 4
    dice = random.Random(n)
    for place, bit in zip(dice.choices(places, k=n), dice.choices(range(8), k=n), strict=True):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << bit
        for side in three.glob("index.sqlite-*"):
            side.unlink()
        database.write_bytes(flipped)
        with contextlib.suppress(StorageError, EncoderMismatchError):
            if not problems(three, words):
                assert content(three, words) == expected, f"byte {place}, bit {bit}"


def test_an_index_made_before_there_were_checksums_has_them_after_its_next_change(tmp_path):
    path = Path(shutil.copytree(BEFORE / "uncompressed", tmp_path / "x"))
    assert sql(path, "PRAGMA user_version") == [(2,)]
    with Index.open(path) as index:
        n = index.stats().passages
        verified = index.verify()
        assert verified.ok
        assert verified.unchecked == n
        index.delete(index.ids()[:1])
        verified = index.verify()
        assert verified.ok
        assert verified.unchecked == 0
    assert sql(path, "PRAGMA user_version") == [(5,)]
    assert sql(path, "SELECT count(*) FROM checksums") == [(n - 1,)]
    sql(path, "UPDATE passages SET text = text || '.'")
    with Index.open(path) as index:
        assert len(index.verify().problems) == n - 1


def test_a_copy_of_an_index_made_before_has_checksums(tmp_path):
    path = Path(shutil.copytree(BEFORE / "compressed", tmp_path / "x"))
    with Index.open(path) as index:
        index.save(tmp_path / "copy")
        assert index.verify().unchecked > 0
    with Index.open(tmp_path / "copy") as copy:
        assert copy.verify().ok
        assert copy.verify().unchecked == 0


def test_checksums_go_with_their_passages(path, words):
    with Index.create(path, words) as index:
        index.add(THREE)
        index.add([Passage("a", "another text", {"n": 4})])
        index.delete(["b"])
        assert index.verify().ok
        index.compact()
        assert index.verify().ok
    assert sql(path, "SELECT row FROM checksums ORDER BY row") == sql(path, "SELECT row FROM passages ORDER BY row")


def test_an_index_in_memory_has_checksums_and_keeps_them_through_pickle(words):
    index = Index.create(None, words)
    index.add(THREE)
    assert index.verify().ok
    again = pickle.loads(pickle.dumps(index))
    assert again.verify().ok
    assert again.verify().unchecked == 0
