"""The README is one page, its Python snippets run, and its commands are the ones that exist."""

from __future__ import annotations

import shlex

import pytest
from builders.markdown import ROOT, blocks, links

README = ROOT / "README.md"
BLOCKS = blocks(README)
SNIPPETS = [block.text for block in BLOCKS if block.language == "python"]
COMMANDS = [line for block in BLOCKS if block.language == "sh" for line in block.text.splitlines()]


def test_it_is_one_page():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("snippet", SNIPPETS, ids=[snippet.splitlines()[0] for snippet in SNIPPETS])
def test_every_snippet_runs_and_shows_the_cats(snippet, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
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


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_lead_to_files(name):
    assert [target for target in links(ROOT / name) if not (ROOT / target).exists()] == []
