"""What all proofs share."""

from __future__ import annotations

import pytest

from minikv import layers
from minikv.caches import residual


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """Short texts take several blocks of queries and several chunks of a replay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "_QUERY_BLOCK", 8)
        patch.setattr(residual, "_CHUNK", 8)
        yield
