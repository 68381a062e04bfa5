"""JSON and tensors of a model folder, read so that whatever is missing or damaged is named; int8 matrices restored."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from colbert_core.errors import CheckpointError, CheckpointNotFoundError

if TYPE_CHECKING:
    from pathlib import Path

    import torch

_SCALE = ".scale"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointNotFoundError: there is no such file.
        CheckpointError: it holds something else.
    """
    content = parse_json(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(content).__name__}; copy it again.")
    return content


def read_json_if_there(path: Path) -> dict[str, Any]:
    """The same, and an empty object where there is no such file."""
    return read_json(path) if path.is_file() else {}


def parse_json(path: Path) -> Any:
    """Whatever a JSON file holds."""
    if not path.is_file():
        raise CheckpointNotFoundError(f"{path.parent} has no {path.name}; the download or copy is not complete.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); copy it again.") from error


def number_of(value: Any, name: str, file: Path, default: int) -> int:
    """A whole number that a recipe states; the default where it states none or null.

    Raises:
        CheckpointError: it states something else.
    """
    if value is None:
        return default
    try:
        return int(value)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{file} has a {name} that is no number, {value!r}; copy it again.") from error


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of model.safetensors, its shards, or pytorch_model.bin; the first that is there."""
    shards = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        files = [folder / "model.safetensors"]
    elif shards.is_file():
        weight_map = read_json(shards).get("weight_map")
        if not weight_map:
            raise CheckpointError(f"{shards} names no files under weight_map; copy it again.")
        files = [folder / shard for shard in sorted(set(weight_map.values()))]
    else:
        files = [folder / "pytorch_model.bin"]

    stored: dict[str, torch.Tensor] = {}
    for file in files:
        if not file.is_file():
            wanted = "model.safetensors or pytorch_model.bin" if file.name == "pytorch_model.bin" else file.name
            raise CheckpointNotFoundError(f"{folder} has no {wanted}; the download or copy is not complete.")
        stored |= load_tensors(file)
    return {_current_name(key): tensor for key, tensor in _dequantized(stored, folder).items()}


def load_tensors(file: Path) -> dict[str, Any]:
    """What a .safetensors file or one of torch.save holds; code in it is not run."""
    import torch
    from safetensors.torch import load_file

    try:
        content: Any = (
            load_file(file) if file.suffix == ".safetensors" else torch.load(file, map_location="cpu", weights_only=True)
        )
    # Damage shows as SafetensorError, or with torch.load as any of RuntimeError, EOFError, UnpicklingError and more.
    except Exception as error:
        raise CheckpointError(
            f"{file} ({file.stat().st_size:,} bytes) cannot be read ({type(error).__name__}: {error}); "
            "it is damaged or not completely copied: copy it again."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, no tensors by name; copy it again.")
    return content


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


def _current_name(key: str) -> str:
    """Checkpoints from before PyTorch, bert-base-uncased among them, call the parameters of LayerNorm gamma and beta."""
    return re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", key))
