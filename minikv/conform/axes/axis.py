"""What an axis is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..bench import Bench
from ..verdict import Verdict

Test = Callable[[Bench], Verdict]


@dataclass(frozen=True)
class Axis:
    """One question to a target.

    Attributes
    ----------
    name : str
    needs : tuple of str
        Abilities of `minikv.conform.adapter` without which it is not tested.
    test : callable
        Gives the verdict; its docstring says what the axis means.
    """

    name: str
    needs: tuple[str, ...]
    test: Test

    @property
    def meaning(self) -> str:
        """What it asks, in words."""
        return " ".join((self.test.__doc__ or "").split())
