"""BERT without transformers, whose import takes 2.5 s and 150 MB: what the model in the box and checkpoints like it need.

Everything here is the same model under the same names as in transformers; what differs in anything is left to transformers.
"""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch

from colbert_core.model.checkpoint.files import read_json
from colbert_core.model.checkpoint.strangers import check_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from colbert_core.model.checkpoint import Checkpoint

# What config.json means where it is silent, and what it must say to be computed here.
_SIZES = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
_ONLY = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "is_encoder_decoder": False,
    "add_cross_attention": False,
    "chunk_size_feed_forward": 0,
    "pruned_heads": {},
    "quantization_config": None,
    "auto_map": None,
}


class BertConfig(SimpleNamespace):
    """The settings of config.json that a ``BertModel`` needs, and ``stored``, all of them as they stand there."""

    stored: dict[str, Any]

    def save_pretrained(self, folder: Path) -> None:
        """Write config.json."""
        (folder / "config.json").write_text(json.dumps(self.stored, indent=2) + "\n", encoding="utf-8")


class BertModel(torch.nn.Module):
    """BERT (Devlin et al., 2019) for inference. A padded batch goes through the operations of transformers in their order."""

    base_model_prefix = "bert"

    def __init__(self, config: BertConfig) -> None:
        """Make the layers, whose weights are still to be loaded."""
        super().__init__()
        self.config = config
        self.embeddings = _parts(
            word_embeddings=_embedding(config.vocab_size, config.hidden_size),
            position_embeddings=_embedding(config.max_position_embeddings, config.hidden_size),
            token_type_embeddings=_embedding(config.type_vocab_size, config.hidden_size),
            LayerNorm=_norm(config),
        )
        self.encoder = _parts(layer=torch.nn.ModuleList(_layer(config) for _ in range(config.num_hidden_layers)))

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return next(self.parameters()).dtype

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        """Compute ``last_hidden_state``, *Shape:* (batch, length, hidden).

        Args:
            input_ids: *Shape:* (batch, length), int64.
            attention_mask: *Shape:* (batch, length), 1 for tokens that may be attended to, and 0.
        """
        parts = self.embeddings
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        words = parts.word_embeddings(input_ids) + parts.token_type_embeddings.weight[0]
        hidden = parts.LayerNorm(words + parts.position_embeddings(positions))
        attended = attention_mask.bool()[:, None, None]  # (batch, 1, 1, length)
        for layer in cast("Any", self.encoder).layer:
            q, k, v = (self._heads(layer.attention.self[name](hidden)) for name in ("query", "key", "value"))
            context = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=attended)
            output = layer.attention.output
            hidden = output.LayerNorm(output.dense(context.transpose(1, 2).flatten(2)) + hidden)
            wide = torch.nn.functional.gelu(layer.intermediate.dense(hidden))
            hidden = layer.output.LayerNorm(layer.output.dense(wide) + hidden)
        return SimpleNamespace(last_hidden_state=hidden)

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:2], self.config.num_attention_heads, -1).transpose(1, 2)  # (batch, heads, length, d)


def load_bert(checkpoint: Checkpoint) -> BertModel | None:
    """Load the backbone of a checkpoint in float32 on the CPU; None if it is no plain BERT, or if anything does not fit."""
    config = _read_config(checkpoint.folder, len(checkpoint.weights))
    if config is None:
        return None
    with torch.device("meta"):
        backbone = BertModel(config)
    weights = {name.removeprefix("bert."): tensor for name, tensor in checkpoint.weights.items()}
    wanted = backbone.state_dict()
    check_tensors(weights.keys() - wanted.keys(), checkpoint.folder)
    if any(name not in weights or weights[name].shape != tensor.shape for name, tensor in wanted.items()):
        return None
    # Copies, since the tensors may lie in a file that is mapped into memory.
    backbone.load_state_dict({name: weights[name].to(torch.float32, copy=True) for name in wanted}, assign=True)
    return backbone


def _read_config(folder: Path, n_tensors: int) -> BertConfig | None:
    stored = read_json(folder / "config.json")
    sizes = {name: stored.get(name, default) for name, default in _SIZES.items()}
    eps = stored.get("layer_norm_eps", 1e-12)
    plain = (
        stored.get("model_type") == "bert"
        and all(re.fullmatch(r"BertModel|BertFor\w+|\w*ColBERT", str(name)) for name in stored.get("architectures") or [])
        and all(stored.get(name, value) == value for name, value in _ONLY.items())
        and all(type(size) is int and 0 < size < 2**24 for size in sizes.values())
        and sizes["hidden_size"] % sizes["num_attention_heads"] == 0
        and sizes["num_hidden_layers"] <= n_tensors
        and type(eps) is float
        and 0 <= eps < 1
        and all(0 <= stored.get(name, 0.1) <= 1 for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"))
    )
    return BertConfig(**sizes, model_type="bert", hidden_act="gelu", layer_norm_eps=eps, stored=stored) if plain else None


def _layer(config: BertConfig) -> Any:
    hidden, wide = config.hidden_size, config.intermediate_size
    attention = _parts(query=_Linear(hidden, hidden), key=_Linear(hidden, hidden), value=_Linear(hidden, hidden))
    return _parts(
        attention=_parts(self=attention, output=_parts(dense=_Linear(hidden, hidden), LayerNorm=_norm(config))),
        intermediate=_parts(dense=_Linear(hidden, wide)),
        output=_parts(dense=_Linear(wide, hidden), LayerNorm=_norm(config)),
    )


class _Linear(torch.nn.Module):
    """torch's own fills its weights with random numbers, for which it imports a compiler for a second on the device "meta"."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(n_out, n_in))
        self.bias = torch.nn.Parameter(torch.empty(n_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weight, self.bias)


def _embedding(n: int, width: int) -> torch.nn.Embedding:
    return torch.nn.Embedding(n, width, _weight=torch.empty(n, width))


def _norm(config: BertConfig) -> torch.nn.LayerNorm:
    return torch.nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


def _parts(**parts: torch.nn.Module) -> Any:
    return torch.nn.ModuleDict(parts)
