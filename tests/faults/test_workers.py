"""Processes and threads that share a package: one that dies, forks or is interrupted stops no other one."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from builders.encoders import WordEncoder
from builders.indexes import in_a_process

from colbert_core import Index, Passage, progress, set_num_threads, threads
from colbert_core.model.fingerprint import LazyEncoder
from colbert_core.progress import progress_bar

needs_fork = pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="processes do not fork here")


def in_a_fork(work, seconds=30):
    """What became of a forked process that does some work: its exit code, or the name of the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        with contextlib.suppress(BaseException):
            work()
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


@contextlib.contextmanager
def held_by_another_thread(lock):
    taken, enough = threading.Event(), threading.Event()

    def hold():
        with lock:
            taken.set()
            enough.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait()
    try:
        yield
    finally:
        enough.set()
        holder.join()


# Bars


@pytest.fixture
def no_lock_between_processes(monkeypatch):
    from tqdm.std import TqdmDefaultWriteLock

    here = threading.get_ident()  # bars of other libraries have a thread that watches them, which takes their lock

    def refusing(call):
        def refuse(*arguments, **options):
            assert threading.get_ident() != here, "a lock between processes was taken"
            return call(*arguments, **options)

        return refuse

    gc.collect()  # bars that other tests left behind take their lock when they are collected
    for name in ("acquire", "__init__"):
        monkeypatch.setattr(TqdmDefaultWriteLock, name, refusing(getattr(TqdmDefaultWriteLock, name)))


@pytest.mark.parametrize("shown", [True, False, None])
def test_no_bar_takes_a_lock_between_processes(shown, words, no_lock_between_processes, tmp_path, capsys):
    with Index.create(tmp_path / "x.idx", words) as index:
        index.add([Passage("a", "cat"), Passage("b", "dog")], progress=shown)
        index.verify(progress=shown)
        index.compact(progress=shown)
    with progress_bar("Training", 10, "example", shown, 4) as bar:
        bar.set_postfix(loss="0.5", refresh=False)
        bar.update(3)
    printed = capsys.readouterr().err
    assert ("7/10" in printed and "loss=0.5" in printed) if shown else printed == ""


@pytest.mark.parametrize("widgets", [True, False])
@pytest.mark.parametrize("shown", [True, False, None])
def test_no_bar_of_a_notebook_takes_a_lock_between_processes(
    shown,
    widgets,
    words,
    no_lock_between_processes,
    notebook,
    monkeypatch,
    tmp_path,
):
    displayed = notebook(widgets)
    monkeypatch.setattr(progress, "_PATIENCE", 0)
    with Index.create(tmp_path / "x.idx", words) as index:
        index.add([Passage("a", "cat"), Passage("b", "dog")], progress=shown)
        index.verify(progress=shown)
    assert bool(displayed) == (widgets and shown is not False)


@needs_fork
def test_a_process_forked_from_a_notebook_ends_bars_that_another_thread_was_drawing(notebook):
    notebook(widgets=True)
    bar = progress_bar("Adding", 2, "passage", progress=True)
    with held_by_another_thread(progress._widget_bar().get_lock()):
        assert in_a_fork(bar.close) == 0
    bar.close()


def test_users_bars_keep_their_own_lock():
    from tqdm import tqdm

    mine = tqdm.get_lock()
    with progress_bar("Adding", 1, "passage", progress=True):
        assert tqdm.get_lock() is mine
        assert progress._text_bar().get_lock() is not mine


def test_a_bar_that_is_not_shown_waits_for_none_that_is():
    with held_by_another_thread(progress._text_bar().get_lock()):
        for shown in (False, None):
            with progress_bar("Adding", 2, "passage", shown) as bar:  # standard error is no terminal
                bar.update()


def test_ctrl_c_while_a_bar_is_drawn_leaves_it_to_other_threads(monkeypatch):
    class Interrupting(io.StringIO):
        def write(self, text):
            if "1/9" in text:
                raise KeyboardInterrupt
            return super().write(text)

    monkeypatch.setattr(sys, "stderr", Interrupting())
    bar = progress_bar("Adding", 9, "passage", progress=True)
    bar.mininterval = 0
    with pytest.raises(KeyboardInterrupt):
        bar.update()
    others = threading.Thread(target=bar.update, daemon=True)
    others.start()
    others.join(10)
    assert not others.is_alive()
    monkeypatch.undo()


@needs_fork
def test_a_forked_process_shows_bars_that_another_thread_was_drawing():
    def show():
        with progress_bar("Adding", 2, "passage", progress=True) as bar:
            bar.update()

    with held_by_another_thread(progress._text_bar().get_lock()):
        assert in_a_fork(show) == 0


@pytest.mark.slow
@needs_fork
def test_workers_that_are_killed_while_they_add_stop_no_other(tmp_path):
    index = Index.create(tmp_path / "x.idx", WordEncoder())
    moments, until = random.Random(1), time.monotonic() + 60

    def add_for_ever():
        while True:
            index.add([Passage("w", "cat")])

    while time.monotonic() < until:
        pid = os.fork()
        if pid == 0:
            add_for_ever()
        time.sleep(moments.uniform(0.005, 0.05))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert in_a_fork(lambda: index.add([Passage("w", "cat")])) == 0


# Forks

FORKING = """
import os, signal
import numpy as np, torch
from colbert_core import set_num_threads
from colbert_core.vectors.codec import ResidualCodec

set_num_threads(2)
torch.set_num_threads(2)
vectors = np.random.default_rng(0).standard_normal((1000, 16)).astype(np.float32)

def work():
    do()
    return torch.get_num_threads()

def child(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        work()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

def of_many_threads():
    set_num_threads(3)
    torch.set_num_threads(3)
    torch.randn(400, 400).softmax(1) @ torch.randn(400, 400)  # which encoding does by one thread
    assert work() == 3 and len(os.listdir("/proc/self/task")) > 3

{given}
def do():
    {do}

assert work() == 2
child(lambda: (work(), child(of_many_threads), work()))
assert work() == 2
"""
# All of it is computed by threads of OpenMP: of PyTorch's copy, and of FAISS's.
FITTING = "", "torch.randn(400, 400).softmax(1) @ torch.randn(400, 400); ResidualCodec.fit(vectors, 8, 4)"
ENCODING = (
    "from colbert_core import Encoder; encoder = Encoder.from_pretrained(device='cpu', dtype={dtype!r})",
    "encoder.encode_queries(['happy pets']); encoder.encode_passages(['Cats purr when they are content. ' * 30])",
)
RERANKING = (
    "from colbert_core import Passage, Reranker; reranker = Reranker(device='cpu')",
    "reranker.rank('happy pets', [Passage('a', 'Cats purr.'), Passage('b', 'Rust.')])",
)
TRAINING = "layer = torch.nn.Linear(400, 400)", "layer(torch.randn(400, 400)).sum().backward()"


# From 3.12 on Python itself warns of any fork beside threads, which is what these tests are about.
QUIET_FORK = "ignore:This process:DeprecationWarning"


@needs_fork
@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP is of Linux")
@pytest.mark.parametrize(
    ("given", "do"),
    [
        FITTING,
        pytest.param(ENCODING[0].format(dtype="float32"), ENCODING[1], marks=pytest.mark.slow),
        pytest.param(ENCODING[0].format(dtype="bfloat16"), ENCODING[1], marks=pytest.mark.slow),
        pytest.param(*RERANKING, marks=pytest.mark.slow),
        pytest.param(*TRAINING, marks=pytest.mark.slow),
    ],
    ids=["clustering", "encoding", "half precision", "reranking", "training"],
)
def test_a_process_forked_after_use_computes_with_as_many_threads_as_it_is_allowed(given, do):
    code = FORKING.format(given=given, do=do)
    done = subprocess.run([sys.executable, "-W", QUIET_FORK, "-c", code], capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stderr) == (0, "")


@needs_fork
def test_locks_that_other_threads_held_are_free_in_a_forked_process(stanford, stanford_folder):
    lazy = LazyEncoder(Index.create(None, stanford).made_with, stanford)
    runner = stanford._runner
    with (
        held_by_another_thread(runner._lock),
        held_by_another_thread(lazy._lock),
        held_by_another_thread(threads.new_lock()),
    ):
        assert in_a_fork(lambda: lazy.get().encode_queries(["cat"])) == 0


@needs_fork
def test_an_adapters_model_is_loaded_in_a_process_forked_while_another_one_was_loading():
    from langchain_core.documents import Document

    from colbert_core import rerank
    from langchain_colbert import ColBERTRerank, ColBERTVectorStore

    documents = [Document("Cats purr."), Document("Rust.")]
    with held_by_another_thread(rerank._LOADING):
        assert in_a_fork(lambda: ColBERTRerank(model=WordEncoder()).compress_documents(documents, "cat")) == 0
    from langchain_colbert import vectorstore

    with held_by_another_thread(vectorstore._MAKING):
        assert in_a_fork(lambda: ColBERTVectorStore(model=WordEncoder()).add_documents(documents)) == 0


@pytest.fixture
def as_before(monkeypatch):
    n = torch.get_num_threads()
    monkeypatch.setattr(threads, "_lost_threads", False)
    monkeypatch.setattr(threads, "_chosen", None)
    yield
    torch.set_num_threads(n)


@needs_fork
@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP is of Linux")
@pytest.mark.parametrize("why", ["an OpenMP that cannot give up its threads", "a fork that nobody told of"])
def test_a_forked_process_without_the_threads_of_openmp_uses_one_and_says_so_once(why, as_before, monkeypatch, caplog):
    set_num_threads(2)
    if why == "a fork that nobody told of":
        monkeypatch.setattr(threads, "_process", os.getppid())
    else:
        monkeypatch.setattr(threads, "_gnu_openmp", lambda: [object()])
    caplog.set_level(logging.INFO, logger="colbert_core.threads")
    for _ in range(2):  # its children are as it is
        threads._before_fork()
        threads._after_fork_in_child()
        assert torch.get_num_threads() == 1
    set_num_threads(5)
    assert (torch.get_num_threads(), threads.get_num_threads()) == (1, 5)
    assert [record.getMessage() for record in caplog.records] == [
        "PyTorch and FAISS compute with one thread in this process: it was forked, without its parent's threads."
    ]


# Ctrl-C


needs_timers = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no such timers here")

# In processes of their own: an interrupt that comes within a weak reference's callback is one that pytest meets later.


@needs_timers
def test_ctrl_c_at_any_moment_of_shared_out_work_leaves_no_thread_behind():
    code = """
    from builders.ctrl_c import interrupts
    from colbert_core import threads
    set_num_threads(3)
    with interrupts(1) as interrupt:
        for _ in range(300):
            error = interrupt(lambda: threads.spread(lambda piece: sum(range(200)), range(10)), 0.002)
            assert error is None or type(error) is KeyboardInterrupt
            assert threads.spread(str, range(10)) == [*"0123456789"]
    until = time.monotonic() + 10
    while any(thread.name.startswith("colbert_") for thread in threading.enumerate()) and time.monotonic() < until:
        time.sleep(0.01)
    print([thread.name for thread in threading.enumerate() if thread.name.startswith("colbert_")])
    """
    assert in_a_process(code).strip() == "[]"


@needs_timers
def test_ctrl_c_at_any_moment_of_encoding_or_reranking_leaves_the_model_to_others(stanford_folder):
    code = """
    from builders.ctrl_c import interrupts
    encoder = Encoder.from_pretrained(sys.argv[1], device="cpu", dtype="float32")
    reranker, passages = Reranker(encoder), [Passage("a", "the cat sat"), Passage("b", "a dog")]
    want = [hit.score for hit in reranker.rank("cat", passages)]
    with interrupts(2) as interrupt:
        for _ in range(100):
            assert type(interrupt(lambda: reranker.rank("cat", passages), 0.01)) in (KeyboardInterrupt, type(None))
            found = []
            other = threading.Thread(target=lambda: found.extend(reranker.rank("cat", passages)), daemon=True)
            other.start()
            other.join(20)
            assert [hit.score for hit in found] == want
    print("all answered")
    """
    assert in_a_process(code, stanford_folder).strip() == "all answered"
