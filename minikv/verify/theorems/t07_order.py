r"""Sums do not depend on the order of their terms.

If every product $x_i w_i$ is a multiple of $u = 2^e$, $-1074 \le e \le 970$, and $\sum_i |x_i w_i|
\le 2^{53} u$, then additions in binary64, in any order and association, give $\sum_i x_i w_i$
exactly. *Proof.* Every partial sum is $k u$ with $|k| \le 2^{53}$. Such a number is representable,
so rounding returns it. The arithmetic `exact` makes the premise true: it rounds both factors to
grids coarse enough, and finds the grids by a rule that does not depend on order either.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...arithmetic import Matrix
from ...layers import Layer
from ..bits import assert_same_bits
from ..cases import Case
from ..theorem import EXACT_SUMS, Theorem, Weaker, refuted_in_float32


def check(case: Case) -> None:
    """The model's own sums, of every kind and layer, do not depend on the order of their terms."""
    for layer in case.steps(case.model.layers):
        check_features(case, layer)
        check_attention(case, layer)


def check_features(case: Case, layer: Layer) -> None:
    """Sums over features: products of either width, and the mean of squares."""
    arithmetic = layer.arithmetic
    block = f"blocks.{layer.index}"
    products = {"ln1.hook_normalized": layer.k_proj, "mlp.hook_post": layer.down_proj}
    for name, weight in products.items():
        x = case.activations[f"{block}.{name}"]
        order = case.rng.permutation(x.shape[1])
        product = arithmetic.linear(x[:, order], permuted_columns(weight, order))
        expected = arithmetic.linear(x, weight)
        assert_same_bits(product, expected, f"{block}: a product, columns permuted")
    stream = case.activations[f"{block}.hook_resid_pre"]
    order = case.rng.permutation(stream.shape[1])
    square = arithmetic.mean_square(stream[:, order])
    expected = arithmetic.mean_square(stream)
    assert_same_bits(square, expected, f"{block}: a mean of squares, permuted")


def check_attention(case: Case, layer: Layer) -> None:
    """Sums over a head's numbers (scores), and over keys (softmax, weighted values)."""
    arithmetic = layer.arithmetic
    block = f"blocks.{layer.index}"
    q, k, v, scores, pattern = (
        case.activations[f"{block}.attn.hook_{name}"]
        for name in ("rot_q", "rot_k", "v", "attn_scores", "pattern")
    )
    for name, rows in (("K", k), ("V", v)):
        assert_same_bits(arithmetic.settle(rows), rows, f"{block}: {name}, settled twice")
    scale = case.config.attention_scale
    order = case.rng.permutation(q.shape[2])
    permuted = arithmetic.scores(q[:, :, order], k[:, :, order], scale)
    assert_same_bits(permuted, arithmetic.scores(q, k, scale), f"{block}: scores, heads permuted")
    keys = case.rng.permutation(len(k))
    weights = arithmetic.softmax(scores[:, :, keys])
    assert_same_bits(weights, pattern[:, :, keys], f"{block}: attention weights, keys permuted")
    z = arithmetic.weighted_sum(pattern[:, :, keys], v[keys])
    assert_same_bits(z, arithmetic.weighted_sum(pattern, v), f"{block}: values, keys permuted")


def permuted_columns(weight: Matrix, order: np.ndarray) -> Matrix:
    """A prepared matrix, ``(N, K)``, with its columns in another order."""
    if hasattr(weight, "values"):  # an array, and what is known of it
        return replace(weight, values=weight.values[:, order])
    return weight[:, order]


THEOREM = Theorem(
    id="T7",
    name="order",
    text=__doc__,
    formula="Σ|<i>x<sub>i</sub>w<sub>i</sub></i>| ≤ 2<sup>53</sup><i>u</i> and "
    "<i>x<sub>i</sub>w<sub>i</sub></i> ∈ <i>u</i>ℤ ⟹ every order of binary64 additions gives "
    "Σ<i>x<sub>i</sub>w<sub>i</sub></i>",
    remark="For −1074 ≤ log<sub>2</sub> <i>u</i> ≤ 970. Every partial sum is a multiple of "
    "<i>u</i> of at most 2<sup>53</sup> steps, hence a binary64 number, hence not rounded.",
    hypotheses=(EXACT_SUMS,),
    check=check,
    control=refuted_in_float32(check),
    dropped=EXACT_SUMS,
    abstract="Exactness.order_independent",
    concrete=(
        "Linear.linear_same",
        "Linear.rms_norm_same",
        "Attend.attend_same",
        "Machines.logits_same",
    ),
    scope="sums permuted, each in one other order",
    unlabelled="about values",
    weaker=(
        Weaker(
            "products-in-order",
            old="order = case.rng.permutation(x.shape[1])",
            new="order = np.arange(x.shape[1])",
            noticed="product-in-float32",
        ),
        Weaker(
            "mlp-unseen",
            old=', "mlp.hook_post": layer.down_proj}',
            new="}",
            noticed="product-in-float32-of-the-mlp",
        ),
        Weaker(
            "squares-in-order",
            old="order = case.rng.permutation(stream.shape[1])",
            new="order = np.arange(stream.shape[1])",
            noticed="mean-of-squares-left-to-sum",
        ),
        Weaker(
            "scores-in-order",
            old="order = case.rng.permutation(q.shape[2])",
            new="order = np.arange(q.shape[2])",
            noticed="scores-left-to-blas",
        ),
        Weaker(
            "keys-in-order",
            old="keys = case.rng.permutation(len(k))",
            new="keys = np.arange(len(k))",
            noticed="denominator-in-float32",
        ),
        Weaker(
            "layer-0-alone",
            old="case.steps(case.model.layers)",
            new="case.steps(case.model.layers[:1])",
            noticed="k-not-settled-above-layer-0",
        ),
    ),
)
