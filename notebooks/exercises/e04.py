"""Checks of chapter 4: the Markov property."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np
from hypothesis import strategies as st

import minikv
from minikv.decoder import unembed

from . import Wrong, close, exercise, require, smallest

# Blocks, tokens and a seed of the texts: what a case of the checks below is made of.
CASES = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(0, 3))


@cache
def _model(blocks: int) -> minikv.Model:
    return minikv.random_model(minikv.tiny_config(num_hidden_layers=blocks), blocks, "exact")


@cache
def _case(blocks: int, tokens: int, seed: int) -> tuple:
    """A model, a donor's logits and activations, and a recipient that differs everywhere."""
    model = _model(blocks)
    donor = np.random.default_rng(seed).integers(0, 96, tokens)
    logits, acts = model.run_with_cache(donor)
    return model, donor, logits, acts, (donor + 1) % 97


def _describe(case: tuple[int, int, int], layer: int) -> str:
    blocks, tokens, _ = case
    return f"{blocks} block(s), {tokens} token(s), layer {layer}"


def _short(logits: np.ndarray) -> list[float]:
    return [float(x) for x in logits]


def _first_wrong(case: tuple[int, int, int], is_wrong: Callable[[int], bool]) -> int | None:
    return next((layer for layer in range(case[0]) if is_wrong(layer)), None)


@exercise
def check_transplant(transplant: Callable) -> None:
    """4.1: the recipient with the donor's stream gives the donor's logits, at every layer."""

    def got(case, layer):
        model, _, _, acts, recipient = _case(*case)
        stream = acts[f"blocks.{layer}.hook_resid_pre"]
        return np.asarray(transplant(model, recipient.tolist(), layer, stream.copy()))

    def wrong_layer(case):
        logits = _case(*case)[2]
        return _first_wrong(case, lambda layer: not np.array_equal(got(case, layer), logits))

    bad = smallest(CASES, lambda case: wrong_layer(case) is not None)
    if bad is None:
        return
    layer = wrong_layer(bad)
    model, _, logits, acts, recipient = _case(*bad)
    answer, where = got(bad, layer), _describe(bad, layer)
    require(
        answer.shape == logits.shape,
        f"the logits have shape {answer.shape}, expected {logits.shape}, all positions ({where})",
    )
    require(
        not np.array_equal(answer, model.logits(recipient)),
        f"the patch had no effect: these are the recipient's own logits ({where})",
    )
    name = f"blocks.{layer}.hook_resid_post"
    late = model.run_with_hooks(recipient, {name: lambda *_: acts[name.replace("post", "pre")]})
    require(
        not np.array_equal(answer, late),
        f"the stream went in after block {layer}, so that the block never read it; before a "
        f"block the stream is hook_resid_pre ({where})",
    )
    if np.array_equal(answer[-1], logits[-1]):
        raise Wrong(f"the last position is right, but the positions before it are not ({where})")
    if bad[1] > 1:
        raise Wrong(
            "with one token your answer is right, with two it is not: replace the rows of "
            f"all positions, attention reads them all ({where})"
        )
    raise Wrong(f"the logits are not the donor's ({where})")


@exercise
def check_divergence(divergence: Callable) -> None:
    """4.2: the divergence, against 50 lines of logits and some extreme ones."""
    rng = np.random.default_rng(4)
    p, q = rng.normal(0, 3, (2, 50, 4)).round(1)
    got = np.asarray(divergence(p, q))
    require(
        got.shape == (50,),
        f"for logits of shape (50, 4) the result has shape {got.shape}, expected (50,): one "
        "number for each row",
    )
    right = minikv.kl_divergence(p, q)
    for other, message in (
        (
            minikv.kl_divergence(q, p),
            "the arguments are exchanged: weigh the logarithms "
            "with p, the first argument's distribution",
        ),
        (right / np.log(2), "this is in bits; take the natural logarithm, for nats"),
        (-right, "the sign is wrong: the divergence is never negative"),
    ):
        require(not close(got, other), message)
    at = int(np.argmax(np.abs(got - right)))
    require(
        close(got, right),
        f"logits {_short(p[at])} against {_short(q[at])} give "
        f"{got[at]:.4f}, expected {right[at]:.4f}; are logits turned to "
        "probabilities first?",
    )
    zero = np.asarray(divergence(p, p.copy()))
    require(
        (zero == 0).all(),
        f"equal logits give {zero[zero != 0][:1]}, expected exactly 0: subtract the two "
        "logarithms before anything is rounded differently",
    )
    with np.errstate(all="ignore"):
        huge = np.asarray(divergence(np.array([[1000.0, 0.0]]), np.array([[0.0, 1000.0]])))
    require(
        close(huge, 1000),
        f"logits [1000, 0] against [0, 1000] give {huge.tolist()}, expected [1000.0]: "
        "subtract the largest logit before np.exp, and take no logarithm of a "
        "probability",
    )


@exercise
def check_needed(needed: Callable) -> None:
    """4.3: the positions named are enough, and none of them can be spared."""

    def logits_with(case, layer, rows, position):
        model, _, _, acts, recipient = _case(*case)
        top = layer == case[0]
        name = f"blocks.{layer - top}.hook_resid_{'post' if top else 'pre'}"

        def hook(value, _):
            value = value.copy()
            value[rows] = acts[name][rows]
            return value

        return model.run_with_hooks(recipient, {name: hook})[position]

    def complaint(case):
        blocks, tokens, _ = case
        for layer in range(blocks + 1):
            for position in range(tokens):
                rows = list(needed(blocks, layer, position))
                where = f"needed({blocks}, {layer}, {position}) = {rows}"
                if any(not 0 <= row < tokens for row in rows):
                    return f"{where} names a position that is not there or is in the future"
                expected = _case(*case)[2][position]
                if not np.array_equal(logits_with(case, layer, rows, position), expected):
                    return (
                        f"{where} is not enough: on a text of {tokens} token(s) the logits are "
                        "not the donor's; what do the blocks above still read?"
                    )
                for row in rows:
                    fewer = [r for r in rows if r != row]
                    if np.array_equal(logits_with(case, layer, fewer, position), expected):
                        return f"{where} is too much: without row {row} the logits are the same"
                if rows != sorted(rows):
                    return f"{where} is not in ascending order"
        return None

    bad = smallest(CASES, lambda case: complaint(case) is not None)
    require(bad is None, str(complaint(bad) if bad is not None else ""))


@exercise
def check_replay_kv(replay_kv: Callable) -> None:
    """4.4: keys and values of a layer from a stream below it."""

    def complaint(case):
        model, _, _, acts, _ = _case(*case)
        for start in range(case[0]):
            for layer in range(start, case[0]):
                names = ("hook_rot_k", "hook_v")
                expected = [acts[f"blocks.{layer}.attn.{name}"] for name in names]
                stream = acts[f"blocks.{start}.hook_resid_pre"].copy()
                got = replay_kv(model, start, stream, layer)
                where = f"start {start}, layer {layer}, {case[1]} token(s)"
                if not isinstance(got, tuple) or len(got) != 2:
                    return f"expected a pair (keys, values), got {type(got).__name__} ({where})"
                ok = [np.array_equal(a, b) for a, b in zip(got, expected, strict=True)]
                if ok == [False, True]:
                    return (
                        f"the values are right and the keys are not: which positions did you "
                        f"give them? ({where})"
                    )
                if not all(ok):
                    late = acts.get(f"blocks.{layer + 1}.hook_resid_pre")
                    if late is not None:
                        positions = np.arange(case[1])
                        k, _ = minikv.kv_from_residual(late, positions, model.layers[layer])
                        if np.array_equal(got[0], k):
                            return (
                                f"one block too many has run: the keys of block {layer} are "
                                f"made from the stream before it ({where})"
                            )
                    return (
                        f"keys and values are not those of block {layer}: have the blocks from "
                        f"{start} up to it been run on the stream? ({where})"
                    )
        return None

    bad = smallest(CASES, lambda case: complaint(case) is not None)
    require(bad is None, str(complaint(bad) if bad is not None else ""))


def leaky(tokens: list[int]) -> tuple[list[int], list[int]]:
    """The model of 4.5: the stream before block 1, and the outputs."""
    h0 = np.array(tokens, dtype=object)
    h1 = h0 % 2
    return h1.tolist(), (h1 + np.cumsum(h0)).tolist()


@exercise
def check_two_texts(text_a: list[int], text_b: list[int]) -> None:
    """4.6: equal streams before block 1, different outputs, one token."""
    for text in (text_a, text_b):
        require(len(text) > 0, "a text has no token")
        require(
            all(isinstance(t, (int, np.integer)) for t in text),
            f"{text} is not a list of whole numbers",
        )
    (stream_a, out_a), (stream_b, out_b) = leaky(list(text_a)), leaky(list(text_b))
    require(list(text_a) != list(text_b), f"both texts are {list(text_a)}")
    require(
        stream_a == stream_b,
        f"the streams before block 1 differ, {stream_a} and {stream_b}; they must be equal",
    )
    require(
        out_a != out_b, f"both give the outputs {out_a}: the texts agree on all that block 1 reads"
    )
    require(
        len(text_a) == 1, f"right, but not the shortest: with {len(text_a)} tokens; one is enough"
    )


# Whether each layer sees everything, the window of the others, and tokens read.
WINDOWED = st.tuples(
    st.lists(st.booleans(), min_size=1, max_size=3), st.integers(1, 3), st.integers(0, 7)
)
LATER = 2  # tokens after those read: the first looks back furthest, the second shows "later"


@lru_cache(maxsize=16)  # a model reserves 32 MB of address space
def _windowed(whole: tuple[bool, ...], window: int, length: int) -> tuple:
    """A model with windows, a text and another one, and what both do."""
    config = minikv.tiny_config(
        model_type="mistral",
        num_hidden_layers=len(whole),
        sliding_window=window,
        layer_types=tuple("full_attention" if w else "sliding_attention" for w in whole),
    )
    model = minikv.random_model(config, 5, "exact")
    text = np.random.default_rng(length).integers(0, 96, length + LATER)
    return model, text, model.logits(text)[length:], model.run_with_cache(text + 1)[1]


@exercise
def check_must_keep(must_keep: Callable) -> None:
    """4.5: rows that are not kept may be anything, and none that is kept can be spared."""

    def later_are_same(case, layer, kept):
        """The logits of later tokens, when rows read before and not kept are another text's."""
        model, text, logits, other = _windowed(*case)
        top, length = layer == len(case[0]), case[2]
        name = f"blocks.{layer - top}.hook_resid_{'post' if top else 'pre'}"
        lost = [row for row in range(length) if row not in kept]

        def hook(value, _):
            value = value.copy()
            value[lost] = other[name][lost]
            return value

        return np.array_equal(model.run_with_hooks(text, {name: hook})[length:], logits)

    def complaint(drawn):
        case = (tuple(drawn[0]), *drawn[1:])
        whole, window, length = case
        windows = [None if sees_all else window for sees_all in whole]
        for layer in range(len(windows) + 1):
            kept = list(must_keep(windows, layer, length))
            where = f"must_keep({windows}, {layer}, {length}) = {kept}"
            if any(not 0 <= row < length for row in kept):
                return f"{where} names a position that has not been read"
            if not later_are_same(case, layer, kept):
                return f"{where} is not enough: later logits change with the rows that you drop"
            for row in kept:
                if later_are_same(case, layer, [r for r in kept if r != row]):
                    return f"{where} is too much: no later logits need row {row}"
            if kept != sorted(kept):
                return f"{where} is not in ascending order"
        return None

    bad = smallest(WINDOWED, lambda drawn: complaint(drawn) is not None)
    require(bad is None, str(complaint(bad) if bad is not None else ""))


@exercise
def check_patched_rows(patched_rows: Callable) -> None:
    """Rows replaced, the others kept, and the array that was given left alone."""
    value = np.arange(12.0).reshape(4, 3)
    for rows in ([2], [0, 3], [3, 1], []):
        given, donor = value.copy(), -np.ones((len(rows), 3)) * (1 + np.arange(len(rows)))[:, None]
        got = np.asarray(patched_rows(given, np.array(rows, dtype=int), donor.copy()))
        where = f"rows {rows} of 4"
        require(
            got.shape == value.shape, f"{where}: the shape is {got.shape}, expected {value.shape}"
        )
        require(
            np.array_equal(given, value),
            f"{where}: the stream that was given has changed: copy it before you write into it",
        )
        others = [row for row in range(4) if row not in rows]
        require(
            np.array_equal(got[others], value[others]),
            f"{where}: rows {others} are not to change",
        )
        require(
            np.array_equal(got[rows], donor),
            f"{where}: row {rows[0] if rows else None} is {got[rows].tolist()}, expected the "
            f"donor's {donor.tolist()}, in the order of the rows",
        )


@exercise
def check_replay(replay: Callable) -> None:
    """Logits from the stream before any block: those of the whole run, bit for bit."""

    def complaint(case):
        model, _, logits, acts, _ = _case(*case)
        for start in range(case[0]):
            got = np.asarray(replay(model, acts[f"blocks.{start}.hook_resid_pre"].copy(), start))
            where = _describe(case, start)
            if got.shape != logits.shape:
                return f"the shape is {got.shape}, expected {logits.shape}, logits ({where})"
            if np.array_equal(got, logits):
                continue
            for late in range(start + 1, case[0] + 1):
                top = late == case[0]
                name = f"blocks.{late - top}.hook_resid_{'post' if top else 'pre'}"
                stream = acts[f"blocks.{start}.hook_resid_pre"]
                if np.array_equal(got, unembed(model.weights, stream)):
                    return f"no block has run ({where})"
                if np.array_equal(got, unembed(model.weights, acts[name])):
                    return f"the blocks from {late} up are missing ({where})"
            if case[1] == 1:
                return f"the logits are not those of the whole run ({where})"
            return (
                f"right with one token, wrong with {case[1]}: has each row its own position, and "
                f"is the whole text one span? ({where})"
            )
        return None

    bad = smallest(CASES, lambda case: complaint(case) is not None)
    require(bad is None, str(complaint(bad) if bad is not None else ""))
