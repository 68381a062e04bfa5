"""A run killed without warning, again and again, ends as one that was not."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import pytest
from builders.processes import environment
from builders.training import assert_same_weights, command, losses, weights, write_base

pytest.importorskip("accelerate")


def begin(base, out, steps):
    arguments = command(base, out, steps=steps, checkpoint_every=3)
    return subprocess.Popen([sys.executable, *arguments], env=environment(OMP_NUM_THREADS="1"))


def n_lines(out):
    log = out / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


@pytest.mark.slow  # five processes that import PyTorch; test_loop.py interrupts a run in its own process
@pytest.mark.timeout(900)
def test_a_run_killed_at_random_steps_has_the_losses_and_weights_of_one_that_was_not(tmp_path):
    steps, n_kills = 30, 3
    base = write_base(tmp_path / "base")  # with BERT's dropout
    assert begin(base, tmp_path / "whole", steps).wait() == 0

    seed = random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)
    print(f"seed {seed}")
    killed_at = []
    for _ in range(n_kills):
        lines = n_lines(tmp_path / "run") + rng.randrange(1, 12)
        process = begin(base, tmp_path / "run", steps)
        while n_lines(tmp_path / "run") < lines and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)  # in the step, the evaluation or the checkpoint that follows
        process.kill()
        killed_at.append(lines)
        assert process.wait() in (-signal.SIGKILL, 0)
    assert begin(base, tmp_path / "run", steps).wait() == 0, f"seed {seed}, killed at {killed_at}"

    assert len(losses(tmp_path / "run")) == steps
    assert losses(tmp_path / "run") == losses(tmp_path / "whole"), f"seed {seed}, killed at {killed_at}"
    assert_same_weights(weights(tmp_path / "run" / "model"), weights(tmp_path / "whole" / "model"))
    leftovers = list((tmp_path / "run").rglob(".*"))
    assert leftovers == []
