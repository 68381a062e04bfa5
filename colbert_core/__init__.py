"""Late-interaction (ColBERT) retrieval: encode, index, search and rerank with token vectors and MaxSim.

Importing this package imports neither torch nor transformers; the first encoder does.
"""

from typing import TYPE_CHECKING, Any

from colbert_core.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ColBERTError,
    DamagedIndexError,
    EncoderMismatchError,
    FilterWarning,
    IndexExistsError,
    IndexLockedError,
    IndexNotFoundError,
    IndexWriteError,
    MissingExtraError,
    PartialAddError,
    ReadOnlyIndexError,
    StorageError,
    UnsupportedCheckpointError,
    UnsupportedIndexError,
)
from colbert_core.evidence.evidence import Evidence
from colbert_core.folders.reports import Problem, SyncReport
from colbert_core.folders.syncing import sync
from colbert_core.index.blank_query import hits_of_blank_query
from colbert_core.index.collections import Collections
from colbert_core.index.foreign import ForeignIndex, read_foreign_index
from colbert_core.index.index import Index
from colbert_core.index.opening import open_or_create
from colbert_core.index.reports import IndexStats, MetadataField, Tuning, Verification
from colbert_core.metadata import plain_metadata
from colbert_core.moved import install as _install_moved_names
from colbert_core.rerank import Reranker
from colbert_core.search.config import SearchConfig
from colbert_core.search.excerpts import Excerpt
from colbert_core.search.lexical import MODES
from colbert_core.search.lexical import WEIGHT as HYBRID_WEIGHT
from colbert_core.search.surroundings import widen
from colbert_core.threads import get_num_threads, set_num_threads
from colbert_core.types import Hit, Page, Passage, PassageIndex, TokenEmbeddings, TokenEncoder
from colbert_core.vectors.maxsim import maxsim

if TYPE_CHECKING:
    from colbert_core.model.checkpoint import EncoderConfig
    from colbert_core.model.encoder import Encoder

__all__ = [
    "HYBRID_WEIGHT",
    "MODES",
    "CheckpointError",
    "CheckpointNotFoundError",
    "ColBERTError",
    "Collections",
    "DamagedIndexError",
    "Encoder",
    "EncoderConfig",
    "EncoderMismatchError",
    "Evidence",
    "Excerpt",
    "FilterWarning",
    "ForeignIndex",
    "Hit",
    "Index",
    "IndexExistsError",
    "IndexLockedError",
    "IndexNotFoundError",
    "IndexStats",
    "IndexWriteError",
    "MetadataField",
    "MissingExtraError",
    "Page",
    "PartialAddError",
    "Passage",
    "PassageIndex",
    "Problem",
    "ReadOnlyIndexError",
    "Reranker",
    "SearchConfig",
    "StorageError",
    "SyncReport",
    "TokenEmbeddings",
    "TokenEncoder",
    "Tuning",
    "UnsupportedCheckpointError",
    "UnsupportedIndexError",
    "Verification",
    "get_num_threads",
    "hits_of_blank_query",
    "maxsim",
    "open_or_create",
    "plain_metadata",
    "read_foreign_index",
    "set_num_threads",
    "sync",
    "widen",
]

__version__ = "0.1.0"
"""Of this package. The build reads it from here, so it stands nowhere else."""

_install_moved_names()


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for (PEP 562)."""
    if name in ("Encoder", "EncoderConfig"):
        from colbert_core.model import encoder

        return getattr(encoder, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
