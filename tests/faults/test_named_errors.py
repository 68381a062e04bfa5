"""What goes wrong in unusual places, and the name that its error has."""

from __future__ import annotations

import json

import pytest

from colbert_core import EncoderMismatchError, Index, Passage

# A model that only its name tells of


@pytest.fixture
def of_a_stranger(tmp_path, stanford_folder):
    """An index that says it was made with a model of the hub."""
    import sqlite3

    path = tmp_path / "x.idx"
    with Index.create(path, stanford_folder) as index:
        index.add([Passage("a", "cat")])
    about = json.dumps({"name": "someone/model", "origin": {"name": "someone/model"}})
    with sqlite3.connect(path / "index.sqlite") as database:
        assert database.execute("UPDATE about SET value = ? WHERE key = 'encoder'", [about]).rowcount == 1
    database.close()
    return path


@pytest.fixture
def hub(monkeypatch, stanford_folder):
    """What is asked of the hub: names, and whether the network may be used. It has every model."""
    import huggingface_hub

    asked = []

    def download(name, *, local_files_only=False, **_):
        asked.append((name, local_files_only))
        if local_files_only:
            raise FileNotFoundError(f"{name} is not in the cache")
        return str(stanford_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def test_a_model_is_not_fetched_because_an_index_names_it(of_a_stranger, hub):
    with Index.open(of_a_stranger) as index:
        assert hub == []
        with pytest.raises(EncoderMismatchError, match=r"cannot be loaded; pass it to Index.open \(encoder='someone/model'\)"):
            index.search("cat")
    assert hub == [("someone/model", True)]


def test_a_model_that_is_named_by_the_user_is_fetched(of_a_stranger, hub):
    with Index.open(of_a_stranger, "someone/model") as index:
        assert index.search("cat")[0].passage.id == "a"
    with Index.create(None, "someone/model") as index:
        index.add([Passage("b", "cat")])
    assert hub == [("someone/model", False)] * 2


def test_a_model_in_the_hubs_cache_is_loaded_by_its_name(of_a_stranger, monkeypatch, stanford_folder):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(stanford_folder))
    with Index.open(of_a_stranger) as index:
        assert index.search("cat")[0].passage.id == "a"
