"""Cache policies by name, as on the command line."""

from __future__ import annotations

from ..caches import Cache, make_cache
from ..decoder import Weights
from ..errors import InputError


def policy_cache(name: str, weights: Weights, budget: int = 128, **parameters: object) -> Cache:
    """An empty cache from a policy's name; ``residual`` may name its checkpoints.

    ``residual:every``, ``residual:embedding``, ``residual:tokens``, ``residual:5`` (every fifth
    layer), ``residual:0+10+20`` (a set). Any of them may end in a budget of its own: ``window@64``.
    Other parameters of the policy come by their names.
    """
    policy, _, own_budget = name.partition("@")
    policy, _, checkpoints = policy.partition(":")
    if own_budget and not own_budget.isdecimal():
        raise InputError(f"policy {name!r}, expected POLICY@BUDGET, as in residual:every@128")
    if checkpoints and policy != "residual":
        raise InputError(f"policy {name!r}: only residual takes checkpoints, as in residual:every")
    given = dict(parameters)
    if policy not in ("full", "none"):
        given["budget"] = int(own_budget or budget)
    if checkpoints:
        given["checkpoints"] = _checkpoints(checkpoints)
    return make_cache(policy, weights, **given)


def _checkpoints(text: str) -> str | int | list[int]:
    """``every`` and the like, a number, or a set of numbers with ``+`` between them."""
    parts = text.split("+")
    if not all(part.isdecimal() for part in parts):
        return text
    numbers = [int(part) for part in parts]
    if len(numbers) > 1:
        return numbers
    return numbers[0]
