"""Processes killed while they write (SIGKILL): what was acknowledged is there, and nothing is there by half.

``pytest tests/test_crash.py --kills 2000`` kills that often at random; the default run does it 20 times.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from builders.crash_writer import DIM, vectors

from colbert_core import Index, IndexNotFoundError

WRITER = Path(__file__).parents[1] / "builders" / "crash_writer.py"


def run_writer(folder, *arguments, after=None, at_least=0):
    """Run the writer until it is killed; its lines. ``after`` seconds from its ``at_least``-th line it is killed by us."""
    process = subprocess.Popen(
        [sys.executable, str(WRITER), str(folder), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    lines = []
    if after is not None:
        for line in process.stdout:
            lines.append(line.decode())
            if len(lines) > at_least:
                break
        timer = threading.Timer(after, process.kill)
        timer.start()
    output, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, errors.decode()
    return [*lines, *output.decode().splitlines(keepends=True)]


def applied(state, call):
    """What the passages (name to version and mark) are after a call."""
    if "add" in call:
        return state | dict.fromkeys(call["add"], (call["version"], None))
    if "set" in call:
        return state | {name: (state[name][0], call["mark"]) for name in call["set"] if name in state}
    if "delete" in call:
        return {name: version for name, version in state.items() if name not in call["delete"]}
    return {} if "clear" in call else state


def replayed(state, lines):
    """The passages after all acknowledged calls, and the call that was under way when the process died, if any."""
    under_way = None
    for line in (line.strip() for line in lines if line.endswith("\n")):
        if line == "done":
            state, under_way = applied(state, under_way), None
        elif line.startswith("{"):
            under_way = json.loads(line)
    return state, under_way


def check(folder, state, under_way):
    """The index holds what it must, whole; its passages now."""
    possible = [state] if under_way is None else [state, applied(state, under_way)]
    with Index.open(folder) as index:
        assert index.verify().problems == []
        query = np.ones((2, DIM), np.float32)
        hits = index.search(query, k=1000, exact=True)
        found = {hit.passage.id: (hit.passage.metadata["version"], hit.passage.metadata.get("mark")) for hit in hits}
        assert found in possible
        assert len(index) == len(found) == len(index.search(query, k=1000, where={"version": {"$gte": 0}}))
        for name, (version, _) in list(found.items())[:5]:
            (passage,) = index.get([name])
            assert passage.text == f"{name} version {version}"
            expected = vectors(name, version)
            expected /= np.linalg.norm(expected, axis=1, keepdims=True)
            (kept,) = index.embeddings([name])
            assert kept.shape == expected.shape
            assert np.einsum("nd,nd->n", kept, expected).mean() > 0.9
    return found


STEPS = [
    ("locked", 3),
    ("file written", 2),
    ("file synced", 2),
    ("file renamed", 3),
    ("folder synced", 1),
    ("rows written", 4),
    ("committed", 4),
    ("collected", 4),
    ("locked", 20),
    ("file synced", 9),
    ("folder synced", 12),
    ("rows written", 25),
    ("committed", 22),
]


@pytest.mark.parametrize(("step", "occurrence"), STEPS, ids=str)
def test_killed_at_a_named_step_of_a_commit(tmp_path, step, occurrence):
    folder = tmp_path / "x.idx"
    state, under_way = replayed({}, run_writer(folder, 1, step, occurrence))
    assert under_way is not None
    found = check(folder, state, under_way)
    # After the commit nothing is lost even though nobody was told; before it, nothing has happened.
    changes = not {"add", "set", "delete"}.isdisjoint(under_way)
    if step in ("committed", "collected") and changes:
        assert found == applied(state, under_way)
    if step not in ("committed", "collected") and occurrence < 9 and changes:
        assert found == state


@pytest.mark.parametrize("step", ["schema written", "created"])
def test_killed_while_an_index_is_made_there_is_a_whole_one_or_none(tmp_path, step):
    folder = tmp_path / "x.idx"
    assert "created\n" not in run_writer(folder, 1, step)
    if step == "schema written":
        with pytest.raises(IndexNotFoundError, match="its making was interrupted. Make it again"):
            Index.open(folder)
        Index.create(folder, dim=DIM, words="words").close()
    with Index.open(folder) as index:
        assert len(index) == 0
        assert index.verify().ok


def test_killed_at_random_moments_of_making_an_index(tmp_path):
    moments = random.Random(1)
    for number in range(6):
        folder = tmp_path / f"{number}.idx"
        state, under_way = replayed({}, run_writer(folder, number + 1, "no step", after=moments.uniform(0, 0.02)))
        try:
            check(folder, state, under_way)
        except IndexNotFoundError:
            Index.create(folder, dim=DIM, words="words").close()
            check(folder, {}, None)


def test_killed_at_random_moments(tmp_path, request):
    """One index lives through all of it, and at least half of the kills come within a write."""
    kills, within, moments = request.config.getoption("--kills"), 0, random.Random(0)
    folder, state = tmp_path / "x.idx", {}
    Index.create(folder, dim=DIM, words="words", nbits=4).close()
    started = time.monotonic()
    for number in range(kills):
        # "no step": never reached, so it is for us to kill; the first lines are "ready" and "created".
        lines = run_writer(folder, number + 1, "no step", after=moments.uniform(0, 0.4), at_least=2)
        state, under_way = replayed(state, lines)
        within += under_way is not None
        state = check(folder, state, under_way)
    assert within >= kills / 2, f"only {within} of {kills} kills came within a write ({time.monotonic() - started:.0f} s)"
    with Index.open(folder) as index:
        index.compact()
        named = {file.name for file in (folder / "files").iterdir()}
        assert len(named) <= 2  # nothing is left of what was under way
        assert index.verify().ok
