from __future__ import annotations

import shutil

import pytest
from builders.encoders import WordEncoder
from builders.indexes import THREE

from colbert_core import Collections, Index, IndexExistsError, IndexNotFoundError
from colbert_core.serve import Catalogue


def an_index(path):
    with Index.create(path, WordEncoder()) as index:
        index.add(THREE)
    return path


def test_indexes_have_the_names_of_their_folders_and_collections_their_own(tmp_path):
    kb = Collections(tmp_path / "kb", WordEncoder())
    kb.create("Acme & Co").close()
    catalogue = Catalogue([an_index(tmp_path / "wiki.idx"), tmp_path / "kb"], WordEncoder())
    assert catalogue.names() == ["Acme & Co", "wiki"]
    assert len(catalogue.get("wiki")) == 3
    assert len(catalogue.get("Acme & Co")) == 0
    assert catalogue.get("wiki") is catalogue.get("wiki")


def test_collections_may_come_and_go(tmp_path):
    kb = Collections(tmp_path, WordEncoder())
    kb.create("a").add(THREE)
    catalogue = Catalogue([tmp_path], WordEncoder())
    assert len(catalogue.get("a")) == 3
    kb.create("b").close()
    assert catalogue.names() == ["a", "b"]
    kb.drop("a")
    with pytest.raises(IndexNotFoundError, match="There is no index 'a' here; those are 'b'"):
        catalogue.get("a")
    kb.create("a").close()
    assert len(catalogue.get("a")) == 0  # and not what was dropped


def test_an_index_that_took_the_place_of_another_is_opened(tmp_path):
    wiki = an_index(tmp_path / "wiki")
    catalogue = Catalogue([wiki], WordEncoder())
    assert len(catalogue.get("wiki")) == 3
    Index.create(tmp_path / "other", WordEncoder()).close()
    shutil.rmtree(wiki)
    with pytest.raises(IndexNotFoundError, match="'wiki' is gone"):
        catalogue.get("wiki")
    (tmp_path / "other").rename(wiki)
    assert len(catalogue.get("wiki")) == 0


@pytest.mark.parametrize("name", ["../wiki", "..", "", "/etc/passwd", "wiki/../wiki", "x" * 5000, "a\x00b", "kb%2Fa"])
def test_a_name_never_becomes_a_path(tmp_path, name):
    an_index(tmp_path / "wiki")
    kb = Collections(tmp_path / "kb", WordEncoder())
    kb.create("a").close()
    catalogue = Catalogue([tmp_path / "kb"], WordEncoder())
    with pytest.raises(IndexNotFoundError, match="There is no index"):
        catalogue.get(name)


def test_a_folder_of_indexes_has_whatever_indexes_are_in_it(tmp_path):
    home = tmp_path / "indexes"
    home.mkdir()
    catalogue = Catalogue([home], WordEncoder())
    assert catalogue.names() == []
    an_index(home / "wiki.idx")
    Collections(home, WordEncoder()).create("Acme & Co").close()
    (home / "notes.txt").write_text("no index")
    (home / "folder").mkdir()
    assert catalogue.names() == ["Acme & Co", "wiki"]
    assert (len(catalogue.get("wiki")), len(catalogue.get("Acme & Co"))) == (3, 0)
    with pytest.raises(IndexNotFoundError, match="There is no index 'wiki.idx' here; those are 'Acme & Co', 'wiki'"):
        catalogue.get("wiki.idx")


def test_two_of_one_name_are_an_error(tmp_path):
    (tmp_path / "x").mkdir()
    first, second = an_index(tmp_path / "wiki"), an_index(tmp_path / "x" / "wiki.idx")
    with pytest.raises(IndexExistsError, match="would both be named 'wiki'; rename one"):
        Catalogue([first, second])
    Collections(tmp_path / "kb", WordEncoder()).create("wiki").close()
    with pytest.raises(IndexExistsError, match="Two indexes are named 'wiki'"):
        Catalogue([first, tmp_path / "kb"])


def test_a_folder_that_is_no_index_is_named(tmp_path):
    with pytest.raises(IndexNotFoundError, match=r"nowhere is no index, and no folder of indexes; `colbert index`"):
        Catalogue([tmp_path / "nowhere"])
    (tmp_path / "notes.txt").write_text("no index")
    with pytest.raises(IndexNotFoundError, match="no folder of indexes"):
        Catalogue([tmp_path])
    with pytest.raises(TypeError, match="paths must be a list"):
        Catalogue(tmp_path)


def test_reopening_opens_anew_and_closing_closes_what_was_opened(tmp_path):
    given = Index.create(encoder=WordEncoder())
    catalogue = Catalogue([an_index(tmp_path / "wiki")], WordEncoder(), indexes={"memory": given})
    before = catalogue.get("wiki")
    catalogue.reopen()
    after = catalogue.get("wiki")
    assert after is not before
    assert [hit.passage.id for hit in before.search("cat", 1)] == [hit.passage.id for hit in after.search("cat", 1)]
    catalogue.close()
    with pytest.raises(ValueError, match="closed"):
        after.search("cat")
    assert catalogue.get("memory") is given
    assert given.search("cat") == []
    before.close()


def test_texts_of_no_index_are_encoded_by_the_first_ones_encoder(tmp_path):
    own = WordEncoder()
    assert Catalogue(encoder=own).encoder() is own
    assert Catalogue(indexes={"b": Index.create(encoder=WordEncoder()), "a": Index.create(encoder=own)}).encoder() is own
