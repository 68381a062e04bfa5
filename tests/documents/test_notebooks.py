"""Jupyter notebooks."""

from __future__ import annotations

import json

import pytest

from colbert_core.documents.notebooks import read_notebook
from colbert_core.documents.part import UnreadableFileError


def read(tmp_path, notebook):
    (tmp_path / "a.ipynb").write_text(json.dumps(notebook))
    return list(read_notebook(tmp_path / "a.ipynb"))


def code(source, *outputs):
    return {"cell_type": "code", "source": source, "outputs": list(outputs)}


def test_text_code_and_outputs_are_markdown(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["Words first.\n", "\n", "# Cats\n"]},
        code(["# no heading\n", "print(1)"], {"output_type": "stream", "text": ["1\n"]}),
        code("1 / 0", {"output_type": "error", "ename": "ZeroDivisionError", "evalue": "division by zero", "traceback": ["…"]}),
        code("x", {"output_type": "execute_result", "data": {"text/plain": ["<Figure>"], "image/png": "iVBOR"}}),
        code("plot()", {"output_type": "display_data", "data": {"image/png": "iVBOR"}}),
        {"cell_type": "raw", "source": "# raw"},
        code("  "),
    ]
    (part,) = read(tmp_path, {"cells": cells, "metadata": {"language_info": {"name": "python"}}, "nbformat": 4})
    assert part.text == (
        "Words first.\n\n# Cats\n\n\n```python\n# no heading\nprint(1)\n```\n\n```\n1\n```\n\n```python\n1 / 0\n```\n\n"
        "```\nZeroDivisionError: division by zero\n```\n\n```python\nx\n```\n\n```\n<Figure>\n```\n\n```python\nplot()\n```\n\n\\# raw"
    )
    assert (part.title, part.is_markdown) == ("Cats", True)


def test_a_long_output_is_cut(tmp_path):
    (part,) = read(tmp_path, {"cells": [code("x", {"output_type": "stream", "text": "a" * 5000})]})
    assert part.text == f"```\nx\n```\n\n```\n{'a' * 1000} …\n```"


def test_notebooks_of_version_3_are_read(tmp_path):
    cells = [
        {"cell_type": "heading", "level": 2, "source": ["Old"]},
        {"cell_type": "code", "input": "1", "outputs": [{"output_type": "pyout", "text": ["1"]}]},
    ]
    (part,) = read(tmp_path, {"worksheets": [{"cells": cells}], "nbformat": 3})
    assert (part.text, part.title) == ("## Old\n\n```\n1\n```\n\n```\n1\n```", "Old")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"cells": 1}', '{"cells": [1]}', '{"cells": [{}]}', "[" * 100_000])
def test_what_is_no_notebook_is_damaged(tmp_path, content):
    (tmp_path / "a.ipynb").write_text(content)
    with pytest.raises(UnreadableFileError, match=r"a\.ipynb is no Jupyter notebook") as error:
        list(read_notebook(tmp_path / "a.ipynb"))
    assert error.value.kind == "damaged"
