"""What takes an index takes shards: stores of both frameworks, reranking, evaluation and the command line."""

from __future__ import annotations

import io
import json
import os

import pytest
from builders.bars import write_to_terminal
from builders.cluster import PASSAGES, begin_shards
from builders.indexes import in_a_process

from colbert_core import Index, IndexExistsError, Reranker, open_index, open_or_create
from colbert_core.cluster import ShardedIndex
from colbert_core.evaluation import run_of, search_index

QUERY = "happy cats purr"


@pytest.fixture(autouse=True)
def no_cluster_at_hand(monkeypatch):
    """Shards are opened in this process, also while other tests have a cluster."""
    monkeypatch.setenv("RAY_ADDRESS", "local")


@pytest.fixture(scope="module")
def folders(stanford, codec, tmp_path_factory):
    """Two shards and one index of the same passages."""
    folder = tmp_path_factory.mktemp("users")
    begin_shards(folder / "two", 2, stanford, codec)
    with (
        Index.create(folder / "one", stanford, codec=codec) as one,
        ShardedIndex.open(folder / "two", stanford, address="local") as index,
    ):
        for each in (one, index):
            each.add(PASSAGES[:60], progress=False)
    return folder


@pytest.fixture(scope="module")
def both(folders, stanford):
    with (
        Index.open(folders / "one", stanford) as one,
        ShardedIndex.open(folders / "two", stanford, address="local") as index,
    ):
        yield one, index


def test_langchain_stores_search_shards_with_mmr_as_they_search_one_index(both, tmp_path):
    from langchain_core.documents import Document

    from langchain_colbert import ColBERTVectorStore

    of_one, store = (ColBERTVectorStore(index=index, show_progress=False) for index in both)
    options = {"k": 8, "fetch_k": 30, "lambda_mult": 0.2, "filter": {"year": {"$gte": 2001}}}
    found = store.max_marginal_relevance_search(QUERY, **options)
    assert [document.id for document in found] == [
        document.id for document in of_one.max_marginal_relevance_search(QUERY, **options)
    ]
    assert [document.id for document in found] != [
        document.id for document in store.similarity_search(QUERY, 8, filter=options["filter"])
    ]
    retriever = store.as_retriever(search_type="mmr", search_kwargs={"k": 3})
    assert len(retriever.invoke(QUERY)) == 3
    assert store.count() == of_one.count() == len(store) == 60
    assert {document.id for document in store.get(limit=60)} == {document.id for document in of_one.get(limit=60)}
    store.save_local(tmp_path / "copy")
    with pytest.raises(IndexExistsError, match="shards are not overwritten"):
        store.save_local(tmp_path / "copy")
    copy = ColBERTVectorStore.load_local(tmp_path / "copy")
    with copy.index as index:
        assert isinstance(index, ShardedIndex)
        copy.add_documents([Document("zebra zebra", id="zebra")])
        assert copy.similarity_search("zebra", k=1)[0].id == "zebra"
        assert copy.delete(["zebra"])
        assert len(copy) == 60
    named = ColBERTVectorStore(persist_directory=tmp_path / "copy")
    with named.index as index:
        assert isinstance(index, ShardedIndex)
        assert named.get_by_ids(["id3"])[0].page_content == PASSAGES[3].text


def test_llama_index_stores_search_shards_with_mmr_as_they_search_one_index(both, folders):
    from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

    from llama_index_colbert import ColBERTRetriever, ColBERTVectorStore

    of_one, store = (ColBERTVectorStore(index=index) for index in both)
    for mode in (VectorStoreQueryMode.MMR, VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.TEXT_SEARCH):
        query = VectorStoreQuery(query_str=QUERY, similarity_top_k=7, mode=mode)
        assert store.query(query).ids == of_one.query(query).ids
    assert [node.node_id for node in store.get_nodes(["id3", "id4"])] == ["id3", "id4"]
    retriever = ColBERTRetriever.from_index(folders / "two", similarity_top_k=4, evidence=True)
    with retriever.index as index:
        assert isinstance(index, ShardedIndex)
        found = retriever.retrieve(QUERY)
        assert [each.node.node_id for each in found] == [hit.passage.id for hit in both[0].search(QUERY, 4, mode="hybrid")]
        assert all("evidence" in each.node.metadata for each in found)


def test_folders_of_shards_open_like_those_of_one_index(folders):
    for opened in (open_index(folders / "two"), open_or_create(folders / "two")):
        with opened as index:
            assert isinstance(index, ShardedIndex)
            assert len(index) == 60


def test_shards_in_this_process_have_no_replicas(folders):
    with pytest.raises(ValueError, match="address 'local' has one replica of each shard, this process, and replicas is 2"):
        ShardedIndex.open(folders / "two", address="local", replicas=2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
def test_a_forked_process_searches_shards_as_its_parent_does(folders):
    code = """
    from colbert_core.cluster import ShardedIndex
    with ShardedIndex.open(sys.argv[1], address="local") as index:
        query = np.random.default_rng(0).standard_normal((4, index.dim), np.float32)
        expected = index.search(query, 5)
        pid = os.fork()
        if not pid:
            os._exit(0 if index.search(query, 5) == expected else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), index.search(query, 5) == expected)
    """
    assert in_a_process(code, folders / "two").split() == ["0", "True"]


def test_candidates_are_reranked_by_the_vectors_of_shards(both):
    of_one, ranked = (Reranker(index=index).rank(QUERY, PASSAGES[:70], 20, evidence=True, progress=False) for index in both)
    assert ranked == of_one
    assert [hit.evidence for hit in ranked] == [hit.evidence for hit in of_one]


def test_runs_of_shards_are_those_of_one_index(both):
    queries = {f"q{number}": passage.text for number, passage in enumerate(PASSAGES[:9])}
    for options in ({"exact": True}, {"exact": True, "mode": "hybrid"}):
        of_one, retrieved = (run_of(search_index(index, 10, **options), queries, progress=False) for index in both)
        assert retrieved.run == of_one.run


def test_bars_of_shards_can_be_silenced(both, monkeypatch):
    _, index = both
    works = (
        lambda shown: index.add(PASSAGES[:2], progress=shown),
        lambda shown: index.compact(progress=shown),
        lambda shown: index.tune(progress=shown),
        lambda shown: index.verify(progress=shown),
    )
    for work in works:
        stderr: io.StringIO = write_to_terminal(monkeypatch)
        work(False)
        assert stderr.getvalue() == ""
        work(True)
        assert stderr.getvalue() != ""


def test_commands_take_a_folder_of_shards(run, stanford, codec, tmp_path):
    folder, docs = tmp_path / "two.cluster", tmp_path / "docs"
    begin_shards(folder, 2, stanford, codec)
    docs.mkdir()
    for name, text in (("cats.md", "# Cats\n\nHappy cats purr."), ("dogs.md", "# Dogs\n\nDogs bark.")):
        (docs / name).write_text(text)
    code, printed, error = run("sync", str(docs), "--index", str(folder), "--quiet")
    assert (code, error) == (0, "")
    assert printed.startswith("2 passages added from 2 files (.md 2). The index has 2 ")
    (docs / "cats.md").rename(docs / "pets.md")
    assert run("sync", str(docs), "--index", str(folder), "--dry-run", "--quiet")[1].startswith(
        "add    docs/pets.md\nremove docs/cats"
    )
    assert "1 removed, 1 unchanged" in run("sync", str(docs), "--index", str(folder), "--quiet")[1]
    (tmp_path / "more.jsonl").write_text('{"id": "more", "text": "a cat on a mat"}\n')
    assert run("add", str(folder), str(tmp_path / "more.jsonl"), "--quiet")[1].startswith("1 passages added from 1 file")
    assert "No damage. A search finds 100.0% of the 10 best" in run("verify", str(folder), "--quiet")[1]
    assert run("verify", str(folder), "--quiet")[0] == 0
    assert run("compact", str(folder), "--quiet")[1].startswith("The index has 3 passages")
    listed = run("list", str(folder))[1].splitlines()
    assert sorted(line.split("]")[0].lstrip("[") for line in listed) == ["docs/dogs.md#1", "docs/pets.md#1", "more"]
    hits = [json.loads(line) for line in run("search", str(folder), "cats", "--explain", "--json")[1].splitlines()]
    assert {hit["id"] for hit in hits} == {"docs/dogs.md#1", "docs/pets.md#1", "more"}
    assert all(hit["evidence"] for hit in hits)
    (explained,) = [json.loads(line) for line in run("explain", str(folder), "cats", "--id", "more", "--json")[1].splitlines()]
    assert explained["id"] == "more"
    assert run("set", str(folder), "seen=true", "--id", "more")[0] == 0
    assert run("show", str(folder), "more")[0] == 0
    assert "seen" in run("fields", str(folder))[1]
