"""Scores by PyTorch: by hand, against the definition, and as a search uses them. On the CPU, and on a GPU where there is one."""

from __future__ import annotations

import dataclasses
import gc
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from builders.vectors import clustered, unit
from hypothesis import given
from hypothesis import strategies as st

from colbert_core import maxsim
from colbert_core.search import torch_scorer as gpu
from colbert_core.search.kernel_scorer import KernelScorer
from colbert_core.search.ranking import _all_windows, _rank
from colbert_core.search.torch_scorer import TorchScorer
from colbert_core.vectors.codec import NBITS, ResidualCodec, pack
from colbert_core.vectors.segment import Segment
from colbert_core.vectors.snapshot import Part

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU"))


def segment_of(vectors, doclens, codec=None, rows=None, code_type=None):
    rows = np.arange(len(doclens)) if rows is None else rows
    windows = (rows.astype(np.int64), np.zeros((len(doclens), 2), np.int32), np.asarray(doclens, np.int32))
    if codec is None:
        return Segment(*windows, vectors=vectors)
    codes, residuals = codec.compress(vectors)
    lengths = codec.inverse_lengths(codes, residuals)
    return Segment(*windows, codes=codes.astype(code_type or codes.dtype), residuals=residuals, lengths=lengths)


def collection(nbits, n=400, dim=32, seed=0):
    """Two segments of passages with one to three windows of one to sixty tokens, and a query like some of them."""
    rng = np.random.default_rng(seed)
    doclens = rng.integers(1, 60, size=n)
    vectors = clustered(rng, int(doclens.sum()), dim, n_clusters=100)
    codec = None if nbits is None else ResidualCodec.fit(vectors, 64, nbits)
    rows = np.sort(rng.integers(n // 2, size=n))
    cut, start = n // 3, int(doclens[: n // 3].sum())
    segments = [
        segment_of(vectors[:start], doclens[:cut], codec, rows[:cut]),
        segment_of(vectors[start:], doclens[cut:], codec, rows[cut:] + n),
    ]
    query = vectors[rng.integers(len(vectors), size=9)] + np.float32(0.3) * unit(rng, 9, dim)
    return segments, codec, query / np.linalg.norm(query, axis=1, keepdims=True)


def defined(segment, codec, query, windows):
    """The definition over the vectors that codes and residuals stand for."""
    vectors = segment.vectors_of(segment.tokens_of(windows), codec)
    return maxsim(query, vectors, segment.doclens[windows]) if len(windows) else np.empty(0, np.float32)


@pytest.fixture
def in_half(monkeypatch):
    """The CPU multiplies in float16, as a GPU does."""
    monkeypatch.setattr(gpu, "_HALVED", {"cuda", "cpu"})


# By hand


def test_vectors_by_hand():
    vectors = np.array([[1, 0], [0.6, 0.8], [-1, 0], [0, -1]], np.float32)
    scorer = TorchScorer([segment_of(vectors, [2, 1, 1])], None, np.eye(2, dtype=np.float32), "cpu")
    scores = scorer.roughly(0, np.arange(3, dtype=np.int32))
    assert (scores.dtype, scores.tolist()) == (np.float32, pytest.approx([1.8, -1, -1]))
    assert scorer.roughly(0, np.array([1], np.int32)).tolist() == [-1]
    assert scorer.exactly(0, np.array([0, 2], np.int32)).tolist() == pytest.approx([1.8, -1])


def test_codes_and_residuals_by_hand():
    codec = ResidualCodec(np.array([[1, 0, 0], [0, 1, 0]], np.float32), np.array([-1, 0, 0.75, 1], np.float32))
    numbers = np.array([[1, 2, 1], [1, 1, 1], [0, 1, 0]], np.uint8)  # 0 .75 0, 0 0 0, -1 0 -1
    codes, residuals = np.array([0, 1, 0], np.uint16), pack(numbers, 2)  # 1 .75 0, 0 1 0, 0 0 -1
    assert residuals.shape == (3, 1)  # the fourth number of each byte is no component
    segment = Segment(
        np.arange(2),
        np.zeros((2, 2), np.int32),
        np.array([2, 1], np.int32),
        codes=codes,
        residuals=residuals,
        lengths=codec.inverse_lengths(codes, residuals),
    )
    query = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    scorer = TorchScorer([segment], codec, query, "cpu")
    both = np.arange(2, dtype=np.int32)
    assert scorer.roughly(0, both).tolist() == pytest.approx([0.8 + 1 + 0, 0 + 0 - 1])
    assert scorer.exactly(0, both).tolist() == pytest.approx([1.8, -1])


def test_floats_keep_their_order_as_integers():
    floats = torch.tensor([-np.inf, -2.0, -1.0, -1e-30, -0.0, 0.0, 1e-30, 0.5, 1.0, np.inf])
    ordered = gpu._as_ordered(floats)
    assert ordered.tolist() == sorted(ordered.tolist())
    assert torch.equal(gpu._as_ordered(ordered).view(torch.float32), floats)


def test_a_residual_that_cancels_its_centroid_leaves_a_vector_of_zeros():
    codec = ResidualCodec(np.array([[0.5, 0.5]], np.float32), np.array([-0.5, 0.5], np.float32))
    codes, residuals = np.zeros(2, np.uint16), pack(np.array([[0, 0], [1, 1]], np.uint8), 1)
    windows = (np.arange(2), np.zeros((2, 2), np.int32), np.ones(2, np.int32))
    segment = Segment(*windows, codes=codes, residuals=residuals, lengths=codec.inverse_lengths(codes, residuals))
    query = np.array([[0.6, 0.8]], np.float32)
    scorer = TorchScorer([segment], codec, query, "cpu")
    assert scorer.roughly(0, np.arange(2, dtype=np.int32)).tolist() == pytest.approx([0, 1.4 / np.sqrt(2)])


# Against the definition


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("nbits", [None, *NBITS])
def test_scores_are_those_of_the_definition(nbits, device):
    segments, codec, query = collection(nbits)
    scorer = TorchScorer(segments, codec, query, device)
    tolerance = 1e-4 if nbits is None and device == "cpu" else 2e-3 * np.sqrt(len(query))
    for number, segment in enumerate(segments):
        for windows in (np.arange(len(segment.pids), dtype=np.int32), np.arange(3, len(segment.pids), 7, dtype=np.int32)):
            scores = scorer.roughly(number, windows)
            assert (scores.dtype, scores.shape) == (np.float32, windows.shape)
            assert np.abs(scores - defined(segment, codec, query, windows)).max() <= tolerance


shapes = given(
    nbits=st.sampled_from([None, *NBITS]),
    dim=st.integers(1, 40),
    n_q=st.integers(1, 70),
    n=st.integers(1, 12),
    share=st.sampled_from([0, 0.3, 0.7, 1]),
    code_type=st.sampled_from([np.uint16, np.uint32]),
    seed=st.integers(0, 999),
)


def check_any_shape(nbits, dim, n_q, n, share, code_type, seed):
    rng = np.random.default_rng(seed)
    doclens = rng.integers(1, 9, size=n)
    vectors, query = (unit(rng, int(some), dim) for some in (doclens.sum(), n_q))
    codec = None
    if nbits is not None:
        centroids = unit(rng, 3, dim).astype(np.float16).astype(np.float32)
        codec = ResidualCodec(centroids, np.sort(rng.standard_normal(2**nbits) / np.sqrt(dim)).astype(np.float32))
    segment = segment_of(vectors, doclens, codec, code_type=code_type)
    windows = np.flatnonzero(rng.random(n) < share).astype(np.int32)
    scorer = TorchScorer([segment], codec, query, "cpu")
    scores = scorer.roughly(0, windows)
    assert (scores.dtype, scores.shape) == (np.float32, windows.shape)
    for other in (scorer.exactly(0, windows), defined(segment, codec, query, windows)):
        assert np.abs(scores - other).max(initial=0) <= scorer.margin / 2


@shapes
def test_windows_of_any_shape_score_within_half_the_margin(**shape):
    check_any_shape(**shape)


@shapes
def test_float16_keeps_within_half_its_margin(**shape):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "_HALVED", {"cpu"})
        check_any_shape(**shape)


@pytest.mark.parametrize("nbits", [None, 4])
def test_float16_has_a_margin_that_leaves_few_windows(nbits, in_half):
    segments, codec, query = collection(nbits)
    scorer = TorchScorer(segments, codec, query, "cpu")
    assert scorer._query.dtype == torch.float16
    assert 1e-3 * len(query) < scorer.margin < 5e-3 * len(query)


def test_a_segment_without_windows_has_no_scores():
    empty = segment_of(np.empty((0, 4), np.float32), np.empty(0, np.int32))
    scorer = TorchScorer([empty], None, np.eye(4, dtype=np.float32), "cpu")
    assert scorer.roughly(0, np.empty(0, np.int32)).shape == (0,)
    assert TorchScorer([], None, np.eye(4, dtype=np.float32), "cpu").margin < 1e-4


@pytest.mark.parametrize("nbits", [None, 2])
@pytest.mark.parametrize("most", [1, 7, 100])
def test_pieces_score_like_the_whole(nbits, most, monkeypatch):
    segments, codec, query = collection(nbits, n=60)
    some = [np.arange(0, len(segment.pids), step, dtype=np.int32) for segment, step in zip(segments, (1, 3), strict=True)]
    whole = TorchScorer(segments, codec, query, "cpu")
    expected = [whole.roughly(number, windows) for number, windows in enumerate(some)]
    monkeypatch.setattr(gpu, "_TOKENS_AT_A_TIME", most)
    again, codec, _ = collection(nbits, n=60)  # equal segments, which are moved in pieces as well
    pieces = TorchScorer(again, codec, query, "cpu")
    assert pieces.margin == pytest.approx(whole.margin)
    for number, windows in enumerate(some):
        assert pieces.roughly(number, windows) == pytest.approx(expected[number], abs=1e-5)


def test_longer_queries_take_fewer_tokens_at_a_time(monkeypatch):
    monkeypatch.setattr(gpu, "_TOKENS_AT_A_TIME", 64)
    doclens = np.full(8, 16, np.int32)
    assert [len(list(gpu._pieces(doclens, n_q))) for n_q in (1, 32, 64, 10_000)] == [2, 2, 4, 8]


# Ranking


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("nbits", [None, 1, 4])
@pytest.mark.parametrize("k", [1, 10, 1000])
def test_ranking_is_that_of_scoring_everything_exactly(nbits, k, device):
    check_ranking(nbits, k, device)


@pytest.mark.parametrize("nbits", [None, 1, 4])
def test_ranking_in_float16_is_that_of_scoring_everything_exactly(nbits, in_half):
    check_ranking(nbits, 10, "cpu")


def check_ranking(nbits, k, device):
    segments, codec, query = collection(nbits)
    live = np.random.default_rng(1).random(len(segments[1].pids)) < 0.3
    parts = [Part(segments[0], np.ones(len(segments[0].pids), np.bool_)), Part(segments[1], live)]
    windows = _all_windows(parts, None)
    everything = KernelScorer(segments, codec, query)
    everything.margin = math.inf
    found, expected = (
        _rank(parts, scorer, windows, k, lambda rows: rows)
        for scorer in (TorchScorer(segments, codec, query, device), everything)
    )
    assert found == expected
    assert len(found.pids) == min(k, sum(part.n_passages for part in parts))


# Devices


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "meta"])
def test_a_device_that_is_not_there_or_cannot_search_is_refused(device):
    with pytest.raises(ValueError, match=f"device='{device}' is .*'(cpu|cuda|mps)'"):
        TorchScorer([], None, np.eye(4, dtype=np.float32), device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU")
def test_cuda_is_refused_where_there_is_none():
    with pytest.raises(ValueError, match=r"device='cuda' is not to be had \(.*; the best one present is"):
        TorchScorer([], None, np.eye(4, dtype=np.float32), "cuda")


def test_a_code_that_is_no_centroid_s_is_refused_before_it_reaches_the_device():
    segments, codec, query = collection(4, n=9)
    damaged = dataclasses.replace(segments[0], codes=segments[0].codes + np.uint16(64))
    with pytest.raises(IndexError, match="but there are 64 centroids"):
        TorchScorer([damaged], codec, query, "cpu")


def test_a_segment_is_moved_once_whoever_asks_and_let_go_with_the_segment(monkeypatch):
    segments, codec, query = collection(4, n=30)
    moved = []
    move = gpu._move_codes

    def counted(*arguments):
        moved.append(arguments[0])
        return move(*arguments)

    monkeypatch.setattr(gpu, "_move_codes", counted)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: TorchScorer(segments, codec, query, "cpu"), range(8)))
    assert moved == segments
    held = len(gpu._segments._held)
    assert segments[0] in gpu._segments._held
    segments.clear()
    moved.clear()
    gc.collect()
    assert len(gpu._segments._held) == held - 2
