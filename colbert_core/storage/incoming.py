"""Files that came from others, read so that none can hang, run code, or ask for more memory than it is large.

What is wrong with a file is a ValueError in words; the caller knows whose file it is and what to do.
"""

from __future__ import annotations

import ast
import json
import math
import stat
import zipfile
from pickletools import genops
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

# Of JSON that says how something was made. Parsed it takes up to twenty times as much memory.
_LARGEST_JSON = 2**26
# Of a .npy file; NumPy's own limit.
_LONGEST_HEADER = 10_000
# The number that a file of torch.save begins with in its format from before version 1.6, which is no zip file.
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
# So many of anything are no burden; the version of that format is 1001.
_SMALL = 2**12


def check_regular(path: Path) -> int:
    """Make sure that a path leads to a regular file, and return its size: opening a pipe would wait for ever.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: something else is there.
    """
    try:
        status = path.stat()
    except ValueError as error:  # a null character in its name
        raise FileNotFoundError(f"there is no file {str(path)!r:.200} ({error})") from None
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no regular file")
    return status.st_size


def read_json_file(path: Path, most: float = _LARGEST_JSON, encoding: str = "utf-8") -> Any:
    """Return the value in a file of JSON.

    Args:
        path: the file.
        most: bytes that it may have.
        encoding: "utf-8-sig" passes over a byte order mark.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it is no JSON, is nested too deeply, or is too large.
    """
    size = check_regular(path)
    if size > most:
        raise ValueError(f"it has {size} bytes, more than {most:.0f}")
    try:
        return json.loads(path.read_text(encoding=encoding))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def map_npy(path: Path) -> NDArray[Any]:
    """Map the array of a ``.npy`` file, for reading.

    NumPy's own reader asks for as much memory as the header says before it looks whether the file has it.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it is no such file, is cut short, or holds objects.
    """
    size = check_regular(path)
    with path.open("rb") as file:
        dtype, is_fortran, shape = _npy_header(file)
        start = file.tell()
    wanted = math.prod(shape) * dtype.itemsize
    if size - start < wanted:
        raise ValueError(f"it has {size - start} bytes behind its header, where {wanted} belong")
    order: Any = "F" if is_fortran else "C"
    return np.memmap(path, dtype, "r", start, shape, order) if wanted else np.empty(shape, dtype, order)


def _npy_header(file: IO[bytes]) -> tuple[np.dtype[Any], bool, tuple[int, ...]]:
    start = file.read(12)
    n_bytes = {1: 2, 2: 4, 3: 4}.get(start[6] if len(start) == 12 and start[:6] == b"\x93NUMPY" else 0)
    if n_bytes is None:
        raise ValueError("it is no .npy file")
    length = int.from_bytes(start[8 : 8 + n_bytes], "little")
    file.seek(8 + n_bytes)
    text = file.read(min(length, _LONGEST_HEADER))
    if len(text) != length:
        raise ValueError(f"its header has {length} bytes, more than there are or than {_LONGEST_HEADER}")
    try:
        header = ast.literal_eval(text.decode("latin1").strip())
        dtype, is_fortran, shape = np.dtype(header["descr"]), header["fortran_order"], header["shape"]
    except (ValueError, TypeError, KeyError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"its header cannot be read ({error!s:.100})") from None
    if dtype.hasobject or not dtype.itemsize or dtype.kind not in "biufc":
        raise ValueError(f"it holds {dtype!s:.100}, not numbers")
    if not isinstance(is_fortran, bool) or not isinstance(shape, tuple) or len(shape) > 8:
        raise ValueError(f"its header cannot be read (shape {shape!r:.100})")
    if not all(isinstance(n, int) and 0 <= n < 2**62 for n in shape) or math.prod(n or 1 for n in shape) >= 2**62:
        raise ValueError(f"its shape {shape!r:.100} is none that an array has")
    return dtype, is_fortran, shape


def load_torch(path: Path) -> Any:
    """Return what ``torch.save`` wrote, tensors and plain values, on the CPU. Code in it is not run.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it holds more than that, is damaged, or unpacks to more than its own size.
    """
    import torch  # here, so that opening an index of ours does not import it

    size = check_regular(path)
    try:
        _check_counts(path, size)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, and a refusal is one of them
        raise ValueError(f"{type(error).__name__}: {error}") from None
    return content


def check_tensor(tensor: Any) -> Any:
    """Return a tensor if each of its numbers lies in memory by itself: with a stride of 0, one number can be a billion.

    Raises:
        ValueError: it is sparse, of another device, or larger than its memory.
    """
    import torch

    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_nested:
        raise ValueError(f"it holds a tensor of a kind that was not expected ({tensor.layout}, on {tensor.device.type})")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"it holds a tensor of shape {tuple(tensor.shape)} in {tensor.untyped_storage().nbytes()} bytes")
    return tensor


def _check_counts(path: Path, size: int) -> None:
    """Make sure that nothing in a file of torch's counts more than the file has bytes.

    Raises:
        ValueError: a part is packed, or a number says that there is more.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts) or sum(part.file_size for part in parts) > size:
                raise ValueError(f"its parts unpack to more than its {size} bytes")
            pickles = [archive.read(part) for part in parts if part.filename.endswith(".pkl")]
        for pickled in pickles:
            _check_numbers(pickled, size)
        return
    with path.open("rb") as file:
        for _ in range(5):  # magic number, version, system, the object, and keys of what follows
            _check_numbers(file, size)


def _check_numbers(pickled: bytes | IO[bytes], size: int) -> None:
    for operation, argument, _ in genops(pickled):
        if isinstance(argument, int) and abs(argument) > max(size, _SMALL) and argument != _TORCH_MAGIC:
            raise ValueError(f"it says that there are {argument} of something, in a file of {size} bytes ({operation.name})")
