"""``~`` at the beginning of a path is the home folder, wherever a user gives one."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.encoders import WordEncoder

from colbert_core import Encoder, Index, Passage
from colbert_core.evaluation import BM25, open_dataset, read_qrels, read_run, write_run
from colbert_core.paths import as_path
from colbert_core.train import read_examples
from colbert_core.train.examples import Example, write_examples


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    yield tmp_path / "home"
    assert not (tmp_path / "~").exists()


def test_home_is_meant_at_the_beginning_alone(home):
    assert as_path("~/a") == home / "a"
    assert as_path("~") == home
    assert as_path("a/~/b") == Path("a/~/b")
    assert as_path("~$draft.txt") == Path("~$draft.txt")  # no user has this name, but a file may


def test_indexes_and_models(home, stanford):
    with Index.create("~/a.idx", WordEncoder()) as index:
        index.add([Passage("a", "cats purr")])
        index.save("~/b.idx")
    with Index.open("~/b.idx", WordEncoder()) as index:
        assert len(index) == 1
    stanford.save("~/model", format="pylate")
    encoder = Encoder.from_pretrained("~/model")
    assert encoder.origin["name"] == str(home / "model")
    assert sorted(path.name for path in home.iterdir()) == ["a.idx", "b.idx", "model"]


def test_files_of_evaluation_and_training(home):
    write_run("~/run.trec", {"q": {"a": 1.0}}, "mine")
    assert read_run("~/run.trec") == {"q": {"a": 1.0}}
    (home / "qrels.tsv").write_text("q\t0\ta\t1\n")
    assert read_qrels("~/qrels.tsv") == {"q": {"a": 1}}
    BM25.build([Passage("a", "cats purr")], progress=False).save("~/bm25")
    assert len(BM25.load("~/bm25")) == 1
    write_examples([Example("why", "yes", ("no",))], "~/examples.jsonl")
    assert len(list(read_examples("~/examples.jsonl"))) == 1
    with pytest.raises(ValueError, match="home.data"):
        open_dataset("~/data")


def test_the_command_line(home, run, stanford_folder):
    (home / "notes").mkdir()
    (home / "notes" / "a.txt").write_text("the cat sat")
    model = ["--model", str(stanford_folder), "--device", "cpu"]
    code, _, err = run("index", "~/notes", "--out=~/x.idx", *model, "--quiet")
    assert (code, err) == (0, "")
    assert run("stats", "~/x.idx")[0] == 0
    assert (home / "x.idx" / "index.sqlite").is_file()


def test_folders_of_both_frameworks(home, stanford):
    from llama_index.core.schema import TextNode

    from langchain_colbert import ColBERTVectorStore
    from langchain_colbert.ragatouille import RAGPretrainedModel
    from llama_index_colbert import ColBERTIndex
    from llama_index_colbert import ColBERTVectorStore as LlamaStore

    ColBERTVectorStore(stanford, persist_directory="~/a").add_texts(["the cat"])
    LlamaStore(stanford, path="~/b").add([TextNode(text="the cat")])
    ColBERTIndex([TextNode(text="the cat")], model_name=stanford).persist("~/c")
    assert len(ColBERTIndex.load("~/c", model_name=stanford).index) == 1
    RAGPretrainedModel.from_pretrained(index_root="~/d").index(["the cat"], index_name="x")
    assert len(RAGPretrainedModel.from_index("~/d/colbert/indexes/x").search("cat")) == 1
    assert sorted(path.name for path in home.iterdir() if path.is_dir() and path.name[0] != ".") == ["a", "b", "c", "d"]
