"""Token pooling: by hand, then against scipy's own words for it, then through an index."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builders.encoders import WordEncoder
from hypothesis import given
from hypothesis import strategies as st

from colbert_core import Index, Passage, TokenEmbeddings
from colbert_core.vectors.pooling import pool_embeddings, pool_tokens


def unit(*rows):
    matrix = np.array(rows, np.float32)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def random_rows(n, dim=8, seed=0):
    return unit(*np.random.default_rng(seed).standard_normal((n, dim)))


NOTHING = np.zeros(4, bool)
PAIRS = unit([1, 0, 0], [0, 1, 0.1], [1, 0.2, 0], [0, 1, -0.1])  # rows 0 and 2 are alike, and rows 1 and 3


def test_two_pairs_become_their_means_in_the_order_of_their_first_members():
    pooled, stands_for = pool_tokens(PAIRS, NOTHING, 2)
    expected = unit(PAIRS[0] + PAIRS[2], PAIRS[1] + PAIRS[3])
    np.testing.assert_allclose(pooled, expected, atol=1e-6)
    assert pooled.dtype == np.float32
    assert stands_for.tolist()[0] in (0, 2)
    assert stands_for.tolist()[1] in (1, 3)


def test_a_mean_stands_for_its_nearest_member():
    rows = unit([1, 0], [1, 0.2], [1, 0.3])
    pooled, stands_for = pool_tokens(rows, np.zeros(3, bool), 3)
    np.testing.assert_allclose(pooled, unit(rows.sum(axis=0)), atol=1e-6)
    assert stands_for.tolist() == [1]


def test_protected_rows_stay_as_they_are_and_where_they_are():
    rows = np.concatenate([PAIRS[:1], PAIRS, PAIRS[3:]])
    protected = np.array([True, False, False, False, False, True])
    pooled, stands_for = pool_tokens(rows, protected, 2)
    assert len(pooled) == 4
    np.testing.assert_array_equal(pooled[[0, 3]], rows[[0, 5]])
    assert stands_for[[0, 3]].tolist() == [0, 5]


@pytest.mark.parametrize(
    ("n", "factor", "left"), [(6, 1.5, 4), (6, 2, 3), (7, 2, 3), (6, 5, 1), (6, 100, 1), (1, 2, 1), (0, 2, 0)]
)
def test_the_number_of_rows_is_divided_by_the_factor_but_one_stays(n, factor, left):
    pooled, stands_for = pool_tokens(random_rows(n) if n else np.empty((0, 8), np.float32), np.zeros(n, bool), factor)
    assert len(pooled) == len(stands_for) == left


def test_opposite_rows_have_no_mean_and_one_of_them_stays():
    pooled, stands_for = pool_tokens(unit([1, 0], [-1, 0]), np.zeros(2, bool), 2)
    np.testing.assert_array_equal(pooled, unit([1, 0], [-1, 0])[stands_for])


def test_rows_that_cancel_leave_one_of_them_and_never_a_nan():
    angles = np.arange(3) * 2 * np.pi / 3 + 0.3
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)  # float32 leaves a sum of 3e-8
    pooled, stands_for = pool_tokens(rows, np.zeros(3, bool), 3)
    np.testing.assert_array_equal(pooled, rows[stands_for])


def test_ties_may_leave_fewer_rows_than_the_factor_asks_for_and_never_more():
    rows = np.repeat(random_rows(5), 4, axis=0)
    pooled, stands_for = pool_tokens(rows, np.zeros(20, bool), 1.5)
    assert 5 <= len(pooled) <= 13
    np.testing.assert_allclose(pooled, rows[stands_for], atol=1e-6)


def test_equal_windows_give_equal_bits_wherever_they_lie_in_memory():
    rows = random_rows(201, dim=128)
    shifted = np.concatenate([random_rows(3, dim=128), rows])[3:]
    pooled, stands_for = pool_tokens(rows, np.zeros(201, bool), 2)
    again, stands_for_again = pool_tokens(shifted, np.zeros(201, bool), 2)
    np.testing.assert_array_equal(pooled, again)
    np.testing.assert_array_equal(stands_for, stands_for_again)


def test_equal_rows_become_one_of_them():
    pooled, _ = pool_tokens(unit(*[[1, 2, 3]] * 5), np.zeros(5, bool), 5)
    np.testing.assert_allclose(pooled, unit([1, 2, 3]), atol=1e-6)


@given(n=st.integers(2, 40), n_protected=st.integers(0, 5), factor=st.floats(1, 6), seed=st.integers(0, 1000))
def test_pooling_is_wards_linkage_over_cosine_distance(n, n_protected, factor, seed):
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    rows = random_rows(n + n_protected, seed=seed)
    protected = np.arange(len(rows)) < n_protected
    pooled, stands_for = pool_tokens(rows, protected, factor)
    np.testing.assert_allclose(np.linalg.norm(pooled, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(pooled[:n_protected], rows[:n_protected])
    assert len(pooled) <= n_protected + max(int(n // factor), 1)
    assert len(set(stands_for.tolist())) == len(stands_for)

    others = rows[n_protected:].astype(np.float64)
    n_clusters = max(int(n // factor), 1)
    if n_clusters == n:
        np.testing.assert_array_equal(pooled, rows)
        return
    distances = squareform(np.clip(1 - others @ others.T, 0, 2), checks=False)
    labels = fcluster(linkage(distances, "ward"), n_clusters, "maxclust")
    expected = unit(*[others[labels == label].mean(axis=0) for label in dict.fromkeys(labels.tolist())])
    np.testing.assert_allclose(pooled[n_protected:], expected, atol=1e-5)


def embeddings(rows, doclens, own=()):
    n = len(rows)
    starts = np.arange(n, dtype=np.int32) * 3
    spans = np.stack([starts, starts + 2], axis=1)
    spans[list(own), 1] = spans[list(own), 0]
    windows = np.array([[0, 3 * n]] * len(doclens), np.int32)
    return TokenEmbeddings(rows, spans, np.array(doclens, np.int32), windows, np.arange(len(doclens), dtype=np.int32))


def test_every_window_is_pooled_by_itself_and_the_models_own_tokens_stay():
    rows = np.concatenate([PAIRS[:1], PAIRS, PAIRS[3:], PAIRS])
    given_ = embeddings(rows, [6, 4], own=[0, 5])
    pooled = pool_embeddings(given_, 2).check(2, 3)
    assert pooled.doclens.tolist() == [4, 2]
    np.testing.assert_array_equal(pooled.vectors[[0, 3]], rows[[0, 5]])
    np.testing.assert_allclose(pooled.vectors[4:], pool_tokens(PAIRS, NOTHING, 2)[0], atol=0)
    stands_for = pool_tokens(PAIRS, NOTHING, 2)[1]
    expected = given_.token_spans[[0, *(stands_for + 1), 5, *(stands_for + 6)]]
    np.testing.assert_array_equal(pooled.token_spans, expected)
    np.testing.assert_array_equal(pooled.window_spans, given_.window_spans)
    np.testing.assert_array_equal(pooled.owners, given_.owners)


def test_so_many_first_vectors_can_be_protected_instead():
    pooled = pool_embeddings(embeddings(np.concatenate([PAIRS, PAIRS]), [8], own=[7]), 2, n_protected=4)
    assert pooled.doclens.tolist() == [6]
    np.testing.assert_array_equal(pooled.vectors[:4], PAIRS)
    np.testing.assert_array_equal(pooled.vectors[4:], pool_tokens(PAIRS, NOTHING, 2)[0])


def test_a_factor_of_one_changes_nothing_and_no_windows_are_no_windows():
    given_ = embeddings(PAIRS, [4])
    assert pool_embeddings(given_, 1) is given_
    empty = embeddings(np.empty((0, 3), np.float32), [])
    assert pool_embeddings(empty, 2).vectors.shape == (0, 3)


TEXTS = ["the cat sat on the mat", "a dog barks at a cat", "a bird sings a song to the dog", "cats"]


def test_an_index_holds_fewer_vectors_and_finds_as_many_passages(words):
    whole, pooled = Index.create(None, words), Index.create(None, words)
    passages = [Passage(str(number), text) for number, text in enumerate(TEXTS)]
    whole.add(passages)
    pooled.add(passages, pool_factor=2)
    assert pooled.stats().tokens <= whole.stats().tokens / 2 + len(TEXTS)
    assert len(pooled.search("cat", k=10)) == len(TEXTS)
    assert pooled.search("bird sings song", k=1)[0].passage.id == "2"


def test_pooled_and_whole_passages_live_in_one_index(words):
    index = Index.create(None, words)
    index.add([Passage("a", TEXTS[0])])
    index.add([Passage("b", TEXTS[1])], pool_factor=3)
    index.add([Passage("a", TEXTS[2])], pool_factor=2)  # replaces
    assert [hit.passage.id for hit in index.search("bird song", k=5)] == ["a", "b"]


def test_equal_passages_tie_when_pooled(stanford):
    index = Index.create(None, stanford)
    index.add([Passage(str(number), "the cat sat on a mat and purr") for number in range(5)], pool_factor=2)
    hits = index.search("cat purr", k=5)
    assert len({hit.score for hit in hits}) == 1
    assert [hit.passage.id for hit in hits] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("factor", "error", "message"),
    [
        (0.5, ValueError, "pool_factor must be at least 1 .* got 0.5"),
        (0, ValueError, "got 0"),
        (float("nan"), ValueError, "got nan"),
        (float("inf"), ValueError, "got inf"),
        (10**400, ValueError, "pool_factor must be at least 1"),
        ("2", TypeError, "pool_factor must be a number, got '2'"),
        (True, TypeError, "got True"),
        (None, TypeError, "got None"),
        (np.float32("nan"), ValueError, "got nan"),
        (np.bool_(True), TypeError, "got .*True"),
    ],
)
def test_a_factor_that_makes_no_sense_is_refused_before_anything_is_encoded(words, monkeypatch, factor, error, message):
    index = Index.create(None, words)
    monkeypatch.setattr(WordEncoder, "encode_passages", None)
    with pytest.raises(error, match=message):
        index.add([Passage("a", "cat")], pool_factor=factor)
    assert len(index) == 0


@pytest.mark.parametrize("factor", [2, 2.0, np.int64(2), np.float32(2)])
def test_a_factor_may_be_any_real_number(words, factor):
    index = Index.create(None, words)
    index.add([Passage("a", TEXTS[0])], pool_factor=factor)
    assert index.stats().tokens == 3


def test_pooling_leaves_what_it_was_given_alone():
    given_ = embeddings(PAIRS.copy(), [4])
    before = replace(given_, vectors=given_.vectors.copy(), token_spans=given_.token_spans.copy())
    pool_embeddings(given_, 2)
    np.testing.assert_array_equal(given_.vectors, before.vectors)
    np.testing.assert_array_equal(given_.token_spans, before.token_spans)
