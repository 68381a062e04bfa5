"""Warn of filters that ask for a field that no passage has, or for a type that none of its values has."""

from __future__ import annotations

import difflib
import sys
import warnings
from typing import TYPE_CHECKING

from colbert_core.errors import FilterWarning
from colbert_core.storage.fields import N_SHOWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import FrameType

    from colbert_core.storage.fields import Survey
    from colbert_core.storage.filters import Expectation

# A server that takes names of fields from strangers would fill its log and its memory.
_MOST = 1000
# Spellings are compared in time that grows with the square of their length.
_LONGEST = 60

# The user's line is the first one outside of these; a cached property of ours is computed by functools.
_OURS = {"colbert_core", "langchain_colbert", "llama_index_colbert", "functools"}

_ONE = {"b": "true or false", "n": "a number", "s": "a string", "a": "an array", "o": "an object", "z": "null"}
_SEVERAL = {"z": "null", "b": "true or false", "n": "numbers", "s": "strings", "a": "arrays", "o": "objects"}


class Advice:
    """What has been said of the filters of one open index. Each thing is said once, whichever thread asks.

    A warning that a filter of Python's ``warnings`` made an error counts as not said, so that it is an error each time.
    """

    def __init__(self) -> None:
        self._settled: set[Expectation | str] = set()  # the path of a field of which it was said that nobody has it

    def unsaid(self, expected: Sequence[Expectation]) -> list[Expectation]:
        """Those of the expectations that are worth a look; none once 1,000 have been settled."""
        if len(self._settled) >= _MOST:
            return []
        return [each for each in expected if self._settled.isdisjoint((each, each.path))]

    def say(self, unmet: Iterable[Expectation], survey: Survey) -> None:
        """Warn of expectations that no passage meets; what was met, or may well be unmet, is settled as well.

        Args:
            unmet: the expectations.
            survey: of the same moment; it knows their fields.
        """
        if not survey.n_passages:  # it says nothing of those to come
            return
        for each in unmet:
            message = complaint(each, survey)
            if message is None:
                self._settled.add(each)
            elif self.unsaid([each]):
                warnings.warn(message, FilterWarning, stacklevel=levels_to_the_user())
                self._settled.add(each if survey.kinds_of(each.path) else each.path)


def complaint(expected: Expectation, survey: Survey) -> str | None:
    """Say what is odd about an expectation; None if it is met, or may well be unmet."""
    kinds = survey.kinds_of(expected.path)
    if survey.meets(expected):
        return None
    if not kinds:
        return _on_a_missing_field(expected.path, survey)
    wants_element = expected.kinds.isupper()
    if wants_element and "a" in kinds and not set("BNS") & set(kinds):  # the arrays are empty, or hold objects
        return None
    name = _shown(expected.path)
    if expected.kinds == "a":
        return f"The filter compares the field {name} with an array, but its values are {_described(kinds)}."
    wanted = " or ".join(dict.fromkeys(_ONE[kind.lower()] for kind in expected.kinds))
    if wants_element:
        hint = "" if "a" in kinds else "; $eq, $in and $text compare what is no array"
        return f"The filter wants {wanted} in an array of the field {name}, but its values are {_described(kinds)}{hint}."
    hint = "; $contains, $any and $all look into arrays" if "a" in kinds else ""
    hint = "; a dotted name, such as 'author.name', leads into objects" if "o" in kinds and not hint else hint
    return f"The filter compares the field {name} with {wanted}, but its values are {_described(kinds)}{hint}."


def _on_a_missing_field(path: str, survey: Survey) -> str:
    near = difflib.get_close_matches(path[:_LONGEST], [name for name in survey.names if len(name) <= _LONGEST], 1)
    said = f"No passage has the field {_shown(path)} that the filter asks for"
    said += f"; did you mean {_shown(near[0])}?" if near else "."
    if not survey.names:
        return f"{said} No passage has any metadata."
    shown = [f"{_shown(name)} ({_described(survey.kinds.get(name, ''))})" for name in survey.names[:N_SHOWN]]
    n_more = len(survey.names) - len(shown)
    more = f" and {'more than ' * survey.is_cut}{n_more} more" if n_more else ""
    return f"{said} The fields are {', '.join(shown)}{more}."


def _described(kinds: str) -> str:
    """The types of values: "numbers or strings", "arrays of strings"."""
    elements = [_SEVERAL[kind] for kind in "zbns" if kind.upper() in kinds]
    words = [_SEVERAL[kind] for kind in "bnsaoz" if kind in kinds]
    return " or ".join(f"arrays of {' and '.join(elements)}" if word == "arrays" and elements else word for word in words)


def name_in_a_filter(path: str) -> str:
    """A path as a filter has to name it."""
    return f"\\{path}" if path.startswith("$") else path


def _shown(path: str) -> str:
    """A path in quotes, without anything that a terminal or a log would take for more than letters."""
    return f"{name_in_a_filter(path)!r:.80}"


def levels_to_the_user() -> int:
    """``stacklevel`` for a warning of the caller's that names the line of the user's."""
    frame: FrameType | None = sys._getframe(1)
    level = 1
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in _OURS:
        frame, level = frame.f_back, level + 1
    return level
