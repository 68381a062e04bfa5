"""Several indexes in one folder, none of which sees another."""

from __future__ import annotations

import pytest

from colbert_core import Collections, Index, IndexExistsError, IndexNotFoundError, Passage
from langchain_colbert import ColBERTVectorStore as LangChainStore
from llama_index_colbert import ColBERTVectorStore as LlamaIndexStore

NAMES = ["acme", "Acme", "ÄCME & Söhne", "a/b", "..", ".hidden", "con", "%41cme", "x" * 200]


def test_collections_are_made_listed_copied_and_dropped(tmp_path, stanford):
    kb = Collections(tmp_path / "kb", stanford)
    assert (kb.names(), len(kb), "acme" in kb, 3 in kb) == ([], 0, False, False)
    for name in NAMES:
        with kb.create(name) as index:
            index.add([Passage(name, "the cat")])
    assert kb.names() == sorted(NAMES)
    for name in NAMES:
        with kb.open(name) as index:
            assert [hit.passage.id for hit in index.search("cat", k=99)] == [name]
    kb.copy("acme", "acme 2025")
    kb.drop("acme")
    assert kb.names() == sorted({*NAMES, "acme 2025"} - {"acme"})
    with kb.open("acme 2025") as index:
        assert index.ids() == ["acme"]
    with Index.open(kb.folder_of("Acme"), stanford) as index:
        assert index.ids() == ["Acme"]
    assert repr(Collections(tmp_path / "none")) == f"Collections({str(tmp_path / 'none')!r}, [])"


def test_a_name_that_is_not_there_or_there_already_is_said(tmp_path, stanford):
    kb = Collections(tmp_path / "kb", stanford)
    with pytest.raises(IndexNotFoundError, match="There is no collection 'acme' in .*kb; there are none."):
        kb.open("acme")
    kb.create("acme").close()
    with pytest.raises(IndexNotFoundError, match="There is no collection 'acne' in .*kb; those are 'acme'."):
        kb.drop("acne")
    for again in (lambda: kb.create("acme"), lambda: kb.copy("acme", "acme")):
        with pytest.raises(IndexExistsError, match="There is a collection 'acme' in .*kb already"):
            again()
    with pytest.raises(ValueError, match="The name of a collection is empty"):
        kb.create("")
    with pytest.raises(ValueError, match="too long for a folder, 999 letters"):
        kb.create("x" * 999)
    with pytest.raises(IndexExistsError, match="is an index itself, not a folder of collections"):
        Collections(kb.folder_of("acme"))


def test_who_has_a_dropped_collection_open_is_told_that_it_is_gone(tmp_path, stanford):
    kb = Collections(tmp_path / "kb", stanford)
    index = kb.create("acme")
    index.add([Passage("a", "the cat")])
    kb.drop("acme")
    for call in (lambda: index.add([Passage("b", "a dog")]), lambda: index.search("cat")):
        with pytest.raises(IndexNotFoundError, match="There is no index at .*acme any more"):
            call()
    kb.create("acme").add([Passage("c", "a bird")])
    with kb.open("acme") as anew:
        assert anew.ids() == ["c"]


def test_the_stores_of_both_frameworks_name_a_collection(tmp_path, stanford):
    acme = LangChainStore(stanford, persist_directory=tmp_path / "kb", collection_name="acme")
    acme.add_texts(["the cat"], ids=["a"])
    globex = LangChainStore.from_texts(
        ["a dog"], ids=["g"], model=stanford, persist_directory=tmp_path / "kb", collection_name="globex"
    )
    assert [document.id for document in acme.similarity_search("dog", k=9)] == ["a"]
    assert [document.id for document in globex.similarity_search("cat", k=9)] == ["g"]
    assert Collections(tmp_path / "kb").names() == ["acme", "globex"]
    store = LlamaIndexStore(stanford, tmp_path / "kb", collection_name="acme")
    assert [node.node_id for node in store.get_nodes(node_ids=["a", "g"])] == ["a"]
    with pytest.raises(IndexExistsError, match="is an index itself"):
        LangChainStore(persist_directory=tmp_path / "kb" / "acme", collection_name="x")
    for store_class in (LangChainStore, LlamaIndexStore):
        with pytest.raises(ValueError, match="collection_name='acme' needs"):
            store_class(collection_name="acme")
