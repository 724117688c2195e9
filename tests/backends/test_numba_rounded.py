"""bfloat16 and float16 on Numba have the bits that they have on NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from bits import assert_same_bits

pytest.importorskip("numba", reason="needs the extra `numba`, not installed here")

import minikv
from minikv.arithmetic import Bfloat16, Float16
from minikv.backends import get_backend
from minikv.backends.numba_rounded import PANEL

pytestmark = pytest.mark.backends

NUMPY = {arithmetic.name: arithmetic for arithmetic in (Bfloat16(), Float16())}
SPECIAL = [0.0, -0.0, 1.0, -1.5, 2.0**-14, -(2.0**-24), 2.0**-133, 65504.0, -65504.0, 3e38]


def products(arithmetic, x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return np.asarray(arithmetic.linear(x, arithmetic.weight(matrix, "w")))


@pytest.mark.parametrize("name", NUMPY)
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e3])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 1, 5), (3, 77, PANEL + 1), (9, 64, 3)])
def test_products_have_the_bits_of_numpys(name, scale, rows, inputs, outputs):
    rng = np.random.default_rng(rows)
    x = (rng.normal(size=(rows, inputs)) * scale).astype(np.float32)
    matrix = rng.normal(size=(outputs, inputs)).astype(np.float32)
    ours = products(get_backend("numba", name), x, matrix)
    assert_same_bits(ours, products(NUMPY[name], x, matrix))


@pytest.mark.parametrize("name", NUMPY)
def test_each_product_of_special_numbers_is_numpys_and_so_is_what_leaves_the_format(name):
    row = np.float32([SPECIAL]).T
    ours = products(get_backend("numba", name), row, row)
    expected = products(NUMPY[name], row, row)
    assert_same_bits(ours, expected)
    assert np.isinf(expected).any()
    infinite = np.float32([[65504.0, 3e38, -3e38]]), np.float32([[65504.0, 3e38, 3e38]])
    nothing = products(get_backend("numba", name), *infinite)
    assert np.isnan(nothing).all()
    assert np.isnan(products(NUMPY[name], *infinite)).all()


@pytest.mark.parametrize("name", NUMPY)
def test_a_model_has_the_bits_of_numpys_and_another_order_has_not(name):
    config = minikv.tiny_config()
    ours, numpys, exact = (
        minikv.random_model(config, 3, *how).logits(range(20))
        for how in ((name, 1.0, "numba"), (name, 1.0, "numpy"), ("exact", 1.0, "numba"))
    )
    assert_same_bits(ours, numpys)
    assert (np.asarray(ours) != exact).any()
