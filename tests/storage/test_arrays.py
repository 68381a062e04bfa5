"""Arrays as bytes: what safetensors reads and writes, and damage that is noticed."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from colbert_core.storage.arrays import dump_arrays, load_arrays

ARRAYS = {
    "b": np.arange(6, dtype=np.uint16).reshape(3, 2),
    "a": np.arange(3, dtype=np.int64),
    "d": np.arange(5, dtype=np.uint8),
    "c": np.ones((2, 2), np.float32),
    "e": np.empty((0, 4), np.float16),
    "f": np.arange(3, dtype=np.int32),
    "g": np.arange(3, dtype=np.uint32),
}


def as_bytes(arrays):
    return b"".join(dump_arrays({name: [array] for name, array in arrays.items()}))


def test_arrays_in_parts_are_the_same_bytes_as_whole_and_safetensors_reads_them():
    whole = as_bytes(ARRAYS)
    assert b"".join(dump_arrays({name: [array[:1], array[1:]] for name, array in ARRAYS.items()})) == whole
    for read in (load_safetensors(whole), load_arrays(np.frombuffer(whole, np.uint8))):
        assert read.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            assert read[name].dtype == array.dtype
            np.testing.assert_array_equal(read[name], array)


def test_what_safetensors_writes_is_read():
    read = load_arrays(np.frombuffer(save_safetensors(ARRAYS), np.uint8))
    np.testing.assert_array_equal(read["b"], ARRAYS["b"])


def test_arrays_start_at_multiples_of_their_item_size():
    data = np.frombuffer(as_bytes(ARRAYS), np.uint8)
    for array in load_arrays(data).values():
        offset = array.__array_interface__["data"][0] - data.__array_interface__["data"][0]
        assert not array.size or offset % array.dtype.itemsize == 0


def test_bytes_cut_short_anywhere_are_refused():
    whole = np.frombuffer(as_bytes(ARRAYS), np.uint8)
    for length in range(len(whole)):
        with pytest.raises(ValueError, match=r"header is damaged|were written"):
            load_arrays(whole[:length])
    with pytest.raises(ValueError, match="were written"):
        load_arrays(np.append(whole, np.uint8(0)))


def test_a_changed_byte_of_the_header_is_refused_or_harmless():
    whole = np.frombuffer(as_bytes(ARRAYS), np.uint8)
    header = int.from_bytes(whole[:8].tobytes(), "little") + 8
    for place in range(header):
        for flip in (1, 2, 64, 255):
            changed = whole.copy()
            changed[place] ^= flip
            try:
                arrays = load_arrays(changed)
            except ValueError:
                continue
            assert sum(array.nbytes for array in arrays.values()) == len(whole) - header
