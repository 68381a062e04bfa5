"""The commands that train, mine, encode, index and evaluate, and what they say of bad input."""

from __future__ import annotations

import json
import sys

import pytest
from builders import checkpoints
from builders.colbertv1 import write_collection
from builders.encoders import write_stanford

from colbert_core.evaluation.trec import read_run
from colbert_core.train import read_examples


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    return write_collection(tmp_path_factory.mktemp("data") / "small", train=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_stanford(tmp_path_factory.mktemp("base"))


def test_the_pipeline_command_prints_steps_and_tables(run, collection, base, tmp_path):
    code, out, err = run(
        *("pipeline", str(collection), "--out", str(tmp_path / "run"), "--base", str(base), "--quiet"),
        *("--max-steps", "2", "--batch-size", "4", "--query-length", "12", "--passage-length", "20"),
    )
    assert (code, err) == (0, "")
    assert out.startswith("check ")
    assert "MRR@10" in out


def test_the_pipeline_trains_a_base_with_its_own_code_if_it_is_trusted(run, collection, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    base = checkpoints.own_code(tmp_path / "base")
    command = ("pipeline", str(collection), "--out", str(tmp_path / "run"), "--base", str(base), "--quiet")
    command += ("--max-steps", "2", "--batch-size", "4", "--query-length", "12", "--passage-length", "20")
    code, _, err = run(*command)
    assert code == 1
    assert "pass trust_remote_code=True" in err
    assert not (tmp_path / "run").exists()
    code, out, err = run(*command, "--trust-remote-code")
    assert (code, err) == (0, "")
    assert "MRR@10" in out


def test_mine_train_encode_index_search_and_evaluate_step_by_step(run, collection, base, tmp_path):
    def colbert(*arguments):
        code, out, err = run(*map(str, arguments), "--quiet")
        assert (code, err) == (0, ""), err
        return out

    lengths = ("--base", base, "--query-length", "12", "--passage-length", "20")
    examples, prepared, model = tmp_path / "examples.jsonl", tmp_path / "prepared", tmp_path / "training" / "model"
    assert "12 examples" in colbert("mine", collection, "--out", examples, "--negatives", "3")
    assert "12 examples" in colbert("data", "prepare", examples, "--out", prepared, *lengths)
    trained = colbert(
        *("train", prepared, "--out", tmp_path / "training", *lengths, "--batch-size", "4", "--max-steps", "2"),
        *("--eval", collection, "--eval-split", "test"),
    )
    assert str(model) in trained
    assert "60 passages" in colbert("encode", collection, "--model", model, "--out", tmp_path / "vectors")
    colbert("ivfpq", "build", tmp_path / "vectors", "--out", tmp_path / "ivfpq")
    printed = colbert("ivfpq", "search", tmp_path / "ivfpq", collection, "--split", "test", "--out", tmp_path / "ivfpq.trec")
    assert printed.startswith("8 queries")
    scored = {
        name: json.loads(colbert("evaluate", collection, *options, "--json"))
        for name, options in {
            "bm25": ["--out", tmp_path / "bm25.trec"],
            "ivfpq": ["--ivfpq", tmp_path / "ivfpq", "--model", model],
            "run": ["--run", tmp_path / "ivfpq.trec", "--compare", tmp_path / "bm25.trec", "--per-query"],
            "rerank": ["--rerank", tmp_path / "bm25.trec", "--model", model, "--depth", "10"],
        }.items()
    }
    assert scored["run"]["nDCG@10"] == pytest.approx(scored["ivfpq"]["nDCG@10"])
    assert scored["run"]["compared"]["mean_a"] == pytest.approx(scored["bm25"]["nDCG@10"])
    assert len(scored["run"]["by_query"]["nDCG@10"]) == 8
    assert scored["ivfpq"]["index_bytes"] > 0
    assert 0 <= scored["rerank"]["MRR@10"] <= 1
    printed = colbert(
        "evaluate", collection, "--run", tmp_path / "bm25.trec", "--measures", "MRR@10", "Recall@50", "--per-query"
    )
    assert "ColBERT (SIGIR 2020)" in printed
    assert printed.startswith("q")


def test_an_index_is_evaluated_and_drawn(run, collection, base, tmp_path):
    pytest.importorskip("matplotlib")
    assert (
        run("index", str(collection / "corpus.jsonl"), "--out", str(tmp_path / "idx"), "--model", str(base), "--quiet")[0] == 0
    )
    index = ["evaluate", str(collection), "--index", str(tmp_path / "idx"), "--quiet"]
    code, out, _ = run(*index, "--json", "--plot", str(tmp_path / "plot.png"))
    assert code == 0
    exact = json.loads(run(*index, "--json", "--exact")[1])
    assert json.loads(out)["nDCG@10"] == exact["nDCG@10"]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = run("evaluate", str(collection), "--plot", "x.png")
    assert (code, "--index" in err) == (1, True)


def test_mining_with_an_index(run, collection, base, tmp_path):
    run("index", str(collection / "corpus.jsonl"), "--out", str(tmp_path / "idx"), "--model", str(base), "--quiet")
    out = tmp_path / "examples.jsonl"
    arguments = ["mine", str(collection), "--out", str(out), "--with", str(tmp_path / "idx"), "--negatives", "2", "--quiet"]
    assert run(*arguments, "--ranks", "2", "20")[0] == 0
    assert all(len(example.negatives) == 2 for example in read_examples(out))


def test_mining_with_an_index_whose_documents_were_cut(run, base, tmp_path):
    data = write_collection(tmp_path / "data", train=True)
    records = [json.loads(line) for line in (data / "corpus.jsonl").read_text().splitlines()]
    whole = {record["_id"]: ". ".join([record["text"]] * 12) for record in records}
    (data / "corpus.jsonl").write_text("".join(json.dumps({"_id": i, "text": t}) + "\n" for i, t in whole.items()))
    index, out = tmp_path / "idx", tmp_path / "examples.jsonl"
    assert (
        "60 passages" not in run("index", str(data / "corpus.jsonl"), "--out", str(index), "--model", str(base), "--quiet")[1]
    )
    arguments = ["mine", str(data), "--out", str(out), "--with", str(index), "--quiet", "--ranks", "1", "20"]
    code, _, err = run(*arguments)
    assert (code, err) == (0, "")
    examples = list(read_examples(out))
    assert len(examples) == 12
    assert all(len(set(example.negatives)) == 10 for example in examples)
    assert {text for example in examples for text in (example.positive, *example.negatives)} <= set(whole.values())
    assert all(example.positive not in example.negatives for example in examples)


def test_mining_with_an_index_of_another_collection_says_so(run, collection, base, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"_id": "elsewhere", "text": "the cat"}) + "\n")
    run("index", str(other), "--out", str(tmp_path / "idx"), "--model", str(base), "--quiet")
    code, _, err = run("mine", str(collection), "--out", str(tmp_path / "x.jsonl"), "--with", str(tmp_path / "idx"), "--quiet")
    assert (code, "idx holds the passage 'elsewhere', which is none of" in err) == (1, True)


@pytest.mark.parametrize(("line", "problem"), [("q999\tp1\t1", "judges the query 'q999'"), ("q19\tnowhere\t1", "'nowhere'")])
def test_mining_names_a_bad_judgement_with_its_place(run, tmp_path, line, problem):
    data = write_collection(tmp_path / "data", train=True)
    with (data / "qrels" / "train.tsv").open("a") as file:
        file.write(f"{line}\n")
    code, _, err = run("mine", str(data), "--out", str(tmp_path / "x.jsonl"), "--quiet")
    assert (code, "train.tsv, line 14" in err, problem in err) == (1, True, True)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--measures", "MAP"], "There is no measure 'MAP'"),
        (["--out", "nowhere/x.trec"], "There is no folder nowhere to write x.trec into"),
        (["--out", "."], ". is a folder; name a file"),
        (["--compare", "none.trec"], "none.trec"),
        (["--compare", "other.trec"], "None of the 1 queries of the run is judged"),
        (["--index", "idx", "--plot", "nowhere/x.png"], "There is no folder nowhere to write x.png into"),
    ],
)
def test_an_evaluation_that_cannot_end_well_does_not_begin(run, collection, monkeypatch, tmp_path, options, problem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.trec").write_text("q Q0 p1 1 2.5 x\n")
    monkeypatch.setattr("colbert_core.cli.training_commands._retrieve", lambda *_: pytest.fail("retrieved"))
    code, _, err = run("evaluate", str(collection), "--quiet", *options)
    assert (code, problem in err) == (1, True), err


def test_retrieval_for_a_file_that_cannot_be_written_does_not_begin(run, collection, monkeypatch, tmp_path):
    monkeypatch.setattr("colbert_core.cli.training_commands.run_of", lambda *_, **__: pytest.fail("retrieved"))
    code, _, err = run("ivfpq", "search", "idx", str(collection), "--out", str(tmp_path / "nowhere" / "x.trec"))
    assert (code, "to write x.trec into" in err) == (1, True)


def test_evaluation_without_ir_measures_is_an_error_before_anything_is_retrieved(run, collection, monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    monkeypatch.setattr("colbert_core.cli.training_commands._retrieve", lambda *_: pytest.fail("retrieved"))
    code, _, err = run("evaluate", str(collection), "--quiet")
    assert (code, "pip install ir-measures" in err) == (1, True)


def test_a_malformed_line_is_named_by_file_and_number(run, base, tmp_path):
    bad = tmp_path / "triples.tsv"
    bad.write_text("the cat\ta cat\ta dog\nonly a query\n")
    code, _, err = run("train", str(bad), "--base", str(base), "--out", str(tmp_path / "out"), "--quiet")
    assert (code, "triples.tsv" in err, "2" in err) == (1, True, True)
    code, _, err = run("train", str(tmp_path), "--out", str(tmp_path / "out"), "--quiet")
    assert (code, "is no collection" in err) == (1, True)


# Queries that are passages


@pytest.fixture
def arguments(tmp_path):
    """Claims, each with its answer in the corpus; the claims are the queries, and in the corpus as well."""
    data = tmp_path / "arguments"
    (data / "qrels").mkdir(parents=True)
    words = ["cat", "dog", "rust", "mat"]
    claims = {f"claim{n}": f"the {word} is happy" for n, word in enumerate(words)}
    answers = {f"answer{n}": f"a {word} purr" for n, word in enumerate(words)}
    (data / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": i, "text": t}) + "\n" for i, t in {**claims, **answers}.items())
    )
    (data / "queries.jsonl").write_text("".join(json.dumps({"_id": i, "text": t}) + "\n" for i, t in claims.items()))
    qrels = "".join(f"claim{n}\tanswer{n}\t1\n" for n in range(4))
    for split in ("test", "train"):
        (data / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{qrels}")
    return data


def test_what_has_the_query_s_own_id_is_left_out_of_every_system(run, arguments, base, tmp_path):
    made = run("index", str(arguments / "corpus.jsonl"), "--out", str(tmp_path / "idx"), "--model", str(base), "--quiet")
    assert made[0] == 0
    trec = tmp_path / "with.trec"
    trec.write_text(
        "".join(
            f"claim{n} Q0 {name}{n} {rank} {9 - rank} x\n" for n in range(4) for rank, name in ((1, "claim"), (2, "answer"))
        )
    )
    systems = ([], ["--index", "idx"], ["--index", "idx", "--mode", "hybrid"], ["--index", "idx", "--mode", "words"])
    systems += (["--run", "with.trec"], ["--rerank", "with.trec", "--model", str(base)])
    for system in systems:
        options = [str(tmp_path / part) if part in ("idx", "with.trec") else part for part in system]
        out = tmp_path / "out.trec"
        code, printed, err = run("evaluate", str(arguments), *options, "--json", "-k", "3", "--out", str(out), "--quiet")
        assert (code, json.loads(printed)["identical_ids"]) == (0, 4), system
        assert "4 of 4 queries found the passage with an id identical to their own; it is left out, as BEIR does" in err
        found = read_run(out)
        assert not any(query in scores for query, scores in found.items())
        code, printed, err = run(
            "evaluate", str(arguments), *options, "--json", "-k", "3", "--keep-identical-ids", "--out", str(out)
        )
        assert (code, "identical" in printed + err) == (0, False)
        assert all(query in scores for query, scores in read_run(out).items())
    best = json.loads(run("evaluate", str(arguments), "--json", "--measures", "MRR@10", "--run", str(trec))[1])
    assert best["MRR@10"] == 1.0
    kept = json.loads(
        run("evaluate", str(arguments), "--json", "--measures", "MRR@10", "--run", str(trec), "--keep-identical-ids")[1]
    )
    assert kept["MRR@10"] == 0.5


def test_a_depth_counts_what_is_left(run, arguments, tmp_path):
    run("evaluate", str(arguments), "-k", "1", "--out", str(tmp_path / "out.trec"), "--quiet")
    assert {query: len(scores) for query, scores in read_run(tmp_path / "out.trec").items()} == {
        f"claim{n}": 1 for n in range(4)
    }


def test_several_weights_leave_out_what_has_the_query_s_id(run, arguments, base, tmp_path):
    run("index", str(arguments / "corpus.jsonl"), "--out", str(tmp_path / "idx"), "--model", str(base), "--quiet")
    weights = ("--mode", "hybrid", "--weight", "0.2", "0.5")
    code, out, err = run("evaluate", str(arguments), "--index", str(tmp_path / "idx"), *weights, "--json", "--quiet")
    assert (code, json.loads(out)["identical_ids"], "4 of 4 queries" in err) == (0, 4, True)


def test_a_judged_passage_that_is_not_there_is_counted(run, arguments, base, tmp_path):
    assert "judged passage" not in run("evaluate", str(arguments), "--quiet")[2]
    with (arguments / "qrels" / "test.tsv").open("a") as file:
        file.write("claim0\tnowhere\t1\nclaim1\tnowhere\t0\n")
    code, _, err = run("evaluate", str(arguments), "--quiet")
    assert (code, f"1 judged passage is not in {arguments}, such as 'nowhere'" in err) == (0, True)
    few = tmp_path / "few.jsonl"
    few.write_text("".join((arguments / "corpus.jsonl").read_text().splitlines(keepends=True)[:6]))
    run("index", str(few), "--out", str(tmp_path / "idx"), "--model", str(base), "--quiet")
    code, _, err = run("evaluate", str(arguments), "--index", str(tmp_path / "idx"), "--quiet")
    assert (code, f"2 judged passages are not in {tmp_path / 'idx'}, such as 'answer2'" in err) == (0, True)


@pytest.mark.parametrize("retriever", ["bm25", "idx"])
def test_mining_takes_no_copy_of_the_positive_and_not_the_query(run, arguments, base, tmp_path, retriever):
    with (arguments / "corpus.jsonl").open("a") as file:
        file.writelines(
            json.dumps({"_id": f"copy{n}", "text": f"A {word}  purr"}) + "\n" for n, word in enumerate(["cat", "dog"])
        )
    with_ = "bm25"
    if retriever == "idx":
        run("index", str(arguments / "corpus.jsonl"), "--out", str(tmp_path / "idx"), "--model", str(base), "--quiet")
        with_ = str(tmp_path / "idx")
    out = tmp_path / "mined.jsonl"
    code, _, _ = run(
        "mine", str(arguments), "--out", str(out), "--with", with_, "--ranks", "1", "9", "--negatives", "2", "--quiet"
    )
    assert code == 0
    assert all(
        isinstance(json.loads(line)["negatives"], list) for line in out.read_text().splitlines()
    )  # also where none is left
    for example in read_examples(out):
        assert {example.positive.lower(), example.query} & {
            " ".join(text.lower().split()) for text in example.negatives
        } == set()


# Training data that teach nothing


def test_prepared_data_are_told_what_a_training_would_say(run, base, tmp_path):
    file = tmp_path / "train.jsonl"
    scored = {"query": "the cat", "positive": "a cat", "negatives": ["a dog"], "scores": [2, 1]}
    file.write_text(
        json.dumps(scored) + "\n" + json.dumps({"query": "the dog", "positive": "a dog", "negatives": ["a cat"]}) + "\n"
    )
    command = ("--base", str(base), "--query-length", "12", "--passage-length", "20", "--quiet")
    code, _, err = run("data", "prepare", str(file), "--out", str(tmp_path / "data"), *command)
    assert (code, f"colbert: 1 of 2 examples has no teacher scores, the first of them {file}, line 2" in err) == (0, True)
    code, _, err = run("train", str(file), "--out", str(tmp_path / "run"), *command, "--loss", "distillation")
    assert (code, f"{file}, line 2 (query 'the dog'" in err) == (1, True)
    file.write_text(json.dumps({"query": "the cat", "positive": "a cat", "negatives": ["A  cat"]}) + "\n")
    code, _, err = run("train", str(file), "--out", str(tmp_path / "other"), *command)
    assert (code, "None of the 1 examples can teach anything" in err, f"{file}, line 1" in err) == (1, True, True)
