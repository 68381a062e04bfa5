"""Search by IVFPQ: what is found is what scoring everything finds, and not too much is scored."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from builders.colbertv1 import brute_force, passages_of
from builders.encoders import WordEncoder

from colbert_core import EncoderMismatchError, Passage
from colbert_core.colbertv1 import ivfpq as module
from colbert_core.colbertv1.encoded import EncodedCollection, encode_collection
from colbert_core.colbertv1.ivfpq import IVFPQ, count_lists, sample_size
from colbert_core.errors import DamagedIndexError, IndexExistsError, IndexNotFoundError, UnsupportedIndexError


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """FAISS's threads wait for each other in so small work that a busy machine takes seconds for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "get_num_threads", lambda: 1)
        yield


# Choices


def test_lists_and_samples_suit_the_collection():
    assert count_lists(600_000_000) == 32_768  # MS MARCO, as in nanoColBERT
    assert count_lists(1_000_000) == 4_000
    assert count_lists(3_900) == 100  # 39 vectors for each
    assert count_lists(5) == 1
    assert sample_size(600_000_000, 32_768, 0.3) == 256 * 32_768  # all that FAISS looks at
    assert sample_size(1_000_000, 4_000, 0.3) == 300_000
    assert sample_size(10_000, 256, 0.3) == 39 * 256
    assert sample_size(500, 256, 0.3) == 500


def test_a_sample_has_no_vector_twice_and_is_the_same_each_time(tmp_path):
    class Counting(WordEncoder):
        def vector(self, word):  # all different
            angle = int(word) / 1000
            return np.array([np.cos(angle), np.sin(angle)] + [0] * (self.dim - 2), np.float32)

        def encode_passages(self, texts, *, progress=None):
            return super().encode_passages([text if text[0].isdecimal() else "0" for text in texts])

    passages = [Passage(str(n), " ".join(str(7 * n + i) for i in range(7))) for n in range(40)]
    encoded = encode_collection(passages, Counting(), tmp_path, shard_passages=9, progress=False)
    sample = module._sample(encoded, 100, 12345)
    assert sample.dtype == np.float32
    assert len(np.unique(sample, axis=0)) == len(sample) == 100
    assert np.array_equal(sample, module._sample(encoded, 100, 12345))
    assert len(np.unique(module._sample(encoded, 280, 1), axis=0)) == 280


# Search

PASSAGES = passages_of(300)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ivfpq")
    encode_collection(PASSAGES, WordEncoder(), folder / "vectors", shard_passages=70, progress=False)
    return IVFPQ.build(folder / "vectors", folder / "index", nlist=10, nbits=4, progress=False), folder


def opened(folder):
    return IVFPQ.open(folder / "index", WordEncoder())


QUERIES = ["the cat sat", "what sound does dogs make", "rust", "happy pets purr and bark"]


def test_looking_at_everything_finds_what_scoring_everything_finds(built, words):
    _, folder = built
    index = opened(folder)
    results = index.search_many(QUERIES, k=20, nprobe=10, n_neighbours=index.encoded.n_tokens, max_share=1.0)
    for pairs, query in zip(results, words.encode_queries(QUERIES), strict=True):
        expected = brute_force(PASSAGES, words, query, 20)
        assert [score for _, score in pairs] == pytest.approx([score for _, score in expected], abs=1e-4)
        assert {name for name, score in pairs if score > pairs[-1][1] + 1e-4} == {
            name for name, score in expected if score > expected[-1][1] + 1e-4
        }


def test_texts_and_their_vectors_find_the_same_together_and_one_by_one(built, words):
    _, folder = built
    index = opened(folder)
    together = index.search_many(QUERIES, k=5)
    assert [index.search_many([query], k=5)[0] for query in QUERIES] == together
    for pairs, expected in zip(index.search_many(words.encode_queries(QUERIES), k=5), together, strict=True):
        assert dict(pairs) == pytest.approx(dict(expected), abs=1e-5)  # vectors from outside are scaled to length 1 again
    assert index.search_many([]) == []


def test_each_score_is_exact_and_that_of_the_best_window(built, words):
    _, folder = built
    (pairs,) = opened(folder).search_many(["the cat sat"], k=10)
    expected = dict(brute_force(PASSAGES, words, words.encode_queries(["the cat sat"])[0], len(PASSAGES)))
    assert any(len(passage.text.split()) > words.window for passage in PASSAGES if passage.id in dict(pairs))
    assert dict(pairs) == pytest.approx({name: expected[name] for name, _ in pairs}, abs=1e-5)


def test_equal_passages_come_in_the_order_of_their_ids(tmp_path, words):
    passages = [Passage(name, "the cat sat on a mat") for name in ("c", "a", "b", "d")]
    encode_collection(passages, words, tmp_path / "vectors", shard_passages=2, progress=False)
    IVFPQ.build(tmp_path / "vectors", tmp_path / "index", nbits=2, progress=False)
    (pairs,) = IVFPQ.open(tmp_path / "index", words).search_many(["cat"], k=3)
    assert [name for name, _ in pairs] == ["a", "b", "c"]


@pytest.mark.parametrize(("n", "k", "max_share", "most"), [(300, 10, 0.1, 100), (300, 10, 0.5, 150), (300, 120, 0.1, 120)])
def test_no_more_passages_are_scored_exactly_than_their_share(built, monkeypatch, n, k, max_share, most):
    _, folder = built
    index, scored = opened(folder), []
    score = EncodedCollection.score
    monkeypatch.setattr(
        EncodedCollection, "score", lambda self, query, rows: scored.append(len(rows)) or score(self, query, rows)
    )
    results = index.search_many(QUERIES, k=k, nprobe=10, n_neighbours=2000, max_share=max_share)
    assert len(index) == n
    assert max(scored) == most
    assert all(len(pairs) <= k for pairs in results)


def test_the_passages_scored_are_those_of_the_best_approximate_scores(tmp_path, words):
    """Two query vectors. The first found tokens 0, 2, 3 at cosines 1, .5, .9; the second tokens 1 and 3 at .8 and .6, and none in
    the third place. Windows are passages: p0 has tokens 0 and 1, p1 token 2, p2 token 3. A missing cosine is the worst found:
    p0 1 + .8, p1 .5 + .6, p2 .9 + .6.
    """
    encoded = encode_collection(
        [Passage("p0", "cat dog"), Passage("p1", "mat"), Passage("p2", "rust")], words, tmp_path, progress=False
    )
    cosines = np.array([[1, 0.5, 0.9], [0.8, 0.6, -9]], np.float32)
    tokens = np.array([[0, 2, 3], [1, 3, -1]])
    best = [module._candidates(encoded, 2 - 2 * cosines, tokens, n).tolist() for n in (1, 2, 3)]
    assert best == [[0], [0, 2], [0, 1, 2]]


def test_places_that_faiss_could_not_fill_are_nobodys(tmp_path, words):
    """FAISS gives -1 where the probed lists hold fewer vectors, which as an index would be the last token."""
    encoded = encode_collection([Passage("a", "cat"), Passage("z", "rust")], words, tmp_path, progress=False)
    assert module._candidates(encoded, np.zeros((1, 2), np.float32), np.array([[0, -1]]), 10).tolist() == [0]
    assert module._candidates(encoded, np.zeros((1, 2), np.float32), np.array([[-1, -1]]), 10).tolist() == []


def test_scores_over_many_pieces_equal_those_at_once(built, words, monkeypatch):
    index, _ = built
    (query,) = words.encode_queries(["the cat sat"])
    rows = np.array([0, 3, 69, 70, 71, 140, 299])
    at_once = index.encoded.score(query, rows)
    monkeypatch.setattr("colbert_core.colbertv1.encoded._SCORED_AT_A_TIME", 8)
    assert np.array_equal(index.encoded.score(query, rows), at_once)
    assert len(index.encoded.score(query, np.empty(0, np.int64))) == 0


def test_bad_arguments_of_a_search_are_named(built):
    _, folder = built
    index = opened(folder)
    for arguments, problem in (
        ({"k": 0}, "k must"),
        ({"nprobe": 0}, "nprobe"),
        ({"n_neighbours": 0}, "n_neighbours"),
        ({"max_share": 0}, "max_share must be above 0 and at most 1, got 0"),
        ({"max_share": 1.5}, "max_share"),
    ):
        with pytest.raises(ValueError, match=problem):
            index.search_many(["cat"], **arguments)
    with pytest.raises(TypeError, match="must be a list, got one str"):
        index.search_many("cat")
    with pytest.raises(TypeError, match="Query 1 must be a str, or vectors as a NumPy array or a PyTorch tensor, got int"):
        index.search_many(["cat", 7])
    with pytest.raises(ValueError, match=r"Query 0 must have the shape \(n, 64\)"):
        index.search_many([np.ones((2, 3), np.float32)])


# Building and opening


def test_faiss_is_silent_where_there_is_little_to_train_on(tmp_path, words, capfd):
    encode_collection(passages_of(60), words, tmp_path / "vectors", progress=False)
    IVFPQ.build(tmp_path / "vectors", tmp_path / "index", progress=False)
    output = capfd.readouterr()
    assert (output.out, output.err) == ("", "")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"m": 10}, "m must divide dim, got m=10 and dim 64; use one of 1, 2, 4, 8, 16, 32, 64"),
        ({"m": 0}, "m must"),
        ({"nbits": 9}, "nbits must be from 1 to 8, got 9"),
        ({"nlist": 0}, "nlist"),
        ({"nlist": 100_000}, "too few for nlist=100000 lists"),
        ({"sample": 0.0}, "sample must be above 0 and at most 1, got 0.0"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_written(built, tmp_path, settings, problem):
    _, folder = built
    with pytest.raises(ValueError, match=problem):
        IVFPQ.build(folder / "vectors", tmp_path / "index", progress=False, **settings)
    assert not list(tmp_path.iterdir())


def test_too_few_vectors_for_the_codes_are_an_error_that_says_what_would_do(tmp_path, words):
    encode_collection([Passage("a", "cat dog mat")], words, tmp_path / "vectors", progress=False)
    with pytest.raises(
        ValueError, match="holds 3 vectors, too few .* the 256 codes of nbits=8; use at most 3 lists and nbits=1"
    ):
        IVFPQ.build(tmp_path / "vectors", tmp_path / "index", progress=False)


def test_a_build_that_is_interrupted_leaves_no_index_and_keeps_its_training(built, tmp_path, monkeypatch):
    _, folder = built
    trained, sampled, bar = [], module._sample, module.progress_bar
    monkeypatch.setattr(module, "_sample", lambda *arguments: trained.append(1) or sampled(*arguments))

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "progress_bar", interrupt)
    with pytest.raises(KeyboardInterrupt):
        IVFPQ.build(folder / "vectors", tmp_path / "index", nlist=10, nbits=4, progress=False)
    assert not (tmp_path / "index").exists()
    monkeypatch.setattr(module, "progress_bar", bar)
    again = IVFPQ.build(folder / "vectors", tmp_path / "index", nlist=10, nbits=4, progress=False)
    assert len(trained) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["index"]
    assert sorted(file.name for file in (tmp_path / "index").iterdir()) == ["index.faiss", "manifest.json"]
    matrices = WordEncoder().encode_queries(QUERIES)
    assert again.search_many(matrices) == built[0].search_many(matrices)


def test_training_with_other_settings_is_not_kept(built, tmp_path, monkeypatch):
    _, folder = built
    bar = module.progress_bar
    monkeypatch.setattr(module, "progress_bar", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        IVFPQ.build(folder / "vectors", tmp_path / "index", nlist=10, nbits=4, progress=False)
    monkeypatch.setattr(module, "progress_bar", bar)
    assert IVFPQ.build(folder / "vectors", tmp_path / "index", nlist=7, nbits=4, progress=False)._index.nlist == 7


@pytest.mark.parametrize("left", [b"", b"half", None])
def test_a_training_that_was_cut_short_is_done_again(built, tmp_path, monkeypatch, left):
    _, folder = built
    synced, sync, bar = [], module.sync_file, module.progress_bar
    monkeypatch.setattr(module, "progress_bar", lambda *_: 1 / 0)
    monkeypatch.setattr(module, "sync_file", lambda path: synced.append(path.name) or sync(path))
    with pytest.raises(ZeroDivisionError):
        IVFPQ.build(folder / "vectors", tmp_path / "index", nlist=10, nbits=4, progress=False)
    assert synced[0] == "trained.faiss"  # before the manifest, which says that it is whole
    monkeypatch.setattr(module, "progress_bar", bar)
    trained = tmp_path / ".index.unfinished" / "trained.faiss"
    trained.write_bytes(trained.read_bytes()[:-100] if left is None else left)
    again = IVFPQ.build(folder / "vectors", tmp_path / "index", nlist=10, nbits=4, progress=False)
    matrices = WordEncoder().encode_queries(QUERIES)
    assert again.search_many(matrices) == built[0].search_many(matrices)


def test_an_index_behind_a_link_finds_its_vectors(tmp_path, words):
    encode_collection(passages_of(30), words, tmp_path / "vectors", progress=False)
    (tmp_path / "deep" / "er" / "disk").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er" / "disk")
    (tmp_path / "linked").symlink_to(tmp_path / "vectors")
    for name, vectors in (("a", "vectors"), ("b", "linked")):
        IVFPQ.build(tmp_path / vectors, tmp_path / "link" / name, nbits=4, progress=False)
        assert len(IVFPQ.open(tmp_path / "link" / name)) == 30
        assert len(IVFPQ.open(tmp_path / "deep" / "er" / "disk" / name)) == 30


def test_an_index_is_not_built_over_something(built):
    _, folder = built
    with pytest.raises(IndexExistsError, match="already"):
        IVFPQ.build(folder / "vectors", folder / "index", progress=False)


def test_an_index_that_was_opened_finds_what_the_built_one_finds(built, words):
    index, folder = built
    matrices = words.encode_queries(QUERIES)
    assert opened(folder).search_many(matrices) == index.search_many(matrices)
    assert len(index) == 300
    assert "300 passages, 10 lists" in repr(index)


def test_an_index_is_pickled_with_its_vectors_and_the_encoder_it_was_given(built, words):
    _, folder = built
    for index in (opened(folder), IVFPQ.open(folder / "index")):
        copied = pickle.loads(pickle.dumps(index))
        query = words.encode_queries(["cats purr"])
        assert copied.search_many(query, 5) == index.search_many(query, 5)
        assert (copied._encoder.loaded is None) == (index._encoder.loaded is None)


def test_index_and_vectors_may_move_together_and_the_vectors_alone_if_they_are_named(tmp_path, words):
    encode_collection(passages_of(30), words, tmp_path / "old" / "vectors", progress=False)
    IVFPQ.build(tmp_path / "old" / "vectors", tmp_path / "old" / "index", nbits=4, progress=False)
    (tmp_path / "old").rename(tmp_path / "new")
    assert len(IVFPQ.open(tmp_path / "new" / "index")) == 30
    (tmp_path / "new" / "vectors").rename(tmp_path / "vectors")
    with pytest.raises(IndexNotFoundError, match="no encoded collection"):
        IVFPQ.open(tmp_path / "new" / "index")
    assert len(IVFPQ.open(tmp_path / "new" / "index", embeddings=tmp_path / "vectors")) == 30


def test_an_index_whose_files_are_damaged_or_belong_to_other_vectors_is_refused(tmp_path, words):
    encode_collection(passages_of(30), words, tmp_path / "vectors", progress=False)
    encode_collection(passages_of(31), words, tmp_path / "others", progress=False)
    IVFPQ.build(tmp_path / "vectors", tmp_path / "index", nbits=4, progress=False)
    with pytest.raises(DamagedIndexError, match="holds other vectors than the index"):
        IVFPQ.open(tmp_path / "index", embeddings=tmp_path / "others")
    with pytest.raises(UnsupportedIndexError, match="is of no IVFPQ index"):
        IVFPQ.open(tmp_path / "vectors")
    size = (tmp_path / "index" / "index.faiss").stat().st_size
    (tmp_path / "index" / "index.faiss").write_bytes(bytes(size))
    with pytest.raises(DamagedIndexError, match=r"index\.faiss cannot be read"):
        IVFPQ.open(tmp_path / "index")
    (tmp_path / "index" / "index.faiss").write_bytes(b"short")
    with pytest.raises(DamagedIndexError, match=r"index\.faiss is missing or cut short"):
        IVFPQ.open(tmp_path / "index")
    with pytest.raises(IndexNotFoundError, match="There is no IVFPQ index"):
        IVFPQ.open(tmp_path / "nowhere")


def test_texts_need_the_encoder_that_made_the_vectors(built):
    index, folder = built
    with pytest.raises(EncoderMismatchError, match="has no name to load it by"):
        index.search_many(["cat"])
    with pytest.raises(EncoderMismatchError, match="dim 32"):
        IVFPQ.open(folder / "index", WordEncoder(dim=32))


def test_an_encoder_that_has_a_name_is_loaded_when_a_text_comes(tmp_path, stanford, stanford_folder, caplog):
    passages = passages_of(30, longest=40)
    encode_collection(passages, stanford, tmp_path / "vectors", progress=False)
    IVFPQ.build(tmp_path / "vectors", tmp_path / "index", m=4, nbits=4, progress=False)
    index = IVFPQ.open(tmp_path / "index")
    (pairs,) = index.search_many([" ".join(["the cat sat on a mat"] * 10)], k=3, max_share=1.0)
    assert "longer than query_length" in caplog.text
    assert len(pairs) == 3
    assert index.encoder.dim == stanford.dim
