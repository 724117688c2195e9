"""What float32 depends on is told whatever NumPy was built with."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest

from minikv.environment import environment


def test_environment_names_what_float32_depends_on():
    where = environment()
    assert where["numpy"] == np.__version__
    assert where["threads"] >= 1
    assert where["simd"]
    assert all(where[key] for key in ("blas", "kernel", "python", "platform", "cpu"))


def test_environment_without_threadpoolctl_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert environment()["kernel"] == "unknown: threadpoolctl is not installed"


def without(*path: str) -> dict:
    """What NumPy tells of this build, less one part of it."""
    told = copy.deepcopy(np.show_config(mode="dicts"))
    part = told
    for key in path[:-1]:
        part = part[key]
    del part[path[-1]]
    return told


@pytest.mark.parametrize(
    ("path", "key", "left"),
    [
        (("SIMD Extensions",), "simd", []),
        (("SIMD Extensions", "baseline"), "simd", None),  # s390x, riscv64, armhf
        (("Build Dependencies",), "blas", "unknown"),
        (("Build Dependencies", "blas"), "blas", "unknown"),  # WebAssembly
        (("Build Dependencies", "blas", "name"), "blas", None),
        (("Build Dependencies", "blas", "version"), "blas", None),
    ],
)
def test_environment_leaves_out_what_numpy_does_not_tell(path, key, left, monkeypatch):
    whole = environment()
    told = without(*path)
    monkeypatch.setattr(np, "show_config", lambda mode: told)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    where = environment()
    assert where.keys() == whole.keys()
    if left is not None:
        assert where[key] == left
    for other in ("numpy", "python", "platform", "cpu"):
        assert where[other] == whole[other]
