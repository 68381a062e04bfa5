"""How a search chooses what to look at: the plans agree with scoring everything, whatever the size, the layers and the threads."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_core import Index, Passage, SearchConfig, Tuning, get_num_threads, set_num_threads
from colbert_core.search.config import default_config, ladder_of_configs
from colbert_core.search.ranking import search
from colbert_core.vectors.segment import Segment, merged_arrays
from colbert_core.vectors.snapshot import Part, Snapshot


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def collection(n, dim=32, seed=0, n_topics=60, tokens=(4, 20)):
    """Passages that mix a few topics each, and queries near one of them."""
    rng = np.random.default_rng(seed)
    topics = unit(rng.standard_normal((n_topics, dim)))
    vectors = [
        unit(topics[rng.choice(rng.integers(n_topics, size=3), size=length)] + 0.25 * rng.standard_normal((length, dim)))
        for length in rng.integers(*tokens, size=n)
    ]
    passages = [Passage(f"{number:05}", f"passage {number}") for number in range(n)]
    queries = [unit(vectors[i][:6] + 0.1 * rng.standard_normal((min(6, len(vectors[i])), dim))) for i in range(0, n, n // 25)]
    return passages, vectors, queries


def found(index, queries, **how):
    return [[(hit.passage.id, hit.score) for hit in hits] for hits in index.search_many(queries, **how)]


def recall(some, best):
    return float(np.mean([len({i for i, _ in a} & {i for i, _ in b}) / len(b) for a, b in zip(some, best, strict=True)]))


@pytest.fixture(scope="module")
def grown():
    """A collection whose codec has two layers of centroids, in several segments, some of it deleted."""
    passages, vectors, queries = collection(2400)
    index = Index.create(None, dim=32, nbits=4)
    index.add(passages[:400], embeddings=vectors[:400])
    index.compact()
    for start in range(400, 2400, 250):
        index.add(passages[start : start + 250], embeddings=vectors[start : start + 250])
    index.delete([passage.id for passage in passages[::7]])
    assert index.stats().segments > 1
    return index, queries


@pytest.mark.parametrize("n_candidates", [None, 1000])
def test_both_ways_to_candidates_find_nearly_all_of_what_scoring_everything_finds(grown, n_candidates):
    index, queries = grown
    config = SearchConfig(nprobe=16, n_candidates=n_candidates, n_exact=500)
    assert recall(found(index, queries, config=config), found(index, queries, exact=True)) >= 0.95


def test_listing_every_candidate_is_the_same_as_not_narrowing_down(grown):
    index, queries = grown
    plain, listed = (SearchConfig(nprobe=4, n_candidates=n, n_exact=200) for n in (None, 10**6))
    assert found(index, queries, config=plain) == found(index, queries, config=listed)


def test_scores_are_those_of_exact_search(grown):
    index, queries = grown
    exact = [dict(hits) for hits in found(index, queries, k=3000, exact=True)]
    for config in (None, SearchConfig(1, 50, 20), SearchConfig(16, None, 500)):
        for hits, known in zip(found(index, queries, config=config), exact, strict=True):
            assert all(known[passage_id] == score for passage_id, score in hits)


def test_searches_are_the_same_each_time_and_together_as_alone(grown):
    index, queries = grown
    together = found(index, queries)
    assert together == found(index, queries) == [found(index, [query])[0] for query in queries]


def test_threads_change_nothing(grown):
    index, queries = grown
    before = get_num_threads()
    try:
        by_threads = []
        for n in (1, 2, 5):
            set_num_threads(n)
            by_threads.append((found(index, queries), found(index, queries, exact=True)))
    finally:
        set_num_threads(before)
    assert by_threads[0] == by_threads[1] == by_threads[2]


@pytest.mark.parametrize("n_q", [1, 31, 32, 33, 70])
def test_queries_of_any_length_are_searched(grown, n_q):
    index, queries = grown
    query = np.concatenate(queries)[:n_q]
    assert len(query) == n_q
    (plain,), (best,) = found(index, [query]), found(index, [query], exact=True)
    assert recall([plain], [best]) >= 0.9


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6), k=st.integers(1, 40), nprobe=st.integers(1, 70), n=st.integers(1, 300), m=st.integers(1, 300)
)
def test_k_hits_whatever_the_config(grown, seed, k, nprobe, n, m):
    index, queries = grown
    hits = index.search(queries[seed % len(queries)], k, config=SearchConfig(nprobe, n if seed % 2 else None, m))
    assert len({hit.passage.id for hit in hits}) == len(hits) == k
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_passages_of_many_windows_have_all_of_them_scored():
    """Each passage's best window for a query is one that no query vector's nearest centroid leads to."""
    rng = np.random.default_rng(3)
    from colbert_core import TokenEmbeddings

    n, per, tokens, dim = 300, 5, 6, 16
    vectors = unit(rng.standard_normal((n * per * tokens, dim)))
    embeddings = TokenEmbeddings(
        vectors=vectors,
        token_spans=np.zeros((len(vectors), 2), np.int32),
        doclens=np.full(n * per, tokens, np.int32),
        window_spans=np.tile(np.array([(i, i + 1) for i in range(per)], np.int32), (n, 1)),
        owners=np.repeat(np.arange(n), per).astype(np.int32),
    )
    index = Index.create(None, dim=dim, nbits=8)
    index.add([Passage(str(i), "abcdef") for i in range(n)], embeddings=embeddings)
    index.compact()
    query = unit(rng.standard_normal((8, dim)))
    for config in (SearchConfig(2, None, 60), SearchConfig(2, 200, 60)):
        exact = {hit.passage.id: (hit.score, hit.span) for hit in index.search(query, n, exact=True)}
        for hit in index.search(query, 20, config=config):
            assert exact[hit.passage.id] == (hit.score, hit.span)


def test_an_uncompressed_collection_that_is_scored_as_bytes_first_is_exact():
    passages, vectors, queries = collection(6000, tokens=(8, 16))
    index = Index.create(None, dim=32)
    index.add(passages, embeddings=vectors)
    assert index.stats().tokens > 2**16
    assert found(index, queries) == found(index, queries, exact=True)


def test_a_collection_of_copies_ties_by_id():
    rng = np.random.default_rng(0)
    one = unit(rng.standard_normal((10, 16)))
    index = Index.create(None, dim=16, nbits=4)
    index.add([Passage(f"{i:04}", "same") for i in range(1500)], embeddings=[one] * 1500)
    index.compact()
    assert [passage_id for passage_id, _ in found(index, [one], k=5)[0]] == ["0000", "0001", "0002", "0003", "0004"]


def test_defaults_grow_with_k_and_for_short_queries_and_narrow_down_large_collections_only():
    assert default_config(10, 1000) == SearchConfig(16, None, 256)
    assert default_config(10, 10**6) == SearchConfig(16, 1024, 256)
    assert default_config(100, 2**15) == SearchConfig(16, 3200, 800)
    assert default_config(100, 2**19) == SearchConfig(16, 6400, 1600)
    assert [default_config(10, 10**5, n_q).n_exact for n_q in (1, 16, 24, 32, 300)] == [512, 512, 341, 256, 256]


# Tuning


@pytest.mark.parametrize("target", [0.3, 0.9, 1.0])
def test_tuning_reaches_its_target(grown, target):
    index, queries = grown
    tuned = index.tune(target, queries=queries, progress=False)
    assert isinstance(tuned, Tuning)
    assert tuned.recall >= target
    assert tuned.milliseconds > 0
    assert (tuned.config, tuned.recall, tuned.milliseconds) in tuned.tried
    assert recall(found(index, queries, config=tuned.config), found(index, queries, exact=True)) == pytest.approx(tuned.recall)


def test_tuning_without_queries_takes_passages(grown):
    index, _ = grown
    assert index.tune(0.8, k=5, progress=False).recall >= 0.8


def test_the_last_config_to_try_looks_at_everything(grown):
    index, queries = grown
    last = ladder_of_configs(10, 2400)[-1]
    assert found(index, queries, config=last) == found(index, queries, exact=True)


def test_what_cannot_be_tuned_is_refused(grown):
    index, _ = grown
    with pytest.raises(ValueError, match="queries"):
        index.tune(queries=[])
    with pytest.raises(ValueError, match="target_recall"):
        index.tune(1.5)
    with pytest.raises(ValueError, match="passages"):
        Index.create(None, dim=4).tune()


# On another device


def test_an_index_scores_where_it_is_told_to(tmp_path, grown):
    """On PyTorch's CPU here; a GPU takes the same way."""
    index, queries = grown
    index.save(tmp_path / "copy")
    with Index.open(tmp_path / "copy", device="cpu") as elsewhere:
        assert found(elsewhere, queries) == found(index, queries, exact=True)
    with Index.create(None, dim=32, device="cpu") as small:
        small.add([Passage("a", "a"), Passage("b", "b")], embeddings=[queries[0], queries[1]])
        assert [hit.passage.id for hit in small.search(queries[1])] == ["b", "a"]


def test_a_device_that_is_not_there_is_refused_when_the_index_is_opened(tmp_path):
    Index.create(tmp_path / "x", dim=4).close()
    with pytest.raises(ValueError, match="device"):
        Index.open(tmp_path / "x", device="abacus")
    with pytest.raises(ValueError, match="device"):
        Index.create(tmp_path / "y", dim=4, device="abacus")
    assert not (tmp_path / "y").exists()


# What a review found


def test_a_file_whose_arrays_are_of_another_type_is_refused(grown):
    index, _ = grown
    snapshot = index._versions.read(lambda view: view.state).snapshot
    part = snapshot.parts[0]
    arrays = {name: np.concatenate(pieces) for name, pieces in merged_arrays([(part.segment, part.live)]).items()}
    assert Segment.from_arrays(arrays, 32, snapshot.codec).n_tokens
    for name, dtype in (("codes", np.int32), ("residuals", np.uint16), ("doclens", np.int64), ("list_windows", np.uint32)):
        with pytest.raises(ValueError, match=name):
            Segment.from_arrays({**arrays, name: arrays[name].astype(dtype)}, 32, snapshot.codec)


def test_a_vector_that_is_not_finite_is_an_error_of_the_file_and_no_empty_result():
    vectors = unit(np.random.default_rng(0).standard_normal((70_000, 8)))
    vectors[7, 3] = np.nan
    windows = np.arange(7000)
    segment = Segment(windows, np.zeros((7000, 2), np.int32), np.full(7000, 10, np.int32), vectors=vectors)
    snapshot = Snapshot((Part(segment, np.ones(7000, np.bool_)),))
    with pytest.raises(IndexError, match="not finite"):  # which an index reports as DamagedIndexError
        search(snapshot, vectors[20:24], 10, sort_keys=list)


@pytest.mark.parametrize("k", [10, 100])
def test_equal_query_vectors_do_not_add_up_their_rounding_unnoticed(k):
    rng = np.random.default_rng(0)
    vectors = unit(rng.standard_normal((70_000, 128)))
    index = Index.create(None, dim=128)
    index.add([Passage(f"{i:05}", "x") for i in range(3500)], embeddings=list(vectors.reshape(3500, 20, 128)))
    queries = [np.tile(unit(rng.standard_normal((1, 128))), (32, 1)) for _ in range(8)]
    assert found(index, queries, k=k) == found(index, queries, k=k, exact=True)


def test_a_copy_keeps_its_device(grown):
    _, queries = grown
    index = Index.create(None, dim=32, device="cpu")
    index.add([Passage("a", "a")], embeddings=[queries[0]])
    assert pickle.loads(pickle.dumps(index))._versions.device == "cpu"


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
