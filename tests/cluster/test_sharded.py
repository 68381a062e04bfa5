"""Shards searched and changed on a real Ray cluster: the same as one index, whoever is killed meanwhile."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import shutil
import signal
import threading
import time

import numpy as np
import pytest
import ray
from builders.cluster import PASSAGES, QUERIES, node_killed, one_index, passages_of
from builders.encoders import WordEncoder

from colbert_core import (
    DamagedIndexError,
    EncoderMismatchError,
    FilterWarning,
    Index,
    IndexExistsError,
    IndexNotFoundError,
    PartialAddError,
    Passage,
    SearchConfig,
)
from colbert_core.cluster import PartialHits, ShardedIndex, encoding
from colbert_core.cluster.layout import Layout, shard_of
from colbert_core.errors import ClusterError, ShardUnavailableError

# Ray Data warns of its own settings when it copies them.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")


@pytest.fixture(scope="module")
def served(built):
    """Two shards, searched by several tests that change nothing."""
    with ShardedIndex.open(built[2], WordEncoder()) as index:
        yield index


def test_the_rule_that_counts_tokens_of_the_whole_is_refused(served):
    with pytest.raises(ValueError, match=r"n_tokens=100.*leave n_tokens out"):
        served.search(QUERIES[0], config=SearchConfig(nprobe=4, n_tokens=100))


# The same as one index


@pytest.mark.parametrize("shards", [2, *(pytest.param(shards, marks=pytest.mark.slow) for shards in (1, 5))])
def test_exact_searches_find_what_one_index_with_the_same_codec_finds(built, source, tmp_path, shards):
    folder = tmp_path / "copy"
    shutil.copytree(built[shards], folder)
    encoder = WordEncoder()
    with one_index(tmp_path / "one", source, folder) as one, ShardedIndex.open(folder, encoder) as index:

        def same():
            for options in (
                {"k": 1},
                {"k": 300},
                {"k": 20, "where": {"year": {"$gte": 2003}}},
                {"k": 20, "where": lambda passage: passage.metadata["year"] == 2001},
                {"k": 20, "ids": ["id7", "id8", "nobody", "id200"]},
                {"k": 20, "ids": []},
                {"k": 20, "min_relevance": 0.5},
            ):
                found = index.search_many(QUERIES, exact=True, **options)
                assert found == one.search_many(QUERIES, exact=True, **options)
                assert index.search_mean(QUERIES[:2], exact=True, **options) == one.search_mean(
                    QUERIES[:2], exact=True, **options
                )
            assert sorted(index.ids({"year": 2002})) == sorted(one.ids({"year": 2002}))
            assert index.get(["id3", "nobody", "id3"]) == one.get(["id3", "nobody", "id3"])
            assert len(index) == len(one) == index.count()
            assert index.count({"year": {"$gte": 2003}}) == one.count({"year": {"$gte": 2003}})
            assert index.fields() == one.fields()
            assert [page.path for page in index.fields(limit=1)] == [page.path for page in one.fields(limit=1)]
            assert sorted(index.passages(), key=lambda passage: passage.id) == sorted(
                one.passages(), key=lambda passage: passage.id
            )

        same()
        new = [Passage("id5", "happy happy cats", {"year": 2003}), Passage("new", "the cat sat on a dog", {"year": 2001})]
        assert index.add(new) == one.add(new, refit=False) == ["id5", "new"]
        gone = ["id1", "id2", "id100", "nobody"]
        assert index.delete(gone) == one.delete(gone) == 3
        assert index.delete_where({"year": 2006}) == one.delete_where({"year": 2006}) > 10
        same()
        for changed in (
            {"where": {"year": {"$lt": 2002}}},
            {"ids": ["id7", "id8", "nobody"], "remove": ["old"]},
            {"where": lambda passage: "cat" in passage.text, "ids": ["id3", "id4", "id5"]},
        ):
            changes = {"mark": str(changed.get("ids")), ("old" if "where" in changed else "new"): 1}
            assert index.update_metadata(changes, **changed) == one.update_metadata(changes, **changed) > 0
            assert index.update_metadata(changes, **changed) == 0
            same()
        assert "new" in index
        assert "id1" not in index
        sharded, whole = index.stats(), one.stats()
        for name in ("passages", "windows", "tokens", "dim", "nbits", "centroids", "encoder"):
            assert getattr(sharded, name) == getattr(whole, name)


def test_a_pruned_search_finds_at_least_what_that_of_one_index_finds(built, source, served, tmp_path):
    config = SearchConfig(nprobe=1, n_candidates=20, n_exact=10)
    queries = [passage.text for passage in passages_of(40, seed=1)]
    with one_index(tmp_path / "one", source, built[2]) as one:
        best = [{hit.passage.id for hit in hits} for hits in one.search_many(queries, exact=True)]

        def recall(index, **options):
            results = index.search_many(queries, **options)
            return np.mean([len({hit.passage.id for hit in hits} & ids) / 10 for hits, ids in zip(results, best, strict=True)])

        assert recall(one, config=config) <= recall(served, config=config) < 1
        assert recall(one) <= recall(served)


def test_pages_go_from_shard_to_shard(served):
    everything = served.passages()
    assert [passage.id for passage in everything] == served.ids()
    assert everything.next is None
    for limit in (7, 120, 240, len(served.passages(limit=239))):
        pages = [served.passages(limit=limit)]
        while pages[-1].next is not None:
            pages.append(served.passages(limit=limit, after=pages[-1].next))
        assert [passage for page in pages for passage in page] == everything
        assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
        assert pages[-1]
    first = [shard_of(passage.id, 2) for passage in everything].index(1)  # a page that ends with a shard
    page = served.passages(limit=first)
    assert (page.next, list(served.passages(after=page.next))) == ("1:", everything[first:])
    chosen = {"where": {"year": 2001}, "ids": [f"id{n}" for n in range(20)]}
    expected = [name for name in served.ids({"year": 2001}) if name in chosen["ids"]]
    assert [passage.id for passage in served.passages(**chosen)] == expected != []
    for after in ("2:", "x", "1", "0:x-1"):
        with pytest.raises(ValueError, match="after"):
            served.passages(after=after)


def test_vectors_from_elsewhere_are_added_and_searched_by(served, built, tmp_path):
    shutil.copytree(built[2], tmp_path / "copy")
    words = WordEncoder()
    with ShardedIndex.open(tmp_path / "copy") as index:  # without an encoder
        passages = [Passage("x", "cat dog"), Passage("y", "mat")]
        assert index.add(passages, embeddings=words.encode_passages(["cat dog", "mat"])) == ["x", "y"]
        assert index.add(passages, embeddings=[words.encode_queries([passage.text])[0] for passage in passages]) == ["x", "y"]
        assert len(index) == 242
        assert index.search(words.encode_queries(["cat dog"])[0], 1)[0].relevance > 0.9
        with pytest.raises(EncoderMismatchError, match="pass it to Index.open"):
            index.search("cat dog")


# Faults


def killed(index, shard, replica=0):
    """SIGKILL of the process that has a replica of a shard."""
    pid = ray.get(index._replicas.actors[shard][replica].__ray_call__.remote(lambda _: os.getpid()))
    os.kill(pid, signal.SIGKILL)
    return pid


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2])
def test_actors_that_are_killed_while_searching_change_no_result(built, replicas):
    with ShardedIndex.open(built[2], WordEncoder(), replicas=replicas) as index:
        expected = index.search(QUERIES[0], 20)
        pids = set()
        for number in range(40):
            if number % 20 == 10:
                pids.add(killed(index, shard=number // 20, replica=replicas - 1))
            assert index.search(QUERIES[0], 20) == expected
        assert len(pids) == 2
        assert len(index) == 240
        killed(index, 0)
        killed(index, 1)
        assert len(index.ids()) == 240


def test_a_shard_that_stays_down_is_an_error_or_said_to_be_missing(built, tmp_path, caplog):
    folder = tmp_path / "copy"
    shutil.copytree(built[2], folder)
    with ShardedIndex.open(folder, WordEncoder(), timeout=90) as index:
        whole = index.search(QUERIES[0], 300)
        assert not isinstance(whole, PartialHits)
        ray.kill(index._replicas.actors[1][0])  # and not started again
        with pytest.raises(ShardUnavailableError, match="1 of the 2 shards .* did not answer") as caught:
            index.search(QUERIES[0])
        assert caught.value.shards == [1]
        assert pickle.loads(pickle.dumps(caught.value)).shards == [1]
        with pytest.raises(ShardUnavailableError):
            index.search_many(QUERIES)
        with pytest.raises(ShardUnavailableError):
            len(index)
        on_0, on_1 = (next(p for p in PASSAGES if shard_of(p.id, 2) == shard) for shard in (0, 1))
        assert index.get([on_0.id])[0].text == on_0.text
        with pytest.raises(ShardUnavailableError):
            index.get([on_1.id])
        with pytest.raises(PartialAddError) as partial:
            index.add([on_0, on_1])
        assert partial.value.added == [on_0.id]
    with ShardedIndex.open(folder, WordEncoder(), timeout=90, allow_partial=True) as index:
        assert index.search(QUERIES[0], 300).missing_shards == ()
        ray.kill(index._replicas.actors[1][0])
        with caplog.at_level(logging.WARNING):
            partial_hits = index.search(QUERIES[0], 300)
        assert partial_hits.missing_shards == (1,)
        assert "shards 1 are down" in caplog.text
        assert [hit.passage.id for hit in partial_hits] == [hit.passage.id for hit in whole if shard_of(hit.passage.id, 2) == 0]
        assert [hits.missing_shards for hits in index.search_many(QUERIES[:2])] == [(1,), (1,)]
        assert index.search_mean(QUERIES[:2]).missing_shards == (1,)
        with pytest.raises(ShardUnavailableError):
            index.delete([on_1.id])


def test_a_shard_that_is_lost_is_missing_only_if_that_is_allowed(built, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(built[2], folder)
    shutil.rmtree(folder / "shard-0000")
    with pytest.raises(DamagedIndexError, match="lacks 1 of its 2 shards"):
        ShardedIndex.open(folder, WordEncoder())
    with ShardedIndex.open(folder, WordEncoder(), allow_partial=True) as index:
        assert index.search("cat").missing_shards == (0,)
    (folder / "shard-0000").mkdir()  # there, but empty
    with pytest.raises(IndexNotFoundError, match="shard-0000"):
        ShardedIndex.open(folder, WordEncoder())


# Filters that ask for what no passage has


def test_a_field_of_one_shard_is_a_field_and_what_no_shard_has_is_said_once(built, tmp_path):
    shutil.copytree(built[2], tmp_path / "copy")
    with ShardedIndex.open(tmp_path / "copy", WordEncoder()) as index:
        index.add([Passage("new", "the cat", {"year": "2001", "lang": "en", "tags": []})])  # in one of the two shards
        assert [hit.passage.id for hit in index.search("cat", where={"lang": "en"})] == ["new"]
        assert index.ids({"year": "2001"}) == ["new"]
        assert index.search_mean(["cat"], where={"tags": {"$contains": "x"}}) == []
        fields = r"The fields are 'lang' \(strings\), 'source' \(strings\), 'tags' \(arrays\), 'year' \(numbers or strings\)\.$"
        with pytest.warns(FilterWarning, match=f"the field 'yaer' .* did you mean 'year'\\? {fields}") as caught:
            assert index.search("cat", where={"yaer": 2001}) == []
        assert [warning.filename for warning in caught] == [__file__]
        assert index.search("cat", where={"yaer": 2002}) == []  # it has been said
        with pytest.raises(FilterWarning, match="'langs'"):
            index.delete_where({"langs": {"$ne": "en"}})
        with pytest.warns(FilterWarning, match="'year' with true or false, but its values are numbers or strings"):
            assert index.ids({"year": True}) == []
        assert len(index) == 241


def test_nothing_is_said_while_a_shard_that_may_have_the_field_is_down(built, tmp_path):
    shutil.copytree(built[2], tmp_path / "copy")
    shutil.rmtree(Layout(tmp_path / "copy").shard(1))
    with ShardedIndex.open(tmp_path / "copy", WordEncoder(), allow_partial=True, timeout=20) as index:
        hits = index.search("cat", where={"yaer": 2001})
        assert (hits, hits.missing_shards) == ([], (1,))


# The adapters and the command line


def test_langchain_retrieves_from_shards(served):
    from langchain_colbert import ColBERTRetriever

    retriever = ColBERTRetriever(index=served, k=5, filter={"year": {"$gte": 2003}})
    expected = [hit.passage.id for hit in served.search(QUERIES[0], 5, where={"year": {"$gte": 2003}}, mode="hybrid")]
    assert [document.id for document in retriever.invoke(QUERIES[0])] == expected
    by_meaning = [hit.passage.id for hit in served.search(QUERIES[0], 5, where={"year": {"$gte": 2003}})]
    assert [document.id for document in retriever.invoke(QUERIES[0], mode="maxsim")] == by_meaning
    assert [document.id for document in asyncio.run(retriever.ainvoke(QUERIES[0]))] == expected
    assert len(retriever.invoke(QUERIES[0], filter=lambda document: document.metadata["year"] == 2001, k=50)) == 35
    assert retriever.batch(QUERIES[:2])[1]


def test_llama_index_retrieves_from_shards(served, tmp_path):
    from llama_index_colbert import ColBERTRetriever

    retriever = ColBERTRetriever(served, similarity_top_k=5)
    expected = [hit.passage.id for hit in served.search(QUERIES[0], 5, mode="hybrid")]
    assert [found.node.node_id for found in retriever.retrieve(QUERIES[0])] == expected
    by_meaning = [hit.passage.id for hit in served.search(QUERIES[0], 5)]
    found = ColBERTRetriever(served, similarity_top_k=5, mode="maxsim").retrieve(QUERIES[0])
    assert [scored.node.node_id for scored in found] == by_meaning
    assert [found.node.node_id for found in asyncio.run(retriever.aretrieve(QUERIES[0]))] == expected
    assert ColBERTRetriever.from_defaults(served).index is served
    retriever.persist(tmp_path)
    opened = ColBERTRetriever.from_persist_dir(tmp_path, 5, model=WordEncoder())
    assert [found.node.node_id for found in opened.retrieve(QUERIES[0])] == expected
    opened.index.close()
    with pytest.raises(IndexExistsError, match="shards are not overwritten; name a folder that is new or empty"):
        retriever.persist(tmp_path)


def test_adapters_add_to_and_delete_from_shards(built, tmp_path):
    from langchain_core.documents import Document
    from llama_index.core.schema import TextNode

    import langchain_colbert
    import llama_index_colbert

    shutil.copytree(built[2], tmp_path / "copy")
    with ShardedIndex.open(tmp_path / "copy", WordEncoder()) as index:
        retriever = langchain_colbert.ColBERTRetriever(index=index, k=1)
        retriever.add_documents([Document("cat cat cat", id="cats")])
        assert retriever.invoke("cat cat")[0].id == "cats"
        retriever.delete(["cats"])
        retriever.delete(filter={"year": 2001})
        llama_index_colbert.ColBERTRetriever(index).add_nodes([TextNode(text="mat mat", id_="mats")])
        assert index.get(["cats", "mats"])[0] is None
        assert len(index) == 240 - 35 + 1


def test_searches_can_be_awaited_side_by_side(served):
    async def several():
        return await asyncio.gather(*(served.asearch(query, 5, exact=True) for query in QUERIES))

    assert asyncio.run(several()) == [served.search(query, 5, exact=True) for query in QUERIES]


def test_a_pickled_index_opens_the_folder_again(built):
    with ShardedIndex.open(built[1], timeout=30) as index, pickle.loads(pickle.dumps(index)) as copy:
        assert copy._settings == index._settings
        assert copy.get(["id3"]) == index.get(["id3"])
    with pytest.raises(ValueError, match="closed"):
        index.get(["id3"])
    index.close()


@pytest.mark.slow  # processes that each start Ray
def test_the_commands_build_and_search_shards(nodes_of, run, source, stanford_folder, tmp_path):
    out = str(tmp_path / "out")
    options = ("--model", str(stanford_folder), "--quiet")
    code, printed, error = run("cluster", "build", str(source), "--out", out, "--shards", "1", "--workers", "1", *options)
    assert (code, error) == (0, "")
    assert printed == f"240 passages in 1 shard in {out}.\n"
    code, printed, _ = run("search", out, "the cat", "-k", "3", "--where", '{"year": 2004}', "--json")
    hits = [json.loads(line) for line in printed.splitlines()]
    assert code == 0
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert {hit["metadata"]["year"] for hit in hits} == {2004}
    found = [json.loads(line) for line in run("search", out, "the cat", "--mode", "words", "--json")[1].splitlines()]
    assert len(found) == 10
    assert all("cat" in hit["text"] and hit["coverage"] == hit["score"] for hit in found)
    assert run("delete", out, "id1", "id2")[1] == "2 passages deleted.\n"
    assert json.loads(run("stats", out, "--json")[1])["passages"] == 238
    (tmp_path / "more.jsonl").write_text('{"id": "more", "text": "a happy cat"}\n')
    assert run("add", out, str(tmp_path / "more.jsonl"), "--quiet")[1].startswith(
        "1 passages added from 1 file (.jsonl 1). The index has 239 "
    )


# Bad input


def test_searches_check_what_they_are_given(served):
    for wrong, error in (
        ({"query": 5}, TypeError),
        ({"query": " "}, ValueError),
        ({"query": "cat", "k": 0}, ValueError),
        ({"query": "cat", "where": {"year": {"$near": 1}}}, ValueError),
        ({"query": "cat", "ids": "id3"}, TypeError),
        ({"query": "cat", "min_relevance": 5}, ValueError),
        ({"query": np.zeros((2, 64), np.float32)}, ValueError),
    ):
        with pytest.raises(error):
            served.search(**wrong)
    with pytest.raises(TypeError, match="config must be a SearchConfig"):
        served.search("cat", config=3)  # raised by a shard, as it is
    with pytest.raises(ZeroDivisionError):
        served.search("cat", where=lambda passage: 1 / 0)
    with pytest.raises(TypeError, match="use search for a single query"):
        served.search_many("cat")
    with pytest.raises(ValueError, match="no queries"):
        served.search_mean([])
    with pytest.raises(ValueError, match="more than once"):
        served.add([Passage("a", "x"), Passage("a", "y")])
    with pytest.raises(TypeError, match="Metadata of passage 'a'"):
        served.add([Passage("a", "x", {"day": object()})])


def test_shards_of_different_models_or_codecs_are_refused(built, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(built[2], folder)

    class Other(WordEncoder):
        def vector(self, word):
            return super().vector(word + "!")

    codec = encoding.load_codec(Layout(folder))
    for encoder, options, error, words in (
        (Other(), {"codec": codec}, EncoderMismatchError, "Shard 0 .* was made with 'words', shard 1 with 'words'"),
        (WordEncoder(dim=32), {}, EncoderMismatchError, "build those"),
        (WordEncoder(), {"nbits": 2}, ClusterError, "different codecs .*4 bits.* and none"),
    ):
        shutil.rmtree(folder / "shard-0001")
        Index.create(folder / "shard-0001", encoder, **options).close()
        with pytest.raises(error, match=words):
            ShardedIndex.open(folder, WordEncoder())
    with pytest.raises(EncoderMismatchError, match="gives other vectors"):
        ShardedIndex.open(built[1], Other())


def test_a_codec_of_another_kind_is_refused(built):
    codec = encoding.load_codec(Layout(built[2]))
    for options in ({"dim": 32}, {"dim": 64, "nbits": 2}):
        with pytest.raises(ValueError, match="The codec is for dim 64 and 4 bits, the index for dim"):
            Index.create(None, codec=codec, **options)
    with Index.create(None, WordEncoder(), codec=codec) as index:
        index.add(PASSAGES[:20])
        assert (index.stats().nbits, index.stats().centroids) == (4, len(codec.centroids))


# A node, last, for it does not come back


@pytest.mark.slow  # the cluster waits for a node's heartbeats; actors are killed above
@pytest.mark.timeout(900)
def test_a_node_that_is_killed_while_searching_changes_no_result(nodes_of, built):
    with ShardedIndex.open(built[2], WordEncoder(), num_cpus=0.4, replicas=2) as index:
        expected = index.search(QUERIES[0], 20, exact=True)
        homes = {
            ray.get(actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()))
            for actors in index._replicas.actors
            for actor in actors
        }
        assert len(homes) > 1
        killer = threading.Timer(0.3, node_killed, [nodes_of])
        killer.start()
        until = time.monotonic() + 5
        while time.monotonic() < until or killer.is_alive():
            assert index.search(QUERIES[0], 20, exact=True) == expected
        killer.join()
        assert len(index) == 240
