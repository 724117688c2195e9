"""Cache policies by name, and the settings of each that the tests run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from ..decoder import Weights
from ..errors import CacheError
from .base import Cache
from .evicting import Evicting
from .scheduled import Scheduled

POLICIES: dict[str, type[Cache]] = {}
"""The policies that `make_cache` makes, by name."""

Policy = TypeVar("Policy", bound=type[Cache])


def register(policy: Policy) -> Policy:
    """Let `make_cache` make a policy by its name; a decorator, for policies of your own too.

    Raises
    ------
    CacheError
        If it is no subclass of `Cache`, has no name, or another policy has its name.
    """
    if not isinstance(policy, type) or not issubclass(policy, Cache):
        raise CacheError(f"{policy!r:.80} is no cache policy, expected a subclass of Cache")
    name = policy.policy
    if not isinstance(name, str) or not name:
        raise CacheError(f"{policy.__name__} has no name, expected policy = '...' in its body")
    other = POLICIES.get(name)
    if other is not None and other.__qualname__ != policy.__qualname__:
        raise CacheError(f"{other.__name__} is the policy {name!r} already, choose another name")
    POLICIES[name] = policy
    return policy


def evicting() -> dict[str, type[Evicting]]:
    """The policies that drop tokens, by name."""
    return {name: policy for name, policy in POLICIES.items() if issubclass(policy, Evicting)}


@dataclass(frozen=True)
class Example:
    """A policy with parameters."""

    policy: type[Cache]
    parameters: Mapping[str, Any]

    def __str__(self) -> str:
        shown = []
        for name, value in self.parameters.items():
            text = getattr(value, "__name__", None) or repr(value)  # a schedule by its name
            shown.append(f"{name}={text}")
        return f"{self.policy.policy}({', '.join(shown)})"

    def new(self, weights: Weights) -> Cache:
        """An empty cache of this kind."""
        return self.policy(weights, **self.parameters)


def examples(kind: type[Cache] = Cache, budget: int = 5) -> list[Example]:
    """Every example of every policy of a kind, `Scheduled` included: what tests of policies run.

    Examples
    --------
    >>> for example in examples(Evicting)[:2]:
    ...     print(example)
    h2o(budget=5)
    h2o(budget=5, recent=0)
    """
    return [
        Example(policy, parameters)
        for policy in (*POLICIES.values(), Scheduled)
        if issubclass(policy, kind)
        for parameters in policy.examples(budget)
    ]


def make_cache(policy: str | Cache, weights: Weights, **parameters: Any) -> Cache:
    """Make an empty cache by policy name; a `Cache` passes through.

    Examples
    --------
    >>> import minikv
    >>> model = minikv.random_model(minikv.tiny_config(), seed=0)
    >>> make_cache("residual", model.weights, budget=8).nbytes
    0
    """
    if isinstance(policy, Cache) and not parameters:
        return policy
    if not isinstance(policy, str) or policy not in POLICIES:
        raise CacheError(f"cache policy {policy!r} is unknown; choose from {', '.join(POLICIES)}")
    chosen = POLICIES[policy]
    if issubclass(chosen, Evicting) and "budget" not in parameters:
        raise CacheError(f"cache policy {policy!r} needs budget=N, how many tokens it keeps")
    known = [field.name for field in fields(chosen) if field.name != "weights"]
    for name in parameters:
        if name not in known:
            expected = ", ".join(known) or "none"
            raise CacheError(
                f"cache policy {policy!r} has no parameter {name!r}, expected: {expected}"
            )
    return chosen(weights, **parameters)
