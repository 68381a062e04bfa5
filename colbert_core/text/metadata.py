"""Metadata of this package beside those of users."""

from __future__ import annotations

from typing import Any


def beside_own(own: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Put metadata of this package beside a user's own, which stay as they are.

    Args:
        own: the user's.
        ours: where a piece comes from, such as ``document_id``, ``start`` and ``end``. If the user has a key of one of these
            names, all of them are called ``piece_document_id`` and so on.
    """
    if own.keys() & ours.keys():
        ours = {f"piece_{key}": value for key, value in ours.items()}
    return {**ours, **own}
