"""What the node postprocessors share: they load a model at the first use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, field_serializer
from llama_index.core.postprocessor.types import BaseNodePostprocessor

from colbert_core import Reranker, TokenEncoder


class ModelPostprocessor(BaseNodePostprocessor):
    """A node postprocessor that scores with a late-interaction model.

    It loads the model at the first use. Threads may share one postprocessor.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    model: str | Path | TokenEncoder | None = Field(
        default=None,
        description="A checkpoint's name or folder, or a loaded encoder; None for the model in the box.",
    )
    device: str | None = Field(default=None, description="Where a named model runs; None for the best device present.")
    show_progress: bool | None = Field(
        default=None,
        description="Show bars; False shows none, None shows them on a terminal or in a notebook once a second has passed.",
    )

    _loaded: tuple[Any, Reranker] | None = PrivateAttr(default=None)

    @field_serializer("model")
    def _serialized_model(self, model: str | Path | TokenEncoder | None) -> str | None:
        return name_of(model)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings: a copy loads the model again, and callbacks stay in their process."""
        fields = {name: getattr(self, name) for name in type(self).model_fields if name != "callback_manager"}
        return _unpickled, (type(self), fields)

    def _reranker(self) -> Reranker:
        """The reranker of ``model`` and ``device``, loaded at the first use."""
        return Reranker.kept_by(self)


def name_of(model: str | Path | TokenEncoder | None) -> str | None:
    """Return what settings say for a model: the name of a loaded encoder, and None for the model in the box."""
    if model is None or isinstance(model, str | Path):
        return None if model is None else str(model)
    name = str(getattr(model, "name", type(model).__name__))
    return None if name == "default" else name


def _unpickled(cls: type[ModelPostprocessor], fields: dict[str, Any]) -> ModelPostprocessor:
    return cls(**fields)
