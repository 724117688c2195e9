"""A decoder of the zoo with the weights of a real model of the Llama family.

What a norm multiplies is multiplied into the matrices behind it, since the zoo's norms have no
weights.
"""

from __future__ import annotations

import functools
from pathlib import Path

from minikv import ModelConfig
from minikv.tokenizer import Tokenizer
from minikv.weights import load_tensors
from tests.conform.zoo import Decoder, Weights

NAMES = {
    "q": ("self_attn.q_proj", "input_layernorm"),
    "k": ("self_attn.k_proj", "input_layernorm"),
    "v": ("self_attn.v_proj", "input_layernorm"),
    "o": ("self_attn.o_proj", ""),
    "up0": ("mlp.up_proj", "post_attention_layernorm"),
    "gate0": ("mlp.gate_proj", "post_attention_layernorm"),
    "down0": ("mlp.down_proj", ""),
}
"""Each matrix of a block, and the norm before it."""


@functools.cache
def weights_of(folder: str | Path) -> tuple[ModelConfig, Weights]:
    """Configuration and weights of a folder, float32."""
    config = ModelConfig.from_file(Path(folder) / "config.json")
    if config.model_type != "llama":
        raise SystemExit(f"{folder} holds a {config.model_type} model; the zoo reads llama")
    tensors = load_tensors(folder, config)
    embed = tensors["model.embed_tokens.weight"]
    head = tensors.get("lm_head.weight", embed)
    found = {"embed": embed, "head": (head * tensors["model.norm.weight"]).T}
    for layer in range(config.num_hidden_layers):
        block = f"model.layers.{layer}"
        for name, (matrix, norm) in NAMES.items():
            weight = tensors[f"{block}.{matrix}.weight"]
            if norm:
                weight = weight * tensors[f"{block}.{norm}.weight"]
            found[f"{layer}.{name}"] = weight.T
    return config, found


def real_decoder(
    folder: str | Path,
    dtype: str = "float32",
    faults: tuple[str, ...] = (),
    layers: int | None = None,
) -> Decoder:
    """The zoo's decoder with a folder's weights, all or the first layers, and faults planted in it.

    It has no second implementation, to save the memory of one.
    """
    config, weights = weights_of(folder)
    made = Decoder(
        dtype=dtype,
        faults=faults,
        layers=layers or config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        groups=config.num_key_value_heads,
        vocab=config.vocab_size,
        base=config.rope_theta,
        eps=config.rms_norm_eps,
        given=weights,
    )
    made.name = f"a decoder of the zoo with weights of {Path(folder).name}"
    made.reference = None
    made.encode = Tokenizer.from_folder(folder).encode
    return made
