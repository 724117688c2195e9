"""`compare` takes every policy of core and atlas at once, and its plot tells them apart."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest

import minikv
from minikv.atlas import atlas_policies
from minikv.caches import POLICIES, evicting
from minikv.experiments import plots
from minikv.experiments.compare import compare, summary
from minikv.experiments.policies import policy_cache

NAMES = ["residual:every", *evicting(), *(f"atlas:{name}" for name in atlas_policies())]


@pytest.fixture(autouse=True)
def registry():
    """What is asked for by name is registered, and gone after the test."""
    with patch.dict(POLICIES):
        yield


def test_compare_takes_every_policy_at_once():
    model = minikv.random_model(minikv.tiny_config(), 3, "exact", scale=2.0)
    ids = np.random.default_rng(0).integers(0, 97, 14).tolist()
    rows = summary(compare(model, {"a text": ids}, [6], 3, NAMES))
    found = {row["policy"]: row for row in rows}
    assert list(found) == NAMES
    assert len(found) == 16
    assert [name for name, row in found.items() if row["bits_equal"]] == ["residual:every"]
    assert all(0 <= row["match"] <= 1 for row in rows)


def test_every_policy_has_a_line_of_its_own_and_the_legend_fits():
    pytest.importorskip("matplotlib", reason="plots need the extra `plots`")
    axes = plots.new_figure().subplots()
    points = [(name, budget, number) for number, name in enumerate(NAMES) for budget in (1, 2)]
    plots.lines(axes, points)
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in axes.lines}
    assert len(looks) == len(NAMES)
    axes.figure.canvas.draw()
    legend = axes.get_legend().get_window_extent()
    assert legend.height <= axes.figure.bbox.height


def test_a_policy_of_the_atlas_takes_a_budget_of_its_own_and_parameters():
    weights = minikv.random_model(minikv.tiny_config()).weights
    cache = policy_cache("atlas:trim_kv@9", weights, 4, gate=0.7)
    assert (cache.policy, cache.budget, cache.gate) == ("trim_kv", 9, 0.7)
    assert policy_cache("trim_kv", weights, 4).budget == 4  # registered now, as one's own are
    with pytest.raises(minikv.errors.InputError, match="the atlas has no policy 'nothing'"):
        policy_cache("atlas:nothing", weights)
