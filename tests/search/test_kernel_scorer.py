"""Scoring with the compiled kernels."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from builders.grown import collection, found, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_core import Index, Passage
from colbert_core.index.compaction import compress
from colbert_core.search import kernel_scorer
from colbert_core.search.kernel_scorer import BoundedScorer, KernelScorer
from colbert_core.search.ranking import search
from colbert_core.vectors.codec import NBITS, ResidualCodec, pack
from colbert_core.vectors.segment import Segment


@pytest.mark.parametrize("k", [10, 100])
def test_equal_query_vectors_do_not_add_up_their_rounding_unnoticed(k):
    rng = np.random.default_rng(0)
    vectors = unit(rng.standard_normal((70_000, 128)))
    index = Index.create(None, dim=128)
    index.add([Passage(f"{i:05}", "x") for i in range(3500)], embeddings=list(vectors.reshape(3500, 20, 128)))
    queries = [np.tile(unit(rng.standard_normal((1, 128))), (32, 1)) for _ in range(8)]
    assert found(index, queries, k=k) == found(index, queries, k=k, exact=True)


@given(
    seed=st.integers(0, 10**6),
    dim=st.sampled_from([1, 3, 16, 48, 128]),
    n_q=st.integers(1, 40),
    nbits=st.sampled_from([None, *NBITS]),
    spread=st.sampled_from([0.01, 0.3, 3]),
)
@settings(max_examples=60, deadline=None)
def test_no_rough_score_is_wrong_by_more_than_the_bound(seed, dim, n_q, nbits, spread):
    rng = np.random.default_rng(seed)
    segment, codec = compressed(rng, dim, nbits, spread)
    query = unit(np.sign(rng.standard_normal((n_q, dim))) if seed % 2 else rng.standard_normal((n_q, dim)))
    scorer, windows = BoundedScorer([segment], codec, query), np.arange(len(segment.pids), dtype=np.int32)
    assert np.abs(scorer.roughly(0, windows) - scorer.exactly(0, windows)).max() <= scorer.margin / 2


def compressed(rng, dim, nbits, spread, n=300):
    """A segment of windows of one to nine tokens around 20 directions, and its codec."""
    doclens = rng.integers(1, 10, size=n).astype(np.int32)
    centres = unit(rng.standard_normal((20, dim)))
    vectors = unit(centres[rng.integers(20, size=doclens.sum())] + spread * rng.standard_normal((doclens.sum(), dim)))
    segment = Segment(np.arange(n), np.zeros((n, 2), np.int32), doclens, vectors=vectors)
    codec = None if nbits is None else ResidualCodec.fit(vectors, 20, nbits)
    return compress(segment, codec), codec


@given(seed=st.integers(0, 10**6), dim=st.sampled_from([3, 16, 48]), n_q=st.integers(1, 70), nbits=st.sampled_from(NBITS))
@settings(max_examples=40, deadline=None)
def test_tokens_that_are_passed_over_after_a_rough_score_change_no_score(seed, dim, n_q, nbits):
    rng = np.random.default_rng(seed)
    segment, codec = compressed(rng, dim, nbits, rng.choice([0.01, 0.3, 3]))
    query, windows = unit(rng.standard_normal((n_q, dim))), np.arange(len(segment.pids), dtype=np.int32)
    scorer = KernelScorer([segment], codec, query)
    everything = scorer.exactly(0, windows)
    scorer.roughly(0, windows)
    for some in (windows, windows[::7], windows[5:6]):
        np.testing.assert_array_equal(scorer.exactly(0, some), everything[some])


def test_what_the_bound_is_by_hand():
    # One component, so a centroid of 1 and levels of 0 fill their bytes: nothing is rounded but for float32 and 16 bits.
    codec = ResidualCodec(np.ones((1, 1), np.float32), np.zeros(2, np.float32))
    segment = Segment(np.arange(1), np.zeros((1, 2), np.int32), np.ones(1, np.int32), vectors=np.ones((1, 1), np.float32))
    assert BoundedScorer([compress(segment, codec)], codec, np.ones((3, 1), np.float32)).margin == pytest.approx(2 * 3 * 2e-4)


def test_a_length_that_16_bits_do_not_hold_leaves_no_bound():
    codec = ResidualCodec(np.array([[1, 0], [0, 1]], np.float32), np.array([-0.9, 0.9], np.float32))
    codes, residuals = np.zeros(2, np.uint16), pack(np.array([[0, 0], [1, 1]], np.uint8), 1)  # .1, -.9: of length .906
    windows = np.arange(2), np.zeros((2, 2), np.int32), np.ones(2, np.int32)
    lengths, query = codec.inverse_lengths(codes, residuals), np.eye(2, dtype=np.float32)
    assert BoundedScorer([Segment(*windows, codes=codes, residuals=residuals, lengths=lengths)], codec, query).margin < 1
    lengths[1] = 65_535
    assert (
        BoundedScorer([Segment(*windows, codes=codes, residuals=residuals, lengths=lengths)], codec, query).margin == math.inf
    )


@pytest.mark.parametrize("nbits", [None, 2])
def test_exact_search_is_scoring_everything(nbits):
    passages, vectors, queries = collection(6000, tokens=(8, 16))
    index = Index.create(None, dim=32, nbits=nbits)
    index.add(passages, embeddings=vectors)
    index.compact()
    parts, codec = (state := index._versions.read(lambda view: view.state)).snapshot.parts, state.snapshot.codec
    (segment,) = [part.segment for part in parts]
    every = np.arange(len(segment.pids), dtype=np.int32)
    for query in queries:
        scores = KernelScorer([segment], codec, query).exactly(0, every)
        for k in (1, 10, 100):
            best = np.lexsort((every, -scores))[:k]
            found = search(state.snapshot, query, k, sort_keys=list, exact=True)
            assert (found.pids, found.scores) == (segment.pids[best].tolist(), scores[best].tolist())


def test_a_query_of_very_many_vectors_is_scored_by_parts(monkeypatch):
    rng = np.random.default_rng(0)
    segment, codec = compressed(rng, 16, 4, 0.3)
    query, windows = unit(rng.standard_normal((150, 16))), np.arange(len(segment.pids), dtype=np.int32)
    whole = BoundedScorer([segment], codec, query)
    monkeypatch.setattr(kernel_scorer, "_LARGEST_PART", 64 * len(codec.centroids))
    parts = BoundedScorer([segment], codec, query)
    assert parts.margin == pytest.approx(whole.margin, rel=1e-5)
    for score in ("roughly", "exactly"):
        np.testing.assert_allclose(getattr(parts, score)(0, windows), getattr(whole, score)(0, windows), rtol=1e-5)


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
            PORTABLE, rows.rows, rows.scale, *where, query.bytes, query.scales, query.starts, np.empty((16, 32), np.int32), scores
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
