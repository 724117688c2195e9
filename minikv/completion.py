"""Text in, text out: one text, or several in one ragged batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from . import decoder
from .arrays import to_numpy
from .caches import Cache, make_cache
from .errors import InputError, TokenizerError
from .generation import Sampler, check_room, finite_logits, sampler
from .numbers import whole
from .progress import Progress, silent
from .tokenizer import Tokenizer


@dataclass(frozen=True)
class Completion:
    """What a text was continued with.

    Parameters
    ----------
    text : str
        Without the prompt, without a stop string and what would follow it.
    ids : list of int
        The tokens that were chosen, the one that ended it included.
    log_probs : list of float
        ln p of each of them, given all before it: of the model, whatever the temperature.
    ended_by : str
        ``"stop token"``, ``"stop string"``, ``"length"`` or ``"context"``.
    top : list of list of (int, float)
        For each of them the tokens that were likeliest in its place, and their ln p, where asked
        for.
    """

    text: str
    ids: list[int]
    log_probs: list[float] = field(repr=False)
    ended_by: str
    top: list[list[tuple[int, float]]] = field(default_factory=list, repr=False)


Ended = Callable[[int, Completion], None]
"""Is told which text of a batch has ended, from 0, and what it was continued with."""


@dataclass(eq=False)
class _Row:
    """A text of the batch, while it grows."""

    prompt: list[int]
    cache: Cache
    choose: Sampler
    unread: list[int]
    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    top: list[list[tuple[int, float]]] = field(default_factory=list)
    text: str = ""
    ended_by: str = ""

    def completion(self) -> Completion:
        """What it has become."""
        return Completion(self.text, self.ids, self.log_probs, self.ended_by, self.top)


class StopStrings:
    """Text that comes in pieces, up to the first stop string in it.

    What may be the beginning of a stop string is held back until more has come.

    Parameters
    ----------
    stop : sequence of str
        None of them empty.

    Attributes
    ----------
    found : bool
        Whether a stop string has come; from then on there is no more text.

    Examples
    --------
    >>> stops = StopStrings(["END"])
    >>> [stops.put(piece) for piece in ("the E", "ast. E", "ND of it")], stops.found
    (['the ', 'East. ', ''], True)
    """

    def __init__(self, stop: Sequence[str]) -> None:
        if isinstance(stop, str) or not all(isinstance(each, str) and each for each in stop):
            raise InputError(f"stop is {stop!r:.80}, expected a list of texts that are not empty")
        self.stop = tuple(stop)
        self.found = False
        self._held = ""

    def put(self, piece: str) -> str:
        """What can be shown now."""
        if self.found:
            return ""
        text = self._held + piece
        places = [text.index(each) for each in self.stop if each in text]
        if places:
            self.found = True
            self._held = ""
            return text[: min(places)]
        length = self._begun(text)
        self._held = text[len(text) - length :]
        return text[: len(text) - length]

    def rest(self) -> str:
        """What was held back; nothing more will come."""
        held = self._held
        self._held = ""
        return held

    def _begun(self, text: str) -> int:
        """How many characters at the end are the beginning of a stop string, at most."""
        longest = max((len(each) - 1 for each in self.stop), default=0)
        for length in range(min(longest, len(text)), 0, -1):
            if any(each.startswith(text[-length:]) for each in self.stop):
                return length
        return 0


def complete(
    weights: decoder.Weights,
    tokenizer: Tokenizer | None,
    texts: Sequence[str],
    max_new_tokens: int = 128,
    cache: str | Callable[[], Cache] = "full",
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop: Sequence[str] = (),
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    top_log_probs: int = 0,
    progress: Progress = silent,
    ended: Ended | None = None,
) -> list[Completion]:
    """Continue texts, all in one batch: each as if it were alone.

    Under ``exact`` each has the bits that it has alone; every text has a sampler of its own, with
    the same seed. A text that has ended leaves the batch.

    Parameters
    ----------
    weights : Weights
    tokenizer : Tokenizer
    texts : sequence of str
    max_new_tokens : int
    cache : str or callable
        The policy of the caches, or what makes an empty one.
    temperature, top_k, top_p, seed, min_p, repetition_penalty
        As in `minikv.generation.generate`.
    stop : sequence of str
        Texts at which a completion ends, besides the model's own stop tokens.
    top_log_probs : int
        How many of the likeliest tokens to keep of each step.
    progress : callable
        Told how many tokens each text has, of `max_new_tokens`.
    ended : callable, optional
        Told of each text as soon as it has ended.

    Raises
    ------
    TokenizerError
        If the model has no tokenizer.
    InputError
        If a parameter is out of range, a text is empty or leaves no room for a new token.
    """
    if tokenizer is None:
        raise TokenizerError("the model has no tokenizer.json, which text needs: give ids")
    StopStrings(stop)  # refuses what is none

    def new_cache() -> Cache:
        if callable(cache):
            return cache()
        return make_cache(cache, weights)

    count = whole("max_new_tokens", max_new_tokens)
    most = whole("top_log_probs", top_log_probs, least=0)
    rows = []
    for text in texts:
        prompt = tokenizer.encode(text)
        check_room(len(decoder.check_ids(prompt, weights.config)), weights.config)
        choose = sampler(temperature, top_k, top_p, seed, min_p, repetition_penalty)
        rows.append(_Row(prompt, new_cache(), choose, list(prompt)))
    stop_ids = {*weights.config.eos_token_id, *tokenizer.eos_ids}
    for step in range(count):
        progress("", step, count)
        growing = [row for row in rows if not row.ended_by]
        if not growing:
            break
        _step(weights, growing, most)
        for row in growing:
            _look(row, tokenizer, stop_ids, stop, weights.config.max_position_embeddings)
            if len(row.ids) == count:
                row.ended_by = row.ended_by or "length"
            if ended is not None and row.ended_by:
                ended(rows.index(row), row.completion())
    return [row.completion() for row in rows]


def _step(weights: decoder.Weights, rows: Sequence[_Row], most: int) -> None:
    """One more token for each text, and the likeliest in its place, where any are kept."""
    unread = [row.unread for row in rows]
    logits = to_numpy(decoder.forward(weights, unread, [row.cache for row in rows]))
    for row, scores in zip(rows, logits, strict=True):
        token = row.choose(finite_logits(scores), row.prompt + row.ids)
        row.log_probs.append(log_probability(scores, token))
        if most:
            row.top.append(likeliest(scores, most))
        row.ids.append(token)
        row.unread = [token]


def _look(
    row: _Row, tokenizer: Tokenizer, stop_ids: set[int], stop: Sequence[str], context: int
) -> None:
    """Spell what a text has become, and see whether it has ended."""
    if row.ids[-1] in stop_ids:
        row.ended_by = "stop token"
        return
    row.text = tokenizer.decode(row.ids, after=row.prompt)
    stops = StopStrings(stop)
    shown = stops.put(row.text)
    if stops.found:
        row.text = shown
        row.ended_by = "stop string"
    elif len(row.prompt) + len(row.ids) >= context:
        row.ended_by = "context"


def log_probability(logits: np.ndarray, token: int) -> float:
    """ln p of a token, in float64.

    Parameters
    ----------
    logits : (V,) ndarray
    token : int

    Examples
    --------
    >>> round(log_probability(np.log([0.25, 0.75]), 1), 6) == round(float(np.log(0.75)), 6)
    True
    """
    return float(log_probabilities(logits)[token])


def likeliest(logits: np.ndarray, count: int) -> list[tuple[int, float]]:
    """The tokens that are likeliest, and their ln p, in float64; the likeliest first.

    Parameters
    ----------
    logits : (V,) ndarray
    count : int

    Examples
    --------
    >>> [(token, round(p, 2)) for token, p in likeliest(np.log([0.25, 0.7, 0.05]), 2)]
    [(1, -0.36), (0, -1.39)]
    """
    ln_p = log_probabilities(logits)
    return [(int(token), float(ln_p[token])) for token in np.argsort(-ln_p, kind="stable")[:count]]


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """ln p of every token, ``(V,)``, in float64."""
    wide = logits.astype(np.float64) - logits.max()
    return wide - np.log(np.exp(wide).sum())
