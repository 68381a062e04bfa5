"""What the document compressors share: they load a model at the first use, and copy documents."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.documents import BaseDocumentCompressor
from pydantic import ConfigDict, Field, PrivateAttr, field_serializer

from colbert_core import Reranker, TokenEncoder

if TYPE_CHECKING:
    from langchain_core.documents import Document


class ModelCompressor(BaseDocumentCompressor):
    """A document compressor that scores with a late-interaction model.

    It loads the model at the first use. Threads may share one compressor; copies and pickles share the model.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    model: str | Path | TokenEncoder | None = None
    """A checkpoint's name or folder, or a loaded encoder; None for the model in the box."""
    device: str | None = Field(default=None)
    """Where a named model runs; None for the best device present."""
    show_progress: bool | None = None
    """Show bars; False shows none, and None shows them on a terminal or in a notebook once a second has passed."""

    _loaded: tuple[Any, Reranker] | None = PrivateAttr(default=None)

    @field_serializer("model")
    def _serialized_model(self, model: str | Path | TokenEncoder | None) -> str | None:
        return str(model) if isinstance(model, str | Path) else getattr(model, "name", None)

    def _reranker(self) -> Reranker:
        """The reranker of ``model`` and ``device``, loaded at the first use."""
        return Reranker.kept_by(self)


def copy_metadata(document: Document) -> dict[str, Any]:
    """Return a deep copy; a shallow one if another retriever's metadata hold what cannot be copied, such as a lock."""
    try:
        return copy.deepcopy(document.metadata)
    except Exception:
        return dict(document.metadata)
