"""Progress bars of long work."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


def progress_bar(what: str, total: int | None, unit: str, progress: bool | None) -> tqdm[Any]:
    """Make a progress bar.

    Args:
        what: what is done, such as "Encoding".
        total: how many units there are; None where it is not known.
        unit: what is counted, in the singular.
        progress: True shows the bar, False does not, None shows it on a terminal once a second has passed.
    """
    is_default = progress is None
    disable = None if is_default else not progress  # tqdm's None: unless standard error is a terminal
    return tqdm(total=total, desc=what, unit=unit, delay=1 if is_default else 0, disable=disable)
