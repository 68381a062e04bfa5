"""Which passages may be found: filters and ids of users, compiled for a reader."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from colbert_core.checks import id_list
from colbert_core.storage.filters import compile_where

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from colbert_core.index.advice import Advice
    from colbert_core.storage.filters import Expectation
    from colbert_core.storage.transaction import Reader
    from colbert_core.types import Passage, Where

# Passages that a function of the user's sees at a time: their texts are in memory together.
_AT_A_TIME = 1000


class Restriction:
    """Which passages may be found: a filter and ids, checked when it is made.

    Attributes:
        where: the filter; None for any metadata.
        ids: the ids; None for all, empty for none.
        by_function: the filter is a function, which sees every passage and may take long.
        expected: what the filter expects of the fields; nothing, if it is a function.
    """

    def __init__(self, where: Where | None = None, ids: Iterable[str] | None = None) -> None:
        """Check and compile.

        Raises:
            TypeError, ValueError: the filter or the ids are wrong.
        """
        self.where = where
        self.ids = None if ids is None else list(dict.fromkeys(id_list(ids)))
        self.expected: tuple[Expectation, ...] = ()
        self._condition: Callable[[Reader], NDArray[np.int64]] | None = None
        self.by_function = callable(where) and not isinstance(where, Mapping)
        if isinstance(where, Mapping) or not (where is None or callable(where)):
            condition = compile_where(where)
            self.expected = condition.expected
            self._condition = lambda reader: reader.matching(condition)
        elif where is not None:
            self._condition = _by_function(where)

    def pids(self, reader: Reader, advice: Advice | None = None) -> NDArray[np.int64] | None:
        """The passages that a reader may find. *Shape:* (n,), ascending; None for all.

        Args:
            reader: of the moment.
            advice: warns of a filter that asks for what no passage has; None says nothing.
        """
        if advice is not None and (unmet := reader.unmet(advice.unsaid(self.expected))):
            advice.say(unmet, reader.survey([each.path for each in unmet]))
        allowed = [] if self._condition is None else [self._condition(reader)]
        if self.ids is not None:
            allowed.append(np.array(sorted(reader.rows_of(self.ids).values()), np.int64))
        return reduce(np.intersect1d, allowed) if allowed else None


def _by_function(where: Callable[[Passage], bool]) -> Callable[[Reader], NDArray[np.int64]]:
    """A function that gives the pids of the passages of which a function of the user's says true, ascending."""

    def matching(reader: Reader) -> NDArray[np.int64]:
        pids = reader.rows()
        matches = []
        for start in range(0, len(pids), _AT_A_TIME):
            chunk = pids[start : start + _AT_A_TIME]
            matches += [pid for pid, passage in zip(chunk, reader.passages(chunk), strict=True) if _is_true(where(passage))]
        return np.array(matches, np.int64)

    return matching


def _is_true(answer: object) -> bool:
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise TypeError("A filter that is a function must answer at once; this one is a coroutine function (async def).")
    return bool(answer)
