"""Eight readers and a writer over HTTP: every answer is that of one whole state, between the last one known and the next.

The default run takes seconds; ``pytest tests/serve/test_load.py --minutes 5 -n 0 -s`` takes five minutes and prints the figures.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
from builders.encoders import WordEncoder
from builders.processes import environment

N, WORDS = 60, [f"word{n}" for n in range(40)]
VECTORS = {word: WordEncoder().vector(word) for word in WORDS}

SERVER = """
import sys, time
from builders.encoders import WordEncoder
from builders.service import serving
from colbert_core import Index

index = Index.create(sys.argv[1], WordEncoder())
with serving({"wiki": index}, writable=True) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


def text(passage, generation):
    rng = np.random.default_rng([passage, generation])
    return " ".join(rng.choice(WORDS, 6))


@functools.lru_cache(maxsize=8)
def vectors(generation):
    return [matrix(text(n, generation)) for n in range(N)]


def matrix(words):
    return np.stack([VECTORS[word] for word in words.split()])


class Readers:
    """Threads that search and judge each answer by what was written before it was asked for and until it had come."""

    def __init__(self, url):
        self.url, self.begun, self.done = url, 0, 0
        self.stopped, self.seconds, self.errors = threading.Event(), [], []
        self.threads = [threading.Thread(target=self.read, args=(seed,)) for seed in range(8)]

    def read(self, seed):
        rng = np.random.default_rng(seed)
        with httpx.Client(base_url=self.url, timeout=60) as client:
            while not self.stopped.is_set():
                query = " ".join(rng.choice(WORDS, 3))
                done, started = self.done, time.perf_counter()
                answer = client.post("/v1/indexes/wiki/search", json={"query": query, "k": 100, "mode": "maxsim"})
                self.seconds.append(time.perf_counter() - started)
                self.judge(query, answer, done, self.begun)

    def judge(self, query, answer, least, most):
        if answer.status_code != 200:
            self.errors.append(answer.text)
            return
        hits = answer.json()["hits"]
        generations = {hit["metadata"]["generation"] for hit in hits}
        if len(generations) != 1 or len(hits) != N or not least <= min(generations) <= most:
            self.errors.append(f"{len(hits)} hits of {sorted(generations)}, not of one of {least} to {most}")
            return
        (generation,) = generations
        of_query, of_generation = matrix(query), vectors(generation)
        for hit in hits:
            number = int(hit["id"])
            right = float((of_query @ of_generation[number].T).max(axis=1).sum())
            if hit["text"] != text(number, generation) or abs(hit["score"] - right) > 0.01:
                self.errors.append(f"{hit} should be {text(number, generation)!r} with {right} in generation {generation}")


def write(url, generation):
    passages = [{"id": str(n), "text": text(n, generation), "metadata": {"generation": generation}} for n in range(N)]
    answer = httpx.post(f"{url}/v1/indexes/wiki/passages", json={"passages": passages}, timeout=60)
    assert answer.status_code == 200, answer.text


def test_every_answer_is_that_of_one_generation(tmp_path, request):
    seconds = request.config.getoption("--minutes") * 60
    command = [sys.executable, "-c", SERVER, str(tmp_path / "index")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()) as server:
        try:
            url = server.stdout.readline().strip()
            write(url, 0)
            readers = Readers(url)
            for thread in readers.threads:
                thread.start()
            until, generation = time.monotonic() + seconds, 0
            while time.monotonic() < until or len(readers.seconds) < 50:
                generation += 1
                readers.begun = generation
                write(url, generation)
                readers.done = generation
            readers.stopped.set()
            for thread in readers.threads:
                thread.join()
        finally:
            server.communicate()
    p50, p99 = (1000 * float(np.quantile(readers.seconds, share)) for share in (0.5, 0.99))
    print(
        f"{generation} writes, {len(readers.seconds)} searches, p50 {p50:.1f} ms, p99 {p99:.1f} ms, {len(readers.errors)} errors"
    )
    assert readers.errors == []
    assert generation >= 3
