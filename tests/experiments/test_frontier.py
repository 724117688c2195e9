"""Bytes on the frontier are exact, and the paper's points are marked."""

from __future__ import annotations

from experiments.toys import tiny

from minikv.experiments.frontier import frontier


def test_the_frontier_counts_bytes_exactly_and_marks_the_papers_points():
    model = tiny("float32", num_hidden_layers=7)
    rows = {row["checkpoints"]: row for row in frontier(model, evicted=16, repeats=1)}
    residual, kv = 24 * 4, 7 * 2 * 2 * 6 * 4
    expected = {
        "K/V": kv,
        "every": 7 * residual,
        "2": 4 * residual,
        "3": 3 * residual,
        "5": 2 * residual,
        "embedding": residual,
        "tokens": 4,
    }
    assert {name: row["bytes"] for name, row in rows.items()} == expected
    assert rows["K/V"]["recompute_seconds"] == 0.0
    assert all(row["step_seconds"] > 0 for row in rows.values())
    marked = {row["paper"]: row["gemma_bytes"] for row in rows.values() if row["paper"]}
    assert sorted(marked.values()) == [5 * 1024, 136 * 1024]
