"""Choosing the next token, again and again."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from . import decoder
from .arrays import to_numpy
from .caches import Cache
from .errors import ArithmeticRangeError, InputError


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
    if not _whole(max_new_tokens) or max_new_tokens < 0:
        raise InputError(f"max_new_tokens is {max_new_tokens!r}, expected a whole number from 0 up")
    context = weights.config.max_position_embeddings
    length = cache.next_position + len(prompt)
    if length >= context and max_new_tokens:
        raise InputError(
            f"the prompt has {length} tokens, expected at most {context - 1} so "
            f"that one can follow within the context of {context}; shorten the prompt"
        )
    stops = weights.config.eos_token_id if stop is None else stop
    stops = tuple(stops) if isinstance(stops, Iterable) else (None,)
    if not all(_whole(token) for token in stops):
        raise InputError(f"stop is {stop!r}, expected token ids")
    return _tokens(weights, prompt, max_new_tokens, cache, choose, frozenset(stops))


def _tokens(
    weights: decoder.Weights, new: Any, count: int, cache: Cache, choose: Any, stops: frozenset[int]
) -> Iterator[int]:
    for _ in range(count):
        if cache.next_position + len(new) >= weights.config.max_position_embeddings:
            return  # one more token would not fit behind these
        logits = decoder.forward(weights, [new], [cache])
        row = to_numpy(logits)[0]
        if not (finite := np.isfinite(row)).all():
            raise ArithmeticRangeError(
                f"a logit is {row[finite.argmin()]}, expected finite ones: "
                "weights overflow; arithmetic 'exact' on backend 'numpy' says which"
            )
        token = choose(row)
        yield token
        if token in stops:
            return
        new = [token]


def sampler(temperature: float, top_k: int | None, top_p: float | None, seed: int | None) -> Any:
    """A function from logits ``(V,)`` to a token id; raises `InputError` for bad parameters."""
    if not _real(temperature) or not 0 <= temperature <= sys.float_info.max:
        raise InputError(f"temperature is {temperature!r}, expected a number from 0 up")
    if top_k is not None and (not _whole(top_k) or top_k < 1):
        raise InputError(f"top_k is {top_k!r}, expected a whole number from 1 up")
    if top_p is not None and (not _real(top_p) or not 0 < top_p <= 1):
        raise InputError(f"top_p is {top_p!r}, expected a number above 0 and at most 1")
    if seed is not None and (not _whole(seed) or seed < 0):
        raise InputError(f"seed is {seed!r}, expected a whole number from 0 up")
    if temperature == 0 and (top_k, top_p) != (None, None):
        raise InputError(
            "top_k and top_p are of draws, and temperature 0 takes the likeliest "
            "token: give a temperature above 0"
        )
    rng = np.random.default_rng(seed)

    def choose(logits: np.ndarray) -> int:
        if temperature == 0:
            return int(np.argmax(logits))
        with np.errstate(over="ignore"):  # a tiny temperature makes -inf of a difference: weight 0
            scaled = (logits.astype(np.float64) - logits.max()) / temperature
        order = np.argsort(-scaled, kind="stable")[:top_k]  # most likely first
        p = np.exp(scaled[order])
        p /= p.sum()
        if top_p is not None:
            keep = int(np.searchsorted(np.cumsum(p), top_p)) + 1
            order, p = order[:keep], p[:keep] / p[:keep].sum()
        return int(rng.choice(order, p=p))

    return choose


def _whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _real(value: Any) -> bool:
    return _whole(value) or isinstance(value, (float, np.floating))
