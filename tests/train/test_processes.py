"""A run of two processes learns what one with batches twice as large does. Run as a script it is one of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

# The package beside these tests, wherever another one is installed.
PATH = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[1], Path(__file__).parents[2])))


def main(base, out, settings):
    from test_loop import EXAMPLES, TINY

    from colbert_core.train import train

    train(EXAMPLES, base, out=out, preset="colbertv1", steps=6, evaluate=lambda encoder: 1.0, **TINY | json.loads(settings))


def finish(n_processes, *arguments):
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n_processes}"] if n_processes > 1 else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "PYTHONPATH": PATH}
    command = [sys.executable, *launcher, __file__, *map(str, arguments)]
    subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], check=True, timeout=300)


@pytest.mark.skipif(not torch.distributed.is_available() or sys.platform == "win32", reason="needs gloo")
def test_two_processes_with_accumulation_and_chunks_learn_the_same_as_one(tmp_path):
    pytest.importorskip("accelerate")
    from test_loop import losses, write_base

    base = write_base(tmp_path / "base", dropout=0.0)  # each process draws its own
    finish(1, base, tmp_path / "one", json.dumps({"batch_size": 8}))
    finish(2, base, tmp_path / "two", json.dumps({"batch_size": 2, "accumulation": 2, "chunk_size": 2}))
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-4)


if __name__ == "__main__":
    main(*sys.argv[1:])
