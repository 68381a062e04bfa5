"""What packed models share: linear layers in the processor's layout, and attention within sequences laid end to end."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

# Queries that local attention takes at once. For windows of 64 to each side and 300 tokens, blocks of 64, 128 and 192 are equal
# within a tenth; at 1,024 tokens 128 takes 12 ms in float32, 256 takes 15, and all at once 34.
_BLOCK = 128

# Tokens of a pass are filled up to a multiple of this. oneDNN keeps code and room for every number of rows that it has
# multiplied: a server asked with 600 questions of 1 to 125 words grew from 567 to 1,002 MB, and grows to 581 with steps of 16,
# to 559 with 32, which takes 3 % more time for short questions.
_STEP = 16

# Up to here attention is written out where torch's own is slow for narrow heads; its scores then take 3 MB for 12 heads.
_MOST_WRITTEN_OUT = 256


class PackedLinear:
    """One linear layer, with weights in the layout of the processor's matrix instructions."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Copy the weight, *Shape:* (n_out, n_in), into the layout; bias *Shape:* (n_out,)."""
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self._bias = bias

    @classmethod
    def of(cls, *layers: torch.nn.Linear) -> PackedLinear:
        """Take layers of one input, their outputs side by side; all of them have a bias or none has."""
        biases: list[torch.Tensor] = [layer.bias for layer in layers if layer.bias is not None]
        return cls(torch.cat([layer.weight for layer in layers]), torch.cat(biases) if biases else None)

    def __call__(self, x: torch.Tensor, activation: str = "none") -> torch.Tensor:
        """*Shape:* (n_tokens, n_in) to (n_tokens, n_out); GELU is the exact one, by the error function."""
        product = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, activation, [], "none")
        return cast("torch.Tensor", product)

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Add the residual, *Shape:* (n_tokens, n_out), while the product is in the cache."""
        return self._with(x, residual, "add")

    def times(self, x: torch.Tensor, gated: torch.Tensor) -> torch.Tensor:
        """Multiply with what it gates, *Shape:* (n_tokens, n_out), while the product is in the cache."""
        return self._with(x, gated, "mul")

    def _with(self, x: torch.Tensor, other: torch.Tensor, operation: str) -> torch.Tensor:
        product = torch.ops.mkldnn._linear_pointwise.binary(x, other, self._weight, self._bias, operation)
        return cast("torch.Tensor", product)


class Sequences:
    """Where each sequence lies among the tokens of a pass.

    Attributes:
        n_tokens: of all sequences.
        ids: of each sequence, and of as many sequences of one token as fill the pass up, which mean nothing.
        tokens: ids of all, one sequence after the other, *Shape:* (n_rows,), int64.
        positions: of each token in its sequence, from 0, *Shape:* (n_rows,), int64.
    """

    def __init__(self, ids: Sequence[NDArray[np.int64]], attended: Sequence[int]) -> None:
        """Take ids and how many leading tokens of each may be attended to."""
        self.n_tokens = sum(map(len, ids))
        fill = -self.n_tokens % _STEP
        self.ids = [*ids, *[ids[0][:1]] * fill]
        self.tokens = torch.from_numpy(np.concatenate(self.ids))
        self.positions = torch.from_numpy(np.concatenate([np.arange(len(sequence)) for sequence in self.ids]))
        shapes = zip(map(len, self.ids), [*attended, *[1] * fill], strict=True)
        self._groups = [(len(list(same)), *shape) for shape, same in itertools.groupby(shapes)]

    def attend(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: Window | None = None, *, written_out: bool = False
    ) -> torch.Tensor:
        """Compute softmax(q kᵀ / sqrt(d)) v within each sequence; neighbours of one shape are computed together.

        Args:
            q: queries, *Shape:* (n_rows, heads, d). Keys and values have the same, and strides of their own.
            k: keys.
            v: values.
            window: how far a token sees; None for the whole sequence.
            written_out: by two products and a softmax where sequences are short, if torch's own attention is slower.

        Returns:
            *Shape:* (n_rows, heads * d). Zeros for a token that sees none it may attend to.
        """
        context = q.new_empty(q.shape)
        at = 0
        for n, length, attended in self._groups:
            parts = (part[at : at + n * length].view(n, length, *q.shape[1:]).transpose(1, 2) for part in (q, k, v, context))
            queries, keys, values, out = parts  # each (n, heads, length, d)
            keys, values = keys[:, :, :attended], values[:, :, :attended]
            if window is not None and not window.holds(length):
                for rows, seen, mask in window.blocks(length, attended):
                    block = (queries[:, :, rows], keys[:, :, seen], values[:, :, seen])
                    out[:, :, rows] = torch.nn.functional.scaled_dot_product_attention(*block, attn_mask=mask)
            elif written_out and length <= _MOST_WRITTEN_OUT:
                out.copy_(_written_out(queries, keys, values))
            else:
                out.copy_(torch.nn.functional.scaled_dot_product_attention(queries, keys, values))
            at += n * length
        return context.flatten(1)


class Window:
    """Local attention: a token sees those at most ``reach`` positions away. Long sequences take memory in proportion."""

    def __init__(self, reach: int, dtype: torch.dtype) -> None:
        """Take the reach and the precision of queries."""
        self.reach = reach
        far = (torch.arange(-reach, _BLOCK + reach) - torch.arange(_BLOCK)[:, None]).abs() > reach
        self._mask = torch.zeros(far.shape, dtype=dtype).masked_fill_(far, -torch.inf)  # (_BLOCK, reach + _BLOCK + reach)

    def holds(self, length: int) -> bool:
        """Tell if every token of a sequence sees every other."""
        return length - 1 <= self.reach

    def blocks(self, length: int, attended: int) -> Iterator[tuple[slice, slice, torch.Tensor]]:
        """Yield queries, the keys that one of them sees, and what is added to their scores, (n_queries, n_keys)."""
        for start in range(0, length, _BLOCK):
            end = min(start + _BLOCK, length)
            first = max(start - self.reach, 0)
            last = max(min(end + self.reach, attended), first)
            shift = self.reach - start  # from a key to its column
            yield slice(start, end), slice(first, last), self._mask[: end - start, first + shift : last + shift]


def slow_for_narrow_heads(dtype: torch.dtype, width: int) -> bool:
    """Tell if torch's own attention is slower than two products and a softmax.

    In bfloat16 on AMD's processors it was, for heads as narrow as the 32 of MiniLM: 1.12 times the whole forward pass. With
    matrix instructions (AMX) it takes .7 of the time, in float32 .8, and with heads of 64 it is the quicker one as well.
    """
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return dtype == torch.bfloat16 and width < 64 and not capabilities.get("amx_bf16")


def has_parameters(backbone: Any, names: set[str]) -> bool:
    """Tell if these are all parameters of a backbone, on a CPU and of one precision that packed models compute in."""
    parameters = dict(backbone.named_parameters())
    kinds = {(tensor.dtype, tensor.device.type) for tensor in parameters.values()}
    return parameters.keys() == names and kinds in ({(torch.bfloat16, "cpu")}, {(torch.float32, "cpu")})


def _written_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    shape, dtype = q.shape, q.dtype
    # In float32, for which no code is kept for every shape: in bfloat16 a server grew by 250 MB more over 600 questions.
    q, k, v = (part.flatten(0, 1).float() for part in (q, k, v))  # (n * heads, length, d)
    scores = torch.baddbmm(q.new_empty(()), q, k.mT, beta=0, alpha=q.shape[-1] ** -0.5)  # (n * heads, length, attended)
    return torch.bmm(torch.softmax(scores, -1), v).view(shape).to(dtype)
