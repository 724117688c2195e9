"""The entries of the atlas by name: one file a system, and one list of what is not built."""

from __future__ import annotations

import functools
import pkgutil
from importlib import import_module

from ..caches import Cache
from ..errors import InputError
from . import systems
from .entry import Entry, Kind
from .not_built import NOT_BUILT


@functools.cache
def entries() -> dict[str, Entry]:
    """Every entry by name, those of a kind together.

    Examples
    --------
    >>> entries()["lazy_eviction"].title
    'LazyEviction'
    """
    names = sorted(module.name for module in pkgutil.iter_modules(systems.__path__))
    built = [import_module(f"{systems.__name__}.{name}").ENTRY for name in names]
    kinds = list(Kind)
    ordered = sorted([*built, *NOT_BUILT], key=lambda found: (kinds.index(found.kind), found.name))
    return {found.name: found for found in ordered}


def entry_named(name: str) -> Entry:
    """An entry by its name, or an `InputError` that lists them."""
    known = entries()
    if name not in known:
        raise InputError(f"{name!r:.80} is not in the atlas, choose from {', '.join(known)}")
    return known[name]


def atlas_policies() -> dict[str, type[Cache]]:
    """The cache policies of the atlas that the core's registry does not have, by entry."""
    return {
        name: found.policy
        for name, found in entries().items()
        if found.policy is not None and found.policy.__module__.startswith(systems.__name__)
    }


def policy_named(name: str) -> type[Cache]:
    """A cache policy of the atlas, or an `InputError` that lists them."""
    policies = atlas_policies()
    if name not in policies:
        raise InputError(f"the atlas has no policy {name!r:.80}: choose from {', '.join(policies)}")
    return policies[name]
