"""Small real parts for the tests: checkpoints written to disk, and an encoder whose vectors can be computed by hand."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import pytest
from builders.encoders import WordEncoder, write_stanford, write_untrained
from hypothesis import settings

from colbert_core import Encoder

settings.register_profile("tests", deadline=None)  # a busy machine is no failure
settings.load_profile("tests")


@pytest.fixture(scope="session")
def stanford_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stanford(tmp_path_factory.mktemp("stanford"))


@pytest.fixture(scope="session")
def untrained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained(tmp_path_factory.mktemp("untrained"))


@pytest.fixture(scope="session")
def stanford(stanford_folder: Path) -> Encoder:
    return Encoder.from_pretrained(str(stanford_folder), device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def untrained(untrained_folder: Path) -> Encoder:
    return Encoder.from_pretrained(str(untrained_folder), device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def default_encoder() -> Encoder:
    """The model in the box."""
    return Encoder.from_pretrained(device="cpu")


@pytest.fixture
def words() -> WordEncoder:
    return WordEncoder()


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
    parser.addoption("--kills", type=int, default=20, help="how often test_crash.py kills a writer at random (default: 20)")
