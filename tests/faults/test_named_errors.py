"""What goes wrong in unusual places, and the name that its error has."""

from __future__ import annotations

import datetime
import json
import os
import threading

import pyarrow
import pyarrow.parquet
import pytest
from builders.encoders import WordEncoder
from builders.indexes import in_a_process

from colbert_core import EncoderMismatchError, Index, Passage, Reranker, StorageError
from colbert_core.documents.pieces import Whole, read_file

# A model that only its name tells of


@pytest.fixture
def of_a_stranger(tmp_path, stanford_folder):
    """An index that says it was made with a model of the hub."""
    import sqlite3

    path = tmp_path / "x.idx"
    with Index.create(path, stanford_folder) as index:
        index.add([Passage("a", "cat")])
    about = json.dumps({"name": "someone/model", "origin": {"name": "someone/model"}})
    with sqlite3.connect(path / "index.sqlite") as database:
        assert database.execute("UPDATE about SET value = ? WHERE key = 'encoder'", [about]).rowcount == 1
    database.close()
    return path


@pytest.fixture
def hub(monkeypatch, stanford_folder):
    """What is asked of the hub: names, and whether the network may be used. It has every model."""
    import huggingface_hub

    asked = []

    def download(name, *, local_files_only=False, **_):
        asked.append((name, local_files_only))
        if local_files_only:
            raise FileNotFoundError(f"{name} is not in the cache")
        return str(stanford_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def test_a_model_is_not_fetched_because_an_index_names_it(of_a_stranger, hub):
    with Index.open(of_a_stranger) as index:
        assert hub == []
        with pytest.raises(EncoderMismatchError, match=r"cannot be loaded; pass it to Index.open \(encoder='someone/model'\)"):
            index.search("cat")
    assert hub == [("someone/model", True)]


def test_a_model_that_is_named_by_the_user_is_fetched(of_a_stranger, hub):
    with Index.open(of_a_stranger, "someone/model") as index:
        assert index.search("cat")[0].passage.id == "a"
    with Index.create(None, "someone/model") as index:
        index.add([Passage("b", "cat")])
    assert hub == [("someone/model", False)] * 2


def test_a_model_in_the_hubs_cache_is_loaded_by_its_name(of_a_stranger, monkeypatch, stanford_folder):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(stanford_folder))
    with Index.open(of_a_stranger) as index:
        assert index.search("cat")[0].passage.id == "a"


# Counts that nothing has


HUGE = (10**400, 10**5000, 2**63)


@pytest.fixture
def index():
    index = Index.create(None, WordEncoder())
    index.add([Passage("a", "cat", {"n": 1}), Passage("b", "dog")])
    return index


@pytest.mark.parametrize("n", [*HUGE, -(10**400)], ids=int.bit_length)
@pytest.mark.parametrize("what", ["k", "top_n", "batch_size", "fetch_k", "LangChain's k", "LangChain's top_n", "LlamaIndex' k"])
def test_a_count_of_more_bits_than_there_are_is_refused(what, n, index):
    from langchain_core.documents import Document

    from langchain_colbert import ColBERTRerank, ColBERTRetriever, ColBERTVectorStore
    from llama_index_colbert import ColBERTRetriever as LlamaIndexRetriever

    reranker, passages = Reranker(WordEncoder()), [Passage("a", "cat")]
    ask = {
        "k": lambda: index.search("cat", n),
        "top_n": lambda: reranker.rank("cat", passages, n),
        "batch_size": lambda: reranker.rank("cat", passages, batch_size=n),
        "fetch_k": lambda: ColBERTVectorStore(index=index).max_marginal_relevance_search("cat", 1, fetch_k=n),
        "LangChain's k": lambda: ColBERTRetriever(index=index, k=n).invoke("cat"),
        "LangChain's top_n": lambda: ColBERTRerank(model=WordEncoder(), top_n=n).compress_documents([Document("cat")], "cat"),
        "LlamaIndex' k": lambda: LlamaIndexRetriever(index=index, similarity_top_k=n).retrieve("cat"),
    }[what]
    with pytest.raises(ValueError, match=r"must be at (most|least) \d+|than or equal to"):
        ask()


def test_as_many_passages_as_there_are_may_be_asked_for(index, grown):
    large, queries = grown
    assert len(index.search("cat", 2**63 - 1)) == 2
    assert len(large.search(queries[0], 2**63 - 1)) == len(large)


@pytest.mark.parametrize("n", HUGE, ids=int.bit_length)
def test_shares_thresholds_and_values_of_filters_of_many_digits_are_refused(n, index):
    for ask, match in (
        (lambda: index.search("cat", min_relevance=n), "a relevance from 0 to 1, got"),
        (lambda: index.explain("cat", "a", min_similarity=n), "a cosine from -1 to 1, got"),
        (lambda: index.search("cat", where={"n": n}), "a number of at most 64 bits, got one of"),
        (lambda: index.add([Passage("c", "cat", {"n": n})]), "a number of more than 64 bits"),
    ):
        with pytest.raises(ValueError, match=match):
            ask()


def test_the_command_line_refuses_counts_that_nothing_has(run, tmp_path, words, monkeypatch, stanford_folder):
    import colbert_core.encoder as encoder_module

    monkeypatch.setattr(encoder_module, "DEFAULT_MODEL", stanford_folder)
    with Index.create(tmp_path / "x.idx", stanford_folder) as index:
        index.add([Passage("a", "cat")])
    (tmp_path / "t.txt").write_text("cat")
    for given in (
        ["search", str(tmp_path / "x.idx"), "cat", "-k", str(10**400)],
        ["rerank", "cat", str(tmp_path / "t.txt"), "--top-n", str(10**400)],
        ["plan", "--passages", "1e6", "--tokens-per-passage", "68", "--cores", str(10**400)],
    ):
        code, out, err = run(*given)
        assert (code, out) == (1, "")
        assert "must be at most 9223372036854775807, got a number of 1329 bits" in err


# Files that are none


@pytest.fixture
def pipe(tmp_path):
    """A pipe that nobody writes to: who opens it waits for ever."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("there are no named pipes here")
    os.mkfifo(tmp_path / "pipe.jsonl")
    return tmp_path / "pipe.jsonl"


@pytest.mark.parametrize(
    "given",
    [["index", "PIPE", "--out", "y.idx"], ["add", "x.idx", "PIPE"], ["rerank", "cat", "PIPE"], ["train", "PIPE", "--out", "m"]],
)
def test_a_pipe_is_no_file(given, pipe, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Index.create("x.idx", dim=4).close()
    done = []
    given = [str(pipe) if word == "PIPE" else word for word in given]
    reader = threading.Thread(target=lambda: done.append(run(*given)), daemon=True)
    reader.start()
    reader.join(60)
    ((code, out, err),) = done
    assert (code, out) == (1, "")
    assert "pipe.jsonl" in err
    assert "is a pipe, a device or a socket, and no file" in err or "There is no" in err


def test_standard_input_may_be_named_by_a_dash(run, monkeypatch, stanford_folder):
    import colbert_core.encoder as encoder_module

    monkeypatch.setattr(encoder_module, "DEFAULT_MODEL", stanford_folder)
    assert run("rerank", "cat", "-", stdin="a dog\nthe cat\n") == run("rerank", "cat", stdin="a dog\nthe cat\n")


# Dates that Python has not


@pytest.mark.parametrize("days", [4_000_000, -800_000, 2**31 - 1])
@pytest.mark.parametrize("kind", ["date", "time"])
def test_a_far_date_of_a_table_is_named_with_its_place(days, kind, tmp_path):
    dates = (
        pyarrow.array([0, days], pyarrow.date32())
        if kind == "date"
        else pyarrow.array([0, days * 86400], pyarrow.timestamp("s"))
    )
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b"], "at": dates}), tmp_path / "t.parquet")
    with pytest.raises(
        ValueError, match=r"t\.parquet, rows 1 to 2: .*; keep dates that are not of the years 1 to 9999 as strings"
    ):
        list(read_file(tmp_path / "t.parquet", "t", Whole()))


def test_a_date_before_1970_is_read(tmp_path):
    times = pyarrow.array([-(10**9)], pyarrow.timestamp("s"))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "at": times}), tmp_path / "t.parquet")
    (passage,) = read_file(tmp_path / "t.parquet", "t", Whole())
    assert passage.metadata["at"] == datetime.datetime(1938, 4, 24, 22, 13, 20).isoformat()


def test_no_number_of_threads_ends_the_process():
    from colbert_core import get_num_threads, set_num_threads

    before = get_num_threads()
    for n in (*HUGE, 100_000):
        with pytest.raises(ValueError, match="n must be at most 1024 threads, got a number of"):
            set_num_threads(n)
    assert get_num_threads() == before


# A process that can open no more files, and names that no file system takes


def test_a_process_without_descriptors_is_told_so_and_goes_on_when_it_has_some(tmp_path):
    out = in_a_process(
        """
        import resource
        from colbert_core.storage import files
        files._LARGEST_ROW = 10
        one, path = [np.ones((1, 4))], sys.argv[1] + "/x.idx"
        Index.create(path, dim=4).close()
        index = Index.open(path)
        index.add([Passage("a", "text")], embeddings=one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        held = []
        try:
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        for call in (
            lambda: Index.create(sys.argv[1] + "/new.idx", dim=4),
            lambda: Index.open(path),
            lambda: index.add([Passage("b", "text")], embeddings=one),
            lambda: index.delete(["a"]),
            lambda: index.save(sys.argv[1] + "/copy.idx"),
        ):
            try:
                call()
            except IndexWriteError as error:
                assert "This process has no file descriptors left: close some files, or raise its limit" in str(error), error
            else:
                raise AssertionError("it worked")
        for descriptor in held:
            os.close(descriptor)
        index.add([Passage("b", "text")], embeddings=one)
        index.save(sys.argv[1] + "/copy.idx")
        print(sorted(Index.open(sys.argv[1] + "/copy.idx").ids()))
        """,
        tmp_path,
    )
    assert out == "['a', 'b']\n"


@pytest.mark.parametrize(
    "name", ["n" * 300, "/".join(["d" * 90] * 6), "/".join(["d" * 90] * 60)], ids=["name", "path", "endless"]
)
def test_a_name_that_is_too_long_is_refused_by_its_length(tmp_path, name):
    with Index.create(None, dim=4) as index:
        for make in (lambda path: Index.create(path, dim=4), index.save):
            with pytest.raises(StorageError, match=r"[Cc]hoose a shorter path"):
                make(tmp_path / name)
