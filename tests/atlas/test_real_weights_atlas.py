"""SmolLM2: the theorems of the atlas, and how far rounded keys and values move its heads."""

from __future__ import annotations

import numpy as np
import pytest

from minikv import load
from minikv.atlas.quantising import distortion, stored
from minikv.atlas.theorems import THEOREMS
from minikv.verify.texts import real_cases

pytestmark = pytest.mark.weights
MODEL = "smollm2-135m-instruct"
TEXT = (
    "The ferry calls twice a day. In winter the boats come back before the storm, and the "
    "fishermen mend their nets in the long shed behind the church."
)
LAYERS = (0, 7, 15, 22, 29)


@pytest.fixture(scope="module")
def case():
    return real_cases(MODEL)[0]


@pytest.mark.parametrize("theorem", THEOREMS)
def test_a_theorem_of_the_atlas_holds_on_real_weights(theorem, case):
    THEOREMS[theorem].check(case)


@pytest.mark.parametrize("theorem", THEOREMS)
def test_a_control_of_the_atlas_makes_a_difference_on_real_weights(theorem, case):
    assert THEOREMS[theorem].control(case)


@pytest.fixture(scope="module")
def heads():
    """Queries, keys and values of the last token's heads at some layers, float64, with layers."""
    model = load(MODEL)
    _, activations = model.run_with_cache(model.tokenizer.encode(TEXT))
    share = model.config.num_attention_heads // model.config.num_key_value_heads
    found = []
    for number in LAYERS:
        q, k, v = (activations[f"blocks.{number}.attn.hook_{n}"] for n in ("rot_q", "rot_k", "v"))
        for head, asked in enumerate(q[-1].astype(np.float64) * model.config.attention_scale):
            found.append((model.layers[number], asked, k, v, head // share))
    return found


def moved_and_bounds(heads, key_bits: int, value_bits: int) -> np.ndarray:
    """How far each head moves, the bound, and how long its output is; ``(heads, 3)``."""
    rows = []
    for layer, asked, k, v, group in heads:
        coarse_k, coarse_v = stored(k, key_bits, layer), stored(v, value_bits, layer)
        keys, coarse, values, worth = (
            x[:, group].astype(np.float64) for x in (k, coarse_k, v, coarse_v)
        )
        scores = (keys @ asked, coarse @ asked)
        pattern = np.exp(scores[0] - scores[0].max())
        length = float(np.linalg.norm(pattern / pattern.sum() @ values))
        rows.append((*distortion(scores, (values, worth)), length))
    return np.array(rows)


@pytest.mark.parametrize(("key_bits", "value_bits"), [(8, 16), (4, 16), (16, 4), (4, 4), (2, 2)])
def test_no_head_moves_further_than_the_bound(heads, key_bits, value_bits):
    moved, bound, length = moved_and_bounds(heads, key_bits, value_bits).T
    assert len(moved) == 45
    assert (moved <= bound).all()
    assert (moved > 0).all()
    print(
        f"K {key_bits} V {value_bits} bits: moved / length {np.median(moved / length):.3f}, "
        f"bound / moved {np.median(bound / moved):.1f} (medians), "
        f"bound below length {np.mean(bound < length):.0%}"
    )


def test_the_bound_without_the_values_error_does_not_hold(heads):
    """The control: rounded values move outputs though no score moves."""
    moved, bound, _ = moved_and_bounds(heads, 16, 4).T
    assert (moved > 0.01 * bound).all()
    keys_alone = moved_and_bounds(heads, 16, 16)[:, 1]
    assert (moved > keys_alone).all()
