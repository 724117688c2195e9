"""Saying that kernels are compiled, which takes a while, rather than read from disk."""

from __future__ import annotations

import sys

from numba.core import event


class Announced(event.Listener):
    """Says so on standard error, once, when Numba compiles between `begin` and `end`."""

    said = False

    def begin(self) -> None:
        """Listen from now on."""
        event.register("numba:compile", self)

    def end(self) -> None:
        """Listen no more."""
        event.unregister("numba:compile", self)

    def on_start(self, compiling: event.Event) -> None:
        """Say it, if it has not been said."""
        if not self.said:
            print("minikv: compiling Numba's kernels, once: they are kept on disk", file=sys.stderr)
        self.said = True

    def on_end(self, compiling: event.Event) -> None:
        """Nothing to say."""


announced = Announced()
