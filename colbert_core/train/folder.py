"""The folder of a training run: its settings, log, checkpoints and result. What a step computes is not known here.

::

    config.json            settings, base and examples of the run; only the same run goes on here
    data/                  the prepared examples, unless they were given prepared
    log.jsonl              loss, learning rate and gradient of every step, and evaluations
    checkpoints/step-N/    weights, optimizer and random generators after step N: the last two and the best
    model/                 the finished checkpoint, which every reader of its format loads

Whatever has its name is whole: it was written under another, beginning with a dot, and renamed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from typing import IO, TYPE_CHECKING, Any

from colbert_core.storage.durable import put_in_place, sync, write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from colbert_core.train.model import ColBERT

# Newest checkpoints that stay, beside the best: the one before as well, should the disk damage the last.
_KEPT = 2


@dataclass(frozen=True)
class TrainResult:
    """What a run came to.

    Attributes:
        model: the finished checkpoint, for ``Encoder.from_pretrained``.
        step: after which step it was: the best evaluation's, else the last.
        last_step: how far the run went.
        loss: of the last step.
        evaluations: steps, and what ``evaluate`` returned after them.
    """

    model: Path
    step: int
    last_step: int
    loss: float
    evaluations: tuple[tuple[int, float], ...]


class RunFolder:
    """One run on disk.

    Attributes:
        path: the folder.
        model: where the finished model is, or will be.
        evaluations: steps and values so far.
    """

    def __init__(self, path: Path, *, is_main: bool) -> None:
        """Take a path, and whether this process is the one that writes."""
        self.path = path
        self.model = path / "model"
        self.evaluations: list[tuple[int, float]] = []
        self._checkpoints = path / "checkpoints"
        self._log = path / "log.jsonl"
        self._file: IO[str] | None = None
        self._is_main = is_main

    def check(self) -> None:
        """Make sure that there is a run or nothing, before anything is written.

        Raises:
            FileExistsError: the folder holds something else.
        """
        if not self.path.exists() or (self.path / "config.json").is_file():
            return
        foreign = [entry.name for entry in self.path.iterdir() if entry.name != "data" and not entry.name.startswith(".")]
        if foreign:
            raise FileExistsError(f"{self.path} holds {foreign[0]} and no run; name a folder that is new or empty.")

    def begin(self, run: dict[str, Any]) -> None:
        """Begin a run or find the same one, and remove what a killed process left half written.

        Raises:
            ValueError: the folder holds a run of other settings or examples.
        """
        config = self.path / "config.json"
        plain = json.loads(json.dumps(run))
        if config.is_file():
            there = json.loads(config.read_text(encoding="utf-8"))
            _check_same(self.path, there, plain)
        elif self._is_main:
            versions = {name: version(name) for name in ("torch", "transformers", "accelerate")}
            write_json(config, plain | {"versions": versions})
        if self._is_main:
            for abandoned in [*self.path.glob(".model-*"), *self._checkpoints.glob(".step-*")]:
                shutil.rmtree(abandoned, ignore_errors=True)

    def restore(self, accelerator: Any) -> int:
        """Load the last checkpoint, and forget what was logged behind it.

        Returns:
            The step it was saved after; 0 where there is none.
        """
        done = max(self._steps(), default=0)
        if done:
            accelerator.load_state(str(self._step(done)))
        entries = [entry for entry in _entries(self._log) if entry["step"] <= done]
        self.evaluations = [(entry["step"], entry["evaluation"]) for entry in entries if "evaluation" in entry]
        accelerator.wait_for_everyone()
        if self._is_main:
            write_text(self._log, "".join(json.dumps(entry) + "\n" for entry in entries))
        return done

    @contextlib.contextmanager
    def logging(self) -> Iterator[None]:
        """Open the log for the time of the block."""
        if not self._is_main:
            yield
            return
        with self._log.open("a", encoding="utf-8") as self._file:
            yield

    def log(self, entry: dict[str, Any]) -> None:
        """Write a line."""
        if "evaluation" in entry:
            self.evaluations.append((entry["step"], entry["evaluation"]))
        if self._file is not None:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()

    def save(self, accelerator: Any, step: int) -> None:
        """Save a checkpoint.

        Raises:
            OSError: it could not be written; the ones before stay.
        """
        work = self._checkpoints / f".step-{step}"
        with self._writing(f"The checkpoint of step {step}", work):
            if self._file is not None:
                sync(self._file.fileno())  # a checkpoint's log is there when the checkpoint is
            accelerator.save_state(str(work))
            accelerator.wait_for_everyone()
            if self._is_main:
                put_in_place(work, self._step(step))
        accelerator.wait_for_everyone()

    def prune(self, accelerator: Any) -> None:
        """Remove the checkpoints that are neither among the last two nor the best."""
        if self._is_main:
            for old in {*self._steps()[:-_KEPT]} - {self.best_step()}:
                shutil.rmtree(self._step(old), ignore_errors=True)
        accelerator.wait_for_everyone()

    def finish(self, model: ColBERT, accelerator: Any) -> None:
        """Write the model of the best checkpoint, or of the last where nothing was evaluated.

        Raises:
            OSError: it could not be written; the checkpoints stay.
        """
        chosen = self.best_step() or self._steps()[-1]
        if chosen != self._steps()[-1]:
            accelerator.load_state(str(self._step(chosen)))
        if self._is_main:
            with self._writing("The finished model"):
                model.save(self.model)
        accelerator.wait_for_everyone()

    def result(self) -> TrainResult:
        """Of a run whose model is there."""
        entries = list(_entries(self._log))
        evaluations = tuple((entry["step"], entry["evaluation"]) for entry in entries if "evaluation" in entry)
        self.evaluations = list(evaluations)
        last = [entry for entry in entries if "loss" in entry][-1]
        return TrainResult(self.model, self.best_step() or last["step"], last["step"], last["loss"], evaluations)

    def best_step(self) -> int | None:
        """The step of the best evaluation, the first of equals; None without any."""
        return max(self.evaluations, key=lambda one: one[1])[0] if self.evaluations else None

    def n_worse(self) -> int:
        """Evaluations behind the best one."""
        return sum(step > (self.best_step() or 0) for step, _ in self.evaluations)

    def _step(self, step: int) -> Path:
        return self._checkpoints / f"step-{step}"

    def _steps(self) -> list[int]:
        return sorted(int(folder.name.removeprefix("step-")) for folder in self._checkpoints.glob("step-*"))

    @contextlib.contextmanager
    def _writing(self, what: str, *leftovers: Path) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # torch and safetensors report a full disk as errors of their own
            for leftover in leftovers:
                shutil.rmtree(leftover, ignore_errors=True)
            last = max(self._steps(), default=0)
            kept = f"The checkpoint of step {last} stays" if last else "No checkpoint was saved before"
            message = (
                f"{what} of the run in {self.path} could not be written ({type(error).__name__}: {error}). {kept}; make room "
                "on the disk and call train again with the same arguments."
            )
            number = getattr(error, "errno", None)
            raise (OSError(message) if number is None else OSError(number, message)) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else who asks gets the folder while the block lasts. It is made if it is not there.

    The system lets go of the lock when the process ends, however it does. Where the system or the disk has no such locks,
    nothing is locked.

    Raises:
        BlockingIOError: somebody else has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"Another run is at work in {folder}; wait for its end, or name another folder.") from None
        except OSError:  # a network's disk
            pass
        yield
    finally:
        os.close(descriptor)


def _check_same(path: Path, there: dict[str, Any], run: dict[str, Any]) -> None:
    pairs = {name: (there.get(name), value) for name, value in run.items() if name != "config"}
    pairs |= {name: (there.get("config", {}).get(name), value) for name, value in run["config"].items()}
    differing = [f"{name}: {old!r} there, {new!r} here" for name, (old, new) in pairs.items() if old != new]
    if differing:
        raise ValueError(f"{path} holds another run ({'; '.join(differing)}); name another folder, or remove it.")


def _entries(log: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log, up to one that a killed process did not finish."""
    if not log.is_file():
        return
    with log.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.endswith("\n"):
                return
            yield json.loads(line)
