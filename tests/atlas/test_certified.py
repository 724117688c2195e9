"""proofs/certified.py: what an oracle's bound certifies, on a random model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import minikv

sys.path.append(str(Path(__file__).parents[2] / "proofs"))
import certified


def test_no_more_is_certified_than_is_the_same_and_pairs_certify_no_less():
    model = minikv.random_model(minikv.tiny_config(), 3, "exact", scale=2.0)
    rng = np.random.default_rng(0)
    texts = {name: rng.integers(0, 97, 12).tolist() for name in ("one", "other")}
    rows = certified.measured(model, texts, 6)
    assert [row["cache"] for row in rows] == list(certified.caches())
    for row in rows:
        assert row["tokens"] == 12
        assert row["certified"] <= row["in pairs"] <= row["same"]
    fine, coarse = (next(r for r in rows if f"of {bits} bits" in r["cache"]) for bits in (8, 3))
    assert fine["off by"] < coarse["off by"]
    assert fine["certified"] > coarse["certified"]


def test_tokens_that_are_off_are_not_certified():
    """The control: a row of logits that names another token, and one that does not."""
    exact = np.array([[1.0, 0.0, -1.0], [1.0, 0.0, -1.0]], np.float32)
    lossy = np.array([[0.0, 1.0, -1.0], [1.1, 0.0, -1.0]], np.float32)
    wrong, right = certified.compared(lossy, exact)
    assert (wrong["same"], wrong["certified"], wrong["in pairs"]) == (False, False, False)
    assert (right["same"], right["certified"], right["in pairs"]) == (True, True, True)


def test_bounds_without_the_exact_run_certify_no_more_than_the_true_move():
    """On a random model; there they do certify something, and less of fewer bits."""
    config = minikv.tiny_config(hidden_size=4, intermediate_size=4, tie_word_embeddings=False)
    model = minikv.random_model(config, 3, "float64")
    rng = np.random.default_rng(0)
    texts = {name: rng.integers(0, 97, 12).tolist() for name in ("one", "other")}
    rows = certified.known_of_last_block(model, texts, 6)
    assert [row["bits"] for row in rows] == list(certified.LAST_BITS)
    for row in rows:
        assert row["tokens"] == 12
        check_known(row)
    for name in ("norms", "intervals"):
        assert rows[0][f"{name}: certified"] > rows[-1][f"{name}: certified"]
        assert rows[0][f"{name}: nothing"] < rows[-1][f"{name}: nothing"]


def check_known(row) -> None:
    """A row of the second table is one of bounds."""
    assert row["certified"] <= row["same"]
    for name in ("norms", "intervals"):
        assert row[f"{name}: exceeded"] == 0
        assert row[f"{name}: moves"] >= row["moves"]
        assert row[f"{name}: certified"] <= row["certified"]
        assert row[f"{name}: certified"] + row[f"{name}: nothing"] <= 1


def test_the_figures_that_the_page_shows_are_of_these_caches():
    figures = json.loads(certified.FILE.read_text(encoding="utf-8"))
    assert [row["cache"] for row in figures["rows"]] == list(certified.caches())
    assert (figures["model"], figures["prompt"]) == (certified.MODEL, certified.PROMPT)
    for row in figures["rows"]:
        assert row["tokens"] == figures["texts"] * certified.FOLLOWING
        assert row["certified"] <= row["in pairs"] <= row["same"]
    last = figures["last block"]
    assert [row["bits"] for row in last] == list(certified.LAST_BITS)
    for row in last:
        assert row["tokens"] == figures["texts"] * certified.LAST_TOKENS
        assert row["norms: certified"] == row["intervals: certified"] == 0  # as the page says
        check_known(row)
