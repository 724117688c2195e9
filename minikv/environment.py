"""What float32 results depend on: NumPy, its BLAS, kernel and threads, SIMD, Python, CPU."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np


def environment() -> dict[str, Any]:
    """What float32 results depend on, by name, for a program or a table.

    The kernel, and the threads that are really used, are known where threadpoolctl is installed.
    Not every build of NumPy tells of its BLAS or SIMD levels: what it leaves out is ``"unknown"``,
    or an empty list.

    Returns
    -------
    dict
        ``numpy``, ``blas``, ``kernel``, ``python``, ``platform``, ``cpu``: str; ``threads``: int;
        ``simd``: list of str.
    """
    build: Any = np.show_config(mode="dicts")
    blas = _described(build.get("Build Dependencies", {}).get("blas", {}))
    simd = build.get("SIMD Extensions", {})
    return {
        "numpy": np.__version__,
        "blas": blas,
        "kernel": "unknown: threadpoolctl is not installed",
        "threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        **_loaded_blas(),
        "simd": [*simd.get("baseline", ()), *simd.get("found", ())],
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
    }


def _described(blas: dict[str, Any]) -> str:
    """Name and version of the BLAS that NumPy was built with."""
    name = blas.get("name", "unknown")
    return f"{name} {blas.get('version', '')}".strip()


def _loaded_blas() -> dict[str, Any]:
    """What threadpoolctl knows of the BLAS in this process."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return {}
    loaded = [library for library in threadpool_info() if library["user_api"] == "blas"]
    # Other libraries may have loaded a BLAS of their own; NumPy's lies beside NumPy.
    own = [library for library in loaded if "numpy" in library["filepath"].lower()]
    unknown = "unknown: threadpoolctl does not know this BLAS"
    if not loaded:
        return {"kernel": unknown}
    library = (own or loaded)[0]
    return {
        "blas": f"{library['internal_api']} {library['version']}",
        "kernel": library.get("architecture") or unknown,
        "threads": library["num_threads"],
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    if models:
        return models[0]
    return platform.processor() or "unknown"
