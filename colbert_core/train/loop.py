"""The training loop: optimizer steps, evaluations and checkpoints. A run can be interrupted at any time."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import random
import time
from dataclasses import asdict
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from colbert_core.errors import MissingExtraError
from colbert_core.extras import import_extra
from colbert_core.paths import as_path
from colbert_core.progress import ProgressBar, progress_bar
from colbert_core.train.batches import Batches, example_numbers
from colbert_core.train.checking import check_examples
from colbert_core.train.data import Examples, prepare
from colbert_core.train.folder import RunFolder, TrainResult, locked
from colbert_core.train.gradients import add_gradients, random_state, set_random_state
from colbert_core.train.model import ColBERT
from colbert_core.train.presets import configured, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from colbert_core.model.encoder import Encoder
    from colbert_core.train.examples import Example
    from colbert_core.train.presets import Plan, TrainConfig

logger = logging.getLogger(__name__)

# Texts in one forward pass on a CPU, measured with texts of 180 tokens.
_CPU_TEXTS = 16


def train(
    examples: Examples | Iterable[Example],
    base: str | PathLike[str] | None = None,
    *,
    out: str | PathLike[str],
    preset: str = "colbertv2",
    evaluate: Callable[[Encoder], float] | None = None,
    progress: bool | None = None,
    language: str | None = None,
    trust_remote_code: bool = False,
    local_files_only: bool = False,
    **settings: Any,
) -> TrainResult:
    """Train a ColBERT model from examples, or go on with a run that was interrupted.

    Called again with the same arguments after an interruption of any kind, it goes on from the last checkpoint. On the same
    machine, losses and weights are those of a run without the interruption. A finished run is returned as it is. Several
    processes (``accelerate launch``) take a batch each and average their gradients; in-batch negatives are those of a process's
    own batch. The random generators of Python, NumPy and torch are seeded.

    Before it begins, a warning is logged of examples that cannot teach what they are to: some without a teacher's scores among
    others that have them, negatives that read as a positive of their query, scores that are all equal or contradict themselves.

    Args:
        examples: prepared examples, or any others. Those are prepared in the folder of the run first, and are read again by
            every call that goes on with the run.
        base: what to begin with, as for ``Encoder.from_pretrained``; None for the model in the box. A ColBERT checkpoint keeps
            its configuration, a plain encoder gets that of Stanford's ColBERT.
        out: folder of the run.
        preset: "colbertv1" for the settings of ColBERT and nanoColBERT, "colbertv2" for those of ColBERTv2.
        evaluate: judges the model at each checkpoint, the higher the better; the best checkpoint becomes the result. It is
            called in the main process only, after the checkpoint is saved. What it draws at random does not change the
            training.
        progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.
        language: the language whose layers are trained, for a base that has some for each, as for
            ``Encoder.from_pretrained``.
        trust_remote_code: run code that comes with the base.
        local_files_only: use the hub's cache and no network.
        settings: settings in place of the preset's: attributes of ``TrainConfig``.

    Raises:
        ValueError: a setting is out of range, the loss needs what the examples lack, none of them can teach anything, they
            were prepared for another model, or ``out`` holds another run.
        TypeError: there is no such setting, or the examples are no examples.
        FileExistsError: ``out`` holds something else.
        BlockingIOError: another process trains in ``out``.
        FloatingPointError: a loss or gradient is not finite; the last checkpoint stays.
        OSError: a checkpoint could not be written; earlier checkpoints stay.
        MissingExtraError: accelerate, or a tracker, is not installed.
        CheckpointError: the base cannot be loaded.
    """
    config = configured(preset, settings)
    if isinstance(examples, str | PathLike):
        raise TypeError(
            f"examples must be Examples or an iterable of Example, got {examples!r}; use Examples.open or read_examples."
        )
    path = as_path(out).absolute()
    model = ColBERT.from_pretrained(
        base, config, language=language, trust_remote_code=trust_remote_code, local_files_only=local_files_only
    )
    accelerator = _make_accelerator(config, path)
    try:
        folder = RunFolder(path, is_main=accelerator.is_main_process)
        if accelerator.is_main_process:
            folder.check()
        needs_lock = accelerator.is_main_process and not folder.model.exists()
        with locked(path) if needs_lock else contextlib.nullcontext():
            with accelerator.main_process_first():
                if not isinstance(examples, Examples):
                    if accelerator.is_main_process:
                        prepare(examples, model, path / "data", progress=progress)
                    examples = Examples.open(path / "data")
                examples.check_model(model)
                loss, warnings = check_examples(examples, model, config)
                for warning in warnings if accelerator.is_main_process else ():
                    logger.warning(warning)
                schedule = plan(config, len(examples), accelerator.num_processes)
                run = {"base": model.name, "examples": examples.digest, "loss": loss, "processes": accelerator.num_processes}
                if chosen := getattr(model.backbone.config, "default_language", None):
                    run["language"] = chosen
                folder.begin({"config": asdict(config), "plan": asdict(schedule), **run})
            if not folder.model.exists():
                _run(model, examples, config, schedule, loss, folder, accelerator, evaluate, progress)
        return folder.result()
    finally:
        accelerator.end_training()
        _reset_precision()


def _run(
    model: ColBERT,
    examples: Examples,
    config: TrainConfig,
    schedule: Plan,
    loss_name: str,
    folder: RunFolder,
    accelerator: Any,
    evaluate: Callable[[Encoder], float] | None,
    progress: bool | None,
) -> None:
    """Train from the last checkpoint to the finished model."""
    from accelerate.utils import broadcast_object_list, set_seed

    set_seed(config.seed, device_specific=True)  # each process has its own dropout
    plain_optimizer, learning_rate = _make_optimizer(model, config, schedule)
    wrapped, optimizer = accelerator.prepare(model.train(), plain_optimizer)
    accelerator.register_for_checkpointing(learning_rate)
    done = folder.restore(accelerator)
    if config.trackers:
        accelerator.init_trackers("colbert", config={name: str(value) for name, value in asdict(config).items()})
    batches = Batches(examples, most_negatives=config.negatives, pad_id=model.inputs.tokenizer.pad_id)
    size = config.batch_size * config.accumulation * accelerator.num_processes
    order = example_numbers(len(examples), size, config.seed, first=done)

    def judge(step: int) -> None:
        if evaluate is None:
            return
        with _generators_kept(accelerator.device):
            (value,) = broadcast_object_list([evaluate(model.encoder()) if accelerator.is_main_process else None])
        folder.log({"step": step, "evaluation": _check_evaluation(value, step)})
        accelerator.log({"evaluation": value}, step=step)

    part_size, chunk_size = _at_a_time(config, loss_name, accelerator.device)
    with folder.logging(), _make_bar(size, schedule, done, accelerator, progress) as bar:
        if done and done not in dict(folder.evaluations):  # the evaluation failed, or the process was killed during it
            judge(done)
        for step in range(done + 1, schedule.steps + 1):
            if config.patience is not None and folder.n_worse() >= config.patience:
                break
            start = time.perf_counter()
            numbers = next(order).reshape(-1, config.batch_size)[accelerator.process_index :: accelerator.num_processes]
            numbers = numbers.reshape(-1, part_size)
            loss = torch.zeros((), device=accelerator.device)
            for part, part_numbers in enumerate(numbers, 1):
                batch = batches.batch(part_numbers).to(accelerator.device)
                with accelerator.no_sync(wrapped) if part < len(numbers) else contextlib.nullcontext():
                    loss += add_gradients(
                        wrapped,
                        batch.inputs,
                        functools.partial(batch.loss, loss=loss_name, config=config, share=1 / len(numbers)),
                        backward=accelerator.backward,
                        chunk_size=chunk_size,
                        unsynced=functools.partial(accelerator.no_sync, wrapped),
                    )
            loss = accelerator.gather(loss).mean()
            norm = accelerator.clip_grad_norm_(model.parameters(), config.clip or math.inf)
            if not (loss.isfinite() and (norm.isfinite() or accelerator.scaler is not None)):  # a scaler skips such steps
                raise FloatingPointError(_not_finite(loss, norm, step, numbers, examples, model, folder))
            rate = learning_rate.get_last_lr()[0]
            optimizer.step()
            learning_rate.step()
            optimizer.zero_grad()

            figures = {"loss": loss.item(), "learning_rate": rate, "gradient_norm": norm.item()}
            folder.log({"step": step, **figures, "seconds": round(time.perf_counter() - start, 4)})
            accelerator.log(figures, step=step)
            bar.set_postfix(loss=f"{figures['loss']:.4f}", refresh=False)
            bar.update(size)
            if step % schedule.checkpoint_every and step < schedule.steps:
                continue
            folder.save(accelerator, step)  # before the evaluation, which is not our code and may fail
            judge(step)
            folder.prune(accelerator)
    folder.finish(model, accelerator)


@contextlib.contextmanager
def _generators_kept(device: torch.device) -> Iterator[None]:
    """Put the random generators back when the block ends, so that it may run once, twice or not at all."""
    python, arrays, tensors = random.getstate(), np.random.get_state(), random_state(device)  # noqa: NPY002
    yield
    random.setstate(python)
    np.random.set_state(arrays)  # noqa: NPY002
    set_random_state(tensors, device)


def _at_a_time(config: TrainConfig, loss: str, device: torch.device) -> tuple[int, int | None]:
    """Choose the number of examples in a part of a batch, and of texts in a forward pass. The gradient is always the same.

    On a CPU the system has to clear the memory of large tensors each time: a step of 64 passages of 180 tokens took 11.2 s in
    one piece and 5.5 s in pieces of 16. Where examples do not see each other's passages, the gradient is a sum over examples,
    and a batch is cut into parts. Elsewhere gradients are cached, which costs another forward pass, 1.2 s.
    """
    if device.type != "cpu" or config.chunk_size is not None:
        return config.batch_size, config.chunk_size
    if "in-batch" in loss:
        return config.batch_size, _CPU_TEXTS if config.batch_size > _CPU_TEXTS else None
    return math.gcd(config.batch_size, _CPU_TEXTS // 2), None


def _make_accelerator(config: TrainConfig, path: Path) -> Any:
    """Make the accelerator of a run.

    Raises:
        MissingExtraError: accelerate, or a tracker, is not installed.
    """
    accelerate, tracking = (
        import_extra(module, "Training", "accelerate", "'accelerate>=1.0'") for module in ("accelerate", "accelerate.tracking")
    )
    available = [str(getattr(tracker, "value", tracker)) for tracker in tracking.get_available_trackers()]
    missing = [name for name in config.trackers if name not in available]
    if missing:
        raise MissingExtraError(f"The tracker {missing[0]!r} is not installed: pip install {missing[0]}")
    return accelerate.Accelerator(
        mixed_precision=config.precision or _best_precision(),
        log_with=list(config.trackers) or None,
        project_dir=str(path),
    )


def _reset_precision() -> None:
    """Let the next run have another precision, since accelerate keeps the first one of a process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()


def _best_precision() -> str:
    if not torch.cuda.is_available():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def _make_optimizer(model: ColBERT, config: TrainConfig, schedule: Plan) -> tuple[torch.optim.Optimizer, Any]:
    """Make AdamW, and the schedule of its learning rate."""
    import transformers  # here, since it takes a second

    rates = [(model.backbone, config.learning_rate), (model.head, config.head_learning_rate or config.learning_rate)]
    groups: list[dict[str, Any]] = []
    for part, rate in rates:
        parameters = [] if part is None else list(part.parameters())
        decaying = [parameter for parameter in parameters if parameter.ndim > 1]
        others = [parameter for parameter in parameters if parameter.ndim < 2]  # biases and norms do not decay
        groups += [{"params": decaying, "lr": rate, "weight_decay": config.weight_decay}]
        groups += [{"params": others, "lr": rate, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], eps=config.epsilon)
    learning_rate: Any = transformers.get_scheduler(
        "constant_with_warmup" if config.schedule == "constant" else config.schedule,
        optimizer,
        num_warmup_steps=schedule.warmup_steps,
        num_training_steps=schedule.steps,
    )
    return optimizer, learning_rate


def _make_bar(size: int, schedule: Plan, done: int, accelerator: Any, progress: bool | None) -> ProgressBar:
    """Make a bar of examples that begins where the run goes on."""
    shown = progress if accelerator.is_main_process else False
    return progress_bar("Training", schedule.steps * size, "example", shown, done * size)


def _check_evaluation(value: Any, step: int) -> float:
    """Return what ``evaluate`` returned.

    Raises:
        ValueError: it is no finite number.
    """
    if not math.isfinite(value):
        raise ValueError(
            f"evaluate returned {value!r} after step {step}; it must return a finite number, the higher the better."
        )
    return float(value)


def _not_finite(
    loss: torch.Tensor,
    norm: torch.Tensor,
    step: int,
    numbers: NDArray[np.int64],
    examples: Examples,
    model: ColBERT,
    folder: RunFolder,
) -> str:
    """Write the message of a step whose loss or gradient is not finite."""
    tokens = model.inputs.tokenizer.tokens_of(examples.queries.ids(int(examples.query_numbers[numbers[0, 0]])).tolist())
    return (
        f"Step {step} has the loss {loss.item()} and a gradient of length {norm.item()}, from the examples "
        f"{numbers.flatten().tolist()} of {examples.folder} (the first asks {' '.join(tokens)!r:.200}). The checkpoints in "
        f"{folder.path} are from before; try a smaller learning_rate, clip, or precision='no' in a new folder."
    )
