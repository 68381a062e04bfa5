"""Choose the device that a model runs on, and its precision."""

from __future__ import annotations

from typing import Any

import torch


def as_device(device: str | None) -> torch.device:
    """Check that a device is present; None chooses the best one.

    Raises:
        ValueError: there is no such device.
    """
    if device is None:
        return torch.device(_best_device())
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    # torch reports an unknown kind as RuntimeError and one it was not built for as AssertionError.
    except (RuntimeError, AssertionError, TypeError) as error:
        why = str(error).partition("\n")[0]  # the other lines of CUDA's message tell how to debug kernels
        raise ValueError(f"device={device!r} is not to be had ({why}); the best one present is {_best_device()!r}.") from None
    return chosen


def as_dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype:
    """Check that models run in a floating-point type; None chooses the best one.

    Raises:
        ValueError: models do not run in it.
    """
    if dtype is None:
        return _best_dtype(device)
    known = {
        str(known).removeprefix("torch."): known for known in (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    }
    chosen = known.get(str(dtype).removeprefix("torch."))
    if chosen is None:
        raise ValueError(f"dtype must be one of {', '.join(known)}, got {dtype!r}.")
    return chosen


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _best_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    # Matrix instructions (AMX) and AMD's vector ones make bfloat16 3 to 4 times as fast as float32. With those of Intel's
    # vectors it takes 1.5 times as long, and without any it is emulated. Older torch does not say: float32.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if device.type == "cpu" and (capabilities.get("amx_bf16") or (capabilities.get("avx512_bf16") and _is_amd())):
        return torch.bfloat16
    return torch.float32


def _is_amd() -> bool:
    import llvmlite.binding  # here, because only AMD's test needs it

    return str(llvmlite.binding.get_host_cpu_name()).startswith("znver")
