"""ModernBERT: rotary positions, attention that is local in most layers, gated feed-forward layers, norms before them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from colbert_core.model.packed.layers import PackedLinear, Sequences, Window, has_parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

_MODEL = "transformers.models.modernbert.modeling_modernbert.ModernBertModel"
_LOCAL, _GLOBAL = "sliding_attention", "full_attention"


class PackedModernBert:
    """ModernBERT (Warner et al., 2024) over sequences laid end to end.

    As in ``PackedBert`` there is no padding, and GELU, gate and residual are applied while the product is in the cache. The
    halves of a rotated pair lie side by side, by the order of the rows of the query's and key's weights, so that a rotation is
    one product of complex numbers, in under half the time of transformers' passes.

    Attributes:
        dtype: precision of the backbone.
        trial: lengths, and attended tokens, of sequences that go through every branch: one of them reaches over a window and
            a block of it.
    """

    def __init__(self, backbone: Any) -> None:
        """Take the weights of a ``ModernBertModel`` that ``read`` has looked at."""
        config = backbone.config
        self.dtype: torch.dtype = backbone.dtype
        self._words: torch.Tensor = backbone.embeddings.tok_embeddings.weight
        self._norm, self._final_norm = backbone.embeddings.norm, backbone.final_norm
        width = config.hidden_size // config.num_attention_heads
        self._kinds: list[str] = config.layer_types
        self._window = Window(config.sliding_window, self.dtype)
        long = min(self._window.reach + 150, config.max_position_embeddings)
        self.trial = (long, 9, 9, 6), (max(long - 20, 1), 9, 9, 5)
        self._frequencies = {kind: _frequencies(config.rope_parameters[kind]["rope_theta"], width) for kind in {*self._kinds}}
        self._layers = [_PackedLayer(layer, config.num_attention_heads, width) for layer in backbone.layers]

    def __call__(self, ids: Sequence[NDArray[np.int64]], attended: Sequence[int]) -> torch.Tensor:
        """Hidden states of the last layer.

        Args:
            ids: of each sequence *Shape:* (length,), int64. Neighbours of equal length and attention are computed together.
            attended: how many leading tokens of each may be attended to, at least one.

        Returns:
            *Shape:* (n_tokens, hidden), of the backbone's dtype, one sequence after the other.
        """
        sequences = Sequences(ids, attended)
        turns = {kind: _turns(sequences.positions, frequencies) for kind, frequencies in self._frequencies.items()}
        hidden = self._norm(self._words[sequences.tokens])
        for layer, kind in zip(self._layers, self._kinds, strict=True):
            hidden = layer(hidden, sequences, turns[kind], self._window if kind == _LOCAL else None)
        return cast("torch.Tensor", self._final_norm(hidden[: sequences.n_tokens]))


class _PackedLayer:
    def __init__(self, layer: Any, heads: int, width: int) -> None:
        self._heads = heads
        attention, mlp = layer.attn, layer.mlp
        pairs = torch.arange(width).view(2, -1).T.flatten()  # of a head's rows: 0, d / 2, 1, d / 2 + 1, …
        rows = torch.arange(attention.Wqkv.out_features).view(3, heads, width)
        rows[:2] = rows[:2, :, pairs]
        self._qkv = PackedLinear(attention.Wqkv.weight[rows.flatten()], _at(attention.Wqkv.bias, rows.flatten()))
        self._attended = PackedLinear.of(attention.Wo)
        wide, gate = torch.arange(mlp.Wi.out_features).chunk(2)
        self._wide = PackedLinear(mlp.Wi.weight[wide], _at(mlp.Wi.bias, wide))
        self._gate = PackedLinear(mlp.Wi.weight[gate], _at(mlp.Wi.bias, gate))
        self._narrow = PackedLinear.of(mlp.Wo)
        self._attention_norm, self._norm = layer.attn_norm, layer.mlp_norm

    def __call__(self, hidden: torch.Tensor, sequences: Sequences, turns: torch.Tensor, window: Window | None) -> torch.Tensor:
        qkv = self._qkv(self._attention_norm(hidden)).view(len(hidden), 3, self._heads, -1)  # (n_tokens, 3, heads, d)
        q, k = _turned(qkv[:, :2], turns).unbind(1)
        hidden = self._attended.plus(sequences.attend(q, k, qkv[:, 2], window), hidden)
        x = self._norm(hidden)
        return self._narrow.plus(self._gate.times(x, self._wide(x, "gelu")), hidden)


def read(backbone: Any) -> PackedModernBert | None:
    """Pack a ModernBERT; None if it is another model, or has settings that are not written down here."""
    if f"{type(backbone).__module__}.{type(backbone).__qualname__}" != _MODEL:
        return None
    config: Any = backbone.config
    plain = (
        has_parameters(backbone, _parameters(config))
        and config.hidden_activation == "gelu"
        and {*config.layer_types} <= {_LOCAL, _GLOBAL}
        and all(config.rope_parameters[kind]["rope_type"] == "default" for kind in config.layer_types)
    )
    return PackedModernBert(backbone) if plain else None


def _parameters(config: Any) -> set[str]:
    """Name the parameters of a model of these settings; the first layer has no norm before its attention."""
    biased = {"attn.Wqkv": config.attention_bias, "attn.Wo": config.attention_bias, "mlp.Wi": config.mlp_bias}
    biased |= {"mlp.Wo": config.mlp_bias, "attn_norm": config.norm_bias, "mlp_norm": config.norm_bias}
    parts = {f"layers.{i}.{part}": bias for i in range(config.num_hidden_layers) for part, bias in biased.items()}
    parts |= {"embeddings.tok_embeddings": False, "embeddings.norm": config.norm_bias, "final_norm": config.norm_bias}
    parts.pop("layers.0.attn_norm", None)
    return {f"{part}.weight" for part in parts} | {f"{part}.bias" for part, bias in parts.items() if bias}


def _at(bias: torch.Tensor | None, rows: torch.Tensor) -> torch.Tensor | None:
    return None if bias is None else bias[rows]


def _frequencies(theta: float, width: int) -> torch.Tensor:
    """By how much each pair of a head turns from one position to the next, *Shape:* (width / 2,), float32.

    Always float32: in bfloat16 they would be wrong by up to .2 percent, which is half a radian after 300 positions.
    """
    return 1.0 / (theta ** (torch.arange(0, width, 2, dtype=torch.float32) / width))


def _turns(positions: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    """Compute what the pairs of each token are multiplied by, *Shape:* (n_tokens, width / 2), complex64."""
    angles = positions.float()[:, None] * frequencies
    return torch.polar(torch.ones_like(angles), angles)


def _turned(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Rotate queries and keys, *Shape:* (n_tokens, 2, heads, d), in float32; in place if that is what they are."""
    pairs = torch.view_as_complex(x.float().view(*x.shape[:-1], -1, 2))  # (n_tokens, 2, heads, d / 2)
    return torch.view_as_real(pairs.mul_(turns[:, None, None])).flatten(-2).to(x.dtype)
