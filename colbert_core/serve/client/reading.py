"""What a service answers, as the engine's own values; the other way round than ``colbert_core/values.py``."""

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import Any

import numpy as np

from colbert_core.errors import FilterWarning
from colbert_core.evidence.evidence import Evidence
from colbert_core.index.advice import levels_to_the_user
from colbert_core.index.reports import IndexStats, MetadataField
from colbert_core.types import Hit, Page, Passage, TokenEmbeddings

_OF_STATS = tuple(field.name for field in fields(IndexStats))


def passage(answer: dict[str, Any]) -> Passage:
    """Make a passage of its JSON."""
    return Passage(answer["id"], answer["text"], answer["metadata"])


def passages(answer: dict[str, Any]) -> list[Passage | None]:
    """Make passages, with None where there is none."""
    return [None if each is None else passage(each) for each in answer["passages"]]


def page_of_passages(answer: dict[str, Any]) -> Page[Passage]:
    """Make a page of passages."""
    _warn(answer)
    return Page([passage(each) for each in answer["passages"]], answer["next"])


def page_of_fields(answer: dict[str, Any]) -> Page[MetadataField]:
    """Make a page of metadata fields."""
    return Page([MetadataField(**each) for each in answer["fields"]], answer["next"])


def hits(answer: dict[str, Any]) -> list[Hit]:
    """Make hits, with their evidence where there is some."""
    _warn(answer)
    return [_hit(each) for each in answer["hits"]]


def hits_of_each(answer: dict[str, Any]) -> list[list[Hit]]:
    """Make the hits of several queries."""
    _warn(answer)
    return [hits(each) for each in answer["results"]]


def evidence(answer: dict[str, Any]) -> Evidence:
    """Make evidence of all that it knows."""
    return Evidence.from_dict(answer["evidence"])


def stats(answer: dict[str, Any]) -> IndexStats:
    """Make the figures of an index; a newer service may tell more."""
    return IndexStats(**{name: answer[name] for name in _OF_STATS if name in answer})


def embeddings(answer: dict[str, Any], dim: int) -> TokenEmbeddings:
    """Make the token vectors of passages, with their windows.

    Args:
        answer: for each text its vectors, and its windows with the characters of each and of its tokens.
        dim: components of a vector.
    """
    rows = [row for text in answer["vectors"] for row in text]
    windows = [(owner, window) for owner, text in enumerate(answer["windows"]) for window in text]
    tokens = [span for _, window in windows for span in window["tokens"]]
    return TokenEmbeddings(
        np.array(rows, np.float32).reshape(-1, dim),
        np.array(tokens, np.int32).reshape(-1, 2),
        np.array([len(window["tokens"]) for _, window in windows], np.int32),
        np.array([window["span"] for _, window in windows], np.int32).reshape(-1, 2),
        np.array([owner for owner, _ in windows], np.int32),
    )


def _hit(answer: dict[str, Any]) -> Hit:
    start, end = answer["span"]
    return Hit(
        passage(answer),
        answer["score"],
        answer["relevance"],
        answer["rank"],
        (start, end),
        evidence(answer) if "evidence" in answer else None,
        answer.get("coverage"),
        answer.get("hybrid_relevance"),
    )


def _warn(answer: dict[str, Any]) -> None:
    """Pass on what a service says of a filter that asks for what no passage has."""
    for said in answer.get("warnings", []):
        warnings.warn(said, FilterWarning, stacklevel=levels_to_the_user())
