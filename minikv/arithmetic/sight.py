"""Who sees whom in attention, and who watches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..arrays import Array


@dataclass(frozen=True)
class Watch:
    """Who looks at attention's scores and weights while they are computed.

    Attributes
    ----------
    scores, pattern : callable, optional
        See the ``(H, T, S)`` scores and weights of all queries at once, and return them or what
        takes their place.
    observe : callable, optional
        ``observe(query_positions, pattern)``, once for each run of queries that attention takes
        together; column s of the pattern is key s.
    """

    scores: Callable[[Array], Array] | None = None
    pattern: Callable[[Array], Array] | None = None
    observe: Callable[[np.ndarray, Array], None] | None = None

    @property
    def nobody(self) -> bool:
        """Whether nobody looks, so that a kernel need not make the weights."""
        return not self.hooked and self.observe is None

    @property
    def hooked(self) -> bool:
        """Whether hooks want all scores of all keys."""
        return self.scores is not None or self.pattern is not None


UNWATCHED = Watch()


@dataclass(frozen=True)
class Sight:
    """Which keys each query sees: those at positions up to its own, in a window the newest of them.

    Attributes
    ----------
    query_positions : (T,) int, ascending
    key_positions : (S,) int, or (S, G) where heads hold different tokens; ascending over S
    window : int, optional
        A query sees no key that is this many positions before it, or more.
    """

    query_positions: np.ndarray
    key_positions: np.ndarray
    window: int | None = None

    @property
    def per_head(self) -> bool:
        """Whether the heads hold different tokens."""
        return self.key_positions.ndim == 2

    def keys_for(self, queries: slice, watch: Watch = UNWATCHED) -> slice:
        """The keys that some queries need: the others would weigh nothing.

        Hooks see all keys. Whoever observes sees them from the first on, since to it column s is
        key s.
        """
        if self.per_head or watch.hooked:
            return slice(0, len(self.key_positions))
        positions = self.query_positions[queries]
        first = 0
        end = int(self.key_positions.searchsorted(positions[-1], "right"))
        if self.window is not None and watch.observe is None:
            first = int(self.key_positions.searchsorted(positions[0] - self.window, "right"))
        return slice(first, end)

    def hidden(self, queries: slice, keys: slice) -> np.ndarray | None:
        """Which keys a query must not see, ``(T, S)``, or ``(G, T, S)`` by head; None for none.

        Positions ascend, so that none is hidden where the first query sees the newest key, and the
        last query the oldest.
        """
        ours = self.query_positions[queries]  # (T,)
        theirs = self.key_positions[keys].T[..., None, :]  # (1, S) or (G, 1, S)
        too_old = -1 if self.window is None else ours[-1] - self.window  # for the last query
        if theirs[..., -1].max() <= ours[0] and theirs[..., 0].min() > too_old:
            return None
        hidden = theirs > ours[:, None]
        if self.window is not None:
            hidden |= theirs <= ours[:, None] - self.window
        return hidden
