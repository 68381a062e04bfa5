"""What may lie in the folder of an index, and what is refused or left alone there."""

from __future__ import annotations

import os
import sqlite3

import pytest
from builders.indexes import THREE

from colbert_core import (
    DamagedIndexError,
    Index,
    IndexExistsError,
    IndexNotFoundError,
    UnsupportedIndexError,
)


@pytest.mark.parametrize(
    "content",
    [{"notes.txt": b"mine"}, {"index.sqlite": b"no database"}, {"files/x": b"x", "other": b""}, {"files/thesis.docx": b"mine"}],
)
def test_what_is_no_index_is_never_overwritten(path, words, content):
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    for overwrite in (False, True):
        with pytest.raises(IndexExistsError):
            Index.create(path, words, overwrite=overwrite)
    assert all((path / name).read_bytes() == data for name, data in content.items())


def test_a_file_is_never_overwritten(path, words):
    path.write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(IndexExistsError):
            Index.create(path, words, overwrite=overwrite)
    with pytest.raises(IndexNotFoundError):
        Index.open(path)
    assert path.read_text() == "mine"


def test_an_empty_folder_is_as_good_as_none(path, words):
    path.mkdir()
    with Index.create(path, words) as index:
        index.add(THREE)
    assert len(Index.open(path, words)) == 3


def test_where_there_is_no_index_none_is_opened(path, words):
    with pytest.raises(IndexNotFoundError, match="There is no index at .*; make one with Index.create or `colbert index`"):
        Index.open(path)
    assert not path.exists()
    path.mkdir()
    with pytest.raises(FileNotFoundError, match="holds no index: there is no index.sqlite in it"):
        Index.open(path)


def test_a_damaged_database_is_named(compressed_path):
    database = compressed_path / "index.sqlite"
    whole = database.read_bytes()
    for data in (b"", b"not a database at all, but long enough to look like one" * 100, whole[:5000]):
        database.write_bytes(data)
        with pytest.raises((DamagedIndexError, IndexNotFoundError)):
            Index.open(compressed_path)


def test_a_database_of_something_else_is_refused(path):
    path.mkdir()
    connection = sqlite3.connect(path / "index.sqlite")
    connection.execute("CREATE TABLE mine(x)")
    connection.commit()
    connection.close()
    with pytest.raises(UnsupportedIndexError, match="is an SQLite database of something else"):
        Index.open(path)
    with pytest.raises(IndexExistsError):
        Index.create(path, dim=3, overwrite=True)


def test_a_database_of_something_else_is_not_touched(path):
    path.mkdir()
    connection = sqlite3.connect(path / "index.sqlite")
    connection.execute("CREATE TABLE mine(x)")
    connection.commit()
    connection.close()
    before = (path / "index.sqlite").read_bytes()
    with pytest.raises(UnsupportedIndexError):
        Index.open(path)
    assert (path / "index.sqlite").read_bytes() == before
    assert [entry.name for entry in path.iterdir()] == ["index.sqlite"]


@pytest.mark.parametrize("name", ["index.sqlite", "index.sqlite-wal", "index.sqlite-journal", "files"])
def test_a_link_in_the_place_of_a_part_of_an_index_is_refused(path, tmp_path, name):
    Index.create(path, dim=3).close()
    elsewhere = tmp_path / "elsewhere"
    if (path / name).exists():
        (path / name).rename(elsewhere)
    (path / name).symlink_to(elsewhere)
    with pytest.raises(DamagedIndexError, match=f"{name} is a link, and an index reads nothing outside its folder"):
        Index.open(path)


@pytest.mark.parametrize("name", ["index.sqlite-wal", "index.sqlite-journal"])
def test_a_pipe_beside_the_database_hangs_nobody(path, name):
    Index.create(path, dim=3).close()
    os.mkfifo(path / name)
    with pytest.raises(DamagedIndexError, match=f"{name} is no regular file"):
        Index.open(path)
