"""Packages that are installed only with an extra."""

from __future__ import annotations

import importlib
from typing import Any

from colbert_core.errors import MissingExtraError


def import_extra(module: str, purpose: str, package: str) -> Any:
    """A module of an optional package.

    Args:
        module: its name.
        purpose: what needs it, for the error.
        package: what to install.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{purpose} needs {package} ({error}): pip install {package}") from error
