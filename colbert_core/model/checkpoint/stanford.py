"""Stanford ColBERT: a folder with the architecture HF_ColBERT, or a single .dnn file from before there were folders.

A folder holds the recipe in ``artifact.metadata`` and, among the weights, ``linear.weight``: the projection of every token
vector. A ``.dnn`` file holds the same weights under ``model_state_dict`` and the recipe under ``arguments``; its tokenizer
and config.json are those of the model named there, or lie beside it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from colbert_core.errors import CheckpointError, UnsupportedCheckpointError
from colbert_core.model.checkpoint.config import Checkpoint, Dense, EncoderConfig
from colbert_core.model.checkpoint.files import Fields, load_tensors, read_hidden_size, read_json, read_weights

if TYPE_CHECKING:
    from pathlib import Path

    import torch

ARCHITECTURE = "HF_ColBERT"
METADATA = "artifact.metadata"


def recognises(folder: Path, config: dict[str, Any]) -> bool:
    """Tell whether a folder is a Stanford checkpoint."""
    return (folder / METADATA).is_file() or ARCHITECTURE in Fields(config, folder / "config.json").words("architectures", ())


def read(folder: Path) -> Checkpoint:
    """Read a folder.

    Raises:
        CheckpointError: there is no projection, or it does not fit.
    """
    stated = read_metadata(folder)
    weights = read_weights(folder)
    projection = _checked(weights.pop("linear.weight", None), folder, folder, stated)
    return Checkpoint(folder, recipe_of(stated), weights, (Dense(projection),))


def read_dnn(file: Path) -> tuple[dict[str, torch.Tensor], Fields]:
    """Read the weights in a .dnn file, and the arguments it was trained with ("model" names the backbone).

    Raises:
        CheckpointError: it holds something else.
    """
    content = load_tensors(file)
    weights, arguments = content.get("model_state_dict"), content.get("arguments") or {}
    if not isinstance(weights, dict) or not isinstance(arguments, dict) or not all(isinstance(name, str) for name in weights):
        raise CheckpointError(
            f"{file} holds {', '.join(map(str, content)) or 'nothing'}; a .dnn file of ColBERT's holds model_state_dict and "
            "arguments."
        )
    return {name.removeprefix("module."): tensor for name, tensor in weights.items()}, Fields(arguments, file)


def from_dnn(folder: Path, weights: dict[str, torch.Tensor], arguments: Fields) -> Checkpoint:
    """Make a checkpoint of what ``read_dnn`` returned and the backbone in ``folder``."""
    weights = dict(weights)
    projection = _checked(weights.pop("linear.weight", None), arguments.file, folder, arguments)
    return Checkpoint(folder, recipe_of(arguments), weights, (Dense(projection),))


def read_metadata(folder: Path) -> Fields:
    """Read artifact.metadata; some versions of Stanford's code put everything under "config"."""
    content = Fields.of(folder / METADATA)
    return content.section("config") if "config" in content else content


def recipe_of(stated: Fields) -> EncoderConfig:
    """Read the recipe in artifact.metadata; entries it leaves out have the defaults of Stanford's code.

    The keys "query_augmentation" and "trained" and markers that are null are additions of this package; the model in the box
    uses them.
    """
    if (interaction := stated.text("interaction", "colbert")) != "colbert":
        raise UnsupportedCheckpointError(
            f"{stated.file} says interaction={interaction!r}, which adds up similarities by its own rule; read is 'colbert'."
        )

    def marker(name: str, default: str) -> str | None:
        return None if stated.content.get(name, default) is None else stated.text(name, default)

    return EncoderConfig(
        format="stanford",
        query_length=stated.number("query_maxlen", 32),
        passage_length=stated.number("doc_maxlen", 220),
        query_marker=marker("query_token_id", "[unused0]"),
        passage_marker=marker("doc_token_id", "[unused1]"),
        augment_queries=stated.flag("query_augmentation", True),
        attend_to_augmentation=stated.flag("attend_to_mask_tokens", False),
        skip_punctuation=stated.flag("mask_punctuation", True),
        similarity=stated.text("similarity", "cosine"),
        trained=stated.flag("trained", True),
    )


def reasons_against(config: EncoderConfig, head: tuple[Dense, ...]) -> list[str]:
    """List why Stanford's code could not read the model as it is meant; empty if the format can hold it."""
    checks = {
        "its head is more than one matrix": len(head) != 1 or not head[0].is_plain,
        "queries or passages have no marker of one token": not config.query_marker or not config.passage_marker,
        "it has prompts": bool(config.query_prompt or config.passage_prompt),
        "queries are not filled up with mask tokens to query_length": not config.augment_queries
        or config.augmentation_token is not None
        or config.augmentation_length is not None,
        "it skips other tokens than punctuation": bool(config.skip_tokens) or config.skip_in_queries or config.skip_first,
        "it lower-cases beside its tokenizer": config.lowercase,
        "it pools tokens": config.pool_factor != 1,
    }
    return [reason for reason, holds in checks.items() if holds]


def write(folder: Path, config: EncoderConfig, head: tuple[Dense, ...], weights: dict[str, torch.Tensor], prefix: str) -> None:
    """Write recipe and weights beside the config.json that is there.

    Args:
        folder: folder that has config.json already.
        config: recipe that ``reasons_against`` has nothing against.
        head: one plain layer.
        weights: weights of the backbone, by their names in it.
        prefix: prefix of these names in a checkpoint, "bert" for BERT.
    """
    from safetensors.torch import save_file

    tensors = {f"{prefix}.{name}": tensor for name, tensor in weights.items()} | {"linear.weight": head[0].weight}
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    backbone = read_json(folder / "config.json") | {"architectures": [ARCHITECTURE]}
    (folder / "config.json").write_text(json.dumps(backbone, indent=2) + "\n", encoding="utf-8")
    metadata = {
        "query_token_id": config.query_marker,
        "doc_token_id": config.passage_marker,
        "query_token": "[Q]",
        "doc_token": "[D]",
        "dim": head[0].weight.shape[0],
        "query_maxlen": config.query_length,
        "doc_maxlen": config.passage_length,
        "mask_punctuation": config.skip_punctuation,
        "attend_to_mask_tokens": config.attend_to_augmentation,
        "similarity": "l2" if config.similarity == "l2" else "cosine",
        "interaction": "colbert",
        **({"matryoshka_dims": [*config.nested_dims]} if config.nested_dims else {}),
    }
    (folder / METADATA).write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")


def _checked(projection: torch.Tensor | None, source: Path, folder: Path, stated: Fields) -> torch.Tensor:
    if projection is None:
        raise CheckpointError(
            f"{source} is a Stanford ColBERT checkpoint but its weights have no linear.weight, the projection; "
            "they are an encoder's without its ColBERT head: use the file the authors published."
        )
    hidden = read_hidden_size(folder)
    if projection.ndim != 2 or hidden not in (None, projection.shape[1]):
        raise CheckpointError(
            f"{source}: linear.weight has the shape {tuple(projection.shape)} but the backbone's hidden size is {hidden}; "
            "config.json and the weights belong to different checkpoints."
        )
    dim = stated.number("dim", projection.shape[0])
    if dim != projection.shape[0]:
        raise CheckpointError(
            f"{source}: the recipe says dim {dim} but linear.weight projects to {projection.shape[0]}; "
            "they belong to different checkpoints."
        )
    return projection
