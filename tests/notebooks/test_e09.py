"""Chapter 9: each check accepts its solution, and says what is wrong with usual mistakes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="the checks search for counter-examples with it")
from exercises import e09
from solutions import s09

SOLUTIONS = {
    "attainable": s09.attainable,
    "step_bytes": s09.step_bytes,
    "enough": s09.enough,
    "recompute_ratio": s09.recompute_ratio,
    "lanes": s09.lanes,
    "bytes_enough": s09.bytes_enough,
}


def without_o_proj(c, context, s):
    missing = c.num_hidden_layers * c.hidden_size * c.num_attention_heads * c.head_dim
    return s09.step_bytes(c, context, s) - s * missing


def without_k_and_v(c, context, s):
    return s09.step_bytes(c, 0, s)


def of_full_heads(c, context, s):
    more = 2 * c.num_hidden_layers * context * c.head_dim
    return s09.step_bytes(c, context, s) + s * more * (
        c.num_attention_heads - c.num_key_value_heads
    )


def off_by_one(n, k, s, ridge):
    b = s09.enough(n, k, s, ridge)
    return None if b is None else b + 1


def without_activations(n, k, s, ridge):
    return max(1, -(-int(ridge * s) // 2))


def summed(D, G, d, s, bandwidth, peak):
    read = 2 * G * d * s / bandwidth
    return (D * s / bandwidth + 4 * D * G * d / peak) / read


def in_order(x, w, n):
    return s09.lanes(x, w, 1)


def without_the_rest(x, w, n):
    whole = len(x) // n * n
    return s09.lanes(x[:whole], w[:whole], n)


def in_blocks(x, w, n):
    return s09.lanes(
        np.array(
            [
                s09.lanes(*part, 1)
                for part in zip(np.array_split(x, n), np.array_split(w, n), strict=True)
            ]
        ),
        np.ones(n),
        n,
    )


def by_float16(w):
    with np.errstate(over="ignore"):
        return next(t().itemsize for t in (np.float16, np.float32, float) if (t(w) == w).all())


def by_range(w):
    return 2 if np.abs(w).max() < 2.0**127 else 8


MISTAKES = [
    ("attainable", lambda i, b, p: max(p, i * b), "you have 2.0"),
    ("attainable", lambda i, b, p: i * b, "bound by arithmetic"),
    ("attainable", lambda i, b, p: min(p, b / i), "you have"),
    ("attainable", lambda i, b, p: None, "returned None"),
    ("step_bytes", without_o_proj, "q_proj is left out"),
    ("step_bytes", without_k_and_v, "the stored K and V is left out"),
    ("step_bytes", of_full_heads, "expected"),
    ("step_bytes", lambda c, n, s: s09.step_bytes(c, n, 4), "right for one shape"),
    ("enough", off_by_one, "you say 2, expected 1"),
    ("enough", without_activations, "However large the batch"),
    ("enough", lambda *case: s09.enough(*case) or 1, "expected None"),
    ("recompute_ratio", summed, "take the longer, not the sum"),
    ("recompute_ratio", lambda *case: 1 / s09.recompute_ratio(*case), "This is the inverse"),
    ("recompute_ratio", lambda D, G, d, *rest: D / (2 * G * d), "computing"),
    ("lanes", in_order, "This is the sum in order"),
    ("lanes", without_the_rest, "fewer than n, are left out"),
    ("lanes", in_blocks, "which add up"),
    ("lanes", lambda x, w, n: s09.lanes(x, np.ones(len(x)), n), "right where w is 1"),
    ("lanes", lambda x, w, n: None, "returned None"),
    ("bytes_enough", by_float16, "need 4 bytes"),
    ("bytes_enough", by_range, "need 4 bytes (24 digits"),
    ("bytes_enough", lambda w: s09.bytes_enough(w[:1]), "need 4 bytes"),
    ("bytes_enough", lambda w: w.itemsize, "the weights [1.0] need 2 bytes"),
]


@pytest.mark.parametrize("name", SOLUTIONS)
def test_the_solution_is_accepted(name):
    assert getattr(e09, f"check_{name}")(SOLUTIONS[name])


@pytest.mark.parametrize(("name", "mistake", "words"), MISTAKES)
def test_a_mistake_is_explained(name, mistake, words, capsys):
    assert not getattr(e09, f"check_{name}")(mistake)
    said = capsys.readouterr().out
    assert said.startswith("Not yet: ")
    assert words in said, said
