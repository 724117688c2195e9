"""The library's own answers to vectors: `make_vectors` writes them, `check_vectors` compares them.

Each answer is taken from `NumpyExact` and from `Exact`, whose bits must agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

import minikv
from minikv.arithmetic import Exact, NumpyExact, elementary
from minikv.arithmetic import exact as grids
from minikv.config import FULL, SLIDING, ModelConfig, RopeScaling
from minikv.families import FAMILIES
from minikv.model import Model
from minikv.rotary import rope_frequencies
from minikv.weights import expected_shapes

EXACT = NumpyExact()


class Line:
    """The words of a vector's line, read one after the other."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.read = 0

    def next(self, count: int) -> list[str]:
        words = self.words[self.read : self.read + count]
        if len(words) != count:
            raise ValueError(f"the vector ends after {len(self.words)} words")
        self.read += count
        return words

    def whole(self) -> int:
        return int(self.next(1)[0])

    def f32(self, *shape: int) -> np.ndarray:
        bits = [int(word, 16) for word in self.next(int(np.prod(shape)))]
        return np.array(bits, dtype=np.uint32).view(np.float32).reshape(shape)

    def f64(self, *shape: int) -> np.ndarray:
        bits = [int(word, 16) for word in self.next(int(np.prod(shape)))]
        return np.array(bits, dtype=np.uint64).view(np.float64).reshape(shape)

    def number(self) -> float:
        return float(self.f64(1)[0])


def elementwise(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[Line], np.ndarray]:
    return lambda line: function(line.f64(line.whole()))


def exp_table(line: Line) -> str:
    return hashlib.sha256(elementary.exp_table().astype("<f8").tobytes()).hexdigest()


def round_to(line: Line) -> np.ndarray:
    count = line.whole()
    x = line.f64(count)
    return grids.round_to(x, line.f64(count))


def grid(line: Line) -> np.ndarray:
    bits = line.whole()
    size = abs(line.f64(1, line.whole()))
    arithmetic = Exact()
    total = arithmetic.total(size)
    found = np.broadcast_to(EXACT.grid(size, EXACT.row_sum(size), bits), total.shape)
    expect_same(arithmetic.grid(size, total, bits), found)
    return np.concatenate([total, found])


def linear(line: Line) -> np.ndarray:
    T = line.whole()
    K = line.whole()
    N = line.whole()
    x = line.f32(T, K)
    w = line.f32(N, K)
    return both(lambda arithmetic: arithmetic.linear(x, arithmetic.weight(w, "w")))


def mean_square(line: Line) -> np.ndarray:
    T = line.whole()
    x = line.f32(T, line.whole())
    return both(lambda arithmetic: arithmetic.mean_square(x))


def rms_norm(line: Line) -> np.ndarray:
    T = line.whole()
    K = line.whole()
    eps = line.number()
    weight = line.f64(K)
    x = line.f32(T, K)
    return both(lambda arithmetic: arithmetic.rms_norm(x, weight, eps))


def settle(line: Line) -> np.ndarray:
    T = line.whole()
    x = line.f32(T, 1, line.whole())
    return both(lambda arithmetic: arithmetic.settle(x))


def read_scaling(line: Line) -> RopeScaling | None:
    kind = line.whole()
    factor = line.number()
    low = line.number()
    high = line.number()
    length = int(line.number())
    if kind == 2:
        return RopeScaling(factor, low, high, length)
    return RopeScaling(factor) if kind == 1 else None


def frequencies(line: Line) -> np.ndarray:
    d = line.whole()
    theta = line.number()
    config = minikv.tiny_config(head_dim=d, rope_theta=theta, rope_scaling=read_scaling(line))
    return rope_frequencies(config)


def rope(line: Line) -> np.ndarray:
    heads = line.whole()
    d = line.whole()
    position = line.whole()
    angle = np.float32(position) * line.f32(d // 2)
    x = line.f32(1, heads, d)

    def turned(arithmetic: Exact) -> np.ndarray:
        wide = angle.astype(np.float64)[None, None]
        cos = arithmetic.cos(wide)
        sin = arithmetic.sin(wide)
        both_cos = np.concatenate([cos, cos], axis=-1)
        both_sin = np.concatenate([-sin, sin], axis=-1)
        return arithmetic.rope(x, both_cos, both_sin)

    return both(turned)


def gated(line: Line) -> np.ndarray:
    activation = "gelu_pytorch_tanh" if line.whole() else "silu"
    count = line.whole()
    gate = line.f32(1, count)
    up = line.f32(1, count)
    return both(lambda arithmetic: arithmetic.gated(gate, up, activation))


def scores(line: Line) -> np.ndarray:
    S = line.whole()
    d = line.whole()
    scale = line.number()
    q = line.f32(1, 1, d)
    k = line.f32(S, 1, d)
    return both(lambda arithmetic: arithmetic.scores(q, k, scale) + 0.0)  # the order's -0 is +0


def softmax(line: Line) -> np.ndarray:
    context = line.whole()
    row = line.f64(1, 1, line.whole())
    return both(lambda arithmetic: arithmetic.softmax(row.copy()), context)


def weighted_sum(line: Line) -> np.ndarray:
    S = line.whole()
    d = line.whole()
    pattern = line.f64(1, 1, S)
    v = line.f32(S, 1, d)
    return both(lambda arithmetic: arithmetic.weighted_sum(pattern.copy(), v))


def model(line: Line) -> np.ndarray:
    config, ids = read_model(line)
    shapes = expected_shapes(config)
    tensors = {name: line.f32(*shapes[name]) for name in tensor_order(config)}

    def logits(arithmetic: Exact) -> np.ndarray:
        return Model(minikv.build(config, tensors, arithmetic)).logits(ids)

    return both(logits, config.max_position_embeddings)


def read_model(line: Line) -> tuple[ModelConfig, list[int]]:
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    names += ("num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings")
    numbers = {name: line.whole() for name in names}
    eps = line.number()
    theta = line.number()
    local = line.number()
    scaling = read_scaling(line)
    scalar = line.number()
    family = {"norm_offset": line.number()}
    tied = bool(line.whole())
    for name in ("qkv_bias", "qk_norm", "sandwich_norms", "scaled_embedding"):
        family[name] = bool(line.whole())
    family["hidden_act"] = "gelu_pytorch_tanh" if line.whole() else "silu"
    window = line.whole()
    kinds = tuple(SLIDING if line.whole() else FULL for _ in range(numbers["num_hidden_layers"]))
    ids = [int(word) for word in line.next(line.whole())]
    kind = next(name for name, known in FAMILIES.items() if vars(known) == family)
    config = ModelConfig(
        **numbers,
        rms_norm_eps=eps,
        rope_theta=theta,
        rope_local_base_freq=local or None,
        rope_scaling=scaling,
        query_pre_attn_scalar=scalar,
        tie_word_embeddings=tied,
        model_type=kind,
        sliding_window=window or None,
        layer_types=kinds,
    )
    return config, ids


def tensor_order(config: ModelConfig) -> list[str]:
    """The names of a model's tensors in the order of section 6.1."""
    family = config.family
    block = ["input_layernorm.weight"]
    block += [f"self_attn.{name}_proj.weight" for name in "qkvo"]
    if family.qkv_bias:
        block += [f"self_attn.{name}_proj.bias" for name in "qkv"]
    if family.qk_norm:
        block += ["self_attn.q_norm.weight", "self_attn.k_norm.weight"]
    block.append("post_attention_layernorm.weight")
    if family.sandwich_norms:
        block += ["pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight"]
    block += [f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")]
    names = ["model.embed_tokens.weight"]
    for index in range(config.num_hidden_layers):
        names += [f"model.layers.{index}.{name}" for name in block]
    names.append("model.norm.weight")
    if not config.tie_word_embeddings:
        names.append("lm_head.weight")
    return names


def both(made: Callable[[Exact], np.ndarray], context: int = 2**17) -> np.ndarray:
    """What both implementations of the library make, which must be one thing."""
    with np.errstate(over="ignore"):
        first = np.asarray(made(NumpyExact(context)))
        expect_same(np.asarray(made(Exact(context))), first)
    return first


def expect_same(one: np.ndarray, other: np.ndarray) -> None:
    if one.tobytes() != other.tobytes():
        raise AssertionError("Exact and NumpyExact differ")


OPERATIONS: dict[str, Callable[[Line], np.ndarray | str]] = {
    "exp": elementwise(elementary.exp),
    "sin": elementwise(elementary.sin),
    "cos": elementwise(elementary.cos),
    "power_below": elementwise(grids.power_below),
    "exp_table": exp_table,
    "round_to": round_to,
    "grid": grid,
    "linear": linear,
    "mean_square": mean_square,
    "rms_norm": rms_norm,
    "settle": settle,
    "frequencies": frequencies,
    "rope": rope,
    "gated": gated,
    "scores": scores,
    "softmax": softmax,
    "weighted_sum": weighted_sum,
    "model": model,
}


def answer(line: str) -> str:
    """The answer to one vector's line, as hexadecimal bits."""
    operation, *words = line.split()
    found = OPERATIONS[operation](Line(words))
    if isinstance(found, str):
        return found
    digits = found.dtype.itemsize * 2
    whole = np.ascontiguousarray(found).view(f"u{found.dtype.itemsize}").reshape(-1)
    return " ".join(f"{int(number):0{digits}x}" for number in whole)
