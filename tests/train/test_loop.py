"""Training runs of a tiny model: what they learn, write, and do when something goes wrong."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.encoders import write_stanford
from builders.training import EXAMPLES, TINY, accuracy, assert_same_weights, entries, losses, weights

from colbert_core import Encoder, MissingExtraError
from colbert_core.train import PRESETS, ColBERT, Example, Examples, TrainConfig, configured, prepare, train

pytest.importorskip("accelerate")


@pytest.mark.parametrize("preset", ["colbertv1", "colbertv2"])
def test_a_run_learns_and_its_model_loads_as_an_encoder(preset, base_without_dropout, tmp_path):
    result = train(EXAMPLES, base_without_dropout, out=tmp_path / "run", preset=preset, steps=120, **TINY)
    course = losses(tmp_path / "run")
    assert len(course) == result.last_step == result.step == 120
    assert np.mean(course[-5:]) < np.mean(course[:5]) / 10
    assert result.loss == course[-1]
    assert result.model == tmp_path / "run" / "model"
    encoder = Encoder.from_pretrained(result.model, device="cpu", dtype="float32")
    assert accuracy(encoder) == 1
    assert encoder.config.similarity == PRESETS[preset].similarity


def test_a_step_changes_every_parameter_that_learns(base, tmp_path):
    before = ColBERT.from_pretrained(base, TrainConfig(query_length=10, passage_length=12, dim=16)).state_dict()
    train(EXAMPLES, base, out=tmp_path / "run", steps=1, warmup_steps=0, **TINY)
    after = weights(tmp_path / "run" / "checkpoints" / "step-1")
    assert before.keys() == after.keys()
    unchanged = [name for name in before if torch.equal(before[name], after[name])]
    assert [name for name in unchanged if not name.endswith("key.bias")] == []


def test_the_checkpoint_of_a_run_is_what_training_saw(base, tmp_path):
    seen = []

    def evaluate(encoder):
        seen.append(encoder.encode_passages(["purr, and bark"]).vectors)
        return float(len(seen))

    result = train(EXAMPLES, base, out=tmp_path / "run", steps=3, evaluate=evaluate, **TINY)
    encoder = Encoder.from_pretrained(result.model, device="cpu", dtype="float32")
    np.testing.assert_allclose(encoder.encode_passages(["purr, and bark"]).vectors, seen[-1], atol=1e-6)
    assert not np.allclose(seen[0], seen[-1], atol=1e-4)


def test_equal_runs_are_equal_to_the_last_bit_and_another_seed_is_another(base, tmp_path):
    first, second = (train(EXAMPLES, base, out=tmp_path / name, steps=5, **TINY) for name in "ab")
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert_same_weights(weights(first.model), weights(second.model))
    train(EXAMPLES, base, out=tmp_path / "c", steps=5, seed=1, **TINY)
    assert losses(tmp_path / "c") != losses(tmp_path / "a")


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(base, tmp_path):
    whole = train(EXAMPLES, base, out=tmp_path / "whole", steps=12, checkpoint_every=3, evaluate=lambda encoder: 0.0, **TINY)
    calls = []

    def interrupted(encoder):
        calls.append(encoder)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return 0.0

    arguments = {"out": tmp_path / "run", "steps": 12, "checkpoint_every": 3, "evaluate": interrupted, **TINY}
    with pytest.raises(KeyboardInterrupt):
        train(EXAMPLES, base, **arguments)
    assert not (tmp_path / "run" / "model").exists()
    result = train(EXAMPLES, base, **arguments)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert result.evaluations == whole.evaluations
    assert_same_weights(weights(result.model), weights(whole.model))


def test_an_evaluation_that_fails_costs_no_step_and_is_made_up_for(base, tmp_path):
    arguments = {"out": tmp_path / "run", "steps": 6, "checkpoint_every": 3, **TINY}

    def failing(encoder):
        raise MemoryError("evaluate has no memory")

    with pytest.raises(MemoryError):
        train(EXAMPLES, base, evaluate=failing, **arguments)
    assert [folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-1"]
    result = train(EXAMPLES, base, evaluate=lambda encoder: 0.5, **arguments)
    assert [step for step, _ in result.evaluations] == [1, 2, 3, 4, 5, 6]
    assert len(losses(tmp_path / "run")) == 6


def test_what_an_evaluation_draws_at_random_changes_no_loss(base, tmp_path):
    def drawing(encoder):
        return torch.rand(()).item() + np.random.rand() + random.random()  # noqa: NPY002

    settings = {"steps": 4, "checkpoint_every": 2, **TINY}
    with_it, without = tmp_path / "with", tmp_path / "without"
    train(EXAMPLES, base, out=with_it, evaluate=drawing, **settings)
    train(EXAMPLES, base, out=without, **settings)
    assert losses(with_it) == losses(without)


def test_a_run_stops_when_patience_is_at_an_end(base, tmp_path):
    values = iter([0.1, 0.9, 0.3, 0.2, 0.4])
    result = train(
        EXAMPLES, base, out=tmp_path / "run", steps=9, checkpoint_every=1, patience=2, evaluate=lambda e: next(values), **TINY
    )
    assert (result.step, result.last_step) == (2, 4)


def test_an_evaluation_that_is_no_number_is_an_error(base, tmp_path):
    with pytest.raises(ValueError, match="evaluate returned nan after step 1"):
        train(EXAMPLES, base, out=tmp_path / "run", steps=2, evaluate=lambda encoder: math.nan, **TINY)


@pytest.mark.parametrize("similarity", ["cosine", "l2"])
def test_chunks_and_accumulation_learn_the_same_as_one_batch(similarity, base_without_dropout, tmp_path):
    settings = {"steps": 3, "preset": "colbertv1", "similarity": similarity, **TINY}
    train(EXAMPLES, base_without_dropout, out=tmp_path / "plain", **settings)
    train(EXAMPLES, base_without_dropout, out=tmp_path / "chunks", **settings, chunk_size=3)
    train(EXAMPLES, base_without_dropout, out=tmp_path / "parts", **settings | {"batch_size": 2, "accumulation": 4})
    np.testing.assert_allclose(losses(tmp_path / "chunks"), losses(tmp_path / "plain"), rtol=1e-3)
    np.testing.assert_allclose(losses(tmp_path / "parts"), losses(tmp_path / "plain"), rtol=1e-3)


def test_noise_of_the_vectors_is_drawn_from_the_seed_and_is_the_same_in_chunks(base_without_dropout, tmp_path):
    settings = {"steps": 3, **TINY}
    noisy = settings | {"vector_noise": 0.1}
    train(EXAMPLES, base_without_dropout, out=tmp_path / "none", **settings)
    train(EXAMPLES, base_without_dropout, out=tmp_path / "one", **noisy)
    train(EXAMPLES, base_without_dropout, out=tmp_path / "same", **noisy)
    train(EXAMPLES, base_without_dropout, out=tmp_path / "chunks", **noisy, chunk_size=3)
    train(EXAMPLES, base_without_dropout, out=tmp_path / "other", **noisy | {"seed": 1})
    assert losses(tmp_path / "one") == losses(tmp_path / "same")
    np.testing.assert_allclose(losses(tmp_path / "chunks"), losses(tmp_path / "one"), rtol=1e-3)
    assert losses(tmp_path / "one") != losses(tmp_path / "none")
    assert losses(tmp_path / "one") != losses(tmp_path / "other")


def test_bfloat16_learns_and_leaves_float32_weights(base_without_dropout, tmp_path):
    result = train(EXAMPLES, base_without_dropout, out=tmp_path / "run", steps=120, precision="bf16", **TINY)
    course = losses(tmp_path / "run")
    assert np.mean(course[-5:]) < np.mean(course[:5]) / 2
    assert {tensor.dtype for tensor in weights(result.model).values()} == {torch.float32}
    train(EXAMPLES, base_without_dropout, out=tmp_path / "next", steps=1, precision="no", **TINY)  # in the same process


def test_a_loss_that_is_not_finite_names_step_and_examples_and_the_checkpoint_stays(base, tmp_path, monkeypatch):
    from colbert_core.train.batches import Batch

    loss = Batch.loss
    seen = []

    def spoiled(self, *vectors, **settings):
        seen.append(1)
        return loss(self, *vectors, **settings) * (math.nan if len(seen) == 4 else 1)

    monkeypatch.setattr(Batch, "loss", spoiled)
    arguments = {"out": tmp_path / "run", "steps": 20, "checkpoint_every": 2, **TINY, "batch_size": 2}
    with pytest.raises(FloatingPointError, match=r"Step 4 has the loss nan.*from the examples \[\d+, \d+\] of .*what sound"):
        train(EXAMPLES, base, **arguments)
    assert [folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-2"]
    assert len(losses(tmp_path / "run")) == 3


def test_a_gradient_that_is_not_finite_stops_too(base, tmp_path, monkeypatch):
    from colbert_core.train.batches import Batch

    monkeypatch.setattr(
        Batch,
        "loss",
        lambda self, queries, passages, **settings: (
            ((queries - queries).abs() + 1e-30).sqrt().sum() * 0 + (passages * 0).sum().sqrt()
        ),
    )
    with pytest.raises(FloatingPointError, match="Step 1 has the loss 0.0 and a gradient of length nan"):
        train(EXAMPLES, base, out=tmp_path / "run", steps=2, **TINY)


def test_distillation_learns_the_order_of_a_teacher(base_without_dropout, tmp_path):
    scored = [replace(example, scores=(8.0, *(0.0 for _ in example.negatives))) for example in EXAMPLES]
    train(scored, base_without_dropout, out=tmp_path / "run", steps=80, **TINY)
    run = json.loads((tmp_path / "run" / "config.json").read_text())
    assert run["loss"] == "distillation+in-batch"
    assert np.mean(losses(tmp_path / "run")[-5:]) < np.mean(losses(tmp_path / "run")[:5]) / 2


def test_examples_that_do_not_suit_the_loss_are_an_error(base, tmp_path):
    lone = [*EXAMPLES, Example("what", "purr")]
    with pytest.raises(ValueError, match="1 of 49 examples have none, the first of them number 48; mine negatives"):
        train(lone, base, out=tmp_path / "a", preset="colbertv1", **TINY)
    with pytest.raises(ValueError, match="loss='distillation' learns from a teacher's scores"):
        train(EXAMPLES, base, out=tmp_path / "b", loss="distillation", **TINY)
    with pytest.raises(TypeError, match="use Examples.open or read_examples"):
        train("train.tsv", base, out=tmp_path / "c")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "colbertv1", "negatives": 0}, "loss='pairwise' with negatives=0 and batch_size=8 has nothing to compare"),
        ({"negatives": 0, "batch_size": 1}, "loss='in-batch' with negatives=0 and batch_size=1 has nothing to compare"),
        ({"batch_size": 1, "accumulation": 4}, "loss='in-batch' with batch_size=1 compares .* and 1 of 49 examples have none"),
    ],
)
def test_a_training_that_cannot_learn_is_an_error_that_names_the_setting(base, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        train([*EXAMPLES, Example("what", "purr")], base, out=tmp_path / "run", steps=1, **TINY | settings)


def test_examples_prepared_for_another_model_are_an_error(base, tmp_path):
    other = ColBERT.from_pretrained(write_stanford(tmp_path / "other"), TrainConfig(query_length=10, passage_length=12))
    data = prepare(EXAMPLES, other, tmp_path / "data")
    with pytest.raises(ValueError, match=r"was prepared for .*other, which reads texts otherwise than .* \(passage_length: 12"):
        train(data, base, out=tmp_path / "run", **TINY | {"passage_length": 11})


def test_prepared_examples_train_as_those_given(base, tmp_path):
    model = ColBERT.from_pretrained(base, configured("colbertv2", TINY))
    prepare(EXAMPLES, model, tmp_path / "data")
    train(Examples.open(tmp_path / "data"), base, out=tmp_path / "a", steps=2, **TINY)
    train(iter(EXAMPLES), base, out=tmp_path / "b", steps=2, **TINY)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert not (tmp_path / "a" / "data").exists()


def test_the_learning_rate_warms_up_and_falls(base, tmp_path):
    train(EXAMPLES, base, out=tmp_path / "run", steps=20, **TINY)
    rates = [entry["learning_rate"] for entry in entries(tmp_path / "run") if "loss" in entry]
    np.testing.assert_allclose(rates[:3], [0, 1.5e-3, 3e-3])
    np.testing.assert_allclose(np.diff(rates[2:]), -3e-3 / 18)


def test_the_head_learns_at_its_own_rate(base, tmp_path):
    settings = TINY | {"learning_rate": 1e-5, "warmup_steps": 0, "schedule": "constant"}
    before = ColBERT.from_pretrained(base, TrainConfig(query_length=10, passage_length=12, dim=16)).state_dict()
    train(EXAMPLES, base, out=tmp_path / "own", steps=3, head_learning_rate=1e-2, **settings)
    after = weights(tmp_path / "own" / "checkpoints" / "step-3")
    moved = {name: (tensor - before[name]).abs().max().item() for name, tensor in after.items()}
    head = [name for name in moved if name.startswith("head.")]
    assert len(head) == 1
    assert 1e-2 < moved.pop(head[0]) < 4e-2  # Adam's step is about as long as its rate
    assert 0 < max(moved.values()) < 4e-5


def test_a_head_without_a_rate_of_its_own_learns_at_that_of_the_rest(base, tmp_path):
    train(EXAMPLES, base, out=tmp_path / "same", steps=3, **TINY)
    train(EXAMPLES, base, out=tmp_path / "given", steps=3, head_learning_rate=TINY["learning_rate"], **TINY)
    assert losses(tmp_path / "same") == losses(tmp_path / "given")


def test_without_accelerate_the_error_names_the_pip_line(base, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'accelerate"):
        train(EXAMPLES, base, out=tmp_path / "run", **TINY)


def test_a_tracker_that_is_not_installed_is_an_error_with_the_pip_line(base, tmp_path):
    with pytest.raises(MissingExtraError, match=r"The tracker 'wandb' is not installed: pip install wandb"):
        train(EXAMPLES, base, out=tmp_path / "run", trackers=("wandb",), **TINY)


def test_mining_and_training_do_not_know_each_other_that_way_round():
    code = "import sys, colbert_core.train; assert 'colbert_core.colbertv1.mining' not in sys.modules and 'accelerate' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
