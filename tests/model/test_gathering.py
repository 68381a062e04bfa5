"""Callers who ask at once are read in turn or together: each gets its own vectors, and no error, fork or Ctrl-C leaves one waiting."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest
from builders.indexes import in_a_process

from colbert_core import set_num_threads, threads


@pytest.fixture(autouse=True)
def one_pass_at_a_time(monkeypatch):
    monkeypatch.setattr(threads, "_chosen", None)
    set_num_threads(1)


class Held:
    """A forward pass that waits until it is let go, and the number of sequences of each pass."""

    def __init__(self, encoder, monkeypatch):
        self.go, self.begun, self.sizes = threading.Event(), threading.Event(), []
        self._real = encoder._runner._forward
        monkeypatch.setattr(encoder._runner, "_forward", self)

    def __call__(self, inputs):
        self.sizes.append(len(inputs))
        self.begun.set()
        assert self.go.wait(30)
        return self._real(inputs)


def ask_all(encoder, questions, before=lambda: None):
    """The vectors or the error that each question's thread gets; the first thread is at work before the others start."""
    found = [None] * len(questions)

    def ask(i):
        try:
            (found[i],) = encoder.encode_queries([questions[i]])
        except Exception as error:
            found[i] = error

    callers = [threading.Thread(target=ask, args=(i,)) for i in range(len(questions))]
    callers[0].start()
    before()
    for caller in callers[1:]:
        caller.start()
    return callers, found


def let_go_when_all_wait(encoder, held, n):
    while len(encoder._runner._waiting) < n:
        held.begun.wait(0.001)
    held.go.set()


@pytest.mark.parametrize(("n", "passes"), [(2, [1, 1]), (9, [1, 8]), (20, [1, 16, 3])])
def test_who_comes_while_a_pass_runs_is_read_by_the_next_one(stanford, monkeypatch, n, passes):
    encoder = stanford.for_many_callers()
    held = Held(encoder, monkeypatch)
    questions = [chr(ord("a") + i) for i in range(n)]
    callers, found = ask_all(encoder, questions, before=lambda: held.begun.wait(30))
    let_go_when_all_wait(encoder, held, n - 1)
    for caller in callers:
        caller.join(30)
    assert held.sizes == passes
    for question, vectors in zip(questions, found, strict=True):
        np.testing.assert_allclose(vectors, stanford.encode_queries([question])[0], atol=1e-5)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_plain_encoder_runs_no_more_passes_at_once_than_threads_are_allowed_and_each_reads_one(
    stanford, monkeypatch, n_threads
):
    set_num_threads(n_threads)
    questions, counts, lock = [chr(ord("a") + i) for i in range(9)], [0, 0], threading.Lock()
    alone = [stanford.encode_queries([question])[0] for question in questions]
    held = Held(stanford, monkeypatch)
    held.go.set()
    real, all_there = held._real, threading.Event()

    def forward(inputs):
        with lock:
            counts[0] += 1
            counts[1] = max(counts)
            if counts[0] == n_threads:
                all_there.set()
        assert all_there.wait(30)  # as many as are allowed do run at once
        vectors = real(inputs)
        with lock:
            counts[0] -= 1
        return vectors

    held._real = forward
    callers, found = ask_all(stanford, questions)
    for caller in callers:
        caller.join(30)
    assert held.sizes == [1] * 9
    assert counts == [0, n_threads]
    assert all(np.array_equal(vectors, expected) for vectors, expected in zip(found, alone, strict=True))


def test_equal_questions_get_equal_vectors(stanford, monkeypatch):
    encoder = stanford.for_many_callers()
    held = Held(encoder, monkeypatch)
    callers, found = ask_all(encoder, ["first", *["the same"] * 5], before=lambda: held.begun.wait(30))
    let_go_when_all_wait(encoder, held, 5)
    for caller in callers:
        caller.join(30)
    assert held.sizes == [1, 1]  # one sequence for the five
    assert all(np.array_equal(vectors, found[1]) for vectors in found[1:])


def test_an_error_in_a_pass_of_several_is_that_of_the_caller_it_belongs_to(stanford, monkeypatch):
    encoder = stanford.for_many_callers()
    held, (bad,) = Held(encoder, monkeypatch), stanford._inputs.queries(["b"])
    real = held._real

    def fails(inputs):
        if any(np.array_equal(one.ids, bad.ids) for one in inputs):
            raise RuntimeError("no memory")
        return real(inputs)

    held._real = fails
    callers, found = ask_all(encoder, ["a", "b", "c"], before=lambda: held.begun.wait(30))
    let_go_when_all_wait(encoder, held, 2)
    for caller in callers:
        caller.join(30)
    assert held.sizes == [1, 2, 1, 1]  # those of the pass that failed try again by themselves
    assert [isinstance(one, RuntimeError) for one in found] == [False, True, False]
    assert np.array_equal(found[2], stanford.encode_queries(["c"])[0])


def test_the_main_thread_and_lists_of_questions_are_read_by_themselves(stanford, monkeypatch):
    encoder = stanford.for_many_callers()
    held = Held(encoder, monkeypatch)
    callers, found = ask_all(encoder, ["first"], before=lambda: held.begun.wait(30))
    held.go.set()
    assert np.array_equal(encoder.encode_queries(["cats"])[0], stanford.encode_queries(["cats"])[0])
    assert len(encoder.encode_queries(["cats", "dogs"])) == 2
    callers[0].join(30)
    assert found[0] is not None


def test_a_lone_question_has_the_vectors_of_a_plain_encoder(stanford):
    encoder = stanford.for_many_callers()
    callers, found = ask_all(encoder, ["cats purr"])
    callers[0].join(30)
    assert np.array_equal(found[0], stanford.encode_queries(["cats purr"])[0])


def test_a_pickle_loads_a_plain_encoder(stanford):
    assert pickle.loads(pickle.dumps(stanford.for_many_callers())) is stanford


def test_many_callers_all_get_their_own(stanford):
    set_num_threads(2)
    encoder = stanford.for_many_callers()
    questions = [chr(ord("a") + i % 11) for i in range(200)]
    callers, found = ask_all(encoder, questions)
    for caller in callers:
        caller.join(60)
    for question, vectors in zip(questions, found, strict=True):
        np.testing.assert_allclose(vectors, stanford.encode_queries([question])[0], atol=1e-5)
    assert encoder._runner._n_running == 0


@pytest.mark.parametrize("way", ["", ".for_many_callers()"])
def test_a_forked_process_waits_for_nobody_of_its_parent(way):
    code = f"""
    encoder = Encoder.from_pretrained(device="cpu"){way}
    encoder._runner._n_running = 99  # as passes of threads that the child does not have
    pid = os.fork()
    if not pid:
        answers = []
        thread = threading.Thread(target=lambda: answers.append(encoder.encode_queries(["cats"])))
        thread.start()
        thread.join(60)
        os._exit(0 if answers else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    assert in_a_process(code).split() == ["0"]
