"""Find the best passages for a query in one snapshot. Functions only; nothing is remembered between searches."""

from colbert_core.search.config import SearchConfig

__all__ = ["SearchConfig"]
