"""Shards on a real Ray cluster of several nodes, on this machine: the same as one index, whoever is killed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pickle
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import ray
from builders import encoders
from builders.encoders import WORDS, WordEncoder

from colbert_core import (
    DamagedIndexError,
    EncoderMismatchError,
    Index,
    IndexExistsError,
    IndexNotFoundError,
    MissingExtraError,
    PartialAddError,
    Passage,
    SearchConfig,
    StorageError,
)
from colbert_core.cluster import (
    PartialHits,
    Rates,
    ShardedIndex,
    build,
    building,
    measured_rates,
    nodes,
    plan,
    planning,
    sharded,
)
from colbert_core.cluster.layout import Layout, shard_of
from colbert_core.errors import ClusterError, ClusterUnreachableError, ShardUnavailableError
from colbert_core.text.documents import read_file

# Ray Data warns of its own settings when it copies them.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")
ROOT = Path(__file__).parents[2]
QUERIES = ["the cat sat on a mat", "happy pets purr", "what sound does rust make", "dogs bark or"]


class Fatal(WordEncoder):
    """Ends its own process, or fails, at some of its calls, counted over all processes by the files in ``folder``.

    What an index keeps of its encoder, the vectors of a known text, does not count.
    """

    def __init__(self, folder, *, at, fail=False, seconds=0.0):
        super().__init__()
        self.folder, self.at, self.fail, self.seconds = Path(folder), at, fail, seconds

    def encode_passages(self, texts, *, progress=None):
        time.sleep(self.seconds)
        if not (len(texts) == 1 and texts[0].startswith("The same words")):
            number = len(list(self.folder.iterdir()))
            (self.folder / f"{number}").touch()
            if number in self.at:
                if self.fail:
                    raise RuntimeError("the model is on fire")
                os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_passages(texts, progress=progress)


def passages_of(n, seed=0):
    chosen = random.Random(seed)
    return [
        Passage(f"id{i}", " ".join(chosen.choice(WORDS) for _ in range(chosen.randint(3, 14))), {"year": 2000 + i % 7})
        for i in range(n)
    ]


PASSAGES = passages_of(240)


def as_record(passage):
    return {"id": passage.id, "text": passage.text, "metadata": passage.metadata}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Three files, with the passages in order."""
    folder = tmp_path_factory.mktemp("source")
    for number, name in enumerate(["a.jsonl", "deep/b.jsonl"]):
        (folder / name).parent.mkdir(exist_ok=True)
        some = PASSAGES[80 * number : 80 * number + 80]
        (folder / name).write_text("".join(f"{json.dumps(as_record(passage))}\n" for passage in some))
    table = pyarrow.table({"id": [p.id for p in PASSAGES[160:]], "text": [p.text for p in PASSAGES[160:]]})
    years = pyarrow.array([p.metadata["year"] for p in PASSAGES[160:]])
    pyarrow.parquet.write_table(table.append_column("year", years), folder / "z.parquet")
    return folder


@pytest.fixture(scope="module")
def nodes_of(tmp_path_factory):
    """A cluster of three nodes with one core each."""
    from ray.cluster_utils import Cluster

    ray.cloudpickle.register_pickle_by_value(encoders)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    quick = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_failure_threshold": 5}
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": quick, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        cluster.add_node(num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    ray.cloudpickle.unregister_pickle_by_value(encoders)
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def built(nodes_of, source, tmp_path_factory):
    """The same passages in 1, 2 and 5 shards."""
    folder = tmp_path_factory.mktemp("built")
    return {shards: build_here(source, folder / str(shards), shards=shards, workers=min(shards, 2))[0] for shards in (1, 2, 5)}


@pytest.fixture(scope="module")
def served(built):
    """Two shards, searched by several tests that change nothing."""
    with ShardedIndex.open(built[2], WordEncoder()) as index:
        yield index


def build_here(source, out, *, encoder=None, progress=False, **options):
    return out, build(source, out, encoder=encoder or WordEncoder(), progress=progress, **options)


def one_index(path, source, cluster_folder):
    """One index of the same passages with the same codec."""
    index = Index.create(path, WordEncoder(), codec=building._load_codec(Layout(cluster_folder)))
    for location, name, _ in building.find_sources(source):
        index.add(read_file(Path(location), name, lambda text, name: [Passage(name, text)]), refit=False)
    return index


def checksums(folder):
    """What the segments and codecs of all shards are made of."""
    found = {}
    for shard in sorted(Path(folder).glob("shard-*")):
        with contextlib.closing(sqlite3.connect(shard / "index.sqlite")) as connection:
            found[shard.name] = connection.execute("SELECT kind, position, sha256 FROM files ORDER BY name").fetchall()
    return found


# The same as one index


@pytest.mark.parametrize("shards", [1, 2, 5])
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
            assert len(index) == len(one)

        same()
        new = [Passage("id5", "happy happy cats", {"year": 2003}), Passage("new", "the cat sat on a dog", {"year": 2001})]
        assert index.add(new) == one.add(new, refit=False) == ["id5", "new"]
        gone = ["id1", "id2", "id100", "nobody"]
        assert index.delete(gone) == one.delete(gone) == 3
        assert index.delete_where({"year": 2006}) == one.delete_where({"year": 2006}) > 10
        same()
        assert "new" in index
        assert "id1" not in index
        mine, whole = index.stats(), one.stats()
        for name in ("passages", "windows", "tokens", "dim", "nbits", "centroids", "encoder"):
            assert getattr(mine, name) == getattr(whole, name)


def test_a_pruned_search_finds_at_least_what_that_of_one_index_finds(built, source, served, tmp_path):
    config = SearchConfig(nprobe=1, n_candidates=20, n_exact=10)
    queries = [passage.text for passage in passages_of(40, seed=1)]
    with one_index(tmp_path / "one", source, built[2]) as one:
        best = [{hit.passage.id for hit in hits} for hits in one.search_many(queries, exact=True)]

        def recall(index, **options):
            found = index.search_many(queries, **options)
            return np.mean([len({hit.passage.id for hit in hits} & some) / 10 for hits, some in zip(found, best, strict=True)])

        assert recall(one, config=config) <= recall(served, config=config) < 1
        assert recall(one) <= recall(served)


def test_every_shard_is_an_ordinary_index_that_keeps_the_codec_of_all(built, tmp_path):
    codecs = {
        entry for folder in built.values() for files in checksums(folder).values() for entry in files if entry[0] == "codec"
    }
    assert len(codecs) == 1  # whatever the number of shards
    shutil.copytree(built[5] / "shard-0003", tmp_path / "shard")
    with Index.open(tmp_path / "shard", WordEncoder()) as index:
        assert index.verify().ok
        before = index.codec_id
        index.add(passages_of(600))  # more than four times as many as there are in the collection
        index.compact()
        assert index.codec_id == before
        index.delete_where({})
        assert len(index) == 0


def test_files_may_lie_in_an_object_storage_and_vectors_be_kept_as_they_are(nodes_of, source, tmp_path):
    out, settings = build_here(f"file://{source}", tmp_path / "out", shards=2, nbits=32, workers=1)
    assert settings.passages == 240
    assert sorted(settings.files) == ["a.jsonl", "deep/b.jsonl", "z.parquet"]
    assert not Layout(out).codec.exists()
    with ShardedIndex.open(out, WordEncoder()) as index, Index.create(None, WordEncoder()) as one:
        one.add(PASSAGES)
        found = index.search(QUERIES[0], 20)
        assert [hit.passage.id for hit in found] == [hit.passage.id for hit in one.search(QUERIES[0], 20)]
        assert index.stats().nbits is None


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


def test_workers_that_are_killed_while_building_lose_no_shard(nodes_of, built, source, tmp_path):
    (tmp_path / "calls").mkdir()
    # The sample is encoded first, then each shard; a worker dies over the sample and two over shards.
    encoder = Fatal(tmp_path / "calls", at={0, 2, 3})
    out, settings = build_here(source, tmp_path / "out", shards=5, workers=2, encoder=encoder)
    assert settings.passages == 240
    assert checksums(out) == checksums(built[5])
    assert sorted(path.name for path in out.iterdir() if path.name.startswith((".", "staged"))) == []


def test_what_kills_every_worker_is_given_up(nodes_of, source, tmp_path, monkeypatch):
    monkeypatch.setattr(nodes, "_TRIES", 2)
    (tmp_path / "calls").mkdir()
    with pytest.raises(ClusterError, match="was the end of 2 workers"):
        build_here(source, tmp_path / "out", shards=1, workers=1, encoder=Fatal(tmp_path / "calls", at=range(1, 9)))


def test_a_build_that_fails_goes_on_with_the_shards_that_are_missing(nodes_of, built, source, tmp_path):
    (tmp_path / "calls").mkdir()
    out, encoder = tmp_path / "out", Fatal(tmp_path / "calls", at={3}, fail=True)
    with pytest.raises(RuntimeError, match="the model is on fire"):
        build_here(source, out, shards=5, workers=1, encoder=encoder)
    there = [shard for shard in range(5) if shard not in Layout(out).missing(5)]
    assert len(there) == 2
    times = {shard: (Layout(out).shard(shard) / "index.sqlite").stat().st_mtime_ns for shard in there}
    with pytest.raises(DamagedIndexError, match="lacks 3 of its 5 shards"):
        ShardedIndex.open(out)
    build_here(source, out, shards=5, workers=2)
    assert checksums(out) == checksums(built[5])
    assert all((Layout(out).shard(shard) / "index.sqlite").stat().st_mtime_ns == time for shard, time in times.items())
    shutil.rmtree(Layout(out).shard(4))  # lost later, when what was read is gone as well
    build_here(source, out, shards=5, workers=1)
    assert checksums(out) == checksums(built[5])
    assert build_here(source, out, shards=5)[1].passages == 240  # nothing to do


SLOW_BUILD = """
import sys
import test_sharded as t
t.ray.cloudpickle.register_pickle_by_value(t.encoders)
t.ray.cloudpickle.register_pickle_by_value(t)
source, out, calls, address = sys.argv[1:]
t.build_here(source, out, shards=5, workers=2, encoder=t.Fatal(calls, at=(), seconds=1.0), address=address)
"""


def test_a_build_whose_driver_was_killed_goes_on(nodes_of, built, source, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "calls").mkdir()
    arguments = [str(source), str(out), str(tmp_path / "calls"), nodes_of.address]
    driver = subprocess.Popen([sys.executable, "-c", SLOW_BUILD, *arguments], cwd=ROOT / "tests" / "cluster")
    until = time.monotonic() + 300
    while not list(out.glob("shard-*")) and driver.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert 1 <= 5 - len(Layout(out).missing(5)) < 5
    build_here(source, out, shards=5, workers=2)
    assert checksums(out) == checksums(built[5])


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


def test_a_shard_that_stays_down_is_an_error_or_said_to_be_missing(built, caplog):
    with ShardedIndex.open(built[2], WordEncoder(), timeout=20) as index:
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
    with ShardedIndex.open(built[2], WordEncoder(), timeout=20, allow_partial=True) as index:
        assert index.search(QUERIES[0], 300).missing_shards == ()
        ray.kill(index._replicas.actors[1][0])
        with caplog.at_level(logging.WARNING):
            found = index.search(QUERIES[0], 300)
        assert found.missing_shards == (1,)
        assert "shards 1 are down" in caplog.text
        assert [hit.passage.id for hit in found] == [hit.passage.id for hit in whole if shard_of(hit.passage.id, 2) == 0]
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


# The adapters and the command line


def test_langchain_retrieves_from_shards(served):
    from langchain_colbert import ColBERTRetriever

    retriever = ColBERTRetriever(index=served, k=5, filter={"year": {"$gte": 2003}})
    expected = [hit.passage.id for hit in served.search(QUERIES[0], 5, where={"year": {"$gte": 2003}})]
    assert [document.id for document in retriever.invoke(QUERIES[0])] == expected
    assert [document.id for document in asyncio.run(retriever.ainvoke(QUERIES[0]))] == expected
    assert len(retriever.invoke(QUERIES[0], filter=lambda document: document.metadata["year"] == 2001, k=50)) == 35
    assert retriever.batch(QUERIES[:2])[1]


def test_llama_index_retrieves_from_shards(served):
    from llama_index_colbert import ColBERTRetriever

    retriever = ColBERTRetriever(served, similarity_top_k=5)
    expected = [hit.passage.id for hit in served.search(QUERIES[0], 5)]
    assert [found.node.node_id for found in retriever.retrieve(QUERIES[0])] == expected
    assert [found.node.node_id for found in asyncio.run(retriever.aretrieve(QUERIES[0]))] == expected
    assert ColBERTRetriever.from_defaults(served).index is served
    with pytest.raises(TypeError, match="on disk already"):
        retriever.persist("anywhere")


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
    assert run("delete", out, "id1", "id2")[1] == "2 passages deleted.\n"
    assert json.loads(run("stats", out, "--json")[1])["passages"] == 238
    (tmp_path / "more.jsonl").write_text('{"id": "more", "text": "a happy cat"}\n')
    assert run("add", out, str(tmp_path / "more.jsonl"), "--quiet")[1].startswith("1 passages added. The index has 239 ")


# Bad input


def test_what_cannot_be_read_is_an_error_before_anything_is_made(nodes_of, tmp_path):
    out = tmp_path / "out"
    for wrong, error, words in (
        (tmp_path / "nothing", ValueError, "There is no file or folder"),
        ("nowhere://bucket/folder", ValueError, "nowhere"),
        (f"file://{tmp_path}/nothing", ValueError, "nothing"),
        (
            "s3://bucket/folder?region=x&endpoint_override=127.0.0.1%3A1&scheme=http",
            ClusterUnreachableError,
            "cannot be read",
        ),
    ):
        with pytest.raises(error, match=words):
            build_here(wrong, out, shards=2)
        assert not out.exists()


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ({"id": ["a", "b"], "text": [1, 2]}, "z.parquet, row 1.*must be a str, got int"),
        ({"id": ["a", "b"], "body": ["x", "y"]}, 'row 1 has no "text"; its keys are id, body'),
        ({"id": ["a", "a"], "text": ["x", "y"]}, "1 ids stand more than once .* 'a'"),
        ({"id": [], "text": []}, "holds no passages"),
    ],
)
def test_a_malformed_file_is_told_by_its_name_and_row(nodes_of, tmp_path, records, words):
    (tmp_path / "source").mkdir()
    pyarrow.parquet.write_table(pyarrow.table(records), tmp_path / "source" / "z.parquet")
    with pytest.raises(ValueError, match=words):
        build_here(tmp_path / "source", tmp_path / "out", shards=1, workers=1)


def test_arguments_are_checked(nodes_of, built, source, tmp_path):
    for wrong, words in (({"shards": 0}, "shards"), ({"shards": 513}, "at most 512"), ({"shards": 2, "nbits": 3}, "nbits")):
        with pytest.raises(ValueError, match=words):
            build(source, tmp_path / "out", **wrong)
    with pytest.raises(ValueError, match="was begun with shards=2, but 3 is asked for"):
        build_here(source, built[2], shards=3)
    (tmp_path / "file").write_text("")
    with pytest.raises(IndexExistsError, match="no sharded index"):
        build_here(source, tmp_path, shards=3)
    with pytest.raises(IndexNotFoundError, match=r"no cluster\.json"):
        ShardedIndex.open(tmp_path)
    with pytest.raises(ValueError, match="replicas"):
        ShardedIndex.open(built[2], replicas=0)
    with pytest.raises(ValueError, match="timeout"):
        ShardedIndex.open(built[2], timeout=0)


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

    codec = building._load_codec(Layout(folder))
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


def test_nodes_of_another_version_are_refused(nodes_of, built, source, tmp_path, monkeypatch):
    monkeypatch.setattr(sharded, "version", lambda: "0.0.1")
    with pytest.raises(ClusterError, match=r"has colbert-retrievers .*, and this process has 0\.0\.1; install the same"):
        ShardedIndex.open(built[2])
    monkeypatch.setattr(building, "version", lambda: "0.0.1")
    with pytest.raises(ClusterError, match=r"this process has 0\.0\.1"):
        build_here(source, tmp_path / "out", shards=1, workers=1)


def test_a_codec_of_another_kind_is_refused(built):
    codec = building._load_codec(Layout(built[2]))
    for options in ({"dim": 32}, {"dim": 64, "nbits": 2}):
        with pytest.raises(ValueError, match="The codec is for dim 64 and 4 bits, the index for dim"):
            Index.create(None, codec=codec, **options)
    with Index.create(None, WordEncoder(), codec=codec) as index:
        index.add(PASSAGES[:20])
        assert (index.stats().nbits, index.stats().centroids) == (4, len(codec.centroids))


def test_a_newer_or_damaged_description_is_told(built, tmp_path):
    for content, error in (
        ('{"format": 99}', StorageError),
        ("{", DamagedIndexError),
        ('{"format": 1, "shards": 0}', DamagedIndexError),
    ):
        (tmp_path / "cluster.json").write_text(content)
        with pytest.raises(error, match="cluster.json"):
            ShardedIndex.open(tmp_path)


def test_an_address_that_does_not_answer_is_an_error_in_time(built, source, tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        start = time.monotonic()
        for named in (address, f"ray://{address}"):
            with pytest.raises(ClusterUnreachableError, match=f"Nothing at {named} answered within 0.5 s"):
                ShardedIndex.open(built[2], address=named, timeout=0.5)
        with pytest.raises(ClusterUnreachableError, match="answered within 0.5 s"):
            build(source, tmp_path / "out", shards=1, encoder=WordEncoder(), address=address, timeout=0.5)
        assert time.monotonic() - start < 10
    with pytest.raises(ClusterUnreachableError, match="ray status"):
        ShardedIndex.open(built[2], address=address)
    with pytest.raises(ValueError, match="host:port"):
        ShardedIndex.open(built[2], address="host:")


def test_a_cluster_without_room_is_an_error_in_time(nodes_of, built, source, tmp_path):
    with pytest.raises(ClusterError, match="None of 1 workers was there within 1 s; the cluster has 3 CPUs"):
        build_here(source, tmp_path / "out", shards=1, workers=1, num_cpus=64, timeout=1)
    with pytest.raises(ShardUnavailableError, match="within 1 s"):
        ShardedIndex.open(built[2], num_cpus=64, timeout=1)


def test_without_ray_the_pip_line_is_named(built, source, tmp_path, monkeypatch, run):
    for name in ("ray", "ray.data"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ray\[data\]"):
        ShardedIndex.open(built[2])
    with pytest.raises(MissingExtraError, match=r"pip install 'ray\[data\]"):
        build(source, tmp_path / "out", shards=2)
    assert not (tmp_path / "out").exists()
    code, _, error = run("search", str(built[2]), "cat")
    assert code == 1
    assert "pip install" in error
    code, printed, _ = run("plan", "--passages", "8.8e6", "--tokens-per-passage", "68", "--nbits", "2")
    assert code == 0
    assert printed.startswith("8,800,000 passages, 598,400,000 tokens, dim 128, 2 bits, 65,536 centroids")


# Plans


def test_a_plan_is_near_what_an_index_takes(tmp_path):
    words = WordEncoder(dim=128)
    passages = passages_of(2000, seed=5)
    with Index.create(tmp_path / "index", words, nbits=2) as index:
        index.add(passages)
        index.compact()
        stats = index.stats()
    made = plan(len(passages), stats.tokens / len(passages), nbits=2)
    assert made.tokens == stats.tokens
    assert made.centroids == stats.centroids
    assert made.vector_bytes == pytest.approx(stats.vector_bytes, rel=0.2)


def test_plans_grow_with_the_collection_and_shrink_with_nodes():
    one, two, double = plan(1e7, 68), plan(1e7, 68, nodes=2), plan(2e7, 68)
    assert (one.nodes, one.shards, two.shards) == (1, 8, 10)
    assert one.build_hours > two.build_hours > one.build_hours / 2
    assert double.disk_bytes == pytest.approx(2 * one.disk_bytes, rel=0.01)
    assert one.latency_ms > two.latency_ms
    assert plan(1000, 68).shards == 1
    assert plan(1e6, 68, nbits=32).vector_bytes > 1e6 * 68 * 512
    assert plan(1e6, 68, rates=Rates(encode=490)).build_hours > 5 * plan(1e6, 68).build_hours
    for wrong in (
        {"passages": 0},
        {"passages": float("nan")},
        {"tokens_per_passage": 0},
        {"nbits": 3},
        {"nodes": 0},
        {"cores": 0},
    ):
        with pytest.raises(ValueError):
            plan(**{"passages": 10, "tokens_per_passage": 10, **wrong})


def test_rates_are_measured_on_this_machine(monkeypatch):
    monkeypatch.setattr(planning, "_RANDOM_PASSAGES", 2**9)
    rates = measured_rates(WordEncoder(), [passage.text for passage in passages_of(50)])
    assert min(rates.encode, rates.compress, rates.per_centroid, rates.search, rates.per_million) > 0
    assert rates.per_million / rates.search == pytest.approx(Rates().per_million / Rates().search)
    assert rates.scatter == Rates().scatter


# Nodes; last, for they do not come back


def node_killed(cluster):
    """SIGKILL of everything that a node is: a machine that loses its power."""
    node = [node for node in cluster.list_all_nodes() if node is not cluster.head_node][-1]
    (raylet,) = node.all_processes["raylet"]
    os.kill(raylet.process.pid, signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)


def test_a_node_that_is_killed_while_building_loses_no_shard(nodes_of, built, source, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "calls").mkdir()

    def kill_one():
        until = time.monotonic() + 300
        while not list(out.glob(".shard-*")) and time.monotonic() < until:
            time.sleep(0.02)
        node_killed(nodes_of)

    killer = threading.Thread(target=kill_one)
    killer.start()
    build_here(source, out, shards=5, workers=3, encoder=Fatal(tmp_path / "calls", at=(), seconds=0.5))
    killer.join()
    assert checksums(out) == checksums(built[5])
    assert len(ray.nodes()) - len([node for node in ray.nodes() if node["Alive"]]) == 1
    nodes_of.add_node(num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20)


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
