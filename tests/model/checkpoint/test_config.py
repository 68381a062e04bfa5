"""What a checkpoint is once it is read."""

from __future__ import annotations

import pytest
import torch

from colbert_core.model.checkpoint import Dense


@pytest.mark.parametrize(
    ("settings", "is_plain", "description"),
    [
        ({}, True, "4 -> 2"),
        ({"bias": torch.zeros(2)}, False, "4 -> 2, bias"),
        ({"bias": torch.zeros(2), "activation": "GELU"}, False, "4 -> 2, bias, GELU"),
        ({"residual": True, "residual_weight": torch.zeros(2, 4)}, False, "4 -> 2, residual"),
    ],
)
def test_a_layer_tells_what_it_is(settings, is_plain, description):
    layer = Dense(torch.zeros(2, 4), **settings)
    assert (layer.is_plain, layer.describe()) == (is_plain, description)
