"""The folder of a run: who may work in it, what it keeps, and what it says of the run."""

from __future__ import annotations

import pytest
import torch
from builders.training import EXAMPLES, TINY, losses, weights

from colbert_core.train import train
from colbert_core.train.folder import RunFolder, locked

pytest.importorskip("accelerate")


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


def test_a_full_disk_is_an_error_and_the_checkpoint_before_stays(base, tmp_path):
    resource = pytest.importorskip("resource")  # Windows has none
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


def test_a_line_of_the_log_that_was_cut_short_is_passed_over(tmp_path):
    folder = RunFolder(tmp_path, is_main=True)
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert (folder.result().last_step, folder.result().loss) == (1, 2.0)
