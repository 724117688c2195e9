"""Two implementations side by side: which activation is the first to differ?"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import minikv


def peer_modules(*more: str) -> tuple[Any, ...]:
    """torch, transformers and `more`; without them the calling module is skipped; CI fails."""
    try:
        torch, transformers, *rest = map(importlib.import_module, ("torch", "transformers", *more))
    except ImportError as error:
        reason = f'needs  pip install "minikv[peers]"  ({error})'
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason, allow_module_level=True)
    transformers.utils.logging.disable_progress_bar()
    return torch, transformers, *rest


def first_divergence(
    ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], bound: float
) -> str | None:
    """Name the first activation, in the order of computation, that differs by more than `bound`.

    The order is that of `ours`; a name that only one side has is passed over. What is returned
    starts with the activation's name and says how far apart it is; None where all agree. NaN counts
    as a difference.
    """
    shared = [name for name in ours if name in theirs]
    if not shared:
        raise ValueError("no activation has the same name on both sides")
    for name in shared:
        a, b = np.asarray(ours[name]), np.asarray(theirs[name])
        if a.shape != b.shape:
            return f"{name}: shape {a.shape} against {b.shape}"
        distance = np.abs(a.astype(np.float64) - b.astype(np.float64))
        if not (distance <= bound).all():
            row = int(np.argmax(np.max(distance.reshape(len(a), -1), axis=1)))
            return f"{name}: up to {distance.max():.3g} apart, most at row {row}"
    return None


def torch_activations(peer: Any, ids: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Logits ``(T, V)`` and activations of a ``LlamaForCausalLM`` under TransformerLens's names."""
    import torch

    seen: dict[str, np.ndarray] = {}
    handles = []
    config = peer.config
    head_dim = getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)

    def keep(name: str, value: Any, heads: bool = False) -> None:
        array = value.detach()[0].double().numpy().copy()
        seen[name] = array.reshape(len(array), -1, head_dim) if heads else array

    def on_input(module: Any, name: str, heads: bool = False) -> None:
        handles.append(
            module.register_forward_pre_hook(
                lambda _, args, kwargs: keep(
                    name, args[0] if args else kwargs["hidden_states"], heads
                ),
                with_kwargs=True,
            )
        )

    def on_output(module: Any, name: str, heads: bool = False) -> None:
        handles.append(
            module.register_forward_hook(
                lambda _, args, out: keep(name, out[0] if isinstance(out, tuple) else out, heads)
            )
        )

    on_output(peer.model.embed_tokens, "hook_embed")
    for index, layer in enumerate(peer.model.layers):
        at = f"blocks.{index}."
        on_input(layer, at + "hook_resid_pre")
        on_output(layer.input_layernorm, at + "ln1.hook_normalized")
        for letter in "qkv":
            projection = getattr(layer.self_attn, f"{letter}_proj")
            on_output(projection, f"{at}attn.hook_{letter}", heads=True)
        on_input(layer.self_attn.o_proj, at + "attn.hook_z", heads=True)
        sandwich = hasattr(layer, "pre_feedforward_layernorm")
        before = layer.pre_feedforward_layernorm if sandwich else layer.post_attention_layernorm
        on_output(
            layer.post_attention_layernorm if sandwich else layer.self_attn, at + "hook_attn_out"
        )
        on_input(before, at + "hook_resid_mid")
        on_output(before, at + "ln2.hook_normalized")
        on_output(layer.mlp.gate_proj, at + "mlp.hook_pre")
        on_output(layer.mlp.up_proj, at + "mlp.hook_pre_linear")
        on_input(layer.mlp.down_proj, at + "mlp.hook_post")
        on_output(layer.post_feedforward_layernorm if sandwich else layer.mlp, at + "hook_mlp_out")
        on_output(layer, at + "hook_resid_post")
    on_output(peer.model.norm, "ln_final.hook_normalized")
    try:
        with torch.inference_mode():
            out = peer(torch.tensor([list(ids)]), use_cache=False, output_hidden_states=True)
    finally:
        for handle in handles:
            handle.remove()
    # transformers' own record of the stream: the input of every block (the last entry is normed).
    for index, hidden in enumerate(out.hidden_states[:-1]):
        assert np.array_equal(seen[f"blocks.{index}.hook_resid_pre"], hidden[0].double().numpy())
    return out.logits[0].double().numpy(), seen


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def rounded_once(weights: Any, ids: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A float64 run in which every activation is rounded once to float32."""
    seen = {}

    def hook(name: str, value: np.ndarray) -> np.ndarray:
        seen[name] = value.astype(np.float32).astype(np.float64)
        return seen[name]

    logits = minikv.forward(weights, [ids], logits="all", hook=hook)
    return logits.astype(np.float32), seen


def in_float64(peer: Any, frequencies: np.ndarray, local: np.ndarray | None = None) -> Any:
    """Make a float32 causal model compute in float64 throughout; changes it in place.

    ``.double()`` alone is not enough, because transformers rounds to float32 in three places
    whatever the model's dtype is:

    * RMSNorm casts the stream to float32; here it stays in float64;
    * cosine and sine are taken in float32; here in float64, of the same float32 angle, which is
      what minikv does;
    * the frequencies are a float32 power, off by some ulp that grow with the position;
      `frequencies` takes their place (`test_rotary_frequencies_agree` bounds the difference).
    """
    import torch

    peer = peer.double()

    def norm_forward(module: Any) -> Any:
        eps = module.variance_epsilon if hasattr(module, "variance_epsilon") else module.eps
        offset = 1.0 if type(module).__name__.startswith("Gemma") else 0.0

        def forward(x: Any) -> Any:
            scale = torch.sqrt((x * x).mean(-1, keepdim=True) + eps)
            return (offset + module.weight) * (x / scale)

        return forward

    for module in peer.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = norm_forward(module)

    def rotary_forward(x: Any, position_ids: Any, layer_type: str = "full_attention") -> Any:
        given = frequencies if local is None or layer_type == "full_attention" else local
        single = torch.tensor(given, dtype=torch.float32)
        angles = (position_ids[..., None].float() * single).double()
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()

    peer.model.rotary_emb.forward = rotary_forward
    return peer
