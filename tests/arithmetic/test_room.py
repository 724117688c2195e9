"""Matrices in large blocks of memory: none touches another."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bits import assert_same_bits
from hypothesis import given
from hypothesis import strategies as st

from minikv import shapes
from minikv.arithmetic import Float32, NumpyFloat32
from minikv.arithmetic.room import ALIGNED_BYTES, BLOCK_BYTES, Room
from minikv.config import expected_shapes

SHAPES = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=12)
TYPES = st.sampled_from([np.float32, np.float64, np.uint16])


@given(shapes=SHAPES, dtype=TYPES)
def test_what_is_written_into_one_array_is_in_no_other(shapes, dtype):
    room = Room()
    arrays = [room.empty(shape, dtype) for shape in shapes]
    for number, array in enumerate(arrays):
        array[:] = number
    for number, (array, shape) in enumerate(zip(arrays, shapes, strict=True)):
        assert array.shape == shape
        assert array.dtype == dtype
        assert (array == number).all()
        assert array.ctypes.data % dtype().itemsize == 0
        assert array.flags.c_contiguous
        assert array.flags.writeable
    block = arrays[0].base
    assert all(array.base is block for array in arrays)
    starts = [array.ctypes.data - arrays[0].ctypes.data for array in arrays]
    assert all(start % ALIGNED_BYTES == 0 for start in starts)


def test_large_arrays_touch_no_small_ones_between_them():
    room = Room()
    arrays = [room.empty(shape, np.float64) for shape in [(200, 300), (1, 1), (300, 401)] * 3]
    for number, array in enumerate(arrays):
        array[:] = number
    assert all((array == number).all() for number, array in enumerate(arrays))


def test_what_does_not_fit_opens_a_new_block_and_the_old_one_stays():
    room = Room()
    first = room.empty((1000,), np.float32)
    first[:] = 1
    large = room.empty((BLOCK_BYTES + 1,), np.uint8)
    large[:] = 2
    after = room.empty((10,), np.float32)
    after[:] = 3
    assert large.base is not first.base
    assert (first == 1).all()
    assert (large == 2).all()


def test_the_sums_are_those_of_float32():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 48), dtype=np.float32)
    matrix = rng.standard_normal((33, 48), dtype=np.float32)
    ours, plain = NumpyFloat32(), Float32()
    kept = ours.weight(matrix, "w")
    assert_same_bits(kept, matrix)
    assert not np.shares_memory(kept, matrix)
    assert_same_bits(ours.linear(x, kept), plain.linear(x, plain.weight(matrix, "w")))


def test_matrices_of_an_arithmetic_lie_one_behind_the_other_in_a_block():
    arithmetic = NumpyFloat32()
    kept = [arithmetic.weight(np.ones((5, n), np.float32), "w") for n in (48, 30)]
    assert kept[0].base is kept[1].base
    assert kept[0].base.nbytes == BLOCK_BYTES
    assert 0 < kept[1].ctypes.data - kept[0].ctypes.data < kept[0].nbytes + ALIGNED_BYTES
    apart = Float32().weight(np.ones((5, 48), np.float32), "w")
    assert apart.base is None or apart.base.nbytes < BLOCK_BYTES


def test_a_tied_matrix_is_held_once():
    matrix = np.ones((4, 3), np.float32)
    assert np.shares_memory(NumpyFloat32().weight(matrix, "w", tied=True), matrix)


HUGE = 4 << 20  # bytes from which on NumPy asks for huge pages
PROGRAM = f"""
import re
from pathlib import Path
import numpy as np
from minikv.arithmetic.room import Room

def asks_for_huge_pages(array):
    place = array.ctypes.data + array.nbytes // 2
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        span = re.match("([0-9a-f]+)-([0-9a-f]+) ", line)
        if span:
            inside = int(span[1], 16) <= place < int(span[2], 16)
        elif inside and line.startswith("VmFlags"):
            return "hg" in line.split()

small, large = np.empty({HUGE} - 8192, np.uint8), np.empty({HUGE}, np.uint8)
block = Room().empty((10, 10), np.float32).base
print(asks_for_huge_pages(small), asks_for_huge_pages(large), asks_for_huge_pages(block))
"""


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="no huge pages on this system"
)
def test_a_block_is_asked_huge_pages_for_and_a_small_array_of_its_own_is_not():
    """In a process of its own: memory that was freed before may have been asked for."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.stdout == "False True True\n", done.stderr


def test_the_matrices_of_smollm2_are_smaller_than_what_gets_huge_pages_but_for_the_embedding():
    matrices = expected_shapes(shapes.shape("smollm2-135m"))
    sizes = {name: 4 * math.prod(numbers) for name, numbers in matrices.items()}
    large = [name for name, size in sizes.items() if size >= HUGE]
    assert large == ["model.embed_tokens.weight"]
