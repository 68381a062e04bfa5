"""Evidence as JSON holds it, and back: the values of ``Evidence.to_dict(full=True)``, checked. Plain values in, values out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_ADVICE = "give what to_dict(full=True) gave"
_TOLD = (
    *("query", "passage_id", "text", "window", "matches", "token_spans", "similarities", "min_similarity", "shared"),
    *("background", "expected"),
)


def as_numbers(array: NDArray[np.float32] | None) -> list[Any] | None:
    """List float32 numbers in as few digits as tell them from all others: 0.9 and not 0.8999999761581421."""
    if array is None:
        return None
    if array.ndim > 1:
        return [as_numbers(row) for row in array]
    return [float(str(number)) for number in array.astype(np.float32)]


def values_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """Read the fields of evidence; each match is a pair of spans and a cosine.

    Raises:
        TypeError: it is no mapping.
        ValueError: a value is missing, is of another kind, or does not fit to the others.
    """
    if not hasattr(told, "keys"):
        raise TypeError(f"Evidence is made of what to_dict(full=True) gave, got {type(told).__name__}: {told!r:.80}.")
    missing = [name for name in _TOLD if name not in told]
    if missing:
        raise ValueError(f"The evidence lacks {', '.join(missing)}; {_ADVICE}, with all its values.")
    values: dict[str, Any] = {}
    for name in _TOLD:
        try:
            values[name] = _READERS[name](told[name])
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"The evidence's {name} cannot be read ({error}); {_ADVICE}.") from error
    _check(values)
    return values


def _check(values: dict[str, Any]) -> None:
    """Make sure that texts, spans and arrays fit to each other.

    Raises:
        ValueError: they do not.
    """
    matches, shared = values["matches"], values["shared"]
    if not matches:
        raise ValueError(f"The evidence has no matches, but a query has at least one vector; {_ADVICE}.")
    shape = (len(matches), len(values["token_spans"]))
    for name, wanted in (("similarities", shape), ("background", shape[:1]), ("expected", shape)):
        array = values[name]
        if array is not None and (array.shape != wanted or not np.isfinite(array).all()):
            raise ValueError(f"The evidence's {name} are not finite numbers of shape {wanted}, but {array.shape}; {_ADVICE}.")
    in_query = [query_span for query_span, *_ in [*matches, *shared]]
    in_text = [values["window"], *(span for _, span, *_ in [*matches, *shared]), *map(tuple, values["token_spans"].tolist())]
    for name, spans in (("query", in_query), ("text", in_text)):
        end = len(values[name])
        wrong = [span for span in spans if not 0 <= span[0] <= span[1] <= end]
        if wrong:
            raise ValueError(f"The evidence names the characters {wrong[0]} of a {name} that has {end}; {_ADVICE}.")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"no text, but {value!r:.40}")
    return value


def _span(value: Any) -> tuple[int, int]:
    start, end = value
    if type(start) is not int or type(end) is not int:
        raise TypeError(f"characters are whole numbers, not {value!r:.40}")
    return start, end


def _array(value: Any) -> NDArray[np.float32]:
    return np.array(value, np.float32)


_READERS: dict[str, Any] = {
    "query": _text,
    "passage_id": _text,
    "text": _text,
    "window": _span,
    "matches": lambda value: tuple((_span(query), _span(span), float(cosine)) for query, span, cosine in value),
    "token_spans": lambda value: np.array([_span(span) for span in value], np.int32).reshape(-1, 2),
    "similarities": _array,
    "min_similarity": lambda value: None if value is None else float(value),
    "shared": lambda value: tuple((_span(query), _span(span)) for query, span in value),
    "background": lambda value: None if value is None else _array(value),
    "expected": lambda value: None if value is None else _array(value),
}
