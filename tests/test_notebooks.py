"""Every notebook runs from top to bottom in a kernel of its own, and prints what is stored in it."""

from __future__ import annotations

import re
from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def is_widget(output):
    """Whether a cell's output is a widget, as a bar of long work is where ipywidgets is installed."""
    return "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def printed(notebook):
    """What each cell prints, without bars; the digits behind a point differ between processors."""
    cells = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            outputs = [output for output in cell.outputs if output.get("name") != "stderr" and not is_widget(output)]
            text = "".join(output.get("text") or output.data["text/plain"] for output in outputs)
            cells.append(re.sub(r"\d+\.\d+", "#", text))
    return cells


# Each starts a kernel that imports the package and its frameworks anew: one in the default run, all others in that of the slow.
RUNS = [pytest.param(path, id=path.stem, marks=() if path.stem == "quickstart" else pytest.mark.slow) for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_has_outputs_and_names_no_machine(path):
    assert any(printed(nbformat.read(path, as_version=4)))
    assert not re.search(r"(/home|/root|/tmp|/work|site-packages)/", path.read_text(encoding="utf-8"))


# zmq and tornado look for an event loop in ways that later Pythons will not have.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("path", RUNS)
def test_the_notebook_runs_and_prints_what_is_stored(path, tmp_path):
    stored = nbformat.read(path, as_version=4)
    ran = nbclient.NotebookClient(
        nbformat.from_dict(stored), timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert printed(ran) == printed(stored)
