"""nanoColBERT (ColBERTv1): one folder as its training script saves it. Read only: nothing else reads this format.

``config.json`` names the architecture ColBERT and holds ``dim``, ``mask_punctuation`` and ``similarity_metric``; the
tokenizer has the added tokens [Q] and [D], for which the embedding table was made larger. The lengths stand in its code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from colbert_core.errors import CheckpointError
from colbert_core.model.checkpoint.config import Checkpoint, Dense, EncoderConfig
from colbert_core.model.checkpoint.files import Fields, read_hidden_size, read_weights

if TYPE_CHECKING:
    from pathlib import Path

_ARCHITECTURE = "ColBERT"


def recognises(config: dict[str, Any]) -> bool:
    """Tell whether a config.json is that of a nanoColBERT checkpoint."""
    architectures = config.get("architectures")
    return isinstance(architectures, list) and _ARCHITECTURE in architectures


def read(folder: Path, config: dict[str, Any]) -> Checkpoint:
    """Read a folder.

    Raises:
        CheckpointError: there is no projection, or it does not fit.
    """
    weights = read_weights(folder)
    weights.pop("mask_buffer", None)  # ids of the tokens it skips; the tokenizer tells the same
    projection = weights.pop("linear.weight", None)
    expected = (config.get("dim"), read_hidden_size(folder))
    if projection is None or tuple(projection.shape) != expected:
        raise CheckpointError(
            f"{folder}: config.json says that linear.weight has the shape {expected}, the weights hold "
            f"{'none' if projection is None else tuple(projection.shape)}; they belong to different checkpoints."
        )
    stated = Fields(config, folder / "config.json")
    encoder_config = EncoderConfig(
        format="nanocolbert",
        query_length=32,
        passage_length=180,
        query_marker="[Q]",
        passage_marker="[D]",
        augment_queries=True,
        skip_punctuation=stated.flag("mask_punctuation", True),
        similarity=stated.text("similarity_metric", "l2"),
    )
    return Checkpoint(folder, encoder_config, weights, (Dense(projection),))
