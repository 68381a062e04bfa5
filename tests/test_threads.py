"""How many threads there are, what they do to PyTorch, work shared out among them, and results that do not depend on them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from builders.vectors import clustered, collection, unit

import colbert_core
from colbert_core import Encoder, Index, get_num_threads, set_num_threads, threads
from colbert_core.threads import spread
from colbert_core.vectors.codec import ResidualCodec


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    of_torch = torch.get_num_threads()
    monkeypatch.setattr(threads, "_chosen", None)
    yield
    torch.set_num_threads(of_torch)


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# The number


def test_at_first_there_are_as_many_threads_as_cores():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert 1 <= get_num_threads() <= cores  # a container may grant fewer
    assert colbert_core.get_num_threads is threads.get_num_threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be taken away from a process here")
def test_cores_that_the_process_may_not_use_do_not_count():
    code = "import os, colbert_core; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); print(colbert_core.get_num_threads())"
    assert run_python(code) == ["1"]


@pytest.mark.parametrize("n", [1, 2, 7])
def test_a_number_that_was_set_holds(n):
    set_num_threads(n)
    assert get_num_threads() == n


@pytest.mark.parametrize("n", [None, 1.0, "2", True, [1]])
def test_what_is_no_whole_number_is_refused(n):
    with pytest.raises(TypeError, match="n must be a whole number"):
        set_num_threads(n)
    assert threads._chosen is None


@pytest.mark.parametrize("n", [0, -1])
def test_fewer_than_one_thread_is_refused(n):
    with pytest.raises(ValueError, match=f"n must be at least 1, got {n}"):
        set_num_threads(n)
    assert threads._chosen is None


# PyTorch


def test_pytorchs_own_setting_stays_as_the_program_has_it():
    of_torch = torch.get_num_threads()
    set_num_threads(of_torch + 2)
    encoder = Encoder.from_pretrained(device="cpu")
    encoder.encode_passages(["cats purr"] * 3, progress=False)
    assert torch.get_num_threads() == of_torch
    seen = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))  # nor that of threads to come
    thread.start()
    thread.join()
    assert seen == [of_torch]


def test_within_a_block_of_one_thread_pytorch_has_one_and_other_threads_have_theirs():
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(3)
    with threads.one_torch_thread():
        assert torch.get_num_threads() == 1
        thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
    assert torch.get_num_threads() == 3
    assert seen == [3]
    torch.set_num_threads(before)


def test_setting_a_number_imports_no_torch():
    assert run_python("import sys, colbert_core; colbert_core.set_num_threads(3); print('torch' in sys.modules)") == ["False"]


def test_the_vectors_of_a_text_do_not_depend_on_threads_to_the_last_bit():
    encoder = Encoder.from_pretrained(device="cpu")
    texts = [" ".join(f"word{n * k % 17}" for k in range(n % 90 + 1)) for n in range(150)] + ["cats purr " * 900]
    found = []
    for n, of_torch in ((1, 1), (2, 1), (3, 2), (8, 4)):
        set_num_threads(n)
        torch.set_num_threads(of_torch)
        found.append((encoder.encode_passages(texts, progress=False), encoder.encode_queries(texts[:3])))
    for passages, queries in found[1:]:
        assert np.array_equal(passages.vectors, found[0][0].vectors)
        assert all(map(np.array_equal, queries, found[0][1]))


def test_batches_of_one_call_are_encoded_at_once(monkeypatch):
    encoder = Encoder.from_pretrained(device="cpu")
    together, real = threading.Barrier(2), encoder._runner._forward

    def forward(inputs):
        together.wait(timeout=30)  # a second thread has come as well
        return real(inputs)

    monkeypatch.setattr(encoder._runner, "_forward", forward)
    set_num_threads(2)
    encoder.encode_passages([f"text {n} " * 100 for n in range(24)], progress=False)


def test_as_many_callers_as_threads_are_allowed_do_not_wait_for_each_other(monkeypatch):
    set_num_threads(4)
    encoder = Encoder.from_pretrained(device="cpu")
    together, real = threading.Barrier(4), encoder._runner._forward

    def forward(inputs):
        together.wait(timeout=30)
        return real(inputs)

    monkeypatch.setattr(encoder._runner, "_forward", forward)
    callers = [threading.Thread(target=encoder.encode_queries, args=([f"question {n}"],)) for n in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not together.broken


# Sharing out


@pytest.mark.parametrize("n", [1, 2, 5])
def test_results_come_in_order(n):
    set_num_threads(n)
    assert spread(lambda piece: piece * piece, range(40)) == [piece * piece for piece in range(40)]
    assert spread(str, []) == []
    assert spread(str, [3]) == ["3"]


def test_pieces_run_at_once_in_as_many_threads_as_allowed():
    set_num_threads(3)
    barrier = threading.Barrier(3, timeout=30)
    assert len(set(spread(lambda _: (barrier.wait(), threading.get_ident())[1], range(3)))) == 3
    names = spread(lambda _: threading.current_thread().name, range(50))
    assert len(set(names)) <= 3
    assert all(name.startswith("colbert") for name in names)


@pytest.mark.parametrize(("n", "n_pieces"), [(1, 9), (4, 1)])
def test_one_thread_or_one_piece_needs_no_other_thread(n, n_pieces):
    set_num_threads(n)
    assert set(spread(lambda _: threading.get_ident(), range(n_pieces))) == {threading.get_ident()}


@pytest.mark.parametrize("n", [1, 2, 4])
def test_the_first_error_is_raised_and_what_has_not_begun_is_left(n):
    set_num_threads(n)
    begun = []

    def work(piece):
        begun.append(piece)
        if piece in (2, 3):
            raise LookupError(f"piece {piece}")

    with pytest.raises(LookupError, match="piece 2"):
        spread(work, range(10_000))
    assert len(begun) < 10_000
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("colbert")]


def test_an_interrupt_is_raised_too():
    set_num_threads(2)

    def work(piece):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spread(work, range(4))


def test_work_that_is_shared_out_already_is_not_shared_out_again():
    set_num_threads(2)

    def work(piece):
        mine = spread(lambda one: (threading.get_ident(), one + piece), range(5))
        assert {ident for ident, _ in mine} == {threading.get_ident()}
        return sum(value for _, value in mine)

    assert spread(work, range(5)) == [10, 15, 20, 25, 30]
    barrier = threading.Barrier(2, timeout=30)
    spread(lambda _: barrier.wait(), range(2))  # afterwards it is, in two threads


# Results


def test_compressing_gives_the_same_with_any_number_of_threads():
    vectors = clustered(np.random.default_rng(0), 20_000, 16)  # three pieces
    found = []
    for n in (1, 2, 3):
        set_num_threads(n)
        codec = ResidualCodec.fit(vectors, 2048, 4)
        found.append([codec.centroids, codec.levels, *codec.compress(vectors)])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("nbits", [None, 4])
def test_building_and_searching_give_the_same_with_one_thread_and_two(nbits):
    rng = np.random.default_rng(1)
    passages, _, _ = collection(6000, low=2, high=6)
    vectors = [unit(rng, 3, 32) for _ in passages]
    queries = [unit(rng, n_q, 32) for n_q in (1, 8, 32, 50)]
    found = []
    for n in (1, 2):
        set_num_threads(n)
        with Index.create(None, dim=32, nbits=nbits) as index:
            index.add(passages, embeddings=vectors)
            index.compact()
            hits = [index.search_many(queries, k=20, exact=exact) for exact in (False, True)]
            assert [index.search(query, k=20) for query in queries] == hits[0]
            found.append((hits, [some.tobytes() for some in index.embeddings([passage.id for passage in passages])]))
    assert found[0] == found[1]
