"""Checks of chapter 5: cache, no cache, checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from hypothesis import strategies as st

import minikv

from . import exercise, require, smallest

_CONFIG = minikv.tiny_config(num_hidden_layers=5)
_LAYERS = st.integers(1, 8).flatmap(
    lambda layers: st.tuples(
        st.just(layers),
        st.sets(st.integers(0, layers - 1)).map(lambda kept: tuple(sorted(kept | {0}))),
    )
)


@exercise
def check_held(held: Callable) -> None:
    """5.1: against what a cache counts."""

    def counted(case):
        seen, budget, kept = case
        cache = _model().new_cache("residual", budget=budget, checkpoints=range(kept))
        _model().forward([[1] * seen], [cache], "none")
        return cache.nbytes

    cases = st.tuples(st.integers(1, 6), st.integers(0, 8), st.integers(1, 5))
    bad = smallest(cases, lambda case: held(_CONFIG, *case) != counted(case))
    if bad is None:
        return
    seen, budget, kept = bad
    got, right = held(_CONFIG, *bad), counted(bad)
    kv, one = _CONFIG.kv_bytes_per_token("float32"), _CONFIG.hidden_size * 4
    where = f"{seen} token(s), budget {budget}, {kept} layer(s): {got:,} bytes, expected {right:,}"
    stored, share = min(seen, budget), _CONFIG.num_attention_heads // _CONFIG.num_key_value_heads
    for other, why in (
        (budget * kv + seen * kept * one, "no more tokens can be kept than have been seen"),
        (
            stored * kv + (seen - stored) * kept * one,
            "recent tokens keep a residual too: it is what they will be recomputed from",
        ),
        (stored * kv // 2 + seen * kept * one, "both K and V are kept"),
        (
            stored * kv * share + seen * kept * one,
            "K and V have num_key_value_heads heads, fewer than there are query heads",
        ),
    ):
        require(got != other or not got, f"{where}; {why}")
    require(False, where)


@exercise
def check_blocks_run(blocks_run: Callable) -> None:
    """5.2: the blocks below each layer without a checkpoint."""

    def right(case):
        return [layer - 1 for layer in range(case[0]) if layer not in case[1]]

    bad = smallest(_LAYERS, lambda case: list(blocks_run(case[0], set(case[1]))) != right(case))
    if bad is None:
        return
    got, expected = list(blocks_run(bad[0], set(bad[1]))), right(bad)
    where = f"{bad[0]} layer(s), checkpoints before {list(bad[1])}: you run {got}"
    for block in got:
        require(
            block != bad[0] - 1, f"{where}; block {block} is the last: no K and V come after it"
        )
        require(
            block in expected,
            f"{where}; block {block} need not run: the stream before layer {block + 1} is a "
            "checkpoint",
        )
    for block in expected:
        require(
            block in got,
            f"{where}; without block {block} the stream before layer {block + 1} is missing",
        )
    require(False, f"{where}; expected {expected}, each once and ascending")


@exercise(none_is_an_answer=True)
def check_largest_budget(largest_budget: Callable) -> None:
    """5.3: against trying all budgets."""

    def right(case):
        total, seen, kv, each = case
        fits = [b for b in range(seen + 1) if b * kv + seen * each <= total]
        return max(fits, default=None)

    cases = st.tuples(st.integers(0, 40), st.integers(1, 5), st.integers(1, 9), st.integers(1, 4))
    bad = smallest(cases, lambda case: largest_budget(*case) != right(case))
    if bad is None:
        return
    (total, seen, kv, each), got, expected = bad, largest_budget(*bad), right(bad)
    where = (
        f"total {total}, {seen} token(s), K/V {kv} bytes, checkpoint {each}: you say {got}, "
        f"expected {expected}"
    )
    require(
        expected is not None,
        f"{where}: the checkpoints alone take {seen * each} bytes, so nothing fits",
    )
    require(got is not None, f"{where}: the checkpoints fit, if only just")
    require(got <= seen, f"{where}: there are only {seen} tokens")
    require(
        got * kv + seen * each <= total,
        f"{where}: that takes {got * kv + seen * each} bytes, {seen * each} of them checkpoints",
    )
    require(False, f"{where}: one more token fits")


@exercise
def check_recompute(recompute: Callable) -> None:
    """5.4: keys and values from the nearest checkpoint; the lower ones are blanked."""
    model = _model()
    _, acts = model.run_with_cache([3, 1, 4])
    cases = st.tuples(st.integers(0, 4), st.sets(st.integers(0, 4)))

    def expected(layer):
        return tuple(acts[f"blocks.{layer}.attn.{name}"] for name in ("hook_rot_k", "hook_v"))

    def got(case, blank):
        layer, kept = case
        kept = sorted(kept | {0})
        nearest = max(c for c in kept if c <= layer)
        rows = {c: acts[f"blocks.{c}.hook_resid_pre"].copy() for c in kept}
        for c in kept:
            if blank and c != nearest:
                rows[c] = np.ones_like(rows[c])
        return recompute(model, rows, layer)

    def wrong(case, blank):
        pair = got(case, blank)
        return not all(np.array_equal(a, b) for a, b in zip(pair, expected(case[0]), strict=True))

    for blank in (False, True):
        bad = smallest(cases, lambda case, blank=blank: wrong(case, blank))
        if bad is None:
            continue
        layer, kept = bad[0], sorted(bad[1] | {0})
        nearest = max(c for c in kept if c <= layer)
        where = f"layer {layer}, checkpoints before {kept}"
        require(
            not blank,
            f"{where}: right, but not from the nearest checkpoint, which is at {nearest}; all "
            "others were blanked here",
        )
        k, v = got(bad, blank)
        right_k, right_v = expected(layer)
        require(
            np.array_equal(k, right_k) or not np.array_equal(v, right_v),
            f"{where}: the values are right and the keys are not; give each row its position",
        )
        require(
            nearest == layer,
            f"{where}: not K and V of that layer; the blocks from {nearest} up to it must run "
            "first",
        )
        require(False, f"{where}: the checkpoint is at the layer itself, one projection is enough")


@cache
def _model() -> minikv.Model:
    return minikv.random_model(_CONFIG, 5, "exact")


@exercise
def check_without_cache(without_cache: Callable) -> None:
    """No cache, against the full one."""
    model, ids = _model(), [3, 1, 4, 1, 5, 9]
    for start in (1, 4, 6):
        cache = model.new_cache("full")
        rows = [model.forward([ids[:start]], [cache])[0]]
        rows += [model.forward([[token]], [cache])[0] for token in ids[start:]]
        expected, got = np.array(rows), np.asarray(without_cache(model, list(ids), start))
        where = f"{len(ids)} tokens from start {start}"
        if got.ndim == 2 and len(got) == len(expected) - 1:
            side = "first" if np.array_equal(got, expected[1:]) else "last"
            require(False, f"{where}: the {side} row is missing")
        require(
            got.shape == expected.shape,
            f"{where}: the shape is {got.shape}, expected {expected.shape}, one row a text",
        )
        require(
            np.array_equal(got, expected),
            f"{where}: these are not the logits of the full cache; is each row the last "
            "of its text?",
        )


@exercise
def check_token_bytes(token_bytes: Callable) -> None:
    """Bytes of a token, against what the caches count."""
    for itemsize, arithmetic in ((4, "float32"), (8, "float64")):
        model = minikv.random_model(_CONFIG, 1, arithmetic)
        counts = {}
        for policy, options in (("full", {}), ("residual", {"budget": 0, "checkpoints": [0]})):
            cache = model.new_cache(policy, **options)
            model.forward([[3]], [cache], "none")
            counts[policy] = cache.nbytes
        given = token_bytes(_CONFIG, itemsize)
        require(
            isinstance(given, (tuple, list)) and len(given) == 2,
            f"your function returned {given!r}, expected a pair of numbers",
        )
        kv, one = given
        where = f"{_CONFIG.num_hidden_layers} layers, {itemsize} bytes a number"
        hint = ""
        if 2 * kv == counts["full"]:
            hint = "; K *and* V"
        elif kv == counts["full"] * _CONFIG.num_attention_heads // _CONFIG.num_key_value_heads:
            hint = "; heads of K and V are shared, so there are fewer than query heads"
        elif kv * _CONFIG.num_hidden_layers == counts["full"]:
            hint = "; that is one layer"
        require(
            kv == counts["full"],
            f"{where}: K and V take {counts['full']} bytes, you say {kv}{hint}",
        )
        require(
            one == counts["residual"],
            f"{where}: one residual takes {counts['residual']} bytes, you say {one}",
        )
