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
from counterexamples.tensor_quantisation import quantised

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
        return quantised(-1)("ln1.hook_normalized", np.array(rows))

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


@exercise
def check_value_residual(value_residual: Callable) -> None:
    """The hook, on numbers: block 0's values are kept, and halved into all others."""
    memory: dict = {}
    hook = value_residual(memory)
    first, later = np.array([[2.0, 4.0]]), np.array([[10.0, -4.0]])
    other = hook("blocks.0.hook_resid_pre", later)
    require(other is not None, "for blocks.0.hook_resid_pre your hook returned None")
    require(np.array_equal(other, later), "what is no value has to come back as it is")
    got = hook("blocks.0.attn.hook_v", first)
    require("v" in memory, 'the values of block 0 are not kept: memory has no "v"')
    require(np.array_equal(memory["v"], first), f'memory["v"] is {memory["v"]}, expected {first}')
    require(
        got is not None and np.array_equal(got, first), "block 0's own values stay what they are"
    )
    got = hook("blocks.3.attn.hook_v", later)
    require(got is not None, "for blocks.3.attn.hook_v your hook returned None")
    require(
        not np.array_equal(got, later),
        "the values of block 3 come back unchanged; mix block 0's in",
    )
    require(
        np.array_equal(got, [[6.0, 0.0]]),
        f"block 0's values {first[0].tolist()} and block 3's {later[0].tolist()} give "
        f"{np.asarray(got)[0].tolist()}, expected the mean [6.0, 0.0]",
    )
    require(np.array_equal(memory["v"], first), "a later block has overwritten what is kept")
    memory["v"] = -first
    got = hook("blocks.5.attn.hook_v", later)
    require(
        np.array_equal(got, [[4.0, -4.0]]),
        'what is put into memory from outside has no effect; read memory["v"] when it is needed',
    )


@exercise
def check_carried(carried: Callable) -> None:
    """What H_0 gives: the values of block 0, bit for bit."""
    for seed in (1, 2):
        model = minikv.random_model(minikv.tiny_config(), seed, "exact")
        seen = model.run_with_cache([3, 1, 4, 1])[1]
        got = carried(model, seen["blocks.0.hook_resid_pre"].copy())
        require(
            not isinstance(got, tuple),
            "you return a pair, keys and values; only the values are remembered",
        )
        got, expected = np.asarray(got), seen["blocks.0.attn.hook_v"]
        require(
            not np.array_equal(got, seen["blocks.0.attn.hook_rot_k"]),
            "these are the keys of block 0",
        )
        require(got.shape == expected.shape, f"the shape is {got.shape}, expected {expected.shape}")
        require(
            np.array_equal(got, expected),
            "these are not the values of block 0: which layer did you give to the projection?",
        )
