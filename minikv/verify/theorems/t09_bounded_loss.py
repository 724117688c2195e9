r"""Dropping mass eps moves an output by <= 2 eps max|v|.

Drop keys of softmax mass $\varepsilon < 1$ and renormalise the rest. The output of that head moves
by

$$\lVert o - o' \rVert \le 2\,\varepsilon \max_s \lVert v_s \rVert .$$

*Proof.* Dropping takes $\varepsilon$ from the weights, renormalising spreads $\varepsilon$ over the
rest: $\sum_s |a_s - a'_s| = 2\varepsilon$, and the triangle inequality does the rest. The 2 is
attained.
*Check.* What each policy's cache gives the last token at layer 0; for all layers, and random
droppings, the inequality itself, on the weights recorded there.
*Control.* It is a bound and not zero: with half of the budget each of five eviction policies
changes the logits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ...arrays import Array, to_numpy
from ...caches import POLICIES, Cache, Evicting
from ..bits import Refuted, differ
from ..cases import Case
from ..memories import Watching
from ..theorem import Plot, Theorem, Weaker


def check(case: Case) -> None:
    """Dropping softmax mass eps moves one attention output by at most 2 eps max|v|.

    For each eviction policy: the last token's output at layer 0, where queries, keys and values do
    not depend on what was dropped before, beside the full cache's. And for each head of each
    layer, in float64, with what the policies kept and random droppings.
    """
    kept = check_policies(case)
    kept += [case.rng.random(len(case.ids)) < share for share in (0.2, 0.5, 0.9)]
    for layer in case.model.layers:
        for head, (weights, v) in enumerate(heads(case, layer.index)):
            for keep in kept:
                loss, bound = attention_loss(weights, v, keep)
                if not loss <= bound:  # NaN is no bounded loss
                    raise Refuted(f"layer {layer.index} head {head}: moved {loss}, bound {bound}")


def check_policies(case: Case) -> list[np.ndarray]:
    """Layer 0 under each policy; returns which tokens were kept, once for each group of heads.

    Either output is rounded: S weights and their sum move it by (2 S + sqrt(d) + 8) u max|v| at
    most, u = 2**-24 (under `Float32` of Numba by its fused chains, under `Exact` by its grids,
    where d <= 256), and eps by the same share.
    """
    tokens = len(case.ids)
    _, full = last_at_layer_0(case, case.model.new_cache("full"))
    kept: list[np.ndarray] = []
    for budget in {1, max(1, tokens // 2)}:
        for cache in case.steps(list(evicting(case, budget))):
            attended, z = last_at_layer_0(case, cache)
            groups = [np.isin(np.arange(tokens), group) for group in attended.T]
            kept += groups
            for head, (weights, v) in enumerate(heads(case, 0)):
                keep = groups[head * len(groups) // len(z)]
                moved = float(np.linalg.norm(z[head] - full[head]))
                rounding = 4 * (2 * tokens + math.sqrt(v.shape[1]) + 8) * 2.0**-24
                bound = attention_loss(weights, v, keep)[1] + rounding * longest(v)
                if not moved <= bound:
                    raise Refuted(
                        f"{cache.policy}, budget {budget}: head {head} of layer 0 moved "
                        f"{moved}, bound {bound}"
                    )
    return kept


def attention_loss(weights: np.ndarray, v: np.ndarray, keep: np.ndarray) -> tuple[float, float]:
    """How far dropping ``~keep`` moves ``weights @ v``, and T9's bound; ``(S,), (S, d), (S,)``.

    1e-12 * max|v| allows for the rounding of two quotients of two sums, by Higham's bound at most
    4 gamma_{S+2} <= 1e-12 for up to 2,200 keys.
    """
    eps = float(weights[~keep].sum() / weights.sum())
    bound = (2 * eps + 1e-12) * longest(v)
    if not weights[keep].sum() > 0:
        return 0.0, bound  # everything dropped: nothing left to renormalise
    exact = weights @ v / weights.sum()
    dropped = weights[keep] @ v[keep] / weights[keep].sum()
    return float(np.linalg.norm(exact - dropped)), bound


def longest(v: np.ndarray) -> float:
    """The largest norm of a row; ``(S, d)``."""
    return float(np.sqrt((v * v).sum(axis=1)).max())


def heads(case: Case, layer: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each head, the weights of the last token and the values, in float64."""
    pattern, values = (
        to_numpy(case.activations[f"blocks.{layer}.attn.hook_{name}"], dtype=np.float64)
        for name in ("pattern", "v")
    )
    share = pattern.shape[0] // values.shape[1]
    for head, weights in enumerate(pattern[:, -1]):
        yield weights, values[:, head // share]


def evicting(case: Case, budget: int) -> Iterator[Cache]:
    """A cache of each eviction policy; positions stay those in the text, as T9 supposes."""
    options = {"streaming_llm": {"sinks": budget // 2, "reposition": False}}
    for name, policy in POLICIES.items():
        if issubclass(policy, Evicting):
            yield case.model.new_cache(name, budget=budget, **options.get(name, {}))


def last_at_layer_0(case: Case, cache: Cache) -> tuple[np.ndarray, np.ndarray]:
    """At which positions the last token attends through `cache`, ``(S, G)``; its z, ``(H, d)``."""
    outputs: dict[str, Array] = {}

    def look(name: str, value: Array) -> Array:
        outputs[name] = value
        return value

    memory = Watching(cache)
    case.decoded(memory, look)
    z = to_numpy(outputs["blocks.0.attn.hook_z"], dtype=np.float64)[-1]
    groups = case.config.num_key_value_heads
    attended = memory.attended[0]
    return np.broadcast_to(attended.T, (groups, len(attended))).T, z


def control(case: Case) -> str:
    """Whether every eviction policy with half the budget changes the logits of this case."""
    full = case.decoded(case.model.new_cache("full"))
    caches = evicting(case, max(1, len(case.ids) // 2))
    lost = all(differ(case.decoded(cache), full) for cache in caches)
    return "the logits differ under every policy" if lost else ""


def losses(case: Case) -> list[tuple[float, float]]:
    """Each key dropped from each head of layer 0: log10 of T9's bound and of the distance."""
    tokens = len(case.ids)
    found = [
        attention_loss(weights, v, keep)
        for keep in ~np.eye(tokens, dtype=bool)
        for weights, v in heads(case, 0)
    ]
    return [(math.log10(bound), math.log10(loss)) for loss, bound in found if loss > 0]


THEOREM = Theorem(
    id="T9",
    name="bounded loss",
    text=__doc__,
    formula="‖<i>o</i> − <i>o</i>′‖ ≤ 2 <i>ε</i> max<sub><i>p</i></sub>‖<i>v<sub>p</sub></i>‖",
    remark="Renormalising moves the dropped mass <i>ε</i> to the kept keys: the weights change by "
    "<i>ε</i> on each side, 2<i>ε</i> in all. An inequality, checked in float64. The control: with "
    "half of the budget every eviction policy changes the logits.",
    check=check,
    control=control,
    dropped="half of the budget",
    abstract="Bounded.bounded_loss",
    scope="an inequality",
    unlabelled="about values",
    plot=Plot(
        caption="Each point is a head of layer 0 from which one key was dropped, at the last "
        "position. T9 says that no point lies further up than across. The bound allows 1e-12 "
        "max‖<i>v</i>‖ for rounding: there the keys gather that weigh next to nothing.",
        across="log₁₀ of the bound",
        up="log₁₀ of the distance",
        points=losses,
    ),
    weaker=(
        Weaker(
            "three-eps",
            old="(2 * eps + 1e-12)",
            new="(3 * eps + 1e-12)",
            noticed="evicted-values-enlarged",
            seed=8,
        ),
        Weaker(
            "policies-unseen",
            old="kept = check_policies(case)",
            new="kept = []",
            noticed="evicted-values-of-the-first",
        ),
        Weaker(
            "nothing-dropped",
            old="for budget in {1, max(1, tokens // 2)}:",
            new="for budget in {tokens}:",
            noticed="evicted-values-of-the-first",
        ),
        Weaker(
            "random-droppings-unseen",
            old="for keep in kept:",
            new="for keep in ():",
            noticed="weights-may-be-negative",
        ),
        Weaker(
            "layer-0-alone",
            old="for layer in case.model.layers:",
            new="for layer in case.model.layers[:1]:",
            noticed="weights-seen-above-layer-0-may-be-negative",
        ),
    ),
)
