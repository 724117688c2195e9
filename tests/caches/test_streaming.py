"""StreamingLLM: keys that move keep their bits."""

from __future__ import annotations

import numpy as np
from bits import assert_same_bits

import minikv
from minikv.decoder import embed
from minikv.projection import kv_from_residual

EXACT = minikv.random_model(minikv.tiny_config(num_hidden_layers=3), seed=1, arithmetic="exact")
TEXT = np.random.default_rng(0).integers(0, 97, 24).tolist()


def test_truncation_keeps_where_keys_were_made():
    cache = EXACT.new_cache("streaming_llm", budget=6, sinks=2)
    EXACT.forward([TEXT[:10]], [cache])
    cache.truncate(9)
    assert cache.state()[0]["scores.0"][:, 0].tolist() == [0, 1, 6, 7, 8]


def test_streaming_llm_keeps_keys_as_they_were_made():
    """However many steps they have moved: turned again and again they would pile up rounding."""
    cache = EXACT.new_cache("streaming_llm", budget=6, sinks=1)
    for part in (TEXT[:6], *([token] for token in TEXT[6:])):
        EXACT.forward([part], [cache])
    state = cache.state()[0]
    at, made = state["positions.0"][:, 0], state["scores.0"][:, 0].astype(int)
    assert (made <= 6).all()
    assert (made != np.arange(6)).any()
    rows = embed(EXACT.weights, np.array(TEXT)[at])
    assert_same_bits(kv_from_residual(rows, made, EXACT.layers[0])[0], state["k.0"])


def test_keys_that_streaming_llm_has_turned_lie_on_a_grid():
    cache, attended = EXACT.new_cache("streaming_llm", budget=6, sinks=2), []
    update = cache.update

    def spy(layer, *given):
        out = update(layer, *given)
        attended.append(out[1])
        return out

    cache.update = spy
    for part in (TEXT[:10], TEXT[10:11], TEXT[11:12]):
        EXACT.forward([part], [cache])
    assert len(attended) == 3 * EXACT.config.num_hidden_layers
    for keys in attended:
        assert_same_bits(EXACT.arithmetic.settle(keys), keys)
