"""Eight processes read an index while one writes without a pause: every result is that of one whole state, and nothing grows.

The default run takes seconds; ``pytest tests/faults/test_load.py --minutes 10`` takes ten minutes and prints the figures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from builders.processes import environment

from colbert_core import Index, Passage
from colbert_core.index import writing
from colbert_core.storage import files

N, DIM = 60, 16

# All passages of a generation have its number, and vectors that tell it: a mixture of two generations cannot be overlooked.
READER = """
import json, os, resource, sys, time
import numpy as np
from colbert_core import Index

folder, stop, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
rng = np.random.default_rng(seed)

def usage():
    pages = int(open("/proc/self/statm").read().split()[1]) if os.path.exists("/proc/self/statm") else 0
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    return pages * resource.getpagesize() // 2**20, descriptors

def vectors(name, generation):
    return np.random.default_rng([name, generation]).standard_normal((6, 16)).astype(np.float32)

seconds, errors, early, known = [], [], None, None
index = Index.open(folder)
print("ready", flush=True)
while not os.path.exists(stop):
    query = rng.standard_normal((4, 16)).astype(np.float32)
    started = time.perf_counter()
    hits = index.search(query, k=1000, exact=bool(len(seconds) % 2))
    seconds.append(time.perf_counter() - started)
    generations = {hit.passage.metadata["generation"] for hit in hits}
    if len(generations) != 1 or len(hits) not in (50, 60):
        errors.append(f"{len(hits)} hits of generations {sorted(generations)}")
        continue
    generation = generations.pop()
    if any(hit.passage.text != f"{hit.passage.id} of {generation}" for hit in hits):
        errors.append(f"texts of another generation than {generation}")
    if generation != known:
        known, units = generation, np.stack([vectors(name, generation) for name in range(60)])
        units /= np.linalg.norm(units, axis=2, keepdims=True)
    unit = query / np.linalg.norm(query, axis=1, keepdims=True)
    right = (unit @ units[[int(hit.passage.id) for hit in hits]].transpose(0, 2, 1)).max(axis=2).sum(axis=1)
    off = np.abs(right - [hit.score for hit in hits])
    # Compression changes one score in 300,000 by .4 (4 bits, one process). Vectors of another generation are .4 off on average.
    if np.sort(off)[-3] > 0.4:
        errors.append(f"scores are {off.tolist()} off")
    if len(seconds) == 200:
        early = usage()
print(json.dumps({"seconds": seconds, "errors": errors, "early": early or usage(), "late": usage()}))
"""


def vectors(name, generation):
    return np.random.default_rng([name, generation]).standard_normal((6, DIM)).astype(np.float32)


def replace_all(index, generation):
    passages = [Passage(str(n), f"{n} of {generation}", {"generation": generation}) for n in range(N)]
    index.add(passages, embeddings=[vectors(n, generation) for n in range(N)])


@pytest.mark.timeout(1800)
def test_readers_see_whole_states_beside_a_writer_and_nothing_grows(tmp_path, request, capsys, monkeypatch):
    seconds = 60 * request.config.getoption("--minutes")
    monkeypatch.setattr(writing, "FIRST_FIT", 100)
    monkeypatch.setattr(files, "_LARGEST_ROW", 2**12)
    folder, stop = tmp_path / "x.idx", tmp_path / "stop"
    index, logs, writes = Index.create(folder, dim=DIM, words="words", nbits=4), [], 0
    replace_all(index, 0)
    n_readers = 8 if seconds > 10 else 2
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(READER), str(folder), str(stop), str(seed)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        for seed in range(n_readers)
    ]
    for reader in readers:
        assert reader.stdout.readline() == "ready\n"
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        writes += 1
        replace_all(index, writes)
        if writes % 3 == 0:
            index.delete([str(n) for n in range(10)])
        if writes % 20 == 0:
            index.compact()
        logs.append((folder / "index.sqlite-wal").stat().st_size)
    stop.touch()
    reports = [json.loads(reader.communicate(timeout=60)[0]) for reader in readers]
    assert [error for report in reports for error in report["errors"]] == []
    assert index.verify().problems == []
    assert len(list((folder / "files").iterdir())) < 10  # what readers still map is removed all the same
    assert max(logs) < 2**26
    for report in reports:
        (rss, descriptors), (late_rss, late_descriptors) = report["early"], report["late"]
        assert late_rss < rss + 100
        assert late_descriptors < descriptors + 10
    if seconds > 10:
        times = np.concatenate([report["seconds"] for report in reports]) * 1000
        with capsys.disabled():
            print(
                f"\n{seconds:.0f} s, {writes} writes of {N} passages, {len(times)} searches by {n_readers} readers, "
                f"p50 {np.percentile(times, 50):.1f} ms, p99 {np.percentile(times, 99):.1f} ms, "
                f"RSS {[(r['early'][0], r['late'][0]) for r in reports]} MiB, "
                f"descriptors {[(r['early'][1], r['late'][1]) for r in reports]}, "
                f"log at most {max(logs) / 2**20:.1f} MiB, at the end {logs[-1] / 2**20:.1f}; pid {os.getpid()}"
            )
