"""Settings of a training, their checks, and what follows from them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from colbert_core.train import PRESETS, TrainConfig, configured
from colbert_core.train.presets import chosen_loss, plan


def test_the_losses_that_can_learn_are_let_through():
    for config in (TrainConfig(negatives=0), TrainConfig(batch_size=1), TrainConfig(loss="pairwise", batch_size=1)):
        assert chosen_loss(config, scored=False)
    assert chosen_loss(TrainConfig(negatives=0), scored=True)


def test_settings_are_checked_and_presets_are_those_of_the_papers():
    v1, v2 = PRESETS["colbertv1"], PRESETS["colbertv2"]
    assert (v1.loss, v1.similarity, v1.query_length, v1.passage_length, v1.learning_rate) == ("pairwise", "l2", 32, 180, 3e-6)
    assert (v1.batch_size, v1.steps, v1.seed, v1.checkpoint_every, v1.warmup_steps) == (32, 400_000, 12345, 4000, 0)
    assert (v2.similarity, v2.negatives, v2.learning_rate, v2.warmup_steps, v2.clip) == ("cosine", 63, 1e-5, 20_000, 2.0)
    with pytest.raises(ValueError, match="preset must be one of colbertv1, colbertv2, got 'v3'"):
        configured("v3", {})
    with pytest.raises(TypeError, match="There is no setting 'lr' of training; it has accumulation, batch_size"):
        configured("colbertv1", {"lr": 1e-5})
    for setting, value in {
        "loss": "triplet", "similarity": "dot", "batch_size": 0, "steps": 2.5, "learning_rate": -1, "clip": math.inf,
        "schedule": "step", "precision": "int8", "weight_decay": 1, "vector_noise": -0.1, "seed": -1, "patience": 0, "negatives": True,
        "head_learning_rate": 0,
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=f"{setting} must be .*{value!r}"):
            configured("colbertv1", {setting: value})


def test_a_short_run_has_less_warm_up_and_more_checkpoints():
    v2 = PRESETS["colbertv2"]
    long = plan(v2, 10**9)
    assert (long.steps, long.warmup_steps, long.checkpoint_every) == (400_000, 20_000, 4000)
    epoch = plan(v2, 32_000)
    assert (epoch.steps, epoch.warmup_steps, epoch.checkpoint_every) == (1000, 100, 100)
    few = plan(v2, 10)
    assert (few.steps, few.warmup_steps, few.checkpoint_every) == (1, 0, 1)
    assert plan(v2, 32_000, n_processes=4).steps == 250
    assert plan(replace(v2, epochs=2, accumulation=4), 32_000).steps == 500


def test_the_loss_follows_the_examples():
    assert chosen_loss(TrainConfig(), scored=True) == "distillation+in-batch"
    assert chosen_loss(TrainConfig(), scored=False) == "in-batch"
    assert chosen_loss(PRESETS["colbertv1"], scored=True) == "pairwise"


@pytest.mark.parametrize("trackers", ["wandb", ["wandb"], ("wandb",)])
def test_one_tracker_may_stand_by_itself(trackers):
    assert configured("colbertv2", {"trackers": trackers}).trackers == ("wandb",)
    assert TrainConfig(trackers=trackers) == TrainConfig(trackers=("wandb",))


def test_trackers_are_names():
    with pytest.raises(ValueError, match=r"trackers must be names such as 'wandb', got \[1\]"):
        TrainConfig(trackers=[1])
