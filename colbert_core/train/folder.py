"""The folder of a training run: settings, log, checkpoints and result. Nothing is computed here.

::

    config.json            settings, base and examples of the run; only the same run may go on here
    data/                  the prepared examples, unless they were given prepared
    log.jsonl              loss, learning rate and gradient norm of every step, and evaluations
    checkpoints/step-N/    weights, optimizer and random generators after step N: the last two and the best
    model/                 the finished checkpoint, which every reader of its format loads

Files and folders with these names are whole: they were written under a name that begins with a dot, and renamed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from typing import IO, TYPE_CHECKING, Any

from colbert_core.storage.aside import contents
from colbert_core.storage.durable import put_in_place, sync, write_json, write_text
from colbert_core.storage.incoming import read_json_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from colbert_core.train.model import ColBERT

# Newest checkpoints that are kept beside the best one. The last but one is kept in case the disk damages the last.
_KEPT = 2


@dataclass(frozen=True)
class TrainResult:
    """The result of a run.

    Attributes:
        model: folder of the finished checkpoint, for ``Encoder.from_pretrained``.
        step: step after which the checkpoint was saved: that of the best evaluation, or the last without evaluations.
        last_step: last step of the run.
        loss: loss of the last step.
        evaluations: pairs of a step and what ``evaluate`` returned after it.
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
        model: folder of the finished model, which appears at the end of the run.
        evaluations: pairs of step and value so far.
    """

    def __init__(self, path: Path, *, is_main: bool) -> None:
        """Take the path of the folder, and whether this process is the one that writes."""
        self.path = path
        self.model = path / "model"
        self.evaluations: list[tuple[int, float]] = []
        self._checkpoints = path / "checkpoints"
        self._log = path / "log.jsonl"
        self._file: IO[str] | None = None
        self._is_main = is_main

    def check(self) -> None:
        """Check, before anything is written, that the folder holds a run or nothing.

        Raises:
            FileExistsError: the folder holds something else.
        """
        if not self.path.exists() or (self.path / "config.json").is_file():
            return
        others = [name for name in contents(self.path) if name != "data" and not name.startswith(".")]
        if others:
            raise FileExistsError(f"{self.path} holds {others[0]} and no run; name a folder that is new or empty.")

    def begin(self, run: dict[str, Any]) -> None:
        """Begin a run, or go on with the same one, and remove what a killed process left half written.

        Raises:
            ValueError: the folder holds a run of other settings or examples.
        """
        config = self.path / "config.json"
        plain = json.loads(json.dumps(run))
        if config.is_file():
            _check_same(self.path, _read_config(config), plain)
        elif self._is_main:
            versions = {name: version(name) for name in ("torch", "transformers", "accelerate")}
            write_json(config, plain | {"versions": versions})
        if self._is_main:
            for abandoned in [*self.path.glob(".model-*"), *self._checkpoints.glob(".step-*")]:
                shutil.rmtree(abandoned, ignore_errors=True)

    def restore(self, accelerator: Any) -> int:
        """Load the last checkpoint, and remove from the log what came after it.

        Returns:
            The step of the checkpoint; 0 if there is none.
        """
        step = max(self._steps(), default=0)
        if step:
            accelerator.load_state(str(self._checkpoint(step)))
        entries = [entry for entry in _read_log(self._log) if entry["step"] <= step]
        self.evaluations = [(entry["step"], entry["evaluation"]) for entry in entries if "evaluation" in entry]
        accelerator.wait_for_everyone()
        if self._is_main:
            write_text(self._log, "".join(json.dumps(entry) + "\n" for entry in entries))
        return step

    @contextlib.contextmanager
    def logging(self) -> Iterator[None]:
        """Keep the log open until the block ends."""
        if not self._is_main:
            yield
            return
        with self._log.open("a", encoding="utf-8") as self._file:
            yield

    def log(self, entry: dict[str, Any]) -> None:
        """Write an entry to the log."""
        if "evaluation" in entry:
            self.evaluations.append((entry["step"], entry["evaluation"]))
        if self._file is not None:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()

    def save(self, accelerator: Any, step: int) -> None:
        """Save a checkpoint.

        Raises:
            OSError: it could not be written; earlier checkpoints stay.
        """
        work = self._checkpoints / f".step-{step}"
        with self._writing(f"The checkpoint of step {step}", work):
            if self._file is not None:
                sync(self._file.fileno())  # the log of a checkpoint must be on disk before the checkpoint
            accelerator.save_state(str(work))
            accelerator.wait_for_everyone()
            if self._is_main:
                put_in_place(work, self._checkpoint(step))
        accelerator.wait_for_everyone()

    def prune(self, accelerator: Any) -> None:
        """Remove all checkpoints but the last two and the best."""
        if self._is_main:
            for old in {*self._steps()[:-_KEPT]} - {self.best_step()}:
                shutil.rmtree(self._checkpoint(old), ignore_errors=True)
        accelerator.wait_for_everyone()

    def finish(self, model: ColBERT, accelerator: Any) -> None:
        """Write the model of the best checkpoint, or of the last without evaluations.

        Raises:
            OSError: it could not be written; the checkpoints stay.
        """
        chosen = self.best_step() or self._steps()[-1]
        if chosen != self._steps()[-1]:
            accelerator.load_state(str(self._checkpoint(chosen)))
        if self._is_main:
            with self._writing("The finished model"):
                model.save(self.model)
        accelerator.wait_for_everyone()

    def result(self) -> TrainResult:
        """Return the result of a finished run."""
        entries = list(_read_log(self._log))
        evaluations = tuple((entry["step"], entry["evaluation"]) for entry in entries if "evaluation" in entry)
        self.evaluations = list(evaluations)
        last = [entry for entry in entries if "loss" in entry][-1]
        return TrainResult(self.model, self.best_step() or last["step"], last["step"], last["loss"], evaluations)

    def best_step(self) -> int | None:
        """Return the step of the best evaluation, the first of equal ones; None without evaluations."""
        return max(self.evaluations, key=lambda evaluation: evaluation[1])[0] if self.evaluations else None

    def n_worse(self) -> int:
        """Count the evaluations after the best one."""
        return sum(step > (self.best_step() or 0) for step, _ in self.evaluations)

    def _checkpoint(self, step: int) -> Path:
        return self._checkpoints / f"step-{step}"

    def _steps(self) -> list[int]:
        """Return the steps of all checkpoints, ascending."""
        names = [folder.name.removeprefix("step-") for folder in self._checkpoints.glob("step-*")]
        return sorted(int(name) for name in names if re.fullmatch("[1-9][0-9]{0,15}", name))

    @contextlib.contextmanager
    def _writing(self, what: str, *leftovers: Path) -> Iterator[None]:
        """Turn any error of the block into an OSError that says what to do, and remove the leftovers."""
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
    """Lock a folder until the block ends, and make it if it is not there.

    The system releases the lock when the process ends, even if it is killed. On Windows, and on disks without such locks,
    nothing is locked.

    Raises:
        BlockingIOError: another process has locked the folder.
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
        except OSError:  # a network disk without locks
            pass
        yield
    finally:
        os.close(descriptor)


def _check_same(path: Path, there: dict[str, Any], run: dict[str, Any]) -> None:
    """Check that the run in a folder is this one.

    Raises:
        ValueError: it is another one.
    """
    pairs = {name: (there.get(name), value) for name, value in run.items() if name != "config"}
    pairs |= {name: (there.get("config", {}).get(name), value) for name, value in run["config"].items()}
    differing = [f"{name}: {old!r} there, {new!r} here" for name, (old, new) in pairs.items() if old != new]
    if differing:
        raise ValueError(f"{path} holds another run ({'; '.join(differing)}); name another folder, or remove it.")


def _read_config(config: Path) -> dict[str, Any]:
    """Read what a run says of itself.

    Raises:
        ValueError: it is no JSON object.
    """
    try:
        there = read_json_file(config)
    except ValueError as error:
        raise ValueError(f"{config} cannot be read ({error}); name another folder, or remove it.") from None
    if not isinstance(there, dict) or not isinstance(there.get("config"), dict):
        raise ValueError(f"{config} is not that of a run; name another folder, or remove it.")
    return there


def _read_log(log: Path) -> Iterator[dict[str, Any]]:
    """Read the entries of a log, up to a line that a killed process did not finish.

    Raises:
        ValueError: a line is none that a run writes.
    """
    if not log.is_file():
        return
    with log.open(encoding="utf-8", errors="replace") as lines:
        for place, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                return
            try:
                entry = json.loads(line)
                numbers = [entry[name] for name in ("loss", "evaluation") if name in entry]
                if type(entry["step"]) is not int or not all(isinstance(number, int | float) for number in numbers):
                    raise TypeError("its numbers are none")
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise ValueError(f"{log}, line {place} is none that a run writes ({error!s:.100}); remove the run.") from None
            yield entry
