"""Hybrid search ranks by relevance + weight * coverage, words mode by coverage: exactly, whatever else was found."""

from __future__ import annotations

import math
import pickle
from collections import Counter

import numpy as np
import pytest
from builders.encoders import SpanEncoder, WordEncoder
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_core import Index, Passage, threads
from colbert_core.search.lexical import K1, B, WordCounts, weight_for
from colbert_core.search.modes import HYBRID_WEIGHT

WORDS = ["red", "green", "blue", "cat", "dog", "bird", "fish", "one", "two", "ECONNRESET"]
TEXTS = {
    "reset": "The request failed with ECONNRESET at once",
    "einsum": "numpy.einsum_path finds an order for the sums",
    "cats": "cats purr when they are content",
    "dogs": "dogs wag their tails",
}


def make(texts, **settings):
    index = Index.create(None, WordEncoder(dim=16, window=6), **settings)
    index.add([Passage(name, text, {"n": len(text)}) for name, text in texts.items()])
    return index


@pytest.fixture(scope="module")
def index():
    return make(TEXTS)


def ids(hits):
    return [hit.passage.id for hit in hits]


def coverages(texts, query):
    """BM25 by its bound, straight from the formula; words of these tests are their own stems."""
    lists = {name: text.lower().split() for name, text in texts.items()}
    average = sum(map(len, lists.values())) / len(lists) or 1
    terms = dict.fromkeys(query.lower().split())
    found, bound = Counter(), 0.0
    for term in terms:
        n = sum(term in words for words in lists.values())
        idf = math.log(1 + (len(lists) - n + 0.5) / (n + 0.5))
        bound += (K1 + 1) * idf
        for name, words in lists.items():
            times = words.count(term)
            found[name] += idf * times * (K1 + 1) / (times + K1 * (1 - B + B * len(words) / average))
    return {name: value / bound for name, value in found.items()}


# By hand


def test_coverage_by_hand():
    with make({"a": "red blue", "b": "green", "c": "green green green"}) as three:
        (hit,) = three.search("red fish", mode="words")
    # red is in one of three passages, fish in none; lengths are 2, 1, 3, so 2 on average.
    red, fish = math.log(1 + 2.5 / 1.5), math.log(1 + 3.5 / 0.5)
    assert hit.passage.id == "a"
    assert hit.coverage == hit.score == hit.relevance == hit.value == pytest.approx(red / (1 + 0.9) / (red + fish))


def test_a_hybrid_hit_has_both_and_their_sum(index):
    hit = index.search("ECONNRESET", k=1, mode="hybrid", weight=0.4)[0]
    (plain,) = index.search("ECONNRESET", k=1)
    assert (hit.score, hit.relevance, hit.span) == (plain.score, plain.relevance, plain.span)
    assert (plain.coverage, plain.hybrid_relevance) == (None, None)
    assert hit.hybrid_relevance == hit.value == pytest.approx(hit.relevance + 0.4 * hit.coverage)


def test_identifiers_are_found_whole_and_by_their_parts(index):
    assert ids(index.search("numpy.einsum_path", mode="words")) == ["einsum"]
    assert ids(index.search("einsum", mode="words")) == ["einsum"]
    assert ids(index.search("econnreset", mode="words")) == ["reset"]


def test_a_threshold_is_about_the_sum(index):
    values = [hit.value for hit in index.search("cats purr", mode="hybrid")]
    assert values == sorted(values, reverse=True)
    assert len(index.search("cats purr", mode="hybrid", min_relevance=values[1])) == 2


@pytest.mark.parametrize("query", ["the of and", "??? !", "zzz"])
def test_a_query_without_words_of_the_collection_is_ranked_by_vectors(index, query):
    hits = index.search(query, mode="hybrid")
    assert ids(hits) == ids(index.search(query))
    assert {hit.coverage for hit in hits} == {0.0}
    assert index.search(query, mode="words") == []


@pytest.mark.parametrize(
    "query", ['"cats', "cats*", "NEAR(cats purr)", "terms:cats", "cats OR", "-cats", "(cats", "{cats}", "^cats"]
)
def test_a_query_is_no_language(index, query):
    assert "cats" in ids(index.search(query, mode="words"))


def test_a_query_may_be_very_long(index):
    assert ids(index.search("cats " * 10_000, k=1, mode="hybrid")) == ["cats"]
    assert ids(index.search(" ".join(f"w{n}" for n in range(10_000)) + " cats", k=1, mode="words")) == ["cats"]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"mode": "bm25"}, ValueError, "mode must be one of maxsim, hybrid, words, got 'bm25'"),
        ({"mode": "hybrid", "weight": 1.5}, ValueError, "weight is a number from 0 to 1, got 1.5"),
        ({"mode": "hybrid", "weight": float("nan")}, ValueError, "weight is a number from 0 to 1, got nan"),
        ({"mode": "hybrid", "weight": "much"}, TypeError, "weight is a number from 0 to 1, got 'much'"),
        ({"weight": 0.5}, ValueError, "weight is for mode='hybrid', got weight=0.5 with mode='maxsim'"),
    ],
    ids=str,
)
def test_bad_modes_and_weights_are_named(index, options, error, words):
    for search in (index.search, index.search_diverse):
        with pytest.raises(error, match=words):
            search("cats", **options)
    for search in (index.search_many, index.search_mean):
        with pytest.raises(error, match=words):
            search(["cats"], **options)


def test_vectors_have_no_words(index):
    (matrix,) = index.encoder.encode_queries(["cats"])
    for mode in ("hybrid", "words"):
        with pytest.raises(TypeError, match=f"mode='{mode}' needs the words of each query, got a ndarray"):
            index.search(matrix, mode=mode)


@pytest.mark.parametrize(
    ("query", "words"), [("", "The query is empty"), ("  ", "The query is empty"), ("\ud800", "Query 0 has a lone surrogate")]
)
def test_a_query_that_is_none_is_refused_in_words_mode_as_well(index, query, words):
    with pytest.raises(ValueError, match=words):
        index.search(query, mode="words")


def test_an_index_without_words_says_so():
    bare = Index.create(dim=4)
    bare.add([Passage("a", "cats")], embeddings=[np.eye(4, dtype=np.float32)])
    with pytest.raises(ValueError, match="made without words; .*mode='maxsim'"):
        bare.search("cats", mode="words")
    with make({"a": "cats"}, words=False) as other, pytest.raises(ValueError, match="made without words"):
        other.search("cats", mode="hybrid")


def test_vectors_from_elsewhere_may_have_words():
    bare = Index.create(dim=4, words="words")
    bare.add([Passage("a", "The cats"), Passage("b", "dogs")], embeddings=[np.eye(4, dtype=np.float32)] * 2)
    assert ids(bare.search("the", mode="words")) == ["a"]  # and no encoder is needed


def test_an_unknown_analyser_is_refused():
    with pytest.raises(ValueError, match="words must be one of english, words, trigrams, .* got 'german'"):
        Index.create(words="german")


def test_words_mode_shows_the_window_that_has_most_of_them():
    with make({"long": "red " * 6 + "blue cat " * 3 + "green " * 6}) as long:
        (hit,) = long.search("blue cat", mode="words")
        assert hit.text.split() == ["blue", "cat"] * 3


def test_evidence_of_words_mode_loads_the_model_for_it(index):
    assert index.search("cats", k=1, mode="words", evidence=True)[0].evidence.passage_id == "cats"


def test_words_that_both_have_are_marked_where_words_rank():
    index = Index.create(None, SpanEncoder(dim=16, window=20))
    index.add([Passage("einsum", TEXTS["einsum"])])
    query = "does numpy.einsum_path purr"
    (hit,) = index.search(query, k=1, ids=["einsum"], mode="hybrid", evidence=True)
    (plain,) = index.search(query, k=1, ids=["einsum"], evidence=True)
    marked = [hit.passage.text[mark.start : mark.end] for mark in hit.evidence.highlights]
    assert "".join(marked).startswith("numpy")
    assert "einsum" in " ".join(marked)
    assert (hit.evidence.score, hit.evidence.matches) == (plain.evidence.score, plain.evidence.matches)
    assert hit.evidence.unmatched == ("does", "purr")
    assert plain.evidence.shared == ()
    explained = index.explain(query, "einsum", mode="hybrid")
    assert explained.to_dict() == index.explain(query, hit, mode="words").to_dict() == hit.evidence.to_dict()
    assert index.explain(query, "einsum").to_dict() == plain.evidence.to_dict()
    with pytest.raises(ValueError, match="mode must be one of"):
        index.explain(query, "einsum", mode="bm25")


def test_the_weight_is_that_of_rare_words():
    frequent, rare = {"the": 900, "house": 250}, {"econnreset": 1, "xyzzy": 0}
    counts = WordCounts(1000, 9000, frequent | rare)
    assert weight_for([], counts) == weight_for(frequent, counts) == 0.1
    assert weight_for(rare, counts) == 0.5
    rarity = math.log(1 + 750.5 / 250.5) / math.log(1 + 999.5 / 1.5) / 2 + 0.5
    assert weight_for(["house", "econnreset"], counts) == pytest.approx(0.1 + 0.4 * (rarity - 0.5) / 0.25)
    assert weight_for(rare, WordCounts(20, 100, rare)) < 0.2  # of few passages nothing is known to be rare
    assert weight_for(["cat"], WordCounts(20, 100, {"cat": 10})) == 0.1


def test_the_usual_weight_of_a_hit():
    texts = {f"p{n}": f"the house w{n}" for n in range(1100)}
    with make(texts) as index:
        for query, weight in {"the house": 0.1, "w7": 0.5}.items():
            hit = index.search(query, k=1, mode="hybrid")[0]
            assert hit.hybrid_relevance == pytest.approx(hit.relevance + weight * hit.coverage)


def test_pickles_and_copies_keep_the_words(index, tmp_path):
    expected = index.search("ECONNRESET cats", mode="hybrid")
    assert pickle.loads(pickle.dumps(index)).search("ECONNRESET cats", mode="hybrid") == expected
    index.save(tmp_path / "x.idx")
    with Index.open(tmp_path / "x.idx", index.encoder) as copy:
        assert copy.search("ECONNRESET cats", mode="hybrid") == expected


def test_parts_of_a_collection_that_know_all_counts_give_what_the_whole_gives():
    texts = {f"p{n}": " ".join(WORDS[n % 7 : n % 7 + 3]) for n in range(12)}
    parts = [make({name: text for name, text in texts.items() if int(name[1:]) % 2 == rest}) for rest in (0, 1)]
    with make(texts) as whole:
        together = WordCounts.together([part.word_counts(["red cat"]) for part in parts])
        assert together == whole.word_counts(["red cat"])


# Against brute force


texts = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from([f"p{n:02}" for n in range(40)]), texts, min_size=1, max_size=40),
    st.lists(st.sampled_from([*WORDS, "elsewhere"]), min_size=1, max_size=4).map(" ".join),
    st.integers(1, 12),
    st.sampled_from([0.0, 0.1, 0.15, 0.5, 1.0]),
    st.data(),
)
def test_the_best_are_those_of_the_formula(first, query, k, weight, data):
    index = make(first)
    changed = data.draw(st.dictionaries(st.sampled_from(sorted(first)), texts, max_size=5))
    index.add([Passage(name, text, {"n": len(text)}) for name, text in changed.items()])
    gone = data.draw(st.lists(st.sampled_from(sorted(first)), max_size=3))
    index.delete(gone)
    left = {name: text for name, text in (first | changed).items() if name not in gone}
    some = data.draw(st.none() | st.lists(st.sampled_from(sorted(first)), max_size=20))
    least = data.draw(st.none() | st.integers(0, 60))
    restriction = {"ids": some, "where": None if least is None else {"n": {"$gte": least}}}
    allowed = [name for name, text in left.items() if (some is None or name in some) and (least is None or len(text) >= least)]
    covered = coverages(left, query) if left else {}
    relevances = {hit.passage.id: hit.relevance for hit in index.search(query, k=100, exact=True)}
    sums = {name: relevances[name] + weight * covered[name] for name in allowed if left[name]}
    hits = index.search(query, k=k, mode="hybrid", weight=weight, **restriction)
    assert [hit.value for hit in hits] == pytest.approx(sorted(sums.values(), reverse=True)[:k], abs=1e-6)
    assert len({*ids(hits)}) == len(hits)
    for hit in hits:
        assert hit.value == pytest.approx(sums[hit.passage.id], abs=1e-6)
        assert hit.coverage == pytest.approx(covered[hit.passage.id], abs=1e-9)
    assert ids(hits) == sorted(ids(hits), key=lambda name: (-{hit.passage.id: hit.value for hit in hits}[name], name))
    by_words = index.search(query, k=k, mode="words", **restriction)
    shares = {name: covered[name] for name in allowed if covered[name] > 0}
    assert [hit.coverage for hit in by_words] == pytest.approx(sorted(shares.values(), reverse=True)[:k], abs=1e-9)
    assert index.verify(n_queries=1).problems == []


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("nbits", [None, 2])
def test_what_is_found_among_thousands_is_proved_to_be_the_best(nbits, exact, tmp_path):
    random = np.random.default_rng(0)
    words = [f"w{n}" for n in range(300)]
    collection = {f"p{n}": " ".join(random.choice(words, 12)) for n in range(1200)}
    index = Index.create(tmp_path / "x.idx", WordEncoder(dim=32, window=20), nbits=nbits or 32)
    index.add([Passage(name, text) for name, text in collection.items()])
    index.compact()
    for query in (" ".join(random.choice(words, 5)) for _ in range(10)):
        relevances = {hit.passage.id: hit.relevance for hit in index.search(query, k=1200, exact=True)}
        covered = coverages(collection, query)
        sums = sorted((relevances[name] + HYBRID_WEIGHT * covered[name] for name in collection), reverse=True)[:10]
        found = [hit.value for hit in index.search(query, mode="hybrid", weight=HYBRID_WEIGHT, exact=exact)]
        if exact or nbits is None:
            assert found == pytest.approx(sums, abs=1e-6)
        else:
            assert sum(found) >= 0.99 * sum(sums)


def test_the_mean_over_queries_is_that_of_the_sums():
    texts = {f"p{n}": " ".join(WORDS[n % 9 : n % 9 + 2]) for n in range(30)}
    with make(texts) as index:
        for mode in ("hybrid", "words"):
            queries = ["red cat", "fish", "elsewhere"]
            each = [{hit.passage.id: hit.value for hit in index.search(query, k=30, mode=mode)} for query in queries]
            means = {name: sum(found.get(name, 0) for found in each) / 3 for name in texts}
            best = sorted((name for name in texts if means[name] > 0), key=lambda name: (-means[name], name))[:5]
            hits = index.search_mean(queries, k=5, mode=mode)
            assert ids(hits) == best
            assert [hit.value for hit in hits] == pytest.approx([means[name] for name in best])


def test_several_queries_at_once_find_what_each_finds_by_itself(monkeypatch, tmp_path):
    monkeypatch.setattr(threads, "_chosen", 4)
    texts = {f"p{n}": " ".join(WORDS[n % 9 : n % 9 + 2] * 9) for n in range(60)}
    with Index.create(tmp_path / "x.idx", WordEncoder(dim=16, window=6)) as index:
        index.add([Passage(name, text) for name, text in texts.items()])
        for mode in ("words", "hybrid"):
            assert index.search_many(WORDS * 8, mode=mode) == [index.search(word, mode=mode) for word in WORDS] * 8


def test_an_index_says_whether_it_has_words(index):
    assert index.has_words()
    assert not Index.create(dim=4).has_words()
    assert Index.create(dim=4, words="words").has_words()
