"""Progress bars: on terminals, in notebooks and elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import types
import warnings

import nbclient
import nbformat
import pytest

from colbert_core import progress
from colbert_core.progress import progress_bar

# On a terminal


@pytest.mark.parametrize(("shown", "appears"), [(None, True), (True, True), (False, False)])
def test_a_bar_of_text_is_shown_on_a_terminal(terminal, shown, appears):
    stderr = terminal()
    with progress_bar("Adding", 2, "passage", shown) as bar:
        bar.update(2)
    assert ("Adding: 100%" in stderr.getvalue()) == appears
    assert bool(stderr.getvalue()) == appears


def test_a_number_and_its_unit_are_two_words(terminal):
    stderr = terminal()
    with progress_bar("Adding", None, "passage", True) as bar:
        bar.update(2)
    assert "Adding: 2 passage [" in stderr.getvalue()
    assert " passage/s]" in stderr.getvalue()


def test_no_bar_is_shown_by_itself_in_a_file_or_without_standard_error(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_PATIENCE", 0)
    for stderr in (sys.stderr, None):
        monkeypatch.setattr(sys, "stderr", stderr)
        with progress_bar("Adding", 2, "passage", None) as bar:
            bar.update(2)
    assert capsys.readouterr().err == ""


def test_a_bar_of_short_work_is_not_shown_by_itself(terminal):
    stderr = terminal(patience=60)
    with progress_bar("Adding", 2, "passage", None) as bar:
        bar.update(2)
    assert stderr.getvalue() == ""


# In a notebook


@pytest.mark.parametrize("shown", [None, True, False])
def test_a_notebook_without_widgets_shows_text_and_no_warning(notebook, shown, monkeypatch, capsys):
    displayed = notebook(widgets=False)
    monkeypatch.setattr(progress, "_PATIENCE", 0)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with progress_bar("Adding", 2, "passage", shown) as bar:
            bar.update(2)
    assert ("Adding: 100%" in capsys.readouterr().err) == (shown is not False)
    assert (displayed, warned) == ([], [])


@pytest.mark.parametrize("shown", [None, True])
def test_a_notebook_with_widgets_shows_one(notebook, shown, monkeypatch, capsys):
    displayed = notebook(widgets=True)
    monkeypatch.setattr(progress, "_PATIENCE", 0)
    with progress_bar("Training", 10, "example", shown, 4) as bar:
        bar.set_postfix(loss="0.5", refresh=False)
        bar.update(3)
        bar.set_postfix(loss="0.4", refresh=False)
        bar.update(3)
    (box,) = displayed
    label, meter, figures = box.children
    assert (label.value.replace("\u2007", " "), meter.value, meter.max, meter.bar_style) == (
        "Training: 100%",
        10,
        10,
        "success",
    )
    assert "10/10" in figures.value
    assert "loss=0.4" in figures.value.replace("\u2007", "")
    assert capsys.readouterr().err == ""


def test_a_notebook_makes_no_widget_for_short_work_and_counts_the_time_before_one_is_made(notebook, monkeypatch):
    displayed = notebook(widgets=True)
    made = []
    widget = progress._widget_bar()
    monkeypatch.setattr(progress, "_widget_bar", lambda: lambda **settings: made.append(widget(**settings)) or made[-1])
    monkeypatch.setattr(progress, "_PATIENCE", 0.2)
    with progress_bar("Adding", 2, "passage", None) as bar:
        bar.update()
    assert made == displayed == []
    with progress_bar("Adding", 3, "passage", None) as bar:
        bar.update()
        time.sleep(0.25)
        bar.update()
        bar.update()
        (shown,) = made
        assert shown.n == 3
        assert shown.format_dict["elapsed"] >= 0.25
    assert len(displayed) == 1
    with progress_bar("Adding", 2, "passage", False) as bar:
        bar.update(2)
    assert len(displayed) == 1


@pytest.mark.parametrize("console", ["QT_API", "SPYDER_ARGS"])
def test_a_console_over_a_kernel_shows_text(notebook, console, monkeypatch, capsys):
    displayed = notebook(widgets=True)
    monkeypatch.setenv(console, "1")
    with progress_bar("Adding", 2, "passage", True) as bar:
        bar.update(2)
    assert displayed == []
    assert "2/2" in capsys.readouterr().err


def test_work_does_not_fail_where_widgets_cannot_be_imported(notebook, monkeypatch, capsys):
    notebook(widgets=True)
    broken = types.ModuleType("ipywidgets")
    broken.__getattr__ = lambda name: 1 / 0
    monkeypatch.setitem(sys.modules, "ipywidgets", broken)
    with progress_bar("Adding", 2, "passage", True) as bar:
        bar.update(2)
    assert "2/2" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="processes do not fork here")
def test_a_process_forked_from_a_kernel_shows_text(notebook, monkeypatch):
    notebook(widgets=True)
    assert progress._has_widgets()
    pid = os.fork()
    if pid == 0:
        os._exit(int(progress._has_widgets()))
    assert os.waitpid(pid, 0)[1] == 0


def test_ipython_on_a_terminal_is_no_notebook(monkeypatch):
    shell = type("TerminalInteractiveShell", (), {"config": {"TerminalIPythonApp": {}}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=shell))
    assert not progress.in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    assert not progress.in_notebook()
    shell.config = {"IPKernelApp": {}}  # of a kernel whose shell is no relative of IPython's own
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=shell))
    assert progress.in_notebook()


def test_ipython_is_not_imported_to_ask_for_it():
    code = (
        "import sys\n"
        "from colbert_core.progress import in_notebook, progress_bar\n"
        "with progress_bar('Adding', 2, 'passage', None) as bar: bar.update(2)\n"
        "assert not in_notebook()\n"
        "assert not {'IPython', 'ipywidgets', 'tqdm.notebook'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


KERNEL = [
    "from colbert_core import Index, Passage\n"
    "passages = [Passage(str(number), 'Cats purr when they are content.') for number in range(50)]\n"
    "index = Index.create()",
    "ids = index.add(passages, progress=False)",
    "ids = index.add(passages)",
    "ids = index.add(passages, progress=True)",
    "import time\n"
    "from colbert_core.progress import progress_bar\n"
    "with progress_bar('Waiting', 12, 'step', None) as bar:\n"
    "    for _ in range(12):\n"
    "        time.sleep(0.1)\n"
    "        bar.update()",
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")  # of zmq and tornado
def test_the_kernel_of_a_notebook_shows_bars_that_are_asked_for_or_late_and_nothing_else():
    ran = nbclient.NotebookClient(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in KERNEL]), timeout=300
    ).execute()
    outputs = [
        "".join(output.get("text") or output.data["text/plain"] for output in cell.outputs if output.output_type != "error")
        for cell in ran.cells
    ]
    assert outputs[:3] == ["", "", ""]  # a model was loaded, and no library has said anything
    assert "Encoding: " in outputs[3]
    assert "Waiting: " in outputs[4]
