"""A draft of any kind, verified by one call: the tokens of decoding one by one, in fewer calls.

Each round feeds the token that was chosen last and a draft of what may follow, in one call of the
decoder. As many drafted tokens as the sampler would have chosen too are kept, and the cache is cut
back to them. Under exact arithmetic a row of logits does not know the call that it was made in
(T6), and nothing of what was cut stays (T8): tokens, logits and cache are those of one by one, for
every draft. Under float32 a row of a longer call may have other last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..arrays import to_numpy
from ..caches import Cache, Evicting
from ..decoder import Ids, Weights, check_cache, check_ids, forward
from ..errors import InputError
from ..generation import Sampler, check_room, finite_logits, sampler
from ..numbers import whole

Draft = Callable[[Sequence[int]], Sequence[int]]
"""From the whole text so far to tokens that may follow."""


@dataclass
class Figures:
    """What speculation did.

    Attributes
    ----------
    tokens, drafted, accepted : int
        New tokens; guesses that drafts made; and guesses that were kept.
    calls : int
        Of the verifier after the prompt. One by one they are ``tokens - 1``.
    logits : list of numpy.ndarray
        The row that each new token was chosen from, where `keep` is set.
    """

    keep: bool = False
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    calls: int = 0
    logits: list[np.ndarray] = field(default_factory=list, repr=False)

    @property
    def saved(self) -> int:
        """Calls of the verifier fewer than one by one."""
        return max(0, self.tokens - 1) - self.calls

    def note(self, row: np.ndarray) -> None:
        """Keep a row of logits, where rows are kept."""
        if self.keep:
            self.logits.append(row)


def no_draft(said: Sequence[int]) -> list[int]:
    """Nothing: one token a call."""
    return []


class CacheDraft:
    """A draft by the same model through another cache, which may lose what it likes.

    Parameters
    ----------
    weights : Weights
    cache : Cache
        Empty; it is fed the text as it becomes known, and a fork of it the guesses.
    ahead : int
        Tokens guessed a round.

    Attributes
    ----------
    calls : int
        Of the decoder, through this cache and its forks.
    """

    def __init__(self, weights: Weights, cache: Cache, ahead: int) -> None:
        self.weights = weights
        self.cache = cache
        self.ahead = whole("ahead", ahead)
        self.calls = 0

    def __call__(self, said: Sequence[int]) -> list[int]:
        if len(said) + self.ahead > self.weights.config.max_position_embeddings:
            return []
        guess = [self._next(list(said[self.cache.seen :]), self.cache)]
        if self.ahead > 1:
            fork = self.cache.fork()
            while len(guess) < self.ahead:
                guess.append(self._next(guess[-1:], fork))
        return guess

    def _next(self, new: list[int], cache: Cache) -> int:
        self.calls += 1
        logits = forward(self.weights, [new], [cache])
        return int(to_numpy(logits)[0].argmax())


@dataclass
class Speculator:
    """Continues a text with drafts.

    Parameters
    ----------
    weights : Weights
    cache : Cache
        The verifier's, empty. Afterwards it holds the text but for the last token, as after
        `minikv.generation.generate`.
    draft : callable
    choose : callable, optional
        A sampler of `minikv.generation.sampler`; greedy where not given. One draw is made for each
        token, in order, so that draws with a seed are those of one by one.
    stop : collection of int
        Token ids that end the text.
    figures : Figures
        Filled in on the way.

    Raises
    ------
    InputError
        If the cache has seen tokens, or cannot be cut back without loss.
    """

    weights: Weights
    cache: Cache
    draft: Draft
    choose: Sampler = field(default_factory=lambda: sampler(0.0, None, None, None))
    stop: Collection[int] = ()
    figures: Figures = field(default_factory=Figures)

    def __post_init__(self) -> None:
        check_cache(self.cache, self.weights)
        if isinstance(self.cache, Evicting):
            raise InputError(
                f"the verifier's cache is {self.cache.policy!r}, which drops tokens for good and "
                "cannot be cut back: verify with full, none or residual"
            )
        if self.cache.seen:
            raise InputError(
                f"the verifier's cache has seen {self.cache.seen} tokens, expected an empty one"
            )

    def tokens(self, ids: Ids, max_new_tokens: int) -> Iterator[int]:
        """New tokens, each as soon as it is confirmed; arguments are checked at once."""
        prompt = check_ids(ids, self.weights.config)
        count = whole("max_new_tokens", max_new_tokens, least=0)
        if not count:
            return iter(())
        check_room(len(prompt), self.weights.config)
        return self._rounds(prompt.tolist(), count)

    def _rounds(self, prompt: list[int], count: int) -> Iterator[int]:
        said = list(prompt)
        token = self._chosen(self._rows(prompt, "last")[0], said)
        try:
            while True:
                said.append(token)
                self.figures.tokens += 1
                yield token
                if token in self.stop or self._full(said, prompt, count):
                    return
                guess = self._guess(said, count - self.figures.tokens)
                self.figures.drafted += len(guess)
                self.figures.calls += 1
                for place, row in enumerate(self._rows([token, *guess])):
                    following = self._chosen(row, said)
                    if place == len(guess) or following != guess[place]:
                        break
                    said.append(following)
                    self.figures.tokens += 1
                    self.figures.accepted += 1
                    yield following
                    if following in self.stop:
                        return
                self._cut_back(len(said))
                token = following
        finally:
            self._cut_back(len(said) - 1)

    def _rows(self, new: Sequence[int], logits: str = "all") -> np.ndarray:
        return to_numpy(forward(self.weights, [new], [self.cache], logits))

    def _chosen(self, row: np.ndarray, said: Sequence[int]) -> int:
        self.figures.note(row)
        return self.choose(finite_logits(row), said)

    def _full(self, said: Sequence[int], prompt: Sequence[int], count: int) -> bool:
        """Whether no token is wanted, or fits."""
        enough = len(said) - len(prompt) >= count
        return enough or len(said) >= self.weights.config.max_position_embeddings

    def _guess(self, said: Sequence[int], left: int) -> list[int]:
        """A draft, no longer than what is wanted or fits."""
        room = self.weights.config.max_position_embeddings - len(said) - 1
        drafted = [int(token) for token in self.draft(said)]
        return drafted[: max(0, min(left - 1, room))]

    def _cut_back(self, length: int) -> None:
        """Let the cache hold no more than the first `length` tokens."""
        if self.cache.seen > length:
            self.cache.truncate(length)
