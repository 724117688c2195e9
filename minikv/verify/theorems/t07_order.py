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
from ..cases import Case, same_bits
from ..theorem import EXACT_SUMS, Theorem, refuted_in_float32


def check(case: Case) -> None:
    """The model's own sums do not depend on the order of their terms."""
    arithmetic = case.model.arithmetic
    weight = case.model.layers[0].k_proj
    x = case.activations["blocks.0.ln1.hook_normalized"]
    order = arithmetic.xp.asarray(case.rng.permutation(x.shape[1]))
    permuted = permuted_columns(weight, order)
    product = arithmetic.linear(x, weight)
    square = arithmetic.mean_square(x)
    same_bits(arithmetic.linear(x[:, order], permuted), product, "a product, columns permuted")
    same_bits(arithmetic.mean_square(x[:, order]), square, "a mean of squares, permuted")


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
    remark="Every partial sum is a multiple of <i>u</i> of at most 2<sup>53</sup> steps, hence a "
    "binary64 number, hence not rounded.",
    hypotheses=(EXACT_SUMS,),
    check=check,
    control=refuted_in_float32(check),
    dropped=EXACT_SUMS,
    unlabelled="about values",
)
