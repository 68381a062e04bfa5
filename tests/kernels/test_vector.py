"""Every instruction set: the same integers, no access beyond an array, and AVX2 without AVX-512."""

from __future__ import annotations

import numpy as np
import pytest
from builders.kernels import each_instruction_set, has_avx2, needs_linux, needs_vnni, run_python, unit_rows, worlds
from hypothesis import given, settings

from colbert_core.kernels import AMX, BLOCK, PORTABLE, VNNI, building, instruction_set, scoring


@needs_vnni
@given(world=worlds)
@settings(max_examples=40)
def test_each_instruction_set_give_the_same_integers(world):
    rows, vectors = world.byte_rows(-(-world.n_centroids // 4) * 4), unit_rows(world.rng, world.n_tokens, world.dim)
    results = []
    for isa in (PORTABLE, VNNI, AMX) if instruction_set() is AMX else (PORTABLE, VNNI):
        shape = (len(world.blocks), len(rows), BLOCK)
        shorts, bytes_, nearest = np.empty(shape, np.int16), np.empty(shape, np.uint8), np.empty(len(vectors), np.int32)
        query = world.blocks, world.scales, world.starts
        scoring.score_centroids(isa, rows, np.float32(1 / 127), *query, np.empty((16, BLOCK), np.int32), shorts, bytes_)
        building.nearest_rows(isa, vectors, rows, nearest)
        results.append((shorts.tolist(), bytes_.tolist(), nearest.tolist()))
    assert all(result == results[0] for result in results)


@needs_linux
@each_instruction_set
@pytest.mark.parametrize("at_end", [True, False], ids=["at the end", "at the start"])
def test_no_kernel_touches_memory_beyond_its_arrays(isa, at_end):
    code = f"from builders import kernels; kernels.check_the_ends_of_memory({type(isa).__name__!r}, at_end={at_end})"
    assert run_python(code).strip() == "done"


@needs_linux
@pytest.mark.parametrize("touch", ["array[-1:].ctypes.data + 4", "array.ctypes.data - 4"], ids=["after", "before"])
def test_a_guard_page_ends_the_process_that_touches_it(touch):
    """Else the tests above would show nothing."""
    code = f"""
import ctypes, numpy as np
from builders.kernels import Guarded
array = Guarded(at_end={"+" in touch}).given(np.arange(9, dtype=np.float32))
print(ctypes.c_float.from_address(array.ctypes.data + 8).value, flush=True)
ctypes.c_float.from_address({touch}).value
"""
    with pytest.raises(AssertionError, match=r"ended with -(11|10|7):\s+2.0"):
        run_python(code)


HASWELL = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+avx2,+avx,+fma,+bmi,+bmi2,+lzcnt,+popcnt,+f16c,+sse4.2,+sse4.1,+ssse3,+sse3",
}


@pytest.mark.slow  # a process that compiles every kernel
@pytest.mark.skipif(not has_avx2(), reason="this processor has no AVX2")
def test_the_portable_kernels_work_on_a_processor_with_avx2(tmp_path):
    code = "from builders import kernels; kernels.check_on_avx2()"
    assert run_python(code, NUMBA_CACHE_DIR=str(tmp_path), **HASWELL).strip().endswith("done")
