"""Checks of chapter 2, the residual stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

import minikv
from minikv.decoder import unembed

from . import close, exercise, require, smallest

IDS = [3, 1, 4, 1, 5]


def _model(layers: int = 2, heads: int = 2) -> Any:
    config = minikv.tiny_config(num_hidden_layers=layers, num_key_value_heads=heads)
    return minikv.random_model(config, seed=layers, arithmetic="float64")


def _close(got: Any, expected: Any) -> bool:
    got = np.asarray(got)
    return got.shape == np.shape(expected) and close(got, expected)


@exercise
def check_parts(parts: Callable[..., list[np.ndarray]]) -> None:
    """The arrays that add up to the last stream."""
    for layers in (1, 3):
        activations = _model(layers).run_with_cache(IDS)[1]
        final = activations[f"blocks.{layers - 1}.hook_resid_post"]
        given = list(parts(activations, layers))
        where = f"a model with {layers} block{'s' * (layers > 1)}"
        shapes = {np.shape(part) for part in given}
        require(
            shapes == {final.shape}, f"{where}: shapes {sorted(shapes)}, expected {final.shape}"
        )
        missing = final - np.sum(given, axis=0)
        embedding = activations["hook_embed"]
        hint = ""
        if close(missing, embedding):
            hint = ": the embedding is missing"
        elif len(given) > 2 * layers + 1:
            hint = (
                ": some of them are sums themselves (hook_resid_... is the stream, no part of it)"
            )
        elif len(given) < 2 * layers + 1:
            hint = ": each block adds twice"
        require(
            close(missing, 0) and len(given) == 2 * layers + 1,
            f"{where} has {2 * layers + 1} parts that add up to the last stream; "
            f"you return {len(given)}, and {np.abs(missing).max():.2f} is left over{hint}",
        )
        require(np.array_equal(given[0], embedding), f"{where}: the first part is the embedding")
        for number, part in enumerate(given[1:]):
            name = f"blocks.{number // 2}.hook_{('attn', 'mlp')[number % 2]}_out"
            require(
                np.array_equal(part, activations[name]),
                f"{where}: part {number + 1} is not {name}; the parts stand in the order in which "
                "they were added",
            )


@exercise
def check_read_at(read_at: Callable[..., np.ndarray]) -> None:
    """The logit lens on a small model."""
    model = _model(3)
    activations = model.run_with_cache(IDS)[1]
    for layer in (0, 2):
        name = f"blocks.{layer}.hook_resid_pre"
        got = np.asarray(read_at(model, dict(activations), layer))
        rows = activations[name]
        shape = (len(IDS), model.config.vocab_size)
        require(got.shape == shape, f"the shape is {got.shape}, expected {shape}")
        hint = ""
        head, gain = model.weights.lm_head, model.weights.norm
        if _close(got, rows @ head.T):
            hint = "; the row was not normalized"
        elif _close(got, (rows / _rms(rows)) @ head.T):
            hint = "; the gain of the last norm is missing"
        elif _close(got, rows / np.sqrt(np.mean(rows**2, axis=-1, keepdims=True)) * gain @ head.T):
            hint = "; epsilon is missing"
        elif _close(got, unembed(model.weights, activations[f"blocks.{layer}.hook_resid_post"])):
            hint = "; you read the stream after the block"
        elif _close(got, ((rows / _rms(rows, None)) * gain) @ head.T):
            hint = "; the mean is over each row by itself"
        require(
            _close(got, unembed(model.weights, rows)),
            f"before block {layer} the first logit is {unembed(model.weights, rows)[0, 0]:.8f}, "
            f"not {got[0, 0]:.8f}{hint}",
        )


def _rms(rows: np.ndarray, axis: int | None = -1) -> np.ndarray:
    return np.sqrt(np.mean(rows**2, axis=axis, keepdims=True) + 1e-5)


@exercise
def check_keys(keys: Callable[..., np.ndarray]) -> None:
    """Keys of some rows, in any order, against kv_from_residual."""
    model = _model(2)
    layer = model.layers[1]
    stream = model.run_with_cache(IDS)[1]["blocks.1.hook_resid_pre"]

    def both(order: list[int]) -> tuple[np.ndarray, np.ndarray]:
        positions = np.array(order)
        rows = stream[positions]
        k, _ = minikv.kv_from_residual(rows, positions, layer)
        return np.asarray(keys(rows, positions, layer)), k

    orders = st.lists(st.sampled_from(range(len(IDS))), min_size=1, max_size=5, unique=True)
    order = smallest(orders, lambda order: not _close(*both(order)))
    if order is None:
        return
    got, expected = both(order)
    require(got.shape == expected.shape, f"the shape is {got.shape}, expected {expected.shape}")
    got = both([3, 1])[0]  # rows and positions that tell the mistakes apart
    rows, positions = stream[[3, 1]], np.array([3, 1])
    hint = "look at the norm, and at the matrix that you take"
    if _close(got, minikv.kv_from_residual(rows, positions, layer)[1]):
        hint = "these are the values"
    elif _close(got, minikv.kv_from_residual(rows, 0 * positions, layer)[0]):
        hint = "they are not turned by their positions"
    elif _close(got, minikv.kv_from_residual(rows, np.arange(2), layer)[0]):
        hint = "you numbered the rows yourself; their positions are given"
    require(False, f"the keys of the rows at positions {order} are other numbers: {hint}")


@exercise
def check_shares(shares: Callable[..., np.ndarray]) -> None:
    """Shares of parts in a logit, with the scale of the whole."""
    rng = np.random.default_rng(2)
    parts, gain, u = rng.normal(size=(4, 6)), rng.uniform(1, 2, 6), rng.normal(size=6)
    eps = 0.5
    whole = parts.sum(axis=0)
    scale = np.sqrt(np.mean(whole**2) + eps)
    expected = parts / scale * gain @ u
    got = np.asarray(shares(parts.copy(), gain, u, eps))
    require(got.shape == (4,), f"the shape is {got.shape}, expected one share for each of 4 parts")
    own = parts / np.sqrt(np.mean(parts**2, axis=1, keepdims=True) + eps) * gain @ u
    hint = ""
    if _close(got, own):
        hint = "; you divided each part by its own length"
    elif _close(got, parts / scale @ u):
        hint = "; the gain is missing"
    elif _close(got, parts * gain @ u):
        hint = "; nobody divided by the length"
    elif _close(got, parts / np.sqrt(np.mean(whole**2)) * gain @ u):
        hint = "; epsilon is missing"
    require(
        _close(got, expected),
        f"the logit is {expected.sum():.4f}, and your shares add up to {got.sum():.4f}{hint}",
    )


@exercise
def check_twin(twin: Callable[..., np.ndarray]) -> None:
    """Another row with the same keys and values."""
    for seed in range(3):
        model = minikv.random_model(
            minikv.tiny_config(num_key_value_heads=1), seed=seed, arithmetic="float64"
        )
        layer = model.layers[0]
        g = np.random.default_rng(seed).uniform(0.5, 2.0, model.config.hidden_size)
        W = np.concatenate([layer.k_proj, layer.v_proj])
        x = model.run_with_cache(IDS)[1]["blocks.0.hook_resid_pre"][seed]
        other = np.asarray(twin(x.copy(), g, W.copy()))
        require(other.shape == x.shape, f"the shape is {other.shape}, expected {x.shape}")
        length = np.linalg.norm(other)
        require(np.isfinite(length) and length > 0, "the row is zero or not finite")
        cosine = float(other @ x / (length * np.linalg.norm(x)))
        require(
            abs(cosine) < 0.999,
            f"your row is x times {other @ x / (x @ x):.3f}: find one that points another way",
        )
        want, got = (W @ (row / _rms(row) * g) for row in (x, other))
        error = np.abs(want - got).max()
        factor = float(want @ got / (want @ want))
        hint = ""
        if close(got, factor * want):
            hint = f"; they are all {factor:.3f} times as large: the length of the row changed"
        elif close(W @ x, W @ other):
            hint = "; W x is the same, but the norm multiplies by the gain before W"
        require(error < 1e-9, f"a key or value differs by {error:.2g}{hint}")


@exercise
def check_cosine(cosine: Callable[..., np.ndarray]) -> None:
    """The cosine of pairs of rows: what no length changes."""
    rows = np.array([[3.0, 4.0], [1.0, 0.0], [-2.0, 1.0]])
    for other, expected, what in (
        (rows, [1.0, 1.0, 1.0], "a row with itself"),
        (2 * rows, [1.0, 1.0, 1.0], "a row with twice itself"),
        (-rows, [-1.0, -1.0, -1.0], "a row with its negative"),
        (rows[:, ::-1] * [-1, 1], [0.0, 0.0, 0.0], "a row with a perpendicular one"),
        (np.array([[1.0, 0.0]] * 3), [0.6, 1.0, -2 / np.sqrt(5)], "a row with (1, 0)"),
    ):
        got = np.asarray(cosine(rows, other))
        require(got.shape == (3,), f"3 pairs of rows give the shape {got.shape}, expected (3,)")
        product = np.sum(rows * other, axis=1)
        hint = ""
        if _close(got, product):
            hint = "; this is the dot product: divide by both lengths"
        elif _close(got, product / np.sum(rows * rows, axis=1)):
            hint = "; you divided by one length twice"
        require(
            _close(got, expected),
            f"{what} gives {np.round(got, 4).tolist()}, expected {np.round(expected, 4).tolist()}"
            f"{hint}",
        )
    stacked = np.asarray(cosine(np.stack([rows] * 4), np.stack([rows] * 4)))
    require(
        stacked.shape == (4, 3),
        f"arrays (4, 3, 2) give the shape {stacked.shape}, expected (4, 3): use the last axis",
    )


@exercise
def check_values(values: Callable[..., np.ndarray]) -> None:
    """Values of some rows, in any order, bit for bit those that the library makes."""
    config = minikv.tiny_config()
    model = minikv.random_model(config, seed=2, arithmetic="exact")
    layer = model.layers[1]
    seen = model.run_with_cache(IDS)[1]
    stream = seen["blocks.1.hook_resid_pre"]
    cached = seen["blocks.1.attn.hook_v"]
    for order in ([0, 1, 2, 3, 4], [3, 1], [2]):
        got, expected = np.asarray(values(stream[order], layer)), cached[order]
        require(
            got.shape == expected.shape,
            f"{len(order)} rows give the shape {got.shape}, expected {expected.shape}, heads apart",
        )
        keys = seen["blocks.1.attn.hook_k"][order]
        x = layer.norm(stream[order], layer.input_layernorm)
        unsettled = layer.heads(layer.linear(x, layer.v_proj))
        raw = layer.heads(layer.linear(stream[order], layer.v_proj))
        for wrong, hint in (
            (keys, "these are the keys; the matrix is v_proj"),
            (layer.arithmetic.settle(keys), "these are the keys; the matrix is v_proj"),
            (unsettled, "they are not settled on the grid, which the cache holds them on"),
            (raw, "the rows are not normalized"),
            (layer.arithmetic.settle(raw), "the rows are not normalized"),
        ):
            same = np.array_equal(got, wrong) and not np.array_equal(wrong, expected)
            require(not same, f"the values of the rows at {order} are other numbers: {hint}")
        require(
            np.array_equal(got, expected),
            f"the values of the rows at {order} have other bits than those in the cache",
        )
