"""A run of two processes learns what one with batches twice as large does."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from builders.processes import environment
from builders.training import command, losses, write_base

pytest.importorskip("accelerate")


def finish(n_processes, base, out, **settings):
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n_processes}"] if n_processes > 1 else []
    arguments = command(base, out, preset="colbertv1", steps=6, **settings)
    subprocess.run(
        [sys.executable, *launcher, *arguments],
        env=environment(OMP_NUM_THREADS="1", ACCELERATE_USE_CPU="1"),
        check=True,
        timeout=250,
    )


@pytest.mark.slow  # two processes that train
@pytest.mark.skipif(not torch.distributed.is_available() or sys.platform == "win32", reason="needs gloo")
def test_two_processes_with_accumulation_and_chunks_learn_the_same_as_one(tmp_path):
    base = write_base(tmp_path / "base", dropout=0.0)  # each process draws its own
    finish(1, base, tmp_path / "one", batch_size=8)
    finish(2, base, tmp_path / "two", batch_size=2, accumulation=2, chunk_size=2)
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-4)
