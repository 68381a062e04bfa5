"""Refuse keywords that LlamaIndex's signatures allow and these methods do not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


def refuse_keywords(method: str, keywords: Collection[str]) -> None:
    """Refuse any keyword.

    Args:
        method: name of the method, for the error.
        keywords: what it was given beyond its own parameters.

    Raises:
        TypeError: there is one.
    """
    if keywords:
        raise TypeError(f"{method} takes no keyword {min(keywords)!r}.")
