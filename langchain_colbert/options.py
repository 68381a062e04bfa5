"""What a search is asked for, beside what to search for: what ranks documents, and how much of each comes back."""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from colbert_core import MODES, open_index, widen

if TYPE_CHECKING:
    from colbert_core import Hit, PassageIndex

Text = Literal["passage", "window"]
"""Whole texts, or of each the part that matched."""

Mode = Literal["maxsim", "hybrid", "words"]
"""What ranks documents, as in ``colbert_core.Index.search``."""

# About 500 tokens of English: the window of the model in the box, and about as much again on each side.
MAX_CHARACTERS = 2000


class Options(TypedDict, total=False):
    """What every search takes beside ``k``, ``filter`` and ``score_threshold``."""

    text: Text
    max_characters: int
    mode: Mode | None
    weight: float | None


SEARCH_KWARGS = ("k", "filter", "score_threshold", "text", "max_characters", "mode", "weight")

# Of each search type of a retriever. "hybrid" and "words" are similarity searches whose mode is the type.
_SEARCH_TYPES = {
    "similarity": SEARCH_KWARGS,
    "similarity_score_threshold": SEARCH_KWARGS,
    "mmr": (*SEARCH_KWARGS, "fetch_k", "lambda_mult"),
    "hybrid": tuple(name for name in SEARCH_KWARGS if name != "mode"),
    "words": tuple(name for name in SEARCH_KWARGS if name not in ("mode", "weight")),
}
_RETRIEVER_KWARGS = ("search_type", "search_kwargs", "tags", "metadata", "name")


def check_options(
    text: str = "passage",
    max_characters: int = MAX_CHARACTERS,
    mode: str | None = None,
    weight: float | None = None,
    **unknown: Any,
) -> None:
    """Check what a search is asked for; the index checks the weight.

    Raises:
        TypeError: a search has no such argument, or ``max_characters`` is no whole number.
        ValueError: there is no such text or mode, or a text may have no characters.
    """
    if unknown:
        takes = f"{', '.join(SEARCH_KWARGS[:-1])} and {SEARCH_KWARGS[-1]}"
        raise TypeError(f"A search takes {takes}, got {', '.join(unknown)}.")
    widen("", (0, 0), max_characters)
    if text not in ("passage", "window"):
        raise ValueError(f"text must be 'passage' for whole texts or 'window' for the part that matched, got {text!r}.")
    if mode is not None and mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r:.80}.")


def ranking(index: PassageIndex, mode: Mode | None = None, weight: float | None = None, **_: Any) -> dict[str, Any]:
    """Return the arguments by which an index ranks: none for MaxSim alone, as an index of the user's own may know no words.

    Args:
        index: what is to be searched.
        mode: None for "hybrid" if the index has words or a weight is given, else "maxsim": the one place that says so for the
            retriever and the store.
        weight: None for that of the index.
    """
    if mode is None:
        has_words = getattr(index, "has_words", None)
        mode = "hybrid" if weight is not None or (has_words is not None and has_words()) else "maxsim"
    return {} if mode == "maxsim" and weight is None else {"mode": mode, "weight": weight}


def opened(index: Any) -> Any:
    """Return the index at the URL of a service; anything else as it is, for pydantic to check."""
    return open_index(index) if isinstance(index, str) and "://" in index else index


def relevance_score(hit: Hit) -> float:
    """What ranks a hit, at most 1: a hybrid search may give more, and LangChain warns of relevances beyond 1."""
    return min(1.0, hit.value)


def by_type(search_type: str, search_kwargs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return one of LangChain's own search types, with the arguments that make it this one.

    Raises:
        TypeError: there is a mode beside a type that is one.
    """
    if search_type not in ("hybrid", "words"):
        return search_type, search_kwargs
    if "mode" in search_kwargs:
        raise TypeError(f"search_type={search_type!r} is a mode; leave mode={search_kwargs['mode']!r:.80} out.")
    return "similarity", search_kwargs | {"mode": search_type}


def retriever_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Sort the arguments of ``as_retriever`` into those of LangChain's own.

    Raises:
        TypeError: there is no such argument for this search type.
        ValueError: the search type, the text or the mode is unknown.
    """
    own = {name: kwargs[name] for name in _RETRIEVER_KWARGS if name in kwargs}
    given = {name: value for name, value in kwargs.items() if name not in own}
    search_kwargs = {**(own.pop("search_kwargs", None) or {}), **given}
    implied = "mmr" if {"fetch_k", "lambda_mult"} & search_kwargs.keys() else "similarity"
    search_type = own.pop("search_type", None) or implied
    if search_type not in _SEARCH_TYPES:
        raise ValueError(f"search_type must be one of {', '.join(_SEARCH_TYPES)}, got {search_type!r}.")
    if unknown := search_kwargs.keys() - set(_SEARCH_TYPES[search_type]):
        raise TypeError(
            f"as_retriever takes {', '.join(_SEARCH_TYPES[search_type])} for search_type={search_type!r}, "
            f"got {', '.join(sorted(unknown))}."
        )
    check_options(**{name: search_kwargs[name] for name in Options.__annotations__ if name in search_kwargs})
    if isinstance(search_kwargs.get("score_threshold"), numbers.Real):
        search_kwargs["score_threshold"] = float(search_kwargs["score_threshold"])  # LangChain wants a float
    search_type, search_kwargs = by_type(search_type, search_kwargs)
    return {**own, "search_type": search_type, "search_kwargs": search_kwargs}
