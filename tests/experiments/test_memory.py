"""What memory measures and what it counts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from experiments.toys import FAMILIES, tiny

import minikv
from minikv.experiments import memory

# Wide and long enough that arrays outweigh the interpreter's own objects, which tracemalloc counts.
ROOMY = {
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "head_dim": 16,
    "max_position_embeddings": 1024,
}


KEPT = ("every", "2", "5", "embedding")


def watch(turns: int, kept: tuple[str, ...], **family) -> list[dict]:
    """Memory of turns of 80 tokens."""
    rng = np.random.default_rng(0)
    said = [(rng.integers(0, 97, 64).tolist(), rng.integers(0, 97, 16).tolist())] * turns
    settings = ["full", *(f"residual:{checkpoints}@64" for checkpoints in kept)]
    return memory.memory(tiny("float32", **ROOMY | family), said, settings)


@pytest.fixture(scope="module")
def watched() -> list[dict]:
    return watch(10, KEPT)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_allocates_less_than_it_holds_or_peaks_below_what_it_allocates(family):
    types = FAMILIES[family].get("layer_types", ()) * 2
    window = 100 if types else None
    for row in watch(4, ("2",), model_type=family, layer_types=types, sliding_window=window):
        assert row["bytes"] <= row["allocated"], row
        # A turn's first call has 77 tokens, and the MLP's gate and up are there at once.
        working = 77 * 2 * ROOMY["intermediate_size"] * 4
        assert row["peak"] >= row["bytes"] + working, row


@pytest.mark.slow
def test_residual_grows_by_its_checkpoints_alone_and_full_by_keys_and_values(watched):
    config = minikv.tiny_config(**ROOMY)
    kept = {"every": 6, "2": 3, "5": 2, "embedding": 1}
    for setting in {row["setting"] for row in watched}:
        rows = [row for row in watched if row["setting"] == setting and row["turn"] >= 2]
        each = config.kv_bytes_per_token()
        if setting != "full":
            checkpoint = kept[setting.removeprefix("residual:").removesuffix("@64")]
            each = checkpoint * config.residual_bytes_per_token()
            # what is allocated, less checkpoints in chunks of 256 tokens, does not grow
            flat = [r["allocated"] - math.ceil(r["tokens"] / 256) * 256 * each for r in rows]
            assert max(flat) - min(flat) < 0.02 * rows[-1]["allocated"] + 10_000, setting
        for before, after in itertools.pairwise(rows):
            assert after["bytes"] - before["bytes"] == 80 * each, setting
