"""The docstore of an index that was loaded: it reads from the index, and is like one that holds the nodes."""

from __future__ import annotations

import copy
import datetime
import pickle

import pytest
from builders.nodes import documents, texts
from llama_index.core.schema import Document, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore

from colbert_core import Index, Passage
from llama_index_colbert import ColBERTIndex


def part(node_id, text, source="a.txt", hash_="1", **metadata):
    node = TextNode(id_=node_id, text=text, metadata=metadata)
    node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=source, hash=hash_)
    return node


def parts():
    return [
        part("a1", "the dog barks", year=2020),
        part("a2", "the cat purrs", year=2021),
        part("b1", "a bird sings", "b.txt", "2"),
        TextNode(id_="alone", text="rain falls"),
    ]


@pytest.fixture
def loaded(words, tmp_path):
    ColBERTIndex(parts(), model_name=words).persist(tmp_path)
    return ColBERTIndex.load(tmp_path, model_name=words)


@pytest.fixture
def held():
    store = SimpleDocumentStore()
    store.add_documents(parts())
    store.set_document_hashes({"a.txt": "1", "b.txt": "2"})
    return store


async def everything(store):
    keys = ("a1", "a2", "a3", "b1", "alone", "a.txt", "b.txt", "c.txt", "nothing")
    return {
        "docs": store.docs,
        "nodes": [store.get_document(key, raise_error=False) for key in keys],
        "async": [await store.aget_document(key, raise_error=False) for key in keys],
        "exists": [store.document_exists(key) for key in keys],
        "infos": store.get_all_ref_doc_info(),
        "info": [store.get_ref_doc_info(key) for key in keys],
        "ref exists": [store.ref_doc_exists(key) for key in keys],
        "hashes": store.get_all_document_hashes(),
        "hash": [store.get_document_hash(key) for key in keys],
    }


async def test_it_is_like_one_that_holds_the_nodes(loaded, held):
    assert await everything(loaded.docstore) == await everything(held)
    for change in (
        lambda store: store.add_documents([part("c1", "snow lies", "c.txt", "3")]),
        lambda store: store.add_documents([part("a3", "wind blows")]),
        lambda store: store.set_document_hash("b.txt", "4"),
        lambda store: store.delete_document("a1"),
        lambda store: store.delete_ref_doc("b.txt"),
        lambda store: store.delete_document("alone"),
        lambda store: store.add_documents(parts()[:1]),
        lambda store: store.delete_ref_doc("c.txt"),
    ):
        change(loaded.docstore)
        change(held)
        found, expected = await everything(loaded.docstore), await everything(held)
        assert {key: sorted(info.node_ids) for key, info in found.pop("infos").items()} == {
            key: sorted(info.node_ids) for key, info in expected.pop("infos").items()
        }
        for both in (found, expected):
            both["info"] = [info and (sorted(info.node_ids), info.metadata) for info in both["info"]]
        assert found == expected
    with pytest.raises(ValueError, match="nothing"):
        loaded.docstore.delete_document("nothing")
    with pytest.raises(ValueError, match="not found"):
        loaded.docstore.get_document("b1")


def test_opening_reads_no_node(loaded, tmp_path, words, monkeypatch):
    def fail(*_):
        raise AssertionError("a node was read")

    monkeypatch.setattr(Index, "get", fail)
    ColBERTIndex.load(tmp_path, model_name=words)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda store: pickle.loads(pickle.dumps(store))])
async def test_a_copy_of_it_is_the_same(loaded, copied):
    loaded.docstore.delete_document("a1")
    loaded.docstore.add_documents([part("c1", "snow lies", "c.txt", "3")])
    assert await everything(copied(loaded.docstore)) == await everything(loaded.docstore)


async def test_what_it_persists_another_docstore_opens(loaded, tmp_path):
    loaded.insert_nodes([part("a3", "wind blows", day=datetime.date(2026, 11, 29))])
    loaded.docstore.add_documents([part("c1", "snow lies", "c.txt", "3")])
    loaded.docstore.persist(str(tmp_path / "docstore.json"))
    opened = SimpleDocumentStore.from_persist_path(str(tmp_path / "docstore.json"))
    assert opened.get_document("a3").metadata == {"day": "2026-11-29"}
    assert opened.get_document("a3").get_content() == "wind blows"
    found, expected = await everything(opened), await everything(loaded.docstore)
    for name in ("exists", "ref exists", "hash"):
        assert found[name] == expected[name]
    info = opened.get_ref_doc_info("a.txt")
    assert (info.node_ids, info.metadata) == (["a1", "a2", "a3"], {"year": 2021, "day": "2026-11-29"})


def test_nodes_that_come_and_go_through_the_index(loaded):
    loaded.insert_nodes([part("a3", "wind blows")])
    assert loaded.docstore.get_ref_doc_info("a.txt").node_ids == ["a1", "a2", "a3"]
    loaded.delete_nodes(["a1"])
    assert loaded.index.get(["a1"]) == [None]
    assert loaded.docstore.get_document("a1").text == "the dog barks"  # it was not to be deleted from the docstore
    loaded.delete_nodes(["a1", "a2"], delete_from_docstore=True)
    assert loaded.docstore.get_ref_doc_info("a.txt").node_ids == ["a3"]
    loaded.delete_nodes(["a3"], delete_from_docstore=True)
    assert loaded.docstore.get_document_hash("a.txt") is None
    assert list(loaded.docstore.docs) == ["b1", "alone"]
    loaded.delete_ref_doc("b.txt", delete_from_docstore=True)
    assert (loaded.docstore.get_all_ref_doc_info(), loaded.docstore.get_document_hash("b.txt")) == ({}, None)


def test_what_the_core_changes_is_what_it_shows(loaded):
    (passage,) = loaded.index.get(["b1"])
    loaded.index.add([Passage("b1", "the whale sings", passage.metadata)])
    assert loaded.docstore.get_document("b1").text == "the whale sings"
    loaded.index.delete(["b1"])
    assert not loaded.docstore.document_exists("b1")
    assert loaded.docstore.get_document_hash("b.txt") is None


# Refreshing what was changed through another door


@pytest.fixture(params=["made", "loaded"])
def index(request, words, tmp_path):
    index = ColBERTIndex.from_documents(documents(), model_name=words)
    if request.param == "made":
        return index
    index.persist(tmp_path)
    return ColBERTIndex.load(tmp_path, model_name=words)


async def test_a_document_that_the_core_deleted_comes_back_with_a_refresh(index):
    index.index.delete_where({"ref_doc_id": "b.txt"})
    assert index.refresh_ref_docs(documents()) == [False, True, False]
    assert texts(index, "b.txt") == ["The cat purrs."]
    assert await index.arefresh_ref_docs(documents()) == [False, False, False]
    index.index.clear()
    assert await index.arefresh_ref_docs(documents()) == [True, True, True]


def test_a_document_that_another_index_inserted_is_not_inserted_twice(index, words):
    new = Document(id_="d.txt", text="snow falls")
    other = ColBERTIndex.from_documents([new], model_name=words).index
    index.index.add(other.get(other.ids()))
    assert index.refresh_ref_docs([new]) == [False]
    assert index.refresh_ref_docs([Document(id_="d.txt", text="snow melts")]) == [True]
    assert texts(index, "d.txt") == ["snow melts"]
