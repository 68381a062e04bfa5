"""What the kernels read, and indexes that use them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from builders.kernels import (
    floats,
    query_blocks,
    run_python,
    unit_rows,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_core import Index, Passage, kernels, maxsim
from colbert_core.kernels import BLOCK, ByteRows, QueryBlocks, float_blocks, plain


def test_a_query_as_bytes_by_hand():
    blocks = QueryBlocks.of(floats([1, -0.5, 0], [0, 0, 0], [0, 0, -2]), 16)
    assert blocks.bytes.shape == (1, 4, BLOCK, 4)
    assert blocks.bytes[0, 0, :3].tolist() == [[127, -64, 0, 0], [0, 0, 0, 0], [0, 0, -127, 0]]
    assert not blocks.bytes[0, 1:].any() and not blocks.bytes[0, :, 3:].any()
    assert blocks.scales[0, [0, 2, 3]] == pytest.approx([1 / 127, 2 / 127, 0])
    assert blocks.starts[0, :4].tolist() == [-128 * 63, 0, 128 * 127, 0]


def test_rows_as_bytes_by_hand():
    rows = ByteRows.of(floats([1, -0.5], [-1, 0.1]), multiple=4)
    assert rows.scale == pytest.approx(1 / 127)
    assert rows.rows.shape == (4, 16)
    assert rows.rows[:, :3].tolist() == [[255, 64, 128], [1, 141, 128], [1, 141, 128], [1, 141, 128]]
    assert (ByteRows.of(np.zeros((2, 3), np.float32)).rows == 128).all()


@given(
    n=st.integers(1, 9),
    dim=st.integers(1, 70),
    n_q=st.integers(1, 70),
    multiple=st.sampled_from([1, 4]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_what_kernels_read_is_made_by_the_definitions(n, dim, n_q, multiple, seed):
    rng = np.random.default_rng(seed)
    vectors, query = unit_rows(rng, n, dim), unit_rows(rng, n_q, dim)
    rows = ByteRows.of(vectors, multiple)
    width = -(-dim // 16) * 16
    assert rows.rows.shape == (-(-n // multiple) * multiple, width)
    assert np.abs((rows.rows[:n, :dim] - 128.0) * rows.scale - vectors).max() <= rows.scale * 0.501
    assert rows.rows[n:].tolist() == [rows.rows[n - 1].tolist()] * (len(rows.rows) - n)
    blocks, (_, bytes_, scales, starts) = QueryBlocks.of(query, width), query_blocks(query, width)
    for made, wanted in ((blocks.bytes, bytes_), (blocks.scales, scales), (blocks.starts, starts)):
        np.testing.assert_array_equal(made, wanted)
    in_floats = float_blocks(query).transpose(0, 2, 1).reshape(-1, dim)
    np.testing.assert_array_equal(in_floats[:n_q], query)
    assert not in_floats[n_q:].any()


def test_an_array_for_the_kernels_is_the_same_memory(tmp_path):
    np.save(tmp_path / "rows.npy", np.arange(12, dtype=np.float32).reshape(3, 4))
    mapped, usual = np.load(tmp_path / "rows.npy", mmap_mode="r"), np.ones((3, 4), np.float32)
    assert np.shares_memory(plain(mapped), mapped)
    assert plain(usual) is usual
    for array in (mapped, mapped[:0], np.broadcast_to(np.float32(1), (3, 4)), usual.T, usual[:, ::2]):
        made = plain(array)
        assert made.flags.writeable and made.flags.c_contiguous and made.flags.aligned
        assert made.tolist() == array.tolist()
    off = np.frombuffer(b"x" + np.arange(3, dtype=np.float32).tobytes(), np.uint8)[1:].view(np.float32)
    assert not off.flags.aligned and plain(off).flags.aligned
    assert plain(off).tolist() == [0, 1, 2]


def test_every_thread_has_scratch_memory_of_its_own():
    def ask(size):
        array = kernels.scratch.array("of a test", (size, 2), np.int32)
        assert array.shape == (size, 2)
        return array, kernels.scratch.array("of a test", (3,), np.int32)

    first, again = ask(5)
    assert np.shares_memory(first, again)
    with ThreadPoolExecutor(1) as pool:
        assert not np.shares_memory(first, pool.submit(ask, 5).result()[0])
    assert not kernels.scratch.array("zeros of a test", (100,), np.uint8, zeros=True).any()


# In an index


def random_collection(n, dim, seed, low=5, high=30):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(low, high, size=n)
    vectors = np.split(unit_rows(rng, int(lengths.sum()), dim), np.cumsum(lengths)[:-1])
    return [Passage(f"{i:05}", f"passage {i}") for i in range(n)], vectors, rng


def test_a_small_index_needs_neither_numba_nor_torch():
    code = """
import sys
import numpy as np
from colbert_core import Index, Passage
with Index.create(None, dim=8) as index:
    vectors = np.random.default_rng(0).standard_normal((30, 4, 8))
    index.add([Passage(str(i), "text") for i in range(30)], embeddings=list(vectors))
    print([hit.passage.id for hit in index.search(vectors[7], k=3)][0])
print([name for name in ("numba", "llvmlite", "torch", "faiss") if name in sys.modules])
"""
    assert run_python(code).split("\n")[:2] == ["7", "[]"]


@pytest.mark.parametrize("dim", [8, 33, 128])
def test_a_larger_index_finds_what_the_formula_does(dim):
    passages, vectors, rng = random_collection(800, dim, seed=dim)
    assert sum(map(len, vectors)) >= 8192
    with Index.create(None, dim=dim) as index:
        index.add(passages[:500], embeddings=vectors[:500])
        index.add(passages[500:], embeddings=vectors[500:])
        for n_q in (1, 32, 40):
            query = unit_rows(rng, n_q, dim)
            scores = np.array([(query.astype(np.float64) @ rows.T).max(axis=1).sum() for rows in vectors])
            best = np.argsort(-scores, kind="stable")[:10]
            hits = index.search(query, k=10)
            assert [hit.passage.id for hit in hits] == [passages[place].id for place in best]
            assert [hit.score for hit in hits] == pytest.approx(scores[best], rel=1e-5)
            everything = maxsim(query, np.concatenate(vectors), np.array([len(rows) for rows in vectors]))
            assert [hit.score for hit in hits] == pytest.approx(everything[best], rel=1e-5)


@pytest.mark.parametrize("nbits", [None, 4])
def test_searching_from_eight_threads_finds_what_one_does(nbits):
    passages, vectors, rng = random_collection(1500, 32, seed=5)
    with Index.create(None, dim=32, nbits=nbits) as index:
        index.add(passages, embeddings=vectors)
        index.compact()
        queries = [unit_rows(rng, int(n_q), 32) for n_q in rng.integers(1, 70, size=40)]
        alone = [index.search(query, k=10) for query in queries]
        with ThreadPoolExecutor(8) as pool:
            for _ in range(3):
                assert list(pool.map(lambda query: index.search(query, k=10), queries)) == alone
