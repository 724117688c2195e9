"""One pass fills many caches, and policies go by name."""

from __future__ import annotations

import pytest
from experiments.toys import texts, tiny

import minikv
from minikv import experiments
from minikv.caches import evicting
from minikv.errors import InputError


def test_one_pass_fills_every_cache_as_a_pass_of_its_own_does():
    model, ids = tiny(), texts(1, 30)["text 0"]
    names = [*evicting(), "full", "none", *(f"residual:{kept}" for kept in ("every", "embedding"))]
    together = [experiments.policy_cache(name, model.weights, 8) for name in names]
    logits = experiments.fill(model.weights, together, ids)
    for name, cache in zip(names, together, strict=True):
        alone = experiments.policy_cache(name, model.weights, 8)
        assert logits.tobytes() == model.forward([ids], [alone])[0].tobytes()
        tensors, metadata = cache.state()
        expected, expected_metadata = alone.state()
        assert metadata == expected_metadata
        assert {key: array.tobytes() for key, array in tensors.items()} == {
            key: array.tobytes() for key, array in expected.items()
        }, name


def test_only_empty_caches_share_a_pass():
    model = tiny()
    cache = model.new_cache()
    model.forward([[1, 2]], [cache])
    with pytest.raises(InputError, match="empty"):
        experiments.fill(model.weights, [model.new_cache(), cache], [3])


@pytest.mark.parametrize(
    ("name", "policy", "parameters"),
    [
        ("full", "full", {}),
        ("none@5", "none", {}),
        ("window", "window", {"budget": 8}),
        ("window@5", "window", {"budget": 5}),
        ("residual", "residual", {"budget": 8, "checkpoints": [0]}),
        ("residual:every", "residual", {"budget": 8, "checkpoints": [0, 1]}),
        ("residual:tokens", "residual", {"budget": 8, "checkpoints": "tokens"}),
        ("residual:2@3", "residual", {"budget": 3, "checkpoints": [0]}),
        ("residual:0+1", "residual", {"budget": 8, "checkpoints": [0, 1]}),
    ],
)
def test_a_policy_is_named_with_its_checkpoints_and_budget(name, policy, parameters):
    cache = experiments.policy_cache(name, tiny().weights, 8)
    assert cache.policy == policy
    assert cache.parameters.items() >= parameters.items()


@pytest.mark.parametrize("name", ["window:2", "residual@x", "lru", "residual:some", "residual:0+x"])
def test_a_policy_that_is_misnamed_is_refused(name):
    with pytest.raises(minikv.MinikvError):
        experiments.policy_cache(name, tiny().weights, 8)
