"""Write the known-answer vectors of docs/exact.md, section 8, into ``vectors/``.

    python proofs/independent/make_vectors.py            # write
    python proofs/independent/make_vectors.py --check    # say whether they would be written anew

Inputs come from raw bits of PCG64 and from lists of edge cases; answers from `minikv`, by way of
`python_answers`. Only a new version of the specification may change a vector.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import python_answers

import minikv
from minikv.arithmetic import elementary
from minikv.config import FULL, SLIDING, ModelConfig, RopeScaling

FOLDER = Path(__file__).parent / "vectors"
Given = list[tuple[str, str]]
Vector = dict[str, object]


def bits(values: object, dtype: str) -> str:
    """Numbers as hexadecimal bits, most significant digit first."""
    array = np.asarray(values, dtype=dtype).reshape(-1)
    digits = array.dtype.itemsize * 2
    whole = array.view(f"u{array.dtype.itemsize}")
    return " ".join(f"{int(number):0{digits}x}" for number in whole)


def f32(values: object) -> str:
    return bits(values, "float32")


def f64(values: object) -> str:
    return bits(values, "float64")


class Draw:
    """Numbers from the raw bits of PCG64, whose stream NumPy guarantees."""

    def __init__(self, seed: int) -> None:
        self.bits = np.random.PCG64(seed)

    def unit(self, *shape: int) -> np.ndarray:
        """Uniform on [-1, 1), 53 bits."""
        raw = self.bits.random_raw(int(np.prod(shape))) >> np.uint64(11)
        return (raw.astype(np.float64) * 2.0**-52 - 1.0).reshape(shape)

    def wide(self, *shape: int, powers: int = 8) -> np.ndarray:
        """Of magnitudes that differ by powers of two, as rows of a real model do; float32."""
        exponents = np.rint(self.unit(*shape) * powers)
        return np.ldexp(self.unit(*shape), exponents.astype(int)).astype(np.float32)


def vector(operation: str, says: str, given: Given) -> Vector:
    line = " ".join([operation, *(value for _, value in given)])
    return {
        "operation": operation,
        "says": says,
        "given": given,
        "expected": python_answers.answer(line),
    }


def exp_with(x: np.ndarray, coefficients: Sequence[float]) -> np.ndarray:
    """exp of x with other coefficients."""
    f = x * elementary.STEPS
    n = np.rint(f)
    f = f - n
    power = elementary.exp_table()[n.astype(int) - elementary.LOWEST * elementary.STEPS]
    q = 0.0
    for coefficient in reversed(coefficients):
        q = (q + coefficient) * f
    return q * power + power


def sin_with(x: np.ndarray, coefficients: Sequence[float]) -> np.ndarray:
    """The sine of x below pi / 4 with other coefficients."""
    square = x * x
    s = 0.0
    for coefficient in coefficients:
        s = (s + coefficient) * square
    return s * x + x


def cos_with(x: np.ndarray, coefficients: Sequence[float]) -> np.ndarray:
    """The cosine of x below pi / 4 with other coefficients."""
    square = x * x
    c = 0.0
    for coefficient in coefficients:
        c = (c + coefficient) * square
    return (c - 0.5) * square + 1.0


def taylor(first: int) -> list[float]:
    """Coefficients of the sine from r**17 down, or of the cosine from r**18."""
    powers = range(first, 2, -2)
    return [(-1) ** (power // 2) / math.factorial(power) for power in powers]


def sensitive(
    function: Callable[[np.ndarray, Sequence[float]], np.ndarray],
    known: Callable[[np.ndarray], np.ndarray],
    coefficients: Sequence[float],
    x: np.ndarray,
) -> np.ndarray:
    """Arguments whose result a coefficient's neighbour would change: two for each, if x has any."""
    sound = function(x, coefficients)
    python_answers.expect_same(sound, known(x))
    found = []
    for index, coefficient in enumerate(coefficients):
        for direction in (-np.inf, np.inf):
            changed = [*coefficients]
            changed[index] = float(np.nextafter(coefficient, direction))
            found += [*x[function(x, changed) != sound][:2]]
    return np.array(found)


def last_places() -> Iterator[Vector]:
    draw = Draw(7)
    x = draw.unit(2**17) * (np.pi / 4)
    says = "arguments whose result the last place of a coefficient changes"
    for name, function, known, coefficients in (
        ("exp", exp_with, elementary.exp, elementary.EXP),
        ("sin", sin_with, elementary.sin, taylor(17)),
        ("cos", cos_with, elementary.cos, taylor(18)),
    ):
        found = sensitive(function, known, coefficients, x)
        yield vector(name, says, [("N", str(found.size)), ("x", f64(found))])


def elementwise() -> Iterator[Vector]:
    draw = Draw(1)
    large = [np.inf, -np.inf, 709.78, 709.7827, 709.79, 1e300, -1e300]
    small = [0.0, -0.0, 1.0, -1.0, 1 / 512, -1 / 512, 3 / 512, 2.0**-60, 1e-320]
    underflowing = [-708.4, -744.0, -745.13, -745.14, -746.0]
    quarters = [np.pi / 4, np.pi / 2, np.pi, 3 * np.pi / 2]
    angles = [0.0, 1.0, 2.0**20, -(2.0**20), 355.0, *quarters]
    edges = {"exp": [*small, *large, *underflowing], "sin": angles, "cos": angles}
    spread = {"exp": 40.0, "sin": 1000.0, "cos": 1000.0}
    for name, values in edges.items():
        x = np.array([*values, *draw.unit(120) * spread[name], *draw.unit(60)])
        yield vector(name, "edges and uniform arguments", [("N", str(x.size)), ("x", f64(x))])
    yield from last_places()
    yield vector("exp_table", "SHA-256 of the table as little-endian binary64", [])


def grids() -> Iterator[Vector]:
    draw = Draw(2)
    edges = [0.0, 1.0, 2.0, 3.0, 4.0, 2.0**-298, 2.0**300, 1 - 2.0**-53, 1 + 2.0**-52, 2 - 2.0**-52]
    y = np.array([*edges, *abs(draw.wide(40, powers=120).astype(np.float64))])
    yield vector("power_below", "edges and 240 binades", [("N", str(y.size)), ("y", f64(y))])
    ties = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -0.0, 0.25, 0.75, 2.0**50 + 0.5])
    x = np.array([*ties, *(draw.unit(40) * 1000)])
    grid = np.array(
        [*np.ones(ties.size), *np.ldexp(1.0, np.rint(draw.unit(40) * 20 - 10).astype(int))]
    )
    given = [("N", str(x.size)), ("x", f64(x)), ("grid", f64(grid))]
    yield vector("round_to", "ties go to even, -0 becomes +0", given)
    rows = {
        "uniform": draw.unit(64),
        "wide": draw.wide(64, powers=30).astype(np.float64),
        "zeros": np.zeros(5),
        "one number": np.array([3.0]),
        # target is near a power of two: the sum decides, and must know no order
        "sum next to a power of two": np.array([2.0**9 / (2.0**9 + 1)] + [2.0**-56] * 40),
        "sum on a power of two": np.array([511 / 512, 1 / 513, 1 / 512 - 1 / 513]),
    }
    for says, row in rows.items():
        for count in (29, 32):
            given = [("bits", str(count)), ("N", str(row.size)), ("x", f64(row))]
            yield vector("grid", says, given)


def sums() -> Iterator[Vector]:
    draw = Draw(3)
    T, K, N = 3, 40, 6
    x = draw.wide(T, K)
    x[1] = 0.0
    w = draw.wide(N, K)
    w[2] = 0.0
    w[3, 0] = np.float32(1 - 2.0**-24)  # rounds up to the next power of two
    w[3, 1:] *= np.float32(2.0**-9)
    shape = [("T", str(T)), ("K", str(K)), ("N", str(N))]
    yield vector("linear", "rows and weights of zero", [*shape, ("x", f32(x)), ("w", f32(w))])
    x = np.array([[2.0**-149, 0.0, -(2.0**-149)], [-1.5, 3e38, 1e-30]])
    w = np.array([[2.0**-20, 1.0, 0.5], [-(2.0**-30), 0.0, 2.0**-30], [-0.0, 0.25, -1.0]])
    shape = [("T", "2"), ("K", "3"), ("N", "3")]
    says = "subnormal numbers, large ones, and no -0"
    yield vector("linear", says, [*shape, ("x", f32(x)), ("w", f32(w))])
    x = draw.wide(4, 24)
    x[2] = 0.0
    shape = [("T", "4"), ("K", "24")]
    yield vector("mean_square", "a row of zeros", [*shape, ("x", f32(x))])
    weight = (1 + draw.unit(24) / 10).astype(np.float32)
    given = [*shape, ("eps", f64(1e-5)), ("weight", f64(weight)), ("x", f32(x))]
    yield vector("rms_norm", "a row of zeros", given)
    x = draw.wide(6, 16)
    x[1] = 0.0
    x[2] = np.float32(2.0**-149)
    x[3, 0] = np.float32(2 - 2.0**-23)
    yield vector("settle", "zeros, subnormals", [("T", "6"), ("d", "16"), ("x", f32(x))])


def scaling(kind: int, *numbers: float) -> Given:
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    values = (*numbers, *([0.0] * (4 - len(numbers))))
    return [
        ("scaling", str(kind)),
        *((name, f64(value)) for name, value in zip(names, values, strict=True)),
    ]


def rotary() -> Iterator[Vector]:
    for d, theta in ((8, 10000.0), (64, 10000.0), (64, 100000.0), (128, 500000.0), (80, 1e6)):
        given = [("d", str(d)), ("theta", f64(theta)), *scaling(0)]
        yield vector("frequencies", f"base {theta:g}", given)
    given = [("d", "32"), ("theta", f64(np.pi * 1000)), *scaling(1, 8.0)]
    yield vector("frequencies", "linear scaling, a base that is no whole number", given)
    given = [("d", "64"), ("theta", f64(500000.0)), *scaling(2, 8.0, 1.0, 4.0, 8192.0)]
    yield vector("frequencies", "Llama 3's scaling", given)
    draw = Draw(4)
    frequency = np.array([1.0, 0.31622776, 0.1, 0.0031622776], dtype=np.float32)
    for position in (0, 1, 7, 8191, 1000003):
        given = [("heads", "3"), ("d", "8"), ("position", str(position))]
        given += [("frequencies", f32(frequency)), ("x", f32(draw.wide(3, 8)))]
        yield vector("rope", f"position {position}", given)
    # x = t sin a, y = t cos a: x cos a - y sin a cancels, and what a product lost shows in float32.
    angle = np.float32(5) * frequency[1]
    size = 1 + abs(draw.unit(120))
    pairs = np.stack([size * np.sin(angle), size * np.cos(angle)], axis=-1)
    given = [("heads", "120"), ("d", "2"), ("position", "5")]
    given += [("frequencies", f32(frequency[1])), ("x", f32(pairs))]
    yield vector("rope", "pairs that cancel: no product is fused with a sum", given)


def gates() -> Iterator[Vector]:
    draw = Draw(5)
    edges = [0.0, -0.0, 1.0, -1.0, 100.0, -100.0, -800.0, 800.0, 1e-40, -1e-40, 3e38, -3e38]
    gate = np.array([*edges, *(draw.unit(100) * 8)])
    up = np.array([*np.ones(len(edges)), *draw.wide(100, powers=3)])
    for number, name in enumerate(("SiLU", "GELU, tanh approximation")):
        given = [("gelu", str(number)), ("N", str(gate.size)), ("gate", f32(gate)), ("up", f32(up))]
        yield vector("gated", name, given)


def attention() -> Iterator[Vector]:
    draw = Draw(6)
    S, d = 10, 8
    k = python_answers.EXACT.settle(draw.wide(S, 1, d, powers=3))
    k[4] = 0.0
    for scale in (1 / np.sqrt(8), 0.25):
        given = [("S", str(S)), ("d", str(d)), ("scale", f64(scale))]
        given += [("q", f32(draw.wide(d, powers=3))), ("k", f32(k))]
        yield vector("scores", "settled keys, one of zeros", given)
    for number in (2**29 + 12345, 2**29 + 777777, 2**30 - 99999999):
        # q * scale rounds to number / 2, half-way between two multiples of its grid, 1
        q = np.array([12345677.0, 0.0])
        given = [("S", "1"), ("d", "2"), ("scale", f64(number / 2 / q[0]))]
        given += [("q", f32(q)), ("k", f32([1.0, 1.0]))]
        yield vector("scores", "a tie, after the product is rounded", given)
    for context in (1, 256, 2**13, 2**14, 2**17, 2**20):
        row = draw.unit(min(40, context)) * 20
        row[30:33] = -np.inf
        given = [("context", str(context)), ("S", str(row.size)), ("scores", f64(row))]
        yield vector("softmax", "keys that are not seen", given)
    v = python_answers.EXACT.settle(draw.wide(S, 1, d, powers=12))
    v[3] = 0.0
    v[5] = np.float32(2.0**-149)
    weights = abs(draw.unit(S))
    weights[7] = 0.0
    weights /= 4.0
    given = [("S", str(S)), ("d", str(d)), ("pattern", f64(weights)), ("v", f32(v))]
    yield vector("weighted_sum", "settled values, of zeros and subnormals too", given)


SMALL = {
    "vocab_size": 19,
    "hidden_size": 10,
    "intermediate_size": 14,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 64,
}
MODELS = {
    "Llama, tied": ModelConfig(**SMALL),
    "Llama, untied, Llama 3's RoPE": ModelConfig(
        **{**SMALL, "max_position_embeddings": 20000},
        rope_theta=500000.0,
        rope_scaling=RopeScaling(8.0, 1.0, 4.0, 32),
        tie_word_embeddings=False,
    ),
    "Mistral, windows": ModelConfig(
        **SMALL, model_type="mistral", layer_types=(SLIDING, SLIDING), sliding_window=5
    ),
    "Qwen 2.5": ModelConfig(**SMALL, model_type="qwen2", rope_theta=1e6),
    "Gemma 3": ModelConfig(
        **SMALL,
        model_type="gemma3_text",
        layer_types=(SLIDING, FULL),
        sliding_window=5,
        query_pre_attn_scalar=5.0,
        rope_theta=1e6,
        rope_local_base_freq=1e4,
        rope_scaling=RopeScaling(8.0),
        rms_norm_eps=1e-6,
    ),
}


def models() -> Iterator[Vector]:
    for seed, (says, config) in enumerate(MODELS.items()):
        tensors = minikv.random_tensors(config, seed, scale=1.5)
        ids = [(i * i * 31 + 7 * i) % config.vocab_size for i in range(13)]
        yield vector("model", says, model_given(config, tensors, ids))


def model_given(
    config: ModelConfig, tensors: Mapping[str, np.ndarray], ids: Sequence[int]
) -> Given:
    """What a vector of a whole model gives, in section 8's order."""
    family = config.family
    shape = [
        ("V", config.vocab_size),
        ("D", config.hidden_size),
        ("F", config.intermediate_size),
        ("L", config.num_hidden_layers),
        ("H", config.num_attention_heads),
        ("G", config.num_key_value_heads),
        ("d", config.head_dim),
        ("context", config.max_position_embeddings),
    ]
    rope = config.rope_scaling
    stretch = scaling(0)
    if rope is not None:
        kind = 1 if rope.kind == "linear" else 2
        numbers = (
            rope.factor,
            rope.low_freq_factor,
            rope.high_freq_factor,
            rope.original_max_position_embeddings,
        )
        stretch = scaling(kind, *(number or 0.0 for number in numbers))
    traits = [
        ("tied", config.tie_word_embeddings),
        ("qkv_bias", family.qkv_bias),
        ("qk_norm", family.qk_norm),
        ("sandwich_norms", family.sandwich_norms),
        ("scaled_embedding", family.scaled_embedding),
        ("gelu", family.hidden_act == "gelu_pytorch_tanh"),
    ]
    slides = " ".join(str(int(kind == SLIDING)) for kind in config.layer_types)
    return [
        *((name, str(value)) for name, value in shape),
        ("eps", f64(config.rms_norm_eps)),
        ("theta", f64(config.rope_theta)),
        ("local theta", f64(config.rope_local_base_freq or 0.0)),
        *stretch,
        ("query_pre_attn_scalar", f64(config.query_pre_attn_scalar or config.head_dim)),
        ("norm_offset", f64(family.norm_offset)),
        *((name, str(int(value))) for name, value in traits),
        ("window", str(config.sliding_window or 0)),
        ("layers that slide", slides),
        ("T", str(len(ids))),
        ("ids", " ".join(map(str, ids))),
        *((name, f32(tensors[name])) for name in python_answers.tensor_order(config)),
    ]


FILES = {
    "elementary": elementwise,
    "grids": grids,
    "sums": sums,
    "rotary": rotary,
    "gates": gates,
    "attention": attention,
    "models": models,
}


def texts() -> Iterator[tuple[Path, str]]:
    """Each file's path and contents."""
    for name, made in FILES.items():
        vectors = [*made()]
        yield FOLDER / f"{name}.json", json.dumps(vectors, indent=1) + "\n"


def main() -> int:
    checking = sys.argv[1:] == ["--check"]
    differ = 0
    for path, text in texts():
        same = path.exists() and path.read_text(encoding="utf-8") == text
        differ += not same
        if not checking:
            path.write_text(text, encoding="utf-8")
        print("same   " if same else "CHANGED", path.name, len(text), "bytes")
    return differ if checking else 0


if __name__ == "__main__":
    sys.exit(main())
