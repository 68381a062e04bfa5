"""The words of an index are those of its passages, after every change, and an index made before there were words gets them."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from builders.encoders import WordEncoder

from colbert_core import DamagedIndexError, Index, Passage, UnsupportedIndexError
from colbert_core.storage import words

BEFORE = Path(__file__).parents[1] / "data" / "before"


@pytest.fixture
def path(tmp_path):
    with Index.create(tmp_path / "x.idx", WordEncoder(dim=16)) as index:
        index.add([Passage("a", "the cat sat"), Passage("b", "two dogs bark"), Passage("c", "A-12/b")])
    return tmp_path / "x.idx"


def sql(path, *statement):
    connection = sqlite3.connect(path / "index.sqlite")
    found = connection.execute(*statement).fetchall()
    connection.commit()
    connection.close()
    return found


def occurrences(path):
    with contextlib.closing(sqlite3.connect(path / "index.sqlite")) as connection:
        connection.execute(words._OCCURRENCES)
        return connection.execute("SELECT doc, term FROM temp.occurrences ORDER BY doc, offset").fetchall()


def found(path, query):
    with Index.open(path, WordEncoder(dim=16)) as index:
        return [hit.passage.id for hit in index.search(query, mode="words")]


def test_terms_and_lengths_lie_in_the_database(path):
    assert occurrences(path) == [(1, "cat"), (1, "sat"), (2, "two"), (2, "dog"), (2, "bark"), (3, "a-12/b"), (3, "12")]
    assert sql(path, "SELECT * FROM lengths") == [(1, 2), (2, 3), (3, 2)]


def test_what_is_deleted_or_replaced_leaves_no_words(path):
    with Index.open(path, WordEncoder(dim=16)) as index:
        index.delete(["a"])
        index.add([Passage("b", "birds")])
    assert occurrences(path) == [(3, "a-12/b"), (3, "12"), (4, "bird")]
    with Index.open(path, WordEncoder(dim=16)) as index:
        index.clear()
    assert occurrences(path) == []
    assert sql(path, "SELECT * FROM lengths") == []


def test_an_overwritten_index_has_the_words_of_the_new_one(path):
    with Index.create(path, WordEncoder(dim=16), words="trigrams", overwrite=True) as index:
        index.add([Passage("n", "abcd")])
    assert occurrences(path) == [(4, "abc"), (4, "bcd")]


def test_a_copy_has_words_and_so_has_an_index_that_was_copied_over(path, tmp_path):
    with Index.open(path, WordEncoder(dim=16)) as index:
        index.save(tmp_path / "copy.idx")
        with Index.create(tmp_path / "other.idx", WordEncoder(dim=16)) as other:
            other.add([Passage("o", "others")])
        index.save(tmp_path / "other.idx", overwrite=True)
    for copy in ("copy.idx", "other.idx"):
        assert [term for _, term in occurrences(tmp_path / copy)] == [term for _, term in occurrences(path)]
        assert found(tmp_path / copy, "dog") == ["b"]


@pytest.mark.parametrize("name", ["uncompressed", "compressed"])
def test_an_index_made_before_there_were_words_gets_them_with_its_next_change(tmp_path, name):
    if not (BEFORE / name).is_dir():
        pytest.skip(f"there is no {name} index of that time")
    path = Path(shutil.copytree(BEFORE / name, tmp_path / "x"))
    with Index.open(path) as index:
        (first, *_) = index.ids()
        text = index.get([first])[0].text
        with pytest.raises(
            UnsupportedIndexError, match=r"has no words to search by: .* next change adds them, or `colbert comp"
        ):
            index.search(text, mode="words")
        assert index.stats().word_bytes == 0
        assert index.verify().ok
        index.add([Passage("new", "ECONNRESET")], embeddings=index.embeddings([first]))
        assert index.verify().ok
        assert [hit.passage.id for hit in index.search("econnreset", mode="words")] == ["new"]
        assert first in [hit.passage.id for hit in index.search(text, k=99, mode="words")]
        assert index.stats().word_bytes > 0


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE lengths SET n = 9 WHERE row = 1",
        "DELETE FROM lengths WHERE row = 2",
        "INSERT INTO words(rowid, terms) VALUES (1, 'more')",
        "INSERT INTO words(words, rowid, terms) VALUES ('delete', 2, 'dog')",
        "INSERT INTO words(words) VALUES ('delete-all')",
    ],
)
def test_verify_finds_words_that_are_not_those_of_the_passages(path, change):
    sql(path, change)
    with Index.open(path, WordEncoder(dim=16)) as index:
        (problem,) = index.verify().problems
        assert problem == "The words of the index are not those of its passages; a copy (save) counts them anew"
        index.save(path.with_name("copy.idx"))
    with Index.open(path.with_name("copy.idx"), WordEncoder(dim=16)) as copy:
        assert copy.verify().ok


def test_a_word_whose_passage_is_gone_is_not_found(path):
    sql(path, "INSERT INTO words(rowid, terms) VALUES (99, 'ghost')")
    assert found(path, "ghost") == []


def test_damaged_pages_of_words_are_named(path):
    sql(path, "UPDATE words_data SET block = x'00' WHERE id > 10")
    with Index.open(path, WordEncoder(dim=16)) as index:
        assert index.search("cat", k=1)[0].passage.id == "a"  # vectors alone are not concerned
        with pytest.raises(DamagedIndexError, match=str(path)):
            index.search("cat", mode="words")


def test_an_analyser_that_there_is_not_is_damage(path):
    sql(path, "UPDATE about SET value = 'klingon 1' WHERE key = 'words'")
    with Index.open(path, WordEncoder(dim=16)) as index, pytest.raises(DamagedIndexError, match="counts words by 'klingon 1'"):
        index.search("cat", mode="words")


def test_words_of_another_version_are_counted_anew_with_the_next_change(path):
    sql(path, "UPDATE about SET value = 'english 0' WHERE key = 'words'")
    sql(path, "INSERT INTO words(words) VALUES ('delete-all')")
    with Index.open(path, WordEncoder(dim=16)) as index:
        with pytest.raises(UnsupportedIndexError, match="no words to search by"):
            index.search("cat", mode="words")
        index.delete(["b"])
        assert index.verify().ok
    assert found(path, "cat") == ["a"]


def test_a_python_without_fts5_makes_indexes_without_words(monkeypatch, tmp_path, caplog):
    for module in ("colbert_core.storage.words", "colbert_core.index.settings"):
        monkeypatch.setattr(f"{module}.has_fts5", lambda: False)
    with Index.create(tmp_path / "x.idx", WordEncoder(dim=16)) as index:
        assert "SQLite of this Python was built without FTS5" in caplog.text
        index.add([Passage("a", "cats")])
        assert index.verify().ok
        assert index.search("cats")[0].passage.id == "a"
        with pytest.raises(ValueError, match="made without words"):
            index.search("cats", mode="words")
    with pytest.raises(ValueError, match="built without FTS5"):
        Index.create(None, WordEncoder(dim=16), words="english")
    monkeypatch.undo()
    with Index.open(tmp_path / "x.idx", WordEncoder(dim=16)) as index:
        index.add([Passage("b", "dogs")])
        assert index.verify().ok


def test_bytes_of_words_are_a_small_part(tmp_path):
    with Index.create(None, WordEncoder(dim=128), nbits=4) as index:
        rng = np.random.default_rng(0)
        texts = [" ".join(f"w{n}" for n in rng.zipf(1.3, 80) % 5000) for _ in range(400)]
        index.add([Passage(str(n), text) for n, text in enumerate(texts)])
        index.compact()
        stats = index.stats()
        assert 0 < stats.word_bytes < 0.15 * (stats.vector_bytes + sum(map(len, texts)))
