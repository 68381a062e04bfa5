"""Small real parts for the tests: checkpoints written to disk, and an encoder whose vectors can be computed by hand."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from pathlib import Path

    from builders.encoders import WordEncoder

    from colbert_core import Encoder

# Workers share the cores, so the PyTorch of each has one thread, and so have the processes it starts. This counts only before
# PyTorch is imported. The fixtures import it, since the process that hands out the tests needs none.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # FAISS's threads, two all the same, sleep while they wait

pytest.register_assert_rewrite("builders")  # their assertions say what differs as well

settings.register_profile("tests", deadline=None)  # a busy machine is no failure
settings.load_profile("tests")


@pytest.fixture(scope="session")
def grown():
    """A compressed index that grew in several adds, and queries for it; tests only search it."""
    from builders.grown import grow

    return grow()


@pytest.fixture(scope="session")
def stanford_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from builders.encoders import write_stanford

    return write_stanford(tmp_path_factory.mktemp("stanford"))


@pytest.fixture(scope="session")
def untrained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from builders.encoders import write_untrained

    return write_untrained(tmp_path_factory.mktemp("untrained"))


@pytest.fixture(scope="session")
def stanford(stanford_folder: Path) -> Encoder:
    from colbert_core import Encoder

    return Encoder.from_pretrained(str(stanford_folder), device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def untrained(untrained_folder: Path) -> Encoder:
    from colbert_core import Encoder

    return Encoder.from_pretrained(str(untrained_folder), device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def default_encoder() -> Encoder:
    """The model in the box."""
    from colbert_core import Encoder

    return Encoder.from_pretrained(device="cpu")


@pytest.fixture
def words() -> WordEncoder:
    from builders.encoders import WordEncoder

    return WordEncoder()


@pytest.fixture
def terminal(monkeypatch):
    """``terminal()`` makes standard error a terminal, and returns it. Bars are shown on it without delay."""
    from builders.bars import write_to_terminal

    return partial(write_to_terminal, monkeypatch)  # in the test: pytest replaces standard error once more before it


@pytest.fixture
def notebook(monkeypatch):
    """``notebook(widgets=True)`` makes this process the kernel of a notebook, and returns the list of what is displayed."""
    from builders.bars import become_kernel, forget_widgets

    yield partial(become_kernel, monkeypatch)
    forget_widgets()


@pytest.fixture
def run(capsys, monkeypatch):
    """A command of the command line: its exit code, and what it prints."""
    from colbert_core.cli import main as cli

    def run(*arguments, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = cli.main(list(arguments))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


# Python's audit hooks cannot be taken away, so there is one for all tests, which does what the test at hand wants.
_at_step: dict[str, object] = {}


def _hook(event, arguments):
    if event == "colbert_core.step" and arguments[0] in _at_step:
        _at_step[arguments[0]]()


sys.addaudithook(_hook)


@pytest.fixture
def interrupt_at():
    """``with interrupt_at("rows written") as reached:`` presses Ctrl-C when a write gets there, once."""

    @contextlib.contextmanager
    def interrupting(step):
        reached = []

        def interrupt():
            if not reached:
                reached.append(step)
                raise KeyboardInterrupt

        _at_step[step] = interrupt
        try:
            yield reached
        finally:
            del _at_step[step]

    return interrupting


def pytest_addoption(parser):
    parser.addoption("--faults", type=float, default=0.005, help="the share of failing system calls to try (default: .005)")
    parser.addoption("--fuzz", type=int, default=160, help="how many changed files test_fuzz.py tries in all (default: 160)")
    parser.addoption("--minutes", type=float, default=0.03, help="how long test_load.py reads and writes (default: .03)")
    parser.addoption("--kills", type=int, default=20, help="how often processes are killed at random moments (default: 20)")
    parser.addoption("--requests", type=int, default=300, help="how many requests serve/test_malformed.py tries (default: 300)")
    parser.addoption("--interrupts", type=int, default=40, help="how often test_moments.py presses Ctrl-C (default: 40)")


# The longest first, so that no worker is left with one of them when the others have nothing to do any more.
WITHOUT_RAY = {
    "test_hybrid.py",
    "test_planning.py",
    "test_progress.py",
    "test_publishing.py",
    "test_refitting.py",
    "test_same_as_one.py",
    "test_splitting.py",
    "test_staging.py",
    "test_syncing.py",
    "test_users.py",
}
LONGEST = ("cluster/", "test_notebooks.py", "train/", "kernels/")


def pytest_collection_modifyitems(items):
    def place(item):
        path = item.nodeid.removeprefix("tests/")
        return next((number for number, prefix in enumerate(LONGEST) if path.startswith(prefix)), len(LONGEST))

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """One worker more than there are cores, since that of the cluster mostly waits; four at most: each takes a gigabyte."""
    return min((os.cpu_count() or 1) + 1, 4)


def pytest_xdist_make_scheduler(config, log):
    """Hand out files, but all tests of the cluster to one worker: they share one, and two would be too much for two cores.

    The slow ones mostly wait, for nodes to be missed and actors to come again, so those that build have a cluster of their own.
    """
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    is_slow = config.getoption("markexpr") == "slow"

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            folder, _, file = super()._split_scope(nodeid).rpartition("/")
            if folder != "tests/cluster" or file in WITHOUT_RAY:
                return f"{folder}/{file}"
            return f"{folder}/building" if is_slow and file.startswith("test_building") else folder

    return Scheduling(config, log)
