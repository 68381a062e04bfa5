"""What training data cannot teach, or teach by mistake, found before a run begins. Nothing is trained here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.train.batches import KnownPositives
from colbert_core.train.presets import chosen_loss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from colbert_core.train.data import Examples
    from colbert_core.train.model import ColBERT
    from colbert_core.train.presets import TrainConfig

# Examples that are looked at together.
_AT_A_TIME = 2**16

# Most negatives of an example in a message.
_SHOWN = 2


def check_examples(examples: Examples, model: ColBERT, config: TrainConfig) -> tuple[str, list[str]]:
    """Check that examples can teach what a run is to learn, and choose its loss.

    Args:
        examples: prepared examples.
        model: model to train, which says how its tokens are written.
        config: settings of the run.

    Returns:
        The loss, one of ``presets.LOSSES``; and what is wrong with some examples, with their number and the first of them.

    Raises:
        ValueError: the loss needs what examples lack, or none of them can teach anything; the message has the first of them.
    """
    known = KnownPositives(examples)
    about = _About(examples, known, model)
    warnings = _check_scored(examples, config, about)
    loss = chosen_loss(config, scored=examples.scores is not None)
    _check_negatives(examples, loss, config.batch_size)
    warnings += _check_positives(examples, model, about)
    found = _find(examples, known, loss, config)
    n, n_copies, n_idle = len(examples), int(found.copies.sum()), int(found.idle.sum())
    if n_idle == n:
        raise ValueError(
            f"None of the {n} examples can teach anything with loss={loss!r} and batch_size={config.batch_size}: every passage "
            f"that a positive is compared with reads as a positive of the same query, such as {about.first(found.idle)}. Give "
            "negatives with other texts."
        )
    if n_copies:
        warnings.append(
            f"{n_copies} of {n} examples have a negative that reads as a positive of their query, such as "
            f"{about.first(found.copies)}. It is not used as a negative. Remove it, or mine the negatives again."
        )
    if n_idle:
        warnings.append(
            f"{n_idle} of {n} examples teach nothing, as their positives are compared with no other passage, such as "
            f"{about.first(found.idle)}. Give them negatives with other texts, or remove them."
        )
    return loss, warnings + (_check_scores(found, n, about) if "distillation" in loss else [])


@dataclass
class _Found:
    """Examples, True for those of a kind. *Shape:* (n_examples,), bool.

    Attributes:
        copies: a negative reads as a positive of the query.
        idle: nothing is compared with the positive.
        flat: several passages, and all have the same score.
        contradictory: passages that read alike have different scores.
        lowest: several passages, and the positive has the lowest score.
    """

    copies: NDArray[np.bool_]
    idle: NDArray[np.bool_]
    flat: NDArray[np.bool_]
    contradictory: NDArray[np.bool_]
    lowest: NDArray[np.bool_]


class _About:
    """Describes examples in messages."""

    def __init__(self, examples: Examples, known: KnownPositives, model: ColBERT) -> None:
        self._examples, self._known, self._tokenizer = examples, known, model.inputs.tokenizer

    def first(self, are_so: NDArray[np.bool_]) -> str:
        """Describe the first of some examples: where it was read, the query, and its passages with their scores."""
        return self.example(int(np.flatnonzero(are_so)[0]))

    def example(self, number: int) -> str:
        """Describe an example. Of many negatives those are shown that read as a positive, or as another negative."""
        examples, query = self._examples, int(self._examples.query_numbers[number])
        span = slice(int(examples.offsets[number]), int(examples.offsets[number + 1]))
        numbers = np.asarray(examples.passage_numbers[span])
        alike = self._known.passages[numbers]
        is_told = self._known.includes(np.array([query]), numbers) | ((alike[:, None] == alike).sum(axis=1) > 1)
        places = [0, *sorted(range(1, len(numbers)), key=lambda place: not is_told[place])[:_SHOWN]]
        texts = [self._text(examples.passages.ids(int(numbers[place]))) for place in places]
        if examples.scores is not None:
            scores = examples.scores[span]
            texts = [f"{text} with score {scores[place]:g}" for text, place in zip(texts, places, strict=True)]
        more = ", …" if len(places) < len(numbers) else ""
        others = f", negatives {', '.join(texts[1:])}{more}" if len(texts) > 1 else ""
        return f"{examples.place(number)} (query {self._text(examples.queries.ids(query))}, positive {texts[0]}{others})"

    def _text(self, tokens: NDArray[np.int64]) -> str:
        names = (name for name in self._tokenizer.tokens_of(tokens.tolist()) if not name.startswith("["))
        return f"{' '.join(names)!r:.60}"


def _check_scored(examples: Examples, config: TrainConfig, about: _About) -> list[str]:
    """Check that all examples have a teacher's scores, or none; return what is wrong with some.

    Raises:
        ValueError: the loss learns from scores, and some examples have none.
    """
    n, n_missing = len(examples), len(examples.unscored)
    if not 0 < n_missing < n or not (config.loss is None or "distillation" in config.loss):
        return []
    have = "1 of {n} examples has" if n_missing == 1 else "{n_missing} of {n} examples have"
    what = (
        f"{have.format(n=n, n_missing=n_missing)} no teacher scores, the first of them "
        f"{about.example(int(examples.unscored[0]))}"
    )
    if config.loss is not None:
        raise ValueError(
            f"loss={config.loss!r} learns from a teacher's scores, which not all examples have: {what}. Add the scores, remove "
            "these examples, or train with loss='in-batch' or 'pairwise'."
        )
    return [
        f"{what}, so the scores of the other {n - n_missing} are not used either, and the loss is 'in-batch'. Add the scores "
        "or remove these examples; loss='in-batch' says that no scores are wanted."
    ]


def _check_positives(examples: Examples, model: ColBERT, about: _About) -> list[str]:
    """Check that the positives have words; return what is wrong with some.

    Raises:
        ValueError: all are blank.
    """
    (blank, *_) = model.inputs.passages([""])
    are_blank = examples.passages.equal(np.asarray(blank.ids))[examples.passage_numbers[examples.offsets[:-1]]]
    n, n_blank = len(examples), int(are_blank.sum())
    if not n_blank:
        return []
    what = f"{n_blank} of {n} examples have a blank positive, such as {about.first(are_blank)}"
    if n_blank == n:
        raise ValueError(f"{what}. There is nothing in them to find; give the texts that answer the queries.")
    return [f"{what}. It would be found for anything; give its text, or remove the example."]


def _check_negatives(examples: Examples, loss: str, batch_size: int) -> None:
    """Check that an example has negatives, if its loss compares the positive with nothing else.

    Raises:
        ValueError: an example has a positive and nothing else.
    """
    without_negatives = np.flatnonzero(np.diff(examples.offsets) < 2)
    if len(without_negatives) and _needs_negatives(loss, batch_size):
        raise ValueError(
            f"loss={loss!r} with batch_size={batch_size} compares a positive with the example's own negatives, and "
            f"{len(without_negatives)} of {len(examples)} examples have none, the first of them "
            f"{examples.place(int(without_negatives[0]))}; mine negatives, or train with loss='in-batch' and a batch_size "
            "above 1."
        )


def _needs_negatives(loss: str, batch_size: int) -> bool:
    return loss in ("pairwise", "distillation") or batch_size == 1


def _check_scores(found: _Found, n: int, about: _About) -> list[str]:
    """Check what a teacher's scores tell; return what is wrong with some.

    Raises:
        ValueError: they tell nothing, or contradict themselves everywhere.
    """
    kinds = (
        (found.flat, "give all their passages the same score", "scores that differ"),
        (found.contradictory, "give texts that read alike different scores", "one score for each text"),
    )
    warnings = []
    for are_so, problem, fix in kinds:
        if are_so.all():
            raise ValueError(
                f"All {n} examples {problem}, such as {about.first(are_so)}. Such a teacher has nothing to teach; give {fix}, "
                "or train with loss='in-batch' or 'pairwise'."
            )
        if are_so.any():
            warnings.append(f"{int(are_so.sum())} of {n} examples {problem}, such as {about.first(are_so)}. Give {fix}.")
    if found.lowest.sum() > n / 2:
        warnings.append(
            f"{int(found.lowest.sum())} of {n} examples give their positive the lowest score, such as "
            f"{about.first(found.lowest)}. The positive's score comes first, and the higher the better; negate distances."
        )
    return warnings


def _find(examples: Examples, known: KnownPositives, loss: str, config: TrainConfig) -> _Found:
    """Look at all examples, some at a time."""
    n_different = len(np.unique(known.passages))
    scores = examples.scores if "distillation" in loss else None
    parts = [
        _find_among(examples, known, slice(first, min(first + _AT_A_TIME, len(examples))), config.negatives, scores)
        for first in range(0, len(examples), _AT_A_TIME)
    ]
    copies, has_negative, flat, contradictory, lowest = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    idle = ~has_negative
    if not _needs_negatives(loss, config.batch_size):  # all other passages are compared as well
        idle &= known.counts(examples.query_numbers) >= n_different
    return _Found(copies, idle, flat, contradictory, lowest)


def _find_among(
    examples: Examples, known: KnownPositives, part: slice, most: int, scores: NDArray[np.float32] | None
) -> tuple[NDArray[np.bool_], ...]:
    """Return copies, examples with a negative that is none, flat, contradictory and lowest ones, for some examples."""
    offsets = np.asarray(examples.offsets[part.start : part.stop + 1])
    numbers = np.asarray(examples.passage_numbers[offsets[0] : offsets[-1]])
    lengths = np.diff(offsets)
    n, starts = len(lengths), offsets[:-1] - offsets[0]
    owners = np.repeat(np.arange(n), lengths)
    places = np.arange(len(numbers)) - starts[owners]

    def has(are_so: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell for each example whether one of its passages is so."""
        return np.bincount(owners[are_so], minlength=n) > 0

    is_used = places <= most
    is_negative = is_used & (places > 0)
    is_known = known.includes(np.asarray(examples.query_numbers[part])[owners], numbers)
    copies, has_negative = has(is_negative & is_known), has(is_negative & ~is_known)
    none = np.zeros(n, np.bool_)
    if scores is None:
        return copies, has_negative, none, none, none
    scores = np.asarray(scores[offsets[0] : offsets[-1]])
    of_positive = scores[starts][owners]
    several = has(is_negative)
    flat = several & ~has(is_negative & (scores != of_positive))
    lowest = several & ~has(is_negative & (scores <= of_positive))
    used = np.flatnonzero(is_used)
    texts = owners[used] * len(known.passages) + known.passages[numbers[used]]  # a number for each text of each example
    order = np.lexsort((scores[used], texts))
    differs = (np.diff(texts[order]) == 0) & (np.diff(scores[used][order]) > 0)
    contradictory = np.bincount(owners[used][order][1:][differs], minlength=n) > 0
    return copies, has_negative, flat, contradictory, lowest
