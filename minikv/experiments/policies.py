"""Cache policies by name, as on the command line."""

from __future__ import annotations

import importlib
import sys

from ..caches import POLICIES, Cache, make_cache, register
from ..decoder import Weights
from ..errors import InputError


def policy_cache(name: str, weights: Weights, budget: int = 128, **parameters: object) -> Cache:
    """An empty cache from a policy's name; ``residual`` may name its checkpoints.

    ``residual:every``, ``residual:embedding``, ``residual:tokens``, ``residual:5`` (every fifth
    layer), ``residual:0+10+20`` (a set). Any of them may end in a budget of its own: ``window@64``.
    ``module:Class`` is a policy of your own, imported from the folder you are in, and
    ``atlas:cake`` one of the atlas. Other parameters come by their names.
    """
    policy, _, own_budget = name.partition("@")
    policy, _, checkpoints = policy.partition(":")
    if checkpoints and policy not in POLICIES:
        policy = own_policy(policy, checkpoints)
        checkpoints = ""
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


def own_policy(module: str, name: str) -> str:
    """Register a class of a module that Python finds, or that lies in this folder; its name.

    The module ``atlas`` is the atlas, whose policies go by their own names.

    Raises
    ------
    InputError
        If there is no such module or class, or importing it fails.
    CacheError
        If the class is no policy.
    """
    if module == "atlas":
        from ..atlas import policy_named

        return register(policy_named(name)).policy
    given = f"policy {f'{module}:{name}'!r}"
    before = list(sys.path)
    sys.path.insert(0, "")
    try:
        policy = getattr(importlib.import_module(module), name)
    except AttributeError:
        raise InputError(f"{given}: {module} has no {name}") from None
    except Exception as error:
        raise InputError(f"{given}: importing {module} fails: {error!r:.200}") from None
    finally:
        sys.path[:] = before
    return register(policy).policy


def _checkpoints(text: str) -> str | int | list[int]:
    """``every`` and the like, a number, or a set of numbers with ``+`` between them."""
    parts = text.split("+")
    if not all(part.isdecimal() for part in parts):
        return text
    numbers = [int(part) for part in parts]
    if len(numbers) > 1:
        return numbers
    return numbers[0]
