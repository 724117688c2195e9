"""What tests/ and proofs/ share: Hypothesis profiles, the tiny fixture and the real weights."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

os.environ.setdefault("MINIKV_CHECK_SHAPES", "1")  # before minikv: see minikv/arrays.py
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: one thread each, before NumPy
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # the doctests of minikv/ run without it
    pass
else:
    # No deadlines: the machines that run this differ in speed by an order of magnitude.
    common = {
        "deadline": None,
        "print_blob": True,
        "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
    }
    settings.register_profile("default", max_examples=40, **common)
    settings.register_profile("ci", max_examples=50, derandomize=True, **common)
    settings.register_profile("thorough", max_examples=1000, **common)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# The doctests' collector imports every module; these cannot be without their extra.
collect_ignore_glob = ["*conftest.py"]  # which have no doctests, and one name
if importlib.util.find_spec("numba") is None:
    collect_ignore_glob.append("minikv/backends/numba*.py")

TINY = Path(__file__).parent / "tests" / "fixtures" / "tiny"
REAL = "smollm2-135m-instruct"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-weights",
        action="store_true",
        help=f"fail, instead of skipping, the tests that need `minikv fetch {REAL}`",
    )


def _real_weights() -> tuple[Path | None, str]:
    """The folder of the real model, or None and the reason why there is none."""
    from minikv.errors import FetchError
    from minikv.weights.fetch import resolve

    try:
        return resolve(REAL), ""
    except FetchError as error:
        return None, str(error)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("weights") is None:
        return
    folder, reason = _real_weights()
    if folder is None and item.config.getoption("--require-weights"):
        pytest.fail(f"needs real weights: {reason}", pytrace=False)
    if folder is None:
        pytest.skip(f"needs real weights: {reason}")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Folder of SmolLM2-135M-Instruct; only for tests marked ``weights``."""
    folder, reason = _real_weights()
    assert folder is not None, reason
    return folder


@pytest.fixture(scope="session")
def gemma(request: pytest.FixtureRequest) -> Path:
    """Folder of Gemma 3 270M, which takes 1.1 GB of disk; only for tests marked ``weights``."""
    from minikv.errors import FetchError
    from minikv.weights.fetch import resolve

    try:
        return resolve("gemma-3-270m")
    except FetchError as error:
        missing = pytest.fail if request.config.getoption("--require-weights") else pytest.skip
        missing(f"needs real weights: {error}")


@pytest.fixture(scope="session")
def tiny() -> Path:
    """Folder of the committed toy model, in the layout of a real one."""
    return TINY
