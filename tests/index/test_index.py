"""The index against a dictionary and the formula, under every order of adding, replacing and deleting."""

from __future__ import annotations

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from builders.vectors import ids

from colbert_core import Encoder, Hit, Index, Passage, Reranker

ANIMALS = [
    Passage("cat", "the cat sat on the mat", {"legs": 4}),
    Passage("dog", "a dog barks", {"legs": 4}),
    Passage("bird", "a bird sings a song", {"legs": 2}),
]


@pytest.fixture
def index(create, words):
    index = create(words)
    index.add(ANIMALS)
    return index


def test_the_passage_that_shares_the_words_comes_first(index):
    hits = index.search("the dog barks", k=3)
    assert ids(hits)[0] == "dog"
    assert [hit.rank for hit in hits] == [1, 2, 3]
    assert hits == sorted(hits, key=lambda hit: -hit.score)


def test_a_hit_says_all_there_is_to_know(index):
    (hit,) = index.search("dog barks", k=1)
    assert isinstance(hit, Hit)
    assert hit.passage == ANIMALS[1]
    assert hit.score == pytest.approx(2.0)
    assert hit.relevance == pytest.approx(1.0)
    assert (hit.span, hit.text) == ((0, 11), "a dog barks")
    assert {type(hit.score), type(hit.relevance), type(hit.rank), type(hit.span[0])} == {float, int}


def test_the_score_of_a_passage_is_its_best_window_and_the_hit_names_it(create, words):
    index = create(words)  # windows of eight words
    text = "one two three four five six seven eight the answer is here and nowhere else in the world"
    index.add([Passage("long", text), Passage("short", "the answer")])
    hit = index.search("answer here nowhere", k=1)[0]
    assert hit.passage.id == "long"
    assert hit.text == "the answer is here and nowhere else in"
    assert hit.score == pytest.approx(3.0)


def test_k_is_guaranteed_up_to_the_number_of_passages(index):
    assert len(index.search("quite other words", k=2)) == 2
    assert len(index.search("quite other words", k=100)) == 3


def test_equal_scores_come_by_id(create, words):
    index = create(words)
    index.add([Passage(name, "same text") for name in "dbca"])
    index.add([Passage("e", "other words")])
    assert ids(index.search("same text", k=5)) == ["a", "b", "c", "d", "e"]
    assert ids(index.search("same text", k=2)) == ["a", "b"]


def test_min_relevance_drops_what_matches_less(index):
    assert ids(index.search("a dog barks", min_relevance=0.9)) == ["dog"]
    assert index.search("zebra", min_relevance=0.99) == []


def test_many_searches_are_the_same_as_one_by_one(index, words):
    queries = ["the cat", words.encode_queries(["a bird"])[0], "dog barks"]
    assert index.search_many(queries, k=2) == [index.search(query, k=2) for query in queries]
    assert index.search_many([], k=2) == []


def test_the_mean_of_several_queries_is_what_scoring_everything_by_each_says(create, words):
    """Far more passages than are looked at first, with a best passage that is the best for neither query."""
    generator = np.random.default_rng(3)
    vocabulary = [f"w{number}" for number in range(40)]
    index = create(words)
    index.add([Passage(str(n), " ".join(generator.choice(vocabulary, 12))) for n in range(300)])
    queries = ["w1 w2 w3 w4", "w5 w6", words.encode_queries(["w7 w8 w9"])[0]]
    lists = index.search_many(queries, 300)
    relevance, score = (
        {name: np.mean([{hit.passage.id: getattr(hit, part) for hit in hits}[name] for hits in lists]) for name in index.ids()}
        for part in ("relevance", "score")
    )
    for k in (1, 10, 300, 999):
        hits = index.search_mean(queries, k)
        expected = sorted(relevance, key=lambda name: (-round(relevance[name], 6), name))[:k]
        assert [round(hit.relevance, 5) for hit in hits] == [round(relevance[name], 5) for name in expected]
        assert all(hit.score == pytest.approx(score[hit.passage.id], abs=1e-5) for hit in hits)
        assert [hit.rank for hit in hits] == list(range(1, min(k, 300) + 1))
    assert {hit.passage.id for hit in index.search_mean(queries, 5, ids=["1", "2", "x"])} == {"1", "2"}
    assert all(hit.relevance >= 0.4 for hit in index.search_mean(queries, 300, min_relevance=0.4))


def test_the_mean_of_one_query_is_a_search(index):
    assert index.search_mean(["the cat"], 2) == index.search("the cat", 2)
    (hit, *_) = index.search_mean(["the cat sat", "a dog barks"], 1)
    assert hit.text in (index.get(["cat", "dog"])[0].text, index.get(["cat", "dog"])[1].text)
    with pytest.raises(ValueError, match="no queries to search by"):
        index.search_mean([])
    with pytest.raises(TypeError, match="queries must be a list"):
        index.search_mean("the cat")


def test_a_query_may_be_a_matrix_of_any_length_rows(index, words):
    matrix = words.encode_queries(["dog barks"])[0]
    assert ids(index.search(matrix * 7)) == ids(index.search("dog barks"))
    assert index.search(matrix * 7)[0].score == pytest.approx(2.0)


def test_adding_under_a_known_id_replaces_the_passage(index):
    assert index.add([Passage("dog", "a fish swims"), Passage("ant", "an ant works")]) == ["dog", "ant"]
    assert len(index) == 4
    assert index.get(["dog"]) == [Passage("dog", "a fish swims")]
    assert index.search("dog barks", k=4)[0].relevance < 0.9
    assert ids(index.search("fish swims", k=1)) == ["dog"]


def test_delete_counts_what_is_gone_and_ignores_the_rest(index):
    assert index.delete(["dog", "nobody", "dog"]) == 1
    assert index.delete(["dog"]) == 0
    assert len(index) == 2
    assert "dog" not in index
    assert "cat" in index
    assert set(ids(index.search("dog barks", k=9))) == {"cat", "bird"}


def test_get_is_aligned_with_the_ids(index):
    assert index.get(["bird", "nobody", "cat", "bird"]) == [ANIMALS[2], None, ANIMALS[0], ANIMALS[2]]
    assert index.get([]) == []


def test_an_empty_index_finds_nothing(create, words):
    index = create(words)
    assert index.search("anything") == []
    assert index.add([]) == []
    assert len(index) == 0
    index.add(ANIMALS)
    index.delete([passage.id for passage in ANIMALS])
    assert index.search("cat") == []


def test_an_empty_passage_can_be_added_and_is_never_found(index):
    index.add([Passage("void", "")])
    assert len(index) == 4
    assert "void" not in [hit.passage.id for hit in index.search("the cat sat", k=9)]
    assert len(index.search("the cat sat", k=9)) == 3


def test_what_goes_in_and_comes_out_is_a_copy(create, words):
    metadata = {"tags": ["a"]}
    index = create(words)
    index.add([Passage("x", "some text", metadata)])
    metadata["tags"].append("mine")
    index.search("text")[0].passage.metadata["tags"].append("theirs")
    index.get(["x"])[0].metadata["tags"].append("theirs")
    assert index.get(["x"]) == [Passage("x", "some text", {"tags": ["a"]})]


def test_a_failed_or_interrupted_add_changes_nothing(index, words, monkeypatch):
    before = index.search("dog", k=9)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(words, "encode_passages", interrupt)
    with pytest.raises(KeyboardInterrupt):
        index.add([Passage("dog", "changed"), Passage("new", "new")])
    assert index.search("dog", k=9) == before
    assert len(index) == 3


# Bad input


def test_an_id_twice_in_one_call_is_refused_and_nothing_added(index):
    with pytest.raises(ValueError, match="1 ids stand more than once in this call, among them 'x'"):
        index.add([Passage("x", "one"), Passage("y", "two"), Passage("x", "three")])
    assert len(index) == 3


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused(index, k):
    with pytest.raises(ValueError, match=f"k must be at least 1, got {k}"):
        index.search("cat", k=k)


@pytest.mark.parametrize("k", ["3", 2.5, None])
def test_k_that_is_no_whole_number_is_refused(index, k):
    with pytest.raises(TypeError, match="k must be a whole number of passages"):
        index.search("cat", k=k)


def test_k_may_be_a_numpy_integer(index):
    assert len(index.search("cat", k=np.int64(2))) == 2


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_a_threshold_outside_zero_to_one_is_refused(index, value):
    with pytest.raises(ValueError, match="min_relevance is a relevance from 0 to 1"):
        index.search("cat", min_relevance=value)


def test_a_blank_query_is_refused_even_by_an_empty_index(create, words):
    with pytest.raises(ValueError, match="is empty"):
        create(words).search("  ")


def test_query_vectors_of_another_model_are_refused(index):
    with pytest.raises(ValueError, match=r"Query 0 must have the shape \(n, 64\) with n >= 1, got \(2, 128\)"):
        index.search(np.ones((2, 128), np.float32))
    with pytest.raises(ValueError, match="Query 1 has only zeros in row 0"):
        index.search_many(["cat", np.zeros((1, 64), np.float32)])


def test_wrong_kinds_are_refused_by_name(index):
    with pytest.raises(TypeError, match=r"Item 1 is a str, not a Passage; write Passage\(id, text\)"):
        index.add([ANIMALS[0], "text"])
    with pytest.raises(TypeError, match=r"ids must be a list of strings, got one str; write \['cat'\]"):
        index.delete("cat")
    with pytest.raises(TypeError, match="ids must be a list of strings"):
        index.get("cat")
    with pytest.raises(TypeError, match="queries must be a list"):
        index.search_many("cat")
    with pytest.raises(TypeError, match="fetch_k"):
        index.search("cat", fetch_k=3)


def test_queries_may_be_any_iterable(index):
    assert index.search_many(query for query in ("cat", "dog")) == index.search_many(["cat", "dog"])


@pytest.mark.parametrize("query", [["cat"], None, 3, b"cat", [1.0] * 64])
def test_a_query_is_text_or_vectors(index, query):
    with pytest.raises(TypeError, match="Query 0 must be a str, or vectors as a NumPy array or a PyTorch tensor, got"):
        index.search(query)


@pytest.mark.parametrize("bad", [1, b"cat", None, ANIMALS[0]])
def test_ids_are_strings(index, bad):
    for call in (index.delete, index.get):
        with pytest.raises(TypeError, match="Id 1 must be a str, got"):
            call(["cat", bad])
    assert len(index) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": np.full((3, 64), np.nan, np.float32)}, "length 1, and be neither zero nor NaN"),
        ({"vectors": np.ones((3, 64), np.float32)}, "length 1, and be neither zero nor NaN"),
        ({"vectors": np.ones((3, 64))}, r"float32 of shape \(n_tokens, 64\), got float64"),
        ({"vectors": np.ones((3, 32), np.float32)}, r"got float32 \(3, 32\)"),
        ({"token_spans": np.zeros((2, 2), np.int32)}, "spans must be two per token"),
        ({"doclens": np.array([2, 0], np.int32)}, "doclens must be at least 1"),
        ({"doclens": np.array([1, 1], np.int32)}, "add up to the 3 vectors"),
        ({"owners": np.array([0, 0], np.int32)}, "each of the 2 texts must own a window"),
        (
            {"window_spans": np.array([[0, 1], [-1, 1]], np.int32)},
            r"span must be two ascending places in a text, got \[-1  1\]",
        ),
        ({"window_spans": np.array([[3, 1], [0, 1]], np.int32)}, r"span must be two ascending places in a text, got \[3 1\]"),
        ({"owners": np.array([1, 0], np.int32)}, "owners must ascend"),
    ],
)
def test_an_encoder_of_ones_own_cannot_spoil_the_index(index, words, monkeypatch, change, message):
    encode = words.encode_passages
    monkeypatch.setattr(words, "encode_passages", lambda texts, **options: replace(encode(texts, **options), **change))
    two = [Passage("dog", "changed text"), Passage("new", "new")]
    for call in (lambda: index.add(two), lambda: Reranker(words).rank("dog", two)):
        with pytest.raises(ValueError, match="The encoder's token embeddings cannot be used: .*" + message):
            call()
    assert index.get(["dog", "new"]) == [ANIMALS[1], None]


@pytest.mark.parametrize("make", [lambda encoder: Index.create(None, encoder), Reranker])
def test_what_is_no_encoder_is_refused(make):
    with pytest.raises(TypeError, match="An encoder is a checkpoint's name or folder"):
        make(42)


def test_equal_texts_tie_in_bfloat16_as_well(create, stanford_folder):
    """Rounding differs with the shape of a batch, so equal texts must be encoded once."""
    index = create(Encoder.from_pretrained(stanford_folder, device="cpu", dtype="bfloat16"))
    others = [Passage(f"x{i}", "what sound does the cat make " * (i % 3)) for i in range(150)]
    equal = [Passage(f"e{i:03}", "happy pets and dogs") for i in range(150)]
    index.add([passage for pair in zip(others, equal, strict=True) for passage in pair])
    found = [hit for hit in index.search("happy pets", k=300) if hit.passage.id.startswith("e")]
    assert len({hit.score for hit in found}) == 1
    assert ids(found) == sorted(ids(found))


@pytest.mark.parametrize("n", [3, 5, 17, 64, 101])
def test_equal_texts_tie_whatever_their_place_in_the_matrix_product(create, stanford, n):
    """One large product rounds equal columns differently; the order must not show it."""
    passages = [Passage(f"{i:03}", "a dog and a cat") for i in range(n)]
    index = create(stanford)
    index.add(passages[::-1])
    for query in ("happy pets", "what sound does the dog make", "rust"):
        found = index.search(query, k=n)
        assert ids(found) == [passage.id for passage in passages]
        assert len({hit.score for hit in found}) == 1
        assert ids(index.search(query, k=2)) == ["000", "001"]
        assert [hit.passage for hit in Reranker(stanford).rank(query, passages)] == passages


@pytest.mark.parametrize("step", ["rows written", "file written"])
def test_an_add_interrupted_while_it_is_committed_changes_nothing(create, index, step, interrupt_at):
    before = index.search("dog", k=9)
    many = [Passage(f"new{i}", f"new {i} " * 200) for i in range(40)]  # enough for a file of its own
    with interrupt_at(step) as reached, pytest.raises(KeyboardInterrupt):
        index.add([Passage("dog", "changed"), *many])
        if not reached:  # an index in memory has no files
            raise KeyboardInterrupt
    if reached:
        assert index.search("dog", k=9) == before
        assert index.get(["dog", "new0"]) == [ANIMALS[1], None]
    index.add([Passage("new", "quite new words")])
    assert ids(index.search("quite new words", k=1)) == ["new"]


# Copies, threads


def test_a_pickled_and_a_deep_copied_index_in_memory_hold_the_same_and_stand_alone(words):
    index = Index.create(None, words)
    index.add(ANIMALS)
    index.delete(["cat"])
    for other in (copy.deepcopy(index), pickle.loads(pickle.dumps(index))):
        assert other.search("dog barks", k=9) == index.search("dog barks", k=9)
        other.delete(["dog"])
        other.add([Passage("new", "new words")])
        assert ids(other.search("new words", k=1)) == ["new"]
    assert sorted(ids(index.search("x", k=9))) == ["bird", "dog"]


def test_a_pickled_index_on_disk_is_the_same_folder(tmp_path, words):
    index = Index.create(tmp_path / "x.idx", words)
    index.add(ANIMALS)
    other = pickle.loads(pickle.dumps(index))
    other.delete(["cat"])
    assert sorted(ids(index.search("x", k=9))) == ["bird", "dog"]


def test_searches_beside_writers_see_whole_states_only(create, words):
    """Writers replace all passages in one call each time; a reader must see one generation, never a mixture."""
    index = create(words)
    names = [f"p{i}" for i in range(20)]
    index.add([Passage(name, "generation 0 text") for name in names])
    stop = threading.Event()

    def write(worker):
        for generation in range(30):
            index.add([Passage(name, f"generation {worker}-{generation} text") for name in names])
        stop.set()

    def read():
        while not stop.is_set():
            hits = index.search("generation text", k=100)
            assert sorted(ids(hits)) == sorted(names)
            assert len({hit.passage.text for hit in hits}) == 1

    with ThreadPoolExecutor(6) as pool:
        for task in [*(pool.submit(write, worker) for worker in range(2)), *(pool.submit(read) for _ in range(4))]:
            task.result()


def test_a_thousand_small_adds_equal_one_large_one(create, words):
    passages = [Passage(f"{i:04}", f"passage number {i} about topic {i % 7}") for i in range(1000)]
    one = create(words)
    one.add(passages)
    many = create(words)
    for passage in passages:
        many.add([passage])
    assert many.search("topic 3 number 17", k=50) == one.search("topic 3 number 17", k=50)
