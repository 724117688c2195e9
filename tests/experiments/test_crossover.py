"""What a projection and a copy do is counted as it is done, and the roofline follows from it."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from bits import assert_same_bits
from experiments.toys import FAMILIES, tiny

import minikv
from minikv.config import expected_shapes
from minikv.experiments import crossover
from minikv.experiments.crossover import Roofline, Rows, Work, cut, rate_needed
from minikv.shapes import SHAPES, shape


@pytest.mark.parametrize("name", SHAPES)
def test_work_counts_the_matrices_that_a_model_has(name):
    config = shape(name)
    work = Work.of(config)
    block = "model.layers.0."
    sizes = {
        tensor.removeprefix(block).removesuffix(".weight"): math.prod(size)
        for tensor, size in expected_shapes(config).items()
        if tensor.startswith(block) and len(size) == 2
    }
    made = sizes["self_attn.k_proj"] + sizes["self_attn.v_proj"]
    assert work.flops(7) == 2 * 7 * made
    assert work.replay_flops(7) == 2 * 7 * sum(sizes.values())
    assert work.projected(7) - made == 7 * (work.hidden + work.kv)
    assert 2 * work.copied(7) * config.num_hidden_layers == 7 * config.kv_bytes_per_token("float32")


@pytest.mark.parametrize("name", ["gemma-3-4b", "qwen2.5-0.5b", "smollm2-135m"])
def test_what_is_cut_away_is_nothing_that_makes_keys_and_values(name):
    config = shape(name)
    whole = expected_shapes(config)
    for blocks in (False, True):
        small = expected_shapes(cut(config, 2, blocks))
        for index in range(2):
            for part in ("k_proj", "v_proj"):
                tensor = f"model.layers.{index}.self_attn.{part}.weight"
                assert small[tensor] == whole[tensor]
        same = {tensor for tensor in small if small[tensor] == whole[tensor]}
        layer = {tensor for tensor in small if tensor.startswith("model.layers")}
        assert (layer <= same) == blocks


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_made_by_the_decoders_own_projection_and_copied_whole(family):
    model = tiny("float32", num_hidden_layers=3, model_type=family, **FAMILIES[family])
    rows = Rows(model.layers[1], 6)
    k, v = minikv.kv_from_residual(rows.residuals, np.arange(6), model.layers[1])
    assert_same_bits(rows.projected(6)[0], k)
    for copy in (rows.copy, rows.copy_one_by_one):
        for room in rows.room:
            room[:] = 0
        copy(4)
        for room, made in zip(rows.room, (k, v), strict=True):
            assert_same_bits(room[:4], made[:4])
            assert not room[4:].any()


def test_compare_times_each_operation_by_the_clock_that_it_is_given():
    model = tiny("float32")
    ticks = itertools.accumulate([2, 0, 6, 0, 8, 0] * 2, initial=0)
    row = crossover.compare(model, [3], repeats=2, clock=lambda: float(next(ticks)))[0]
    layers = len(model.layers)
    assert row["rows"] == 3
    assert row["copy_seconds"] * layers == 2
    assert row["one_by_one_seconds"] * layers == 6
    assert row["project_seconds"] * layers == 8
    assert row["ratio"] == row["lowest"] == row["highest"] == 4


def test_a_roofline_is_bound_by_memory_or_by_arithmetic():
    work = Work(hidden=8, kv=4, block=100)
    rows = 1000
    slow_memory = Roofline(traffic=1.0, rate=2.0**40, itemsize=4)
    assert slow_memory.project_seconds(work, rows) == 4 * work.projected(rows)
    assert work.least_ratio <= slow_memory.ratio(work, rows)
    slow_arithmetic = Roofline(traffic=2.0**40, rate=1.0, itemsize=4)
    assert slow_arithmetic.project_seconds(work, rows) == work.flops(rows)


def test_at_the_crossover_the_rate_is_the_one_needed():
    work = Work(hidden=8, kv=4, block=100)
    roofline = Roofline(traffic=2.0**40, rate=2.0**20, itemsize=4)
    numbers = roofline.crossover(work, 16) / roofline.itemsize
    assert rate_needed(work, numbers) == roofline.rate
    assert rate_needed(work, numbers, ratio=0.25) == 4 * roofline.rate
    assert rate_needed(work, numbers, replay=True) > roofline.rate


@pytest.mark.parametrize(
    ("ratios", "first"),
    [([2.0, 0.9, 0.5], 50), ([2.0, 0.9, 1.1], None), ([0.9, 0.9, 0.9], 1), ([2.0, 1.0, 0.9], 500)],
)
def test_projecting_wins_from_where_it_never_loses_again(ratios, first):
    rows = [{"rows": n, "ratio": ratio} for n, ratio in zip((1, 50, 500), ratios, strict=True)]
    assert crossover.crossing(rows) == first


def test_this_machine_does_something_in_a_second(monkeypatch):
    monkeypatch.setattr(crossover, "COPIED", 2**16)
    monkeypatch.setattr(crossover, "PRODUCT", (8, 16, 16))
    roofline = crossover.measured(repeats=3, clock=time.perf_counter)
    assert 0 < roofline.traffic < math.inf
    assert 0 < roofline.rate < math.inf


def test_a_replay_runs_every_block_of_a_whole_model(monkeypatch):
    calls = []
    monkeypatch.setattr(crossover, "forward", lambda weights, ids, logits: calls.append(ids[0]))
    ticks = itertools.count(step=6.0)
    assert (
        crossover.replay_seconds(tiny("float32"), 5, 1, lambda: next(ticks)) == 3.0
    )  # of 2 layers
    assert [len(ids) for ids in calls] == [5, 5]
