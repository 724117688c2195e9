"""StreamingLLM: texts longer than the context, and keys that move."""

from __future__ import annotations

import numpy as np
import pytest
from bits import assert_same_bits, same_bits
from feeding import EXACT, LAYERS, TEXT, feed, random_model

from minikv.caches import StreamingLLM
from minikv.decoder import embed
from minikv.errors import CacheError, InputError
from minikv.projection import kv_from_residual
from minikv.rotary import Rotary


def test_it_outgrows_the_context():
    model = random_model(max_position_embeddings=16)
    cache = model.new_cache("streaming_llm", budget=8, sinks=2)
    feed(model, cache, TEXT[:12], 12)
    logits = feed(model, cache, TEXT[12:] * 3, *[1] * 35)
    assert cache.seen == 48
    assert np.isfinite(logits).all()
    again = model.new_cache("streaming_llm", budget=8, sinks=2)
    again.load_state(*cache.state())
    assert_same_bits(feed(model, again, TEXT[:3]), feed(model, cache, TEXT[:3]))


def test_with_the_positions_of_the_text_it_does_not():
    model = random_model(max_position_embeddings=16)
    cache = model.new_cache("streaming_llm", budget=8, sinks=2, reposition=False)
    with pytest.raises(InputError, match="expected at most 16"):
        feed(model, cache, TEXT, *[1] * 23)


def test_truncation_keeps_where_keys_were_made():
    cache = EXACT.new_cache("streaming_llm", budget=6, sinks=2)
    EXACT.forward([TEXT[:10]], [cache])
    cache.truncate(9)
    assert cache.state()[0]["made.0"][:, 0].tolist() == [0, 1, 6, 7, 8]


def test_keys_are_kept_as_they_were_made():
    """However many steps they have moved: turned again and again they would pile up rounding."""
    cache = EXACT.new_cache("streaming_llm", budget=6, sinks=1)
    for part in (TEXT[:6], *([token] for token in TEXT[6:])):
        EXACT.forward([part], [cache])
    state = cache.state()[0]
    positions = state["positions.0"][:, 0]
    made = state["made.0"][:, 0]
    assert (made <= 6).all()
    assert (made != np.arange(6)).any()
    rows = embed(EXACT.weights, np.array(TEXT)[positions])
    assert_same_bits(kv_from_residual(rows, made, EXACT.layers[0])[0], state["k.0"])


def test_where_the_text_counts_keys_are_made_where_they_stand():
    cache = EXACT.new_cache("streaming_llm", budget=6, sinks=1, reposition=False)
    feed(EXACT, cache, TEXT, 6, 1, 1)
    for rows in cache.rows:
        assert_same_bits(rows.numbers["made"], rows.positions)


def test_keys_that_have_been_turned_lie_on_a_grid():
    """What attention reads is settled: settling it again changes nothing."""
    attended = []

    class Watched(StreamingLLM):
        def update(self, layer, positions, residual, k, v):
            found = super().update(layer, positions, residual, k, v)
            attended.append(found[1])
            return found

    cache = Watched(EXACT.weights, budget=6, sinks=2)
    for part in (TEXT[:10], TEXT[10:11], TEXT[11:12]):
        EXACT.forward([part], [cache])
    assert len(attended) == 3 * LAYERS
    assert not same_bits(attended[-1][:6], cache.rows[2].keys)  # some have been turned
    for keys in attended:
        assert_same_bits(EXACT.arithmetic.settle(keys), keys)


def test_beside_the_sinks_there_is_room_for_one_token_at_least():
    cache = StreamingLLM(EXACT.weights, budget=3, sinks=2)
    feed(EXACT, cache, TEXT)
    assert cache.rows[0].positions[:, 0].tolist() == [0, 1, 23]
    with pytest.raises(CacheError, match="budget is 3, expected more than the 3 sinks"):
        StreamingLLM(EXACT.weights, budget=3, sinks=3)


def test_how_far_keys_have_moved_is_looked_up_once_for_all_layers(monkeypatch):
    """Besides, each layer turns a new token's queries and keys."""
    asked = []
    turns = Rotary.__call__

    def watched(self, positions):
        asked.append(len(positions))
        return turns(self, positions)

    cache = EXACT.new_cache("streaming_llm", budget=6, sinks=1)
    EXACT.forward([TEXT[:8]], [cache])
    monkeypatch.setattr(Rotary, "__call__", watched)
    for token in TEXT[8:11]:
        asked.clear()
        EXACT.forward([[token]], [cache])
        assert sorted(asked) == [1] * 2 * LAYERS + [7]
