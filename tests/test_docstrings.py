"""The examples in the docstrings of the adapters run, and print what stands below them."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import textwrap

import pytest

import langchain_colbert
from langchain_colbert import ragatouille

DOCUMENTED = [
    *(getattr(langchain_colbert, name) for name in langchain_colbert.__all__),
    ragatouille.RAGPretrainedModel,
]


@pytest.mark.parametrize("documented", DOCUMENTED, ids=lambda documented: documented.__name__)
def test_examples_print_what_they_say(documented, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # one makes an index
    blocks = re.findall(r"```(\w+)\n(.*?)```", inspect.getdoc(documented), flags=re.DOTALL)
    assert {language for language, _ in blocks} == {"python", "text"}
    names: dict = {}
    printed = ""
    for language, body in blocks:
        if language == "python":
            assert printed == "", "an example prints what the docstring does not show"
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(textwrap.dedent(body), names)
            printed = output.getvalue()
        else:
            assert printed == textwrap.dedent(body)
            printed = ""


@pytest.mark.parametrize("name", [one for one in langchain_colbert.__all__ if inspect.isclass(getattr(langchain_colbert, one))])
def test_docstrings_have_langchains_headings(name):
    text = inspect.getdoc(getattr(langchain_colbert, name))
    usual = ("Usage:", "Use within a chain:")
    of_a_store = (
        *("Add Documents:", "Update Documents:", "Delete:", "Search:", "Search with filter:", "Search with score:"),
        *("Async:", "Use as Retriever:"),
    )
    own = of_a_store if name == "ColBERTVectorStore" else usual
    assert [heading for heading in ("Setup:", "Key init args:", "Instantiate:", *own) if f"\n{heading}" not in text] == []
