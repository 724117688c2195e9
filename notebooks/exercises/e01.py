"""Checks of chapter 1, the decoder."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

import minikv
from minikv.weights.folder import expected_shapes

from . import close, exercise, require, smallest


@exercise
def check_parameters(parameters: Callable[[Any], int]) -> None:
    """Parameters of a configuration, against the shapes that minikv expects."""

    def true(config: Any) -> int:
        return sum(math.prod(shape) for shape in expected_shapes(config).values())

    configs = st.builds(
        lambda V, D, F, L, G, R, d, tied: minikv.ModelConfig(
            vocab_size=V,
            hidden_size=D,
            intermediate_size=F,
            num_hidden_layers=L,
            num_attention_heads=G * R,
            num_key_value_heads=G,
            head_dim=2 * d,
            tie_word_embeddings=tied,
        ),
        *[st.integers(1, 9)] * 7,
        st.booleans(),
    )
    config = smallest(configs, lambda c: parameters(c) != true(c))
    if config is not None:
        fields = (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "tie_word_embeddings",
        )
        shown = ", ".join(f"{name} {getattr(config, name)}" for name in fields)
        got, expected = parameters(config), true(config)
        untied = not config.tie_word_embeddings
        hint = ""
        if untied and got == expected - config.vocab_size * config.hidden_size:
            hint = " (an untied model has an output matrix besides the embedding)"
        elif expected - got == config.hidden_size * (2 * config.num_hidden_layers + 1):
            hint = " (the gains of the norms are missing)"
        elif expected - got == config.hidden_size:
            hint = " (the last norm has gains too)"
        require(False, f"with {shown} there are {expected} numbers, not {got}{hint}")


@exercise
def check_share(share: Callable[..., np.ndarray]) -> None:
    """Keys laid out for the query heads that read them."""
    case = smallest(
        st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
        lambda c: not _shared(share, *c),
    )
    if case is not None:
        tokens, groups, repeats = case
        keys = np.arange(tokens * groups * 2.0).reshape(tokens, groups, 2)
        got = np.asarray(share(keys, groups * repeats))
        expected = (tokens, groups * repeats, 2)
        where = f"{groups} key heads for {groups * repeats} query heads"
        require(got.shape == expected, f"{where}: the shape is {got.shape}, expected {expected}")
        reads = [
            next((g for g in range(groups) if np.array_equal(got[0, h], keys[0, g])), "none")
            for h in range(groups * repeats)
        ]
        right = [h // repeats for h in range(groups * repeats)]
        require(False, f"{where}: query heads read the key heads {reads}, expected {right}")


def _shared(share: Callable[..., np.ndarray], tokens: int, groups: int, repeats: int) -> bool:
    keys = np.arange(tokens * groups * 2.0).reshape(tokens, groups, 2)
    expected = keys[:, [h // repeats for h in range(groups * repeats)]]
    return np.array_equal(np.asarray(share(keys, groups * repeats)), expected)


@exercise
def check_unrope(unrope: Callable[..., np.ndarray]) -> None:
    """Keys before RoPE from keys after it."""
    rng = np.random.default_rng(1)
    for tokens, heads, pairs in ((1, 1, 1), (1, 1, 2), (5, 2, 4)):
        keys = rng.integers(1, 9, (tokens, heads, 2 * pairs)).astype(np.float64)
        angle = rng.uniform(0.5, 1.5, (tokens, 1, pairs))
        cos, sin = np.cos(angle), np.sin(angle)
        a, b = keys[..., :pairs], keys[..., pairs:]
        turned = np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
        back = np.asarray(unrope(turned.copy(), cos, sin))
        require(back.shape == keys.shape, f"the shape is {back.shape}, expected {keys.shape}")
        require(not close(back, turned), "the keys came back as they were given")
        twice = _turn(turned, cos, sin)
        require(not close(back, twice), "you turned the keys once more in the same direction")
        lengths = close(np.linalg.norm(back, axis=-1), np.linalg.norm(keys, axis=-1))
        require(
            close(back, keys),
            f"a key {keys[0, 0].tolist()} was turned and came back as "
            f"{np.round(back[0, 0], 3).tolist()}; "
            + (
                "its length is right, so look at which numbers form a pair"
                if lengths
                else "its length changed, which a rotation never does"
            ),
        )


def _turn(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


@exercise
def check_surprise(surprise: Callable[..., float]) -> None:
    """Mean negative log-probability of the tokens that came."""
    uniform = surprise(np.zeros((3, 8)), [1, 2, 3])
    require(
        not math.isclose(uniform, 3.0),
        "eight equal logits give 3, which is bits; use the natural logarithm: nats",
    )
    require(
        math.isclose(uniform, math.log(8), rel_tol=1e-9),
        f"with eight equal logits every token surprises by log 8 = {math.log(8):.4f}, "
        f"not {uniform:.4f}",
    )
    logits = np.array([[0.0, 4.0, 0.0], [0.0, 0.0, 4.0], [4.0, 0.0, 0.0]])
    sure, ids = math.log(1 + 2 * math.exp(-4)), [0, 1, 2]
    got = surprise(logits, ids)
    require(
        math.isclose(got, sure, rel_tol=1e-9),
        f"logits {logits.tolist()} predict the text {ids} well: expected {sure:.4f}, "
        f"not {got:.4f}; "
        "row t predicts token t + 1",
    )
    with np.errstate(all="ignore"):
        big = surprise(logits + 1e4, ids)
    require(
        math.isclose(big, sure, rel_tol=1e-6),
        f"adding 10000 to all logits changes no probability, but your result becomes {big}",
    )


@exercise
def check_one_pass(one_pass: Callable[..., np.ndarray]) -> None:
    """Attention as a loop: the formula's result, without overflow; how it was done is not seen."""
    small = st.integers(-3, 3)
    cases = st.integers(1, 4).flatmap(
        lambda n: st.tuples(st.lists(small, min_size=n, max_size=n), st.just(n))
    )

    def parts(scores: list[int]) -> tuple[np.ndarray, ...]:
        k = np.array([[2.0 * s, 0.0, 0.0, 1.0] for s in scores])  # d = 4: the score is s
        v = np.array([[float(i), 1.0] for i in range(len(scores))])
        return np.array([1.0, 0.0, 0.0, 0.0]), k, v

    def expected(scores: list[int]) -> np.ndarray:
        weights = np.exp(np.array(scores) - max(scores))
        return weights / weights.sum() @ parts(scores)[2]

    def wrong(case: tuple[list[int], int]) -> bool:
        return not close(one_pass(*parts(case[0])), expected(case[0]))

    case = smallest(cases, wrong)
    if case is not None:
        scores, got = case[0], np.asarray(one_pass(*parts(case[0])))
        unscaled = np.exp(2.0 * np.array(scores))
        hint = ""
        if close(got, unscaled / unscaled.sum() @ parts(scores)[2]):
            hint = "; did you divide the scores by sqrt(d)?"
        elif scores != sorted(scores, reverse=True):
            hint = "; what happens to the sums when a larger score comes?"
        require(
            False,
            f"keys with scores {scores} and values {parts(scores)[2].tolist()} give "
            f"{np.round(expected(scores), 4).tolist()}, not {np.round(got, 4).tolist()}{hint}",
        )
    huge = [2000, 1999]
    with np.errstate(all="ignore"):
        got = np.asarray(one_pass(*parts(huge)))
    require(
        close(got, expected(huge)),
        f"with scores {huge} the result is {got.tolist()}: the exponential overflowed; "
        "subtract the largest score so far",
    )
