"""Training runs of a tiny model: what they learn, write, and do when something goes wrong."""

from __future__ import annotations

import json
import math
import random
import resource
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.encoders import write_stanford, write_untrained
from safetensors.torch import load_file, save_file

from colbert_core import Encoder, MissingExtraError, Reranker
from colbert_core.train import PRESETS, ColBERT, Example, Examples, TrainConfig, configured, prepare, train
from colbert_core.train.folder import RunFolder, locked
from colbert_core.train.presets import chosen_loss, plan
from colbert_core.types import Passage

pytest.importorskip("accelerate")

SOUNDS = {"cat": "purr", "dog": "bark", "rust": "language", "mat": "sat"}
ENDS = ("and", "or", "of")


def others(sound, first):
    """The other sounds, another one first for each number."""
    found = [other for other in SOUNDS.values() if other != sound]
    return found[first:] + found[:first]


EXAMPLES = [
    Example(
        f"what sound does {article} {animal} {verb}", f"{sound} {end}", tuple(f"{other} {end}" for other in others(sound, i))
    )
    for animal, sound in SOUNDS.items()
    for article in ("a", "the")
    for verb in ("make", "happy")
    for i, end in enumerate(ENDS)
]
TINY = {"query_length": 10, "passage_length": 12, "dim": 16, "batch_size": 8, "epochs": 100, "learning_rate": 3e-3}


def write_base(folder, *, dropout=0.1):
    """A random encoder, its weights small enough to learn from."""
    write_untrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: tensor / 3 if tensor.ndim == 2 else tensor for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Two threads may add in another order; and what ``set_num_threads`` was told, every new encoder tells torch again."""
    before = torch.get_num_threads()
    monkeypatch.setattr("colbert_core.threads._chosen", 1)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def base_without_dropout(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"), dropout=0.0)


def entries(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def losses(run):
    return [entry["loss"] for entry in entries(run) if "loss" in entry]


def weights(model):
    return load_file(model / "model.safetensors")


def assert_same_weights(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def accuracy(encoder):
    """How often the right sound is first."""
    reranker = Reranker(encoder)
    passages = [Passage(sound, f"{sound} and") for sound in SOUNDS.values()]
    firsts = {animal: reranker.rank(f"what sound does a {animal} make", passages, top_n=1) for animal in SOUNDS}
    return float(np.mean([hits[0].passage.id == SOUNDS[animal] for animal, hits in firsts.items()]))


@pytest.mark.parametrize("preset", ["colbertv1", "colbertv2"])
def test_a_run_learns_and_its_model_loads_as_an_encoder(preset, base_without_dropout, tmp_path):
    result = train(EXAMPLES, base_without_dropout, out=tmp_path / "run", preset=preset, steps=120, **TINY)
    found = losses(tmp_path / "run")
    assert len(found) == result.last_step == result.step == 120
    assert np.mean(found[-5:]) < np.mean(found[:5]) / 10
    assert result.loss == found[-1]
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


def test_a_finished_run_is_returned_as_it_is(base, tmp_path):
    first = train(EXAMPLES, base, out=tmp_path / "run", steps=2, **TINY)
    before = (first.model / "model.safetensors").stat().st_mtime_ns
    assert train(EXAMPLES, base, out=tmp_path / "run", steps=2, **TINY) == first
    assert (first.model / "model.safetensors").stat().st_mtime_ns == before


def test_another_run_in_the_same_folder_is_an_error_that_names_both_values(base, tmp_path):
    train(EXAMPLES, base, out=tmp_path / "run", steps=2, **TINY)
    with pytest.raises(ValueError, match=r"holds another run \(.*learning_rate: 0.003 there, 0.002 here"):
        train(EXAMPLES, base, out=tmp_path / "run", steps=2, **TINY | {"learning_rate": 2e-3})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("x")
    with pytest.raises(FileExistsError, match=r"holds thesis.txt and no run"):
        train(EXAMPLES, base, out=tmp_path / "other", steps=2, **TINY)
    assert [file.name for file in (tmp_path / "other").iterdir()] == ["thesis.txt"]


def test_one_run_at_a_time_is_at_work_in_a_folder(base, tmp_path):
    arguments = {"out": tmp_path / "run", "steps": 2, **TINY}

    def tried(encoder):
        with pytest.raises(BlockingIOError), locked(tmp_path / "run"):
            pass
        return 0.0

    with locked(tmp_path / "run"), pytest.raises(BlockingIOError, match=r"Another run is at work in .*run; wait for its end"):
        train(EXAMPLES, base, **arguments)
    result = train(EXAMPLES, base, evaluate=tried, **arguments)
    assert len(losses(tmp_path / "run")) == 2
    assert train(EXAMPLES, base, **arguments) == result


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


def test_the_last_two_checkpoints_and_the_best_stay_and_the_best_is_the_result(base, tmp_path):
    values = iter([0.1, 0.9, 0.3, 0.2, 0.4])
    result = train(
        EXAMPLES, base, out=tmp_path / "run", steps=5, checkpoint_every=1, evaluate=lambda encoder: next(values), **TINY
    )
    assert sorted(folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir()) == ["step-2", "step-4", "step-5"]
    assert (result.step, result.last_step) == (2, 5)
    assert result.evaluations == ((1, 0.1), (2, 0.9), (3, 0.3), (4, 0.2), (5, 0.4))
    best = weights(tmp_path / "run" / "checkpoints" / "step-2")
    assert torch.equal(weights(result.model)["linear.weight"], best["head.layers.0.weight"])


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
    found = losses(tmp_path / "run")
    assert np.mean(found[-5:]) < np.mean(found[:5]) / 2
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


def test_a_full_disk_is_an_error_and_the_checkpoint_before_stays(base, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    calls = []

    def evaluate(encoder):
        calls.append(encoder)
        if len(calls) == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # no file may be larger, as on a disk that is full
        return 0.0

    arguments = {"out": tmp_path / "run", "steps": 20, "checkpoint_every": 2, "evaluate": evaluate, **TINY}
    try:
        with pytest.raises(OSError, match=r"The checkpoint of step 6 .* could not be written .*The checkpoint of step 4 stays"):
            train(EXAMPLES, base, **arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    kept = sorted(folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-2", "step-4"]
    assert train(EXAMPLES, base, **arguments).last_step == 20


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


def test_the_losses_that_can_learn_are_let_through():
    for config in (TrainConfig(negatives=0), TrainConfig(batch_size=1), TrainConfig(loss="pairwise", batch_size=1)):
        assert chosen_loss(config, scored=False)
    assert chosen_loss(TrainConfig(negatives=0), scored=True)


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


def test_a_line_of_the_log_that_was_cut_short_is_passed_over(tmp_path):
    folder = RunFolder(tmp_path, is_main=True)
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert (folder.result().last_step, folder.result().loss) == (1, 2.0)


def test_mining_and_training_do_not_know_each_other_that_way_round():
    code = "import sys, colbert_core.train; assert 'colbert_core.colbertv1.mining' not in sys.modules and 'accelerate' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
