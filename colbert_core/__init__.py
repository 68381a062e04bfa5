"""Late-interaction (ColBERT) retrieval: encode, index, search and rerank with token vectors and MaxSim.

Importing this package imports neither torch nor transformers; the first encoder does.
"""

from typing import TYPE_CHECKING, Any

from colbert_core.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ColBERTError,
    MissingExtraError,
    UnsupportedCheckpointError,
)
from colbert_core.index import Index
from colbert_core.maxsim import maxsim
from colbert_core.rerank import Reranker
from colbert_core.types import Hit, Passage, TokenEmbeddings, TokenEncoder

if TYPE_CHECKING:
    from colbert_core.checkpoint import EncoderConfig
    from colbert_core.encoder import Encoder

__all__ = [
    "CheckpointError",
    "CheckpointNotFoundError",
    "ColBERTError",
    "Encoder",
    "EncoderConfig",
    "Hit",
    "Index",
    "MissingExtraError",
    "Passage",
    "Reranker",
    "TokenEmbeddings",
    "TokenEncoder",
    "UnsupportedCheckpointError",
    "maxsim",
]


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for (PEP 562)."""
    if name in ("Encoder", "EncoderConfig"):
        from colbert_core import encoder

        return getattr(encoder, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
