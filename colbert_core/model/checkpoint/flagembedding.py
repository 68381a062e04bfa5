"""FlagEmbedding's M3 models (BGE-M3, Chen et al., 2024, arXiv 2402.03216): a backbone with several heads beside it.

``colbert_linear.pt`` holds weight and bias of a linear layer over the hidden states of all tokens but the first. Queries and
passages are read alike, without markers, masks or skipped tokens. ``sparse_linear.pt`` is a head for weights of words; it is
not read here. Read only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from colbert_core.errors import CheckpointError
from colbert_core.model.checkpoint.config import Checkpoint, Dense, EncoderConfig
from colbert_core.model.checkpoint.files import load_tensors, read_hidden_size

if TYPE_CHECKING:
    from pathlib import Path

    import torch

HEADS = ("colbert_linear.pt", "colbert_linear.safetensors", "colbert_linear.bin")
_MATRIX = 2  # dimensions
LEXICAL_HEADS = ("sparse_linear.pt", "sparse_linear.safetensors", "sparse_linear.bin")


def head_file(folder: Path) -> Path | None:
    """Find the head for late interaction; None if there is none."""
    return next((folder / name for name in HEADS if (folder / name).is_file()), None)


def read(file: Path, backbone: Checkpoint) -> Checkpoint:
    """Read the head of a model.

    Args:
        file: what ``head_file`` returned.
        backbone: the folder read as an untrained encoder.

    Raises:
        CheckpointError: the file holds something else, or a layer for another backbone.
    """
    head = _read_head(file)
    hidden = read_hidden_size(backbone.folder)
    if hidden not in (None, head.weight.shape[1]):
        raise CheckpointError(
            f"{file} takes {head.weight.shape[1]} components but the backbone's hidden size is {hidden}; "
            "they belong to different checkpoints."
        )
    config = EncoderConfig(
        format="flagembedding",
        query_length=backbone.config.query_length,
        passage_length=backbone.config.passage_length,
        skip_first=True,
        similarity="meanmaxsim",
    )
    return Checkpoint(backbone.folder, config, backbone.weights, (head,))


def check_same(file: Path, checkpoint: Checkpoint) -> None:
    """Make sure that a model in another format has the same head, if this lies beside it as well.

    Raises:
        CheckpointError: it does not.
    """
    head = _read_head(file)
    if (
        len(checkpoint.head) != 1
        or not _equal(head.weight, checkpoint.head[0].weight)
        or not _equal(head.bias, checkpoint.head[0].bias)
    ):
        layers = "; ".join(layer.describe() for layer in checkpoint.head) or "none"
        raise CheckpointError(
            f"{file.parent} has two heads that differ: {file.name} ({head.describe()}), and that of its recipe in "
            f"{checkpoint.config.format} format ({layers}); remove the one that is not meant."
        )


def _equal(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is other if one is None or other is None else one.equal(other)


def _read_head(file: Path) -> Dense:
    import torch

    stored = {name.removeprefix("colbert_linear."): value for name, value in load_tensors(file).items()}
    shapes = {name: tuple(value.shape) if isinstance(value, torch.Tensor) else () for name, value in stored.items()}
    weight = shapes.get("weight", ())
    if len(weight) != _MATRIX or shapes.get("bias", weight[:1]) != weight[:1] or not shapes.keys() <= {"weight", "bias"}:
        raise CheckpointError(
            f"{file} holds {shapes}; a head of FlagEmbedding's holds a weight of two dimensions and a bias of the first."
        )
    return Dense(stored["weight"].float(), None if "bias" not in stored else stored["bias"].float())
