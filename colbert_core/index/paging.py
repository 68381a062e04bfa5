"""Where a page of an index begins, as the page before said it."""

from __future__ import annotations

import re


def row_of(after: str | None, name: str) -> int:
    """The row behind which a page begins; 0 for the first page.

    Args:
        after: the name and the row, as an earlier page gave them.
        name: of the index; one that takes its place has another, and other passages in its rows.

    Raises:
        TypeError, ValueError: it is not of this index.
    """
    if after is None:
        return 0
    if not isinstance(after, str):
        raise TypeError(f"after is what a page gave as its next, a str, got {type(after).__name__}: {after!r:.80}")
    of_index, _, row = after.rpartition("-")
    if not re.fullmatch("[0-9]{1,18}", row):
        raise ValueError(f"after is what a page gave as its next, such as '{name}-100', got {after!r:.80}.")
    if of_index != name:
        raise ValueError(
            f"after={after!r:.80} is of another index, or of one that was overwritten since; this one is {name!r}. Begin anew, "
            "without after."
        )
    return int(row)
