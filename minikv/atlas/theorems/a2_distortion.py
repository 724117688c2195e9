r"""Rounded keys and values move a head's output by <= 2 tanh(delta/2) max|v - c| + eta.

Let each score move from $x_i$ to $y_i$ with $a \le y_i - x_i \le a + 2\delta$ for some $a$, and
each value by at most $\eta$. Then, for any centre $c$,

$$\lVert o - o' \rVert \le 2 \tanh(\delta / 2) \max_i \lVert v_i - c \rVert + \eta .$$

What is added to all scores alike moves nothing. *Proof.* With $h = e^a$, $t = e^\delta$ and $z$ the
mean of $e^{y_i - x_i}$, each $|e^{y_i - x_i} / z - 1|$ lies under its chord on $[h, h t^2]$, whose
mean is at most $2 (t - 1) / (t + 1)$: the difference is the square of $z - h t$. So the weights
move by $2 \tanh(\delta / 2)$ in all, and the triangle inequality does the rest. The factor is
attained for every $\delta$, and so is $\eta$.
*Check.* Every layer with keys and values rounded to a few bits, in float64; layer 0 of the decoder
itself through a rounded cache; and two keys that attain the factor.
*Control.* Without eta: rounded values move outputs though no score moves.
"""

from __future__ import annotations

import math

import numpy as np

from ...arrays import Array, to_numpy
from ...caches import Cache
from ...memory import Memory
from ...verify.bits import Refuted
from ...verify.cases import Case
from ...verify.theorem import Theorem
from ..attending import attention_of
from ..quantising import distortion, excess, softmax, stored
from ..systems.kv_tuner import equal

BITS = (2, 4, 8, 16)


def check(case: Case) -> None:
    """Rounded keys and values, head by head, against the bound."""
    rng = case.rng
    check_attained(float(rng.choice([0.01, 0.1, 1.0, 5.0])))
    for found in case.steps(list(attention_of(case))):
        key_bits, value_bits = (int(bits) for bits in rng.choice(BITS, 2))
        k = stored(found.k, key_bits, found.layer)
        v = stored(found.v, value_bits, found.layer)
        where = f"layer {found.layer.index}"
        for before, after, bits in ((found.k, k, key_bits), (found.v, v, value_bits)):
            if bits < max(BITS) and not excess(before, after, bits) <= 1:
                raise Refuted(f"{where}: a number of {bits} bits is off by more than half a step")
        heads = zip(found.last(found.k, found.v), found.last(k, v), strict=True)
        for head, ((scores, values), (moved_scores, moved_values)) in enumerate(heads):
            check_head((scores, moved_scores), (values, moved_values), f"{where} head {head}")
    check_decoder(case, int(rng.choice(BITS)), int(rng.choice(BITS)))


def check_head(
    scores: tuple[np.ndarray, np.ndarray], values: tuple[np.ndarray, np.ndarray], where: str
) -> None:
    """The bound of the output, and of the weights; ``(S,)`` twice, ``(S, d)`` twice."""
    moved, bound = distortion(scores, values)
    if not moved <= bound:
        raise Refuted(f"{where}: moved {moved}, bound {bound}")
    ones = np.eye(len(scores[0]))  # as values, they give the weights themselves
    weights = float(np.abs(softmax(scores[0]) - softmax(scores[1])).sum())
    bound = distortion(scores, (ones, ones))[1]
    if not weights <= bound:
        raise Refuted(f"{where}: weights moved by {weights}, bound {bound}")


def check_attained(delta: float) -> None:
    """Two keys of opposite values, the first of weight 1 / (1 + e^delta), reach the bound."""
    scores = np.array([0.0, delta])
    values = np.array([[-1.0], [1.0]])
    moved, bound = distortion((scores, scores[::-1]), (values, values))
    if not bound * (1 - 1e-9) <= moved <= bound:  # `distortion` adds 1e-12, to 0.01 at least
        raise Refuted(f"delta {delta}: moved {moved}, which does not attain {bound}")


def check_decoder(case: Case, key_bits: int, value_bits: int) -> None:
    """What the last token gets at layer 0 through a rounded cache, beside the full one's.

    Either output is rounded, as in T9; scores are those that attention really took.
    """
    full = case.model.new_cache("full")
    rounded = equal(case.model, (key_bits, value_bits))
    exact = last_at_layer_0(case, full, full)
    lossy = last_at_layer_0(case, rounded, rounded.inner)
    groups = exact.values.shape[1]
    share = len(exact.z) // groups
    tokens, head_dim = len(case.ids), exact.values.shape[2]
    rounding = 4 * (2 * tokens + math.sqrt(head_dim) + 8) * 2.0**-24
    for head in range(len(exact.z)):
        seen = np.isfinite(exact.scores[head])
        scores = (exact.scores[head][seen], lossy.scores[head][seen])
        values = (exact.values[seen, head // share], lossy.values[seen, head // share])
        bound = distortion(scores, values)[1]
        bound += rounding * max(float(np.linalg.norm(rows, axis=1).max()) for rows in values)
        moved = float(np.linalg.norm(lossy.z[head] - exact.z[head]))
        if not moved <= bound:
            raise Refuted(
                f"K of {key_bits}, V of {value_bits} bits: head {head} of layer 0 moved {moved}, "
                f"bound {bound}"
            )


class Seen:
    """The last token's attention at layer 0, in float64, as a hook sees it."""

    def __init__(self) -> None:
        self.taken: dict[str, np.ndarray] = {}

    def __call__(self, name: str, value: Array) -> Array:
        if name in ("blocks.0.attn.hook_attn_scores", "blocks.0.attn.hook_z"):
            self.taken[name.rpartition("_")[2]] = to_numpy(value, dtype=np.float64)
        return value

    @property
    def scores(self) -> np.ndarray:
        """``(H, S)``; minus infinity where a key is out of sight."""
        return self.taken["scores"][:, -1]

    @property
    def z(self) -> np.ndarray:
        """``(H, d)``."""
        return self.taken["z"][-1]

    values: np.ndarray  # (S, G, d)


def last_at_layer_0(case: Case, memory: Memory, cache: Cache) -> Seen:
    """Decode a case through a memory, which keeps all tokens in a full cache, and look on."""
    seen = Seen()
    case.decoded(memory, seen)
    seen.values = cache.state()[0]["v.0"].astype(np.float64)
    return seen


def control(case: Case) -> str:
    """How many heads move further than scores alone account for, where values have two bits."""
    heads = further = 0
    for found in attention_of(case):
        v = stored(found.v, min(BITS), found.layer)
        for (scores, values), (_, coarse) in zip(
            found.last(found.k, found.v), found.last(found.k, v), strict=True
        ):
            moved, _ = distortion((scores, scores), (values, coarse))
            _, without = distortion((scores, scores), (values, values))
            heads += 1
            further += moved > without
    return f"{further} of {heads} heads move though no score does" if further else ""


THEOREM = Theorem(
    id="A2",
    name="distortion",
    text=__doc__,
    formula="‖<i>o</i> − <i>o</i>′‖ ≤ 2 tanh(<i>δ</i>/2) max‖<i>v</i> − <i>c</i>‖ + <i>η</i>",
    remark="Weights move by 2 tanh(<i>δ</i>/2) in all, whatever is added to all scores alike.",
    check=check,
    control=control,
    dropped="eta",
    abstract="Distortion.distortion",
    scope="an inequality; the centre 0",
    unlabelled="about values",
)
