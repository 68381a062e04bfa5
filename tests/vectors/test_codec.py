"""Centroids and residuals: by hand, then against the definition."""

from __future__ import annotations

import numpy as np
import pytest
from builders.vectors import clustered, unit
from hypothesis import given
from hypothesis import strategies as st

from colbert_core.vectors.codec import NBITS, ResidualCodec, count_centroids, lloyd_max, pack, row_bytes, sample_size

# Packing


def test_packing_by_hand():
    numbers = np.array([[1, 2, 3, 0, 1]], np.uint8)  # two bits each: two bytes, byte j holds j, j + 2, j + 4
    assert pack(numbers, 2).tolist() == [[1 | 3 << 2 | 1 << 4, 2 | 0 << 2]]
    assert pack(np.array([[1, 0, 1]], np.uint8), 1).tolist() == [[0b101]]
    assert pack(np.array([[15, 1, 2]], np.uint8), 4).tolist() == [[15 | 2 << 4, 1]]
    assert pack(np.array([[200, 7]], np.uint8), 8).tolist() == [[200, 7]]


def test_rows_are_padded_to_whole_bytes():
    assert [row_bytes(48, nbits) for nbits in NBITS] == [6, 12, 24, 48]
    assert [row_bytes(7, nbits) for nbits in NBITS] == [1, 2, 4, 7]


@given(dim=st.integers(1, 70), nbits=st.sampled_from(NBITS), n=st.integers(0, 5), seed=st.integers(0, 99))
def test_decompressing_gives_the_level_of_every_number(dim, nbits, n, seed):
    rng = np.random.default_rng(seed)
    levels = np.sort(rng.standard_normal(2**nbits)).astype(np.float32)
    codec = ResidualCodec(unit(rng, 3, dim), levels)
    numbers = rng.integers(2**nbits, size=(n, dim), dtype=np.uint8)
    codes = rng.integers(3, size=n).astype(np.uint16)
    expected = codec.centroids[codes] + levels[numbers]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert codec.decompress(codes, pack(numbers, nbits)) == pytest.approx(expected, abs=1e-5)


# Levels


def test_levels_of_separate_heaps_are_their_means():
    values = np.array([-1.1, -0.9, 0.0, 0.2, 2.0, 2.2, 5.0], np.float32)
    assert lloyd_max(values, 4) == pytest.approx([-1.0, 0.1, 2.1, 5.0])


def test_levels_of_equal_values_are_that_value():
    assert lloyd_max(np.full(9, 0.5, np.float32), 4) == pytest.approx(np.full(4, 0.5))


@pytest.mark.parametrize(("nbits", "published"), [(1, 0.3634), (2, 0.1175), (4, 0.009497)])
def test_levels_have_the_error_that_max_published_for_the_normal_distribution(nbits, published):
    """Max, "Quantizing for minimum distortion" (1960), table I: mean squared error for 2, 4 and 16 levels."""
    values = np.random.default_rng(0).standard_normal(400_000).astype(np.float32)
    levels = lloyd_max(values, 2**nbits)
    cuts = (levels[1:] + levels[:-1]) / 2
    error = float(np.mean((values - levels[np.searchsorted(cuts, values)]) ** 2))
    assert error == pytest.approx(published, rel=0.03)


@pytest.mark.parametrize("nbits", NBITS)
def test_levels_lose_less_than_quantiles(nbits):
    values = np.random.default_rng(1).laplace(size=50_000).astype(np.float32)

    def error(levels):
        return np.mean((values - levels[np.abs(values[:, None] - levels[None]).argmin(axis=1)]) ** 2)

    quantiles = np.quantile(values, (np.arange(2**nbits) + 0.5) / 2**nbits)
    assert error(lloyd_max(values, 2**nbits)) < error(quantiles)


# The codec


@pytest.mark.parametrize("dim", [1, 7, 48, 96, 128])
@pytest.mark.parametrize("nbits", NBITS)
def test_more_bits_are_nearer_at_any_dim(dim, nbits):
    vectors = clustered(np.random.default_rng(dim), 2000, dim)
    codec = ResidualCodec.fit(vectors, 64, nbits)
    codes, residuals = codec.compress(vectors)
    assert (codes.shape, codes.dtype) == ((2000,), np.uint16)
    assert (residuals.shape, residuals.dtype) == ((2000, row_bytes(dim, nbits)), np.uint8)
    decoded = codec.decompress(codes, residuals)
    assert np.linalg.norm(decoded, axis=1) == pytest.approx(np.ones(2000), abs=1e-5)
    cosines = np.einsum("nd,nd->n", decoded, vectors)
    assert cosines.mean() > {1: 0.975, 2: 0.99, 4: 0.999, 8: 0.9999}[nbits]


@pytest.mark.parametrize("dim", [7, 48, 128])
@pytest.mark.parametrize("nbits", [1, 2, 4])
def test_directions_are_kept_better_than_by_rounding_each_component_of_the_unit_vector(dim, nbits):
    vectors = clustered(np.random.default_rng(dim), 2000, dim)
    codec = ResidualCodec.fit(vectors, 64, nbits)
    codes, residuals = codec.compress(vectors)
    rests = vectors - codec.centroids[codes]
    plain = pack(np.searchsorted((codec.levels[1:] + codec.levels[:-1]) / 2, rests).astype(np.uint8), nbits)
    errors = [1 - np.einsum("nd,nd->n", codec.decompress(codes, each), vectors) for each in (residuals, plain)]
    assert (errors[0] <= errors[1] + 1e-6).all()
    assert errors[0].mean() < {1: 0.99, 2: 0.98, 4: 0.95}[nbits] * errors[1].mean()


def test_the_code_is_the_nearest_centroid():
    rng = np.random.default_rng(0)
    codec = ResidualCodec(unit(rng, 50, 8), np.array([-0.1, 0.1], np.float32))
    vectors = unit(rng, 300, 8)
    codes, _ = codec.compress(vectors)
    assert codes.tolist() == np.argmax(vectors @ codec.centroids.T, axis=1).tolist()


@pytest.mark.parametrize(("nbits", "least"), [(1, 0.3), (2, 0.75), (4, 0.95), (8, 0.99)])
@pytest.mark.parametrize("dim", [8, 48, 128])
def test_a_codec_of_vectors_that_are_all_alike_can_tell_others_that_come_later(nbits, least, dim):
    rng = np.random.default_rng(dim)
    alike, *others = rng.normal(size=(201, dim)).astype(np.float32)
    alike, others = alike / np.linalg.norm(alike), np.stack(others) / np.linalg.norm(others, axis=1, keepdims=True)
    codec = ResidualCodec.fit(np.tile(alike, (100, 1)), 1, nbits)
    assert np.einsum("nd,nd->n", codec.decompress(*codec.compress(others)), others).mean() > least
    (back,) = codec.decompress(*codec.compress(alike[None]))
    assert back @ alike > max(least, 0.8)


def test_the_same_sample_gives_the_same_codec_and_the_same_bytes():
    vectors = clustered(np.random.default_rng(3), 3000, 16)
    first, second = (ResidualCodec.fit(vectors, 64, 4) for _ in range(2))
    assert first.to_arrays()["centroids"].tobytes() == second.to_arrays()["centroids"].tobytes()
    assert first.levels.tobytes() == second.levels.tobytes()
    for one, other in zip(first.compress(vectors), second.compress(vectors), strict=True):
        assert one.tobytes() == other.tobytes()


def test_a_codec_is_kept_without_loss():
    codec = ResidualCodec.fit(clustered(np.random.default_rng(4), 500, 12), 16, 2)
    again = ResidualCodec.from_arrays(codec.to_arrays())
    assert again.centroids.tobytes() == codec.centroids.tobytes()
    assert (again.dim, again.nbits) == (12, 2)


def test_an_extended_codec_decodes_what_was_compressed_before_as_it_did():
    rng = np.random.default_rng(6)
    before, after = clustered(rng, 400, 12), clustered(rng, 900, 12)
    codec = ResidualCodec.fit(before, 8, 4)
    codes, residuals = codec.compress(before)
    more = codec.extended(after, 64)
    assert (more.layers, len(more.centroids)) == ((0, 8), 72)
    assert ResidualCodec.from_arrays(more.to_arrays()).layers == (0, 8)
    assert more.decompress(codes, residuals).tobytes() == codec.decompress(codes, residuals).tobytes()
    cosines = [np.einsum("nd,nd->n", each.decompress(*each.compress(after)), after).mean() for each in (codec, more)]
    assert cosines[1] > cosines[0]


def test_centroid_and_residual_that_cancel_out_leave_zeros_and_no_nan():
    codec = ResidualCodec(np.array([[0.5, -0.5]], np.float32), np.array([-0.5, 0.5], np.float32))
    assert codec.decompress(np.zeros(1, np.uint16), pack(np.array([[0, 1]], np.uint8), 1)).tolist() == [[0, 0]]


def test_shifts_by_hand():
    codec = ResidualCodec(np.array([[1, 0], [0, 1]], np.float32), np.array([0, 0.75], np.float32))
    codes, numbers = np.array([0, 1, 0], np.uint16), np.array([[0, 0], [1, 0], [0, 1]], np.uint8)
    # The vectors are (1, 0), (.6, .8) and (.8, .6); less their centroids (0, 0), (.6, -.2) and (-.2, .6).
    shifts = codec.shifts(codes, pack(numbers, 1), np.array([1, 2], np.int32))
    assert shifts.tolist() == [[128, 128], [128 + round(0.2 * 256), 128 + round(0.2 * 256)]]


def test_a_shift_beyond_what_a_byte_holds_is_the_largest():
    codec = ResidualCodec(np.array([[1]], np.float32), np.array([-2, 2], np.float32))
    shifts = codec.shifts(np.zeros(1, np.uint16), pack(np.zeros((1, 1), np.uint8), 1), np.ones(1, np.int32))
    assert shifts.tolist() == [[1]]  # from 1 to -1 are -512 steps


def test_shifts_of_many_windows_are_those_of_each():
    vectors, doclens = unit(np.random.default_rng(0), 3000, 24), np.resize([1, 3], 1500).astype(np.int32)
    codec = ResidualCodec.fit(vectors, 16, 4)
    codes, residuals = codec.compress(vectors)
    rests = codec.decompress(codes, residuals) - codec.centroids[codes]
    means = [part.mean(axis=0) for part in np.split(rests, np.cumsum(doclens)[:-1])]
    np.testing.assert_allclose(
        codec.shifts(codes, residuals, doclens), np.clip(np.array(means) * 256 + 128, 1, 255), atol=0.5001
    )


def test_more_than_65536_centroids_take_wider_codes():
    centroids = np.zeros((2**16 + 1, 2), np.float32)
    centroids[:, 0] = 1
    centroids[-1] = [0, 1]
    codec = ResidualCodec(centroids, np.array([-0.1, 0.1], np.float32))
    codes, _ = codec.compress(np.array([[0, 1]], np.float32))
    assert (codes.dtype, codes.tolist()) == (np.uint32, [2**16])


@pytest.mark.parametrize(
    "change",
    [
        {"centroids": None},
        {"levels": None},
        {"levels": np.zeros(3, np.float32)},
        {"levels": np.full(4, np.nan, np.float32)},
        {"centroids": np.full((2, 3), np.inf, np.float16)},
        {"centroids": np.zeros(3, np.float16)},
        {"centroids": np.zeros((0, 3), np.float16)},
        {"layers": np.array([1], np.int32)},
        {"layers": np.array([0, 2], np.int32)},
        {"layers": np.array([0, 0], np.int32)},
        {"layers": np.array([], np.int32)},
    ],
    ids=str,
)
def test_arrays_of_no_codec_are_refused(change):
    arrays = {"centroids": np.ones((2, 3), np.float16), "levels": np.zeros(4, np.float32)} | change
    with pytest.raises(ValueError, match=r"codec|levels|centroid|layers"):
        ResidualCodec.from_arrays({name: array for name, array in arrays.items() if array is not None})


def test_how_many_centroids_there_are():
    assert [count_centroids(n) for n in (1, 3, 8, 100, 2**17, 2**20, 2 * 10**6, 10**9)] == [
        1,
        1,
        2,
        16,
        2048,
        8192,
        8192,
        2**16,
    ]
    assert sample_size(2048) == 65_536
