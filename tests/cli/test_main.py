"""The command line: what it prints, reads and returns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata

import pytest
from builders import checkpoints
from builders.encoders import write_untrained

from colbert_core.cli import main as cli


@pytest.fixture
def model(stanford_folder):
    return ["--model", str(stanford_folder), "--device", "cpu"]


# rerank


def test_rerank_reads_lines_and_prints_them_best_first(run):
    code, out, err = run("rerank", "happy pets", stdin="Rust is a systems language.\n\nCats purr when they are content.\n")
    assert (code, err) == (0, "")
    first, second = out.splitlines()
    assert first.split()[0] == "1."
    assert first.endswith("[3] Cats purr when they are content.")
    assert second.endswith("[1] Rust is a systems language.")


def test_rerank_reads_json_lines_and_prints_json_lines(run, model):
    lines = [{"id": "a", "text": "the cat sat", "metadata": {"page": 1}}, {"text": "dogs bark é"}]
    code, out, _ = run("rerank", "cat", *model, "--json", stdin="\n".join(map(json.dumps, lines)))
    hits = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert {hit["id"] for hit in hits} == {"a", "2"}
    assert [hit["rank"] for hit in hits] == [1, 2]
    assert set(hits[0]) == {"rank", "id", "score", "relevance", "span", "text", "metadata"}
    assert "dogs bark é" in out
    assert next(hit for hit in hits if hit["id"] == "a")["metadata"] == {"page": 1}


def test_rerank_reads_a_file_and_keeps_the_best_n(run, model, tmp_path):
    file = tmp_path / "passages.txt"
    file.write_text("the cat sat\ndogs bark\nhappy pets\n", encoding="utf-8")
    code, out, _ = run("rerank", "cat", str(file), *model, "--top-n", "2")
    assert code == 0
    assert len(out.splitlines()) == 2


def test_json_lines_end_at_line_feeds_only(run, model, tmp_path):
    file = tmp_path / "passages.jsonl"
    file.write_text('{"text": "one\u2028two cats\x85"}\r\n{"text": "dogs", "id": null, "metadata": null}\n', encoding="utf-8")
    code, out, _ = run("rerank", "cats", str(file), *model, "--json")
    assert code == 0
    assert {hit["id"]: hit["text"] for hit in map(json.loads, out.split("\n")[:-1])} == {
        "1": "one\u2028two cats\x85",
        "2": "dogs",
    }


@pytest.mark.slow
def test_pipes_are_utf8_whatever_the_platform_says(stanford_folder):
    command = [sys.executable, "-m", "colbert_core.cli", "rerank", "cat", "--model", str(stanford_folder)]
    environment = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    done = subprocess.run(command, input="\ufeffTōkyō 猫".encode(), capture_output=True, check=True, env=environment)
    assert done.stdout.decode("utf-8").strip().endswith("[1] Tōkyō 猫")


def test_rerank_of_nothing_prints_nothing(run, model):
    assert run("rerank", "cat", *model) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["cat"], '{"text": "the cat"', "Line 1 of standard input is no valid text or JSON object"),
        (["cat"], 'plain\n{"body": "x"}', 'Line 2 of standard input has no "text"; its keys are body'),
        (["cat"], '{"text": 3}', "Line 1 of standard input: Text of passage '1' must be a str, got int"),
        (["cat"], '{"a":' * 20_000, "Line 1 of standard input is no valid text or JSON object"),
        (["cat"], 'ok\n{"text": "x", "metadata": {"n": NaN}}', "Line 2 of standard input is no valid text or JSON object"),
        (["cat"], '{"text": "x", "metadata": {"n": 1e999}}', "Line 1 of standard input is no valid text or JSON object"),
        (["cat"], '{"text": "x", "metadata": {"n": "\\ud800"}}', "Line 1 of standard input is no valid text or JSON object"),
        (["cat", "--device", "gpu"], "the cat", "device='gpu' is not to be had"),
        ([" "], "the cat", "The query is empty"),
        (["cat", "--top-n", "0"], "the cat", "top_n must be at least 1, got 0"),
        (["cat", "no/such/file"], "", "No such file"),
    ],
)
def test_mistakes_exit_with_one_and_say_what_is_wrong(run, model, arguments, stdin, message):
    code, out, err = run("rerank", *model, *arguments, stdin=stdin)
    assert (code, out) == (1, "")
    assert err.startswith("colbert: ")
    assert message in err


def test_a_missing_model_exits_with_one(run, tmp_path):
    code, _, err = run("rerank", "cat", "--model", str(tmp_path / "nowhere"), stdin="the cat")
    assert code == 1
    assert "no checkpoint folder at" in err


@pytest.mark.parametrize("arguments", [[], ["rerank"], ["rerank", "cat", "--topn", "3"], ["no-such-command"]])
def test_wrong_usage_exits_with_two(run, arguments):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2


def test_an_interrupt_exits_with_130(run, model, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("colbert_core.Reranker", interrupt)
    assert run("rerank", "cat", *model, stdin="the cat") == (130, "", "colbert: interrupted\n")


def test_the_installed_command_works_in_a_pipe(stanford_folder):
    command = [sys.executable, "-m", "colbert_core.cli", "rerank", "cat", "--model", str(stanford_folder), "--json"]
    done = subprocess.run(command, input="the cat sat\n", capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["text"] == "the cat sat"
    assert done.stderr == ""


@pytest.mark.slow
def test_a_reader_that_stops_early_is_no_error(stanford_folder):
    command = f"{sys.executable} -m colbert_core.cli rerank cat --model {stanford_folder} | head -n 1"
    done = subprocess.run(command, shell=True, input="the cat sat\n" * 5000, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_version_is_the_packages(run, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip() == metadata.version("colbert-retrievers")


# quickstart


@pytest.fixture
def documents(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "pets.txt").write_text("The cat sat on a mat. " * 6 + "\n\nDogs bark. " * 6, encoding="utf-8")
    (tmp_path / "notes" / "code.md").write_text("# Rust\n\nRust is a language of systems.\n", encoding="utf-8")
    (tmp_path / "more.jsonl").write_text(
        '{"text": "happy pets", "metadata": {"page": 4}}\n{"text": "what"}\n', encoding="utf-8"
    )
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "LICENSE.txt").write_text("rust rust rust", encoding="utf-8")
    (tmp_path / "cat.bin").write_bytes(b"\0\xfe")
    return tmp_path


def test_quickstart_over_own_files_names_passages_by_path_and_number(run, model, documents):
    code, out, err = run("quickstart", "--files", str(documents), "--ask", "what is rust", "-k", "99", *model, "--json")
    assert (code, err) == (0, "")
    (answer,) = (json.loads(line) for line in out.splitlines())
    names = [hit["id"] for hit in answer["hits"]]
    assert answer["question"] == "what is rust"
    folder = documents.name
    ids = ("notes/code.md#1", "more.jsonl#1", "more.jsonl#2", "pets.txt#1", "pets.txt#2")
    assert {f"{folder}/{name}" for name in ids} <= set(names)
    assert len(names) == len(set(names))
    assert not any(".venv" in name for name in names)
    record = next(hit for hit in answer["hits"] if hit["id"] == f"{folder}/more.jsonl#1")
    assert record["metadata"] == {"page": 4, "source": f"{folder}/more.jsonl"}
    assert all(hit["metadata"]["source"] == hit["id"].split("#")[0] for hit in answer["hits"])


def test_quickstart_over_own_files_shows_hits_and_the_prompt(run, model, documents):
    code, out, _ = run("quickstart", "--files", str(documents), "--ask", "what is rust", "--ask", "cats", *model)
    assert code == 0
    assert out.index("what is rust") < out.index("cats") < out.index("exact prompt")
    assert "Question: what is rust" in out
    assert "chat_model" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--files", "{}"], "--files needs a question"),
        (["--files", "{}/nowhere", "--ask", "x"], "There is no file or folder"),
        (["--files", "{}/empty", "--ask", "x"], "/empty: there are no files, or they are hidden or left out."),
        (["--files", "{}/binary", "--ask", "x"], "is no text, nor a kind of file that is read"),
        (["--files", "{}", "--ask", " "], "The query is empty"),
        (["--files", "{}", "--ask", "x", "-k", "0"], "-k must be at least 1, got 0"),
    ],
)
def test_quickstart_mistakes_are_named(run, model, documents, arguments, message):
    (documents / "empty").mkdir()
    (documents / "binary").mkdir()
    (documents / "binary" / "old.txt").write_bytes(b"\0")
    if "binary" not in str(arguments):
        (documents / "binary" / "old.txt").unlink()
    code, _, err = run("quickstart", *(argument.format(documents) for argument in arguments), *model)
    assert code == 1
    assert message in err


def test_quickstart_without_langchain_names_the_pip_line(run, model, documents, monkeypatch):
    monkeypatch.setitem(sys.modules, "langchain_core.prompts", None)
    code, out, err = run("quickstart", "--files", str(documents), "--ask", "rust", *model)
    assert code == 1
    assert "pip install 'langchain-core" in err
    assert "rust" in out  # the answers came first


def test_progress_bars_can_be_silenced(run, model, documents):
    assert run("quickstart", "--files", str(documents), "--ask", "rust", "--quiet", *model)[2] == ""


# inspect

KINDS = {
    "stanford": lambda folder: checkpoints.stanford(folder),
    "stanford, .dnn": lambda folder: checkpoints.dnn(folder / "colbert.dnn", base=folder / "base"),
    "pylate": lambda folder: checkpoints.pylate(folder),
    "sentence-transformers": lambda folder: checkpoints.multi_vector(folder / "saved", source=checkpoints.stanford(folder)),
    "nanocolbert": lambda folder: checkpoints.nanocolbert(folder),
    "untrained": lambda folder: write_untrained(folder),
}


@pytest.mark.parametrize("kind", KINDS)
def test_inspect_shows_the_recipe_of_each_kind(run, capsys, tmp_path, kind):
    folder = str(KINDS[kind](tmp_path / "model"))
    capsys.readouterr()  # what saving printed
    code, out, err = run("inspect", folder, "--device", "cpu")
    first, *lines = out.splitlines()
    assert (code, err) == (0, "")
    assert f", {kind.split(',')[0]}" in first
    assert [line.split()[0] for line in lines] == [
        *("backbone", "head", "vectors", "scripts", "query", "passage", "skipped", "example", "tokens", "ids", "attention"),
    ]
    code, out, _ = run("inspect", folder, "--device", "cpu", "--json")
    about = json.loads(out)
    assert (code, about["format"]) == (0, kind.split(",")[0])
    assert len(about["example"]["ids"]) == len(about["example"]["tokens"]) == len(about["example"]["attention"])


def test_inspect_without_a_name_shows_the_model_in_the_box(run):
    code, out, _ = run("inspect")
    assert code == 0
    assert out.startswith("Encoder('default', stanford)\n")
    assert "[CLS] what animation studio did mi ##ya ##zaki found ? [SEP]" in out


def test_inspect_of_nothing_says_what_was_looked_for(run, tmp_path):
    code, out, err = run("inspect", str(tmp_path))
    assert (code, out) == (1, "")
    assert "looked for config.json, modules.json, artifact.metadata and *.dnn" in err
