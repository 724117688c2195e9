"""What all proofs share."""

from __future__ import annotations

import pytest

from minikv.arithmetic import Arithmetic
from minikv.caches import residual


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """Short texts take several blocks of queries and several chunks of a replay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Arithmetic, "query_block", 8)
        patch.setattr(residual, "_CHUNK", 8)
        yield
