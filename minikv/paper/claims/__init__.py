"""The paper's claims, one file each; a file here with a ``CLAIM`` in it is one more.

A file is named as the claim's id: ``table_2.py`` holds ``table-2``, ``section_3_2.py`` holds
``section-3.2``. What several claims share is a module beside this folder, which has no ``CLAIM``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules

from ...errors import InputError
from ..claim import KINDS, Claim


def place(id: str) -> tuple[int, tuple[int, ...], str]:
    """Where a claim stands in the order of the page.

    Examples
    --------
    >>> sorted(["table-10", "table-2", "section-3.2", "equation-28"], key=place)
    ['equation-28', 'section-3.2', 'table-2', 'table-10']
    """
    parts = re.fullmatch(r"([a-z]+)-(\d+(?:\.\d+)*)((?:-[a-z0-9]+)*)", id)
    if parts is None or parts[1] not in KINDS:
        raise InputError(f"claim {id!r:.80}: expected an id such as table-2, one of {KINDS}")
    numbers = tuple(int(number) for number in parts[2].split("."))
    return KINDS.index(parts[1]), numbers, parts[3]


def _collected() -> dict[str, Claim]:
    """By id, in the order of the page."""
    names = [module.name for module in iter_modules(__path__)]
    found: list[Claim] = [import_module(f"{__name__}.{name}").CLAIM for name in names]
    return {claim.id: claim for claim in sorted(found, key=lambda claim: place(claim.id))}


CLAIMS: Mapping[str, Claim] = _collected()
"""All claims, by id."""


def chosen(id: str) -> list[Claim]:
    """The claims of a table, figure or other place: ``table-4`` and ``table-4-perplexity``.

    Raises
    ------
    InputError
        If there is none.

    Examples
    --------
    >>> [claim.id for claim in chosen("equation-28")]
    ['equation-28']
    """
    found = [claim for name, claim in CLAIMS.items() if name == id or name.startswith(f"{id}-")]
    if not found:
        raise InputError(f"{id!r:.80} is no claim that is checked; choose {', '.join(CLAIMS)}")
    return found


__all__ = ["CLAIMS", "chosen", "place"]
