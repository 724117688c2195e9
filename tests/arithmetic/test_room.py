"""Matrices in large blocks of memory: none touches another."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from bits import assert_same_bits
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import minikv
from minikv import shapes
from minikv.arithmetic import Float32, NumpyFloat32, room
from minikv.arithmetic.room import (
    ALIGNED_BYTES,
    BLOCK_BYTES,
    Room,
    is_mapped,
)
from minikv.config import expected_shapes
from minikv.weights import save_folder

SHAPES = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=12)
TYPES = st.sampled_from([np.float32, np.float64, np.uint16])


@given(shapes=SHAPES, dtype=TYPES)
def test_what_is_written_into_one_array_is_in_no_other(shapes, dtype):
    ours = Room()
    arrays = [ours.empty(shape, dtype) for shape in shapes]
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
    ours = Room()
    arrays = [ours.empty(shape, np.float64) for shape in [(200, 300), (1, 1), (300, 401)] * 3]
    for number, array in enumerate(arrays):
        array[:] = number
    assert all((array == number).all() for number, array in enumerate(arrays))


def test_what_does_not_fit_opens_a_new_block_and_the_old_one_stays():
    ours = Room()
    first = ours.empty((1000,), np.float32)
    first[:] = 1
    large = ours.empty((BLOCK_BYTES + 1,), np.uint8)
    large[:] = 2
    after = ours.empty((10,), np.float32)
    after[:] = 3
    assert large.base is not first.base
    assert (first == 1).all()
    assert (large == 2).all()


@pytest.mark.parametrize("pages", [1, 2, 7, 1000])
@pytest.mark.parametrize("processors", [1, 3, None, 64])
def test_something_is_written_to_each_page_of_a_piece_by_a_thread_for_each_processor(
    pages, processors, monkeypatch
):
    started = []

    class Counted(threading.Thread):
        def start(self) -> None:
            started.append(self)
            super().start()

    monkeypatch.setattr(room, "Thread", Counted)
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    block = np.full(pages * 4096 - 5, 1, np.uint8)
    room.touch(block)
    assert not block[::4096].any()
    assert len(started) == min(8, processors or 1)
    assert not any(thread.is_alive() for thread in started)


@pytest.mark.parametrize("few", [0, 1])
def test_where_no_thread_can_be_started_nothing_is_written(few, monkeypatch):
    """As in a browser, or where a process may have no more: those that run are waited for."""
    started = []

    class Refused(threading.Thread):
        def start(self) -> None:
            if len(started) == few:
                raise RuntimeError("can't start new thread")
            started.append(self)
            super().start()

    monkeypatch.setattr(room, "Thread", Refused)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    block = np.ones(10 * 4096, np.uint8)
    room.touch(block)
    assert block[::4096].sum() == 10 - 5 * few
    assert not any(thread.is_alive() for thread in started)


def test_each_block_but_the_first_is_touched_16_mib_ahead_of_its_use(monkeypatch):
    touched = []
    monkeypatch.setattr(room, "touch", touched.append)
    large = Room()
    first = large.empty((BLOCK_BYTES,), np.uint8)
    assert touched == []
    arrays = [large.empty((4 << 20,), np.uint8) for _ in range(9)]
    assert not np.shares_memory(arrays[0].base, first)
    starts = [piece.ctypes.data - piece.base.ctypes.data for piece in touched]
    spans = [
        (start >> 20, (start + piece.nbytes) >> 20)
        for start, piece in zip(starts, touched, strict=True)
    ]
    assert spans == [(0, 20), (20, 32), (0, 20)]
    assert touched[1].base is arrays[0].base
    assert touched[2].base is arrays[8].base


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


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("writeable", [False, True])
def test_a_matrix_stays_where_it_is_if_it_is_mapped_and_nobody_can_write_to_it(mapped, writeable):
    matrix = np.ones((4, 3), np.float32)
    if mapped:
        matrix = np.ndarray((4, 3), np.float32, bytearray(48))
    matrix.flags.writeable = writeable
    kept = NumpyFloat32().weight(matrix, "w")
    assert np.shares_memory(kept, matrix) == (mapped and not writeable)
    assert_same_bits(kept, matrix)


@pytest.mark.parametrize("bits", [16, 32])
def test_a_float32_file_s_matrices_stay_in_it_and_others_lie_in_a_block(bits, tmp_path):
    config = minikv.tiny_config()
    tensors = minikv.random_tensors(config, 0)
    folder = save_folder(tmp_path / "model", config, tensors)
    if bits == 16:
        halves = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
        save_file(halves, folder / "model.safetensors")
    layer = minikv.load(folder, backend="numpy", arithmetic="float32").layers[0]
    for matrix in (layer.q_proj, layer.k_proj, layer.o_proj, layer.up_proj, layer.down_proj):
        assert is_mapped(matrix) == (bits == 32)


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
