"""Which tokens may come, and how likely: minikv beside transformers' processors of logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minikv.generation import at_least, candidates, highest, nucleus, penalised

torch = pytest.importorskip("torch", reason="needs torch, not installed here")
transformers = pytest.importorskip("transformers", reason="needs transformers, not installed here")
processors = pytest.importorskip("transformers.generation.logits_process")

pytestmark = pytest.mark.peers


def ours(logits, said, settings) -> np.ndarray:
    """Probabilities of all tokens, ``(V,)``."""
    changed = penalised(logits, said, settings["repetition_penalty"])
    ids, p = candidates(changed, settings["temperature"])
    ids, p = highest(ids, p, settings["top_k"])
    ids, p = nucleus(ids, p, settings["top_p"])
    ids, p = at_least(ids, p, settings["min_p"])
    found = np.zeros(len(logits))
    found[ids] = p
    return found


def theirs(logits, said, settings) -> np.ndarray:
    """The same by transformers, in the order in which its `generate` applies them."""
    chain = [
        processors.RepetitionPenaltyLogitsProcessor(settings["repetition_penalty"]),
        processors.TemperatureLogitsWarper(settings["temperature"]),
        processors.TopKLogitsWarper(settings["top_k"]),
        processors.TopPLogitsWarper(settings["top_p"]),
        processors.MinPLogitsWarper(settings["min_p"]),
    ]
    scores = torch.tensor(logits[None])
    for process in chain:
        scores = process(torch.tensor([said]), scores)
    return torch.softmax(scores, dim=-1)[0].numpy()


@given(
    seed=st.integers(0, 2**32 - 1),
    said=st.lists(st.integers(0, 49), min_size=1, max_size=12),
    settings=st.fixed_dictionaries(
        {
            "repetition_penalty": st.sampled_from([1.0, 1.3, 2.0, 0.7]),
            "temperature": st.sampled_from([0.3, 1.0, 2.5]),
            "top_k": st.integers(1, 60),
            "top_p": st.floats(0.05, 0.999),  # nearer to 1 what is missing is rounding's
            "min_p": st.floats(0.0, 1.0),
        }
    ),
)
def test_the_same_tokens_may_come_and_as_likely_as_in_transformers(seed, said, settings):
    logits = 3 * np.random.default_rng(seed).standard_normal(50)  # float64, no two of them equal
    found, expected = ours(logits, said, settings), theirs(logits, said, settings)
    assert ((found > 0) == (expected > 0)).all()
    # Of two sums of 50 exponentials in float64, each rounded, in orders of their own.
    assert np.abs(found - expected).max() <= 2 * 60 * 2.0**-52


@pytest.mark.parametrize(
    "changed", ["repetition_penalty", "temperature", "top_k", "top_p", "min_p"]
)
def test_each_setting_makes_a_difference(changed):
    """The control: with another value of one setting, the probabilities are others."""
    logits = 3 * np.random.default_rng(0).standard_normal(50)
    said = np.argsort(-logits)[:3].tolist()
    settings = {
        "repetition_penalty": 1.3,
        "temperature": 1.0,
        "top_k": 20,
        "top_p": 0.9,
        "min_p": 0.02,
    }
    other = {
        "repetition_penalty": 2.0,
        "temperature": 2.0,
        "top_k": 2,
        "top_p": 0.2,
        "min_p": 0.9,
    }
    expected = theirs(logits, said, settings)
    differing = ours(logits, said, settings | {changed: other[changed]})
    assert np.abs(differing - expected).max() > 1e-3
