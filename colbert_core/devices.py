"""Which device a model runs on, and in which precision."""

from __future__ import annotations

from typing import Any

import torch


def as_device(device: str | None) -> torch.device:
    """A device that is there, the best one for None.

    Raises:
        ValueError: it is not.
    """
    if device is None:
        return torch.device(_best_device())
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    # torch reports an unknown kind as RuntimeError and one it was not built for as AssertionError.
    except (RuntimeError, AssertionError, TypeError) as error:
        why = str(error).partition("\n")[0]  # behind it CUDA tells how to debug kernels
        raise ValueError(f"device={device!r} is not to be had ({why}); the best one present is {_best_device()!r}.") from None
    return found


def as_dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype:
    """A floating-point type that models run in, the best one for None.

    Raises:
        ValueError: it is another.
    """
    if dtype is None:
        return _best_dtype(device)
    known = {
        str(known).removeprefix("torch."): known for known in (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    }
    found = known.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise ValueError(f"dtype must be one of {', '.join(known)}, got {dtype!r}.")
    return found


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
    import llvmlite.binding  # here, because nobody else in this module needs it

    return str(llvmlite.binding.get_host_cpu_name()).startswith("znver")
