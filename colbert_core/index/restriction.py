"""Which passages a search may find: filters and ids, compiled for a reader."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.storage.filters import compile_where

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from colbert_core.storage.transaction import Reader
    from colbert_core.types import Passage

    Where = Mapping[str, Any] | Callable[[Passage], bool]
from colbert_core.checks import id_list

# What comes from users


def restriction_of(where: Where | None, ids: Iterable[str] | None) -> Callable[[Reader], NDArray[np.int64]] | None:
    """The rows that a filter and ids allow, for a reader; None if there is neither."""
    condition = None if where is None else compile_condition(where)
    wanted = None if ids is None else list(dict.fromkeys(id_list(ids)))
    if condition is None and wanted is None:
        return None

    def rows(reader: Reader) -> NDArray[np.int64]:
        found = [] if condition is None else [condition(reader)]
        if wanted is not None:
            found.append(np.array(sorted(reader.rows_of(wanted).values()), np.int64))
        return reduce(np.intersect1d, found)

    return rows


def compile_condition(where: Where) -> Callable[[Reader], NDArray[np.int64]]:
    if isinstance(where, Mapping) or not callable(where):
        condition = compile_where(where)
        return lambda reader: reader.matching(condition)

    def matching(reader: Reader) -> NDArray[np.int64]:
        rows = reader.rows()
        found = []
        for start in range(0, len(rows), 1000):
            some = rows[start : start + 1000]
            found += [row for row, passage in zip(some, reader.passages(some), strict=True) if _is_true(where(passage))]
        return np.array(found, np.int64)

    return matching


def _is_true(answer: object) -> bool:
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise TypeError("A filter that is a function must answer at once; this one is a coroutine function (async def).")
    return bool(answer)
