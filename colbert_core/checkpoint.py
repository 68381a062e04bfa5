"""Read a model folder: its recipe, its backbone's weights and its projection. Foreign names live in this file only.

Two formats are read here:

- *Stanford ColBERT*: ``config.json`` naming the architecture ``HF_ColBERT``, the recipe in ``artifact.metadata``, and
  ``linear.weight``, the projection of every token vector, among the weights.
- *Untrained*: any sentence-transformers or plain encoder folder. Late interaction over its last hidden states is no
  ColBERT, but a strong start: no markers, no projection, no query augmentation.

Weights may be stored as int8 with a float32 ``<name>.scale`` for each row, which quarters their size.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colbert_core.errors import CheckpointError, CheckpointNotFoundError, UnsupportedCheckpointError

if TYPE_CHECKING:
    import torch

DEFAULT_MODEL = Path(__file__).parent / "default_model"

# What an encoder reads of a hub repository: not its ONNX, OpenVINO or TensorFlow copies, which can be ten times as much.
_HUB_FILES = ["*.json", "*.metadata", "*.txt", "*.model", "model*.safetensors", "pytorch_model*.bin", "*.py"]

_SCALE = ".scale"


@dataclass(frozen=True)
class EncoderConfig:
    """The recipe of a checkpoint: how text becomes the vectors it was trained for. Read from the checkpoint, not chosen.

    Attributes:
        query_length: tokens of a query, the model's own included; longer queries are cut (with a logged warning).
        passage_length: tokens of a passage window, the model's own included.
        query_marker: token put after [CLS] in a query, None for none.
        passage_marker: the same in a passage.
        augment_queries: fill a query with [MASK] up to query_length; the masks' vectors score like any other.
        attend_to_augmentation: let the other tokens attend to those masks.
        skip_punctuation: drop the vectors of passage tokens that are ASCII punctuation.
        trained: False for a model that never learned late interaction.
    """

    query_length: int = 32
    passage_length: int = 220
    query_marker: str | None = None
    passage_marker: str | None = None
    augment_queries: bool = False
    attend_to_augmentation: bool = False
    skip_punctuation: bool = True
    trained: bool = True


@dataclass(frozen=True)
class Checkpoint:
    """A model folder as read.

    Attributes:
        folder: where it was read.
        recipe: how it encodes.
        weights: the backbone's tensors by name, restored to floating point.
        projection: *Shape:* (dim, hidden), or None where the hidden states are the vectors.
    """

    folder: Path
    recipe: EncoderConfig
    weights: dict[str, torch.Tensor]
    projection: torch.Tensor | None


def find_checkpoint(name: str, *, local_files_only: bool = False) -> Path:
    """Find the folder of a checkpoint: a path as it is, a hub name downloaded or from the hub's cache.

    Raises:
        CheckpointNotFoundError: there is no such folder, or the hub's files are neither cached nor to be had.
    """
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return folder
    if not name or name.count("/") > 1 or name.startswith((".", "~", "/", "\\")) or folder.is_absolute():
        raise CheckpointNotFoundError(f"There is no checkpoint folder at {folder.absolute()}; check the path.")

    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=_HUB_FILES, local_files_only=local_files_only))
    # Without a network the hub client raises its own errors, the HTTP library's or OSError, depending on where it fails.
    except Exception as error:
        cache = huggingface_hub.constants.HF_HUB_CACHE
        raise CheckpointNotFoundError(
            f"Checkpoint {name!r} is no folder here, is not complete in the hub cache {cache}, and could not be fetched "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no detail'}). With a network, run "
            f"`hf download {name}`; without one, run that where there is, copy the folder it prints, and pass its path. "
            "Encoder.from_pretrained() without a name needs neither."
        ) from error


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a folder in any of the formats above.

    Raises:
        CheckpointNotFoundError: the weights or config.json are missing.
        UnsupportedCheckpointError: the folder is in a format that this version does not read.
        CheckpointError: a file is damaged, or the projection does not fit the recipe.
    """
    config = _read_json(folder / "config.json")
    metadata = folder / "artifact.metadata"
    is_stanford = metadata.is_file() or "HF_ColBERT" in (config.get("architectures") or [])
    if not is_stanford:
        _refuse_other_formats(folder, config)
    stated = _read_metadata(metadata) if metadata.is_file() else {}
    recipe = _stanford_recipe(stated, metadata) if is_stanford else _untrained_recipe(folder)

    weights = {_current_name(key): tensor for key, tensor in _dequantized(_read_weights(folder), folder).items()}
    projection = weights.pop("linear.weight", None)
    if is_stanford:
        _check_projection(folder, config, stated, projection)
    elif projection is not None:
        raise UnsupportedCheckpointError(
            f"{folder} has the projection linear.weight but neither artifact.metadata nor the architecture HF_ColBERT "
            f"(it says {config.get('architectures')}); this version reads Stanford ColBERT and plain encoder folders."
        )
    return Checkpoint(folder, recipe, weights, projection)


def quantize_rows(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Store every matrix as int8 with one float32 scale per row; vectors stay as they are.

    A row's largest component becomes 127, so the error of a component is at most 1/254 of it.
    """
    import torch

    stored: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        if tensor.ndim != 2:
            stored[name] = tensor.float().contiguous()
            continue
        scale = tensor.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127  # (rows, 1)
        stored[name] = (tensor.float() / scale).round().to(torch.int8).contiguous()
        stored[name + _SCALE] = scale.squeeze(1)
    return stored


def _dequantized(stored: dict[str, torch.Tensor], folder: Path) -> dict[str, torch.Tensor]:
    """The inverse of ``quantize_rows``; tensors that are not int8 pass through."""
    import torch

    weights: dict[str, torch.Tensor] = {}
    for name, tensor in stored.items():
        if name.endswith(_SCALE) and name.removesuffix(_SCALE) in stored:
            continue
        if tensor.dtype == torch.int8:
            scale = stored.get(name + _SCALE)
            if scale is None or scale.shape != tensor.shape[:1]:
                raise CheckpointError(
                    f"{folder}: int8 tensor {name} of shape {tuple(tensor.shape)} needs {name}{_SCALE} of shape "
                    f"{tuple(tensor.shape[:1])}, found {None if scale is None else tuple(scale.shape)}."
                )
            tensor = tensor.float() * scale.unsqueeze(1)
        weights[name] = tensor
    return weights


def _read_json(path: Path) -> dict[str, Any]:
    content = _parse_json(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(content).__name__}; copy it again.")
    return content


def _parse_json(path: Path) -> Any:
    if not path.is_file():
        found = sorted(p.name for p in path.parent.iterdir())
        raise CheckpointNotFoundError(
            f"{path.parent} has no {path.name}, so it is no checkpoint (it holds {', '.join(found) or 'nothing'}); "
            "pass the folder that holds config.json and the weights."
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); copy it again.") from error


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of model.safetensors, its shards, or pytorch_model.bin; the first that is there."""
    import torch
    from safetensors.torch import load_file

    shards = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        files = [folder / "model.safetensors"]
    elif shards.is_file():
        weight_map = _read_json(shards).get("weight_map")
        if not weight_map:
            raise CheckpointError(f"{shards} names no files under weight_map; copy it again.")
        files = [folder / shard for shard in sorted(set(weight_map.values()))]
    else:
        files = [folder / "pytorch_model.bin"]

    weights: dict[str, torch.Tensor] = {}
    for file in files:
        if not file.is_file():
            wanted = "model.safetensors or pytorch_model.bin" if file.name == "pytorch_model.bin" else file.name
            raise CheckpointNotFoundError(f"{folder} has no {wanted}; the download or copy is not complete.")
        try:
            if file.suffix == ".safetensors":
                weights |= load_file(file)
            else:
                weights |= torch.load(file, map_location="cpu", weights_only=True)
        # Damage shows as SafetensorError, or with torch.load as any of RuntimeError, EOFError, UnpicklingError and more.
        except Exception as error:
            raise CheckpointError(
                f"{file} ({file.stat().st_size:,} bytes) cannot be read ({type(error).__name__}: {error}); "
                "it is damaged or not completely copied: copy it again."
            ) from error
    return weights


def _current_name(key: str) -> str:
    """Checkpoints from before PyTorch, bert-base-uncased among them, call the parameters of LayerNorm gamma and beta."""
    return re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", key))


def _read_metadata(path: Path) -> dict[str, Any]:
    """artifact.metadata; some versions of Stanford's code put everything under "config"."""
    content = _read_json(path)
    return dict(content.get("config", content))


def _stanford_recipe(stated: dict[str, Any], metadata: Path) -> EncoderConfig:
    """The recipe in artifact.metadata; what it leaves out has the defaults of Stanford's code.

    Ours are the keys "query_augmentation" and "trained", and markers that are null; the model in the box uses them.
    """
    try:
        return EncoderConfig(
            query_length=int(stated.get("query_maxlen") or 32),
            passage_length=int(stated.get("doc_maxlen") or 220),
            query_marker=stated.get("query_token_id", "[unused0]"),
            passage_marker=stated.get("doc_token_id", "[unused1]"),
            augment_queries=bool(stated.get("query_augmentation", True)),
            attend_to_augmentation=bool(stated.get("attend_to_mask_tokens", False)),
            skip_punctuation=bool(stated.get("mask_punctuation", True)),
            trained=bool(stated.get("trained", True)),
        )
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{metadata} has a length that is no number ({error}); copy it again.") from error


def _untrained_recipe(folder: Path) -> EncoderConfig:
    """Late interaction for a model that never learned it: its own tokens, up to the length it was trained with."""
    settings = folder / "sentence_bert_config.json"
    length = _read_json(settings).get("max_seq_length") if settings.is_file() else None
    return EncoderConfig(query_length=int(length or 256), passage_length=int(length or 256), trained=False)


def _check_projection(folder: Path, config: dict[str, Any], stated: dict[str, Any], projection: torch.Tensor | None) -> None:
    if projection is None:
        raise CheckpointError(
            f"{folder} is a Stanford ColBERT checkpoint but its weights have no linear.weight, the projection; "
            "they are an encoder's without its ColBERT head: use the file the authors published."
        )
    hidden = config.get("hidden_size")
    if projection.ndim != 2 or projection.shape[1] != hidden:
        raise CheckpointError(
            f"{folder}: linear.weight has the shape {tuple(projection.shape)} but the backbone's hidden size is {hidden}; "
            "config.json and the weights belong to different checkpoints."
        )
    dim = stated.get("dim")
    if dim is not None and dim != projection.shape[0]:
        raise CheckpointError(
            f"{folder}: artifact.metadata says dim {dim} but linear.weight projects to {projection.shape[0]}; "
            "they belong to different checkpoints."
        )


def _refuse_other_formats(folder: Path, config: dict[str, Any]) -> None:
    """A late-interaction checkpoint must never be read as untrained: it would work, and be wrong."""
    settings = folder / "config_sentence_transformers.json"
    modules = folder / "modules.json"
    listed = _parse_json(modules) if modules.is_file() else []
    if not isinstance(listed, list) or not all(isinstance(module, dict) for module in listed):
        raise CheckpointError(f"{modules} must hold a JSON list of modules; copy it again.")
    names = [str(module.get("type", "")) for module in listed]
    is_pylate = any(name.startswith("pylate.") for name in names) or (
        settings.is_file() and _read_json(settings).get("model_type") == "ColBERT"
    )
    is_multi_vector = any("MultiVector" in name for name in names)
    is_other = any(architecture.lower() == "colbert" for architecture in config.get("architectures") or [])
    if is_pylate or is_multi_vector or is_other:
        kind = "PyLate" if is_pylate else "sentence-transformers multi-vector" if is_multi_vector else "nanoColBERT"
        raise UnsupportedCheckpointError(
            f"{folder} is a {kind} checkpoint; this version reads Stanford ColBERT checkpoints (artifact.metadata) and "
            "plain encoders. Many models are published in the Stanford format as well."
        )
