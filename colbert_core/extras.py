"""Packages that are installed only with an extra."""

from __future__ import annotations

import importlib
from typing import Any

from colbert_core.errors import MissingExtraError


def import_extra(module: str, purpose: str, package: str, requirement: str | None = None) -> Any:
    """Import a module of an optional package.

    Args:
        module: name of the module.
        purpose: what needs it, as the subject of the error.
        package: what is needed, for the error.
        requirement: what pip is to install, quoted for a shell; None for the package.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{purpose} needs {package} ({error}): pip install {requirement or package}") from error
