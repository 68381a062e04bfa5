"""Storage contexts: ``persist`` writes a ``ColBERTIndex``, and LlamaIndex's loaders give it back or say how."""

from __future__ import annotations

import shutil

import pytest
from builders.nodes import documents
from llama_index.core import (
    MockEmbedding,
    Settings,
    StorageContext,
    SummaryIndex,
    VectorStoreIndex,
    load_index_from_storage,
    load_indices_from_storage,
)
from llama_index.core.schema import Document, TextNode

from colbert_core import IndexNotFoundError
from llama_index_colbert import ColBERTIndex, ColBERTVectorStore


@pytest.fixture(autouse=True)
def embed_model(monkeypatch):
    monkeypatch.setattr(Settings, "_embed_model", MockEmbedding(embed_dim=4))  # stands for the user's


def opened(folder, **kwargs):
    return StorageContext.from_defaults(persist_dir=str(folder), **kwargs)


def test_an_index_comes_back_from_its_storage_context(index, words, tmp_path):
    folder = tmp_path / "storage"
    index.summary = "All about animals."
    index.storage_context.persist(folder)
    loaded = load_index_from_storage(opened(folder), model_name=words)
    assert isinstance(loaded, ColBERTIndex)
    assert loaded.query("cat purrs") == index.query("cat purrs")
    assert (loaded.index_id, loaded.ref_doc_info) == (index.index_id, index.ref_doc_info)
    assert loaded.refresh_ref_docs([*documents(), Document(id_="d.txt", text="snow falls")]) == [False, False, False, True]
    assert loaded.as_retriever(similarity_top_k=1).retrieve("snow falls")[0].node.ref_doc_id == "d.txt"
    assert len(index.query("snow falls", 1)) == 1
    loaded.storage_context.persist(folder)
    again = load_index_from_storage(opened(folder), index_id=index.index_id, model_name=words)
    assert again.ref_doc_info == loaded.ref_doc_info
    assert len([path for path in folder.iterdir() if path.suffix == ".idx"]) == 1


def test_what_was_inserted_after_persist_is_not_inserted_twice(index, words, tmp_path):
    new = Document(id_="d.txt", text="snow falls")
    index.storage_context.persist(tmp_path / "storage")
    load_index_from_storage(opened(tmp_path / "storage"), model_name=words).insert(new)
    loaded = load_index_from_storage(opened(tmp_path / "storage"), model_name=words)
    assert loaded.refresh_ref_docs([new]) == [False]
    assert len(loaded.ref_doc_info["d.txt"].node_ids) == 1


def test_an_index_that_load_opened_is_persisted_as_well(index, words, tmp_path):
    index.persist(tmp_path / "first")
    ColBERTIndex.load(tmp_path / "first", model_name=words).storage_context.persist(tmp_path / "second")
    loaded = load_index_from_storage(opened(tmp_path / "second"), model_name=words)
    assert loaded.query("cat purrs") == index.query("cat purrs")
    assert sorted(loaded.docstore.docs) == sorted(index.docstore.docs)


def test_several_indexes_in_one_context_come_back_each_by_its_id(words, tmp_path):
    context = StorageContext.from_defaults()
    for name in ("cats", "dogs"):
        made = ColBERTIndex([TextNode(id_=name, text=f"all about {name}")], model_name=words, storage_context=context)
        made.set_index_id(name)
    summary = SummaryIndex([TextNode(id_="birds", text="all about birds")], storage_context=context)
    vectors = VectorStoreIndex([TextNode(id_="fish", text="all about fish")], storage_context=context)
    context.persist(str(tmp_path))
    for name in ("cats", "dogs"):
        loaded = load_index_from_storage(opened(tmp_path), index_id=name, model_name=words)
        assert [scored.node.node_id for scored in loaded.query("all about cats and dogs", 9)] == [name]
    everything = {index.index_id: index for index in load_indices_from_storage(opened(tmp_path), model_name=words)}
    assert everything.keys() == {"cats", "dogs", summary.index_id, vectors.index_id}
    assert isinstance(everything["cats"], ColBERTIndex)
    assert len(everything[summary.index_id].as_retriever().retrieve("birds")) == 1
    assert [found.node_id for found in everything[vectors.index_id].as_retriever().retrieve("fish")] == ["fish"]
    with pytest.raises(ValueError, match="index_id"):
        load_index_from_storage(opened(tmp_path), model_name=words)


def test_an_index_that_is_not_there_is_an_error_that_says_how_to_open_it(index, words, tmp_path):
    index.storage_context.persist(tmp_path / "storage")
    (tmp_path / "storage").rename(tmp_path / "moved")
    with pytest.raises(IndexNotFoundError, match="was moved, open it with ColBERTIndex.load") as raised:
        load_index_from_storage(opened(tmp_path / "moved"), model_name=words)
    name = str(raised.value).split("'")[-2]
    assert ColBERTIndex.load(tmp_path / "moved", name, model_name=words).query("cat purrs") == index.query("cat purrs")
    for file in (tmp_path / "moved").glob("colbert*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    with pytest.raises(
        ValueError, match=r"write a ColBERTIndex with index.persist\(directory\), and open it with ColBERTIndex.load"
    ):
        load_index_from_storage(opened(tmp_path / "moved"), model_name=words)
    with pytest.raises(ValueError, match="ColBERTIndex.load"):
        load_index_from_storage(opened(tmp_path / "moved", vector_store=ColBERTVectorStore(words)), model_name=words)


def test_a_context_without_the_index_is_never_an_empty_index(index, words, tmp_path):
    index.storage_context.persist(tmp_path)
    with pytest.raises(TypeError, match="similarity_top_k"):
        load_index_from_storage(opened(tmp_path), model_name=words, similarity_top_k=3)


def test_a_vector_store_index_needs_its_store_to_come_back(words, tmp_path):
    store = ColBERTVectorStore(words)
    context = StorageContext.from_defaults(vector_store=store)
    nodes = [TextNode(id_="c", text="the cat purrs"), TextNode(id_="d", text="the dog barks")]
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=store.embed_model)
    context.persist(str(tmp_path))
    with pytest.raises(KeyError):
        load_index_from_storage(opened(tmp_path))
    again = ColBERTVectorStore.from_persist_dir(tmp_path, model=words)
    loaded = load_index_from_storage(
        opened(tmp_path, vector_store=again), index_id=index.index_id, embed_model=again.embed_model
    )
    assert [found.node_id for found in loaded.as_retriever(similarity_top_k=1).retrieve("dog barks")] == ["d"]
    assert [found.node_id for found in again.as_index().as_retriever(similarity_top_k=1).retrieve("dog barks")] == ["d"]
