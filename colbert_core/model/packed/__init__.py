"""Run common backbones without padding on a CPU: the same vectors from fewer and larger operations.

Any backbone that is not exactly a model written down here keeps the forward pass of transformers.

| module | models |
|---|---|
| ``bert`` | BERT, RoBERTa, XLM-R, DistilBERT |
| ``modernbert`` | ModernBERT |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from colbert_core.model.packed import bert, modernbert

if TYPE_CHECKING:
    from typing import TypeAlias

    from numpy.typing import NDArray

    Packed: TypeAlias = bert.PackedBert | modernbert.PackedModernBert


# Least mean cosine to transformers' own forward pass in the same precision. Two orders of rounding in float32 differ by 1e-7.
# In bfloat16 they differ by .00001 to .0005, by how sharply a model attends, and by half of what each differs from float32. The
# packed pass is then the closer one to float32, so a stricter bound would refuse it for nothing. A layer that computes
# something else differs by far more.
_LEAST_COSINE = {torch.bfloat16: 0.999, torch.float32: 0.99999}


def pack(backbone: torch.nn.Module) -> Packed | None:
    """Pack a backbone; None if it is no model of ours on a CPU, or if the packed form gives other vectors."""
    if backbone.training:
        return None
    try:
        with torch.inference_mode():
            packed: Packed | None = bert.read(backbone) or modernbert.read(backbone)
            return packed if packed is not None and _cosine(packed, backbone) >= _LEAST_COSINE[packed.dtype] else None
    except (RuntimeError, AttributeError, TypeError, IndexError):  # torch without oneDNN, or with other operators
        return None


def _cosine(packed: Packed, backbone: Any) -> float:
    """Compare with transformers' forward pass by the mean cosine over the tokens of a few random sequences.

    In bfloat16 as well the other side is transformers in the same precision: that is what would be used instead, and no second
    copy of the weights is needed.
    """
    lengths, attended = packed.trial
    random = np.random.default_rng(0)
    ids = [random.integers(0, backbone.config.vocab_size, length) for length in lengths]
    expected = torch.cat([_states(backbone, *sequence) for sequence in zip(ids, attended, strict=True)])
    return torch.nn.functional.cosine_similarity(expected.float(), packed(ids, attended).float(), dim=-1).mean().item()


def _states(backbone: Any, ids: NDArray[np.int64], attended: int) -> torch.Tensor:
    mask = (torch.arange(len(ids)) < attended).long()
    return backbone(input_ids=torch.from_numpy(ids)[None], attention_mask=mask[None]).last_hidden_state[0]  # type: ignore[no-any-return]
