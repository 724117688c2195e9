"""What all proofs share."""

from __future__ import annotations

import pytest

from minikv.arithmetic import Arithmetic


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """Short texts take several blocks of queries."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Arithmetic, "query_block", 8)
        yield
