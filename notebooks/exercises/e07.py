"""Checks of chapter 7: where the claim fails."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

import minikv
from minikv.verify import Case, same_bits

from . import close, exercise, require, smallest

sys.path.insert(0, str(Path(__file__).parents[2] / "proofs"))

from counterexamples import one_pass, record

_RULES = {
    "value_residual": (
        "bypass",
        "the block-0 values reach later blocks, within one call, beside the stream",
    ),
    "shared_kv": ("bypass", "every block reads what block 0 projected, within one call"),
    "no_mask": ("causality", "an early row depends on later ones"),
    "rewritten_kv": ("state", "what is stored depends on how many calls there were"),
    "quantised_cache": ("state", "a token is read unrounded in its own call and rounded later"),
    "tensor_quantisation": ("locality", "the scale is shared by all rows of a call"),
}


@exercise
def check_rules(rules: Mapping[str, str]) -> None:
    """7.1: which rule each counter-example breaks; says why, not which."""
    choices = sorted({rule for rule, _ in _RULES.values()})
    for name, (rule, why) in _RULES.items():
        given = rules.get(name)
        require(given, f"{name} has no answer yet; choose one of {', '.join(choices)}")
        require(given in choices, f"{name}: {given!r} is none of {', '.join(choices)}")
        require(given == rule, f"{name} is not {given!r}; think of this: {why}")


@exercise
def check_quantise(quantise: Callable) -> None:
    """7.2: row by row, on the grid of the row, zeros kept."""
    number = st.integers(-8, 8).map(float)
    arrays = st.integers(1, 3).flatmap(
        lambda width: st.lists(
            st.lists(number, min_size=width, max_size=width), min_size=1, max_size=3
        )
    )

    def right(rows):
        x = np.array(rows)
        scale = np.abs(x).max(axis=-1, keepdims=True) / 127
        scale = np.where(scale > 0, scale, 1.0)
        return np.rint(x / scale) * scale

    def run(rows):
        with np.errstate(all="ignore"):
            return np.asarray(quantise(np.array(rows)))

    zero = run([[0.0, 0.0]])
    require(
        np.array_equal(zero, [[0.0, 0.0]]),
        f"a row of zeros becomes {zero.tolist()}: its scale is 0, and 0 / 0 is not a number",
    )

    def wrong(rows):
        got = run(rows)
        return got.shape != right(rows).shape or not close(got, right(rows))

    single = smallest(arrays.filter(lambda rows: len(rows) == 1), wrong)
    if single is not None:
        require(
            False,
            f"{single} becomes {run(single).tolist()}, expected "
            f"{right(single).tolist()}: the row's largest absolute value is 127 "
            "steps",
        )
    bad = smallest(arrays, wrong)
    if bad is not None:
        require(
            False,
            f"one row alone is right, but {bad} becomes {run(bad).tolist()}, expected "
            f"{right(bad).tolist()}: a row's scale must not depend on other "
            "rows",
        )


@exercise
def check_next_average(next_average: Callable) -> None:
    """7.3: the running mean from the mean and the newest term."""

    def run(terms):
        y = Fraction(terms[0])
        for layer, term in enumerate(terms[1:]):
            y = next_average(y, Fraction(term), layer)
        return y

    lists = st.lists(st.integers(0, 9), min_size=2, max_size=6)
    bad = smallest(lists, lambda terms: run(terms) != Fraction(sum(terms), len(terms)))
    if bad is not None:
        hint = "right for one step, wrong for two: y_l stands for l + 1 terms, the new one for one"
        mean = Fraction(sum(bad), len(bad))
        require(
            False,
            f"r = {bad} gives {run(bad)}, expected the mean {mean}"
            + (f"; {hint}" if len(bad) == 3 else ""),
        )


@exercise
def check_architecture(architecture: Callable) -> None:
    """7.4: a bypass from the stream at layer 0, repaired by the pair (H_l, H_0)."""
    case = Case(minikv.tiny_config(num_hidden_layers=4), (3, 1, 4, 1), (2, 7, 1, 8), (4,))
    touched: set[str] = set()

    def watched(memory):
        hook = architecture(memory)

        def watch(name, value):
            new = hook(name, value)
            require(new is not None, f"the hook returned None for {name}; return the value")
            require(
                np.shape(new) == np.shape(value),
                f"for {name} the hook returned shape {np.shape(new)}, expected {np.shape(value)}",
            )
            if not np.array_equal(new, value):
                touched.add(name)
            return np.asarray(new, dtype=value.dtype)

        return watch

    def transplant(carry: bool) -> bool:
        """Whether the donor's stream (and memory) at each layer gives the donor's logits."""
        donor: dict = {}
        expected = one_pass(case, case.ids, watched({}), record(donor))
        for layer in range(1, case.model.config.num_hidden_layers):
            memory: dict = {}

            def swap(name, value, at=f"blocks.{layer}.hook_resid_pre", memory=memory):
                if name != at:
                    return value
                if carry:
                    memory["h"] = donor["blocks.0.hook_resid_pre"]
                return donor[name]

            if not same_bits(one_pass(case, case.other, swap, watched(memory)), expected):
                return False
        return True

    alone = one_pass(case, case.ids, watched({}))
    one_pass(case, case.other, watched({}))
    require(
        same_bits(one_pass(case, case.ids, watched({})), alone),
        "the same text gives other logits after another text has run: what is remembered "
        "outlives its pass; keep it in memory",
    )
    require(touched, "the hook changes nothing, so that the transplant succeeds")
    require(
        not any(name.endswith("attn.hook_v") for name in touched),
        "this changes hook_v, as the value residual does; find another way",
    )
    require(
        not transplant(carry=False),
        f"the transplant of H_l still succeeds at every layer l >= 1: what you do at "
        f"{min(touched)} depends on the present stream alone, or is already in it",
    )
    require(
        transplant(carry=True),
        "the transplant fails, but carrying H_0 as memory['h'] does not repair it: your hook "
        "remembers something else, or elsewhere",
    )
