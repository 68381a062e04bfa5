"""What training data cannot teach is said before a run begins: an error where that is all of them, a warning where it is some."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from builders.training import EXAMPLES, TINY

from colbert_core.train import Example, Examples, configured, prepare, read_examples, train
from colbert_core.train.batches import Batches
from colbert_core.train.checking import check_examples

CAT = Example("cat", "cats purr", ("dogs bark", "rust"), (9.0, 3.0, 1.0))
DOG = Example("dog", "dogs bark", ("cats purr", "rust"), (9.0, 3.0, 1.0))
RUST = Example("rust", "rust", ("cats purr", "dogs bark"), (9.0, 3.0, 1.0))


@pytest.fixture
def check(model, tmp_path):
    """The loss and the warnings of some examples."""

    def checked(*examples, **settings):
        number = len(list(tmp_path.iterdir()))
        return check_examples(prepare(examples, model, tmp_path / f"{number}"), model, configured("colbertv2", settings))

    return checked


def plain(*examples):
    return [replace(example, scores=None) for example in examples]


def test_sound_examples_are_passed_in_silence(check):
    assert check(CAT, DOG, RUST) == ("distillation+in-batch", [])
    assert check(*plain(CAT, DOG, RUST)) == ("in-batch", [])
    assert check(*plain(CAT, DOG), loss="pairwise") == ("pairwise", [])
    assert check(Example("cat", "cats purr"), Example("dog", "dogs bark")) == ("in-batch", [])


# Scores that some have


def test_one_example_without_scores_is_named_since_the_teacher_goes_unused(check):
    loss, (warning,) = check(CAT, DOG, *plain(RUST))
    assert loss == "in-batch"
    assert "1 of 3 examples has no teacher scores, the first of them number 2 (query 'rust', positive 'rust'" in warning
    assert "the scores of the other 2 are not used either" in warning
    assert "2 of 3 examples have no teacher scores" in check(*plain(CAT, DOG), RUST)[1][0]


def test_who_asks_for_a_loss_gets_it_or_an_error(check):
    assert check(CAT, *plain(DOG), loss="in-batch") == ("in-batch", [])
    assert check(CAT, *plain(DOG), loss="pairwise") == ("pairwise", [])
    with pytest.raises(
        ValueError, match=r"not all examples have: 1 of 2 examples has no teacher scores, .* number 1 \(query 'dog'"
    ):
        check(CAT, *plain(DOG), loss="distillation")
    with pytest.raises(ValueError, match="learns from a teacher's scores"):
        check(*plain(CAT, DOG), loss="distillation+in-batch")


# Negatives that are positives


def test_a_negative_that_is_the_positive_is_counted_and_not_used(check):
    _, (warning,) = check(*plain(CAT, DOG), Example("rust", "rust", ("Rust", "cats purr")))
    assert "1 of 3 examples have a negative that reads as a positive of their query, such as number 2 (query 'rust'" in warning
    assert "positive 'rust', negatives 'rust', 'cats" in warning


def test_a_positive_of_the_same_query_elsewhere_is_one_here(check):
    _, (warning,) = check(Example("cat", "cats purr", ("rust",)), Example(" Cat ", "dogs bark", ("cats  purr",)))
    assert "1 of 2 examples have a negative that reads as a positive" in warning
    assert "number 1" in warning


def test_where_no_negative_is_one_nothing_can_be_learnt(check):
    same = [Example(name, name, (name, name.upper())) for name in ("cat", "dog")]
    with pytest.raises(
        ValueError, match=r"None of the 2 examples can teach anything with loss='pairwise'.*number 0 \(query 'cat'"
    ):
        check(*same, loss="pairwise")
    loss, (warning,) = check(*same)  # the other's positive is a negative
    assert loss == "in-batch"
    assert "2 of 2 examples have a negative that reads as a positive" in warning
    with pytest.raises(ValueError, match="batch_size=1: every passage"):
        check(*same, batch_size=1)


def test_some_that_teach_nothing_are_counted(check):
    _, warnings = check(*plain(CAT), Example("dog", "dogs bark", ("Dogs bark",)), loss="pairwise")
    assert "1 of 2 examples have a negative that reads" in warnings[0]
    assert (
        "1 of 2 examples teach nothing, as their positives are compared with no other passage, such as number 1" in warnings[1]
    )


def test_one_passage_for_all_queries_cannot_be_learnt_in_batches_either(check):
    with pytest.raises(ValueError, match="None of the 2 examples can teach anything with loss='in-batch'"):
        check(Example("cat", "cats purr"), Example("dog", "Cats purr"))
    with pytest.raises(ValueError, match="None of the 1 examples"):
        check(Example("cat", "cats purr"))


def test_the_negatives_that_are_meant_are_shown_among_many(check):
    many = Example("cat", "cats purr", ("rust", "dogs bark", "mat", "sat", "Cats purr"))
    _, (warning,) = check(many, *plain(DOG))
    assert warning.count("'cats pu") == 2  # the positive, and the fifth negative
    assert "'rust', …" in warning


def test_negatives_that_are_not_used_do_not_count(check):
    example = Example("cat", "cats purr", ("cats purr", "rust"))
    with pytest.raises(ValueError, match="None of the 1 examples"):
        check(example, loss="pairwise", negatives=1)
    assert len(check(example, loss="pairwise", negatives=2)[1]) == 1


def test_what_reads_as_a_positive_is_no_candidate_in_a_batch(model, tmp_path):
    examples = [Example("cat", "cats purr", ("CATS purr", "rust")), Example("dog", "Cats  purr")]
    data = prepare(examples, model, tmp_path / "data")
    batch = Batches(data, most_negatives=9, pad_id=0).batch(np.array([0, 1]))
    # Columns: cats purr, CATS purr, rust, Cats  purr.
    assert batch.own.tolist()[0] == [0, 1, 2]
    assert batch.own_mask.tolist()[0] == [True, False, True]
    assert batch.candidates.tolist() == [[True, False, True, False], [False, False, True, True]]


def test_blank_positives_are_counted_and_nothing_else_cannot_be_learnt(check):
    _, (warning,) = check(*plain(CAT, DOG), Example("rust", " \n", ("mat",)))
    assert "1 of 3 examples have a blank positive, such as number 2 (query 'rust', positive '', negatives 'mat')" in warning
    assert check(*plain(CAT), Example("dog", "dogs bark", ("",))) == ("in-batch", [])
    with pytest.raises(ValueError, match="2 of 2 examples have a blank positive"):
        check(Example("cat", "", ("rust",)), Example("dog", " ", ("rust",)))


# Scores that tell nothing


def test_a_teacher_of_equal_scores_teaches_nothing(check):
    flat = [replace(example, scores=(5.0, 5.0, 5.0)) for example in (CAT, DOG)]
    with pytest.raises(
        ValueError, match="All 2 examples give all their passages the same score.*positive 'cats.* with score 5"
    ):
        check(*flat)
    assert check(*flat, loss="in-batch") == ("in-batch", [])
    _, (warning,) = check(CAT, DOG, flat[0])
    assert "1 of 3 examples give all their passages the same score, such as number 2" in warning


def test_a_text_with_two_scores_is_a_contradiction(check):
    twice = Example("cat", "cats purr", ("rust", "Rust"), (9.0, 1.0, 5.0))
    with pytest.raises(ValueError, match="All 1 examples give texts that read alike different scores"):
        check(twice)
    assert "1 of 2 examples give texts that read alike different scores, such as number 1" in check(DOG, twice)[1][0]
    assert check(DOG, replace(twice, scores=(9.0, 1.0, 1.0)))[1] == []
    _, warnings = check(DOG, Example("cat", "cats purr", ("cats purr", "rust"), (9.0, 1.0, 2.0)))
    assert "reads as a positive" in warnings[0]
    assert "different scores" in warnings[1]


def test_scores_the_wrong_way_round_are_named(check):
    wrong = [replace(example, scores=(1.0, 3.0, 9.0)) for example in (CAT, DOG)]
    _, (warning,) = check(*wrong, RUST)
    assert "2 of 3 examples give their positive the lowest score" in warning
    assert "negate distances" in warning
    assert check(wrong[0], DOG, RUST)[1] == []


# Where it is said


def test_the_first_is_named_by_file_and_line(model, tmp_path):
    lines = [
        json.dumps({"query": e.query, "positive": e.positive, "negatives": e.negatives, "scores": e.scores}) for e in (CAT, DOG)
    ]
    file = tmp_path / "train.jsonl"
    file.write_text(f"{lines[0]}\n\n{lines[1]}\n\n\n" + json.dumps({"query": "rust", "positive": "rust"}) + "\n")
    prepare(read_examples(file), model, tmp_path / "data")
    data = Examples.open(tmp_path / "data")
    assert [data.place(number) for number in range(3)] == [f"{file}, line {line}" for line in (1, 3, 6)]
    _, (warning,) = check_examples(data, model, configured("colbertv2", {}))
    assert f"the first of them {file}, line 6 (query 'rust'" in warning
    assert prepare([CAT], model, tmp_path / "given").place(0) == "number 0"


def test_many_gaps_between_lines_cost_no_more_than_a_limit(model, tmp_path, monkeypatch):
    monkeypatch.setattr("colbert_core.train.examples._MOST_RUNS", 2)
    examples = [replace(CAT, place=("a.tsv", line)) for line in (1, 2, 4, 6, 7)]
    data = prepare(examples, model, tmp_path / "data")
    known = [f"a.tsv, line {line}" for line in (1, 2, 4)]
    assert [data.place(number) for number in range(5)] == [*known, "number 3", "number 4"]


def test_a_run_says_it_before_it_begins(base, tmp_path, caplog):
    scored = [replace(example, scores=(8.0, *(0.0 for _ in example.negatives))) for example in EXAMPLES[:-1]]
    with caplog.at_level(logging.WARNING):
        train([*scored, EXAMPLES[-1]], base, out=tmp_path / "run", steps=1, **TINY)
    assert "1 of 48 examples has no teacher scores" in caplog.text
    with pytest.raises(ValueError, match="None of the 2 examples can teach anything"):
        train([Example("cat", "purr"), Example("dog", "purr")], base, out=tmp_path / "none", steps=1, **TINY)
    assert not (tmp_path / "none" / "config.json").exists()
