"""Paths that a user gives."""

from __future__ import annotations

import os
from pathlib import Path


def as_path(path: str | os.PathLike[str]) -> Path:
    """Return a path that a user has given; ``~`` at its beginning is the home folder."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 -- pathlib's raises for a file whose name begins with "~"
