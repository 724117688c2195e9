"""What a decoder keeps between calls: one policy a file, one class a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import CacheError
from .base import Cache
from .evicting import Evicting
from .full import Full
from .h2o import H2O
from .none import NoCache
from .residual import Residual
from .scheduled import Scheduled
from .snapkv import SnapKV
from .streaming_llm import StreamingLLM
from .tova import TOVA
from .window import Window

if TYPE_CHECKING:
    from ..decoder import Weights

POLICIES: dict[str, type[Cache]] = {
    policy.policy: policy
    for policy in (Full, NoCache, Residual, Window, StreamingLLM, H2O, SnapKV, TOVA)
}


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
    if issubclass(POLICIES[policy], Evicting) and "budget" not in parameters:
        raise CacheError(f"cache policy {policy!r} needs budget=N, how many tokens it keeps")
    try:
        return POLICIES[policy](weights, **parameters)
    except TypeError as error:
        where = f"see help(minikv.caches.{POLICIES[policy].__name__})"
        raise CacheError(f"cache policy {policy!r}: {error}; {where}") from None


__all__ = [
    "H2O",
    "POLICIES",
    "TOVA",
    "Cache",
    "Evicting",
    "Full",
    "NoCache",
    "Residual",
    "Scheduled",
    "SnapKV",
    "StreamingLLM",
    "Window",
    "make_cache",
]
