"""Checks of chapter 1, the decoder."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

import minikv
from minikv.arithmetic import Exact, Float32, Sight
from minikv.build import random_tensors
from minikv.tokenizer import Tokenizer
from minikv.verify import same_bits
from minikv.weights import load_tensors, resolve
from minikv.weights.fetch import is_fetched
from minikv.weights.folder import expected_shapes

from . import Wrong, close, exercise, require, smallest

EXACT = Exact(context=128)
IDS = [3, 1, 4, 1, 5, 9, 2, 6]


class Words:
    """A tokenizer of whole words, for a random model: a word gets its id when it is first seen."""

    def __init__(self, size: int) -> None:
        self.known: list[str] = []
        self.size = size

    def encode(self, text: str) -> list[int]:
        """Ids of the words of a text, each with the space before it."""
        pieces = re.findall(r" ?\w+| ?[^\w\s]|\s", text)
        new = dict.fromkeys(piece for piece in pieces if piece not in self.known)
        self.known += list(new)[: self.size - len(self.known)]
        return [self.known.index(piece) for piece in pieces]

    def decode(self, ids: Any) -> str:
        """The text of ids; an id that no word has yet is written as a number."""
        return "".join(self.known[i] if i < len(self.known) else f" <{i}>" for i in ids)


STAND_IN = minikv.ModelConfig(
    vocab_size=512,
    hidden_size=96,
    intermediate_size=256,
    num_hidden_layers=4,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=2048,
    tie_word_embeddings=True,
)
"""The shape of the random model that chapter 1 runs on where no weights are fetched."""
_NAME = "smollm2-135m-instruct"


def material(name: str) -> tuple[minikv.ModelConfig, Any, Any]:
    """Configuration, tensors and tokenizer of a model; a small random one if it is not fetched."""
    if not is_fetched(name):
        print(f"{name} is not fetched (minikv fetch): this runs on a small random model instead,")
        print("on which every statement about bits holds, and none about language.")
        return STAND_IN, random_tensors(STAND_IN, 1), Words(STAND_IN.vocab_size)
    folder = resolve(name)
    config = minikv.ModelConfig.from_file(folder / "config.json")
    return config, load_tensors(folder, config), Tokenizer.from_folder(folder)


def library_model(arithmetic: str) -> minikv.Model:
    """The library's model of the same weights."""
    if is_fetched(_NAME):
        return minikv.load(_NAME, arithmetic)
    return minikv.random_model(STAND_IN, 1, arithmetic)


def _drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _same(got: Any, expected: np.ndarray, hints: dict[str, np.ndarray], order: str) -> None:
    """Require the bits of the library, and say which mistake gives what came instead."""
    got = np.asarray(got)
    require(got.shape == expected.shape, f"the shape is {got.shape}, expected {expected.shape}")
    if same_bits(got, expected):
        return
    scale = np.abs(expected).max()
    apart = np.abs(got.astype(np.float64) - expected)
    first = np.unravel_index(int(np.argmax(apart)), got.shape)
    where = f"at {tuple(map(int, first))} you have {got[first]:.6g}, expected {expected[first]:.6g}"
    for hint, wrong in hints.items():
        alike = np.allclose(got, wrong, rtol=1e-5, atol=1e-6 * scale)
        require(not alike or np.allclose(wrong, expected, rtol=1e-5), f"{where}: {hint}")
    require(
        got.dtype == np.float32,
        f"the numbers are {got.dtype}; what is kept is float32: round once, at the end, by narrow",
    )
    differ = int((got != expected).sum())
    require(
        apart.max() > 1e-5 * scale,
        f"right but for the last bits of {differ} of {got.size} numbers: {order}",
    )
    require(False, where)


@exercise
def check_rms_norm(rms_norm: Callable[..., np.ndarray]) -> None:
    """RMSNorm, against the library's."""
    for seed, eps in ((1, 0.5), (2, 1e-5)):
        x, gain = 3 * _drawn(seed, 4, 24), 1 + _drawn(seed + 9, 24).astype(np.float64)
        wide = x.astype(np.float64)
        size = np.sqrt(np.mean(wide**2, axis=1, keepdims=True) + eps)
        hints = {
            "the gain is missing": wide / size,
            "epsilon stands under the root": wide / (np.sqrt(size**2 - eps) + eps) * gain,
            "epsilon is missing": wide / np.sqrt(size**2 - eps) * gain,
            "the mean is over each row by itself": wide / np.sqrt(np.mean(wide**2) + eps) * gain,
            "this norm subtracts no mean": (wide - wide.mean(axis=1, keepdims=True)) / size * gain,
            "the root is missing": wide / size**2 * gain,
        }
        _same(
            rms_norm(x, gain, eps, EXACT),
            EXACT.rms_norm(x, gain, eps),
            hints,
            "widen x to float64, divide by the root, multiply by the gain, and narrow",
        )


@exercise
def check_rope(rope: Callable[..., np.ndarray]) -> None:
    """Rotation of pairs, against the library's."""
    x = _drawn(3, 5, 2, 8)
    angle = np.arange(1.0, 6.0)[:, None, None] * np.array([1.0, 0.3, 0.1, 0.03])
    cos, sin = np.cos(angle), np.sin(angle)
    signed = np.concatenate([-sin, sin], axis=-1)
    both = np.concatenate([cos, cos], axis=-1)
    expected = EXACT.rope(x, both, signed)
    woven = np.empty_like(x)
    woven[..., 0::2], woven[..., 1::2] = np.split(
        EXACT.rope(np.concatenate([x[..., 0::2], x[..., 1::2]], axis=-1), both, signed), 2, axis=-1
    )
    hints = {
        "these are the numbers as they were given": x,
        "this turns the other way: look at the sign of the sine": EXACT.rope(x, both, -signed),
        "pair i is i and i + d/2, and not 2i and 2i + 1": woven,
        "both halves have the same sign of the sine; one has a minus": EXACT.rope(
            x, both, np.abs(signed) * np.sign(np.concatenate([sin, sin], axis=-1))
        ),
    }
    given = x.copy()
    got = rope(given, cos, sin)
    require(
        np.array_equal(given, x),
        "x has been changed in place, so that the second half was made of the new first one; "
        "make a new array",
    )
    _same(got, expected, hints, "widen both halves to float64, and narrow at the end")


@exercise
def check_attention(attention: Callable[..., np.ndarray]) -> None:
    """Causal attention with shared heads, against the library's."""
    for heads, groups in ((1, 1), (4, 4), (4, 2), (6, 2)):
        q, k, v = (_drawn(seed, 5, n, 8) for seed, n in ((4, heads), (5, groups), (6, groups)))
        k, v = EXACT.settle(k), EXACT.settle(v)
        everybody = np.arange(5)
        causal = partial(EXACT.attention, sight=Sight(everybody, everybody))
        scale = 1 / math.sqrt(8)

        tiled = [head % groups for head in range(heads)]
        unmasked = EXACT.attention(q, k, v, Sight(np.full(5, 9), everybody), scale)
        hints = {
            "later tokens are read too: where is the causal mask?": unmasked,
            "the scores are not divided by sqrt(d)": causal(q, k, v, scale=1.0),
            "the scores are divided by d, and not by its root": causal(q, k, v, scale=1 / 8),
            "a score of 0 is a score; what is hidden needs -inf": _hidden_by_zero(q, k, v, scale),
            "query heads read the key heads in turn; neighbours share one": causal(
                q, k[:, tiled], v[:, tiled], scale=scale
            ),
        }
        got = np.asarray(attention(q, k, v, EXACT))
        where = f"{heads} query heads on {groups}"
        require(
            np.isfinite(got).all(),
            f"{where}: some numbers are not finite; does a token see at least itself?",
        )
        try:
            _same(
                got,
                causal(q, k, v, scale=scale),
                hints,
                "let sums do all that adds, and narrow once",
            )
        except Wrong as wrong:
            raise Wrong(f"{where}: {wrong}") from None


def _hidden_by_zero(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float) -> np.ndarray:
    """Attention of who gives later tokens the score 0."""
    share = q.shape[1] // k.shape[1]
    outputs = []
    for head in range(q.shape[1]):
        read = head // share
        scores = np.tril(EXACT.scores(q[:, [head]], k[:, [read]], scale))
        outputs.append(EXACT.weighted_sum(EXACT.softmax(scores), v[:, [read]]))
    return np.concatenate(outputs, axis=1)


class _Doubled(Exact):
    """An exponential that is off on purpose, so that it shows whose was taken."""

    def exp(self, x: np.ndarray) -> np.ndarray:
        return 2 * super().exp(x)


@exercise
def check_gated(gated: Callable[..., np.ndarray]) -> None:
    """The gate of the MLP, against the library's."""
    gate, up = 4 * _drawn(7, 3, 10), _drawn(8, 3, 10)
    wide = gate.astype(np.float64)
    sigmoid = 1 / (1 + np.exp(-wide))
    hints = {
        "up is missing": wide * sigmoid,
        "silu(t) is t times a sigmoid; the t is missing": sigmoid * up,
        "gate and up have changed places": up / (1 + np.exp(-up.astype(np.float64))) * gate,
        "look at the sign in the exponential": wide / (1 + np.exp(wide)) * up,
        "this is ReLU, which has no exponential": np.maximum(wide, 0) * up,
    }
    _same(
        gated(gate, up, EXACT),
        EXACT.gated(gate, up, "silu"),
        hints,
        "widen, take the exponential from sums, divide, multiply by up, and narrow",
    )
    doubled = _Doubled(context=128)
    require(
        close(gated(gate, up, doubled), doubled.gated(gate, up, "silu")),
        "right here, but the exponential is not that of sums: another machine has another np.exp",
    )


@exercise
def check_block(block: Callable[..., np.ndarray]) -> None:
    """Two additions to the stream, in order, by whole numbers that tell who read what."""
    stream = np.array([[1.0, 2.0], [5.0, -3.0]], dtype=np.float32)
    reads: list[tuple[str, np.ndarray]] = []

    def half(name: str, factor: float) -> Callable[[np.ndarray], np.ndarray]:
        def added(x: np.ndarray) -> np.ndarray:
            reads.append((name, np.array(x)))
            return np.float32(factor) * x[::-1]

        return added

    given = stream.copy()
    got = np.asarray(block(given, half("attend", 10), half("mlp", 100)))
    names = [name for name, _ in reads]
    require(
        names.count("attend") < 2,
        "attend is called twice, for one addition: give the stream between the halves a name",
    )
    require(
        names == ["attend", "mlp"],
        f"called were {names or 'neither half'}, expected attend and then mlp",
    )
    require(
        np.array_equal(given, stream),
        "the stream that was given has been changed in place; make a new one",
    )
    require(np.array_equal(reads[0][1], stream), "attend has to read the stream as it was given")
    added = 10 * stream[::-1]
    require(
        not np.array_equal(reads[1][1], stream),
        "mlp reads the stream as it was before attention; it must read what attention has added to",
    )
    require(
        not np.array_equal(reads[1][1], added),
        "mlp reads what attention gives alone; the stream itself must stay in the sum",
    )
    require(np.array_equal(reads[1][1] - stream, added), "mlp reads another stream than it should")
    left = got - reads[1][1] if got.shape == stream.shape else got
    require(got.shape == stream.shape, f"the shape is {got.shape}, expected {stream.shape}")
    require(
        not np.array_equal(got, 100 * reads[1][1][::-1]),
        "only what mlp gives comes back; it is to be added",
    )
    require(
        np.array_equal(left, 100 * reads[1][1][::-1]), "what comes back is not the sum of three"
    )


@exercise
def check_decoder(decoder: Callable[..., np.ndarray], prepare: Callable[..., Any]) -> None:
    """The whole decoder on random weights: the bits of the library's logits."""
    for layers in (1, 3):
        config = minikv.tiny_config(num_hidden_layers=layers, tie_word_embeddings=True)
        model = minikv.random_model(config, seed=layers, arithmetic="exact")
        w = prepare(random_tensors(config, layers), EXACT)
        got = np.asarray(decoder(w, IDS, config, EXACT))
        expected, seen = model.run_with_cache(IDS)
        last = seen[f"blocks.{layers - 1}.hook_resid_post"]
        where = f"{layers} block{'s' * (layers > 1)}"
        require(
            got.shape != last.shape,
            f"{where}: the shape is {got.shape}, a stream; norm and output matrix come last",
        )
        require(
            got.shape == expected.shape,
            f"{where}: the logits have shape {got.shape}, expected {expected.shape}, all positions",
        )
        bare = EXACT.linear(last, model.weights.lm_head)
        first = model.weights.embed_tokens[np.array(IDS)]
        skipped = EXACT.rms_norm(first, model.weights.norm, config.rms_norm_eps)
        for hint, wrong in {
            "the last norm is missing": bare,
            "no block has run": EXACT.linear(skipped, model.weights.lm_head),
        }.items():
            require(not same_bits(got, wrong), f"{where}: {hint}")
        differ = int((got != expected).sum())
        require(
            same_bits(got, expected),
            f"{where}: {differ} of {got.size} logits have other bits than the library's, the "
            f"largest difference is {np.abs(got - expected).max():.2g}",
        )


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
        right = _read(groups, groups * repeats).tolist()
        require(False, f"{where}: query heads read the key heads {reads}, expected {right}")


def _read(groups: int, heads: int) -> np.ndarray:
    """Which key head each query head reads, asked of the library's scores."""
    k = np.arange(groups, dtype=np.float32)[None, :, None]
    return Float32().scores(np.ones((1, heads, 1), np.float32), k, 1.0)[:, 0, 0].astype(int)


def _shared(share: Callable[..., np.ndarray], tokens: int, groups: int, repeats: int) -> bool:
    keys = np.arange(tokens * groups * 2.0).reshape(tokens, groups, 2)
    expected = keys[:, _read(groups, groups * repeats)]
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
