"""ColBERTv1's pipeline end to end on a tiny collection."""

from __future__ import annotations

import json
import sys

import pytest
from builders.colbertv1 import NAMES, TINY, append, write_collection
from builders.encoders import write_stanford

from colbert_core import CheckpointError, Encoder, MissingExtraError
from colbert_core.colbertv1.pipeline import own_triples, run_pipeline
from colbert_core.evaluation.datasets import open_dataset
from colbert_core.evaluation.trec import read_run
from colbert_core.train import Example, read_examples
from colbert_core.train.folder import locked
from langchain_colbert import ColBERTRetriever
from llama_index_colbert import ColBERTRetriever as LlamaIndexRetriever

pytest.importorskip("accelerate")


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    return write_collection(tmp_path_factory.mktemp("data") / "small", train=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_stanford(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def finished(collection, base, tmp_path_factory):
    """A run, and what it said."""
    out, said = tmp_path_factory.mktemp("runs") / "run", []
    return run_pipeline(collection, out, base=base, say=said.append, progress=False, **TINY), said, out


def test_the_pipeline_ends_with_scores_a_report_and_the_time_of_each_step(finished):
    result, said, out = finished
    assert list(result.seconds) == ["check", "mine", "train", "encode", "index", "retrieve", "compare"]
    assert set(result.scores) == {"IVFPQ", "exact", "BM25"}
    assert result.scores["BM25"]["MRR@10"] > 0.5  # queries are words of their passages
    report = result.report.read_text()
    assert all(line in report for line in ("| nDCG@10 |", "36.0", "96.8", "| train |"))
    assert [line.split()[0] for line in said[:-1]] == list(result.seconds)
    assert (out / "training" / "log.jsonl").read_text().count('"loss"') == 3


def test_ivfpq_finds_what_exact_scoring_of_a_small_collection_finds(finished):
    result, _, out = finished
    assert result.scores["IVFPQ"]["nDCG@10"] == pytest.approx(result.scores["exact"]["nDCG@10"], abs=0.005)
    approximate, exact = (read_run(out / "runs" / f"{name}.trec") for name in ("IVFPQ", "exact"))
    assert set(approximate) == set(exact) == {f"q{n}" for n in range(8)}


def test_triples_are_mined_for_the_queries_that_are_not_scored(finished, collection):
    _, _, out = finished
    queries = open_dataset(collection).queries("train")
    examples = list(read_examples(out / "examples.jsonl"))
    assert {example.query for example in examples} <= set(queries.values())
    assert all(len(example.negatives) == 1 and example.positive not in example.negatives for example in examples)


def test_the_checkpoint_opens_in_the_encoder_and_both_adapters(finished):
    result, _, _ = finished
    encoder = Encoder.from_pretrained(result.model)
    assert encoder.config.similarity == "l2"
    assert ColBERTRetriever.from_texts(["the cat"], model=result.model).invoke("cat")[0].page_content == "the cat"
    assert LlamaIndexRetriever.from_nodes([], model=encoder).retrieve("cat") == []


def test_a_second_call_skips_everything_and_says_the_same(finished, collection, base):
    result, _, out = finished
    said = []
    assert run_pipeline(collection, out, base=base, say=said.append, progress=False, **TINY) == result
    assert all(line.endswith("(finished before)") for line in said[:-1])


def test_a_run_that_broke_off_goes_on(collection, base, tmp_path, monkeypatch):
    import colbert_core.colbertv1.pipeline as module

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.IVFPQ, "build", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(collection, tmp_path / "run", base=base, progress=False, **TINY)
    said = []
    run_pipeline(collection, tmp_path / "run", base=base, say=said.append, progress=False, **TINY)
    before = [line.split()[0] for line in said if line.endswith("(finished before)")]
    assert before == ["check", "mine", "train", "encode"]


def test_without_training_judgements_a_fifth_of_the_queries_is_scored(base, tmp_path):
    result = run_pipeline(write_collection(tmp_path / "data"), tmp_path / "run", base=base, progress=False, **TINY)
    scored = read_run(tmp_path / "run" / "runs" / "BM25.trec")
    assert len(scored) == 4
    assert "4 queries" in result.report.read_text()


def test_a_folder_of_another_run_or_of_something_else_is_left_alone(finished, collection, base, tmp_path):
    _, _, out = finished
    with pytest.raises(ValueError, match="holds a run with n_negatives=4, but 2 is asked for"):
        run_pipeline(collection, out, base=base, n_negatives=2, progress=False, **TINY)
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="holds something that is no run"):
        run_pipeline(collection, tmp_path, base=base, progress=False)


def test_bad_collections_are_named_before_anything_is_trained(base, tmp_path):
    data = write_collection(tmp_path / "data")
    with (data / "qrels" / "test.tsv").open("a") as file:
        file.write("q1\tnowhere\t1\n")
    with pytest.raises(ValueError, match=r"test\.tsv.*nowhere"):
        run_pipeline(data, tmp_path / "run", base=base, progress=False)
    (data / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n")
    with pytest.raises(ValueError, match="has no judgements"):
        run_pipeline(data, tmp_path / "other", base=base, progress=False)


@pytest.mark.parametrize(
    ("line", "problem"), [("q999\tp1\t1\n", "judges the query 'q999'"), ("q19\tnowhere\t1\n", "judges the passage 'nowhere'")]
)
def test_a_bad_judgement_of_the_training_queries_is_named_and_may_be_corrected(base, tmp_path, line, problem):
    data = write_collection(tmp_path / "data", train=True)
    good = (data / "qrels" / "train.tsv").read_text()
    append(data / "qrels" / "train.tsv", line)
    with pytest.raises(ValueError, match=rf"train\.tsv, line 14 {problem}"):
        run_pipeline(data, tmp_path / "run", base=base, progress=False, **TINY)
    (data / "qrels" / "train.tsv").write_text(good)
    assert run_pipeline(data, tmp_path / "run", base=base, progress=False, **TINY).scores


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        ({"split": "tset"}, ValueError, "has no split 'tset'; it has test, train"),
        ({"loss": "pair-wise"}, ValueError, "loss must be one of pairwise"),
        ({"loss": "distillation"}, ValueError, "learns from a teacher's scores"),
        ({"negatives": 0}, ValueError, "nothing to compare a positive with"),
        ({"lr": 1e-5}, TypeError, "There is no setting 'lr'"),
        ({"n_negatives": 0}, ValueError, "n_negatives must be at least 1, got 0"),
        ({"base": "/nowhere/base"}, CheckpointError, "/nowhere/base"),
    ],
)
def test_a_bad_argument_is_an_error_before_anything_is_written(collection, base, tmp_path, arguments, error, problem):
    with pytest.raises(error, match=problem):
        run_pipeline(collection, tmp_path / "run", **{"base": base, "progress": False, **TINY, **arguments})
    assert not (tmp_path / "run").exists()


def test_evaluation_that_is_not_installed_is_an_error_before_anything_is_written(collection, base, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(MissingExtraError, match="pip install ir-measures"):
        run_pipeline(collection, tmp_path / "run", base=base, progress=False, **TINY)
    assert not (tmp_path / "run").exists()


def test_arguments_may_change_while_nothing_but_the_collection_is_checked(collection, base, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("colbert_core.colbertv1.pipeline.mine_with_bm25", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_pipeline(collection, tmp_path / "run", base=base, n_negatives=9, progress=False, **TINY)
    assert list(json.loads((tmp_path / "run" / "run.json").read_text())["steps"]) == ["check"]
    run_pipeline(collection, tmp_path / "run", base=base, n_negatives=2, progress=False, **TINY)
    assert len(list(read_examples(tmp_path / "run" / "examples.jsonl"))) == 24
    with pytest.raises(ValueError, match="holds a run with settings/steps=3, but 4 is asked for"):
        run_pipeline(collection, tmp_path / "run", base=base, n_negatives=2, progress=False, **TINY | {"steps": 4})


def test_an_index_is_kept_when_the_run_died_before_it_said_that_it_was_built(collection, base, tmp_path, monkeypatch):
    import colbert_core.colbertv1.pipeline as module

    finish, build, built = module._Steps.finish, module.IVFPQ.build, []

    def full(self, name, step):
        if name == "index":
            raise OSError(28, "No space left on device")
        finish(self, name, step)

    monkeypatch.setattr(module.IVFPQ, "build", lambda *arguments, **settings: built.append(1) or build(*arguments, **settings))
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(module._Steps, "finish", full)
            with pytest.raises(OSError, match="No space left"):
                run_pipeline(collection, tmp_path / "run", base=base, progress=False, **TINY)
    assert len(built) == 1
    manifest = tmp_path / "run" / "ivfpq" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"embeddings_sha256": "', '"embeddings_sha256": "0'))
    assert run_pipeline(collection, tmp_path / "run", base=base, progress=False, **TINY).scores
    assert len(built) == 2  # that was of other vectors


def test_other_triples_are_another_run(collection, base, tmp_path):
    data = write_collection(tmp_path / "data", train=True)
    (data / "qrels" / "train.tsv").write_text("q8\tnowhere\t1\n")  # not looked at where triples are
    triples = data / "triples.train.small.tsv"
    triples.write_text("".join(f"the cat {letter}\tdog {letter}\tcat\n" for letter in "abcdefgh"))
    first = run_pipeline(data, tmp_path / "run", base=base, progress=False, **TINY)
    assert "mine" not in first.seconds
    assert run_pipeline(data, tmp_path / "run", base=base, progress=False, **TINY) == first
    triples.write_text("".join(f"the mat {letter}\tdog {letter}\tcat\n" for letter in "abcdefgh"))
    with pytest.raises(ValueError, match=r"holds a run with data/triples\.train\.small\.tsv=\[160, "):
        run_pipeline(data, tmp_path / "run", base=base, progress=False, **TINY)


def test_any_dim_and_any_number_of_vectors_can_be_indexed(tmp_path):
    base = write_stanford(tmp_path / "base", dim=15)
    data = write_collection(tmp_path / "data")
    kept = (data / "corpus.jsonl").read_text().splitlines(keepends=True)[:6]
    (data / "corpus.jsonl").write_text("".join(kept))  # fewer than 256 vectors
    (data / "qrels" / "test.tsv").write_text("".join(f"q{n}\tp{n}\t1\n" for n in range(6)))
    (data / "triples.train.small.tsv").write_text("".join(f"the cat {letter}\tdog {letter}\tcat\n" for letter in "abcdefgh"))
    result = run_pipeline(data, tmp_path / "run", base=base, progress=False, **TINY)
    manifest = json.loads((tmp_path / "run" / "ivfpq" / "manifest.json").read_text())
    assert (manifest["settings"]["m"], manifest["settings"]["nbits"]) == (15, 6)
    assert result.scores["IVFPQ"] == pytest.approx(result.scores["exact"])


def test_one_pipeline_at_a_time_is_at_work_in_a_folder(collection, base, tmp_path):
    with locked(tmp_path / "run"), pytest.raises(BlockingIOError, match="Another run is at work in"):
        run_pipeline(collection, tmp_path / "run", base=base, progress=False, **TINY)
    assert list((tmp_path / "run").iterdir()) == []


def test_triples_of_ids_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "collection.tsv").write_text("0\tcat\n1\tdog\n")
    (tmp_path / "queries.train.tsv").write_text("7\twhat purrs\n")
    (tmp_path / "triples.train.small.tsv").write_bytes(b"\xef\xbb\xbf7\t0\t1\n")
    triples = list(own_triples(open_dataset(tmp_path), tmp_path / "triples.train.small.tsv"))
    assert triples == [Example("what purrs", "cat", ("dog",))]


def test_scoring_every_passage_takes_few_queries_at_a_time(finished, monkeypatch):
    import colbert_core.colbertv1.pipeline as module

    result, _, out = finished
    encoded, at_a_time = module.EncodedCollection.open(out / "embeddings"), []
    encoder, queries = Encoder.from_pretrained(result.model), {f"q{n}": f"the {word}" for n, word in enumerate(NAMES[:7])}
    together = module._exact_run(encoded, encoder, queries)
    score = module.EncodedCollection.score_many
    monkeypatch.setattr(
        module.EncodedCollection, "score_many", lambda self, some, rows: at_a_time.append(len(some)) or score(self, some, rows)
    )
    monkeypatch.setattr(module, "_SCORES_AT_A_TIME", 3 * len(encoded))
    assert module._exact_run(encoded, encoder, queries) == together
    assert at_a_time == [3, 3, 1]
