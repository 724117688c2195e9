"""Bytes counted at a shape are the paper's, a cache's and a configuration's."""

from __future__ import annotations

from experiments.toys import tiny

import minikv
from minikv.experiments import accounting


def test_accounting_reproduces_the_papers_bytes_at_gemma_3_4b():
    kv, one = (
        accounting.shape_bytes("gemma-3-4b", "K/V"),
        accounting.shape_bytes("gemma-3-4b", "embedding"),
    )
    assert (kv, one) == (136 * 1024, 5 * 1024)  # the paper's 136 KB and 5 KB
    assert accounting.shape_bytes("gemma-3-4b", "every") == 34 * one
    assert accounting.shape_bytes("gemma-3-4b", "tokens") == 4
    for megabyte in (10**6, 2**20):
        paper = accounting.paper_budget(megabyte)
        assert abs(paper["tokens"] * kv - 103 * megabyte) <= kv / 2
        held = paper["budget"] * kv + paper["tokens"] * one
        assert held <= 42 * megabyte < held + kv
    rows, _ = accounting.accounting("gemma-3-4b", [paper["budget"]])
    assert rows[-2]["bytes"] == paper["tokens"] * kv
    assert rows[-1]["bytes"] == held


def test_accounting_counts_as_a_cache_and_a_configuration_do():
    config = minikv.ModelConfig(49152, 576, 1536, 30, 9, 3, 64)
    kv, one = (accounting.shape_bytes("smollm-135m", kept) for kept in ("K/V", "embedding"))
    assert kv == config.kv_bytes_per_token("bfloat16")
    assert one == config.residual_bytes_per_token("bfloat16")
    model = tiny("float32")
    kv = accounting.shape_bytes(model.config, "K/V")
    for kept in ("every", 2, "embedding"):
        cache = model.new_cache("residual", budget=5, checkpoints=kept)
        model.forward([list(range(9))], [cache])
        assert cache.nbytes == 2 * (
            5 * kv + 9 * accounting.shape_bytes(model.config, kept)
        )  # float32
