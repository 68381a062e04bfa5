"""Whether a file holds exactly the IndexIVFPQ that ``IVFPQ.build`` writes: FAISS believes what a file says of itself.

The layout is that of ``write_index`` in FAISS's ``index_write.cpp``: numbers are little-endian, and an array has its length, in
64 bits, before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.storage.incoming import check_regular

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def check_faiss_file(path: Path, *, dim: int, n_tokens: int, nlist: int, m: int, nbits: int) -> None:
    """Make sure that a file holds an IndexIVFPQ of these settings over so many vectors, and nothing else.

    Every number in it is compared with what it must be, but those of the lists, of which the sum and the tokens are checked.

    Args:
        path: the file.
        dim: components of a vector.
        n_tokens: number of vectors.
        nlist: number of lists.
        m: number of parts of a vector.
        nbits: bits of a part's code.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.
    """
    reader = _Reader(path)
    for _ in ("the index", "its quantizer"):
        is_index = not reader.place
        reader.expect(b"IwPQ" if is_index else b"IxF2")
        reader.expect_numbers("<i4", dim)
        reader.expect_numbers("<i8", n_tokens if is_index else nlist)
        reader.take("<i8", 2)  # always 2**20, and not used
        reader.expect(b"\1")  # trained
        reader.expect_numbers("<i4", 1)  # the metric: L2
        if is_index:
            reader.expect_numbers("<u8", nlist)
            reader.take("<u8", 1)  # nprobe, which every search gives
    reader.expect_floats(nlist * dim)
    reader.expect(b"\0" * 9)  # no map of the vectors
    reader.take("<u1", 1)  # by_residual
    code_size = -(-m * nbits // 8)
    reader.expect_numbers("<u8", code_size, dim, m, nbits)
    reader.expect_floats(dim * 2**nbits)
    reader.expect(b"ilar")
    reader.expect_numbers("<u8", nlist, code_size)
    sizes = reader.list_sizes(nlist)
    if int(sizes.max(initial=0)) > n_tokens or int(sizes.sum(dtype=np.uint64)) != n_tokens:
        raise ValueError(f"its lists have {sizes.sum(dtype=np.uint64)} vectors, not {n_tokens}")
    for size in sizes.tolist():
        reader.take("|u1", size * code_size)
        tokens = reader.take("<i8", size)
        if size and not 0 <= int(tokens.min()) <= int(tokens.max()) < n_tokens:
            raise ValueError(f"a list names vector {int(tokens.max())} of {n_tokens}")
    if reader.place != len(reader.data):
        raise ValueError(f"{len(reader.data) - reader.place} bytes follow where it ends")


class _Reader:
    """Reads a mapped file from its beginning to its end.

    Attributes:
        data: *Shape:* (n_bytes,), uint8.
        place: of the next byte.
    """

    def __init__(self, path: Path) -> None:
        self.data: NDArray[np.uint8] = np.memmap(path, np.uint8, "r") if check_regular(path) else np.empty(0, np.uint8)
        self.place = 0

    def take(self, dtype: str, n: int) -> NDArray[Any]:
        """The next ``n`` numbers."""
        n_bytes = n * np.dtype(dtype).itemsize
        if n_bytes > len(self.data) - self.place:
            raise ValueError(f"it is cut short: {n_bytes} bytes belong at byte {self.place}")
        taken = self.data[self.place : self.place + n_bytes].view(dtype)
        self.place += n_bytes
        return taken

    def expect(self, wanted: bytes) -> None:
        """Take these bytes."""
        found = self.take("|u1", len(wanted)).tobytes()
        if found != wanted:
            raise ValueError(f"at byte {self.place - len(wanted)} it has {found!r} where {wanted!r} belongs")

    def expect_numbers(self, dtype: str, *wanted: int) -> None:
        """Take these numbers."""
        found = self.take(dtype, len(wanted)).tolist()
        if found != list(wanted):
            raise ValueError(f"before byte {self.place} it has {found} where {list(wanted)} belong")

    def expect_floats(self, n: int) -> None:
        """Take an array of ``n`` finite float32."""
        self.expect_numbers("<u8", n)
        if not np.isfinite(self.take("<f4", n).astype(np.float32)).all():
            raise ValueError("a centroid is not finite")

    def list_sizes(self, nlist: int) -> NDArray[np.uint64]:
        """Take the sizes of all lists: as they are, or, where most are empty, as pairs of a list and its size."""
        kind = self.take("|u1", 4).tobytes()
        (length,) = self.take("<u8", 1).tolist()
        sizes = np.zeros(nlist, np.uint64)
        if kind == b"full" and length == nlist:
            sizes[:] = self.take("<u8", nlist)
        elif kind == b"sprs" and length <= 2 * nlist and length % 2 == 0:
            lists, filled = self.take("<u8", length).reshape(-1, 2).T
            if len(lists) and (int(lists.max()) >= nlist or (lists[1:] <= lists[:-1]).any()):
                raise ValueError("its lists do not follow each other")
            sizes[lists.astype(np.int64)] = filled
        else:
            raise ValueError(f"it has {length} lists ({kind!r}), not {nlist}")
        return sizes
