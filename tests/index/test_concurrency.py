"""Many readers beside a writer, in threads and in processes: every result is that of one state, never a mixture."""

from __future__ import annotations

import multiprocessing
import random
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest

from colbert_core import Index, Passage
from colbert_core.index import writing

DIM = 16


@cache
def vectors(name, version):
    made = np.random.default_rng([int(name[1:]), version]).standard_normal((6, DIM)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


QUERIES = [np.random.default_rng(n).standard_normal((4, DIM)).astype(np.float32) for n in range(5)]


def best(state, query, k, odd):
    """The k best passages of a state by the formula, as (name, version)."""
    query = query / np.linalg.norm(query, axis=1, keepdims=True)
    scores = {
        (name, version): float((query @ vectors(name, version).T).max(axis=1).sum())
        for name, version in state.items()
        if not odd or version % 2
    }
    return sorted(scores, key=lambda key: (-scores[key], key[0]))[:k]


@pytest.mark.parametrize(
    ("place", "writes"),
    [("disk", 150), ("memory", 150), *(pytest.param(place, 1000, marks=pytest.mark.slow) for place in ("disk", "memory"))],
)
def test_eight_threads_search_during_many_adds_and_deletes(place, writes, tmp_path):
    index = Index.create(None if place == "memory" else tmp_path / "x.idx", dim=DIM, words="words")
    history = [{}]  # what the passages are after each call; the last one may be under way
    finished = 0
    stop = threading.Event()

    def write():
        nonlocal finished
        moments = random.Random(1)
        try:
            for version in range(1, writes + 1):
                names = [f"p{n}" for n in moments.sample(range(60), moments.randint(1, 4))]
                state = dict(history[-1])
                if moments.random() < 0.6:
                    state |= dict.fromkeys(names, version)
                    history.append(state)
                    index.add(
                        [Passage(name, f"{name} {version}", {"odd": version % 2}) for name in names],
                        embeddings=[vectors(name, version) for name in names],
                    )
                else:
                    for name in names:
                        state.pop(name, None)
                    history.append(state)
                    index.delete(names)
                finished = version
        finally:
            stop.set()

    def read(seed):
        moments, n = random.Random(seed), 0
        while not stop.is_set():
            query, k, odd = moments.choice(QUERIES), moments.randint(1, 20), moments.random() < 0.3
            first = finished
            hits = index.search(query, k=k, where={"odd": 1} if odd else None)
            last = len(history)
            found = [tuple(hit.passage.text.split()) for hit in hits]
            assert [hit.passage.id for hit in hits] == [name for name, _ in found]
            found = [(name, int(version)) for name, version in found]
            assert any(found == best(history[number], query, k, odd) for number in range(last - 1, first - 1, -1)), (
                first,
                last,
            )
            version = max(finished - moments.randrange(3), 0)
            first = finished
            named = {hit.passage.id for hit in index.search(f"{version} x", k=99, mode="words")}
            last = len(history)
            with_word = [{name for name, number in state.items() if number == version} for state in history[first - 1 : last]]
            assert named in with_word, (first, last, version)
            n += 1
        return n

    with ThreadPoolExecutor(9) as pool:
        tasks = [pool.submit(write), *(pool.submit(read, seed) for seed in range(8))]
        counts = [task.result() for task in tasks]
    assert min(counts[1:]) > 0
    assert index.verify().ok
    assert {hit.passage.id for hit in index.search(QUERIES[0], k=99)} == set(history[-1])


READER = textwrap.dedent(
    """
    import sys
    import numpy as np
    from colbert_core import Index
    index = Index.open(sys.argv[1])
    query = np.ones((2, 16), np.float32)
    print("ready", flush=True)
    seen, last = 0, -1
    while last < 60:
        hits = index.search(query, k=1000)
        generations = {hit.passage.metadata["generation"] for hit in hits}
        assert len(generations) == 1 and len(hits) == 200, (generations, len(hits))
        assert all(hit.passage.text == f"text {hit.passage.metadata['generation']}" for hit in hits)
        (generation,) = generations
        assert generation >= last, "it went back"
        seen, last = seen + (generation != last), generation
    print(seen)
    """
)


def test_processes_read_one_index_while_another_writes(tmp_path, monkeypatch):
    """The writer replaces all passages at once, 60 times; files come and go, the codec is fitted, and readers see each whole."""
    monkeypatch.setattr(writing, "FIRST_FIT", 2000)
    path, rng = tmp_path / "x.idx", np.random.default_rng(0)
    made = [rng.standard_normal((15, 16)).astype(np.float32) for _ in range(200)]

    def add(generation):
        passages = [Passage(str(i), f"text {generation}", {"generation": generation}) for i in range(200)]
        index.add(passages, embeddings=made)

    index = Index.create(path, dim=16, words="words", nbits=4)
    add(0)
    readers = [
        subprocess.Popen([sys.executable, "-c", READER, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [reader.stdout.readline() for reader in readers] == ["ready\n"] * 3
    for generation in range(1, 61):
        add(generation)
        if generation % 20 == 0:
            index.compact()
    for reader in readers:
        output, errors = reader.communicate(timeout=60)
        assert reader.returncode == 0, errors
        assert int(output) >= 2
    assert index.stats().centroids > 0


def count_in_child(index, results):
    results.put((len(index), index.search(QUERIES[0], k=3)))


def test_an_index_on_disk_outlives_a_fork(tmp_path):
    index = Index.create(tmp_path / "x.idx", dim=DIM, words="words")
    index.add([Passage(f"p{n}", "text") for n in range(9)], embeddings=[vectors(f"p{n}", 0) for n in range(9)])
    expected = (9, index.search(QUERIES[0], k=3))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=count_in_child, args=(index, results))
    child.start()
    assert results.get(timeout=60) == expected
    child.join()
    index.add([Passage("p9", "text")], embeddings=[vectors("p9", 0)])
    assert index.verify().ok


def test_writers_in_many_threads_take_turns(tmp_path):
    index = Index.create(tmp_path / "x.idx", dim=DIM, words="words")

    def write(worker):
        for n in range(10):
            name = f"p{worker * 100 + n}"
            index.add([Passage(name, "text")], embeddings=[vectors(name, 0)])

    with ThreadPoolExecutor(6) as pool:
        for task in [pool.submit(write, worker) for worker in range(6)]:
            task.result()
    assert len(index) == 60
    assert index.stats().generation == 60
