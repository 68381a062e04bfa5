"""Dense modules: the layers of a head, each in a folder of its own with config.json and weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from colbert_core.errors import CheckpointError, UnsupportedCheckpointError
from colbert_core.model.checkpoint.config import Dense
from colbert_core.model.checkpoint.files import Fields, read_weights

if TYPE_CHECKING:
    from pathlib import Path

# Metadata that transformers expects in a safetensors file of torch's.
_PT = {"format": "pt"}


def read_dense(folder: Path, usual: str) -> Dense:
    """Read one Dense module; ``usual`` is the activation of one that names none.

    Raises:
        CheckpointError: its weights do not fit its config.json.
        UnsupportedCheckpointError: an activation that is not torch's own, or one over whole sentences.
    """
    config = Fields.of(folder / "config.json", needed=True)
    source = config.text("module_input_name", "token_embeddings")
    if {source, config.text("module_output_name", source)} != {"token_embeddings"}:
        raise UnsupportedCheckpointError(
            f"{config.file} is a layer over {source!r}; a late-interaction head is over token_embeddings."
        )
    full_name = config.text("activation_function", f"torch.nn.{usual}")
    package, _, activation = full_name.rpartition(".")
    if not package.startswith("torch.nn") or not _is_activation(activation):
        raise UnsupportedCheckpointError(f"{config.file} has the activation {full_name}; read are torch.nn's without weights.")
    has_bias, has_residual = config.flag("bias", True), config.flag("use_residual", False)
    weights = read_weights(folder)
    shape = (config.number("out_features", 0), config.number("in_features", 0))
    expected: dict[str, tuple[int, ...]] = {"linear.weight": shape}
    if has_bias:
        expected["linear.bias"] = shape[:1]
    if has_residual and shape[0] != shape[1]:
        expected["residual.weight"] = shape
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found != expected:
        raise CheckpointError(f"{folder}: by config.json the weights are {expected}, but they are {found}.")
    return Dense(weights["linear.weight"], weights.get("linear.bias"), activation, has_residual, weights.get("residual.weight"))


def _is_activation(name: str) -> bool:
    """Tell whether ``torch.nn`` has an activation of this name that takes no arguments and holds no weights."""
    import torch

    module = getattr(torch.nn, name, None)
    if name != "Identity" and getattr(module, "__module__", None) != "torch.nn.modules.activation":
        return False
    try:
        return not list(module().parameters())  # type: ignore[misc]
    except TypeError:
        return False


def write_dense(folder: Path, layer: Dense, *, names_its_input: bool) -> None:
    """Write a Dense module. PyLate's takes no names of inputs and outputs: they are its token embeddings."""
    from safetensors.torch import save_file

    tensors = {"linear.weight": layer.weight, "linear.bias": layer.bias, "residual.weight": layer.residual_weight}
    settings = {
        "in_features": layer.weight.shape[1],
        "out_features": layer.weight.shape[0],
        "bias": layer.bias is not None,
        "activation_function": f"{_activation_package(layer.activation)}.{layer.activation}",
        "use_residual": layer.residual,
    }
    if names_its_input:
        settings |= {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
    write_json(folder / "config.json", settings)
    save_file({k: v.contiguous() for k, v in tensors.items() if v is not None}, folder / "model.safetensors", _PT)


def _activation_package(name: str) -> str:
    import torch

    return str(getattr(torch.nn, name).__module__)


def write_json(file: Path, content: Any) -> None:
    """Write a JSON file; its folder is made where there is none."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
