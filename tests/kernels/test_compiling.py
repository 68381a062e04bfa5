"""Kernels in their cache on disk, compiled once, and run without the GIL."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from builders.kernels import OF_ANY, OF_EITHER, PACKAGE, ints, kernel_of, longs, needs_linux, run_python, unit_rows

from colbert_core import kernels
from colbert_core.kernels import BLOCK, building, compiling, scoring

# The cache on disk


def lowest_kernel(code=""):
    return f"""
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
import numpy as np
from colbert_core.kernels import compiling, scoring
table = np.repeat(np.array([[[3], [1], [2]]], np.uint8), 32, axis=2)
def score(kernel):
    scores = np.zeros(1, np.int32)
    kernel(table, np.array([0, 1, 2], np.uint16), np.array([0, 3]), np.zeros(1, np.int32), scores)
    return scores[0]
{code}
print(score(scoring.interact))
"""


SCORED, COMPILED = "96\n", "Compiling for this processor what searches and builds indexes; this takes some seconds, once.\n96\n"


def content(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_what_one_process_compiled_the_next_one_loads(tmp_path):
    assert run_python(lowest_kernel(), NUMBA_CACHE_DIR=str(tmp_path)) == COMPILED
    files = content(tmp_path)
    assert [name.split("-")[0] for name in files] == ["interact"]
    assert all(path.stat().st_mode & 0o044 for path in tmp_path.rglob("*.kernel"))  # others may read them
    assert run_python(lowest_kernel(), NUMBA_CACHE_DIR=str(tmp_path)) == SCORED
    assert content(tmp_path) == files


def copied(tmp_path):
    """A copy of the package, and the environment of a process that imports it and has nothing compiled yet."""
    copy = tmp_path / "copy" / "colbert_core"
    hidden = shutil.ignore_patterns("__pycache__", "default_model", "quickstart")
    shutil.copytree(PACKAGE, copy, ignore=hidden)
    return copy, {"PYTHONPATH": str(copy.parent), "XDG_CACHE_HOME": str(tmp_path / "home"), "NUMBA_CACHE_DIR": ""}


def test_changed_sources_are_compiled_anew(tmp_path):
    copy, environment = copied(tmp_path)
    assert run_python(lowest_kernel(), **environment) == COMPILED
    vocabulary = copy / "kernels" / "vector.py"
    text = vocabulary.read_text()
    assert text.count('types.uint8: "umax"') == 1
    vocabulary.write_text(text.replace('types.uint8: "umax"', 'types.uint8: "umin"'))
    assert run_python(lowest_kernel(), **environment) == COMPILED.replace("96", "32")


@pytest.mark.slow  # processes that compile
@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the user's cache is elsewhere")
def test_kernels_lie_beside_their_source_or_else_in_the_users_cache(tmp_path):
    copy, environment = copied(tmp_path)
    beside, home = copy / "kernels" / "__pycache__", tmp_path / "home"
    assert run_python(lowest_kernel(), **environment) == COMPILED
    assert len(list(beside.glob("*.kernel"))) == 1
    assert not home.exists()
    shutil.rmtree(beside)
    beside.write_text("in the way")
    assert run_python(lowest_kernel(), **environment) == COMPILED
    assert [path.suffix for path in (home / "colbert-retrievers").iterdir()] == [".kernel"]
    assert run_python(lowest_kernel(), **environment) == SCORED


@pytest.mark.slow  # processes that compile
def test_kernels_work_where_nothing_can_be_written(tmp_path):
    copy, environment = copied(tmp_path)
    for path in (copy / "kernels" / "__pycache__", tmp_path / "home"):
        path.write_text("in the way")
    for folder in ("", str(tmp_path / "home" / "deeper")):
        assert run_python(lowest_kernel(), **environment | {"NUMBA_CACHE_DIR": folder}) == COMPILED


POWERLESS = """
import ctypes, tempfile
libc = ctypes.CDLL(None)
header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()  # root may write anywhere, else
assert libc.capset(header, nothing) == 0
try:
    tempfile.TemporaryFile(dir={folder!r})
except PermissionError:
    print("not to be written")
"""


@pytest.mark.slow  # processes that compile
@needs_linux
def test_a_filled_folder_that_cannot_be_written_to_is_used(tmp_path):
    folder = tmp_path / "colbert_core"
    powerless = lowest_kernel(POWERLESS.format(folder=str(folder)))
    folder.mkdir(mode=0o555)
    assert run_python(powerless, NUMBA_CACHE_DIR=str(tmp_path)) == "not to be written\n" + COMPILED
    assert content(tmp_path) == {}
    folder.chmod(0o755)
    assert run_python(lowest_kernel(), NUMBA_CACHE_DIR=str(tmp_path)) == COMPILED
    folder.chmod(0o555)
    files = content(tmp_path)
    assert run_python(powerless, NUMBA_CACHE_DIR=str(tmp_path)) == "not to be written\n" + SCORED
    assert content(tmp_path) == files
    folder.chmod(0o755)


@pytest.mark.slow  # processes that compile
def test_damaged_files_are_compiled_over(tmp_path):
    code = """
from pathlib import Path
score(scoring.interact)
(path,) = Path(compiling._folders()[0]).iterdir()
whole = path.read_bytes()
n = len(whole)
flipped = [bytes([*whole[:at], whole[at] ^ 1, *whole[at + 1 :]]) for at in (5, n // 2, n - 1)]
for damaged in (b"", whole[:100], whole[: n // 2], whole[:-1], bytes(n), b"N.", *flipped):
    path.write_bytes(damaged)
    assert score(compiling.compiled(scoring.interact.py_func)) == 96
    before = path.stat().st_mtime_ns
    assert len(path.read_bytes()) > n // 2 and path.read_bytes() != damaged, damaged[:9]
    assert score(compiling.compiled(scoring.interact.py_func)) == 96
    assert path.stat().st_mtime_ns == before and len(list(path.parent.iterdir())) == 1
"""
    assert run_python(lowest_kernel(code), NUMBA_CACHE_DIR=str(tmp_path)) == COMPILED


@pytest.mark.slow  # processes that compile
def test_processes_may_compile_at_once(tmp_path):
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(run_python, lowest_kernel(), NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(3)]
        assert all(run.result() in (COMPILED, SCORED) for run in runs)
    assert len(content(tmp_path)) == 1
    assert run_python(lowest_kernel(), NUMBA_CACHE_DIR=str(tmp_path)) == SCORED


# Threads


def all_kernels():
    compiled = {
        name: function
        for module in (scoring, building)
        for name, function in vars(module).items()
        if hasattr(function, "targetoptions")
    }
    return {name: function for name, function in compiled.items() if type(function._cache).__name__ == "_KernelCache"}


def test_every_kernel_is_tested_and_runs_without_the_gil():
    by_name = all_kernels()
    assert set(by_name) == {kernel_of(check) for check in OF_EITHER + OF_ANY}
    assert all(kernel.targetoptions["nogil"] for kernel in by_name.values())


def test_python_goes_on_while_a_kernel_runs():
    vectors, blocks = unit_rows(np.random.default_rng(0), 2000, 128), np.ones((1, 128, BLOCK), np.float32)
    offsets, scores = longs(0, 2000), np.empty(2000, np.float32)
    arguments = kernels.instruction_set(), vectors, offsets
    scoring.score_floats(*arguments, np.zeros(1, np.int32), blocks, scores[:1])
    turns, started, done = [0], threading.Event(), threading.Event()

    def count():
        while not done.is_set():
            turns[0] += 1
            started.set()
            time.sleep(0.001)  # which gives the GIL away

    counter = threading.Thread(target=count)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(100)  # no thread gives it away unasked
    try:
        counter.start()
        started.wait()
        before = turns[0]
        scoring.score_floats(*arguments, np.zeros(2000, np.int32), blocks, scores)
        after = turns[0]
    finally:
        sys.setswitchinterval(interval)
        done.set()
        counter.join()
    assert after > before


def test_compiling_is_announced_once(caplog, tmp_path, monkeypatch):
    from colbert_core.kernels import compiling

    monkeypatch.setattr(compiling.numba.config, "CACHE_DIR", str(tmp_path))
    compiling._announce.cache_clear()
    with caplog.at_level(logging.INFO):
        for kernel in (scoring.best_of, scoring.passages_of):
            scores, rows, room = ints(3, 1), longs(0, 1), (np.empty(2, np.int32), np.empty(4, np.int32))
            fresh = compiling.compiled(kernel.py_func)
            assert fresh(scores, 1, 1, *room) == 1 if kernel is scoring.best_of else fresh(ints(0, 1), rows, scores, *room) == 2
    assert [record.name for record in caplog.records] == ["colbert_core.kernels.compiling"]


# Whose machine code is run

needs_owners = pytest.mark.skipif(sys.platform == "win32", reason="files have no such owners there")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of machine code, empty, and a kernel that adds one and has not been compiled."""
    monkeypatch.setattr(compiling.numba.config, "CACHE_DIR", str(tmp_path / "above"))
    compiling._warn_of.cache_clear()

    def add_one(n):
        return n + 1

    return tmp_path / "above" / "colbert_core", lambda: compiling.compiled(add_one)


def loads_of(kernel, monkeypatch):
    """How many files of machine code are unpickled by a call of a kernel."""
    loaded = []
    monkeypatch.setattr(compiling.pickle, "loads", lambda content: loaded.append(content) or 1 / 0)
    assert kernel(1) == 2
    monkeypatch.undo()
    return len(loaded)


@needs_owners
def test_folders_for_machine_code_are_made_for_their_owner(cache):
    folder, kernel = cache
    before = os.umask(0)
    try:
        assert kernel()(1) == 2
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (folder, folder.parent)] == [0o700, 0o700]
    assert [path.stat().st_mode & 0o022 for path in folder.iterdir()] == [0]


@needs_owners
@pytest.mark.parametrize("what", ["the folder", "the folder above", "the file", "nothing"])
@pytest.mark.parametrize("mode", [0o020, 0o002])
def test_machine_code_that_others_could_have_written_is_not_read(what, mode, cache, caplog, monkeypatch):
    folder, kernel = cache
    kernel()(1)
    (file,) = folder.iterdir()
    opened = {"the folder": folder, "the folder above": folder.parent, "the file": file, "nothing": None}[what]
    if opened is not None:
        opened.chmod(opened.stat().st_mode | mode)
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warned == []
    with monkeypatch.context() as patched:
        assert loads_of(kernel(), patched) == (what == "nothing")
    assert kernel()(1) == 2
    warned = [record.getMessage() for record in caplog.records if "chmod go-w" in record.getMessage()]
    assert len(warned) == (0 if what == "nothing" else 1)
    assert all(str(folder) in message and "NUMBA_CACHE_DIR" in message for message in warned)


@needs_owners
def test_machine_code_is_not_kept_where_others_can_write(cache, caplog):
    folder, kernel = cache
    folder.parent.mkdir()
    folder.parent.chmod(0o777)
    assert kernel()(1) == 2
    assert not folder.exists()
    folder.parent.chmod(0o1777)  # as /tmp: what others cannot take away
    assert kernel()(1) == 2
    assert len(list(folder.iterdir())) == 1


@needs_owners
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["the folder", "the folder above", "the file"])
def test_machine_code_of_another_user_is_not_read(what, cache, monkeypatch):
    folder, kernel = cache
    kernel()(1)
    (file,) = folder.iterdir()
    os.chown({"the folder": folder, "the folder above": folder.parent, "the file": file}[what], 12345, -1)
    assert loads_of(kernel(), monkeypatch) == 0
