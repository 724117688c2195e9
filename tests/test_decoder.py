"""The decoder in Python: batches, logits, hooks, generation, sampling, and wrong input."""

from __future__ import annotations

import math
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minikv
from minikv import RopeScaling, layers
from minikv.arithmetic import get_arithmetic
from minikv.arrays import to_numpy
from minikv.errors import ArithmeticRangeError, InputError, MinikvError, WeightsError
from minikv.generation import sampler

EXACT = minikv.random_model(minikv.tiny_config(), seed=1, arithmetic="exact")
FLOAT64 = minikv.random_model(minikv.tiny_config(), seed=1, arithmetic="float64")
TEXT = np.random.default_rng(0).integers(0, 97, 24).tolist()
ids = st.lists(st.integers(0, 96), min_size=1, max_size=12)


def same(a, b) -> bool:
    a, b = (np.ascontiguousarray(x) for x in (a, b))
    return a.shape == b.shape and bool((a.view(np.uint32) == b.view(np.uint32)).all())


# Batches and logits


@given(
    st.lists(
        st.tuples(ids, st.sampled_from([None, "full", "none", "residual"]), ids),
        min_size=1,
        max_size=4,
    )
)
def test_a_ragged_batch_is_its_sequences_one_by_one(sequences):
    """With any mixture of caches, some holding a text already."""

    def caches():
        made = []
        for before, policy, _ in sequences:
            made.append(policy and EXACT.new_cache(policy))
            if policy:
                EXACT.forward([before], [made[-1]], logits="none")
        return made

    texts = [new for _, _, new in sequences]
    together = EXACT.forward(texts, caches(), logits="all")
    last = EXACT.forward(texts, caches())
    alone = [EXACT.forward([t], [c], logits="all") for t, c in zip(texts, caches(), strict=True)]
    assert same(together, np.concatenate(alone))
    assert same(last, np.concatenate([rows[-1:] for rows in alone]))


def test_a_batch_leaves_every_cache_with_its_own_text():
    caches = [EXACT.new_cache(policy) for policy in ("full", "none", "residual")]
    EXACT.forward([TEXT[:3], TEXT[:5], TEXT[:9]], caches)
    assert [cache.seen for cache in caches] == [3, 5, 9]
    EXACT.forward([TEXT[3:5], TEXT[5:]], caches[:2])
    assert [cache.seen for cache in caches] == [5, 24, 9]
    assert same(EXACT.forward([[7]], [caches[1]])[0], EXACT.logits([*TEXT, 7])[-1])


def test_logits_may_be_of_the_last_row_of_all_or_not_asked_for():
    every = EXACT.logits(TEXT)
    assert every.shape == (24, 97)
    assert every.dtype == np.float32
    assert same(EXACT.forward([TEXT]), every[-1:])
    cache = EXACT.new_cache()
    assert EXACT.forward([TEXT[:20]], [cache], logits="none") is None
    assert cache.seen == 20
    assert same(EXACT.forward([TEXT[20:]], [cache], logits="all"), every[20:])


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


# Hooks


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
        assert same(mid, seen[at + "hook_resid_mid"])
        assert same(mid + seen[at + "hook_mlp_out"], seen[at + "hook_resid_post"])
    assert same(seen["hook_embed"], seen["blocks.0.hook_resid_pre"])
    assert same(seen["blocks.0.hook_resid_post"], seen["blocks.1.hook_resid_pre"])


def test_looking_changes_nothing():
    """Hooks make attention one block of queries; 300 are three without them."""
    model = minikv.random_model(
        minikv.tiny_config(max_position_embeddings=512), seed=1, arithmetic="exact"
    )
    text = np.random.default_rng(1).integers(0, 97, 300).tolist()
    assert same(model.run_with_cache(text)[0], model.logits(text))


@pytest.mark.parametrize("name", list(EXACT.run_with_cache([1])[1]))
def test_every_activation_can_be_replaced(name):
    """Each is on the way to the logits: moving it moves them. None leaves it alone."""
    before = EXACT.logits(TEXT[:8])
    assert same(EXACT.run_with_hooks(TEXT[:8], {name: lambda value, _: None}), before)
    assert same(EXACT.run_with_hooks(TEXT[:8], {name: lambda value, _: value.copy()}), before)
    rng = np.random.default_rng(0)

    def moved(value, _):
        return value * rng.uniform(0.5, 1.5, value.shape)

    with np.errstate(invalid="ignore"):  # masked scores stay -inf
        assert not same(EXACT.run_with_hooks(TEXT[:8], {name: moved}), before)


def test_a_hook_is_given_its_name_and_may_return_another_dtype():
    names = []

    def zero(value, name):
        names.append(name)
        return np.zeros(value.shape, dtype=np.float64)

    hook = {"blocks.1.hook_resid_pre": zero}
    assert EXACT.run_with_hooks(TEXT, hook).dtype == np.float32
    assert names == ["blocks.1.hook_resid_pre"]


WRONG_HOOKS = [
    ({"blocks.2.hook_resid_pre": lambda v, n: v}, "names no activation; run_with_cache"),
    ({"hook_embedding": lambda v, n: v}, "'hook_embedding' names no activation"),
    ({"hook_embed": lambda v, n: v[:-1]}, r"returned shape \(23, 24\), expected \(24, 24\)"),
    ({"hook_embed": lambda v, n: np.float32(0)}, r"returned shape \(\), expected"),
    ({"hook_embed": lambda v, n: v + 1j}, "returned complex64, expected real numbers"),
    ({"hook_embed": lambda v, n: v.tolist()}, r"returned shape list, expected \(24, 24\)"),
]


@pytest.mark.parametrize(("hooks", "message"), WRONG_HOOKS)
def test_wrong_hooks_are_named(hooks, message):
    with pytest.raises(InputError, match=message):
        EXACT.run_with_hooks(TEXT, hooks)


def test_an_activation_out_of_range_is_named_with_its_block():
    infinite = {"blocks.1.hook_resid_pre": lambda value, _: value * np.inf}
    with np.errstate(all="ignore"), pytest.raises(ArithmeticRangeError) as caught:
        EXACT.run_with_hooks(TEXT, infinite)
    assert str(caught.value).startswith("blocks.1: ")
    assert "model.layers.1.self_attn.q_proj+k_proj+v_proj holds NaN" in str(caught.value)


def test_kl_divergence_is_zero_for_the_same_and_positive_for_another():
    logits = EXACT.logits(TEXT)
    assert (minikv.kl_divergence(logits, logits) == 0).all()
    other = minikv.kl_divergence(logits, logits[::-1])
    assert other.shape == (24,)
    assert (other > 0).all()
    p, q = np.log([0.75, 0.25]), np.log([0.5, 0.5])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    # Six correctly rounded operations on numbers below 2, and logarithms good to 1 ulp.
    assert abs(minikv.kl_divergence(p, q) - expected) < 20 * 2.0**-53
    assert minikv.kl_divergence(p + 7, q - 3) == pytest.approx(
        expected, rel=1e-14
    )  # a shift: 1e-15


# Generation


def greedy(model: minikv.Model, text: list[int], count: int) -> list[int]:
    """The definition: the most likely token after one pass over everything so far."""
    text = list(text)
    for _ in range(count):
        text.append(int(np.argmax(model.logits(text)[-1])))
    return text[-count:]


@pytest.mark.parametrize("cache", ["full", "none", "residual"])
def test_greedy_decoding_takes_the_most_likely_token(cache):
    assert list(EXACT.generate(TEXT, 12, cache)) == greedy(EXACT, TEXT, 12)


def test_generation_goes_on_where_the_cache_is():
    cache = EXACT.new_cache()
    first = list(EXACT.generate(TEXT, 5, cache))
    assert cache.seen == len(TEXT) + 4  # the last token was chosen, not fed
    more = list(EXACT.generate(first[-1:], 5, cache))
    assert first + more == greedy(EXACT, TEXT, 10)


def test_generation_stops_at_a_stop_token_and_yields_it():
    tokens = greedy(EXACT, TEXT, 12)
    stop = tokens[5]
    cut = tokens[: tokens.index(stop) + 1]
    assert list(EXACT.generate(TEXT, 12, stop={stop})) == cut
    config = minikv.tiny_config(eos_token_id=(stop,))
    model = minikv.random_model(config, seed=1, arithmetic="exact")
    assert list(model.generate(TEXT, 12)) == cut
    assert list(model.generate(TEXT, 12, stop=[])) == tokens


def test_generation_ends_where_the_context_is_full():
    model = minikv.random_model(minikv.tiny_config(max_position_embeddings=27), seed=1)
    cache = model.new_cache()
    assert len(list(model.generate(TEXT, 100, cache))) == 3
    assert cache.seen == 26
    assert len(list(model.generate([1], 0, cache))) == 0
    with pytest.raises(InputError, match="the prompt has 27 tokens, expected at most 26"):
        model.generate([1], 1, cache)


def test_streaming_llm_generates_past_the_context():
    model = minikv.random_model(minikv.tiny_config(max_position_embeddings=27), seed=1)
    cache = model.new_cache("streaming_llm", budget=20)
    assert len(list(model.generate(TEXT, 100, cache))) == 100
    assert cache.seen == 24 + 99


def test_tokens_come_one_at_a_time():
    cache = EXACT.new_cache()
    stream = EXACT.generate(TEXT, 100, cache)
    assert cache.seen == 0  # nothing runs before the first is asked for
    next(stream)
    assert cache.seen == 24
    stream.close()
    assert cache.seen == 24


# Sampling


def test_sampling_repeats_by_seed_and_differs_between_seeds():
    def sample(seed):
        return list(EXACT.generate(TEXT, 20, temperature=2.0, seed=seed))

    assert sample(3) == sample(3)
    assert sample(3) != sample(4)


def test_only_the_most_likely_tokens_are_drawn():
    logits = np.log(np.array([0.5, 0.25, 0.125, 0.0625, 0.0625]))

    def drawn(top_k, top_p):
        choose = sampler(1.0, top_k, top_p, 0)
        return {choose(logits) for _ in range(400)}

    assert drawn(None, None) == {0, 1, 2, 3, 4}
    assert drawn(2, None) == {0, 1}
    assert drawn(1, None) == {0}
    assert drawn(50, None) == {0, 1, 2, 3, 4}
    assert drawn(None, 0.4) == {0}
    assert drawn(None, 0.7) == {0, 1}  # 0.5 does not reach 0.7
    assert drawn(None, 1.0) == {0, 1, 2, 3, 4}
    assert drawn(3, 0.8) == {0, 1}  # of the three, 0.57 and 0.29 are enough


def test_draws_follow_the_probabilities():
    """Of 5,000 draws; a count is further than 5 standard deviations once in 1.7e6."""
    p = np.array([0.6, 0.3, 0.1])
    for temperature in (1.0, 0.5, 2.0):
        scaled = p ** (1 / temperature)
        scaled /= scaled.sum()
        choose, n = sampler(temperature, None, None, 1), 5_000
        counts = Counter(choose(np.log(p)) for _ in range(n))
        for token, q in enumerate(scaled):
            assert abs(counts[token] - n * q) <= 5 * math.sqrt(n * q * (1 - q))


@pytest.mark.filterwarnings("error")
def test_extreme_logits_and_temperatures_are_sampled_without_a_warning():
    logits = np.array([3e38, -3e38, 0.0, -np.inf], dtype=np.float32)
    for temperature in (1e-300, 1e-3, 1.0, 1e300):
        assert sampler(temperature, None, None, 0)(logits) in (0, 1, 2)
    assert sampler(1e-300, None, None, 0)(np.array([1.0, 2.0, 2.0])) in (1, 2)
    assert sampler(0, None, None, None)(np.array([2.0, 3.0, 3.0])) == 1  # the first of equals
    assert sampler(5.0, 1, None, 0)(np.array([2.0, 3.0, 3.0])) == 1


# Wrong input


WRONG_IDS = [
    ([], "no tokens given, expected at least one"),
    ([97], "token id 97 at index 0 is outside the vocabulary (0 to 96)"),
    ([1, 2, -1], "token id -1 at index 2 is outside the vocabulary"),
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
        assert same(
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


WRONG_OPTIONS = [
    ({"temperature": -1}, "temperature is -1"),
    ({"temperature": math.nan}, "temperature is nan"),
    ({"temperature": math.inf}, "temperature is inf"),
    ({"temperature": 10**400}, "temperature is 1000"),
    ({"temperature": "1"}, "temperature is '1'"),
    ({"temperature": None}, "temperature is None"),
    ({"top_k": 0}, "top_k is 0, expected a whole number from 1 up"),
    ({"top_k": 1.5}, "top_k is 1.5"),
    ({"top_k": True}, "top_k is True"),
    ({"top_p": 0}, "top_p is 0, expected a number above 0 and at most 1"),
    ({"top_p": 1.1}, "top_p is 1.1"),
    ({"top_p": math.nan}, "top_p is nan"),
    ({"top_k": 5}, "temperature 0 takes the likeliest token: give a temperature above 0"),
    ({"top_p": 0.5}, "top_k and top_p are of draws"),
    ({"seed": -1}, "seed is -1, expected a whole number from 0 up"),
    ({"seed": 1.0}, "seed is 1.0"),
    ({"max_new_tokens": -1}, "max_new_tokens is -1, expected a whole number from 0 up"),
    ({"max_new_tokens": 2.0}, "max_new_tokens is 2.0"),
    ({"cache": "half"}, "cache policy 'half' is unknown"),
    ({"stop": 5}, "stop is 5, expected token ids"),
    ({"stop": [1.5]}, "stop is [1.5], expected token ids"),
]


@pytest.mark.parametrize(("options", "message"), WRONG_OPTIONS)
def test_wrong_generation_options_are_named_at_once(options, message):
    with pytest.raises(MinikvError) as caught:
        EXACT.generate(TEXT, **options)
    assert message in str(caught.value)


def test_wrong_models_are_named():
    config = minikv.tiny_config()
    tensors = minikv.random_tensors(config, 0)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(WeightsError, match=r"model.layers.1.mlp.up_proj.weight is missing"):
        minikv.build(config, tensors)
    with pytest.raises(InputError, match="seed is -1, expected a whole number from 0 up"):
        minikv.random_model(config, -1)
    with pytest.raises(InputError, match="arithmetic 'float16' is unknown; choose 'float32'"):
        get_arithmetic("float16")
    tensors = minikv.random_tensors(config, 0)
    tensors["model.layers.0.mlp.up_proj.weight"][3, 4] = np.nan
    with pytest.raises(ArithmeticRangeError, match=r"mlp.gate_proj\+up_proj holds nan"):
        minikv.build(config, tensors, "exact")


def test_threads_that_share_a_model_get_the_angles_that_they_asked_for():
    """A table that one thread makes longer must not change under another."""
    rotary = layers.Rotary(EXACT.config, EXACT.arithmetic)
    expected = rotary(np.arange(4000))
    calls = [np.array([1000]), np.arange(1001), np.array([100]), np.arange(4000)] * 2
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(calls)) as pool:
            for _ in range(200):
                fresh = layers.Rotary(EXACT.config, EXACT.arithmetic)
                for at, got in zip(calls, pool.map(fresh, calls), strict=True):
                    assert all(same(g, e[at]) for g, e in zip(got, expected, strict=True))
    finally:
        sys.setswitchinterval(interval)


def test_what_is_shown_of_a_model_fits_in_a_line():
    cache = EXACT.new_cache("residual", budget=3)
    EXACT.forward([TEXT], [cache])
    assert repr(cache) == "<Residual: 24 tokens seen, 3 kept as K and V>"
    assert repr(EXACT) == "<Model: made here, llama, 2 layers, 11,664 parameters, exact>"
    for shown in (EXACT.weights, EXACT.layers[0]):
        assert len(repr(shown)) < 80
    assert len({EXACT, FLOAT64, EXACT}) == 2  # and it can be a key


def test_an_angle_beyond_the_range_of_sine_and_cosine_is_refused():
    """A frequency of theta**(-2i/d), or one divided by a factor, can turn too fast."""
    for stretched in ({"rope_theta": 1e-9}, {"rope_scaling": RopeScaling(1e-9)}):
        model = minikv.random_model(minikv.tiny_config(**stretched), 0)
        with pytest.raises(ArithmeticRangeError, match=r"turns by .* radians, expected at most"):
            model.logits(TEXT)


@pytest.mark.parametrize("backend", ["numpy", "numba", "torch"])
def test_float64_tensors_are_rounded_to_float32_before_any_backend_rounds_them(backend):
    """Else 0.5 and a little more of a grid step would be rounded once here and twice there."""
    if backend != "numpy":
        pytest.importorskip(backend)
    config = minikv.tiny_config()
    tensors = {
        name: value.astype(np.float64) for name, value in minikv.random_tensors(config, 0).items()
    }
    tensors["model.embed_tokens.weight"][5, :2] = 1.0, 2.0**-21 + 2.0**-46
    rounded = {name: value.astype(np.float32) for name, value in tensors.items()}
    one, other = (
        to_numpy(minikv.Model(minikv.build(config, stored, "exact", backend)).logits(range(60)))
        for stored in (tensors, rounded)
    )
    assert np.array_equal(one.view(np.uint32), other.view(np.uint32))
