"""Hypothesis strategies for the cases on which the theorems are checked."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

from minikv import ModelConfig
from minikv.config import FAMILIES, FULL, SLIDING, RopeScaling
from minikv.verify import Case

CONTEXT = 24  # tokens; some texts fill it


@st.composite
def configs(
    draw: st.DrawFn, max_layers: int = 4, windowed: bool = False, families=tuple(FAMILIES)
) -> ModelConfig:
    """All families, one to four blocks, windows, MHA, GQA and MQA, odd sizes, tied or not.

    And rotations scaled in either way, with a base of their own in sliding layers.
    """
    groups, layers = draw(st.integers(1, 3)), draw(st.integers(1, max_layers))
    kinds = st.tuples(*[st.sampled_from([FULL, SLIDING])] * layers).filter(lambda t: SLIDING in t)
    return ModelConfig(
        vocab_size=draw(st.integers(5, 61)),
        hidden_size=draw(st.integers(1, 41)),
        intermediate_size=draw(st.integers(1, 53)),
        num_hidden_layers=layers,
        num_attention_heads=groups * draw(st.integers(1, 3)),
        num_key_value_heads=groups,
        head_dim=2 * draw(st.sampled_from([1, 2, 3, 5, 8, 32])),
        max_position_embeddings=CONTEXT,
        rms_norm_eps=draw(st.sampled_from([1e-6, 1e-5, 1e-2])),
        rope_theta=draw(st.sampled_from([2.0, 1e4, 1e6])),
        rope_scaling=draw(st.sampled_from([None, RopeScaling(8.0), RopeScaling(4.0, 1.0, 4.0, 6)])),
        rope_local_base_freq=draw(st.sampled_from([None, 1e2])),
        query_pre_attn_scalar=draw(st.sampled_from([None, 3.0])),
        tie_word_embeddings=draw(st.booleans()),
        model_type=draw(st.sampled_from(families)),
        layer_types=draw(kinds if windowed else st.just(()) | kinds),
        sliding_window=draw(st.integers(1, 8)),  # read where a layer slides
    )


@st.composite
def cases(
    draw: st.DrawFn,
    max_layers: int = 4,
    min_tokens: int = 1,
    scales=None,
    windowed: bool = False,
    families=tuple(FAMILIES),
) -> Case:
    """A random model, two texts of the same length, and a way to cut the first into calls."""
    config = draw(configs(max_layers, windowed, families))
    lengths = st.integers(min_tokens, 12), st.integers(max(9, min_tokens), CONTEXT)
    length = draw(st.one_of(*lengths, st.just(CONTEXT)))
    token = st.integers(0, config.vocab_size - 1)
    text = st.lists(token, min_size=length, max_size=length).map(tuple)
    cuts = draw(st.sets(st.integers(1, length - 1), max_size=6)) if length > 1 else set()
    if draw(st.booleans()):
        cuts |= set(range(length // 2 + 1, length))  # a prompt, then one token at a time
    edges = [0, *sorted(cuts), length]
    ids, other = draw(text), draw(text)
    if other == ids:  # two texts that are one would show nothing
        other = ((ids[0] + 1) % config.vocab_size, *ids[1:])
    return Case(
        config,
        ids=ids,
        other=other,
        chunks=tuple(b - a for a, b in itertools.pairwise(edges)),
        seed=draw(st.integers(0, 2**20)),
        scale=draw(st.sampled_from(scales or [0.01, 1.0, 3.0, 30.0])),
    )
