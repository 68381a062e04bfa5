"""The LangChain vector store: LangChain's own suites over three kinds of index, its indexing API, and what users trip over."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from builders.documents import TAGGED_DOCUMENTS as DOCUMENTS
from builders.documents import ids
from builders.encoders import WordEncoder
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, aindex, index
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests

from colbert_core import EncoderMismatchError, FilterWarning, Index, IndexExistsError, IndexNotFoundError, Passage
from langchain_colbert import ColBERTRetriever, ColBERTVectorStore

# LangChain's standard suites, with the model in the box


def compressed_index(encoder):
    """Empty, with a codec that was fitted to something else."""
    index = Index.create(None, encoder, nbits=4)
    index.add([Passage(str(n), f"Sentence {n} is about {word} and other things.") for n, word in enumerate(FILLER)])
    index.compact()
    assert index.stats().centroids
    index.delete(index.ids())
    return index


FILLER = ["cats", "dogs", "trees", "rivers", "houses", "music", "history", "cooking", "football", "planets"] * 12


class ReopenedStore(ColBERTVectorStore):
    """Every call finds the index as another process would: opened anew, from disk."""

    @property
    def index(self):
        return Index.open(self.folder, self.encoder)


@pytest.fixture(params=["in memory", "reopened", "compressed"])
def empty_store(request, default_encoder, tmp_path):
    if request.param == "in memory":
        return ColBERTVectorStore(default_encoder)
    if request.param == "compressed":
        return ColBERTVectorStore(index=compressed_index(default_encoder))
    store = ReopenedStore()
    store.folder, store.encoder = tmp_path / "idx", default_encoder
    Index.create(store.folder, default_encoder).close()
    return store


class TestStandardStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, empty_store):
        return empty_store


class TestStandardRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def filled(self, empty_store):
        empty_store.add_documents(DOCUMENTS)
        self._index = empty_store.index

    @property
    def retriever_constructor(self):
        return ColBERTRetriever

    @property
    def retriever_constructor_params(self):
        return {"index": self._index}

    @property
    def retriever_query_example(self):
        return "Which animal makes a noise?"


# Searching


def test_documents_come_back_as_they_went_in_with_nothing_added(store):
    (found,) = store.similarity_search("dog barks", k=1)
    assert found == DOCUMENTS[1]
    found.metadata["page"] = "spoilt"
    assert store.similarity_search("dog barks", k=1)[0] == DOCUMENTS[1]


def test_scores_are_maxsim_and_relevance_is_from_0_to_1_both_plain_numbers(store):
    (document, score), (_, less) = store.similarity_search_with_score("dog barks", k=2, mode="maxsim")
    assert (document.id, score) == ("dog", pytest.approx(2))
    assert less < score
    (document, relevance), *_ = store.similarity_search_with_relevance_scores("dog barks", k=2, mode="maxsim")
    assert (document.id, relevance) == ("dog", pytest.approx(1))
    json.dumps([score, relevance])
    hits = store.index.search("dog barks", 2, mode="hybrid")
    assert [score for _, score in store.similarity_search_with_score("dog barks", k=2)] == [hit.value for hit in hits]
    reported = [score for _, score in store.similarity_search_with_relevance_scores("dog barks", k=2)]
    assert reported == [min(1.0, hit.value) for hit in hits]
    json.dumps(reported)


def test_a_filter_on_a_field_that_no_document_has_is_said_and_one_that_is_a_function_is_not(store):
    with pytest.warns(FilterWarning, match="No passage has the field 'sorce' that the filter asks for") as caught:
        assert store.similarity_search("cat", filter={"sorce": "a"}) == []
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.warns(FilterWarning, match="No passage has the field 'pgae'"):
        assert store.as_retriever(filter={"pgae": 1}).invoke("cat") == []
    with pytest.warns(FilterWarning, match="No passage has the field 'pagee'"):
        store.delete(filter={"pagee": 1})
    assert store.similarity_search("cat", filter=lambda document: "x" in document.metadata) == []


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        ({"page": 2}, {"dog"}),
        ({"page": {"$gte": 4}}, {"rust", "fish"}),
        ({"$or": [{"kind": "pet"}, {"tags": {"$contains": "small"}}]}, {"cat", "dog", "bird"}),
        ({"kind": {"$exists": False}}, {"bird", "rust", "fish"}),
        (lambda document: document.id == "rust" and document.page_content.startswith("rust"), {"rust"}),
        ({"page": 99}, set()),
    ],
)
async def test_a_filter_is_applied_before_k_on_every_path_sync_and_async(store, filter_, expected):
    searches = [
        store.similarity_search,
        store.max_marginal_relevance_search,
        lambda *args, **kwargs: [document for document, _ in store.similarity_search_with_score(*args, **kwargs)],
        lambda *args, **kwargs: [document for document, _ in store.similarity_search_with_relevance_scores(*args, **kwargs)],
        lambda query, k, filter: store.as_retriever(k=k, filter=filter).invoke(query),
        lambda query, k, filter: store.as_retriever(score_threshold=0).invoke(query, k=k, filter=filter),
        lambda query, k, filter: store.as_retriever(search_type="mmr").invoke(query, k=k, filter=filter),
        lambda query, k, filter: store.search(query, "similarity_score_threshold", k=k, filter=filter),
    ]
    for search in searches:
        assert set(ids(search("cat dog", k=3, filter=filter_))) == expected
    assert set(ids(await store.asimilarity_search("cat dog", k=3, filter=filter_))) == expected
    assert set(ids(await store.amax_marginal_relevance_search("cat dog", k=3, filter=filter_))) == expected
    found = await store.asimilarity_search_with_relevance_scores("cat dog", k=3, filter=filter_, score_threshold=0)
    assert {document.id for document, _ in found} == expected


def test_a_threshold_acts_on_relevance_and_may_be_whole(store):
    assert ids(store.similarity_search("dog barks", score_threshold=0.9)) == ["dog"]
    assert store.similarity_search_with_relevance_scores("dog sings", score_threshold=1) == []
    for arguments in (
        {"score_threshold": 1},
        {"search_type": "similarity_score_threshold", "search_kwargs": {"score_threshold": 1}},
        {"search_type": "mmr", "score_threshold": 1},
    ):
        assert store.as_retriever(**arguments).invoke("dog sings") == []


def test_marginal_relevance_prefers_what_differs(words):
    store = ColBERTVectorStore.from_texts(["a b c d", "a b c d", "a b x y"], ids=["one", "copy", "other"], model=words)
    assert ids(store.similarity_search("a b c", k=2)) == ["copy", "one"]
    assert ids(store.max_marginal_relevance_search("a b c", k=2, lambda_mult=0.3)) == ["copy", "other"]
    assert ids(store.as_retriever(k=2, lambda_mult=0.3).invoke("a b c")) == ["copy", "other"]
    assert ids(store.as_retriever(search_type="mmr", k=1, fetch_k=1).invoke("a b c")) == ["copy"]


def test_as_retriever_understands_arguments_wherever_they_stand(store):
    assert len(store.as_retriever(k=2).invoke("dog")) == 2
    assert len(store.as_retriever(search_kwargs={"k": 2}).invoke("dog")) == 2
    assert len(store.as_retriever(k=1, search_kwargs={"k": 2}).invoke("dog")) == 1
    assert len(store.as_retriever(k=1).invoke("dog", k=3)) == 3
    assert ids(store.as_retriever(filter={"page": 1}, name="mine").invoke("dog")) == ["cat"]
    assert store.as_retriever(tags=["x"], name="mine").name == "mine"


async def test_what_as_retriever_does_not_know_is_an_error(store):
    for wrong in ({"top_k": 3}, {"search_kwargs": {"kk": 3}}, {"search_type": "similarity", "fetch_k": 9}):
        with pytest.raises(TypeError, match="as_retriever takes k, filter, score_threshold"):
            store.as_retriever(**wrong)
    with pytest.raises(ValueError, match="search_type must be one of similarity"):
        store.as_retriever(search_type="sparse")
    with pytest.raises(ValueError, match="score_threshold"):
        store.as_retriever(search_type="similarity_score_threshold")
    with pytest.raises(TypeError, match="top_k"):
        store.as_retriever().invoke("dog", top_k=3)
    with pytest.raises(TypeError, match="top_k"):
        await store.as_retriever().ainvoke("dog", top_k=3)


async def test_mistakes_are_errors_not_silence(store):
    with pytest.raises(TypeError, match="fetch"):
        store.similarity_search("dog", fetch=3)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        await store.asimilarity_search("dog", k=0)
    with pytest.raises(ValueError, match=r"\$near.*is no operator"):
        store.similarity_search("dog", filter={"page": {"$near": 3}})
    assert store.similarity_search("  ") == []
    with pytest.raises(NotImplementedError, match="one vector for each word"):
        store.similarity_search_by_vector([0.1, 0.2])
    with pytest.raises(NotImplementedError, match="one vector for each word"):
        store.max_marginal_relevance_search_by_vector([0.1, 0.2])
    with pytest.raises(ValueError, match="There are 2 texts but 1 metadatas"):
        store.add_texts(["a", "b"], [{}])
    with pytest.raises(ValueError, match="There are 1 documents but 2 ids"):
        store.add_documents([Document("a")], ids=["x", "y"])
    with pytest.raises(ValueError, match="stand more than once"):
        store.add_texts(["a", "b"], ids=["x", "x"])
    with pytest.raises(TypeError, match="page is a bytes"):
        store.add_documents([Document("a", metadata={"page": b"1"})])
    with pytest.raises(TypeError, match="texts must be a list of strings"):
        store.add_texts("one text")
    with pytest.raises(ValueError, match="got neither; filter={} deletes everything"):
        store.delete()
    with pytest.raises(ValueError, match="got both"):
        store.delete(["cat"], filter={})
    with pytest.raises(TypeError, match="search_kwarg"):
        ColBERTVectorStore(search_kwarg=3)
    with pytest.raises(ValueError, match="index= brings its own model"):
        ColBERTVectorStore("model", index=store.index)
    assert len(store) == 5


# Adding and deleting


async def test_the_indexing_api_adds_skips_updates_and_deletes_what_it_says(words):
    store = ColBERTVectorStore(words)
    records = InMemoryRecordManager(namespace="test")
    records.create_schema()
    documents = [Document(f"text {n}", metadata={"source": f"s{n % 2}"}) for n in range(4)]

    def counts(result):
        return tuple(result[f"num_{what}"] for what in ("added", "updated", "skipped", "deleted"))

    def run(documents, cleanup):
        return counts(index(documents, records, store, cleanup=cleanup, source_id_key="source", key_encoder="sha256"))

    assert run(documents, None) == (4, 0, 0, 0)
    assert run(documents, None) == (0, 0, 4, 0)
    assert run([*documents[:3], Document("new text", metadata={"source": "s1"})], "incremental") == (1, 0, 3, 1)
    assert run([documents[0], Document("newer", metadata={"source": "s0"})], "scoped_full") == (1, 0, 1, 1)
    assert run(documents[:1], "full") == (0, 0, 1, 3)
    assert [document.page_content for document in store.similarity_search("text 0", k=9)] == ["text 0"]
    again = await aindex(documents, records, store, cleanup="full", source_id_key="source", key_encoder="sha256")
    assert counts(again) == (3, 0, 1, 0)
    assert len(store) == 4


# Keeping


def test_a_persisted_store_is_there_again_and_takes_changes(words, tmp_path):
    folder = tmp_path / "store"
    store = ColBERTVectorStore(words, persist_directory=folder)
    assert not folder.exists()
    store.add_documents(DOCUMENTS)
    again = ColBERTVectorStore(words, persist_directory=folder)
    assert again.similarity_search("dog barks") == store.similarity_search("dog barks")
    again.delete(["dog"])
    store.add_texts(["a whale sings"], ids=["whale"])
    assert set(again.index.ids()) == set(store.index.ids()) == {"cat", "bird", "rust", "fish", "whale"}
    with pytest.raises(EncoderMismatchError):
        ColBERTVectorStore(WordEncoder(dim=32), persist_directory=folder)


def test_save_local_and_load_local(store, words, tmp_path):
    folder = tmp_path / "saved"
    store.save_local(folder)
    store.delete(["cat"])
    loaded = ColBERTVectorStore.load_local(folder, words)
    assert len(loaded) == 5
    store.save_local(folder)
    assert len(ColBERTVectorStore.load_local(folder, words)) == 4
    loaded = ColBERTVectorStore.load_local(folder, words)
    loaded.save_local(folder)
    assert len(loaded) == 4
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    with pytest.raises(IndexExistsError):
        store.save_local(tmp_path / "other")
    assert (tmp_path / "other" / "thesis.txt").read_text() == "precious"
    with pytest.raises(IndexNotFoundError):
        ColBERTVectorStore.load_local(tmp_path / "nowhere")


def test_copies_and_pickles_share_the_model_an_index_in_memory_goes_with_them_and_one_on_disk_does_not(stanford, tmp_path):
    memory = ColBERTVectorStore.from_documents(DOCUMENTS, model=stanford)
    disk = ColBERTVectorStore.from_documents(DOCUMENTS, model=stanford, persist_directory=tmp_path / "idx")
    for store, others in ((memory, 5), (disk, 6)):
        expected = store.similarity_search("the cat")
        copied, pickled = copy.deepcopy(store), pickle.loads(pickle.dumps(store))
        assert copied.similarity_search("the cat") == pickled.similarity_search("the cat") == expected
        assert copied.index.encoder is stanford
        store.add_texts(["one more"])
        assert len(copied) == len(pickled) == others
    assert len(pickle.dumps(disk)) < 2000
    assert len(pickle.loads(pickle.dumps(ColBERTVectorStore(stanford)))) == 0


def test_two_stores_of_a_folder_that_is_not_there_yet_share_what_the_first_makes(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = (ColBERTVectorStore(words, persist_directory="idx") for _ in range(2))
    monkeypatch.chdir("/")
    first.add_texts(["a dog barks"], ids=["dog"])
    assert ids(second.similarity_search("dog")) == ["dog"]
    assert (tmp_path / "idx").is_dir()


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.similarity_search("dog"),
        lambda store: store.similarity_search_with_score("dog"),
        lambda store: store.similarity_search_with_relevance_scores("dog"),
        lambda store: store.max_marginal_relevance_search("dog"),
        lambda store: store.as_retriever(k=2).invoke("dog"),
        lambda store: store.get_by_ids(["dog"]),
        lambda store: store.delete(["dog"]),
        lambda store: store.delete(filter={}),
        lambda store: store.save_local(store._path.parent / "copy"),
        lambda store: ColBERTRetriever(index=store.index),
    ],
)
def test_in_a_mistyped_folder_all_but_adding_is_an_error_and_makes_nothing(words, tmp_path, use):
    store = ColBERTVectorStore(words, persist_directory=tmp_path / "wikki.idx")
    with pytest.raises(IndexNotFoundError, match=r"no folder .*wikki\.idx.*check its name, or add documents"):
        use(store)
    assert list(tmp_path.iterdir()) == []
    assert len(store) == 0
    store.add_texts(["a dog barks"], ids=["dog"])
    assert ids(store.similarity_search("dog")) == ["dog"]
    assert [path.name for path in tmp_path.iterdir()] == ["wikki.idx"]


async def test_in_a_mistyped_folder_an_async_search_is_an_error_as_well(words, tmp_path):
    store = ColBERTVectorStore(words, persist_directory=tmp_path / "wikki.idx")
    with pytest.raises(IndexNotFoundError, match="wikki"):
        await store.asimilarity_search("dog")
    with pytest.raises(IndexNotFoundError, match="wikki"):
        await store.as_retriever().ainvoke("dog")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_and_empty_is_an_empty_store(words, tmp_path):
    assert ColBERTVectorStore(words, persist_directory=tmp_path).similarity_search("dog") == []


def test_slips_from_other_stores_are_named(store):
    with pytest.raises(TypeError, match="no Embeddings are needed"):
        ColBERTVectorStore(object())
    with pytest.raises(TypeError, match=r"delete\(filter=\.\.\.\)"):
        store.delete({"page": 1})
    with pytest.raises(TypeError, match="not a Document"):
        store.add_documents(["text"])
    with pytest.raises(TypeError, match="must be a str"):
        store.add_documents([Document("x")], ids=[0])

    async def never(document):
        return False

    with pytest.raises(TypeError, match="async def"):
        store.delete(filter=never)
    assert len(store) == 5
    retriever = ColBERTRetriever(index=store.index)
    retriever.search_kwargs["top_k"] = 3
    with pytest.raises(ValueError, match="top_k"):
        retriever.invoke("dog")


def test_neither_model_nor_folder_before_the_first_use(monkeypatch, tmp_path):
    made = []
    create = Index.create
    monkeypatch.setattr(Index, "create", lambda *args, **kwargs: made.append(args) or create(*args, **kwargs))
    store = ColBERTVectorStore("no such model", persist_directory=tmp_path / "idx")
    assert "idx" in repr(store)
    assert made == []
    with pytest.raises(FileNotFoundError, match="no such model"):
        store.add_texts(["text"])
    assert not (tmp_path / "idx").exists()


async def test_from_texts_and_documents_take_no_embedding_and_say_so(words):
    assert ColBERTVectorStore.from_documents(DOCUMENTS, model=words).embeddings is None
    assert len(await ColBERTVectorStore.afrom_documents(DOCUMENTS, model=words)) == 5
    assert len(await ColBERTVectorStore.afrom_texts(["a b"], None, [{"n": 1}], ids=["x"], model=words)) == 1
    with pytest.warns(UserWarning, match="the embedding object is not used"):
        assert len(ColBERTVectorStore.from_texts(["a b"], object(), model=words)) == 1
    with pytest.warns(UserWarning, match="the embedding object is not used"):
        ColBERTVectorStore.from_documents(DOCUMENTS, object(), model=words)


# At once


async def test_every_async_method_leaves_the_event_loop_free(store, words, monkeypatch):
    """A task that ticks goes on ticking while the encoder waits for it."""
    ticks = threading.Semaphore(0)
    for name in ("encode_queries", "encode_passages"):
        encode = getattr(words, name)

        def encode_after_two_ticks(texts, encode=encode, **kwargs):
            for _ in range(2):
                assert ticks.acquire(timeout=10), "the event loop was held"
            return encode(texts, **kwargs)

        monkeypatch.setattr(words, name, encode_after_two_ticks)

    async def tick():
        while True:
            ticks.release()
            await asyncio.sleep(0.001)

    ticking = asyncio.create_task(tick())
    try:
        assert ids(await store.asimilarity_search("dog barks", k=1)) == ["dog"]
        assert len(await store.asimilarity_search_with_score("dog", k=1)) == 1
        assert len(await store.asimilarity_search_with_relevance_scores("dog", k=1)) == 1
        assert len(await store.amax_marginal_relevance_search("dog", k=1)) == 1
        assert await store.aadd_texts(["a whale"], ids=["whale"]) == ["whale"]
        assert await store.aadd_documents([Document("a hen", id="hen")]) == ["hen"]
        assert await store.adelete(["whale"])
        assert ids(await store.aget_by_ids(["hen"])) == ["hen"]
        assert len(await store.as_retriever().ainvoke("dog")) == 4
        assert len(await ColBERTRetriever(index=store.index).ainvoke("dog", k=6)) == 6
    finally:
        ticking.cancel()


def test_eight_threads_search_while_one_adds_and_deletes(store):
    stop = threading.Event()

    def change():
        while not stop.is_set():
            store.add_texts(["a whale sings", "an ant works"], ids=["whale", "ant"])
            store.delete(["whale", "ant"])

    writer = threading.Thread(target=change)
    writer.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda n: store.similarity_search(f"dog barks {n % 3}", k=3), range(200)))
    finally:
        stop.set()
        writer.join()
    assert all(documents[0].id == "dog" and len(documents) == 3 for documents in found)
