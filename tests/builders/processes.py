"""The environment of processes that a test starts."""

from __future__ import annotations

import os
from pathlib import Path

# These builders, and the package beside these tests, wherever another one is installed.
PATH = os.pathsep.join(map(str, (Path(__file__).parents[1], Path(__file__).parents[2])))


def environment(**variables):
    """The environment of a process that imports ``builders`` and the package beside these tests."""
    return os.environ | {"PYTHONPATH": PATH} | variables
