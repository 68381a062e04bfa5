"""Find the best passages for a query in one snapshot. Functions only; nothing is remembered between searches."""

from typing import TYPE_CHECKING

from colbert_core.lazy import lazy_names

if TYPE_CHECKING:
    from colbert_core.search.config import SearchConfig

__all__ = ["SearchConfig"]

if not TYPE_CHECKING:
    __getattr__ = lazy_names(__name__, {"SearchConfig": "colbert_core.search.config"})
