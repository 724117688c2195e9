"""The forward pass: ragged batches, which logits, what a hook sees, what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from bits import assert_same_bits
from hypothesis import given
from hypothesis import strategies as st

import minikv
from minikv.caches import examples
from minikv.config import SLIDING
from minikv.errors import ArithmeticRangeError, InputError

EXACT = minikv.random_model(minikv.tiny_config(), seed=1, arithmetic="exact")
FLOAT64 = minikv.random_model(minikv.tiny_config(), seed=1, arithmetic="float64")
TEXT = np.random.default_rng(0).integers(0, 97, 24).tolist()
ids = st.lists(st.integers(0, 96), min_size=1, max_size=12)


memories = st.one_of(st.none(), st.sampled_from([*examples(budget=3)]))


@given(st.lists(st.tuples(ids, memories, ids), min_size=1, max_size=4))
def test_a_ragged_batch_is_its_sequences_one_by_one(sequences):
    """With any mixture of caches, some holding a text already, in rows that start anywhere."""

    def caches():
        made = []
        for before, example, _ in sequences:
            made.append(example and example.new(EXACT.weights))
            if example:
                EXACT.forward([before], [made[-1]], logits="none")
        return made

    texts = [new for _, _, new in sequences]
    together = EXACT.forward(texts, caches(), logits="all")
    last = EXACT.forward(texts, caches())
    alone = [EXACT.forward([t], [c], logits="all") for t, c in zip(texts, caches(), strict=True)]
    assert_same_bits(together, np.concatenate(alone))
    assert_same_bits(last, np.concatenate([rows[-1:] for rows in alone]))


@pytest.mark.parametrize("example", examples(budget=3), ids=str)
def test_what_a_cache_keeps_of_a_batch_is_what_it_keeps_of_its_sequence(example):
    """Of the third sequence, whose rows start behind those of the others."""
    for others in ([1], TEXT[:3], TEXT):
        batched, alone = example.new(EXACT.weights), example.new(EXACT.weights)
        EXACT.forward([others, others[:2], TEXT[:9]], [None, None, batched], logits="none")
        EXACT.forward([TEXT[:9]], [alone], logits="none")
        kept, expected = batched.state()[0], alone.state()[0]
        assert kept.keys() == expected.keys()
        for name, array in expected.items():
            assert_same_bits(kept[name], array, name)


@pytest.mark.parametrize("window", [None, 50])
def test_a_call_of_more_than_32_blocks_of_queries_is_its_parts(window):
    """1,100 tokens are 35 blocks; the parts are of any size, and begin anywhere in a block."""
    windows = {"model_type": "mistral", "sliding_window": window, "layer_types": (SLIDING,)}
    config = minikv.tiny_config(
        **(windows if window else {}), num_hidden_layers=1, max_position_embeddings=1100
    )
    model = minikv.random_model(config, 3, "exact", scale=3.0)
    assert 32 * model.arithmetic.query_block < 1100
    text = np.random.default_rng(1).integers(0, 97, 1100)
    cache = model.new_cache()
    parts = np.split(text, [1, 32, 65, 565])
    logits = [model.forward([part], [cache], logits="all") for part in parts]
    assert_same_bits(np.concatenate(logits), model.logits(text))


def test_a_batch_leaves_every_cache_with_its_own_text():
    caches = [EXACT.new_cache(policy) for policy in ("full", "none", "residual")]
    EXACT.forward([TEXT[:3], TEXT[:5], TEXT[:9]], caches)
    assert [cache.seen for cache in caches] == [3, 5, 9]
    EXACT.forward([TEXT[3:5], TEXT[5:]], caches[:2])
    assert [cache.seen for cache in caches] == [5, 24, 9]
    assert_same_bits(EXACT.forward([[7]], [caches[1]])[0], EXACT.logits([*TEXT, 7])[-1])


def test_logits_may_be_of_the_last_row_of_all_or_not_asked_for():
    every = EXACT.logits(TEXT)
    assert every.shape == (24, 97)
    assert every.dtype == np.float32
    assert_same_bits(EXACT.forward([TEXT]), every[-1:])
    cache = EXACT.new_cache()
    assert EXACT.forward([TEXT[:20]], [cache], logits="none") is None
    assert cache.seen == 20
    assert_same_bits(EXACT.forward([TEXT[20:]], [cache], logits="all"), every[20:])


def test_a_hook_sees_only_what_is_computed():
    """`logits="none"` computes no logits, and `"last"` those of one row."""
    seen = {}

    def keep(name, value):
        seen[name] = value.shape
        return value

    EXACT.forward([TEXT], logits="none", hook=keep)
    assert "ln_final.hook_normalized" not in seen
    EXACT.forward([TEXT, TEXT[:3]], hook=keep)
    assert seen["ln_final.hook_normalized"] == (2, 24)


def test_every_activation_has_its_name_and_shape():
    _, found = EXACT.run_with_cache(TEXT)
    t, d, h, g, f = 24, 24, 4, 2, 40
    block = {
        "hook_resid_pre": (t, d),
        "ln1.hook_normalized": (t, d),
        "attn.hook_q": (t, h, 6),
        "attn.hook_rot_q": (t, h, 6),
        "attn.hook_k": (t, g, 6),
        "attn.hook_v": (t, g, 6),
        "attn.hook_rot_k": (t, g, 6),
        "attn.hook_attn_scores": (h, t, t),
        "attn.hook_pattern": (h, t, t),
        "attn.hook_z": (t, h, 6),
        "hook_attn_out": (t, d),
        "hook_resid_mid": (t, d),
        "ln2.hook_normalized": (t, d),
        "mlp.hook_pre": (t, f),
        "mlp.hook_pre_linear": (t, f),
        "mlp.hook_post": (t, f),
        "hook_mlp_out": (t, d),
        "hook_resid_post": (t, d),
    }
    shapes = {"hook_embed": (t, d), "ln_final.hook_normalized": (t, d)}
    shapes |= {f"blocks.{i}.{name}": shape for i in range(2) for name, shape in block.items()}
    assert {name: value.shape for name, value in found.items()} == shapes


def test_the_stream_is_what_blocks_add_up_to():
    _, seen = EXACT.run_with_cache(TEXT)
    for at in ("blocks.0.", "blocks.1."):
        mid = seen[at + "hook_resid_pre"] + seen[at + "hook_attn_out"]
        assert_same_bits(mid, seen[at + "hook_resid_mid"])
        assert_same_bits(mid + seen[at + "hook_mlp_out"], seen[at + "hook_resid_post"])
    assert_same_bits(seen["hook_embed"], seen["blocks.0.hook_resid_pre"])
    assert_same_bits(seen["blocks.0.hook_resid_post"], seen["blocks.1.hook_resid_pre"])


def failing_at(activation: str):
    def hook(name, value):
        if name == activation:
            raise RuntimeError(name)
        return value

    return hook


@pytest.mark.parametrize("name", ["full", "none", "residual"])
def test_a_call_that_fails_in_the_last_norm_was_not(name):
    cache = EXACT.new_cache(name)
    EXACT.forward([TEXT[:5]], [cache])
    with pytest.raises(RuntimeError):
        EXACT.forward([TEXT[5:8]], [cache], hook=failing_at("ln_final.hook_normalized"))
    assert cache.seen == 5


WRONG_IDS = [
    ([], "no tokens given, expected at least one"),
    ([97], "token id 97 at index 0 is outside the vocabulary (0 to 96)"),
    ([1, 2, -1], "token id -1 at index 2 is outside the vocabulary"),
    ([1, 99, -1, 98], "token id 99 at index 1 is outside the vocabulary"),  # the first of several
    ([2**62], "is outside the vocabulary"),
    ([2**80], "token ids"),
    ([1.0, 2.0], "token ids have dtype float64, expected whole numbers"),
    ([True], "token ids have dtype bool"),
    (["a"], "token ids have dtype"),
    ("abc", "token ids"),
    (None, "token ids"),
    (5, "token ids are not one flat sequence"),
    ([[1, 2], [3, 4]], "token ids are not one flat sequence"),
    ([[1, 2], [3]], "token ids are not one flat sequence"),
    ([None], "token ids have dtype object"),
    ({1: 2}, "token ids"),
    ([math.nan], "token ids have dtype float64"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG_IDS)
def test_wrong_token_ids_are_named(wrong, message):
    calls = (
        lambda: EXACT.logits(wrong),
        lambda: EXACT.generate(wrong, 3),
        lambda: EXACT.run_with_cache(wrong),
        lambda: EXACT.run_with_hooks(wrong, {}),
        lambda: EXACT.forward([[1], wrong], [EXACT.new_cache(), EXACT.new_cache()]),
    )
    for call in calls:
        with pytest.raises(InputError) as caught:
            call()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_token_ids_may_be_any_whole_numbers():
    expected = EXACT.logits(TEXT)
    for kind in (tuple, np.array, lambda t: np.array(t, dtype=np.uint8), range):
        given_ids = range(24) if kind is range else kind(TEXT)
        assert_same_bits(
            EXACT.logits(given_ids), EXACT.logits(list(range(24))) if kind is range else expected
        )


def test_wrong_batches_are_named():
    cache, foreign = EXACT.new_cache(), FLOAT64.new_cache()
    wrong = [
        (lambda: EXACT.forward([]), "no sequences given"),
        (lambda: EXACT.forward(5), "no sequences given"),
        (lambda: EXACT.forward([[1]], cache), "caches is <.*>, expected a list with one for each"),
        (lambda: EXACT.forward([[1]], ["full"]), "a cache is not of this model"),
        (lambda: EXACT.forward([[1]], []), "0 caches for 1 sequences"),
        (lambda: EXACT.forward([[1], [2]], [cache]), "1 caches for 2 sequences"),
        (lambda: EXACT.forward([[1], [2]], [cache, cache]), "one cache is given for two"),
        (lambda: EXACT.forward([[1]], [foreign]), "a cache is not of this model"),
        (lambda: EXACT.forward([[1]], logits="first"), "logits is 'first'; choose 'last', 'all'"),
        (lambda: EXACT.logits(TEXT * 6), "144 tokens, expected at most 128"),
    ]
    for call, message in wrong:
        with pytest.raises(InputError, match=message):
            call()
    assert cache.seen == foreign.seen == 0


def test_a_text_may_fill_the_context_and_not_outgrow_it():
    full = (TEXT * 6)[:128]
    assert EXACT.logits(full).shape == (128, 97)
    cache = EXACT.new_cache()
    EXACT.forward([full], [cache], logits="none")
    with pytest.raises(InputError, match="129 tokens, expected at most 128"):
        EXACT.forward([[1]], [cache])
    assert cache.seen == 128


def test_an_activation_out_of_range_is_named_with_its_block():
    infinite = {"blocks.1.hook_resid_pre": lambda value, _: value * np.inf}
    with np.errstate(all="ignore"), pytest.raises(ArithmeticRangeError) as caught:
        EXACT.run_with_hooks(TEXT, infinite)
    assert str(caught.value).startswith("blocks.1: ")
    assert "model.layers.1.self_attn.q_proj holds NaN" in str(caught.value)
