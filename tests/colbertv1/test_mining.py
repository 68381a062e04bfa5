"""Hard negatives: which ranks they come from, and what is never one."""

from __future__ import annotations

import logging

import pytest

from colbert_core import Index, Passage
from colbert_core.colbertv1.mining import as_collection, mine, mine_pairs, searcher
from colbert_core.train import Example

QUERIES = {"q": "query"}


def retriever(n, score=lambda rank: 100.0 - rank, calls=None):
    """Passages "1", "2" and so on at their ranks."""

    def search_many(queries, k):
        if calls is not None:
            calls.append((len(queries), k))
        return [[(str(rank), score(rank)) for rank in range(1, min(n, k) + 1)] for _ in queries]

    return search_many


def texts(names):
    return [f"text {name}" for name in names]


def negatives(qrels, search_many, **settings):
    (example,) = mine(QUERIES, {"q": qrels}, search_many, texts, **settings)
    assert example.query == "query"
    return [int(text.removeprefix("text ")) for text in example.negatives]


def test_negatives_come_from_the_window_in_the_order_of_their_ranks():
    drawn = negatives({"1": 1}, retriever(50), n_negatives=5, ranks=(10, 20))
    assert len(set(drawn)) == 5
    assert drawn == sorted(drawn)
    assert all(10 <= rank <= 20 for rank in drawn)


def test_all_of_a_window_that_is_just_large_enough_are_taken():
    assert negatives({"1": 1}, retriever(50), n_negatives=3, ranks=(4, 6)) == [4, 5, 6]


def test_no_relevant_passage_is_a_negative_but_one_judged_irrelevant_may_be():
    examples = list(mine(QUERIES, {"q": {"1": 1, "4": 2, "5": 0}}, retriever(50), texts, n_negatives=2, ranks=(4, 6)))
    assert [example.positive for example in examples] == ["text 1", "text 4"]
    assert all(example.negatives == ("text 5", "text 6") for example in examples)


def test_a_window_with_too_few_goes_on_to_the_ranks_behind_it():
    calls = []
    (first, *_) = mine(QUERIES, {"q": {"4": 1, "6": 1}}, retriever(50, calls=calls), texts, n_negatives=3, ranks=(4, 6))
    assert first.negatives == ("text 5", "text 7", "text 8")
    assert calls == [(1, 6), (1, 12)]


def test_a_collection_with_too_few_gives_fewer_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        assert negatives({"1": 1}, retriever(12), n_negatives=5, ranks=(10, 100)) == [10, 11, 12]
    assert "1 of 1 examples have fewer than 5 negatives" in caplog.text


def test_a_margin_drops_what_scores_almost_as_high_as_the_positive():
    # The positive at rank 2 scores 98, and 95 % of it is 93.1: ranks up to 6 score 94 and more.
    assert negatives({"2": 1}, retriever(50), n_negatives=3, ranks=(1, 9), margin=0.95) == [7, 8, 9]
    assert negatives({"2": 1}, retriever(50), n_negatives=3, ranks=(1, 3)) == [1, 3, 4]


def test_a_margin_holds_for_scores_below_zero():
    # -2 less 50 % of its size is -3.
    assert negatives({"2": 1}, retriever(9, score=lambda rank: float(-rank)), n_negatives=2, ranks=(1, 4), margin=0.5) == [3, 4]


def test_the_positives_score_is_looked_for_deeper_and_without_it_nothing_is_dropped():
    calls = []
    # The positive at rank 30 scores 70, and 95 % of it is 66.5, which rank 34 is the first below.
    assert negatives({"30": 1}, retriever(50, calls=calls), n_negatives=2, ranks=(1, 10), margin=0.95) == [34, 35]
    assert calls == [(1, 10), (1, 20), (1, 40)]
    calls.clear()
    drawn = negatives({"none": 1}, retriever(10**6, calls=calls), n_negatives=2, ranks=(1, 2), margin=0.9)
    assert drawn == [1, 2]
    assert calls[-1] == (1, 32)


def test_the_draw_is_decided_by_the_seed():
    settings = {"n_negatives": 5, "ranks": (1, 50)}
    first = negatives({"60": 1}, retriever(100), seed=1, **settings)
    assert first == negatives({"60": 1}, retriever(100), seed=1, **settings)
    assert first != negatives({"60": 1}, retriever(100), seed=2, **settings)


def test_many_queries_are_searched_together_and_those_without_a_positive_passed_over():
    calls = []
    queries = {str(number): f"query {number}" for number in range(100)}
    qrels = {str(number): {"1": number % 2} for number in range(100)}
    examples = list(mine(queries, qrels, retriever(50, calls=calls), texts, n_negatives=2, ranks=(5, 9)))
    assert [example.query for example in examples] == [f"query {number}" for number in range(1, 100, 2)]
    assert calls == [(50, 9)]
    assert len({example.negatives for example in examples}) > 1  # each its own draw


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ranks": (0, 5)}, r"ranks must be .* got \(0, 5\)"),
        ({"ranks": (6, 5)}, r"ranks must be .* got \(6, 5\)"),
        ({"n_negatives": 0}, "n_negatives must be at least 1, got 0"),
        ({"margin": 1.5}, "margin must be above 0 and at most 1, got 1.5"),
    ],
)
def test_settings_out_of_range_are_errors_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        mine(QUERIES, {"q": {"1": 1}}, retriever(9), texts, **{"n_negatives": 1, **settings})


def test_a_judged_query_without_text_is_an_error():
    with pytest.raises(ValueError, match="1 judged queries have no text, the first is 'other'"):
        mine(QUERIES, {"other": {"1": 1}}, retriever(9), texts, n_negatives=1)


def test_pairs_become_a_collection_with_each_text_once():
    pairs = [Example("q", "a"), Example("q", "b"), Example("r", "a")]
    assert as_collection(pairs) == ({"0": "q", "1": "r"}, {"0": {"0": 1, "1": 1}, "1": {"0": 1}}, {"0": "a", "1": "b"})


def test_an_index_of_this_package_is_a_retriever(words):
    index = Index.create(None, words)
    index.add([Passage("a", "cats purr"), Passage("b", "cats sleep"), Passage("c", "rust")])
    (example,) = mine({"q": "cats purr"}, {"q": {"a": 1}}, searcher(index), lambda ids: ids, n_negatives=1, ranks=(1, 2))
    assert (example.positive, example.negatives) == ("a", ("b",))


def test_the_pieces_of_a_document_are_the_document_and_k_counts_documents(words):
    index = Index.create(None, words)
    pieces = [("a#1", "cats purr"), ("a#2", "cats sleep"), ("a#3", "cats purr and sleep"), ("b#1", "cats"), ("c", "rust")]
    index.add([Passage(name, text, {"document_id": name[0]} if "#" in name else {}) for name, text in pieces])
    search_many = searcher(index)
    assert [[name for name, _ in ranked] for ranked in search_many(["cats purr", "rust"], 2)] == [["a", "b"], ["c", "a"]]
    assert [name for name, _ in search_many(["cats purr"], 9)[0]] == ["a", "b", "c"]
    (example,) = mine({"q": "cats purr"}, {"q": {"a": 1}}, search_many, lambda ids: ids, n_negatives=2, ranks=(1, 2))
    assert (example.positive, example.negatives) == ("a", ("b", "c"))


def test_texts_are_asked_for_in_large_groups_which_changes_no_example(monkeypatch):
    group_sizes = []

    def counted(names):
        group_sizes.append(len(names))
        return texts(names)

    queries = {str(number): f"query {number}" for number in range(200)}
    qrels = {name: {"1": 1} for name in queries}
    examples = list(mine(queries, qrels, retriever(50), counted, n_negatives=2, ranks=(5, 9)))
    assert group_sizes == [6]
    monkeypatch.setattr("colbert_core.colbertv1.mining._TEXTS_AT_A_TIME", 300)
    assert list(mine(queries, qrels, retriever(50), counted, n_negatives=2, ranks=(5, 9))) == examples
    assert group_sizes[1:] == [6, 6]
    assert list(mine({}, {}, retriever(50), counted, n_negatives=2)) == []


def test_pairs_are_each_others_candidates(words):
    pairs = [
        Example("cats", "cats purr"),
        Example("cats", "cats sleep"),
        Example("dogs", "dogs and cats bark"),
        Example("rust", "rust"),
    ]
    mined = list(mine_pairs(pairs, words, n_negatives=1, ranks=(1, 3)))
    assert [example.positive for example in mined] == [example.positive for example in pairs]
    assert mined[0].negatives == mined[1].negatives == ("dogs and cats bark",)
    assert all(example.positive not in example.negatives for example in mined)


# The same text under another id


def mined(corpus, ranking, relevant=("a",), query="query", **settings):
    """Negatives of a query whose passages are ranked in this order; and how often texts were asked for."""
    asked = []

    def texts_of(names):
        asked.append(list(names))
        return [corpus[name] for name in names]

    def search_many(queries, k):
        return [[(name, 100.0 - rank) for rank, name in enumerate(ranking[:k])] for _ in queries]

    qrels = {"q": dict.fromkeys(relevant, 1)}
    examples = list(mine({"q": query}, qrels, search_many, texts_of, **{"n_negatives": 2, "ranks": (1, 3), **settings}))
    return [example.negatives for example in examples], asked


CORPUS = {"a": "Cats purr", "copy": "cats  purr ", "b": "dogs bark", "c": "rust", "d": "mats"}


def test_a_copy_of_the_positive_is_no_negative():
    assert mined(CORPUS, ["a", "copy", "b", "c", "d"]) == ([("dogs bark", "rust")], [["a", "copy", "b"], ["c"]])
    assert mined(CORPUS, ["a", "b", "c", "copy", "d"])[1] == [["a", "b", "c"]]  # without copies, texts are asked for once


def test_a_copy_of_another_positive_or_of_the_query_is_none_either():
    assert mined(CORPUS, ["b", "copy", "c", "d"], ["b", "a"])[0] == [("rust", "mats")] * 2
    assert mined(CORPUS, ["a", "copy", "b", "c"], ["b"], query="cats purr", n_negatives=1)[0] == [("rust",)]


def test_many_copies_are_passed_by_and_the_search_goes_deeper():
    corpus = {**CORPUS, **{f"copy{n}": "CATS PURR" for n in range(9)}}
    ranking = ["a", *(f"copy{n}" for n in range(9)), "b", "c"]
    assert mined(corpus, ranking)[0] == [("dogs bark", "rust")]


def test_where_all_are_copies_there_are_fewer_and_it_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        assert mined(CORPUS, ["a", "copy", "b"])[0] == [("dogs bark",)]
    assert "1 of 1 examples have fewer than 2 negatives" in caplog.text


def test_the_passage_with_the_query_s_own_id_is_none():
    assert mined({**CORPUS, "q": "a title, and the query"}, ["q", "a", "b", "c"])[0] == [("dogs bark", "rust")]


def test_what_answers_the_same_query_under_another_id_is_none():
    queries, qrels = {"q": "pets?", "again": "Pets? ", "other": "pets"}, {"q": {"1": 1}, "again": {"2": 1}, "other": {"3": 1}}
    found = mine(queries, qrels, retriever(9), texts, n_negatives=2, ranks=(1, 2))
    assert [example.negatives for example in found] == [("text 3", "text 4"), ("text 3", "text 4"), ("text 1", "text 2")]


def test_copies_change_no_other_example(monkeypatch):
    queries = {f"q{number}": f"query {number}" for number in range(200)}
    qrels = {name: {"1": 1} for name in queries}

    def with_copies(names):
        return ["text 1" if name == "7" else f"text {name}" for name in names]

    before = list(mine(queries, qrels, retriever(50), texts, n_negatives=2, ranks=(5, 9)))
    after = list(mine(queries, qrels, retriever(50), with_copies, n_negatives=2, ranks=(5, 9)))
    changed = [old != new for old, new in zip(before, after, strict=True)]
    assert changed == ["text 7" in example.negatives for example in before]
    assert not any("text 1" in example.negatives for example in after)
    monkeypatch.setattr("colbert_core.colbertv1.mining._TEXTS_AT_A_TIME", 300)
    assert list(mine(queries, qrels, retriever(50), with_copies, n_negatives=2, ranks=(5, 9))) == after
