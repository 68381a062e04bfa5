"""XTR: the encoder of a T5 and a projection, without markers and without query augmentation (Lee et al., NeurIPS 2023).

google/xtr-base-en is laid out like a sentence-transformers model, Transformer, Pooling and 2_Dense, though no text is pooled;
other copies keep the projection among the weights. Texts are lower-cased, as the authors' notebook does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from colbert_core.errors import CheckpointError, UnsupportedCheckpointError
from colbert_core.model.checkpoint import modules
from colbert_core.model.checkpoint.config import Checkpoint, Dense, EncoderConfig
from colbert_core.model.checkpoint.dense import read_dense
from colbert_core.model.checkpoint.files import Fields, read_hidden_size, read_weights

if TYPE_CHECKING:
    from pathlib import Path

    import torch

# Encoders with decoders of which the encoder is a model by itself in transformers.
T5 = ("t5", "mt5", "umt5")

# The projection among the weights: of PyTorch (dim, hidden), and of TensorFlow (hidden, dim).
_PROJECTIONS = ("linear.weight", "to_dense.weight", "linear_layer.weight")
_KERNELS = ("linear.kernel", "to_dense.kernel", "to_dense/kernel", "to_dense/kernel:0")
_PREFIX = "t5_encoder."
_PARTS = ("Transformer", "Pooling", "Dense", "Normalize")
# Lengths of the paper, section 4, and of google-deepmind/xtr.
_QUERY_LENGTH, _PASSAGE_LENGTH = 32, 512


def recognises(folder: Path, config: dict[str, Any]) -> bool:
    """Tell whether a folder is an XTR model: a T5 whose vectors are made narrower, in a layout that is no other's.

    Sentence-T5 and GTR have a Dense layer as well, which keeps the width: it is for the mean of a text.
    """
    if config.get("model_type") not in T5:
        return False
    settings = [Fields.of(each / "config.json") for each in _dense_folders(folder)]
    if settings:
        return any(each.number("out_features", 1) < each.number("in_features", 1) for each in settings)
    if modules.listed_modules(folder):
        return False
    return _is_named(config) or any(name in (*_PROJECTIONS, *_KERNELS) for name in read_weights(folder))


def read(folder: Path) -> Checkpoint:
    """Read a folder.

    Raises:
        CheckpointNotFoundError: there are no weights.
        CheckpointError: there is no projection, or it does not fit.
        UnsupportedCheckpointError: modules.json lists a part that no XTR model has.
    """
    entries = [str(entry["type"]).rpartition(".")[2] for entry in modules.listed_modules(folder)]
    others = [name for name in entries if name not in _PARTS]
    if others:
        raise UnsupportedCheckpointError(f"{folder / modules.MODULES} has the module {others[0]}, which no XTR model has.")
    backbone = modules.backbone_folder(folder)
    weights = {name.removeprefix(_PREFIX): tensor for name, tensor in read_weights(backbone).items()}
    head = tuple(read_dense(each, "Identity") for each in _dense_folders(folder)) or (Dense(_projection(weights, folder)),)
    hidden = read_hidden_size(backbone)
    for layer in head:
        if hidden not in (None, layer.weight.shape[1]):
            raise CheckpointError(
                f"{folder}: the projection takes {layer.weight.shape[1]} components but is given {hidden}; "
                "they belong to different checkpoints."
            )
        hidden = layer.weight.shape[0]
    length = Fields.of(backbone / "sentence_bert_config.json").number("max_seq_length", _PASSAGE_LENGTH)
    config = EncoderConfig(format="xtr", query_length=min(_QUERY_LENGTH, length), passage_length=length, lowercase=True)
    return Checkpoint(backbone, config, weights, head)


def with_shared_embeddings(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give a T5's encoder its embeddings, which most files name once for encoder and decoder."""
    shared = next((weights[name] for name in ("shared.weight", "transformer.shared.weight") if name in weights), None)
    own = "encoder.embed_tokens.weight"
    if shared is None or own in weights or f"transformer.{own}" in weights:
        return weights
    return weights | {own: shared.clone()}  # a file holds no two names of one tensor


def _is_named(config: dict[str, Any]) -> bool:
    names = [config.get("_name_or_path"), *(config.get("architectures") or [])]
    return any("xtr" in str(name).lower() for name in names)


def _dense_folders(folder: Path) -> list[Path]:
    entries = modules.listed_modules(folder)
    return [folder / str(entry.get("path", "")) for entry in entries if str(entry["type"]).endswith(".Dense")]


def _projection(weights: dict[str, torch.Tensor], folder: Path) -> torch.Tensor:
    for name in (*_PROJECTIONS, *_KERNELS):
        if name in weights:
            matrix = weights.pop(name)
            if matrix.ndim != 2:
                raise CheckpointError(f"{folder}: {name} has the shape {tuple(matrix.shape)} and is no matrix.")
            return matrix.T.contiguous() if name in _KERNELS else matrix
    raise CheckpointError(
        f"{folder} is an XTR model but has no projection, neither as a Dense module nor as {_PROJECTIONS[1]} among its "
        "weights; the download or copy is not complete."
    )
