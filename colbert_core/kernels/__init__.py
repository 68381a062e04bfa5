"""The hot loops of search and compression, compiled by Numba for this processor. NumPy arrays in and out.

``scoring`` and ``building`` hold the loops, ``vector`` the vector operations that they are written in, and ``compiling`` keeps
their machine code on disk. Importing this package imports Numba (.4 s); a search of a small uncompressed index does without.
"""

from __future__ import annotations

import ctypes
import functools
import math
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import llvmlite.binding
import numba
import numpy as np

from colbert_core.kernels import building, scoring
from colbert_core.kernels.scoring import BLOCK, LONG, NOWHERE
from colbert_core.kernels.vector import AMX, PORTABLE, VNNI

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "AMX",
    "BLOCK",
    "LONG",
    "NOWHERE",
    "PORTABLE",
    "VNNI",
    "ByteRows",
    "QueryBlocks",
    "building",
    "instruction_set",
    "plain",
    "scoring",
]


@functools.cache
def instruction_set() -> Any:
    """Return the fastest variant of the kernels that this processor runs and that Numba compiles for."""
    settings = numba.config
    if settings.CPU_NAME or settings.CPU_FEATURES or not settings.ENABLE_AVX:  # Numba compiles for another processor
        return PORTABLE
    features = llvmlite.binding.get_host_cpu_features()
    needed = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni")
    if not all(features.get(name) for name in needed):
        return PORTABLE
    return AMX if features.get("amx-tile") and features.get("amx-int8") and _may_use_tiles() else VNNI


def _may_use_tiles() -> bool:
    """Ask Linux for the tiles of AMX, which it gives to a process that asks; whether this process has them from now on.

    Linux, Documentation/arch/x86/xstate.rst. Other systems are not asked.
    """
    if sys.platform != "linux" or sys.maxsize < 2**32:
        return False
    arch_prctl, req_xcomp_perm, xtiledata = 158, 0x1023, 18
    return bool(ctypes.CDLL(None).syscall(arch_prctl, req_xcomp_perm, xtiledata) == 0)


def aligned(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return an array of zeros at an address that is a multiple of 64, so that no vector of 64 bytes crosses a cache line."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.zeros(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    array: NDArray[Any] = room[start : start + size].view(dtype).reshape(shape)
    return array


def plain(array: NDArray[Any]) -> NDArray[Any]:
    """Return the same memory as a writable, aligned and contiguous array, so that a kernel is compiled once for each dtype.

    To Numba a read-only array, such as a memory-mapped one, is another type: it would compile again. No kernel writes to its
    inputs.
    """
    array = np.require(array, requirements=["C", "A"])
    if array.flags.writeable or not array.size:
        return np.array(array) if not array.flags.writeable else array
    return np.asarray(_Writable(array))


class _Writable:
    def __init__(self, array: NDArray[Any]) -> None:
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface
        self._kept = array


@dataclass(frozen=True, slots=True, eq=False)
class ByteRows:
    """Vectors as bytes, for products of bytes.

    Attributes:
        rows: *Shape:* (n, width), uint8, with an offset of 128; width is dim rounded up to a multiple of 16.
        scale: the value of one step of a byte.
    """

    rows: NDArray[np.uint8]
    scale: np.float32

    @property
    def largest_error(self) -> float:
        """The most by which a row may differ from its vector, as a distance."""
        return 0.501 * float(self.scale) * math.sqrt(self.rows.shape[1])

    @classmethod
    def of(cls, vectors: NDArray[np.float32], multiple: int = 1) -> ByteRows:
        """Quantize vectors by one scale for all, which the largest component decides.

        Args:
            vectors: *Shape:* (n, dim), float32.
            multiple: repeat the last vector until the number of rows is a multiple of this.

        Raises:
            IndexError: a component is not finite; the file is damaged.
        """
        n = -(-len(vectors) // multiple) * multiple
        largest = max(float(vectors.max()), -float(vectors.min())) if vectors.size else 1.0
        if not np.isfinite(largest):
            raise IndexError("a vector is not finite")
        scale = np.float32(max(largest, 1e-20) / 127)
        rows = aligned((n, -(-vectors.shape[1] // 16) * 16), np.uint8)
        building.to_bytes(plain(vectors), scale, rows[: len(vectors)])
        rows[len(vectors) :] = rows[len(vectors) - 1 : len(vectors)]
        return cls(rows, scale)


@dataclass(frozen=True, slots=True, eq=False)
class QueryBlocks:
    """A query as the kernels read it: blocks of 32 vectors, the last one filled up with zeros.

    Attributes:
        n_q: number of query vectors.
        bytes: *Shape:* (n_blocks, width / 4, 32, 4), int8.
        scales: *Shape:* (n_blocks, 32), float32.
        starts: *Shape:* (n_blocks, 32), int32.
    """

    n_q: int
    bytes: NDArray[np.int8]
    scales: NDArray[np.float32]
    starts: NDArray[np.int32]

    @classmethod
    def of(cls, query: NDArray[np.float32], width: int) -> QueryBlocks:
        """Quantize a query.

        Args:
            query: *Shape:* (n_q, dim), float32.
            width: width of the rows that it is multiplied with, a multiple of 16, at least dim.
        """
        n_blocks = -(-len(query) // BLOCK)
        blocks = cls(
            len(query),
            aligned((n_blocks, width // 4, BLOCK, 4), np.int8),
            np.zeros((n_blocks, BLOCK), np.float32),
            aligned((n_blocks, BLOCK), np.int32),
        )
        scoring.quantize_query(plain(query), blocks.bytes, blocks.scales, blocks.starts)
        return blocks


def float_blocks(query: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a query as ``score_floats`` reads it. *Shape:* (n_blocks, dim, 32), float32."""
    n_blocks = -(-len(query) // BLOCK)
    filled = np.zeros((n_blocks * BLOCK, query.shape[1]), np.float32)
    filled[: len(query)] = query
    return np.ascontiguousarray(filled.reshape(n_blocks, BLOCK, -1).transpose(0, 2, 1))


# A thread keeps arrays of at most so many numbers: 32 MB of 16 bits, enough for 512 query vectors and 32,768 centroids.
_LARGEST_KEPT = 2**24


class Scratch(threading.local):
    """Arrays that a thread keeps for its next search, because new ones would cost a page fault for every 4 kB."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: Any, *, zeros: bool = False) -> NDArray[Any]:
        """Return the array of this name, with what its last user left in it.

        Args:
            name: name of the array.
            shape: its shape, which may differ from call to call.
            dtype: its dtype, always the same for a name.
            zeros: fill it with zeros when it is made; every user has to leave it filled with zeros.
        """
        size = 1
        for length in shape:
            size *= length
        kept = self._arrays.get(name)
        if size > _LARGEST_KEPT and not zeros:
            return np.empty(shape, dtype)
        if kept is None or kept.size < size:
            kept = self._arrays[name] = aligned((size + size // 4,), dtype)
        return kept[:size].reshape(shape)


scratch = Scratch()
