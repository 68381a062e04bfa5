"""A run killed without warning, again and again, ends as one that was not. Run as a script it is the run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# The package beside these tests, wherever another one is installed.
PATH = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[1], Path(__file__).parents[2])))
STEPS = 30
N_KILLS = 3


def main(base, out):
    from test_loop import EXAMPLES, TINY, accuracy

    from colbert_core.train import train

    train(EXAMPLES, base, out=out, steps=STEPS, checkpoint_every=3, evaluate=accuracy, **TINY)


def begin(base, out):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": PATH}
    return subprocess.Popen([sys.executable, __file__, str(base), str(out)], env=environment, cwd=Path(__file__).parents[2])


def n_lines(out):
    log = out / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def test_a_run_killed_at_random_steps_has_the_losses_and_weights_of_one_that_was_not(tmp_path):
    pytest.importorskip("accelerate")
    from test_loop import assert_same_weights, losses, weights, write_base

    base = write_base(tmp_path / "base")  # with BERT's dropout
    assert begin(base, tmp_path / "whole").wait() == 0

    seed = random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)
    print(f"seed {seed}")
    killed_at = []
    for _ in range(N_KILLS):
        lines = n_lines(tmp_path / "run") + rng.randrange(1, 12)
        process = begin(base, tmp_path / "run")
        while n_lines(tmp_path / "run") < lines and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)  # in the step, the evaluation or the checkpoint that follows
        process.send_signal(signal.SIGKILL)
        killed_at.append(lines)
        assert process.wait() in (-signal.SIGKILL, 0)
    assert begin(base, tmp_path / "run").wait() == 0, f"seed {seed}, killed at {killed_at}"

    assert len(losses(tmp_path / "run")) == STEPS
    assert losses(tmp_path / "run") == losses(tmp_path / "whole"), f"seed {seed}, killed at {killed_at}"
    assert_same_weights(weights(tmp_path / "run" / "model"), weights(tmp_path / "whole" / "model"))
    leftovers = list((tmp_path / "run").rglob(".*"))
    assert leftovers == []


if __name__ == "__main__":
    main(*sys.argv[1:])
