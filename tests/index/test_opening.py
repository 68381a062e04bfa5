"""An index that is opened where there is one, and made where there is none."""

from __future__ import annotations

import pytest
from builders.encoders import WordEncoder

from colbert_core import Index, IndexExistsError, Passage
from colbert_core.index.opening import open_or_create


def test_it_is_made_once_and_opened_after_that(tmp_path):
    with open_or_create(tmp_path / "i.idx", WordEncoder()) as index:
        index.add([Passage("a", "cats purr")])
    with open_or_create(tmp_path / "i.idx", WordEncoder()) as index:
        assert index.ids() == ["a"]
    assert len(open_or_create(None, WordEncoder())) == 0


def test_files_of_the_system_are_no_index(tmp_path):
    (tmp_path / "i.idx").mkdir()
    (tmp_path / "i.idx" / ".DS_Store").write_bytes(b"\0")
    with open_or_create(tmp_path / "i.idx", WordEncoder()) as index:
        assert len(index) == 0


def test_whoever_is_second_opens_what_the_first_one_made(tmp_path, monkeypatch):
    create = Index.create

    def beaten(path, encoder):
        with create(path, encoder) as index:
            index.add([Passage("a", "cats purr")])
        raise IndexExistsError("somebody else was first")

    monkeypatch.setattr(Index, "create", beaten)
    with open_or_create(tmp_path / "i.idx", WordEncoder()) as index:
        assert index.ids() == ["a"]


def test_a_file_is_no_place_for_one(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(IndexExistsError, match="is a file"):
        open_or_create(tmp_path / "file", WordEncoder())
