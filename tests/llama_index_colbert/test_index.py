"""``ColBERTIndex``: documents that come, change and go."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from builders.encoders import WordEncoder
from builders.nodes import documents, sources, texts
from llama_index.core import Settings
from llama_index.core.indices.base import BaseIndex
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.schema import Document, IndexNode, NodeRelationship, TextNode, TransformComponent
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

import llama_index_colbert
from colbert_core import (
    Encoder,
    EncoderMismatchError,
    Index,
    IndexExistsError,
    Passage,
)
from langchain_colbert import ColBERTRetriever as LangChainRetriever
from llama_index_colbert import ColBERTIndex, ColbertIndex, ColBERTRetriever

# Building and asking


async def test_documents_are_split_indexed_and_found(index):
    assert sources(index.query("cat purrs", top_k=1)) == ["b.txt"]
    assert sources(index.as_retriever(similarity_top_k=1).retrieve("cat purrs")) == ["b.txt"]
    assert sources(await index.as_retriever(similarity_top_k=1).aretrieve("cat purrs")) == ["b.txt"]
    assert len(index.query("dog")) > 3
    (found,) = index.query("cat purrs", top_k=1)
    assert type(found.score) is float
    assert found.node.metadata == {"year": 2021}
    assert found.node.relationships[NodeRelationship.SOURCE].metadata == {"year": 2021}


def test_the_callers_documents_and_nodes_stay_as_they_are(words):
    class InPlace(TransformComponent):
        def __call__(self, nodes, **_):
            for node in nodes:
                node.metadata["keyword"] = "added"
            return nodes

    given = documents()
    index = ColBERTIndex.from_documents(given, model_name=words, transformations=[InPlace()])
    extra = Document(id_="d.txt", text="snow falls")
    index.insert(extra)
    assert given == documents()
    assert extra.metadata == {}
    assert index.query("snow falls", 1)[0].node.metadata == {"keyword": "added"}
    assert index.refresh_ref_docs([*documents(), extra]) == [False] * 4  # compared with what was given, not what came of it


def test_filters_nodes_and_documents_restrict(index):
    year = MetadataFilters(filters=[MetadataFilter(key="year", value=2021, operator=">=")])
    assert sorted(sources(index.as_retriever(9, filters=year).retrieve("dog"))) == ["b.txt", "c.txt"]
    assert sources(index.as_retriever(9, doc_ids=["c.txt"]).retrieve("dog")) == ["c.txt"]
    (only,) = index.index.ids({"ref_doc_id": "b.txt"})
    assert sources(index.as_retriever(9, node_ids=[only]).retrieve("dog")) == ["b.txt"]


async def test_every_keyword_of_an_engine_passes_and_an_unknown_one_is_an_error(index):
    engine = index.as_query_engine(
        llm=MockLLM(), similarity_top_k=1, response_mode="compact", streaming=False, use_async=False, verbose=False
    )
    assert "The cat purrs." in str(engine.query("cat purrs"))
    memory = ChatMemoryBuffer.from_defaults(llm=MockLLM())  # the default one leaves a database open
    index.as_chat_engine(chat_mode="context", system_prompt="Be brief.", memory=memory, similarity_top_k=1)
    for make in (index.as_retriever, index.as_query_engine, index.as_chat_engine):
        with pytest.raises(TypeError, match="'simlarity_top_k'"):
            make(simlarity_top_k=3)
    with pytest.raises(TypeError, match="modelname"):
        ColBERTIndex.from_documents(documents(), modelname="x")
    with pytest.raises(ValueError, match="Pass nodes="):
        ColBERTIndex()
    assert index.query(" ") == []


# Documents that come, change and go


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_documents_are_inserted_updated_refreshed_and_deleted(index, asynchronous):
    async def do(verb, *args, **kwargs):
        method = getattr(index, f"a{verb}" if asynchronous else verb)
        return await method(*args, **kwargs) if asynchronous else method(*args, **kwargs)

    await do("insert", Document(id_="d.txt", text="A whale swims."))
    assert sources(index.query("whale swims", 1)) == ["d.txt"]
    assert set(index.ref_doc_info) == {"a.txt", "b.txt", "c.txt", "d.txt"}
    assert len(index.ref_doc_info["a.txt"].node_ids) > 3
    assert index.ref_doc_info["b.txt"].metadata == {"year": 2021}

    await do("update_ref_doc", Document(id_="d.txt", text="A whale sings."))
    assert texts(index, "d.txt") == ["A whale sings."]

    fresh = [*documents(), Document(id_="d.txt", text="A whale sings."), Document(id_="e.txt", text="An owl hoots.")]
    assert await do("refresh_ref_docs", fresh) == [False, False, False, False, True]
    fresh[0] = Document(id_="a.txt", text="The dog sleeps.")
    assert await do("refresh_ref_docs", fresh) == [True, False, False, False, False]
    assert texts(index, "a.txt") == ["The dog sleeps."]
    assert await do("refresh_ref_docs", fresh) == [False] * 5

    await do("delete_ref_doc", "a.txt", delete_from_docstore=True)
    assert "a.txt" not in index.ref_doc_info
    assert "a.txt" not in sources(index.query("dog sleeps"))
    assert index.docstore.get_document_hash("a.txt") is None
    (node_id,) = index.ref_doc_info["b.txt"].node_ids
    with pytest.raises(TypeError, match="node_ids must be a list of strings, got one str"):
        await do("delete_nodes", node_id)
    await do("delete_nodes", [node_id, "gone"])
    assert "b.txt" not in index.ref_doc_info
    assert node_id in index.docstore.docs  # unless it is asked for: other indexes may share it
    await do("delete_nodes", [node_id], delete_from_docstore=True)
    assert node_id not in index.docstore.docs

    await do("insert_nodes", [TextNode(id_="n", text="snow falls")])
    assert index.query("snow falls", 1)[0].node.node_id == "n"


@pytest.mark.parametrize("in_docstore", [False, True])
def test_a_deleted_document_comes_back_when_it_is_refreshed(index, in_docstore):
    index.delete_ref_doc("b.txt", delete_from_docstore=in_docstore)
    assert index.refresh_ref_docs(documents()) == [False, True, False]
    assert texts(index, "b.txt") == ["The cat purrs."]


def test_unsplit_documents_are_their_own_source(words):
    index = ColBERTIndex.from_documents(documents(), model_name=words, transformations=[])
    assert sorted(index.index.ids()) == ["a.txt", "b.txt", "c.txt"]
    index.insert(Document(id_="d.txt", text="snow falls"))
    index.update_ref_doc(Document(id_="d.txt", text="rain falls"))
    index.delete_ref_doc("a.txt", delete_from_docstore=True)
    assert sorted(index.index.ids()) == ["b.txt", "c.txt", "d.txt"]
    assert index.refresh_ref_docs([*documents(), Document(id_="d.txt", text="rain falls")]) == [True, False, False, False]


def test_an_unknown_document_is_logged_and_unknown_keywords_are_errors(index, caplog):
    with caplog.at_level(logging.WARNING):
        index.delete_ref_doc("nobody.txt")
    assert "'nobody.txt'" in caplog.text
    for change in (
        lambda: index.insert(documents()[0], batch=1),
        lambda: index.insert_nodes([], batch=1),
        lambda: index.delete_nodes([], batch=1),
        lambda: index.delete_ref_doc("b.txt", batch=1),
    ):
        with pytest.raises(TypeError, match="takes no keyword 'batch'"):
            change()


async def test_async_changes_leave_the_event_loop_free(words):
    index = ColBERTIndex(nodes=[], model_name=words)
    ticked, encode = threading.Event(), words.encode_passages

    def encode_when_the_loop_has_ticked(texts, **kwargs):
        assert ticked.wait(10), "the insertion held the event loop"
        return encode(texts, **kwargs)

    words.encode_passages = encode_when_the_loop_has_ticked
    for insertion in (index.ainsert(documents()[1]), index.ainsert_nodes([TextNode(id_="n", text="snow falls")])):
        ticked.clear()
        task = asyncio.create_task(insertion)
        await asyncio.sleep(0.01)
        ticked.set()
        await task
    assert len(index.index) == 2


def test_a_failed_insertion_leaves_nothing_behind(index, words, monkeypatch):
    def fail(texts, **_):
        raise RuntimeError("no more room")

    monkeypatch.setattr(words, "encode_passages", fail)
    known = dict(index.docstore.docs)
    with pytest.raises(RuntimeError):
        index.insert(Document(id_="d.txt", text="snow falls"))
    assert index.docstore.docs == known
    monkeypatch.undo()
    monkeypatch.setattr(Settings, "_llm", MockLLM())
    assert index.refresh_ref_docs([Document(id_="d.txt", text="snow falls")]) == [True]
    assert texts(index, "d.txt") == ["snow falls"]


def test_the_object_of_an_index_node_takes_its_place_and_is_kept_out_of_storage(words):
    target = ColBERTRetriever.from_nodes([TextNode(id_="target", text="all about dogs")], model=words)
    pointer = IndexNode(id_="p", text="questions about dogs", index_id="dogs", obj=target)
    made = ColBERTIndex(nodes=[pointer], model_name=words)
    separate = ColBERTIndex(nodes=[], objects=[pointer], model_name=words)
    inserted = ColBERTIndex(nodes=[], model_name=words)
    before = inserted.as_retriever(1)
    inserted.insert_nodes([pointer])
    for retriever in (made.as_retriever(1), separate.as_retriever(1), inserted.as_retriever(1), before):
        assert [scored.node.node_id for scored in retriever.retrieve("questions about dogs")] == ["target"]
    given = made.as_retriever(1, object_map={"dogs": TextNode(id_="other", text="x")})
    assert given.retrieve("dogs")[0].node.node_id == "other"
    assert pointer.obj is target


def test_threads_search_while_one_inserts(index):
    with ThreadPoolExecutor(8) as pool:
        searches = [pool.submit(index.query, "cat purrs", 1) for _ in range(30)]
        inserts = [pool.submit(index.insert, Document(id_=f"{i}", text="snow falls")) for i in range(5)]
        assert all(sources(search.result()) == ["b.txt"] for search in searches)
        for insert in inserts:
            insert.result()
    assert len(index.ref_doc_info) == 8


# Directories


def test_a_named_model_is_loaded_by_itself_and_another_one_is_an_error(stanford_folder, untrained_folder, tmp_path):
    index = ColbertIndex.from_documents(documents(), model_name=str(stanford_folder), index_name="x")
    index.persist(str(tmp_path))
    loaded = ColbertIndex.load_from_disk(str(tmp_path), "x")
    assert loaded.model_name == index.model_name == str(stanford_folder)
    assert loaded.query("the cat", 1) == index.query("the cat", 1)
    with pytest.raises(EncoderMismatchError):
        ColBERTIndex.load(tmp_path, "x", model_name=str(untrained_folder))


def test_an_index_on_disk_from_the_start_is_made_once(words, tmp_path):
    ColBERTIndex(nodes=[TextNode(id_="n", text="snow falls")], model_name=words, index_path=tmp_path / "x")
    with pytest.raises(IndexExistsError):
        ColBERTIndex(nodes=[], model_name=words, index_path=tmp_path / "x")
    opened = ColBERTIndex.load(tmp_path / "x", model_name=words)
    assert opened.query("snow")[0].node.node_id == "n"
    with pytest.raises(ValueError, match="index_struct needs index_path"):
        ColBERTIndex(index_struct=opened.index_struct, model_name=words)


# Elsewhere


@pytest.mark.slow
def test_an_index_of_the_command_line_opens_here_and_the_other_way_round(stanford_folder, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "cats.md").write_text("the cat sat on a mat")
    (tmp_path / "notes" / "dogs.md").write_text("dogs bark")

    def colbert(*arguments):
        command = [sys.executable, "-m", "colbert_core.cli", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    colbert("index", "notes", "--out", "wiki.idx", "--model", str(stanford_folder), "--quiet")
    index = ColBERTIndex.load(tmp_path / "wiki.idx")
    (cats, dogs) = sorted(index.query("the cat"), key=lambda scored: scored.node.node_id)
    assert cats.node.get_content() == "cats.md\n\nthe cat sat on a mat"
    assert cats.node.metadata["source"] == "notes/cats.md"
    assert ColBERTRetriever.from_persist_dir(tmp_path / "wiki.idx").retrieve("the cat")[0].score == pytest.approx(
        max(cats.score, dogs.score)
    )
    index.insert_nodes([TextNode(id_="rust", text="rust is a language")])
    found = [json.loads(line) for line in colbert("search", "wiki.idx", "rust", "--json", "-k", "9").splitlines()]
    assert {hit["id"] for hit in found} == {cats.node.node_id, dogs.node.node_id, "rust"}
    index.persist(tmp_path / "storage")
    assert "No damage" in colbert("verify", "storage/colbert.idx")


def test_an_index_built_through_langchain_opens_here_and_the_other_way_round(words, tmp_path):
    theirs = LangChainRetriever.from_texts(["a dog barks", "snow falls"], [{"page": 1}, {"page": 2}], model=words)
    theirs.index.save(tmp_path / "theirs")
    index = ColBERTIndex.load(tmp_path / "theirs", model_name=words)
    page = MetadataFilters(filters=[MetadataFilter(key="page", value=1)])
    (found,) = index.as_retriever(9, filters=page).retrieve("dog")
    assert (found.node.get_content(), found.node.metadata) == ("a dog barks", {"page": 1})
    assert LangChainRetriever(index=index.index).invoke("dog barks", k=1) == theirs.invoke("dog barks", k=1)


# Copies and names


def test_pickles_and_copies_work_and_copies_share_the_model(stanford, splitter):
    index = ColBERTIndex.from_documents(documents(), model_name=stanford, transformations=[splitter])
    copied, pickled = copy.deepcopy(index), pickle.loads(pickle.dumps(index))
    assert copied.index.encoder is stanford
    for other in (copied, pickled):
        assert other.query("the cat") == index.query("the cat")
        other.delete_ref_doc("b.txt")
        assert "b.txt" not in other.ref_doc_info
    assert "b.txt" in index.ref_doc_info


def test_it_is_what_llama_index_expects_it_to_be(index):
    assert BaseIndex.__name__ in [base.__name__ for base in ColBERTIndex.__mro__]
    assert ColbertIndex is ColBERTIndex
    assert llama_index_colbert.ColbertRerank is llama_index_colbert.ColBERTRerank
    assert index.index_struct.index_id == index.index_id


def test_the_incumbents_constructor_is_taken(stanford_folder, default_encoder):
    index = ColbertIndex(
        nodes=[TextNode(id_="n", text="the cat sat on a mat")],
        objects=None,
        index_struct=None,
        storage_context=None,
        model_name=str(stanford_folder),
        index_name="colbert",
        show_progress=False,
        nbits=2,
        gpus=0,
        ranks=1,
        doc_maxlen=12,
        query_maxlen=8,
        kmeans_niters=4,
    )
    assert isinstance(index.index.encoder, Encoder)
    expected = Encoder.from_pretrained(str(stanford_folder), passage_length=12, query_length=8)
    hits = Index.create(None, expected)
    hits.add([Passage("n", "the cat sat on a mat")])
    assert index.query("the cat")[0].score == hits.search("the cat", mode="hybrid")[0].value
    assert index.as_retriever(mode="maxsim").retrieve("the cat")[0].score == hits.search("the cat")[0].relevance
    with pytest.raises(ValueError, match="has its lengths already"):
        ColBERTIndex(nodes=[], model_name=WordEncoder(), doc_maxlen=12)
    with pytest.raises(ValueError, match="nbits must be"):
        ColBERTIndex(nodes=[], model_name=default_encoder, nbits=3)


def test_an_index_keeps_as_few_vectors_as_it_is_told_to(stanford, tmp_path):
    node, folder = TextNode(id_="n", text="the cat sat on a mat and dogs bark"), tmp_path / "x"
    expected = Index.create(None, stanford)
    expected.add([Passage("n", node.text)], pool_factor=2)
    index = ColBERTIndex(nodes=[node], model_name=stanford, index_path=folder, pool_factor=2)
    assert index.index.stats().tokens == expected.stats().tokens
    index.insert_nodes([node.model_copy(update={"id_": "m"})])  # and of what is added later
    assert index.index.stats().tokens == 2 * expected.stats().tokens
