"""What a model is told where something went wrong: a sentence that says how to mend it, and never a path of the server."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from colbert_core.errors import (
    CheckpointError,
    ColBERTError,
    EncoderMismatchError,
    FilterWarning,
    IndexLockedError,
    IndexNotFoundError,
    IndexWriteError,
    MissingExtraError,
    PartialAddError,
    ReadOnlyIndexError,
)
from colbert_core.serve.work import TooBusyError

if TYPE_CHECKING:
    from collections.abc import Iterable

logger = logging.getLogger(__name__)

# Characters of a sentence, and of a value in it.
_LONGEST, _LONGEST_VALUE = 1000, 80
_NO_MODEL = (
    "This collection cannot be asked by meaning: the model that it was made with is not there, or is another one; mode='words' "
    "may work, and the log of the server says what is wrong."
)
# The first that fits. The messages of these errors may name files, so they go to the log alone.
_SENTENCES: list[tuple[type[Exception], str]] = [
    (IndexNotFoundError, "This collection is not there any more; list_collections tells which there are."),
    (IndexLockedError, "Another process is changing this collection; try again in a moment."),
    (ReadOnlyIndexError, "The files of this collection may only be read, so nothing was added."),
    (IndexWriteError, "The disk of the server is full or failed; nothing was added."),
    (EncoderMismatchError, _NO_MODEL),
    (CheckpointError, _NO_MODEL),
    (MissingExtraError, "The server lacks a package that this needs; its log says which."),
    (ColBERTError, "The collection could not answer; the log of the server says why."),
]


def sentence_of(error: BaseException) -> str:
    """Say what went wrong, to a model. What is no fault of its call is logged as well."""
    if isinstance(error, ValidationError):
        return _shortened(_on_arguments(error))
    if isinstance(error, PartialAddError):
        logger.error("An addition failed in part: %s", error, exc_info=error)
        return f"Only {len(error.added)} of the passages were added, the first ones, before this failed; add the others again."
    if isinstance(error, ColBERTError):
        logger.error("A call failed: %s", error, exc_info=error)
        return next(sentence for kind, sentence in _SENTENCES if isinstance(error, kind))
    if isinstance(error, TypeError | ValueError | FilterWarning | TooBusyError):
        return _shortened(str(error))
    logger.error("A call failed: %s", error, exc_info=error)
    return f"Something went wrong within the server ({type(error).__name__}); its log says what."


def check_arguments(tool: str, arguments: Iterable[str], known: Iterable[str]) -> None:
    """Make sure that a tool has all the arguments it is called with: a filter that is spelt wrong must not find everything.

    Raises:
        ValueError: it has no such argument.
    """
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise ValueError(f"{tool} has no argument {unknown[0]!r:.{_LONGEST_VALUE}}; its arguments are {', '.join(known)}.")


def _on_arguments(error: ValidationError) -> str:
    said = [_on_argument(each) for each in error.errors(include_url=False)]
    more = f" (and {len(said) - 3} more)" if len(said) > 3 else ""
    return "; ".join(said[:3]) + more + "."


def _on_argument(problem: Any) -> str:
    place = ".".join(map(str, problem["loc"]))
    if problem["type"] == "missing":
        return f"The argument {place} is missing"
    return f"{place}: {problem['msg']}, got {problem.get('input')!r:.{_LONGEST_VALUE}}"


def _shortened(sentence: str) -> str:
    return sentence if len(sentence) <= _LONGEST else f"{sentence[:_LONGEST]}…"
