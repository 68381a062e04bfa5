"""Every Python snippet of the README runs, and its commands are the ones that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("snippet", SNIPPETS, ids=[snippet.splitlines()[0] for snippet in SNIPPETS])
def test_every_snippet_runs_and_shows_the_cats(snippet, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # one saves a model
    assert len(snippet.splitlines()) <= 12
    exec(compile(snippet, "README.md", "exec"), {})
    assert "Cats purr" in capsys.readouterr().out


def test_there_is_a_snippet_for_each_of_the_three_uses():
    text = "".join(SNIPPETS)
    for needed in (
        "langchain_colbert import ColBERTRetriever",
        "llama_index_colbert import ColBERTRetriever",
        "Reranker()",
    ):
        assert needed in text


def test_the_two_commands_are_complete_on_a_fresh_machine():
    first, second = (line for line in COMMANDS if line.startswith("python3 -m venv"))
    assert first.endswith("pip install -c constraints.txt -e '.[all]' && .venv/bin/colbert quickstart")
    assert second.endswith("pip install -c constraints.txt -e '.[dev]' && .venv/bin/pytest")


def test_the_quickstart_command_for_own_files_is_understood():
    from colbert_core.cli.main import build_parser

    (line,) = (line for line in COMMANDS if "--files" in line)
    options = build_parser().parse_args(shlex.split(line)[1:])
    assert (str(options.files), len(options.ask)) == ("DIR", 1)
