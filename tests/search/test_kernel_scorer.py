"""Scoring with the compiled kernels."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from builders.grown import found, unit

from colbert_core import Index, Passage


@pytest.mark.parametrize("k", [10, 100])
def test_equal_query_vectors_do_not_add_up_their_rounding_unnoticed(k):
    rng = np.random.default_rng(0)
    vectors = unit(rng.standard_normal((70_000, 128)))
    index = Index.create(None, dim=128)
    index.add([Passage(f"{i:05}", "x") for i in range(3500)], embeddings=list(vectors.reshape(3500, 20, 128)))
    queries = [np.tile(unit(rng.standard_normal((1, 128))), (32, 1)) for _ in range(8)]
    assert found(index, queries, k=k) == found(index, queries, k=k, exact=True)


def in_a_process(code, **environment):
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert run.returncode == 0, run.stderr[-2000:]


def test_a_child_forked_while_a_kernel_is_compiled_compiles_its_own():
    in_a_process(
        """
        import os, threading, time
        import numpy as np
        from numba.core.compiler_lock import global_compiler_lock
        from colbert_core.kernels import float_blocks, instruction_set, scoring

        def score():
            scores = np.empty(1, np.float32)
            arguments = np.eye(4, dtype=np.float32), np.array([0, 4]), np.zeros(1, np.int32)
            scoring.score_floats(instruction_set(), *arguments, float_blocks(np.eye(4, dtype=np.float32)), scores)
            assert scores[0] == 4

        def hold():
            with global_compiler_lock:
                held.set()
                time.sleep(0.5)

        held = threading.Event()
        threading.Thread(target=hold).start()
        held.wait()
        child = os.fork()
        if not child:
            score()
            os._exit(0)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            time.sleep(0.01)
        else:
            os.kill(child, 9)
        assert done and status == 0
        """
    )


@pytest.mark.parametrize("setting", [{"NUMBA_CPU_NAME": "generic"}, {"NUMBA_ENABLE_AVX": "0"}], ids=str)
def test_kernels_are_those_of_the_processor_that_numba_compiles_for(setting, tmp_path):
    in_a_process(
        """
        import numpy as np
        from colbert_core.kernels import PORTABLE, QueryBlocks, ByteRows, instruction_set, scoring

        assert instruction_set() == PORTABLE
        rows = ByteRows.of(np.eye(16, dtype=np.float32))
        query, scores = QueryBlocks.of(np.eye(16, dtype=np.float32), 16), np.empty(1, np.float32)
        where = np.array([0, 16]), np.zeros(1, np.int32)
        scoring.score_bytes(
            PORTABLE, rows.rows, rows.scale, *where, query.bytes, query.scales, query.starts, scores
        )
        assert abs(scores[0] - 16) < 1e-3
        """,
        NUMBA_CACHE_DIR=str(tmp_path),
        **setting,
    )


def test_a_user_without_a_home_searches_all_the_same():
    in_a_process(
        """
        from pathlib import Path
        from colbert_core.kernels import compiling

        def no_home():
            raise RuntimeError("Could not determine home directory.")

        Path.home = no_home
        assert [folder.name for folder in compiling._folders()] == ["__pycache__"]
        """,
        XDG_CACHE_HOME="",
        LOCALAPPDATA="",
        NUMBA_CACHE_DIR="",
    )
