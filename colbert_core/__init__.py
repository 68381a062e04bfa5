"""Late-interaction (ColBERT) retrieval: encode, index, search and rerank with token vectors and MaxSim.

Importing this package imports nothing else: each name below is imported when it is first asked for (PEP 562), and the first
encoder imports torch.
"""

from typing import TYPE_CHECKING

from colbert_core.lazy import lazy_names
from colbert_core.moved import install as _install_moved_names

if TYPE_CHECKING:
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
        ServiceBusyError,
        ServiceDeniedError,
        ServiceError,
        ServiceTimeoutError,
        ServiceUnreachableError,
        StorageError,
        UnsupportedCheckpointError,
        UnsupportedIndexError,
    )
    from colbert_core.evidence.evidence import Evidence
    from colbert_core.folders.reports import Problem, SyncReport
    from colbert_core.folders.syncing import sync
    from colbert_core.index.base import IndexBase
    from colbert_core.index.blank_query import hits_of_blank_query
    from colbert_core.index.collections import Collections
    from colbert_core.index.foreign import ForeignIndex, read_foreign_index
    from colbert_core.index.index import Index
    from colbert_core.index.reports import IndexStats, MetadataField, Tuning, Verification
    from colbert_core.metadata import plain_metadata
    from colbert_core.model.checkpoint import EncoderConfig
    from colbert_core.model.encoder import Encoder
    from colbert_core.rerank import Reranker
    from colbert_core.search.config import SearchConfig
    from colbert_core.search.excerpts import Excerpt
    from colbert_core.search.modes import HYBRID_WEIGHT, MODES
    from colbert_core.search.surroundings import widen
    from colbert_core.serve.opening import open_index, open_or_create
    from colbert_core.threads import get_num_threads, set_num_threads
    from colbert_core.types import Hit, Page, Passage, PassageIndex, TokenEmbeddings, TokenEncoder
    from colbert_core.vectors.maxsim import maxsim

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
    "IndexBase",
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
    "ServiceBusyError",
    "ServiceDeniedError",
    "ServiceError",
    "ServiceTimeoutError",
    "ServiceUnreachableError",
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
    "open_index",
    "open_or_create",
    "plain_metadata",
    "read_foreign_index",
    "set_num_threads",
    "sync",
    "widen",
]

__version__ = "0.1.0"
"""Of this package. The build reads it from here, so it stands nowhere else."""

# Where each public name is; type checkers read it above.
_PLACES = {
    "HYBRID_WEIGHT": "colbert_core.search.modes",
    "MODES": "colbert_core.search.modes",
    "CheckpointError": "colbert_core.errors",
    "CheckpointNotFoundError": "colbert_core.errors",
    "ColBERTError": "colbert_core.errors",
    "Collections": "colbert_core.index.collections",
    "DamagedIndexError": "colbert_core.errors",
    "Encoder": "colbert_core.model.encoder",
    "EncoderConfig": "colbert_core.model.checkpoint",
    "EncoderMismatchError": "colbert_core.errors",
    "Evidence": "colbert_core.evidence.evidence",
    "Excerpt": "colbert_core.search.excerpts",
    "FilterWarning": "colbert_core.errors",
    "ForeignIndex": "colbert_core.index.foreign",
    "Hit": "colbert_core.types",
    "Index": "colbert_core.index.index",
    "IndexBase": "colbert_core.index.base",
    "IndexExistsError": "colbert_core.errors",
    "IndexLockedError": "colbert_core.errors",
    "IndexNotFoundError": "colbert_core.errors",
    "IndexStats": "colbert_core.index.reports",
    "IndexWriteError": "colbert_core.errors",
    "MetadataField": "colbert_core.index.reports",
    "MissingExtraError": "colbert_core.errors",
    "Page": "colbert_core.types",
    "PartialAddError": "colbert_core.errors",
    "Passage": "colbert_core.types",
    "PassageIndex": "colbert_core.types",
    "Problem": "colbert_core.folders.reports",
    "ReadOnlyIndexError": "colbert_core.errors",
    "Reranker": "colbert_core.rerank",
    "SearchConfig": "colbert_core.search.config",
    "ServiceBusyError": "colbert_core.errors",
    "ServiceDeniedError": "colbert_core.errors",
    "ServiceError": "colbert_core.errors",
    "ServiceTimeoutError": "colbert_core.errors",
    "ServiceUnreachableError": "colbert_core.errors",
    "StorageError": "colbert_core.errors",
    "SyncReport": "colbert_core.folders.reports",
    "TokenEmbeddings": "colbert_core.types",
    "TokenEncoder": "colbert_core.types",
    "Tuning": "colbert_core.index.reports",
    "UnsupportedCheckpointError": "colbert_core.errors",
    "UnsupportedIndexError": "colbert_core.errors",
    "Verification": "colbert_core.index.reports",
    "get_num_threads": "colbert_core.threads",
    "hits_of_blank_query": "colbert_core.index.blank_query",
    "maxsim": "colbert_core.vectors.maxsim",
    "open_index": "colbert_core.serve.opening",
    "open_or_create": "colbert_core.serve.opening",
    "plain_metadata": "colbert_core.metadata",
    "read_foreign_index": "colbert_core.index.foreign",
    "set_num_threads": "colbert_core.threads",
    "sync": "colbert_core.folders.syncing",
    "widen": "colbert_core.search.surroundings",
}

_install_moved_names()

if not TYPE_CHECKING:  # with it, a type checker would believe in every name
    __getattr__ = lazy_names(__name__, _PLACES)


def __dir__() -> list[str]:
    return sorted(__all__)
