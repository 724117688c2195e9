"""What a chapter reads on with where its reader has not written a function: the library's own.

Chapters for students have no solutions. There `instead` takes from here what does the same as the
function that was to be written, made of what `minikv` exports.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import minikv
from minikv.arithmetic import Arithmetic, Float32, Sight, Watch
from minikv.decoder import Weights, forward
from minikv.layers import Layer
from minikv.rotary import Rotary


def _arithmetic(sums: Any) -> Arithmetic:
    """The library's arithmetic that takes sums as these are taken, but for their order."""
    return sums if isinstance(sums, Arithmetic) else Float32()


def _watch(sums: Any) -> Watch:
    """Let the softmax of these sums be asked, so that whoever looks at its weights sees them."""
    kept: list[np.ndarray] = []

    def scores(value: np.ndarray) -> np.ndarray:
        kept[:] = [value]
        return value

    return Watch(scores, lambda pattern: sums.softmax(kept[0]))


def _rms_norm(x: np.ndarray, gain: np.ndarray, eps: float, sums: Any) -> np.ndarray:
    return _arithmetic(sums).rms_norm(x, gain, eps).astype(np.float32)


def _rope(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    both = np.concatenate([cos, cos], axis=-1), np.concatenate([-sin, sin], axis=-1)
    return Float32().rope(x.astype(np.float64), *both).astype(np.float32)


def _attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, sums: Any) -> np.ndarray:
    tokens = np.arange(len(q))
    sight, scale = Sight(tokens, tokens), 1 / np.sqrt(q.shape[2])
    return _arithmetic(sums).attention(q, k, v, sight, scale, _watch(sums)).astype(np.float32)


def _gated(gate: np.ndarray, up: np.ndarray, sums: Any) -> np.ndarray:
    return _arithmetic(sums).gated(gate, up, "silu").astype(np.float32)


def _block(resid_pre: np.ndarray, attend: Callable, mlp: Callable) -> np.ndarray:
    return functools.reduce(lambda stream, half: stream + half(stream), (attend, mlp), resid_pre)


def _decoder(w: dict[str, Any], ids: Any, config: Any, sums: Any) -> np.ndarray:
    """The library's decoder on the weights of chapter 1, as they are."""
    arithmetic = _arithmetic(sums)
    rotary, layers = Rotary(config, arithmetic), []
    for index in range(config.num_hidden_layers):
        prefix = f"layers.{index}."
        own = {name.split(".")[-1]: w[name] for name in w if name.startswith(prefix)}
        own["pre_mlp_layernorm"] = own.pop("post_attention_layernorm")
        layers.append(Layer(index, config, arithmetic, rotary, **own))
    head = w["embed_tokens" if config.tie_word_embeddings else "lm_head"]
    weights = Weights(config, arithmetic, w["embedding"], tuple(layers), w["norm"], head, str)
    watch = _watch(sums)
    looks = {"attn.hook_attn_scores": watch.scores, "attn.hook_pattern": watch.pattern}

    def hook(name: str, value: np.ndarray) -> np.ndarray:
        look = looks.get(".".join(name.split(".")[2:]))
        return look(value) if look else value

    return forward(weights, [ids], None, "all", hook)


def _cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.vecdot(x, y) / np.sqrt(np.vecdot(x, x) * np.vecdot(y, y))


def _values(rows: np.ndarray, layer: Layer) -> np.ndarray:
    return minikv.kv_from_residual(rows, np.arange(len(rows)), layer)[1]


def _round_to(x: np.ndarray, grid: Any) -> np.ndarray:
    return np.rint(x / grid) * grid


def _on_grids(x: np.ndarray, matrix: np.ndarray, x_grid: Any, w_grid: Any) -> np.ndarray:
    return np.vecdot(_round_to(x, x_grid)[:, None], _round_to(matrix, w_grid)[None])


def _patched_rows(value: np.ndarray, rows: np.ndarray, donor: np.ndarray) -> np.ndarray:
    order = np.arange(len(value))
    order[rows] = len(value) + np.arange(len(rows))
    return np.concatenate([value, donor])[order]


def _replay(model: minikv.Model, stream: np.ndarray, start: int) -> np.ndarray:
    """The whole decoder, on any tokens, with the stream put in before block `start`."""
    name = f"blocks.{start}.hook_resid_pre"
    return model.run_with_hooks([0] * len(stream), {name: lambda *_: stream})


def _without_cache(model: minikv.Model, ids: list[int], start: int) -> np.ndarray:
    cache = model.new_cache("none")
    rows = [model.forward([ids[:start]], [cache])[0]]
    return np.array(rows + [model.forward([[token]], [cache])[0] for token in ids[start:]])


def _token_bytes(config: minikv.ModelConfig, itemsize: int) -> tuple[int, int]:
    per_byte = config.kv_bytes_per_token("float32") // 4
    return per_byte * itemsize, config.hidden_size * itemsize


def _gathered(pattern: np.ndarray, groups: int) -> np.ndarray:
    return np.stack([part.sum(axis=(0, 1)) for part in np.split(pattern, groups)], axis=1)


def _renormalised(weights: np.ndarray, keep: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return Float32().softmax(np.where(keep, np.log(weights), -np.inf))


def _value_residual(memory: dict[str, np.ndarray]) -> Callable:
    def hook(name: str, value: np.ndarray) -> np.ndarray:
        if not name.endswith("attn.hook_v"):
            return value
        return np.mean([value, memory.setdefault("v", value)], axis=0, dtype=value.dtype)

    return hook


def _carried(model: minikv.Model, h0: np.ndarray) -> np.ndarray:
    return _values(h0, model.layers[0])


INSTEAD: dict[str, Callable] = {
    "rms_norm": _rms_norm,
    "rope": _rope,
    "attention": _attention,
    "gated": _gated,
    "block": _block,
    "decoder": _decoder,
    "cosine": _cosine,
    "values": _values,
    "round_to": _round_to,
    "on_grids": _on_grids,
    "patched_rows": _patched_rows,
    "replay": _replay,
    "without_cache": _without_cache,
    "token_bytes": _token_bytes,
    "gathered": _gathered,
    "renormalised": _renormalised,
    "value_residual": _value_residual,
    "carried": _carried,
}
"""By the names under which the chapters ask for them."""
