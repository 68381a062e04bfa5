"""Which words of a passage answered which words of a query, as values, pages and terminal text."""

from colbert_core.evidence.evidence import Evidence, Highlight, Match, as_page

__all__ = ["Evidence", "Highlight", "Match", "as_page"]
