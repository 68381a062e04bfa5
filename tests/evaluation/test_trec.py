"""Files of runs and of judgements, as trec_eval has them."""

from __future__ import annotations

import pytest

from colbert_core.evaluation.trec import leave_out_identical_ids, read_qrels, read_run, write_run


def test_a_run_that_was_written_is_read_again_to_the_last_bit(tmp_path):
    run = {"q1": {"a": 1 / 3, "b": 0.1}, "q2": {"b": -2.5}}
    write_run(tmp_path / "run.trec", run, "me")
    assert (tmp_path / "run.trec").read_text().splitlines()[0] == "q1 Q0 a 1 0.3333333333333333 me"
    assert read_run(tmp_path / "run.trec") == run
    assert [file.name for file in tmp_path.iterdir()] == ["run.trec"]


def test_a_run_is_ranked_by_score_and_not_by_the_rank_that_stands_there(tmp_path):
    (tmp_path / "run.trec").write_text("q Q0 a 1 0.5 x\nq Q0 b 2 0.9 x\n")
    assert list(read_run(tmp_path / "run.trec")["q"]) == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("q Q0 a 1 0.5 x\nq a 1\n", "line 2 has 3 columns"),
        ("q Q0 a 1 high x\n", "line 1 has the score 'high'"),
        ("q Q0 a 1 nan x\n", "line 1 has the score 'nan'"),
        ("q Q0 a 1 0.5 x\nq Q0 a 2 0.4 x\n", "line 2 has the passage 'a' for the query 'q' a second time"),
        ("\n", "is empty"),
    ],
)
def test_a_bad_line_of_a_run_is_an_error_with_its_number(tmp_path, text, problem):
    (tmp_path / "run.trec").write_text(text)
    with pytest.raises(ValueError, match=problem):
        read_run(tmp_path / "run.trec")


def test_what_has_the_query_s_own_id_is_left_out_and_the_best_of_the_rest_are_kept():
    run = {"q": {"b": 1.0, "q": 3.0, "a": 2.0}, "r": {"b": 1.0, "a": 2.0}, "s": {"s": 2.0, "a": 1.0}}
    qrels = {"q": {"q": 0}, "s": {"s": 1}}
    kept = {"q": {"b": 1.0, "a": 2.0}, "r": {"b": 1.0, "a": 2.0}, "s": {"s": 2.0, "a": 1.0}}
    assert leave_out_identical_ids(run, qrels) == (kept, 1)
    assert leave_out_identical_ids(run, qrels, 1) == ({"q": {"a": 2.0}, "r": {"a": 2.0}, "s": {"s": 2.0}}, 1)


def test_what_a_run_cannot_hold_is_an_error_and_leaves_the_old_run(tmp_path):
    path = tmp_path / "run.trec"
    write_run(path, {"q": {"a": 1.0}}, "me")
    for run, tag in (({"q": {"a b": 1.0}}, "me"), ({"": {"a": 1.0}}, "me"), ({"q": {"a": float("nan")}}, "me"), ({}, "a tag")):
        with pytest.raises(ValueError):
            write_run(path, run, tag)
    assert read_run(path) == {"q": {"a": 1.0}}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "text",
    ["q 0 a 1\nq 0 b 0\n", "q\t0\ta\t1\nq\t0\tb\t0\n", "q\ta\t1\nq\tb\t0\n", "query-id\tcorpus-id\tscore\nq\ta\t1\nq\tb\t0\n"],
)
def test_judgements_are_read_in_every_usual_form(tmp_path, text):
    (tmp_path / "qrels").write_text(text)
    assert read_qrels(tmp_path / "qrels") == {"q": {"a": 1, "b": 0}}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("q a 1\nq a\n", "line 2 has 2 columns"),
        ("q a 1\nq b yes\n", "line 2 has the grade 'yes'"),
        ("q a 1\nq a 0\n", "line 2 has the grade 0 for passage 'a' and query 'q', which had 1 before"),
        ("", "has no judgements"),
    ],
)
def test_a_bad_line_of_judgements_is_an_error_with_its_number(tmp_path, text, problem):
    (tmp_path / "qrels").write_text(text)
    with pytest.raises(ValueError, match=problem):
        read_qrels(tmp_path / "qrels")
