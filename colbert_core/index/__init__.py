"""A collection of passages that can be searched, added to and deleted from at any time."""

from colbert_core.index.index import Index, _unpickled  # the second is named in pickles of an index
from colbert_core.index.reports import IndexStats, Tuning, Verification

__all__ = ["Index", "IndexStats", "Tuning", "Verification", "_unpickled"]
