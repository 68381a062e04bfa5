"""The documentation: its snippets run, its commands exist, its pages are current, and the site builds without a warning."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata, util

import pytest
from builders.markdown import ROOT, blocks, commands

import colbert_core
from colbert_core.cli.main import build_parser

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
OTHERS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "colbert_core/default_model/README.md")]
SNIPPETS = [block for page in [*PAGES, OTHERS[-1]] for block in blocks(page) if block.language == "python"]
# Some are on several pages; tests/test_readme.py runs those of the README.
RUN_THERE = {ast.dump(ast.parse(block.text)) for block in blocks(ROOT / "README.md") if block.language == "python"}
_BY_CODE = {ast.dump(ast.parse(snippet.text)): snippet for snippet in SNIPPETS if snippet.reason is None}
RUN_HERE = [snippet for tree, snippet in _BY_CODE.items() if tree not in RUN_THERE]


# Snippets


@pytest.mark.parametrize("snippet", RUN_HERE, ids=str)
def test_every_snippet_runs_and_prints_what_stands_below_it_or_shows_the_cats(snippet, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet.text, snippet.page, "exec"), {})
    printed = capsys.readouterr().out
    if snippet.prints is None:
        assert "Cats purr" in printed
    else:
        assert printed == snippet.prints


def test_snippets_that_are_not_run_are_few_say_why_and_compile():
    not_run = [snippet for snippet in SNIPPETS if snippet.reason is not None]
    assert {snippet.page: snippet.reason for snippet in not_run} == {
        "docs/cluster.md": "needs a Ray cluster, and await needs a coroutine around it",
        "docs/serving-client.md": "needs the service of the command above it",
    }
    for snippet in not_run:
        compile(snippet.text, snippet.page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_code_is_marked_by_a_language_that_is_tested(page):
    assert {block.language for block in blocks(page)} <= {"python", "sh", "text"}


# Commands


def all_commands():
    pages = [page for page in [*PAGES, *OTHERS] if page.name != "command-line.md"]
    return sorted({tuple(arguments) for page in pages for arguments in commands(page)})


@pytest.mark.parametrize("arguments", all_commands(), ids=" ".join)
def test_every_command_is_understood(arguments, capsys):
    is_only_named = all(re.fullmatch("[a-z]+", word) for word in arguments)  # `colbert add` in a sentence
    try:
        build_parser().parse_args([*arguments, "--help"] if is_only_named else arguments)
    except SystemExit as stop:  # after --help and --version as well
        assert stop.code == 0, capsys.readouterr().err


def test_the_page_of_the_command_line_is_what_the_parser_says():
    spec = util.spec_from_file_location("command_line", DOCS / "command_line.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run: python docs/command_line.py"


# Pages


@pytest.mark.parametrize(
    "package",
    [
        "colbert_core",
        "colbert_core.train",
        "colbert_core.cluster",
        "colbert_core.serve",
        "langchain_colbert",
        "llama_index_colbert",
    ],
)
def test_every_public_name_is_in_the_reference(package):
    page = (DOCS / "reference" / f"{package.removeprefix('colbert_core.')}.md").read_text(encoding="utf-8")
    named = set(re.findall(rf"^::: {re.escape(package)}\.([\w.]+)$", page, flags=re.MULTILINE))
    public = importlib.import_module(package)
    # A second name of a class is mentioned; its own page says it all.
    other_names = {name for name in public.__all__ if getattr(getattr(public, name), "__name__", name) != name}
    assert set(public.__all__) - other_names <= named
    assert all(f"`{name}`" in page for name in other_names)


def test_the_architecture_names_every_folder_and_only_files_that_exist():
    package = ROOT / "colbert_core"
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    tree = page.partition("## Layers")[0]
    for entry in package.iterdir():
        if entry.name[0] not in "_." and entry.suffix in ("", ".py"):
            assert f"`{entry.name}{'/' * entry.is_dir()}`" in tree
    for name in re.findall(r"`((?:\w+/)*\w+\.py)`", page):
        assert (package / name).is_file() or (ROOT / name).is_file(), name


def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    nowhere = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https", "all")}
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, env={**os.environ, **nowhere}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {page.relative_to(DOCS).with_suffix(".html") for page in PAGES} <= {
        page.relative_to(tmp_path) for page in tmp_path.rglob("*.html")
    }
    for page in tmp_path.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\bsrc=\"([^\"]+)|<link[^>]*\bhref=\"([^\"]+)", html)
        assert [address for pair in loaded for address in pair if "//" in address] == [], page


# The version


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "colbert_core/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", colbert_core.__version__)
    assert metadata.version("colbert-retrievers") == colbert_core.__version__
    assert f"\nversion: {colbert_core.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
