"""The one way in which long work shows how far it is."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


def progress_bar(what: str, total: int | None, unit: str, progress: bool | None) -> tqdm[Any]:
    """True shows it, False does not, None shows it on a terminal once a second has passed."""
    unasked = progress is None
    disable = None if unasked else not progress  # tqdm's None: unless standard error is a terminal
    return tqdm(total=total, desc=what, unit=unit, delay=1 if unasked else 0, disable=disable)
