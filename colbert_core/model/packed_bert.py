"""Run plain BERT without padding on a CPU: the same vectors from fewer and larger operations.

Any backbone that is not exactly the model written down here keeps the forward pass of transformers.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Most positions of a backbone: attention is written out, and at 12 heads and 1,024 tokens its scores take 50 MB.
_MOST_POSITIONS = 1024

# Least mean cosine to transformers' own forward pass. Two orders of rounding in bfloat16 differ by .0001 or less on the model
# in the box, in float32 by 1e-7; a layer that computes something else differs by far more.
_LEAST_COSINE = {torch.bfloat16: 0.999, torch.float32: 0.99999}

_LAYER = {
    f"{part}.{kind}"
    for part in (
        *("attention.self.query", "attention.self.key", "attention.self.value"),
        *("attention.output.dense", "attention.output.LayerNorm"),
        *("intermediate.dense", "output.dense", "output.LayerNorm"),
    )
    for kind in ("weight", "bias")
}
_EMBEDDINGS = {
    *("word_embeddings.weight", "position_embeddings.weight", "token_type_embeddings.weight"),
    *("LayerNorm.weight", "LayerNorm.bias"),
}


class PackedBert:
    """BERT (Devlin et al., 2019) over sequences laid end to end: only attention needs to know where one ends.

    Four things make it 1.25 times as fast as a padded batch sorted by length: no padding, weights in the layout of the
    processor's matrix instructions, GELU and residual added while the product is in the cache, and query, key and value as one
    product.
    """

    def __init__(self, backbone: Any) -> None:
        """Take the weights of a ``BertModel`` that ``pack`` has looked at; the linear ones are copied into their layout."""
        config, embeddings = backbone.config, backbone.embeddings
        self._heads: int = config.num_attention_heads
        self.dtype: torch.dtype = backbone.dtype
        self._words: torch.Tensor = embeddings.word_embeddings.weight
        self._positions = embeddings.position_embeddings.weight + embeddings.token_type_embeddings.weight[0]
        self._norm = embeddings.LayerNorm
        self._layers = [_PackedLayer(layer) for layer in backbone.encoder.layer]

    def __call__(self, ids: Sequence[NDArray[np.int64]], attended: Sequence[int]) -> torch.Tensor:
        """Hidden states of the last layer.

        Args:
            ids: of each sequence *Shape:* (length,), int64. Neighbours of equal length and attention are computed together.
            attended: how many leading tokens of each may be attended to, at least one.

        Returns:
            *Shape:* (n_tokens, hidden), of the backbone's dtype, one sequence after the other.
        """
        groups = [(len(list(same)), *shape) for shape, same in itertools.groupby(zip(map(len, ids), attended, strict=True))]
        positions = torch.from_numpy(np.concatenate([np.arange(len(sequence)) for sequence in ids]))
        hidden = self._norm(self._words[torch.from_numpy(np.concatenate(ids))] + self._positions[positions])
        for layer in self._layers:
            hidden = layer(hidden, groups, self._heads)
        return cast("torch.Tensor", hidden)


class _PackedLayer:
    def __init__(self, layer: Any) -> None:
        attention = layer.attention.self
        self._qkv = _PackedLinear(attention.query, attention.key, attention.value)
        self._attended, self._attention_norm = _PackedLinear(layer.attention.output.dense), layer.attention.output.LayerNorm
        self._wide, self._narrow = _PackedLinear(layer.intermediate.dense), _PackedLinear(layer.output.dense)
        self._norm = layer.output.LayerNorm

    def __call__(self, hidden: torch.Tensor, groups: list[tuple[int, int, int]], heads: int) -> torch.Tensor:
        context = _attention(self._qkv(hidden), groups, heads)
        hidden = self._attention_norm(self._attended.plus(context, hidden))
        return cast("torch.Tensor", self._norm(self._narrow.plus(self._wide(hidden, "gelu"), hidden)))


class _PackedLinear:
    """Linear layers of one input, their outputs side by side."""

    def __init__(self, *layers: torch.nn.Linear) -> None:
        weight = torch.cat([layer.weight for layer in layers])
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self._bias = torch.cat([layer.bias for layer in layers])

    def __call__(self, x: torch.Tensor, activation: str = "none") -> torch.Tensor:
        """*Shape:* (n_tokens, n_in) to (n_tokens, n_out); GELU is the exact one, by the error function."""
        product = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, activation, [], "none")
        return cast("torch.Tensor", product)

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        product = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self._weight, self._bias, "add")
        return cast("torch.Tensor", product)


def pack(backbone: torch.nn.Module) -> PackedBert | None:
    """Pack a backbone; None if it is no plain BERT on a CPU, or if the packed form gives other vectors."""
    if not _is_plain_bert(backbone):
        return None
    try:
        with torch.inference_mode():
            packed = PackedBert(backbone)
            return packed if _cosine(packed, backbone) >= _LEAST_COSINE[packed.dtype] else None
    except (RuntimeError, AttributeError, TypeError, IndexError):  # torch without oneDNN, or with other operators
        return None


def _is_plain_bert(backbone: Any) -> bool:
    from transformers import BertModel

    config = backbone.config
    if type(backbone) is not BertModel or backbone.pooler is not None or backbone.training:
        return False
    layers = range(config.num_hidden_layers)
    names = {f"embeddings.{name}" for name in _EMBEDDINGS} | {f"encoder.layer.{i}.{name}" for i in layers for name in _LAYER}
    parameters = dict(backbone.named_parameters())
    kinds = {(tensor.dtype, tensor.device.type) for tensor in parameters.values()}  # one of each, or another backbone
    return (
        parameters.keys() == names
        and kinds in ({(torch.bfloat16, "cpu")}, {(torch.float32, "cpu")})
        and config.max_position_embeddings <= _MOST_POSITIONS
        and config.hidden_act == "gelu"
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
        and not (getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False))
    )


def _cosine(packed: PackedBert, backbone: Any) -> float:
    """Compare with transformers' forward pass by the mean cosine over three sequences.

    Two have the same length, and one of these attends to a part of itself.
    """
    size, lengths, attended = backbone.config.vocab_size, (9, 9, 6), (9, 5, 6)
    ids = np.random.default_rng(0).integers(0, size, (3, max(lengths)))
    mask = torch.arange(max(lengths)) < torch.tensor(attended)[:, None]
    expected = backbone(input_ids=torch.from_numpy(ids), attention_mask=mask.long()).last_hidden_state
    rows = torch.cat([row[:length] for row, length in zip(expected, lengths, strict=True)])
    states = packed([row[:length] for row, length in zip(ids, lengths, strict=True)], attended)
    return torch.nn.functional.cosine_similarity(rows.float(), states.float(), dim=-1).mean().item()


def _attention(qkv: torch.Tensor, groups: list[tuple[int, int, int]], heads: int) -> torch.Tensor:
    """Compute softmax(q kᵀ / sqrt(d)) v within each sequence, (n_tokens, 3 hidden) to (n_tokens, hidden).

    Written out, since torch's fused attention is slow for heads as narrow as the 32 of MiniLM: 1.12 times the whole forward
    pass. The softmax is float32.
    """
    context = qkv.new_empty(len(qkv), qkv.shape[1] // 3)
    at = 0
    for n, length, attended in groups:
        end = at + n * length
        q, k, v = qkv[at:end].view(n, length, 3, heads, -1).permute(2, 0, 3, 1, 4).contiguous()  # (n, heads, length, d)
        scores = (q @ k[:, :, :attended].mT).float().mul_(q.shape[-1] ** -0.5)  # (n, heads, length, attended)
        mixed = torch.softmax(scores, -1).to(qkv.dtype) @ v[:, :, :attended]  # (n, heads, length, d)
        context[at:end].view(n, length, heads, -1).copy_(mixed.transpose(1, 2))
        at = end
    return context
