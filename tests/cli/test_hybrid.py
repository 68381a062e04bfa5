"""Searches by words on the command line: what is printed, what is loaded, and how words are chosen and measured."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders.colbertv1 import write_collection
from builders.encoders import WordEncoder
from builders.foreign_indexes import write_ragatouille_index

from colbert_core import Hit, Index, Passage
from colbert_core.cli import printing
from colbert_core.evaluation.trec import by_document
from colbert_core.search.lexical import weight_for

BEFORE = Path(__file__).parents[1] / "data" / "before"
TEXTS = {
    "a": "The cat sat on a mat.",
    "b": "CVE-2023-1234 is about a cat.",
    "c": "Rust is a systems language.",
}


@pytest.fixture
def pets(tmp_path, monkeypatch, stanford_folder):
    """An index of three passages, and the file they come from."""
    monkeypatch.chdir(tmp_path)
    lines = (json.dumps({"id": name, "text": text, "number": number}) for number, (name, text) in enumerate(TEXTS.items()))
    Path("pets.jsonl").write_text("\n".join(lines))
    with Index.create("pets.idx", str(stanford_folder)) as index:
        index.add([Passage(name, text, {"number": number}) for number, (name, text) in enumerate(TEXTS.items())])
    return "pets.idx"


def lines_of(printed):
    return [json.loads(line) for line in printed.splitlines()]


def test_hybrid_ranks_by_the_sum_and_prints_what_it_is_made_of(run, pets):
    code, out, err = run("search", pets, "CVE-2023-1234", "--mode", "hybrid", "--weight", "1", "--json")
    hits = lines_of(out)
    assert (code, err, hits[0]["id"], len(hits)) == (0, "", "b", 3)
    for hit in hits:
        assert hit["hybrid_relevance"] == pytest.approx(hit["relevance"] + hit["coverage"])
    assert [hit["coverage"] > 0 for hit in hits] == [True, False, False]
    out = run("search", pets, "CVE-2023-1234", "--mode", "hybrid", "--weight", "1")[1]
    assert out.splitlines()[0].split()[:5] == [
        "1.",
        f"{hits[0]['score']:.2f}",
        f"{hits[0]['relevance']:.3f}",
        f"{hits[0]['coverage']:.3f}",
        "[b]",
    ]
    with Index.open(pets) as index:
        terms = ["cve-2023-1234", "cve", "2023", "1234"]
        weight = weight_for(terms, index.word_counts(["CVE-2023-1234"]))
    (usual,) = lines_of(run("search", pets, "CVE-2023-1234", "--mode", "hybrid", "--json", "-k", "1")[1])
    assert usual["hybrid_relevance"] == pytest.approx(usual["relevance"] + weight * usual["coverage"])
    plain = lines_of(run("search", pets, "cat", "--json")[1])
    assert all("coverage" not in hit and "hybrid_relevance" not in hit for hit in plain)
    assert lines_of(run("search", pets, "cat", "--mode", "maxsim", "--json")[1]) == plain


def test_words_alone_find_what_has_one_and_print_the_coverage(run, pets):
    hits = lines_of(run("search", pets, "the cats", "--mode", "words", "--json")[1])
    assert {hit["id"] for hit in hits} == {"a", "b"}
    assert all(hit["score"] == hit["relevance"] == hit["coverage"] == hit["hybrid_relevance"] for hit in hits)
    out = run("search", pets, "the cats", "--mode", "words", "-k", "1")[1]
    assert out.split()[:3] == ["1.", f"{hits[0]['coverage']:.3f}", f"[{hits[0]['id']}]"]
    (filtered,) = lines_of(run("search", pets, "cats", "--mode", "words", "--where", '{"number": 1}', "--json")[1])
    assert filtered == next({**hit, "rank": 1} for hit in hits if hit["id"] == "b")
    out = run("search", pets, "cats", "--mode", "words", "--explain")[1]
    assert len(out.splitlines()) == 2


@pytest.mark.parametrize("query", ["zebra", "is a the", "!?"])
def test_words_that_nobody_has_are_said_not_to_be_there(run, pets, query):
    said = "colbert: No passage has a word of the question; --mode hybrid and maxsim find passages by meaning.\n"
    assert run("search", pets, query, "--mode", "words") == (0, "", said)


@pytest.mark.parametrize("query", ['"cat" OR NOT NEAR(', "terms:cat*", "cat - ^cat AND", "'; DROP TABLE words; --cat"])
def test_the_syntax_of_the_full_text_index_is_taken_literally(run, pets, query):
    code, out, err = run("search", pets, query, "--mode", "words", "--json")
    assert (code, err) == (0, "")
    assert {"a", "b"} <= {hit["id"] for hit in lines_of(out)}
    assert run("search", pets, query, "--mode", "hybrid", "--json")[0] == 0


def test_a_search_by_words_alone_imports_no_pytorch(pets):
    code = (
        "import sys\n"
        "from colbert_core.cli.main import main\n"
        "assert main(['search', 'pets.idx', 'cats', '--mode', 'words']) == 0\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'safetensors', 'scipy', 'numba', 'ray'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "The cat sat" in done.stdout


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--mode", "words", "--weight", ".5"], "weight is for mode='hybrid', got weight=0.5 with mode='words'"),
        (["--weight", ".5"], "weight is for mode='hybrid', got weight=0.5 with mode='maxsim'"),
        (["--mode", "hybrid", "--weight", "1.5"], "weight is a number from 0 to 1"),
        (["--mode", "hybrid", "--weight", "-1"], "weight is a number from 0 to 1"),
        (["--mode", "hybrid", "--weight", "nan"], "weight is a number from 0 to 1"),
    ],
)
def test_what_means_nothing_is_named(run, pets, options, problem):
    code, out, err = run("search", pets, "cat", *options)
    assert (code, out) == (1, "")
    assert problem in err
    assert "Traceback" not in err


@pytest.mark.parametrize("query", ["", "  ", "\u200b"])
def test_an_empty_question_is_an_error_in_every_mode(run, pets, query):
    errors = [run("search", pets, query, "--mode", mode)[0::2] for mode in ("maxsim", "hybrid", "words")]
    assert {code for code, _ in errors} == {1}
    assert all("empty" in err for _, err in errors)


@pytest.mark.parametrize(
    "arguments", [["search", "x", "cat", "--mode", "bm25"], ["index", "x", "--out", "y", "--words", "klingon"]]
)
def test_a_mode_or_way_to_cut_that_there_is_not_is_wrong_usage(run, arguments):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2


# How texts are cut


@pytest.mark.parametrize(("words", "found"), [("english", {"a", "b"}), ("words", set()), ("trigrams", {"a", "b"})])
def test_texts_are_cut_as_the_index_was_made(run, pets, stanford_folder, words, found):
    out = f"{words}.idx"
    made = run("index", "pets.jsonl", "--out", out, "--model", str(stanford_folder), "--words", words, "--quiet")
    assert made[0::2] == (0, "")
    assert {hit["id"] for hit in lines_of(run("search", out, "cats", "--mode", "words", "--json")[1])} == found
    assert json.loads(run("stats", out, "--json")[1])["word_bytes"] > 0
    assert "word bytes " in run("stats", out)[1]


def test_an_index_may_have_no_words(run, pets, stanford_folder):
    run("index", "pets.jsonl", "--out", "none.idx", "--model", str(stanford_folder), "--words", "none", "--quiet")
    assert json.loads(run("stats", "none.idx", "--json")[1])["word_bytes"] == 0
    for mode in ("hybrid", "words"):
        code, out, err = run("search", "none.idx", "cats", "--mode", mode)
        assert (code, out) == (1, "")
        assert "The index was made without words" in err
    assert run("search", "none.idx", "cats")[0] == 0


def test_an_imported_index_has_words_as_well(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old = tmp_path / "old"
    write_ragatouille_index(old, dim=16)
    for words, n_bytes in (("english", True), ("none", False)):
        code, out, _ = run("import", str(old), "--out", f"{words}.idx", "--words", words, "--json", "--quiet")
        assert (code, json.loads(out)["word_bytes"] > 0) == (0, n_bytes)


def test_an_older_index_has_words_after_compact(run, tmp_path):
    path = str(shutil.copytree(BEFORE / "compressed", tmp_path / "old.idx"))
    code, out, err = run("search", path, "happy cats", "--mode", "words")
    assert (code, out) == (1, "")
    assert "has no words to search by" in err
    assert "`colbert compact`" in err
    assert run("compact", path, "--quiet")[0] == 0
    assert run("search", path, "happy cats", "--mode", "words")[1].startswith("   1. ")


def test_a_hit_is_printed_by_what_ranked_it():
    hit = Hit(Passage("a", "text"), 3.0, 0.5, 1, (0, 4), None, 0.25, 0.75)
    assert printing.hit_as_line(hit, "hybrid") == "   1.   3.00  0.500  0.250  [a] text"
    assert printing.hit_as_line(hit, "words") == "   1. 0.250  [a] text"
    assert printing.hit_as_line(Hit(Passage("a", "text"), 3.0, 0.5, 1, (0, 4))) == "   1.   3.00  0.500  [a] text"


# Measured


def test_a_document_has_the_score_by_which_its_best_piece_ranks():
    pieces = [("d#2", 2.0, 0.9), ("d#1", 9.0, 0.8), ("e", 8.0, 0.7)]
    hits = [
        Hit(Passage(name, "x", {"document_id": "d"}), score, 0.5, rank, (0, 1), None, 0.1, by)
        for rank, (name, score, by) in enumerate(pieces, 1)
    ]
    assert by_document(hits) == [("d", 0.9), ("e", 0.7)]


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A collection and an index of it."""
    folder = tmp_path_factory.mktemp("judged")
    collection = write_collection(folder / "small", train=True)
    with Index.create(folder / "x.idx", WordEncoder()) as index:
        records = map(json.loads, (collection / "corpus.jsonl").read_text().splitlines())
        index.add([Passage(record["_id"], record["text"]) for record in records])
    return collection, folder / "x.idx"


@pytest.fixture
def evaluate(run, judged, monkeypatch):
    """``colbert evaluate`` of the index, whose encoder is given."""
    collection, path = judged
    opened = Index.open
    monkeypatch.setattr(Index, "open", lambda path, _=None: opened(path, WordEncoder()))
    return lambda *options: run("evaluate", str(collection), "--index", str(path), "--quiet", *options)


def test_modes_are_measured(evaluate):
    measured = {mode: json.loads(evaluate("--mode", mode, "--json")[1]) for mode in ("maxsim", "hybrid", "words")}
    assert measured["maxsim"].keys() == measured["words"].keys()
    assert json.loads(evaluate("--json")[1])["nDCG@10"] == measured["maxsim"]["nDCG@10"]
    assert json.loads(evaluate("--mode", "hybrid", "--weight", "0.15", "--json")[1])["MRR@10"] == measured["hybrid"]["MRR@10"]
    assert measured["words"]["nDCG@10"] > 0.3


def test_several_weights_give_a_row_each(evaluate):
    code, out, err = evaluate("--mode", "hybrid", "--weight", "0", ".15", "1", "--json", "--measures", "nDCG@10")
    assert (code, err) == (0, "")
    rows = json.loads(out)["weights"]
    assert [row["weight"] for row in rows] == [0, 0.15, 1]
    for row in rows:
        alone = json.loads(evaluate("--mode", "hybrid", "--weight", str(row["weight"]), "--json", "--measures", "nDCG@10")[1])
        assert row["nDCG@10"] == alone["nDCG@10"]
    assert rows[0]["nDCG@10"] == json.loads(evaluate("--json", "--measures", "nDCG@10", "--exact")[1])["nDCG@10"]
    head, names, *lines = evaluate("--mode", "hybrid", "--weight", "0", "1")[1].splitlines()
    assert head.startswith("data ")
    assert head.endswith("small, split test, 8 queries")
    assert names.split() == ["weight", "nDCG@10", "MRR@10", "Recall@100", "Success@5", "median", "ms", "p95", "ms"]
    assert [line.split()[0] for line in lines] == ["0", "1"]
    assert lines[0].split()[1] == f"{rows[0]['nDCG@10']:.4f}"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--weight", "0", "1"], "weight is for mode='hybrid'"),
        (["--mode", "words", "--weight", "1"], "weight is for mode='hybrid'"),
        (["--mode", "hybrid", "--weight", ".5", "2"], "weight is a number from 0 to 1"),
        (
            ["--mode", "hybrid", "--weight", "0", "1", "--out", "x.trec"],
            "--out takes one run, and several weights give several",
        ),
        (["--mode", "hybrid", "--weight", "0", "1", "--per-query"], "--per-query prints one run"),
    ],
)
def test_an_evaluation_by_weights_that_cannot_end_well_does_not_begin(evaluate, monkeypatch, tmp_path, options, problem):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("colbert_core.cli.training_commands.run_of", lambda *_, **__: pytest.fail("retrieved"))
    code, out, err = evaluate(*options)
    assert (code, out) == (1, "")
    assert problem in err


def test_only_an_index_is_evaluated_by_a_mode(run, judged):
    code, _, err = run("evaluate", str(judged[0]), "--mode", "hybrid", "--quiet")
    assert (code, err) == (1, "colbert: --mode hybrid searches an index; name one with --index.\n")
