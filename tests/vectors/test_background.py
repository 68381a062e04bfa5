"""The background of a collection: by hand first, then the same from centroids, from vectors and from reopened files."""

from __future__ import annotations

import numpy as np
import pytest

from colbert_core import DamagedIndexError, Index, Passage
from colbert_core.vectors import background
from colbert_core.vectors.background import Background, Moments
from colbert_core.vectors.codec import ResidualCodec
from colbert_core.vectors.inverted_lists import InvertedLists
from colbert_core.vectors.segment import Segment
from colbert_core.vectors.snapshot import Part, Snapshot

AXES = np.eye(2, dtype=np.float32)


def test_mean_and_covariance_are_those_of_the_vectors_where_they_are_many(monkeypatch):
    monkeypatch.setattr(background, "_TOKENS_OF_ASSUMPTION", 0)
    # Three of (1, 0) and one of (0, 1): mean (3/4, 1/4); E[x x] = 3/4, minus 9/16 is 3/16.
    found = Background.of_vectors(AXES[[0, 0, 0, 1]])
    assert found.mean == pytest.approx([0.75, 0.25])
    assert found.covariance == pytest.approx(np.array([[3, -3], [-3, 3]]) / 16)
    means, spreads = found.cosines(np.array([[1, 0], [0.6, 0.8]], np.float32))
    assert means == pytest.approx([0.75, 0.6 * 0.75 + 0.8 * 0.25])
    # Cosines of (0.6, 0.8) are 0.6 three times and 0.8 once: a variance of 3/16 of 0.2 squared.
    assert spreads == pytest.approx([np.sqrt(3) / 4, 0.2 * np.sqrt(3) / 4])


def test_few_tokens_count_as_little_as_they_are():
    # 200 tokens of the assumption that vectors point anywhere, and 4 of these: a share of 4 / 204.
    found, share = Background.of_vectors(AXES[[0, 0, 0, 0]]), 4 / 204
    assert found.mean == pytest.approx([share, 0])
    assert found.covariance == pytest.approx((1 - share) * np.eye(2) / 2)


def compressed(windows_of_centroid):
    """A snapshot of one segment whose two centroids have such lists."""
    lists = InvertedLists.build(
        np.concatenate([np.full(len(windows), code, np.uint16) for code, windows in enumerate(windows_of_centroid)]),
        np.ones(sum(map(len, windows_of_centroid)), np.int32),
    )
    n = sum(map(len, windows_of_centroid))
    codes = np.concatenate([np.full(len(windows), code, np.uint16) for code, windows in enumerate(windows_of_centroid)])
    segment = Segment(
        pids=np.arange(n),
        spans=np.zeros((n, 2), np.int32),
        doclens=np.ones(n, np.int32),
        codes=codes,
        residuals=np.zeros((n, 1), np.uint8),
        lengths=np.full(n, 32768, np.uint16),
        lists=lists,
    )
    return Snapshot((Part.whole(segment),), ResidualCodec(np.float32(0.8) * AXES, np.linspace(-0.1, 0.1, 4).astype(np.float32)))


def test_centroids_weigh_by_the_windows_near_them_and_what_they_are_short_of_goes_anywhere(monkeypatch):
    monkeypatch.setattr(background, "_TOKENS_OF_ASSUMPTION", 0)
    found = Background.of_moments(Moments.of_snapshot(compressed([[0, 1, 2], [3]])))
    # Centroids (0.8, 0) three times and (0, 0.8) once; 1 - 0.64 of the squared length is missing, half of it in each direction.
    assert found.mean == pytest.approx([0.6, 0.2])
    assert found.covariance == pytest.approx(np.array([[0.48 + 0.18 - 0.36, -0.12], [-0.12, 0.16 + 0.18 - 0.04]]))


def test_the_moments_of_parts_are_those_of_the_whole():
    whole = Moments.of_snapshot(compressed([[0, 1, 2], [3]]))
    parts = [Moments.of_snapshot(compressed(lists)) for lists in ([[0, 1], [2]], [[0], []])]
    assert (whole.n_tokens, whole.weight) == (4, 4.0)
    assert whole.first.tolist() == pytest.approx([2.4, 0.8])  # three times (0.8, 0) and once (0, 0.8)
    together = parts[0] + parts[1]
    assert (together.n_tokens, together.weight) == (4, 4.0)
    assert together.first.tolist() == whole.first.tolist()
    assert together.second.tolist() == whole.second.tolist()
    found, expected = Background.of_moments(together), Background.of_moments(whole)
    assert (found.mean.tolist(), found.covariance.tolist()) == (expected.mean.tolist(), expected.covariance.tolist())


def test_an_index_without_vectors_has_no_background(words):
    index = Index.create(None, words)
    assert index.background() is None
    index.add([Passage("a", "the cat")])
    assert index.background().mean.shape == (words.dim,)


def test_the_background_is_computed_once_for_each_generation(words, monkeypatch):
    index = Index.create(None, words)
    index.add([Passage("a", "the cat")])
    first = index.background()
    assert index.background() is first
    index.add([Passage("b", "the dog barks")])
    assert index.background() is not first


@pytest.mark.parametrize("nbits", [2, 4])
def test_a_compressed_index_has_nearly_the_background_of_its_vectors(stanford, nbits):
    passages = [Passage(str(number), f"the cat sat on a mat and dogs bark {number}") for number in range(300)]
    plain, small = Index.create(None, stanford, nbits=None), Index.create(None, stanford, nbits=nbits)
    for index in (plain, small):
        index.add(passages)
        index.compact()
    assert small.stats().centroids
    queries = stanford.encode_queries(["what sound does a cat make"])[0]
    for exact, near in zip(plain.background().cosines(queries), small.background().cosines(queries), strict=True):
        assert near == pytest.approx(exact, abs=0.08)


def test_a_sample_is_bounded_and_spread_over_all_segments(words, monkeypatch):
    monkeypatch.setattr(background, "_MOST_SAMPLED", 8)
    index = Index.create(None, words)
    index.add([Passage(str(number), "the cat sat on a mat") for number in range(40)])
    seen = []
    made = Moments.of_vectors
    monkeypatch.setattr(
        Moments, "of_vectors", classmethod(lambda cls, vectors, *rest: seen.append(len(vectors)) or made(vectors, *rest))
    )
    index.background()
    assert 0 < seen[0] <= 9


def test_a_list_of_no_centroid_is_named_as_damage():
    snapshot = compressed([[0, 1, 2], [3]])
    short = Snapshot(snapshot.parts, ResidualCodec(snapshot.codec.centroids[:1], snapshot.codec.levels))
    with pytest.raises(IndexError, match="a code is 1, but there are 1 centroids"):
        Moments.of_snapshot(short)
    lists = snapshot.parts[0].segment.lists
    lists.offsets[1] = 9
    with pytest.raises(IndexError, match="the lists do not fit together"):
        Moments.of_snapshot(snapshot)
    assert issubclass(DamagedIndexError, Exception)
