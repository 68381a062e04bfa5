"""What ranks nodes: their vectors, their words, or both."""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING, Any

from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

from colbert_core import HYBRID_WEIGHT, MODES, open_index

if TYPE_CHECKING:
    from collections.abc import Mapping

    from colbert_core import Hit, PassageIndex

_BY_WORDS = (VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.SPARSE)
_OF_MODES = {"alpha": (VectorStoreQueryMode.HYBRID,), "hybrid_top_k": (VectorStoreQueryMode.HYBRID,), "sparse_top_k": _BY_WORDS}
_QUERY_MODES = (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.HYBRID, *_BY_WORDS, VectorStoreQueryMode.MMR)


def check_ranking(mode: str | None, weight: float | None) -> None:
    """Check what is to rank nodes, so that a mistake is found before the first search.

    Raises:
        TypeError: the weight is no number.
        ValueError: there is no such mode, or the weight is out of range or for another mode.
    """
    if mode is not None and mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r:.80}.")
    if weight is not None and mode not in (None, "hybrid"):
        raise ValueError(f"weight is for mode='hybrid', got weight={weight!r:.80} with mode={mode!r}.")
    _check_share(weight, "weight")


def ranking(index: PassageIndex, mode: str | None = None, weight: float | None = None) -> dict[str, Any]:
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
    """Return the index at the URL of a service; anything else as it is."""
    return open_index(index) if isinstance(index, str) and "://" in index else index


def reported(hit: Hit) -> float:
    """What ranks a hit, at most 1: a hybrid search may give more, and LlamaIndex takes scores for relevances from 0 to 1."""
    return min(1.0, hit.value)


def ranking_of(query: VectorStoreQuery, index: PassageIndex) -> tuple[int, dict[str, Any]]:
    """Return how many nodes a query of a store wants, and the arguments by which an index ranks them.

    ``alpha`` is the share of the meaning and ``1 - alpha`` that of the words, in parts of the least default weight: relevances
    lie close together and coverages do not, so that weight is what half and half is in stores that scale both.

    Raises:
        TypeError: ``alpha`` is no number.
        ValueError: it is not from 0 to 1, or the store has no such mode.
    """
    if query.mode not in _QUERY_MODES:
        *names, last = [repr(mode.value) for mode in _QUERY_MODES]
        raise ValueError(f"ColBERTVectorStore has the query modes {', '.join(names)} and {last}, not {query.mode!s}.")
    if query.mode in _BY_WORDS:
        return query.sparse_top_k or query.similarity_top_k, ranking(index, "words")
    if query.mode != VectorStoreQueryMode.HYBRID:  # diversity is of meanings alone
        return query.similarity_top_k, ranking(index, "maxsim" if query.mode == VectorStoreQueryMode.MMR else None)
    k, alpha = query.hybrid_top_k or query.similarity_top_k, _check_share(query.alpha, "alpha")
    if alpha is None:
        return k, ranking(index, "hybrid")
    if alpha in (0, 1):
        return k, ranking(index, "maxsim" if alpha else "words")
    return k, ranking(index, "hybrid", min(1.0, HYBRID_WEIGHT * (1 - alpha) / alpha))


def refuse_of_other_modes(method: str, keywords: Mapping[str, Any]) -> None:
    """Refuse keywords of a retriever that its ``vector_store_query_mode`` does not use.

    Args:
        method: name of the method, for the error.
        keywords: what it was given.

    Raises:
        TypeError: there is one.
    """
    for name, modes in _OF_MODES.items():
        if (
            keywords.get(name) is not None
            and keywords.get("vector_store_query_mode", VectorStoreQueryMode.DEFAULT) not in modes
        ):
            with_ = " or ".join(repr(mode.value) for mode in modes)
            raise TypeError(f"{method} takes no keyword {name!r} without vector_store_query_mode={with_}.")


def _check_share(value: float | None, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is a number from 0 to 1, got {value!r:.80}.")
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is a number from 0 to 1, got {value!r:.80}.")
    return float(value)
