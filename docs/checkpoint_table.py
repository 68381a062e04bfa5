"""Writes the table of formats and backbones into the page of checkpoints, from the checkpoints that the tests make.

    python docs/checkpoint_table.py

tests/model/checkpoint/test_table.py fails while docs/checkpoints.md is not what this writes, and tests every row.
"""

from __future__ import annotations

import sys
from pathlib import Path

PAGE = Path(__file__).with_name("checkpoints.md")

_BEGIN = "<!-- The table is written by docs/checkpoint_table.py. -->\n\n"
_END = "\n<!-- Its end. -->\n"


def with_table(page: str, table: str) -> str:
    """The page with another table."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not end:
        raise ValueError(f"{PAGE} has no place for the table: {_BEGIN.strip()} ... {_END.strip()}")
    return before + begin + table + end + after


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from builders.look_alikes import table

    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), table()), encoding="utf-8")
