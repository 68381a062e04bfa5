"""Directories of indexes: what is written, what is left alone, and what is opened again."""

from __future__ import annotations

import pytest
from builders.encoders import WordEncoder
from builders.nodes import documents, sources, texts
from llama_index.core import StorageContext
from llama_index.core.schema import Document, TextNode

from colbert_core import (
    Index,
    IndexNotFoundError,
    Passage,
)
from llama_index_colbert import ColBERTIndex, ColBERTRetriever, saved


def everything(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_persisted_is_loaded_with_documents_relationships_and_identity(index, words, tmp_path):
    index.summary = "All about animals."
    index.persist(tmp_path / "storage")
    loaded = ColBERTIndex.load(tmp_path / "storage", model_name=words)
    assert loaded.query("cat purrs") == index.query("cat purrs")
    assert (loaded.index_id, loaded.summary) == (index.index_id, "All about animals.")
    assert loaded.ref_doc_info == index.ref_doc_info
    assert loaded.refresh_ref_docs(documents()) == [False, False, False]
    changed = Document(id_="b.txt", text="The cat sleeps.")
    assert loaded.refresh_ref_docs([changed]) == [True]
    assert texts(loaded, "b.txt") == ["The cat sleeps."]
    assert texts(index, "b.txt") == ["The cat purrs."]  # it was a copy
    again = ColBERTIndex.load(tmp_path / "storage", model_name=words)  # the change is on disk already
    assert texts(again, "b.txt") == ["The cat sleeps."]


def test_persisting_leaves_everything_else_alone_and_replaces_its_own(index, words, tmp_path):
    folder = tmp_path / "storage"
    (folder / "sub").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    (folder / "sub" / "docstore.json").write_text("{}")
    StorageContext.from_defaults().persist(str(folder))
    before = everything(folder)
    index.persist(folder)
    index.insert(Document(id_="d.txt", text="snow falls"))
    index.persist(folder)
    after = everything(folder)
    assert {name: after[name] for name in before} == before
    assert {path.name for path in folder.iterdir() if path.name.startswith((".", "colbert"))} == {
        "colbert.idx",
        "colbert.idx.json",
    }
    assert len(ColBERTIndex.load(folder, model_name=words).ref_doc_info) == 4


def test_a_loaded_index_persists_to_its_own_place_and_goes_on_living(index, words, tmp_path):
    index.persist(tmp_path)
    loaded = ColBERTIndex.load(tmp_path, model_name=words)
    loaded.persist(tmp_path)
    loaded.insert(Document(id_="d.txt", text="snow falls"))
    loaded.persist(tmp_path)
    assert sources(loaded.query("snow falls", 1)) == ["d.txt"]
    assert sources(ColBERTIndex.load(tmp_path, model_name=words).query("snow falls", 1)) == ["d.txt"]
    retriever = ColBERTRetriever.from_persist_dir(tmp_path, 1, model=words)
    retriever.add_nodes([TextNode(id_="n", text="rain pours")])
    retriever.persist(tmp_path)
    assert retriever.retrieve("rain pours")[0].node.node_id == "n"


def test_a_directory_by_another_name_is_the_same_place(index, words, tmp_path):
    folder, link = tmp_path / "storage", tmp_path / "link"
    index.persist(folder)
    link.symlink_to(folder)
    for first, second in ((folder, link), (link, folder), (folder, folder / ".." / "storage")):
        loaded = ColBERTIndex.load(first, model_name=words)
        loaded.persist(second)
        loaded.insert(Document(id_="d.txt", text="snow falls"))
        assert ColBERTIndex.load(second, model_name=words).ref_doc_info == loaded.ref_doc_info
        loaded.delete_ref_doc("d.txt")


def test_what_persist_did_not_write_is_never_replaced(index, words, tmp_path):
    mine = Index.create(tmp_path / "colbert.idx", words)
    mine.add([Passage("x", "snow falls")])
    with pytest.raises(FileExistsError, match="was not written by persist"):
        index.persist(tmp_path)
    assert mine.ids() == ["x"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_persist_that_fails_leaves_the_old_index(index, words, tmp_path, monkeypatch):
    index.persist(tmp_path)
    before = everything(tmp_path / "colbert.idx")
    index.insert(Document(id_="d.txt", text="snow falls"))

    def fail(self, target, **_):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(Index, "save", fail)
        for folder in (tmp_path, tmp_path / "new"):
            with pytest.raises(OSError, match="disk full"):
                index.persist(folder)
    assert list((tmp_path / "new").iterdir()) == []  # nothing there claims to be an index
    assert everything(tmp_path / "colbert.idx") == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert len(ColBERTIndex.load(tmp_path, model_name=words).ref_doc_info) == 3


def test_several_indexes_share_a_directory_by_name(words, tmp_path):
    for name in ("cats", "dogs"):
        node = TextNode(id_=name, text=f"all about {name}")
        ColBERTIndex(nodes=[node], model_name=words, index_name=name).persist(tmp_path)
    for name in ("cats", "dogs"):
        assert ColBERTIndex.load(tmp_path, name, model_name=words).query(name)[0].node.node_id == name
    with pytest.raises(IndexNotFoundError, match="'birds'"):
        ColBERTIndex.load(tmp_path, "birds")
    with pytest.raises(IndexNotFoundError):
        ColBERTIndex.load(tmp_path)
    with pytest.raises(IndexNotFoundError):
        ColBERTIndex.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no '/' in it"):
        ColBERTIndex(nodes=[], model_name=words, index_name="../x").persist(tmp_path)


def test_names_in_a_persist_directory_are_those_that_the_module_says(index, tmp_path):
    index.persist(tmp_path / "x")
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["colbert.idx", "colbert.idx.json"]
    assert "<name>.idx" in saved.__doc__
    assert Index.open(tmp_path / "x" / "colbert.idx", WordEncoder()).ids() == index.index.ids()
