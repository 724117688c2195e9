"""Choosing the next token, again and again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np

from . import decoder
from .arrays import to_numpy
from .caches import Cache
from .config import ModelConfig
from .errors import ArithmeticRangeError, InputError
from .memory import Memory, Told
from .numbers import is_whole, whole
from .progress import Progress, silent

Sampler = Callable[[np.ndarray, Sequence[int]], int]
"""From logits, ``(V,)``, and the tokens so far to the token id that is chosen."""

Observer = Callable[[np.ndarray, int], None]
"""Sees the logits, ``(V,)``, of a step, and the token that was chosen."""

Cut = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From tokens, likeliest first, and their probabilities to the first of them, and theirs."""

LARGEST_PENALTY = float(np.finfo(np.float32).max)  # of float32 logits: 0 times more is NaN
ROUNDING = 2.0**-32  # more than a sum of 2**20 probabilities in float64 can be off, 2**20 * 2**-53


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
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    observer: Observer | None = None,
    progress: Progress = silent,
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
        Draw among the smallest set of most likely tokens whose probabilities reach p, as
        `nucleus` says.
    seed : int, optional
        Of the draws.
    stop : iterable of int, optional
        Token ids that end generation; the configuration's ``eos_token_id`` where not given.
    min_p : float, optional
        Draw only among tokens that are at least so likely beside the likeliest, see `at_least`.
    repetition_penalty : float, optional
        Above 1, tokens of `ids` and new ones come less again, see `penalised`.
    observer : callable, optional
        Called with the logits of each step, as the model gave them, and the token that was chosen.
    progress : callable
        Told how far the reading of the prompt is, layer by layer; it changes no bit.

    Raises
    ------
    InputError
        If a parameter is out of range, or the prompt leaves no room for a new token.
    ArithmeticRangeError
        If a logit is NaN or infinite, when its token is asked for.
    """
    if isinstance(ids, str):
        raise InputError("a text is no sequence of token ids: encode it, or use model.complete")
    prompt = decoder.check_ids(ids, weights.config)
    decoder.check_cache(cache, weights)
    choose = sampler(temperature, top_k, top_p, seed, min_p, repetition_penalty)
    count = whole("max_new_tokens", max_new_tokens, least=0)
    if count:
        check_room(cache.next_position + len(prompt), weights.config)
    if stop is None:
        stop = weights.config.eos_token_id
    observed = choose if observer is None else _observed(choose, observer)
    return _tokens(weights, prompt, count, cache, observed, _stop_ids(stop), progress)


def check_room(length: int, config: ModelConfig) -> None:
    """Refuse a prompt behind which no token fits."""
    context = config.max_position_embeddings
    if length >= context:
        raise InputError(
            f"the prompt has {length} tokens, expected at most {context - 1} so "
            f"that one can follow within the context of {context}; shorten the prompt"
        )


def _observed(choose: Sampler, observer: Observer) -> Sampler:
    """A sampler that shows what it sees and chooses."""

    def choose_and_show(logits: np.ndarray, said: Sequence[int]) -> int:
        token = choose(logits, said)
        observer(logits, token)
        return token

    return choose_and_show


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
    progress: Progress,
) -> Iterator[int]:
    """Feed the prompt, and then each token that was chosen, one by one."""
    new = prompt
    memory: Memory = Told(cache, progress)
    said = prompt.tolist()
    for _ in range(count):
        if cache.next_position + len(new) >= weights.config.max_position_embeddings:
            return  # one more token would not fit behind these
        logits = decoder.forward(weights, [new], [memory])
        memory = cache
        token = choose(finite_logits(to_numpy(logits)[0]), said)
        said.append(token)
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
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
) -> Sampler:
    """How the next token is chosen; the parameters are those of `generate`.

    Logits are penalised, divided by the temperature, and cut to the likeliest, by number, then by
    `top_p`, then by `min_p`, as transformers does it.

    Raises
    ------
    InputError
        If a parameter is out of range, or `top_k`, `top_p` or `min_p` is given without a
        temperature.
    """
    _check_draw(temperature, top_k, top_p, seed)
    _check_more(min_p, repetition_penalty)
    if temperature == 0 and (top_k, top_p, min_p) != (None, None, None):
        raise InputError(
            "top_k, top_p and min_p are of draws, and temperature 0 takes the likeliest "
            "token: give a temperature above 0"
        )
    penalty = 1.0
    if repetition_penalty is not None:
        penalty = repetition_penalty
    cuts = _cuts(top_k, top_p, min_p)
    rng = np.random.default_rng(seed)

    def likeliest(logits: np.ndarray, said: Sequence[int] = ()) -> int:
        return int(np.argmax(penalised(logits, said, penalty)))

    def draw(logits: np.ndarray, said: Sequence[int] = ()) -> int:
        ids, p = candidates(penalised(logits, said, penalty), temperature)
        for cut in cuts:
            ids, p = cut(ids, p)
        return int(rng.choice(ids, p=p))

    if temperature == 0:
        return likeliest
    return draw


def _cuts(top_k: int | None, top_p: float | None, min_p: float | None) -> list[Cut]:
    """What is left of the candidates, one cut after the other."""
    cuts: list[Cut] = []
    if top_k is not None:
        cuts.append(partial(highest, top_k=top_k))
    if top_p is not None:
        cuts.append(partial(nucleus, top_p=top_p))
    if min_p is not None:
        cuts.append(partial(at_least, min_p=min_p))
    return cuts


def _check_draw(
    temperature: float, top_k: int | None, top_p: float | None, seed: int | None
) -> None:
    if not _is_number(temperature) or not 0 <= temperature <= sys.float_info.max:
        raise InputError(f"temperature is {temperature!r}, expected a number from 0 up")
    if top_k is not None:
        whole("top_k", top_k)
    if top_p is not None and (not _is_number(top_p) or not 0 < top_p <= 1):
        raise InputError(f"top_p is {top_p!r}, expected a number above 0 and at most 1")
    if seed is not None:
        whole("seed", seed, least=0)


def _check_more(min_p: float | None, repetition_penalty: float | None) -> None:
    if min_p is not None and (not _is_number(min_p) or not 0 <= min_p <= 1):
        raise InputError(f"min_p is {min_p!r}, expected a number from 0 to 1")
    if repetition_penalty is None:
        return
    if not _is_number(repetition_penalty) or not 0 < repetition_penalty <= LARGEST_PENALTY:
        raise InputError(
            f"repetition_penalty is {repetition_penalty!r}, expected one above 0, and at most "
            f"{LARGEST_PENALTY:.2g}"
        )


def penalised(logits: np.ndarray, said: Sequence[int], penalty: float) -> np.ndarray:
    """Logits, ``(V,)``, in which tokens that were said are less likely, for a `penalty` above 1.

    Theirs are divided by it where positive, and multiplied where negative (Keskar et al. 2019,
    arXiv 1909.05858, section 4.1; that a negative one is multiplied is everybody's mending of it).

    Examples
    --------
    >>> penalised(np.array([2.0, -2.0, 3.0]), [0, 1, 1], penalty=2.0).tolist()
    [1.0, -4.0, 3.0]
    """
    if penalty == 1.0 or not len(said):
        return logits
    tokens = np.unique(np.asarray(said, dtype=np.int64))
    changed = logits.copy()
    theirs = logits[tokens]
    with np.errstate(over="ignore"):  # to -inf: no token is less likely
        changed[tokens] = np.where(theirs > 0, theirs / penalty, theirs * penalty)
    return changed


def at_least(ids: np.ndarray, p: np.ndarray, min_p: float) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that are at least `min_p` times as likely as the likeliest.

    Nguyen et al. 2024, "Turning up the heat", arXiv 2407.01082.

    Parameters
    ----------
    ids, p : numpy.ndarray
        Tokens, most likely first, and their probabilities.
    min_p : float

    Examples
    --------
    >>> ids, p = at_least(np.array([7, 5, 6]), np.array([0.5, 0.25, 0.25]), min_p=0.6)
    >>> ids.tolist(), p.tolist()
    ([7], [1.0])
    """
    keep = int(np.sum(p >= min_p * p[0]))
    return ids[:keep], p[:keep] / p[:keep].sum()


def candidates(logits: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """All tokens, most likely first, and their probabilities at a temperature.

    Ackley, Hinton and Sejnowski 1985, "A learning algorithm for Boltzmann machines".

    Examples
    --------
    >>> ids, p = candidates(np.log([0.1, 0.6, 0.3]), temperature=1.0)
    >>> ids.tolist(), p.round(3).tolist()
    ([1, 2, 0], [0.6, 0.3, 0.1])
    """
    with np.errstate(over="ignore"):  # a tiny temperature makes -inf of a difference: weight 0
        scaled = (logits.astype(np.float64) - logits.max()) / temperature
    ids = np.argsort(-scaled, kind="stable")
    weights = np.exp(scaled[ids])
    return ids, weights / weights.sum()


def highest(ids: np.ndarray, p: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `top_k` most likely tokens.

    Fan et al. 2018, "Hierarchical neural story generation", arXiv 1805.04833.

    Examples
    --------
    >>> ids, p = highest(np.array([7, 5, 6]), np.array([0.5, 0.25, 0.25]), top_k=2)
    >>> ids.tolist(), p.round(3).tolist()
    ([7, 5], [0.667, 0.333])
    """
    return ids[:top_k], p[:top_k] / p[:top_k].sum()


def nucleus(ids: np.ndarray, p: np.ndarray, top_p: float) -> tuple[np.ndarray, np.ndarray]:
    """The fewest of the most likely tokens whose probabilities reach `top_p`.

    Holtzman et al. 2019, "The curious case of neural text degeneration", arXiv 1904.09751. Sums are
    rounded, and so is a `top_p` such as 0.8: what is missing by 2**-32 or less counts as reached.
    So no smaller set reaches `top_p`, and this one does to within 2**-31. 1 keeps all tokens.

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
    if top_p == 1:
        return ids, p
    keep = int(np.searchsorted(np.cumsum(p), top_p - ROUNDING)) + 1
    return ids[:keep], p[:keep] / p[:keep].sum()


def _is_number(value: object) -> bool:
    return is_whole(value) or isinstance(value, float | np.floating)
