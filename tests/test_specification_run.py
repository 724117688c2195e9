"""The formulas of docs/exact.md, run as they stand there, have the known answers.

What the page writes is Python but for its notation: a row stands for its elements, and each line is
for all of them. So the page itself is one more implementation, and a number of it that is changed
has other answers.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import pytest
import python_answers
from check_vectors import vectors
from python_answers import Line

from minikv.arithmetic import elementary
from minikv.config import FAMILIES, FULL, ModelConfig
from minikv.rotary import rope_frequencies
from minikv.weights import expected_shapes

SPECIFICATION = (Path(__file__).parents[1] / "docs" / "exact.md").read_text(encoding="utf-8")
Notation = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
OF_ROWS: Notation = (
    (r"#.*", ""),
    (r"-?0x[0-9a-f.]+p[+-]\d+", lambda found: repr(float.fromhex(found[0]))),
    (r"_\(i\+half\)", "_half"),
    (r"SUM_s (\w+) \* (\w+)", r"(\1 @ \2)"),
    (r"\b([A-Za-z]+)_(?:ni|si|i|s|n)\b", r"\1"),
    (r"\|([^|]+)\|", r"abs(\1)"),
    (r"\bmax (abs\([^()]*\)|\([^()]*\)|score\b)", r"largest(\1)"),
    (r"SUM ((?:\w+\([^()]*\)|\w+)(?: \* \w+)*)", r"SUM(\1)"),
    (r"\bfloat\(", "single("),
)
"""From what sections 3 and 4 write to Python: rows are arrays, and their indices go."""
OF_THE_DECODER: Notation = (
    (r"#.*", ""),
    (r"(\w) \+ bias", r"single(\1 + \1_bias)"),
    (r"q, k = rms_norm of each head.*", "q, k = rms_norm(q, q_norm), rms_norm(k, k_norm)"),
    (r"(\w), (\w) = (rope|settle) of each head", r"\1, \2 = \3(\1), \3(\2)"),
    (r"weighted_sum\(softmax\(scores\(q, k\)\), v\)", "attend(q, k, v)"),
    (r"x = x \+ (\w)", r"x = single(x + \1)"),
    (r"the MLP's norm", "mlp_norm"),
    (r"\bfloat\(", "single("),
)
"""The same of section 6: rows are those of an array, or of its heads."""


def in_python(line: str, notation: Notation) -> str:
    """A line of the page in Python."""
    for pattern, python in notation:
        line = re.sub(pattern, python, line)
    return line.strip()


def single(x: Any) -> Any:
    """Binary64 rounded to binary32."""
    with np.errstate(over="ignore"):
        return np.asarray(x, np.float64).astype(np.float32).astype(np.float64)


def power_below(y: Any) -> Any:
    """The largest power of two that is not above y; 0 for 0."""
    return np.where(np.asarray(y) > 0, np.ldexp(0.5, np.frexp(y)[1]), 0.0)


@functools.cache
def formulas(page: str, name: str) -> list[CodeType]:
    """The formulas of a definition of the page."""
    _, found, behind = page.partition(f"**{name}**")
    assert found, name
    section = re.split(r"\n\*\*|\n##", behind)[0]
    lines = re.findall(r"(?m)^ {4}(.*)$", section)
    assert lines, name
    return [compile(in_python(line, OF_ROWS), line, "exec") for line in lines]


def define(name: str, **given: Any) -> dict[str, Any]:
    """What the formulas of a definition make of what is given."""
    known = WORDS | given
    with np.errstate(all="ignore"):
        for formula in formulas(SPECIFICATION, name):
            exec(formula, known)
    return known


WORDS: dict[str, Any] = {
    "abs": np.abs,
    "max": np.maximum,
    "min": min,
    "largest": lambda x: np.max(x, axis=-1),
    "SUM": lambda x: np.sum(x, axis=-1),
    "bits": int.bit_length,
    "single": single,
    "sqrt": np.sqrt,
    "exp": elementary.exp,
    "sin": elementary.sin,
    "cos": elementary.cos,
    "power_below": power_below,
    "round_to": lambda x, g: define("`round_to(x, g)`", x=x, g=g)["round_to"],
    "total": lambda x: define("`total(x)`", x=x)["total"],
    "grid": lambda x, b: define("`grid(x, b)`", x=x, b=b)["grid"],
    "mean_square": lambda x: define("`mean_square`", x=x, K=len(x))["mean_square"],
}


def wide(rows: np.ndarray) -> np.ndarray:
    """Numbers of a vector, in binary64."""
    return rows.astype(np.float64)


def narrow(rows: Any) -> np.ndarray:
    """Answers that are binary32 numbers."""
    return np.array(rows, np.float64).astype(np.float32)


def of_round_to(line: Line) -> np.ndarray:
    count = line.whole()
    x = line.f64(count)
    return WORDS["round_to"](x, line.f64(count))


def of_grid(line: Line) -> np.ndarray:
    bits = line.whole()
    x = line.f64(line.whole())
    return np.array([WORDS["total"](x), WORDS["grid"](x, bits)])


def linear(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Rows ``(T, K)`` through the rows of a matrix ``(N, K)``."""
    rows = np.array([define("Weights", w=row)["W"] for row in w])
    return np.array([define("`linear`", x=row, W=rows)["y"] for row in x])


def of_linear(line: Line) -> np.ndarray:
    tokens = line.whole()
    width = line.whole()
    outputs = line.whole()
    x = wide(line.f32(tokens, width))
    return narrow(linear(x, wide(line.f32(outputs, width))))


def of_mean_square(line: Line) -> np.ndarray:
    tokens = line.whole()
    x = wide(line.f32(tokens, line.whole()))
    return np.array([WORDS["mean_square"](row) for row in x])


def of_rms_norm(line: Line) -> np.ndarray:
    tokens = line.whole()
    width = line.whole()
    eps = line.number()
    w = line.f64(width)
    x = wide(line.f32(tokens, width))
    return narrow([define("`rms_norm`", x=row, w=w, eps=eps)["y"] for row in x])


def of_settle(line: Line) -> np.ndarray:
    tokens = line.whole()
    x = wide(line.f32(tokens, line.whole()))
    return narrow([define("`settle`", x=row)["y"] for row in x])


def rope(x: np.ndarray, position: int, frequency: np.ndarray) -> np.ndarray:
    """Heads ``(H, d)`` turned."""
    first, second = np.split(x, 2, axis=1)
    found = define("`rope`", x=first, x_half=second, position=position, frequency=frequency)
    return np.concatenate([found["y"], found["y_half"]], axis=1)


def of_rope(line: Line) -> np.ndarray:
    heads = line.whole()
    size = line.whole()
    position = line.whole()
    frequency = wide(line.f32(size // 2))
    return narrow(rope(wide(line.f32(heads, size)), position, frequency))


def gated(x: np.ndarray, up: np.ndarray, gelu: bool) -> np.ndarray:
    """The last formula, for SiLU with y = x and for GELU behind the one of y."""
    known = WORDS | {"x": x, "y": x, "up": up}
    of_y, of_gate = formulas(SPECIFICATION, "`gated`")
    with np.errstate(all="ignore"):
        if gelu:
            exec(of_y, known)
        exec(of_gate, known)
    return known["gated"]


def of_gated(line: Line) -> np.ndarray:
    gelu = bool(line.whole())
    count = line.whole()
    x = wide(line.f32(count))
    return narrow(gated(x, wide(line.f32(count)), gelu))


def of_scores(line: Line) -> np.ndarray:
    keys = line.whole()
    size = line.whole()
    scale = line.number()
    q = wide(line.f32(size))
    k = wide(line.f32(keys, size))
    return define("`scores`", q=q, k=k, scale=scale)["score"] + 0.0


def of_softmax(line: Line) -> np.ndarray:
    context = line.whole()
    score = line.f64(line.whole())
    return define("`softmax`", score=score, context=context)["p"]


def of_weighted_sum(line: Line) -> np.ndarray:
    keys = line.whole()
    size = line.whole()
    p = line.f64(keys)
    v = wide(line.f32(keys, size))
    return narrow(define("`weighted_sum`", p=p, v=v)["z"])


class Decoder:
    """Section 6 of one model: its lines, and what they call."""

    def __init__(self, config: ModelConfig, tensors: Mapping[str, np.ndarray]) -> None:
        self.config = config
        self.tensors = tensors
        self.layer = 0

    def lines(self) -> list[tuple[bool, CodeType]]:
        """Each that this family has, and whether it is of a layer."""
        section = SPECIFICATION.partition("## 6. The decoder")[2].partition("### 6.1")[0]
        found = []
        for line in re.findall(r"(?m)^ {4}(.*)$", section):
            _, _, comment = line.partition("#")
            families = set(re.findall(r"\w+", comment)) & FAMILIES.keys()
            others = bool(families) and self.config.model_type not in families
            if others or line.startswith("for each layer"):
                continue
            code = compile(in_python(line, OF_THE_DECODER), line, "exec")
            found.append((line.startswith("    "), code))
        return found

    def logits(self, ids: list[int]) -> np.ndarray:
        """Of all positions."""
        gelu = self.config.family.hidden_act != "silu"
        known: dict[str, Any] = {
            "id": ids,
            "D": self.config.hidden_size,
            "single": single,
            "sqrt": np.sqrt,
            "linear": linear,
            "gated": lambda x, up: gated(x, up, gelu),
            "rms_norm": self.rms_norm,
            "rope": self.rope,
            "settle": self.settle,
            "attend": self.attend,
            "embedding": self.tensors["model.embed_tokens.weight"],
            "norm": self.tensors["model.norm.weight"],
        }
        known["lm_head"] = self.tensors.get("lm_head.weight", known["embedding"])
        lines = self.lines()
        first = [code for inside, code in lines if not inside]
        for code in first[:-1]:
            exec(code, known)
        for layer in range(self.config.num_hidden_layers):
            self.layer = layer
            known |= self.of_layer()
            for inside, code in lines:
                if inside:
                    exec(code, known)
        exec(first[-1], known)
        return narrow(known["logits"])

    def of_layer(self) -> dict[str, np.ndarray]:
        """The tensors of a layer by the last part of their names, and the norm of its MLP."""
        prefix = f"model.layers.{self.layer}."
        found = {}
        for name, tensor in self.tensors.items():
            if name.startswith(prefix):
                last, kind = name.split(".")[-2:]
                found[last if kind == "weight" else last.replace("proj", kind)] = tensor
        text = " ".join(SPECIFICATION.split())
        there = re.search(r"The MLP's norm is `(\w+)` in (\w+), else `(\w+)`", text)
        its_own, family, other = there.groups()
        found["mlp_norm"] = found[its_own if self.config.model_type == family else other]
        return found

    def rms_norm(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        rows = x.reshape(-1, len(w))
        settings = {"w": w + self.config.family.norm_offset, "eps": self.config.rms_norm_eps}
        made = [define("`rms_norm`", x=row, **settings)["y"] for row in rows]
        return np.array(made).reshape(x.shape)

    def heads(self, x: np.ndarray) -> np.ndarray:
        """Head h of a row is its numbers h d to h d + d - 1."""
        return x.reshape(len(x), -1, self.config.head_dim)

    def rope(self, x: np.ndarray) -> np.ndarray:
        slides = self.config.layer_types[self.layer] != FULL
        frequency = wide(rope_frequencies(self.config, slides))
        rows = [rope(row, position, frequency) for position, row in enumerate(self.heads(x))]
        return np.array(rows).reshape(x.shape)

    def settle(self, x: np.ndarray) -> np.ndarray:
        rows = self.heads(x).reshape(-1, self.config.head_dim)
        return np.array([define("`settle`", x=row)["y"] for row in rows]).reshape(x.shape)

    def attend(self, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        """A query at position t sees those up to t, where it slides above t - sliding_window."""
        keys = self.heads(k)
        values = self.heads(v)
        share = self.config.num_attention_heads // self.config.num_key_value_heads
        slides = self.config.layer_types[self.layer] != FULL
        window = self.config.sliding_window if slides else len(q)
        scale = 1 / np.sqrt(np.float64(self.config.query_pre_attn_scalar))
        context = self.config.max_position_embeddings
        made = []
        for t, row in enumerate(self.heads(q)):
            seen = slice(max(0, t - window + 1), t + 1)
            for head, query in enumerate(row):
                one = keys[seen, head // share]
                score = define("`scores`", q=query, k=one, scale=scale)["score"]
                p = define("`softmax`", score=score, context=context)["p"]
                made.append(define("`weighted_sum`", p=p, v=values[seen, head // share])["z"])
        return np.array(made).reshape(q.shape)


def of_model(line: Line) -> np.ndarray:
    config, ids = python_answers.read_model(line)
    shapes = expected_shapes(config)
    names = python_answers.tensor_order(config)
    tensors = {name: wide(line.f32(*shapes[name])) for name in names}
    return Decoder(config, tensors).logits(ids)


OF_THE_PAGE: dict[str, Callable[[Line], np.ndarray]] = {
    "round_to": of_round_to,
    "grid": of_grid,
    "linear": of_linear,
    "mean_square": of_mean_square,
    "rms_norm": of_rms_norm,
    "settle": of_settle,
    "rope": of_rope,
    "gated": of_gated,
    "scores": of_scores,
    "softmax": of_softmax,
    "weighted_sum": of_weighted_sum,
    "model": of_model,
}


def wrong_answers(monkeypatch: pytest.MonkeyPatch, operation: str) -> Iterator[str]:
    """The vectors of an operation that the page's formulas do not answer, one by one."""
    monkeypatch.setitem(python_answers.OPERATIONS, operation, OF_THE_PAGE[operation])
    asked = [vector for vector in vectors() if vector.operation == operation]
    assert asked
    for one in asked:
        if python_answers.answer(one.line) != one.expected:
            yield one.says


@pytest.mark.parametrize("operation", OF_THE_PAGE)
def test_the_formulas_of_the_page_have_the_known_answers(operation, monkeypatch):
    assert [*wrong_answers(monkeypatch, operation)] == []


@pytest.mark.parametrize(
    ("operation", "old", "new"),
    [
        ("round_to", "s = g * 0x1.8p+52", "s = g * 0x1.8p+51"),
        ("grid", "SUM h_i + SUM l_i", "SUM h_i"),
        ("grid", "grid = 2 * power_below", "grid = power_below"),
        ("linear", "power_below(max |w_i|) * 0x1p-20", "power_below(max |w_i|) * 0x1p-19"),
        ("linear", "grid(x, 32)", "grid(x, 30)"),
        ("mean_square", "power_below(max (x_i * x_i))", "power_below(max |x_i|)"),
        ("rms_norm", "sqrt(mean_square(x) + eps)) * w_i", "sqrt(mean_square(x) + eps))"),
        ("settle", "power_below(max |x_i|) * 0x1p-23", "power_below(max |x_i|) * 0x1p-22"),
        ("rope", "x_(i+half) * (-s) + x_i * c", "x_(i+half) * s + x_i * c"),
        ("gated", "(exp(-y) + 1)", "(exp(-y) + 2)"),
        ("scores", "grid(q * scale, 29)", "grid(q * scale, 30)"),
        ("softmax", "53 - bits(context - 1)", "52 - bits(context - 1)"),
        ("weighted_sum", "grid(a, 29)", "grid(a, 28)"),
        ("model", "q, k = rope of each head", "q = q"),
        pytest.param("model", "# qwen2 alone", "# mistral alone", marks=pytest.mark.slow),
    ],
)
def test_control_a_formula_that_is_changed_has_other_answers(operation, old, new, monkeypatch):
    assert SPECIFICATION.count(old) == 1
    monkeypatch.setitem(globals(), "SPECIFICATION", SPECIFICATION.replace(old, new))
    assert next(wrong_answers(monkeypatch, operation))


TRAITS: dict[str, Callable[[Any], str]] = {
    "bias of q, k, v": lambda family: "yes" if family.qkv_bias else "no",
    "norm of each head of q and k": lambda family: "yes" if family.qk_norm else "no",
    "norms after attention and MLP": lambda family: "yes" if family.sandwich_norms else "no",
    "`norm_offset`": lambda family: f"{family.norm_offset:g}",
    "embedding times sqrt(D)": lambda family: "yes" if family.scaled_embedding else "no",
    "gate": lambda family: {"silu": "SiLU"}.get(family.hidden_act, "GELU"),
}


def test_the_specifications_table_of_traits_is_that_of_the_families():
    lines = SPECIFICATION.partition("| trait |")[2].splitlines()
    names = [name.strip() for name in lines[0].strip(" |").split("|")]
    assert {*names} == {*FAMILIES}
    for line, (trait, told) in zip(lines[2:], TRAITS.items(), strict=False):
        first, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        assert first == trait
        assert cells == [told(FAMILIES[name]) for name in names]


def counted(shape: str, known: Mapping[str, int]) -> int:
    """How many numbers a shape has, such as ``(heads, d)`` or ``(d / 2)``."""
    count = 1
    for length in shape.strip("()").split(","):
        name, _, half = length.strip().partition(" / ")
        count *= known[name] // int(half or 1)
    return count


def expected_words(part: str, words: list[str], known: dict[str, int]) -> list[int]:
    """How many digits each word of a part of a vector has, 0 for a whole number."""
    names = re.fullmatch(r"`([\w ]+)`", part)
    array = re.fullmatch(r"(?:\w+ )?(\([^)]*\)) (32|64)", part)
    if names:
        for name, word in zip(names[1].split(), words, strict=False):
            known[name] = int(word)
        return [0] * len(names[1].split())
    if array:
        return [int(array[2]) // 4] * counted(array[1], known)
    if part.endswith("`*64`"):
        return [16]
    if part == "scaling":
        return [0, 16, 16, 16, 16]
    assert part == "0 for SiLU or 1 for GELU", part
    return [0]


def rows_of_vectors() -> dict[str, tuple[str, str]]:
    """What section 8 says is given and answered, by operation, but for the two told elsewhere."""
    table = SPECIFICATION.partition("| operation | given | answer |")[2].partition("\n\n")[0]
    found = {}
    for line in table.splitlines()[2:]:
        names, given, answer = (cell.strip() for cell in line.strip("|").split("|"))
        for name in re.findall(r"`(\w+)`", names):
            found[name] = (given, answer)
    return found


def digits_of(words: list[str], expected: list[int]) -> list[int]:
    """How many digits words have; 0 for a decimal number where one is expected."""
    pairs = zip(words, expected, strict=True)
    return [0 if not digits and word.isdecimal() else len(word) for word, digits in pairs]


@pytest.mark.parametrize("operation", sorted({*python_answers.OPERATIONS} - {"model", "exp_table"}))
def test_a_vector_gives_and_answers_what_the_table_says_in_that_order(operation):
    given, answer = rows_of_vectors()[operation]
    for vector in (one for one in vectors() if one.operation == operation):
        words = vector.line.split()[1:]
        known: dict[str, int] = {}
        for part in re.split(r", (?![^(]*\))", given):
            expected = expected_words(part, words, known)
            told, words = words[: len(expected)], words[len(expected) :]
            assert digits_of(told, expected) == expected
        assert words == []
        if operation == "grid":
            assert answer == "total and grid, 64"
            expected = [16, 16]
        else:
            expected = expected_words(answer.removesuffix(", each + 0"), [], known)
        assert digits_of(vector.expected.split(), expected) == expected
