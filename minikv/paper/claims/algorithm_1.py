"""Algorithm 1 and equations 24 to 26: what is stored on eviction, and what gives K and V back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...config import ModelConfig, expected_shapes
from ...model import Model
from ..claim import Claim, Figures, Finding, Setting, Verdict
from ..decoded import decode
from ..recomputed import Filled, difference, digest, filled, projected
from ..texts import long_text

TOKENS = 32
BUDGET = 8  # tokens whose K and V are kept
NEW = 4  # tokens that are chosen after them

Row = dict[str, Any]


def multiply_adds(config: ModelConfig) -> dict[str, int]:
    """What it takes a token to have K and V of all layers back, in products with matrices.

    By projection: the matrices of K and V of each layer. By replay from the embedding: all matrices
    of all blocks but the last, and the last one's of K and V.
    """
    last = f"model.layers.{config.num_hidden_layers - 1}."
    projection = 0
    replay = 0
    for name, shape in expected_shapes(config).items():
        if not name.startswith("model.layers.") or len(shape) < 2:
            continue
        of_kv = "k_proj" in name or "v_proj" in name
        projection += math.prod(shape) * of_kv
        if of_kv or not name.startswith(last):
            replay += math.prod(shape)
    return {"projection": projection, "replay": replay}


def by_projection(model: Model, held: Filled, kept: str) -> Filled:
    """K and V of all layers by a projection of what is kept of the stream."""
    streams = held.streams
    if kept == "embedding":  # the one vector that equations 24, 25 and 28 count
        streams = streams[:1] * len(streams)
    return projected(model, streams)


def measured(model: Model, ids: Sequence[int], kept: str) -> Row:
    """What projecting from each gives, and what a cache that keeps it decodes and holds."""
    held = filled(model, ids, [len(ids)])
    found = difference(held, by_projection(model, held, kept))
    full = decode(model, ids, model.new_cache("full"), NEW)
    cache = model.new_cache("residual", budget=BUDGET, checkpoints=kept)
    ours = decode(model, ids, cache, NEW)
    return {
        "kept": kept,
        "projected": found.to_json(),
        "same_logits": bool((full.logits.view("u4") == ours.logits.view("u4")).all()),
        "bytes": cache.nbytes,
        "sha256": digest(held),
    }


def run(setting: Setting) -> Finding:
    """Store each, and make K and V again by each rule."""
    name = setting.names[0]
    model = setting.model(name, "exact")
    tokens = setting.choose(TOKENS, 2 * BUDGET)
    ids = long_text(model, tokens)
    measurements = [measured(model, ids, kept) for kept in ("every", "embedding")]
    seen = tokens + NEW - 1  # the last token that is chosen is not read
    full = seen * model.config.kv_bytes_per_token("float32")
    work = multiply_adds(model.config)
    every, one = measurements
    layers = len(model.layers)
    rows = [
        (
            "a residual at every layer (algorithm 1)",
            "one projection a layer (equation 26, T1)",
            f"{every['projected']['k_layers']} of {layers}",
            every["same_logits"],
            every["bytes"] / full,
            work["projection"],
        ),
        (
            "one residual for all (equations 24, 25, 28)",
            "one projection a layer (equation 26)",
            f"{one['projected']['k_layers']} of {layers}",
            None,
            one["bytes"] / full,
            work["projection"],
        ),
        (
            "one residual for all (equations 24, 25, 28)",
            "replay of the blocks (T5)",
            f"0 of {layers}" if one["same_logits"] else "some",
            one["same_logits"],
            one["bytes"] / full,
            work["replay"],
        ),
    ]
    figures = {
        "model": name,
        "layers": layers,
        "full": full,
        "work": work,
        "exact": measurements,
    }
    columns = (
        "stored of an evicted token",
        "K and V back by",
        "layers with other K or V",
        "logits = full cache's, all bits",
        "bytes / full cache",
        "multiply-adds a token",
    )
    return Finding(*told(figures), columns, tuple(rows), figures)


def told(figures: Figures) -> tuple[Verdict, str]:
    """Whether both give every bit, with how much memory and work."""
    every, one = figures["exact"]
    work = figures["work"]
    if every["projected"]["numbers"] or not every["same_logits"] or not one["same_logits"]:
        return Verdict.REFUTED, "Some K, V or logits have other bits: see the table."
    return Verdict.ONE_READING, (
        "With a residual at every layer, one projection a layer gives every bit of K and V back, "
        f"and the cache holds {every['bytes'] / figures['full']:.2g} times the bytes of the full "
        "one here (Table 1 has the other models). With the one residual that equations 24, 25 and "
        f"28 count, a projection gives other K and V in {one['projected']['k_layers']} of "
        f"{figures['layers']} layers (the counter-example), and replay gives every bit back for "
        f"{work['replay'] / work['projection']:.3g} times the multiply-adds that equation 26 "
        "counts."
    )


CLAIM = Claim(
    id="algorithm-1",
    where="Algorithm 1 and equations 24 to 26",
    title="Evicted K and V come back from the residual by one projection a layer",
    says=(
        "on eviction a residual is stored for each layer, and K and V are projected from it; the "
        "equations count one vector of D numbers a token for all layers (24, 25) and one "
        "projection a layer as the cost (26)."
    ),
    protocol=(
        f"SmolLM2, exact: our text of {TOKENS} tokens and {NEW} chosen ones with a budget of "
        f"{BUDGET}; K and V projected from the stream of every layer, and from that of the first; "
        "caches that keep either, decoded beside the full cache."
    ),
    models=("smollm2-135m-instruct",),
    run=run,
    told=told,
    exact=("exact",),
)
