"""Devices and precisions that are refused."""

from __future__ import annotations

import pytest
import torch

from colbert_core import (
    Encoder,
)


@pytest.mark.parametrize("dtype", ["int8", "half-ish", torch.int32, "float8_e4m3fn"])
def test_a_dtype_that_models_do_not_run_in_is_refused(stanford_folder, dtype):
    with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16"):
        Encoder.from_pretrained(str(stanford_folder), dtype=dtype)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "tpu:0"])
def test_a_device_that_is_not_there_is_refused_and_the_best_named(stanford_folder, device):
    with pytest.raises(ValueError, match=rf"device='{device}' is not to be had .* the best one present is"):
        Encoder.from_pretrained(stanford_folder, device=device)


def test_of_a_long_message_about_a_device_the_first_line_is_told(stanford_folder, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("CUDA error: invalid device ordinal\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\n")

    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(ValueError, match=r"'cuda:1' is not to be had \(CUDA error: invalid device ordinal\); the best one"):
        Encoder.from_pretrained(stanford_folder, device="cuda:1")
