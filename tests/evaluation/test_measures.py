"""Measures against values worked out by hand, tests between runs, and runs that are timed."""

from __future__ import annotations

import random
import sys
from types import SimpleNamespace

import pytest

from colbert_core import Index, MissingExtraError, Passage, Reranker
from colbert_core.evaluation.measures import (
    Point,
    compare,
    evaluate,
    nanocolbert_table,
    plot_recall_latency,
    rerank_run,
    run_of,
    search_engine,
    search_index,
)

QRELS = {"q1": {"a": 2, "b": 1, "c": 0}, "q2": {"d": 1}, "q3": {"e": 1}}
RUN = {"q1": {"c": 0.9, "a": 0.8, "x": 0.7, "b": 0.6}, "q2": {"y": 0.5, "d": 0.4}, "q9": {"a": 1.0}}
# By hand, q3 without results being 0 everywhere; trec_eval -c -m ndcg_cut.10,recip_rank,recall.2,success.1,2 agrees:
# nDCG@10  q1 (2 / log2(3) + 1 / log2(5)) / (2 / log2(2) + 1 / log2(3)) = 1.692536 / 2.630930 = .643322; q2 1 / log2(3) = .630930
# MRR@10   both have the first relevant passage in the second place
# Recall@2 q1 one of two, q2 one of one
GOLDEN = {
    "nDCG@10": (0.643322, 0.630930, 0.0, 0.424751),
    "nDCG@2": (0.479625, 0.630930, 0.0, 0.370185),  # q1 (2 / log2(3)) / 2.630930
    "MRR@10": (0.5, 0.5, 0.0, 1 / 3),
    "MRR@1": (0.0, 0.0, 0.0, 0.0),
    "Recall@2": (0.5, 1.0, 0.0, 0.5),
    "Recall@50": (1.0, 1.0, 0.0, 2 / 3),
    "Success@1": (0.0, 0.0, 0.0, 0.0),
    "Success@5": (1.0, 1.0, 0.0, 2 / 3),
}


@pytest.mark.parametrize("measure", GOLDEN)
def test_a_measure_has_the_value_worked_out_by_hand(measure):
    evaluation = evaluate(RUN, QRELS, [measure])
    *each, mean = GOLDEN[measure]
    assert list(evaluation.by_query[measure].values()) == pytest.approx(each, abs=1e-6)
    assert evaluation.means == {measure: pytest.approx(mean, abs=1e-6)}


def test_measures_equal_those_of_trec_eval():
    pytrec_eval = pytest.importorskip("pytrec_eval")
    dice = random.Random(0)
    qrels = {f"q{q}": {f"p{p}": dice.choice([0, 0, 1, 3]) for p in range(20)} | {"p0": 1} for q in range(10)}
    run = {f"q{q}": {f"p{p}": dice.random() for p in dice.sample(range(40), 30)} for q in range(10)}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.5", "success.5", "recip_rank"}).evaluate(run)
    ours = evaluate(run, qrels, ["nDCG@10", "Recall@5", "Success@5", "MRR@1000"]).by_query
    for name, named in {
        "nDCG@10": "ndcg_cut_10",
        "Recall@5": "recall_5",
        "Success@5": "success_5",
        "MRR@1000": "recip_rank",
    }.items():
        assert ours[name] == pytest.approx({query: values[named] for query, values in theirs.items()})


def test_an_evaluation_counts_queries_without_results_and_without_judgements():
    evaluation = evaluate(RUN, QRELS)
    assert (evaluation.n_queries, evaluation.n_missing, evaluation.n_unjudged) == (3, 1, 1)
    assert list(evaluation.means) == ["nDCG@10", "MRR@10", "Recall@100", "Success@5"]
    assert evaluate({**RUN, "q3": {}}, QRELS) == evaluation  # nothing found is the same as not asked


# Queries that are passages: of q the query itself comes first, then what answers it. By hand, without it: rank 1, all are 1; with
# it: rank 2, nDCG@10 1 / log2(3) = .630930, MRR@10 1 / 2, Success@1 0.
OWN = {"q": {"q": 3.0, "a": 2.0, "b": 1.0}, "r": {"a": 1.0}}
OWN_QRELS = {"q": {"a": 1}, "r": {"a": 1}}


def test_a_passage_with_the_query_s_own_id_is_left_out_as_beir_does():
    measures = ["nDCG@10", "MRR@10", "Success@1"]
    left_out = evaluate(OWN, OWN_QRELS, measures)
    assert left_out.n_identical == 1
    assert [values["q"] for values in left_out.by_query.values()] == [1.0, 1.0, 1.0]
    counted = evaluate(OWN, OWN_QRELS, measures, ignore_identical_ids=False)
    assert counted.n_identical == 0
    assert [values["q"] for values in counted.by_query.values()] == pytest.approx([0.630930, 0.5, 0.0], abs=1e-6)


def test_a_query_that_found_only_itself_has_no_results():
    evaluation = evaluate({"q": {"q": 1.0}, "r": {"a": 1.0}}, OWN_QRELS)
    assert (evaluation.n_missing, evaluation.n_identical, evaluation.means["MRR@10"]) == (1, 1, 0.5)


def test_a_passage_with_the_query_s_id_that_is_judged_relevant_counts():
    evaluation = evaluate({"1": {"1": 2.0, "2": 1.0}}, {"1": {"1": 1}}, ["MRR@10"])
    assert (evaluation.means, evaluation.n_identical) == ({"MRR@10": 1.0}, 0)
    assert evaluate({"1": {"1": 2.0, "2": 1.0}}, {"1": {"1": 0, "2": 1}}, ["MRR@10"]).means == {"MRR@10": 1.0}


def test_runs_are_compared_without_the_queries_themselves():
    without = {"q": {"a": 2.0, "b": 1.0}, "r": {"a": 1.0}}
    assert compare(OWN, without, OWN_QRELS).difference == 0
    assert compare(OWN, without, OWN_QRELS, ignore_identical_ids=False).difference == pytest.approx(
        (1 - 0.630930) / 2, abs=1e-6
    )


def test_equal_scores_are_ranked_from_the_last_id_to_the_first_as_trec_eval_does():
    for measure in ("MRR@1", "nDCG@1", "Recall@1", "Success@1"):
        assert evaluate({"q": {"a": 1.0, "b": 1.0}}, {"q": {"a": 1}}, [measure]).means[measure] == 0.0
        assert evaluate({"q": {"a": 1.0, "b": 1.0}}, {"q": {"b": 1}}, [measure]).means[measure] == 1.0


@pytest.mark.parametrize("name", ["nDCG", "nDCG@0", "Precision@5", "nDCG@ten", "", 7])
def test_an_unknown_measure_is_an_error_that_names_the_known(name):
    with pytest.raises(ValueError, match="write nDCG@k, MRR@k, Recall@k or Success@k"):
        evaluate(RUN, QRELS, [name])


def test_names_of_the_same_measure_have_the_same_values():
    evaluation = evaluate(RUN, QRELS, ["MRR@10", "RR@10", "mrr@10"])
    assert list(evaluation.means) == ["MRR@10", "RR@10", "mrr@10"]
    assert list(evaluation.means.values()) == pytest.approx([1 / 3] * 3)
    assert evaluation.by_query["MRR@10"] == evaluation.by_query["mrr@10"] == {"q1": 0.5, "q2": 0.5, "q3": 0.0}


def test_a_run_of_other_queries_is_an_error():
    with pytest.raises(ValueError, match="None of the 1 queries of the run is judged, such as 'z' where 'q1' is judged"):
        evaluate({"z": {"a": 1.0}}, QRELS)
    with pytest.raises(ValueError, match="it is empty"):
        evaluate({}, QRELS)
    with pytest.raises(ValueError, match="no judgements"):
        evaluate(RUN, {})
    with pytest.raises(ValueError, match="'q1' that is no finite number"):
        evaluate({"q1": {"a": float("nan")}}, QRELS)
    with pytest.raises(ValueError, match="list of names"):
        evaluate(RUN, QRELS, "nDCG@10")


def test_evaluation_without_ir_measures_names_the_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(MissingExtraError, match="pip install ir-measures"):
        evaluate(RUN, QRELS)


# Comparisons


def test_two_runs_compared_have_the_p_values_worked_out_by_hand():
    """Differences .5, 0 and 1: t = .5 / (.5 / sqrt(3)) = 1.7321, which is p = .2254 with 2 degrees of freedom. Of the 8 ways
    to swap, 4 give a difference as large."""
    better = {"q1": {"a": 1.0}, "q2": {"y": 0.5, "d": 0.4}, "q3": {"e": 1.0}}
    comparison = compare(RUN, better, QRELS, "MRR@10")
    assert (comparison.mean_a, comparison.mean_b, comparison.difference) == pytest.approx((1 / 3, 5 / 6, 1 / 2))
    assert comparison.t_test == pytest.approx(0.2254, abs=1e-4)
    assert comparison.randomisation == pytest.approx(0.5)
    assert (comparison.better, comparison.worse, comparison.equal) == (2, 0, 1)


def test_a_comparison_the_other_way_round_has_the_same_p_values():
    there, back = compare(RUN, {"q3": {"e": 1.0}}, QRELS), compare({"q3": {"e": 1.0}}, RUN, QRELS)
    assert there.difference == -back.difference
    assert (there.t_test, there.randomisation) == pytest.approx((back.t_test, back.randomisation))
    assert (there.better, there.worse) == (back.worse, back.better) == (1, 2)


def test_a_run_is_no_better_than_itself():
    comparison = compare(RUN, RUN, QRELS)
    assert (comparison.difference, comparison.t_test, comparison.randomisation, comparison.equal) == (0.0, 1.0, 1.0, 3)


def test_a_difference_that_is_the_same_for_all_queries_is_no_division_by_zero():
    qrels = {f"q{number}": {"a": 1} for number in range(20)}
    worse, better = ({query: dict(scores) for query in qrels} for scores in ({"x": 1.0, "a": 0.5}, {"a": 1.0}))
    comparison = compare(worse, better, qrels, "MRR@10")
    assert comparison.t_test == 0.0
    assert comparison.randomisation < 0.001
    assert comparison == compare(worse, better, qrels, "MRR@10")  # the same random signs


def test_one_query_cannot_be_compared():
    with pytest.raises(ValueError, match="at least 2 judged queries, got 1"):
        compare(RUN, RUN, {"q1": {"a": 1}})


# The published table


def test_the_table_puts_percents_beside_those_published():
    table = nanocolbert_table({"MRR@10": 0.3604, "Recall@1000": 0.9681, "nDCG@10": 0.1})
    rows = [line.split() for line in table.splitlines()]
    assert rows[1:] == [
        ["MRR@10", "36.0", "36.0", "36.0"],
        ["Recall@50", "-", "82.9", "83.3"],
        ["Recall@200", "-", "92.3", "91.9"],
        ["Recall@1000", "96.8", "96.8", "96.3"],
    ]
    assert len({len(line) for line in table.splitlines()}) == 1
    with pytest.raises(ValueError, match="must have one of MRR@10"):
        nanocolbert_table({"nDCG@10": 0.1})


# Runs

PASSAGES = [Passage("a", "the cat sat on a mat"), Passage("b", "dogs bark"), Passage("c", "rust is a language")]
QUERIES = {"q1": "cat mat", "q2": "rust language"}


@pytest.fixture
def index(words):
    index = Index.create(None, words)
    index.add(PASSAGES)
    return index


@pytest.mark.parametrize("exact", [True, False])
def test_a_run_of_an_index_has_its_scores_and_its_latency(index, exact):
    timed = run_of(search_index(index, 2, exact=exact), QUERIES, progress=False)
    assert list(timed.run) == ["q1", "q2"]
    assert next(iter(timed.run["q2"])) == "c"
    assert timed.run["q1"]["a"] == pytest.approx(2.0, abs=1e-5)
    assert len(timed.run["q1"]) == 2
    assert 0 < timed.median_ms <= timed.p95_ms


def test_a_run_of_any_engine_gets_its_settings(words):
    calls = []

    def search_many(queries, k, **settings):
        calls.append((list(queries), k, settings))
        return [[("a", 1.0)] for _ in queries]

    timed = run_of(search_engine(SimpleNamespace(search_many=search_many), 7, nprobe=3), QUERIES, progress=False)
    assert timed.run == {"q1": {"a": 1.0}, "q2": {"a": 1.0}}
    assert calls[-1] == (["rust language"], 7, {"nprobe": 3})


def test_a_run_without_queries_or_with_a_passage_twice_is_an_error():
    with pytest.raises(ValueError, match="no queries"):
        run_of(lambda texts: [[] for _ in texts], {})
    with pytest.raises(ValueError, match="found 2 passages for query 'q1', of which only 1 differ"):
        run_of(lambda texts: [[("a", 1.0), ("a", 0.5)]], QUERIES)


def test_a_run_reranked_has_the_scores_of_an_index_for_its_passages(index, words):
    first = {"q1": {"b": 3.0, "a": 2.0, "c": 1.0}, "q2": {"a": 1.0}}
    texts = {passage.id: passage for passage in PASSAGES}
    timed = rerank_run(Reranker(words), first, QUERIES, texts, depth=2, progress=False)
    assert list(timed.run["q1"]) == ["a", "b"]  # c stood below depth
    assert list(timed.run["q2"]) == ["a"]
    exact = run_of(search_index(index, 3, exact=True), QUERIES, progress=False).run
    assert timed.run["q1"]["a"] == pytest.approx(exact["q1"]["a"], abs=1e-5)


def test_reranking_needs_the_texts_and_a_run_of_the_queries(words):
    texts = {passage.id: passage for passage in PASSAGES}
    with pytest.raises(ValueError, match="passage 'z' for query 'q1', which has no text"):
        rerank_run(Reranker(words), {"q1": {"z": 1.0}}, QUERIES, texts)
    with pytest.raises(ValueError, match="none of the 2 queries"):
        rerank_run(Reranker(words), {"other": {"a": 1.0}}, QUERIES, texts)
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        rerank_run(Reranker(words), {"q1": {"a": 1.0}}, QUERIES, texts, depth=0)


# Plots


def test_a_plot_without_matplotlib_names_the_pip_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match="pip install matplotlib"):
        plot_recall_latency([Point("plaid", 0.9, 3.0)], tmp_path / "plot.png")
    with pytest.raises(ValueError, match="no points"):
        plot_recall_latency([], tmp_path / "plot.png")


def test_a_plot_is_written_as_its_name_says(tmp_path):
    pytest.importorskip("matplotlib")
    points = [Point("plaid", 0.9, 3.0), Point("plaid", 0.95, 6.0), Point("ivfpq", 0.92, 40.0)]
    plot_recall_latency(points, tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text()
