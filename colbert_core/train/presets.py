"""The settings of a training run, and presets of published models. Nothing is trained here."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from colbert_core.train.losses import SIMILARITIES

LOSSES = ("pairwise", "in-batch", "distillation", "distillation+in-batch")
SCHEDULES = ("constant", "linear", "cosine")
PRECISIONS = ("no", "bf16", "fp16")

# Least number of checkpoints in a run. An interval longer than a tenth of the run becomes a tenth.
_LEAST_CHECKPOINTS = 10

# Largest share of a run that may be warm-up.
_MOST_WARMUP = 1 / 10


def _check_count(name: str, value: object, *, least: int, optional: bool) -> None:
    if value is None and optional:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}{' or None' if optional else ''}, got {value!r}.")


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained.

    Attributes:
        loss: "pairwise" for cross-entropy of the positive and the example's own negatives; "in-batch" for cross-entropy among
            all passages of the batch; "distillation" for KL divergence from the teacher's scores; "distillation+in-batch" for
            the sum of the last two. None for "distillation+in-batch" if all examples have teacher scores, else "in-batch".
        similarity: how vectors are compared, "cosine" or "l2".
        query_length: most tokens of a query. A base that does not fill queries up keeps its own length if it is larger.
        passage_length: most tokens of a passage.
        dim: number of components of the vectors, for a base without a head, which gets a new one.
        negatives: most negatives of an example that are used, the first ones; nway is one more.
        temperature: number that scores are divided by in the losses.
        vector_noise: standard deviation of the noise that is added to each component of the passages' vectors before the
            losses, 0 or more. With it a model learns to rank vectors that an index has compressed. At 128 components, 2 bits
            move a vector as far as .02 does, 4 bits as .006.
        batch_size: number of examples that one process takes at a time.
        accumulation: number of batches whose gradients are added before a step.
        chunk_size: number of texts in one forward pass with cached gradients, so that memory does not limit batch_size; None
            for all texts at once.
        steps: most steps. There are fewer if the epochs end before.
        epochs: how often each example is seen at most.
        learning_rate: highest learning rate of AdamW.
        head_learning_rate: highest learning rate of the head, which is new in a model that never learned late interaction;
            None for ``learning_rate``.
        weight_decay: weight decay of AdamW, for matrices.
        epsilon: epsilon of AdamW.
        clip: largest norm of a gradient; None for any.
        schedule: course of the learning rate after the warm-up: "constant", "linear" or "cosine".
        warmup_steps: number of steps until the highest learning rate, at most a tenth of all.
        seed: seed of the order of examples, of dropout and of a new head.
        precision: "no" for float32, "bf16" or "fp16"; None for the best that the device has, float32 on a CPU.
        checkpoint_every: number of steps between two checkpoints and evaluations, at most a tenth of all.
        patience: number of evaluations in a row that are no better than the best, after which training stops; None for never.
        trackers: names of accelerate's trackers, such as "tensorboard" or "wandb"; one name may stand by itself.
    """

    loss: str | None = None
    similarity: str = "cosine"
    query_length: int = 32
    passage_length: int = 180
    dim: int = 128
    negatives: int = 63
    temperature: float = 1.0
    vector_noise: float = 0.0
    batch_size: int = 32
    accumulation: int = 1
    chunk_size: int | None = None
    steps: int = 400_000
    epochs: int = 1
    learning_rate: float = 1e-5
    head_learning_rate: float | None = None
    weight_decay: float = 0.0
    epsilon: float = 1e-8
    clip: float | None = 2.0
    schedule: str = "linear"
    warmup_steps: int = 20_000
    seed: int = 12345
    precision: str | None = None
    checkpoint_every: int = 4000
    patience: int | None = None
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        trackers = (self.trackers,) if isinstance(self.trackers, str) else tuple(self.trackers)
        if not all(isinstance(name, str) and name for name in trackers):
            raise ValueError(f"trackers must be names such as 'wandb', got {self.trackers!r:.80}.")
        object.__setattr__(self, "trackers", trackers)
        choices: dict[str, tuple[str, ...]] = {"similarity": SIMILARITIES, "schedule": SCHEDULES}
        choices |= {} if self.loss is None else {"loss": LOSSES}
        choices |= {} if self.precision is None else {"precision": PRECISIONS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}.")
        for name in ("batch_size", "accumulation", "chunk_size", "steps", "epochs", "dim", "checkpoint_every", "patience"):
            _check_count(name, getattr(self, name), least=1, optional=name in ("chunk_size", "patience"))
        for name in ("negatives", "warmup_steps", "seed"):
            _check_count(name, getattr(self, name), least=0, optional=False)
        optional = [name for name in ("clip", "head_learning_rate") if getattr(self, name) is not None]
        for name in ("learning_rate", "temperature", "epsilon", *optional):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 < value < math.inf):
                raise ValueError(f"{name} must be a number above 0, got {value!r}.")
        if not (isinstance(self.vector_noise, int | float) and 0 <= self.vector_noise < math.inf):
            raise ValueError(f"vector_noise must be a number of at least 0, got {self.vector_noise!r}.")
        if not (isinstance(self.weight_decay, int | float) and 0 <= self.weight_decay < 1):
            raise ValueError(f"weight_decay must be from 0 to below 1, got {self.weight_decay!r}.")


# ColBERT (Khattab and Zaharia, SIGIR 2020), section 4.1, with half precision and the seed of nanoColBERT. There examples keep
# the order of the file; here they are shuffled, since not every file is.
_COLBERT_V1 = TrainConfig(
    loss="pairwise",
    similarity="l2",
    negatives=1,
    learning_rate=3e-6,
    clip=None,
    schedule="constant",
    warmup_steps=0,
)

# ColBERTv2 (Santhanam et al., NAACL 2022), section 3.2 and appendix, and the settings Stanford publishes with it: 64-way
# distillation and in-batch negatives.
_COLBERT_V2 = TrainConfig()

PRESETS = {"colbertv1": _COLBERT_V1, "colbertv2": _COLBERT_V2}


def configured(preset: str, settings: dict[str, Any]) -> TrainConfig:
    """Return a preset with some of its settings changed.

    Raises:
        ValueError: there is no such preset, or a value is out of range.
        TypeError: there is no such setting.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}.")
    known = {field.name for field in fields(TrainConfig)}
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise TypeError(f"There is no setting {unknown[0]!r} of training; it has {', '.join(sorted(known))}.")
    return replace(PRESETS[preset], **settings)


def chosen_loss(config: TrainConfig, *, scored: bool) -> str:
    """Choose the loss of a run.

    Args:
        config: settings of the training.
        scored: whether all examples have teacher scores.

    Raises:
        ValueError: the loss needs teacher scores that are missing, or it would compare a positive with nothing.
    """
    loss = config.loss or ("distillation+in-batch" if scored else "in-batch")
    if "distillation" in loss and not scored:
        raise ValueError(
            f"loss={loss!r} learns from a teacher's scores, which not all examples have; add them, or train with "
            "loss='in-batch' or 'pairwise'."
        )
    if config.negatives == 0 and not ("in-batch" in loss and config.batch_size > 1):
        raise ValueError(
            f"loss={loss!r} with negatives=0 and batch_size={config.batch_size} has nothing to compare a positive with, so "
            "nothing is learned; use at least 1 of each example's negatives, or loss='in-batch' with a batch_size above 1."
        )
    return loss


@dataclass(frozen=True)
class Plan:
    """The numbers of steps that follow from the settings and the number of examples.

    Attributes:
        steps: number of steps of the whole run.
        warmup_steps: number of steps of the warm-up, at the beginning.
        checkpoint_every: number of steps between two checkpoints.
    """

    steps: int
    warmup_steps: int
    checkpoint_every: int


def plan(config: TrainConfig, n_examples: int, n_processes: int = 1) -> Plan:
    """Limit the steps by the epochs, and warm-up and checkpoint interval by the steps."""
    examples_a_step = config.batch_size * config.accumulation * n_processes
    steps = max(min(config.steps, config.epochs * n_examples // examples_a_step), 1)
    return Plan(
        steps=steps,
        warmup_steps=min(config.warmup_steps, int(steps * _MOST_WARMUP)),
        checkpoint_every=min(config.checkpoint_every, math.ceil(steps / _LEAST_CHECKPOINTS)),
    )
