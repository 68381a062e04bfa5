"""``ColBERTVectorStore`` of LlamaIndex, alone, in pipelines and as an index."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from builders.encoders import WordEncoder
from builders.nodes import ask, ids, node, one
from builders.nodes import stored_nodes as nodes
from llama_index.core import QueryBundle, StorageContext
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import TransformQueryEngine
from llama_index.core.retrievers import TransformRetriever
from llama_index.core.schema import Document, IndexNode, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from colbert_core import EncoderMismatchError, Index, IndexNotFoundError, Passage
from langchain_colbert import ColBERTRetriever as LangChainRetriever
from llama_index_colbert import ColBERTIndex, ColBERTRetriever, ColBERTVectorStore

# Query


async def test_the_best_node_comes_first_as_it_was_added_sync_and_async(store):
    found = store.query(ask("dog barks", 2))
    assert found.ids[0] == "dog"
    assert found.nodes[0] == nodes()[1]
    assert found.similarities[0] == pytest.approx(1)
    assert all(type(score) is float for score in found.similarities)
    assert len(found.ids) == len(found.nodes) == len(found.similarities) == 2
    assert await store.aquery(ask("  dog barks\n", 2)) == found


def test_filters_ids_and_sources_restrict_before_the_best_are_chosen(store):
    assert store.query(ask("dog barks", 1, filters=one("year", 2020, ">="))).ids == ["dog"]
    assert store.query(ask("dog barks", 1, filters=one("tags", "claws", "contains"))).ids == ["cat"]
    assert store.query(ask("dog barks", 1, node_ids=["fish", "bird"])).ids[0] in {"fish", "bird"}
    assert store.query(ask("dog barks", 9, doc_ids=["wild.txt"])).ids == ["bird"]
    assert store.query(ask("dog", 9, doc_ids=["pets.txt"], filters=one("year", 2020), node_ids=["dog"])).ids == []
    assert store.query(ask("dog", 9, doc_ids=[])).ids == []
    assert len(store.query(ask("dog", 9, node_ids=[])).ids) == 4  # what a VectorStoreIndex sends


def test_a_node_without_a_source_is_its_own(store):
    assert store.query(ask("dog", 9, doc_ids=["fish"])).ids == ["fish"]
    store.delete("fish")
    assert len(store.get_nodes()) == 3


def test_mmr_is_that_of_the_core(store, words):
    store.add([node("dog2", "a dog barks at noon"), node("dog3", "a dog barks at dusk")])
    query = ask("a dog barks", 3, mode=VectorStoreQueryMode.MMR, mmr_threshold=0.1)
    expected = store.index.search_diverse("a dog barks", 3, 12, 0.1)
    assert store.query(query).ids == [hit.passage.id for hit in expected]
    assert store.query(query).ids != store.query(ask("a dog barks", 3)).ids
    mmr = ask("a dog barks", 3, mode=VectorStoreQueryMode.MMR)
    assert store.query(mmr, mmr_threshold=0.1).ids == store.query(query).ids
    assert store.query(mmr, mmr_threshold=0, mmr_prefetch_k=3).ids == [
        hit.passage.id for hit in store.index.search_diverse("a dog barks", 3, 3, 0)
    ]
    assert store.query(ask("dog", 9, mode=VectorStoreQueryMode.MMR, doc_ids=["wild.txt"])).ids == ["bird"]


class Hypothesis(HyDEQueryTransform):
    def _run(self, query_bundle, metadata):
        return QueryBundle(query_bundle.query_str, custom_embedding_strs=["a bird sings a song", " ", "sings"])


@pytest.mark.parametrize("mode", ["default", "mmr"])
async def test_hyde_over_a_vector_store_index_searches_with_what_the_llm_wrote(store, mode):
    index = store.as_index()
    retriever = index.as_retriever(similarity_top_k=2, vector_store_query_mode=mode)
    query = Hypothesis().run("which barks at night")
    for found in (retriever.retrieve(query), await retriever.aretrieve(query)):
        assert ids(found)[0] == "bird"
        assert all(scored.score <= 1 for scored in found)
    assert ids(TransformRetriever(retriever, Hypothesis()).retrieve("which barks at night"))[0] == "bird"
    engine = TransformQueryEngine(index.as_query_engine(similarity_top_k=1), Hypothesis())
    assert ids(engine.query("which barks at night").source_nodes) == ["bird"]
    assert ids((await engine.aquery("which barks at night")).source_nodes) == ["bird"]
    assert ids(retriever.retrieve("which barks at night"))[0] == "dog"


def test_several_texts_of_one_query_are_averaged_as_by_the_retriever(store):
    query = QueryBundle("what", custom_embedding_strs=["the cat sat", "dog barks"])
    found = store.as_index().as_retriever(similarity_top_k=3).retrieve(query)
    expected = ColBERTRetriever(store.index, 3).retrieve(query)
    assert ids(found) == ids(expected)
    assert [scored.score for scored in found] == [scored.score for scored in expected]


def test_an_empty_store_finds_nothing_and_says_why(words, caplog):
    assert ColBERTVectorStore(words).query(ask("dog")).ids == []
    assert "embed_model" in caplog.text


def test_mistakes_are_errors(store):
    with pytest.raises(ValueError, match="set query_str"):
        store.query(VectorStoreQuery(query_embedding=[1.0]))
    assert store.query(ask("  ")).ids == []
    with pytest.raises(ValueError, match="modes 'default', 'hybrid', 'text_search', 'sparse' and 'mmr', not"):
        store.query(ask("dog", mode=VectorStoreQueryMode.SEMANTIC_HYBRID))
    with pytest.raises(TypeError, match="query takes no keyword 'tau'"):
        store.query(ask("dog"), tau=1)
    with pytest.raises(TypeError, match="'tau'"):
        store.query(ask("dog", mode=VectorStoreQueryMode.MMR), tau=1)
    with pytest.raises(TypeError, match="add takes no keyword 'batch'"):
        store.add(nodes(), batch=1)
    with pytest.raises(TypeError, match="delete takes no keyword"):
        store.delete("x", now=True)
    with pytest.raises(ValueError, match="needs node_ids=... or filters=..."):
        store.delete_nodes()
    with pytest.raises(ValueError, match="clear"):
        store.delete_nodes(filters=MetadataFilters(filters=[]))
    with pytest.raises(ValueError, match="persistdir"):
        ColBERTVectorStore(persistdir="x", index=store.index)
    for of_one in (None, one("year", 2020)):
        with pytest.raises(TypeError, match="one str"):
            store.get_nodes("cat", of_one)
        with pytest.raises(TypeError, match="one str"):
            store.delete_nodes("cat", of_one)


# Nodes in and out


async def test_nodes_are_got_deleted_and_cleared_sync_and_async(store):
    ids = lambda found: [n.node_id for n in found]  # noqa: E731
    assert store.get_nodes() == nodes() == await store.aget_nodes()
    assert ids(store.get_nodes(["fish", "gone", "cat"])) == ["fish", "cat"]
    assert ids(store.get_nodes(filters=one("year", 2020, ">="))) == ["cat", "dog"]
    assert ids(await store.aget_nodes(["fish", "dog"], one("year", 2020, ">="))) == ["dog"]
    store.delete_nodes(["cat", "gone"])
    await store.adelete_nodes(filters=one("year", "unknown"))
    assert ids(store.get_nodes()) == ["dog", "fish"]
    await store.adelete_nodes(["dog", "fish"], one("year", 2021))
    assert ids(store.get_nodes()) == ["fish"]
    store.delete("nobody.txt")
    await store.async_add(nodes())
    await store.adelete("pets.txt")
    assert sorted(ids(store.get_nodes())) == ["bird", "fish"]
    await store.aclear()
    assert store.get_nodes() == []
    store.add(nodes())
    store.clear()
    assert store.get_nodes() == []


def test_adding_a_known_node_replaces_it_and_inputs_are_not_shared(store):
    given_nodes = nodes()
    assert store.add(given_nodes) == ["cat", "dog", "bird", "fish"]
    store.get_nodes()[0].metadata["year"] = "spoilt"
    store.query(ask("cat")).nodes[0].metadata["year"] = "spoilt"
    assert given_nodes == nodes()
    assert store.get_nodes() == nodes()


async def test_every_async_method_leaves_the_event_loop_free(words):
    store = ColBERTVectorStore(words)
    loop_thread = threading.get_ident()
    ran_on = []

    class Watched(ColBERTVectorStore):
        def add(self, *args, **kwargs):
            ran_on.append(threading.get_ident())
            return super().add(*args, **kwargs)

        def query(self, *args, **kwargs):
            ran_on.append(threading.get_ident())
            return super().query(*args, **kwargs)

        def delete(self, *args, **kwargs):
            ran_on.append(threading.get_ident())
            return super().delete(*args, **kwargs)

        def delete_nodes(self, *args, **kwargs):
            ran_on.append(threading.get_ident())
            return super().delete_nodes(*args, **kwargs)

        def get_nodes(self, *args, **kwargs):
            ran_on.append(threading.get_ident())
            return super().get_nodes(*args, **kwargs)

        def clear(self):
            ran_on.append(threading.get_ident())
            return super().clear()

    store = Watched(words)
    await store.async_add(nodes())
    await asyncio.gather(store.aquery(ask("dog")), store.aget_nodes(), store.adelete("pets.txt"))
    await store.adelete_nodes(["fish"])
    await store.aclear()
    assert len(ran_on) == 6
    assert loop_thread not in ran_on


def test_threads_share_a_store_while_one_adds(store):
    expected = store.query(ask("dog barks", 1)).ids
    with ThreadPoolExecutor(8) as pool:
        searches = [pool.submit(store.query, ask("dog barks", 1)) for _ in range(40)]
        adds = [pool.submit(store.add, [node(f"n{i}", "snow falls")]) for i in range(10)]
        assert all(search.result().ids == expected for search in searches)
        assert [add.result() for add in adds] == [[f"n{i}"] for i in range(10)]
    assert len(store.get_nodes()) == 14


# In LlamaIndex


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_pipeline_with_a_docstore_adds_updates_skips_and_deletes(words, asynchronous):
    store = ColBERTVectorStore(words)
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=60, chunk_overlap=0), store.embed_model],
        docstore=SimpleDocumentStore(),
        vector_store=store,
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
    )

    async def run(*documents):
        given_documents = [Document(id_=name, text=text) for name, text in documents]
        return await (pipeline.arun if asynchronous else asyncio.to_thread)(
            *([] if asynchronous else [pipeline.run]), documents=given_documents
        )

    long = "The dog barks. " * 40
    first = await run(("a.txt", long), ("b.txt", "The cat purrs."))
    assert len(first) == len(store.get_nodes()) > 3
    assert await run(("a.txt", long), ("b.txt", "The cat purrs.")) == []
    assert len(store.get_nodes()) == len(first)
    assert len(await run(("a.txt", long), ("b.txt", "A whale sings."))) == 1
    assert len(store.get_nodes()) == len(first)
    assert [n.get_content() for n in store.get_nodes(filters=one("ref_doc_id", "b.txt"))] == ["A whale sings."]
    await run(("b.txt", "A whale sings."))
    assert [n.get_content() for n in store.get_nodes()] == ["A whale sings."]


async def test_as_an_index_it_needs_no_embedding_model_and_the_text_reaches_the_llm(store):
    index = store.as_index()
    retriever = index.as_retriever(similarity_top_k=1, filters=one("year", 2020, ">="))
    assert [scored.node.node_id for scored in retriever.retrieve("dog barks")] == ["dog"]
    assert [scored.node.node_id for scored in await retriever.aretrieve("dog barks")] == ["dog"]
    response = index.as_query_engine(similarity_top_k=1).query("what barks")
    assert "a dog barks at night" in str(response)
    assert "the cat sat" not in str(response)
    diverse = index.as_retriever(
        vector_store_query_mode="mmr", similarity_top_k=2, vector_store_kwargs={"mmr_threshold": 0.1, "mmr_prefetch_k": 4}
    )
    assert [scored.node.node_id for scored in diverse.retrieve("dog barks")] == [
        hit.passage.id for hit in store.index.search_diverse("dog barks", 2, 4, 0.1)
    ]
    index.insert(Document(id_="sea.txt", text="A whale sings."))
    assert index.as_retriever(similarity_top_k=1).retrieve("whale")[0].node.ref_doc_id == "sea.txt"
    index.delete_ref_doc("sea.txt")
    index.update_ref_doc(Document(id_="wild.txt", text="An owl hoots."))
    assert len(store.get_nodes(filters=one("ref_doc_id", "wild.txt"))) == 1
    assert store.get_nodes(filters=one("ref_doc_id", "sea.txt")) == []


def test_an_index_node_does_not_hide_the_others(store):
    index = store.as_index()
    pointer = IndexNode(id_="p", text="questions about dogs", index_id="x", obj=TextNode(id_="target", text="all about dogs"))
    index.insert_nodes([pointer, node("zebra", "a zebra runs")])
    found = [scored.node.node_id for scored in index.as_retriever(similarity_top_k=9).retrieve("a zebra runs")]
    assert sorted(found) == ["bird", "cat", "dog", "fish", "target", "zebra"]
    assert found[0] == "zebra"
    assert index.as_retriever(node_ids=["cat"]).retrieve("zebra")[0].node.node_id == "cat"


def test_a_storage_context_persists_it_beside_its_own_files(store, words, tmp_path):
    context = StorageContext.from_defaults(vector_store=store)
    folder = tmp_path / "storage"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for _ in range(2):
        context.persist(str(folder))
    assert (folder / "notes.txt").read_text() == "mine"
    opened = ColBERTVectorStore.from_persist_dir(folder, model=words)
    assert opened.get_nodes() == store.get_nodes()
    assert opened.query(ask("dog barks")) == store.query(ask("dog barks"))
    again = StorageContext.from_defaults(persist_dir=str(folder), vector_store=opened)
    assert again.vector_store is opened
    assert StorageContext.from_defaults(persist_dir=str(folder)).docstore.docs == {}
    opened.add([node("new", "snow falls")])
    opened.persist(str(folder / "default__vector_store.json"))
    assert len(ColBERTVectorStore.from_persist_dir(folder, model=words).get_nodes()) == 5
    with pytest.raises(IndexNotFoundError, match="'other__vector_store'"):
        ColBERTVectorStore.from_persist_dir(folder, "other")


def test_persist_takes_local_file_systems_only(store, tmp_path):
    class Remote:
        protocol = ("s3", "s3a")

    class Local:
        protocol = ("file", "local")

    store.persist(tmp_path / "x" / "vectors.json", Local())
    assert (tmp_path / "x" / "vectors.idx").is_dir()
    with pytest.raises(ValueError, match="s3"):
        store.persist("bucket/vectors.json", Remote())


def test_one_index_serves_all(store, words):
    assert LangChainRetriever(index=store.index).invoke("dog barks")[0].id == "dog"
    assert ColBERTRetriever(store.index).retrieve("dog barks")[0].node.node_id == "dog"
    assert ColBERTRetriever.from_defaults(store.index).index is store.index
    plain = ColBERTVectorStore(index=Index.create(None, words))
    LangChainRetriever(index=plain.index).index.add([Passage("x", "a whale sings", {"page": 7})])
    (found,) = plain.get_nodes()
    assert (found.node_id, found.get_content(), found.metadata) == ("x", "a whale sings", {"page": 7})


# Copies


def test_it_is_what_llama_index_expects_it_to_be(words):
    assert BasePydanticVectorStore.__name__ in [base.__name__ for base in ColBERTVectorStore.__mro__]
    store = ColBERTVectorStore(words)
    assert store.client is store.index
    assert (store.stores_text, store.is_embedding_query) == (True, False)
    assert ColBERTVectorStore.class_name() == store.to_dict()["class_name"] == "ColBERTVectorStore"


def test_pickles_and_copies_hold_the_nodes_and_copies_share_the_model(stanford, tmp_path):
    for path in (None, tmp_path / "index"):
        store = ColBERTVectorStore(stanford, path)
        store.add(nodes())
        pickled, copied = pickle.loads(pickle.dumps(store)), copy.deepcopy(store)
        assert copied.index.encoder is stanford
        for other in (pickled, copied):
            assert other.get_nodes() == nodes()
            assert other.query(ask("the cat")) == store.query(ask("the cat"))
        copied.clear()
        assert len(store.get_nodes()) == (4 if path is None else 0)  # on disk it is the same folder


def test_settings_go_to_a_dict_and_back(stanford_folder, tmp_path):
    store = ColBERTVectorStore(stanford_folder, tmp_path / "index")
    store.add(nodes())
    settings_ = json.loads(store.to_json())
    assert settings_ == {
        "stores_text": True,
        "is_embedding_query": False,
        "flat_metadata": False,
        "collection_name": None,
        "model": str(stanford_folder),
        "path": str(tmp_path / "index"),
        "show_progress": None,
        "class_name": "ColBERTVectorStore",
    }
    assert ColBERTVectorStore.from_dict(settings_).get_nodes() == nodes()


def test_another_model_than_the_index_was_made_with_is_an_error(words, tmp_path):
    ColBERTVectorStore(words, tmp_path / "index").add(nodes())
    with pytest.raises(EncoderMismatchError):
        ColBERTVectorStore(WordEncoder(dim=32), tmp_path / "index")


# A folder that is not there


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.query(ask("dog")),
        lambda store: store.query(ask("dog", mode=VectorStoreQueryMode.MMR)),
        lambda store: store.as_index().as_retriever().retrieve("dog"),
        lambda store: store.get_nodes(["dog"]),
        lambda store: store.get_nodes(),
        lambda store: store.delete("pets.txt"),
        lambda store: store.delete_nodes(["dog"]),
        lambda store: store.delete_nodes(filters=one("year", 2020)),
        lambda store: store.clear(),
        lambda store: store.persist(Path(store.path).parent / "copy.json"),
        lambda store: StorageContext.from_defaults(vector_store=store).persist(str(Path(store.path).parent / "storage")),
        lambda store: ColBERTRetriever(store.index),
        lambda store: ColBERTRetriever.from_defaults(store.as_index()),
        lambda store: store.client,
        lambda store: asyncio.run(store.aquery(ask("dog"))),
    ],
)
def test_in_a_mistyped_folder_all_but_adding_is_an_error_and_makes_nothing(words, tmp_path, use):
    store = ColBERTVectorStore(words, tmp_path / "there" / "wikki.idx")
    with pytest.raises(IndexNotFoundError, match=r"no folder .*wikki\.idx.*check its name, or add nodes"):
        use(store)
    assert list(tmp_path.glob("**/*.idx")) == []
    assert "nothing added" in repr(store)


@pytest.mark.parametrize(
    "add",
    [
        lambda store: store.add(nodes()),
        lambda store: asyncio.run(store.async_add(nodes())),
        lambda store: store.as_index().insert_nodes(nodes()),
        lambda store: IngestionPipeline(transformations=[store.embed_model], vector_store=store).run(nodes=nodes()),
        lambda store: pickle.loads(pickle.dumps(store)).add(nodes()),
        lambda store: copy.deepcopy(store).add(nodes()),
    ],
)
def test_adding_makes_the_folder_which_other_stores_see(stanford, tmp_path, add):
    store = ColBERTVectorStore(stanford, tmp_path / "idx")
    waiting = ColBERTVectorStore(stanford, tmp_path / "idx")
    add(store)
    assert (tmp_path / "idx").is_dir()
    for each in (store, waiting, ColBERTVectorStore(stanford, tmp_path / "idx")):
        assert len(each.get_nodes()) == 4


def test_two_stores_of_a_folder_that_is_not_there_share_what_the_first_makes(words, tmp_path):
    stores = [ColBERTVectorStore(words, tmp_path / "idx") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda pair: pair[1].add([node(str(pair[0]), "the dog barks")]), enumerate(stores)))
    assert sorted(found.node_id for found in stores[0].get_nodes()) == [str(place) for place in range(8)]


def test_a_folder_that_is_there_and_empty_is_an_empty_store(words, tmp_path):
    assert ColBERTVectorStore(words, tmp_path).query(ask("dog")).ids == []


def test_a_line_says_what_it_is(words, tmp_path):
    store = ColBERTVectorStore(words, tmp_path / "idx")
    store.add(nodes())
    inner = f"Index('{tmp_path / 'idx'}', 4 passages, 'words')"
    index = ColBERTIndex.load(tmp_path / "idx", model_name=words)
    assert repr(store) == str(store) == f"ColBERTVectorStore({inner})"
    assert repr(index) == str(index) == f"ColBERTIndex({inner})"
    assert repr(index.as_retriever()) == f"ColBERTRetriever({inner}, similarity_top_k=2)"
    with pytest.raises(TypeError, match="index must be an Index of colbert_core, got ColBERTIndex"):
        ColBERTVectorStore(index=index)
