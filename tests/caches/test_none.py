"""NoCache: four bytes a token."""

from __future__ import annotations

from feeding import EXACT


def test_bytes_are_those_of_token_ids():
    cache = EXACT.new_cache("none")
    for seen in range(1, 20):
        EXACT.forward([[seen]], [cache])
        assert (cache.seen, cache.stored, cache.nbytes) == (seen, 0, 4 * seen)
