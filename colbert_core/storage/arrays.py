"""Writes named arrays piece by piece and reads them without copying, in the safetensors format.

The safetensors library reads and writes the same bytes, but only all at once. Here a large array is written from pieces that
are never in memory together, and read from a memory map.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

# The format's names of the types that an index uses, as NumPy's.
_TYPES = {
    "I64": "<i8",
    "I32": "<i4",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "F32": "<f4",
    "F16": "<f2",
}
_NAMES = {np.dtype(code): name for name, code in _TYPES.items()}

# A header of ours has a few hundred bytes; what is longer than this is damaged.
_LONGEST_HEADER = 100_000


def dump_arrays(arrays: Mapping[str, Sequence[NDArray[Any]]]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of named arrays, in pieces.

    Args:
        arrays: maps each name to the parts of its array, which follow each other along the first axis.
    """
    # The widest numbers first, so that every array starts at a multiple of its item's size.
    order = sorted(arrays, key=lambda name: (-arrays[name][0].dtype.itemsize, name))
    header, offset = {}, 0
    for name in order:
        parts = arrays[name]
        shape = [sum(len(part) for part in parts), *parts[0].shape[1:]]
        size = math.prod(shape) * parts[0].dtype.itemsize
        header[name] = {"dtype": _NAMES[parts[0].dtype], "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        for part in arrays[name]:
            if part.size:
                yield np.ascontiguousarray(part).data.cast("B")


def load_arrays(data: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """Return the named arrays in these bytes, as views of them.

    Args:
        data: *Shape:* (n_bytes,), uint8, perhaps a memory map.

    Raises:
        ValueError: the bytes are cut short, or do not begin with a header of this format.
    """
    length = int.from_bytes(data[:8].tobytes(), "little")
    if len(data) < 8 or not 2 <= length <= min(len(data) - 8, _LONGEST_HEADER):
        raise ValueError("the header is damaged")
    body = data[8 + length :]
    try:
        header = json.loads(data[8 : 8 + length].tobytes())
        arrays, expected = {}, 0
        for name, entry in header.items():
            dtype, shape, (start, end) = np.dtype(_TYPES[entry["dtype"]]), tuple(entry["shape"]), entry["data_offsets"]
            if min(shape) < 0 or start != expected or end - start != math.prod(shape) * dtype.itemsize or end > len(body):
                raise ValueError(f"array {name!r} does not fit")
            arrays[str(name)] = body[start:end].view(dtype).reshape(shape)
            expected = end
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"the header is damaged ({error})") from None
    if expected != len(body):
        raise ValueError(f"{len(body)} bytes follow the header where {expected} were written")
    return arrays
