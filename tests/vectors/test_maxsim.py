"""The score: first by hand, then against the formula written out."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbert_core import maxsim
from colbert_core.vectors.maxsim import unit_vectors


def f32(rows):
    return np.array(rows, np.float32)


def test_each_query_vector_takes_its_best_passage_vector_and_the_bests_are_summed():
    query = f32([[1, 0], [0, 1]])
    vectors = f32([[1, 0], [0.6, 0.8], [-1, 0]])
    # window 0: max(1, .6) + max(0, .8) = 1.8; window 1: -1 + 0
    np.testing.assert_allclose(maxsim(query, vectors, np.array([2, 1])), [1.8, -1.0], atol=1e-6)


def test_negative_similarities_stay_negative_beside_longer_windows():
    # Padding the second window with zeros would make its score 0.
    scores = maxsim(f32([[1, 0]]), f32([[0, 1], [0, -1], [-0.6, 0.8]]), np.array([2, 1]))
    np.testing.assert_allclose(scores, [0, -0.6], atol=1e-6)


def test_no_windows_have_no_scores():
    assert maxsim(f32([[1, 0]]), np.empty((0, 2), np.float32), np.empty(0, np.int32)).shape == (0,)


@given(
    doclens=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    n_q=st.integers(1, 7),
    dim=st.integers(1, 9),
    rows_at_a_time=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_packed_and_chunked_scoring_equals_the_formula(doclens, n_q, dim, rows_at_a_time, seed):
    rng = np.random.default_rng(seed)
    query = rng.standard_normal((n_q, dim)).astype(np.float32)
    vectors = rng.standard_normal((sum(doclens), dim)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["colbert_core.vectors.maxsim"], "_ROWS_AT_A_TIME", rows_at_a_time)
        scores = maxsim(query, vectors, np.array(doclens))
    expected, start = [], 0
    for length in doclens:
        window = vectors[start : start + length].astype(np.float64)
        expected.append(sum(max(float(q @ d) for d in window) for q in query.astype(np.float64)))
        start += length
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("query", "vectors", "doclens", "message"),
    [
        (np.ones((1, 3)), np.ones((2, 2)), [2], r"of one dim, got shapes \(1, 3\) and \(2, 2\)"),
        (np.ones(2), np.ones((2, 2)), [2], "must be matrices"),
        (np.ones((1, 2)), np.ones((2, 2)), [1], "add up to the 2 vectors, but add up to 1"),
        (np.ones((1, 2)), np.ones((2, 2)), [2, 0], "Window 1 has 0 vectors"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(query, vectors, doclens, message):
    with pytest.raises(ValueError, match=message):
        maxsim(query.astype(np.float32), vectors.astype(np.float32), np.array(doclens))


@given(
    rows=st.lists(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=3, max_size=3), min_size=1, max_size=5),
)
def test_vectors_from_outside_get_length_one_or_are_refused(rows):
    matrix = f32(rows)
    if (matrix == 0).all(axis=1).any():
        with pytest.raises(ValueError, match=r"Query 0 has only zeros in row"):
            unit_vectors(matrix, 3, "Query 0")
    else:
        unit = unit_vectors(matrix, 3, "Query 0")
        assert unit.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0, 2.0]], r"shape \(n, 3\) with n >= 1, got \(1, 2\)"),
        ([1.0, 2.0, 3.0], r"got \(3,\)"),
        (np.empty((0, 3)), r"got \(0, 3\)"),
        ([[1, 0, 0], [0, float("nan"), 0]], "NaN or infinite component in row 1"),
        ([[1, 0, float("inf")]], "NaN or infinite component in row 0"),
    ],
)
def test_vectors_of_a_wrong_kind_are_refused_by_name(values, message):
    with pytest.raises(ValueError, match="Query 7 .*" + message):
        unit_vectors(values, 3, "Query 7")
