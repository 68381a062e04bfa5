"""The LlamaIndex vector store, and metadata filters against a filter that is evaluated one passage at a time."""

from __future__ import annotations

import asyncio
import copy
import json
import operator
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from builders.encoders import WordEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core import Settings, StorageContext
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document, ImageNode, IndexNode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from colbert_core import EncoderMismatchError, Index, IndexNotFoundError, Passage
from langchain_colbert import ColBERTRetriever as LangChainRetriever
from llama_index_colbert import ColBERTRetriever, ColBERTVectorStore


@pytest.fixture(autouse=True)
def fake_llm(monkeypatch):
    monkeypatch.setattr(Settings, "_llm", MockLLM())


def node(node_id, text, source=None, **metadata):
    made = TextNode(id_=node_id, text=text, metadata=metadata, excluded_embed_metadata_keys=list(metadata))
    if source is not None:
        made.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=source)
    return made


def nodes():
    return [
        node("cat", "the cat sat on the mat", "pets.txt", year=2020, tags=["fur", "claws"]),
        node("dog", "a dog barks at night", "pets.txt", year=2021, tags=["fur"]),
        node("bird", "a bird sings a song", "wild.txt", year="unknown"),
        node("fish", "fish swim in the sea"),
    ]


@pytest.fixture(params=["memory", "disk"])
def store(request, words, tmp_path):
    store = ColBERTVectorStore(words, None if request.param == "memory" else tmp_path / "index")
    store.add(nodes())
    return store


def ask(text, k=10, **fields):
    return VectorStoreQuery(query_str=text, similarity_top_k=k, **fields)


def one(key, value=None, operator="=="):
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


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


def test_an_empty_store_finds_nothing_and_says_why(words, caplog):
    assert ColBERTVectorStore(words).query(ask("dog")).ids == []
    assert "embed_model" in caplog.text


def test_mistakes_are_errors(store):
    with pytest.raises(ValueError, match="set query_str"):
        store.query(VectorStoreQuery(query_embedding=[1.0]))
    with pytest.raises(ValueError, match="is empty"):
        store.query(ask("  "))
    with pytest.raises(ValueError, match="modes 'default' and 'mmr'"):
        store.query(ask("dog", mode=VectorStoreQueryMode.HYBRID))
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
    with pytest.raises(TypeError, match="one str"):
        store.get_nodes("cat")


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


def test_other_nodes_come_back_as_what_they_are(store):
    image = ImageNode(id_="image", text="a picture of a whale", image_url="http://example.org/whale.png")
    store.add([image, Document(id_="doc", text="about whales")])
    found = {n.node_id: n for n in store.get_nodes(["image", "doc"])}
    assert isinstance(found["image"], ImageNode)
    assert found["image"].image_url == image.image_url
    assert found["doc"].get_content() == "about whales"


def test_a_users_own_doc_id_can_be_filtered_by(store):
    store.add([node("own", "a whale sings", "sea.txt", doc_id=7)])
    assert store.query(ask("whale", 9, filters=one("doc_id", 7))).ids == ["own"]
    assert store.query(ask("whale", 9, filters=one("doc_id", "pets.txt"))).ids == ["cat", "dog"]
    assert store.query(ask("whale", 9, doc_ids=["sea.txt"])).ids == ["own"]
    assert store.get_nodes(["own"])[0].metadata == {"doc_id": 7}


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
        "model": str(stanford_folder),
        "path": str(tmp_path / "index"),
        "class_name": "ColBERTVectorStore",
    }
    assert ColBERTVectorStore.from_dict(settings_).get_nodes() == nodes()


def test_another_model_than_the_index_was_made_with_is_an_error(words, tmp_path):
    ColBERTVectorStore(words, tmp_path / "index")
    with pytest.raises(EncoderMismatchError):
        ColBERTVectorStore(WordEncoder(dim=32), tmp_path / "index")


# Filters


MISSING = object()


def matches(filters, metadata):
    """What a filter means, one passage at a time."""
    if isinstance(filters, MetadataFilters):
        results = [matches(inner, metadata) for inner in filters.filters]
        if filters.condition == FilterCondition.NOT and results:
            return not any(results)
        return any(results) or not results if filters.condition == FilterCondition.OR else all(results)
    return MEANINGS[filters.operator](metadata.get(filters.key, MISSING), filters.value)


def ordered(compare):
    def meaning(value, wanted):
        alike = (is_number(value) and is_number(wanted)) or (isinstance(value, str) and isinstance(wanted, str))
        return alike and compare(value, wanted)

    return meaning


def one_of(value, options):
    return any(same(value, option) for option in options)


def has(value, wanted):
    return isinstance(value, list) and any(same(element, wanted) for element in value)


MEANINGS = {
    FilterOperator.EQ: lambda value, wanted: same(value, wanted),
    FilterOperator.NE: lambda value, wanted: not same(value, wanted),
    FilterOperator.GT: ordered(operator.gt),
    FilterOperator.GTE: ordered(operator.ge),
    FilterOperator.LT: ordered(operator.lt),
    FilterOperator.LTE: ordered(operator.le),
    FilterOperator.IN: one_of,
    FilterOperator.NIN: lambda value, options: not one_of(value, options),
    FilterOperator.CONTAINS: has,
    FilterOperator.ANY: lambda value, options: any(has(value, option) for option in options),
    FilterOperator.ALL: lambda value, options: isinstance(value, list) and all(has(value, option) for option in options),
    FilterOperator.TEXT_MATCH: lambda value, part: isinstance(value, str) and part in value,
    FilterOperator.TEXT_MATCH_INSENSITIVE: lambda value, part: isinstance(value, str) and part.casefold() in value.casefold(),
    FilterOperator.IS_EMPTY: lambda value, _: value is MISSING or value is None or value in ("", [], {}),
}


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def same(value, wanted):
    if is_number(value) and is_number(wanted):
        return value == wanted
    return type(value) is type(wanted) and value == wanted


WORDS = st.sampled_from(["", "a", "A", "ab", "ß", "SS", "2", "a.b", "\\", "$x"])
NUMBERS = st.one_of(st.integers(-2, 3), st.sampled_from([0.5, 1.0, 2.0, -1.5]))
SCALARS = st.one_of(WORDS, NUMBERS)
KEYS = st.sampled_from(["x", "y", "a.b", "a\\.b", "$z", "\\", "with space", ""])
VALUES = st.one_of(SCALARS, st.booleans(), st.none(), st.lists(st.one_of(SCALARS, st.none(), st.booleans()), max_size=3))
METADATA = st.dictionaries(KEYS, st.one_of(VALUES, st.just({"b": 1})), max_size=4)


@st.composite
def single_filters(draw):
    wanted = draw(st.sampled_from(list(FilterOperator)))
    if wanted in (FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL):
        value = draw(st.one_of(st.lists(WORDS, max_size=3), st.lists(NUMBERS, max_size=3)))
        if any(isinstance(option, float) for option in value):
            value = [float(option) for option in value]
    elif wanted in (FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE):
        value = draw(WORDS)
    elif wanted in (FilterOperator.EQ, FilterOperator.NE, FilterOperator.CONTAINS):
        value = draw(st.one_of(SCALARS, st.none()))
    else:
        value = draw(SCALARS)
    return MetadataFilter(key=draw(KEYS), value=value, operator=wanted)


def joined(inner):
    return st.builds(MetadataFilters, filters=st.lists(inner, max_size=3), condition=st.sampled_from([*FilterCondition, None]))


@settings(max_examples=300)
@given(
    st.lists(METADATA, min_size=1, max_size=5),
    joined(st.recursive(single_filters(), joined, max_leaves=5)),
)
def test_filters_mean_what_they_say_nested_mixed_and_missing(metadatas, filters):
    index = SHARED
    index.clear()
    passages = [node(str(position), "x") for position in range(len(metadatas))]
    for passage, metadata in zip(passages, metadatas, strict=True):
        passage.metadata = metadata
        passage.excluded_embed_metadata_keys = list(metadata)
    store = ColBERTVectorStore(index=index)
    store.add(passages)
    expected = [passage.node_id for passage in passages if matches(filters, passage.metadata)]
    assert [n.node_id for n in store.get_nodes(filters=filters)] == expected
    assert sorted(store.query(ask("x", 9, filters=filters)).ids) == expected


SHARED = Index.create(None, WordEncoder(dim=8))


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("in", "abc", "a list"),
        ("any", 1, "a list"),
        ("text_match", 1, "a string"),
        (">", ["a"], "a number"),
        ("==", ["a"], "one"),
    ],
)
def test_a_value_of_the_wrong_kind_names_the_filter(store, name, value, takes):
    with pytest.raises(TypeError, match=f"'{name}' on 'year' takes {takes}"):
        store.query(ask("dog", filters=one("year", value, name)))


def test_filters_of_another_type_are_errors(store):
    for make in (lambda: store.get_nodes(filters={"year": 1}), lambda: ColBERTRetriever(store.index, filters={"year": 1})):
        with pytest.raises(TypeError, match="must be MetadataFilters, got dict"):
            make()
    with pytest.raises(TypeError, match="doc_ids must be a list"):
        ColBERTRetriever(store.index, doc_ids="pets.txt")
