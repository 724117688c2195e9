"""Choosing the next token, again and again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from . import decoder
from .arrays import to_numpy
from .caches import Cache
from .config import ModelConfig
from .errors import ArithmeticRangeError, InputError
from .numbers import is_whole, whole

Sampler = Callable[[np.ndarray], int]
"""From logits, ``(V,)``, to the token id that is chosen."""


def generate(
    weights: decoder.Weights,
    ids: Sequence[int] | np.ndarray,
    max_new_tokens: int,
    cache: Cache,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop: Iterable[int] | None = None,
) -> Iterator[int]:
    """Continue a text, yielding each new token id as soon as it is chosen.

    Arguments are checked at once, not at the first token.

    Parameters
    ----------
    weights : Weights
    ids : sequence of int
        The prompt; with a cache that has seen tokens, what follows them.
    max_new_tokens : int
        Generation also ends at a stop token, which is yielded, and where the context is full.
    cache : Cache
        Holds the text so far; afterwards all of it but the last token yielded.
    temperature : float
        0 takes the most likely token; above 0, logits are divided by it and a token is drawn.
    top_k : int, optional
        Draw among the k most likely tokens only; with a temperature above 0.
    top_p : float, optional
        Draw among the smallest set of most likely tokens whose probabilities reach p
        (Holtzman et al. 2019, arXiv 1904.09751).
    seed : int, optional
        Of the draws.
    stop : iterable of int, optional
        Token ids that end generation; the configuration's ``eos_token_id`` where not given.

    Raises
    ------
    InputError
        If a parameter is out of range, or the prompt leaves no room for a new token.
    ArithmeticRangeError
        If a logit is NaN or infinite, when its token is asked for.
    """
    prompt = decoder.check_ids(ids, weights.config)
    decoder.check_cache(cache, weights)
    choose = sampler(temperature, top_k, top_p, seed)
    count = whole("max_new_tokens", max_new_tokens, least=0)
    if count:
        check_room(cache.next_position + len(prompt), weights.config)
    if stop is None:
        stop = weights.config.eos_token_id
    return _tokens(weights, prompt, count, cache, choose, _stop_ids(stop))


def check_room(length: int, config: ModelConfig) -> None:
    """Refuse a prompt behind which no token fits."""
    context = config.max_position_embeddings
    if length >= context:
        raise InputError(
            f"the prompt has {length} tokens, expected at most {context - 1} so "
            f"that one can follow within the context of {context}; shorten the prompt"
        )


def _stop_ids(stop: Iterable[int]) -> frozenset[int]:
    wrong = InputError(f"stop is {stop!r}, expected token ids")
    if not isinstance(stop, Iterable):
        raise wrong
    ids = list(stop)
    if not all(is_whole(token) for token in ids):
        raise wrong
    return frozenset(ids)


def _tokens(
    weights: decoder.Weights,
    prompt: np.ndarray,
    count: int,
    cache: Cache,
    choose: Sampler,
    stop: frozenset[int],
) -> Iterator[int]:
    """Feed the prompt, and then each token that was chosen, one by one."""
    new = prompt
    for _ in range(count):
        if cache.next_position + len(new) >= weights.config.max_position_embeddings:
            return  # one more token would not fit behind these
        logits = decoder.forward(weights, [new], [cache])
        token = choose(finite_logits(to_numpy(logits)[0]))
        yield token
        if token in stop:
            return
        new = np.array([token])


def finite_logits(logits: np.ndarray) -> np.ndarray:
    """Logits, ``(V,)``, among which none is NaN or infinite; raises `ArithmeticRangeError`."""
    finite = np.isfinite(logits)
    if not finite.all():
        raise ArithmeticRangeError(
            f"a logit is {logits[finite.argmin()]}, expected finite ones: "
            "weights overflow; arithmetic 'exact' on backend 'numpy' says which"
        )
    return logits


def sampler(
    temperature: float, top_k: int | None, top_p: float | None, seed: int | None
) -> Sampler:
    """How the next token is chosen; the parameters are those of `generate`.

    Raises
    ------
    InputError
        If a parameter is out of range, or `top_k` or `top_p` is given without a temperature.
    """
    if not _is_number(temperature) or not 0 <= temperature <= sys.float_info.max:
        raise InputError(f"temperature is {temperature!r}, expected a number from 0 up")
    if top_k is not None:
        whole("top_k", top_k)
    if top_p is not None and (not _is_number(top_p) or not 0 < top_p <= 1):
        raise InputError(f"top_p is {top_p!r}, expected a number above 0 and at most 1")
    if seed is not None:
        whole("seed", seed, least=0)
    if temperature == 0:
        if top_k is not None or top_p is not None:
            raise InputError(
                "top_k and top_p are of draws, and temperature 0 takes the likeliest "
                "token: give a temperature above 0"
            )
        return likeliest
    rng = np.random.default_rng(seed)

    def draw(logits: np.ndarray) -> int:
        ids, p = candidates(logits, temperature, top_k)
        if top_p is not None:
            ids, p = nucleus(ids, p, top_p)
        return int(rng.choice(ids, p=p))

    return draw


def likeliest(logits: np.ndarray) -> int:
    """The most likely token; of several, the one with the lowest id."""
    return int(np.argmax(logits))


def candidates(
    logits: np.ndarray, temperature: float, top_k: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The `top_k` most likely tokens, or all, most likely first, and their probabilities.

    Examples
    --------
    >>> ids, p = candidates(np.log([0.1, 0.6, 0.3]), temperature=1.0, top_k=2)
    >>> ids.tolist(), p.round(3).tolist()
    ([1, 2], [0.667, 0.333])
    """
    with np.errstate(over="ignore"):  # a tiny temperature makes -inf of a difference: weight 0
        scaled = (logits.astype(np.float64) - logits.max()) / temperature
    ids = np.argsort(-scaled, kind="stable")[:top_k]
    weights = np.exp(scaled[ids])
    return ids, weights / weights.sum()


def nucleus(ids: np.ndarray, p: np.ndarray, top_p: float) -> tuple[np.ndarray, np.ndarray]:
    """The fewest of the most likely tokens whose probabilities reach `top_p`.

    Holtzman et al. 2019, "The curious case of neural text degeneration", arXiv 1904.09751.

    Parameters
    ----------
    ids, p : numpy.ndarray
        Tokens, most likely first, and their probabilities.
    top_p : float

    Examples
    --------
    >>> ids, p = nucleus(np.array([7, 5, 6]), np.array([0.5, 0.25, 0.25]), top_p=0.6)
    >>> ids.tolist(), p.round(3).tolist()
    ([7, 5], [0.667, 0.333])
    """
    keep = int(np.searchsorted(np.cumsum(p), top_p)) + 1
    return ids[:keep], p[:keep] / p[:keep].sum()


def _is_number(value: object) -> bool:
    return is_whole(value) or isinstance(value, float | np.floating)
