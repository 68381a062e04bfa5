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
from colbert_core.evidence import Evidence
from colbert_core.excerpts import Excerpt
from colbert_core.foreign import ForeignIndex, read_foreign_index
from colbert_core.index import Index, IndexStats, Tuning, Verification
from colbert_core.maxsim import maxsim
from colbert_core.rerank import Reranker
from colbert_core.search import SearchConfig
from colbert_core.threads import get_num_threads, set_num_threads
from colbert_core.types import Hit, Passage, PassageIndex, TokenEmbeddings, TokenEncoder

if TYPE_CHECKING:
    from colbert_core.checkpoint import EncoderConfig
    from colbert_core.encoder import Encoder

__all__ = [
    "CheckpointError",
    "CheckpointNotFoundError",
    "ColBERTError",
    "DamagedIndexError",
    "Encoder",
    "EncoderConfig",
    "EncoderMismatchError",
    "Evidence",
    "Excerpt",
    "ForeignIndex",
    "Hit",
    "Index",
    "IndexExistsError",
    "IndexLockedError",
    "IndexNotFoundError",
    "IndexStats",
    "IndexWriteError",
    "MissingExtraError",
    "PartialAddError",
    "Passage",
    "PassageIndex",
    "ReadOnlyIndexError",
    "Reranker",
    "SearchConfig",
    "StorageError",
    "TokenEmbeddings",
    "TokenEncoder",
    "Tuning",
    "UnsupportedCheckpointError",
    "UnsupportedIndexError",
    "Verification",
    "get_num_threads",
    "maxsim",
    "read_foreign_index",
    "set_num_threads",
]


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for (PEP 562)."""
    if name in ("Encoder", "EncoderConfig"):
        from colbert_core import encoder

        return getattr(encoder, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
