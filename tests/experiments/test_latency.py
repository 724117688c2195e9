"""Latency times what its docstring says, and its verdict follows from the rows."""

from __future__ import annotations

import pytest
from experiments.toys import FAMILIES, tiny

import minikv
from minikv.errors import InputError
from minikv.experiments import latency


def test_latency_runs_each_pair_that_fits_and_refuses_none_at_all():
    model = tiny("float32")
    rows = latency.latency(model, [1, 2], [4, 8], repeats=1, most_tokens=8)
    assert [(row["batch"], row["length"]) for row in rows] == [(1, 4), (1, 8), (2, 4)]
    assert all(row["ratio"] > 0 for row in rows)
    with pytest.raises(InputError, match="tokens"):
        latency.latency(model, [3], [4], most_tokens=8)


def test_latency_reads_no_more_of_a_sliding_block_than_its_window(monkeypatch):
    model = tiny(
        "float32", num_hidden_layers=3, model_type="gemma3_text", **FAMILIES["gemma3_text"]
    )
    seen = []
    attention = model.arithmetic.attention

    def watched(q, k, v, sight, *rest):
        seen.append((int(sight.key_positions[0]), len(k), len(v)))
        return attention(q, k, v, sight, *rest)

    monkeypatch.setattr(model.arithmetic, "attention", watched)
    latency.latency(model, [1], [8], repeats=1)
    assert seen[:3] == [(3, 5, 5), (3, 5, 5), (0, 8, 8)]
    figures = latency.intensity(model.config, 1, 8, 4)
    one_window = latency.intensity(model.config, 1, 5, 4)
    assert figures["read_intensity"] == one_window["read_intensity"]  # a ratio: per token
    assert figures["recompute_intensity"] == round((4 * 24 + 2 * 24 * 24) * 6 / (30 * 24 * 4), 2)


@pytest.mark.parametrize(("kv_heads", "says"), [(2, "could not win"), (8, "could win at most 4")])
def test_the_verdict_reads_the_sign_off_the_rows_and_the_bound_off_the_shape(kv_heads, says):
    config = minikv.tiny_config(num_attention_heads=8, num_key_value_heads=kv_heads)
    slow = {"batch": 1, "length": 4, "ratio": 3.0}
    fast = {"batch": 1, "length": 8, "ratio": 0.5}
    assert "slower everywhere here: 3.0 to 3.0" in latency.verdict(config, [slow])
    assert "faster at batch 1, length 8." in latency.verdict(config, [slow, fast])
    assert says in latency.verdict(config, [slow])
