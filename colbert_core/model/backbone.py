"""Build the torch modules of a checkpoint: the transformers model with its weights, and the head behind it."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch

from colbert_core.errors import CheckpointError, CheckpointNotFoundError, UnsupportedCheckpointError
from colbert_core.model.checkpoint import read_checkpoint
from colbert_core.model.checkpoint.files import read_json

if TYPE_CHECKING:
    from pathlib import Path

    from colbert_core.model.checkpoint import Checkpoint, Dense


# Settings that no tensor has the size of, such as the length up to which positions are counted, are below this.
_LARGEST_SETTING = 2**24


class Head(torch.nn.Module):
    """Turns hidden states into vectors: the layers of a checkpoint, one after the other."""

    def __init__(self, layers: tuple[Dense, ...]) -> None:
        """Take the layers as read, at least one."""
        super().__init__()
        self.layers = torch.nn.Sequential(*map(_Layer, layers))
        self.dim = layers[-1].weight.shape[0]

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Apply the layers. *Shape:* (…, hidden) to (…, dim)."""
        return cast("torch.Tensor", self.layers(hidden))

    def weights(self) -> tuple[Dense, ...]:
        """Copy the layers as they are now, float32 on the CPU."""
        return tuple(cast("_Layer", layer).as_dense() for layer in self.layers)


class _Layer(torch.nn.Module):
    def __init__(self, dense: Dense) -> None:
        super().__init__()
        self.dense = dense
        self.weight = torch.nn.Parameter(dense.weight.float())
        self.bias = None if dense.bias is None else torch.nn.Parameter(dense.bias.float())
        self.residual_weight = None if dense.residual_weight is None else torch.nn.Parameter(dense.residual_weight.float())
        self.activation = getattr(torch.nn, dense.activation)()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.activation(torch.nn.functional.linear(x, self.weight, self.bias))
        if self.dense.residual:
            out = out + (x if self.residual_weight is None else torch.nn.functional.linear(x, self.residual_weight))
        return cast("torch.Tensor", out)

    def as_dense(self) -> Dense:
        def plain(parameter: torch.nn.Parameter | None) -> torch.Tensor | None:
            return None if parameter is None else parameter.detach().float().cpu()

        return replace(
            self.dense,
            weight=cast("torch.Tensor", plain(self.weight)),
            bias=plain(self.bias),
            residual_weight=plain(self.residual_weight),
        )


def build_backbone(checkpoint: Checkpoint, *, trust_remote_code: bool) -> torch.nn.Module:
    """Build the transformers model of a checkpoint with its weights, on the CPU and in float32.

    Raises:
        CheckpointError: weights are missing or have other shapes than config.json says, or the checkpoint's own code is
            needed and ``trust_remote_code`` is off.
        UnsupportedCheckpointError: config.json describes no encoder that loads here.
    """
    import transformers

    auto_model: Any = transformers.AutoModel  # its methods have no annotations
    folder = checkpoint.folder
    config: Any = None
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
        _check_kind(checkpoint, config)
        config.dtype = torch.float32
        if not (trust_remote_code and _own_code(checkpoint)):  # whose code may not know a device without memory
            _check_sizes(checkpoint)
            with torch.device("meta"):
                _weights_for(auto_model.from_config(config), checkpoint)
        backbone: Any = auto_model.from_config(config, trust_remote_code=trust_remote_code)
        backbone.load_state_dict(_weights_for(backbone, checkpoint))
        _run_once(backbone)
        return cast("torch.nn.Module", backbone)
    except UnsupportedCheckpointError:
        raise
    except Exception as error:  # transformers raises a dozen kinds
        own_code = _own_code(checkpoint)
        if own_code and not trust_remote_code:
            raise CheckpointError(
                f"{folder} needs code that comes with the checkpoint ({own_code} in config.json), and nothing that comes with "
                "transformers fits its weights; read that code, and if you trust it pass trust_remote_code=True."
            ) from error
        if isinstance(error, CheckpointError):
            raise
        raise UnsupportedCheckpointError(f"{folder}/config.json describes no model that loads here: {error}") from error


def move(backbone: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
    """Move a model to a device and a precision; the frequencies of rotary positions stay as they are, as in transformers.

    Rounded to bfloat16 they are wrong by up to .2 percent, and ModernBERT's angles between tokens 300 apart by half a radian.
    """
    frequencies = {name: buffer for name, buffer in backbone.named_buffers() if name.endswith("inv_freq")}
    backbone.to(device=device, dtype=dtype)
    for name, buffer in frequencies.items():
        owner, _, own_name = name.rpartition(".")
        setattr(backbone.get_submodule(owner), own_name, buffer.to(device))
    return backbone


def build_head(layers: tuple[Dense, ...]) -> Head | None:
    """Build the head of a checkpoint in float32; None if the hidden states are the vectors."""
    return Head(layers) if layers else None


def most_tokens(backbone: torch.nn.Module) -> int:
    """Tell the longest sequence that a backbone reads: by its learned positions, or else by its configuration.

    RoBERTa and its kin number positions from their padding index + 1, so they read that many fewer tokens than positions.
    """
    for name, module in backbone.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(module, torch.nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    stated: int | None = getattr(backbone.config, "max_position_embeddings", None)
    return stated or sys.maxsize


def write_backbone(folder: Path, backbone: Any, source: Path | None, name: str) -> dict[str, torch.Tensor]:
    """Write config.json and the checkpoint's own code, if it has any, and return the backbone's tensors by name.

    config.json and tensors are copied from the checkpoint that was loaded: the backbone may run in half precision, and
    this version of transformers may write other names into config.json than the one that made the checkpoint.

    Args:
        folder: for the copy.
        backbone: as it is now.
        source: the checkpoint that it was loaded from; None if it was made of parts.
        name: of the encoder, for messages.

    Raises:
        CheckpointNotFoundError: that is gone.
        CheckpointError: it has changed since.
    """
    current = backbone.state_dict()
    if source is None:
        backbone.config.save_pretrained(folder)
        return {key: tensor.float().cpu() for key, tensor in current.items()}
    if not source.exists():
        raise CheckpointNotFoundError(f"The encoder {name!r} was loaded from {source}, which is gone; put it back.")
    stored = read_checkpoint(source, chosen=("query_length", "passage_length"), local_files_only=True)
    config = json.loads((stored.folder / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = [type(backbone).__name__]
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for code in stored.folder.glob("*.py"):
        shutil.copyfile(code, folder / code.name)
    prefix = f"{backbone.base_model_prefix}."
    weights = {tensor_name.removeprefix(prefix): tensor for tensor_name, tensor in stored.weights.items()}
    for key, tensor in current.items():
        if key not in weights or not torch.equal(weights[key].to(tensor.dtype), tensor.cpu()):
            raise CheckpointError(f"{source} has changed since the encoder was loaded from it ({key} differs); load it again.")
    return {key: weights[key] for key in current}


def _run_once(backbone: Any) -> None:
    """Read two tokens, so that a configuration that fits the weights and computes nothing, such as -1 heads, is seen now."""
    with torch.inference_mode():
        ids = torch.zeros((1, 2), dtype=torch.long)
        backbone.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state  # noqa: B018


def _check_kind(checkpoint: Checkpoint, config: Any) -> None:
    if config.is_encoder_decoder:
        raise UnsupportedCheckpointError(
            f"{checkpoint.folder} is a {config.model_type} model, an encoder with a decoder; this version reads encoders only."
        )


def _own_code(checkpoint: Checkpoint) -> str | None:
    """Tell which code config.json names, if it comes with the checkpoint."""
    auto_map = read_json(checkpoint.folder / "config.json").get("auto_map")
    code = (auto_map.get("AutoModel") or auto_map.get("AutoConfig")) if isinstance(auto_map, dict) else None
    return None if code is None else f"auto_map: {code}"


def _check_sizes(checkpoint: Checkpoint) -> None:
    """Make sure that config.json describes nothing that has more layers than there are tensors, or is longer than all of them.

    Raises:
        CheckpointError: it does.
    """
    n_tensors = len(checkpoint.weights)
    n_numbers = sum(tensor.numel() for tensor in checkpoint.weights.values())
    waiting: list[tuple[str, Any]] = list(read_json(checkpoint.folder / "config.json").items())
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += [(name, inner) for inner in value]
        elif isinstance(value, int | float):
            if value != value or ("dropout" in name and not 0 <= value <= 1):
                raise CheckpointError(f"{checkpoint.folder}/config.json says {name}={value}; correct it or copy it again.")
            most = n_tensors if "layers" in name and name.startswith(("num_", "n_")) else max(n_numbers, _LARGEST_SETTING)
            if value > most and value != float("inf"):
                raise CheckpointError(
                    f"{checkpoint.folder}/config.json says {name}={value:g}, but there are {n_tensors} tensors of "
                    f"{n_numbers:,} numbers; the weights and config.json belong to different checkpoints."
                )


def _weights_for(backbone: Any, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Choose the weights of a model, whose pooler is taken away.

    Raises:
        CheckpointError: one is missing, or has another shape.
    """
    folder = checkpoint.folder
    if getattr(backbone, "pooler", None) is not None:
        backbone.pooler = None  # it serves sentence vectors, and ColBERT checkpoints do not store it
    prefix = f"{backbone.base_model_prefix}."
    weights = {name.removeprefix(prefix): tensor for name, tensor in checkpoint.weights.items()}
    wanted = backbone.state_dict()
    missing = [name for name in wanted if name not in weights]
    if missing:
        raise CheckpointError(
            f"The weights in {folder} lack {len(missing)} of the {len(wanted)} tensors of its config.json, among them "
            f"{missing[0]}; the weights and config.json belong to different checkpoints, or a file is missing."
        )
    for name, tensor in wanted.items():
        if tensor.shape != weights[name].shape:
            raise CheckpointError(
                f"{folder}: {name} has the shape {tuple(weights[name].shape)} in the weights but {tuple(tensor.shape)} "
                "by config.json; they belong to different checkpoints."
            )
    return {name: weights[name] for name in wanted}
