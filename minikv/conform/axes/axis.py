"""What an axis is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..adapter import NotTestedError, WrongShapeError, told
from ..bench import Bench
from ..verdict import Verdict, Word

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
    own_length : bool
        Whether its texts have a length of their own, whatever that of the others is.
    """

    name: str
    needs: tuple[str, ...]
    test: Test
    own_length: bool = False

    @property
    def meaning(self) -> str:
        """What it asks, in words."""
        return " ".join((self.test.__doc__ or "").split())

    def ask(self, bench: Bench) -> Verdict:
        """The verdict; what the target raises on the way is a bug, but for NotImplementedError."""
        missing = [ability for ability in self.needs if not bench.subject.can(ability)]
        if missing:
            return self.not_tested(f"the target has no {missing[0]}")
        try:
            return self.test(bench)
        except (NotTestedError, NotImplementedError) as reason:
            return self.not_tested(str(reason) or "the target says NotImplementedError")
        except WrongShapeError as error:
            return Verdict(self.name, Word.BUG, evidence=str(error))
        except Exception as error:  # the target's code may raise anything
            return Verdict(self.name, Word.BUG, evidence=f"raised {told(error)}", raised=True)

    def not_tested(self, reason: str) -> Verdict:
        """No verdict, and why."""
        return Verdict(self.name, Word.NOT_TESTED, evidence=reason)
