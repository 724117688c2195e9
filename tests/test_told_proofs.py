"""Numbers, counts and lists that the proofs' pages and docstrings tell are those of the code."""

from __future__ import annotations

import dataclasses
import re
import weakref
from pathlib import Path

import make_fixtures
import numpy as np
import pytest
from bits import assert_same_bits

import minikv
from minikv.arithmetic import Float32, NumpyExact
from minikv.caches import POLICIES, Evicting
from minikv.config import FAMILIES, FULL, SLIDING
from minikv.errors import InputError
from minikv.parallel import Comm, even_shares, run_threads, split_sums
from minikv.shapes import SHAPES, shape
from minikv.verify import THEOREMS, Case, blocks, certificate, random_case
from minikv.verify.backwards import BACKWARDS
from minikv.verify.bits import differ
from minikv.verify.blocks import Block, check_block, prove_shape
from minikv.verify.certificate import certify, plans
from minikv.verify.dataflow import MOST_TOKENS, Labels, UnknownOperation, labelled_model
from minikv.verify.page import _svg
from minikv.verify.texts import TEXTS, long_cases, real_cases
from minikv.verify.theorem import Plot
from minikv.verify.theorems import t02_markov, t09_bounded_loss, t12_split
from minikv.verify.theorems.t04_any_eviction import Schedule
from minikv.verify.theorems.t08_causality import Unmasked
from minikv.verify.theorems.t10_prefix import kv_rows
from minikv.weights import save_folder

PROOFS = Path(__file__).parents[1] / "proofs"
README = " ".join((PROOFS / "README.md").read_text(encoding="utf-8").split())
ROCQ = PROOFS / "rocq"
WORDS = {4: "four", 5: "five", 6: "six"}
SMOLLM = shape("smollm-135m")
FLOAT32_CONTROLS = {"T1", "T3", "T6", "T7", "T12"}
SLIDES = minikv.tiny_config(
    model_type="qwen3",
    num_hidden_layers=4,
    layer_types=(SLIDING, FULL, SLIDING, FULL),
    sliding_window=9,
)


def bound(name: str) -> float:
    """A bound of ``Calm.v``."""
    text = (ROCQ / "Calm.v").read_text(encoding="utf-8")
    return float.fromhex(dict(re.findall(r"(\w+) : float := (\S+)\.\n", text))[name])


def exponents() -> str:
    """Those of the grids on which ``Binary64.v`` proves sums exact."""
    text = (ROCQ / "Binary64.v").read_text(encoding="utf-8")
    low, high = re.findall(r"Definition \w+[^.]*?\((-\d+) <= u <= (\d+)\)%Z /\\", text)[0]
    return rf"$-{low[1:]} \le e \le {high}$"


TOLD = [
    f"for all {WORDS[len(FAMILIES)]} families",
    f"whose weights are up to {bound('weight_bound'):.0f}, norms up to {bound('norm_bound'):.0f}",
    exponents(),
    f"$L = {SMOLLM.num_hidden_layers}$, $G = {SMOLLM.num_key_value_heads}$, "
    f"$d = {SMOLLM.head_dim}$, $D = {SMOLLM.hidden_size}$, float32",
]


@pytest.mark.parametrize("told", TOLD)
def test_a_number_of_the_page_is_that_of_the_code(told):
    assert told in README


def test_each_theorem_has_a_file_of_its_number():
    files = [theorem.check.__module__.rpartition(".")[2] for theorem in THEOREMS.values()]
    assert [file.partition("_")[0] for file in files] == [f"t{n:02}" for n in range(1, 13)]


def test_a_statement_is_a_line_without_a_full_stop_and_theorems_come_in_order():
    assert list(THEOREMS) == [f"T{number}" for number in range(1, 13)]
    for theorem in THEOREMS.values():
        assert "\n" not in theorem.statement
        assert theorem.statement[-1] not in ".:;"


def test_all_but_t9_are_proved_of_the_concrete_decoder_and_all_but_t6_abstractly():
    assert [id for id, theorem in THEOREMS.items() if not theorem.abstract] == ["T6"]
    assert [id for id, theorem in THEOREMS.items() if not theorem.concrete] == ["T9"]
    assert "All but T6 are proved in [Rocq]" in README
    assert "all but T9, which is about any attention, also for the decoder" in README


# --- memory


def test_keys_and_values_of_a_shape_are_mostly_below_its_stream_with_grouped_queries():
    grouped = [
        config
        for config in map(shape, SHAPES)
        if config.num_key_value_heads < config.num_attention_heads
    ]
    below = [2 * c.num_key_value_heads * c.head_dim < c.hidden_size for c in grouped]
    assert sum(below) > 0.8 * len(below)
    assert not all(below), "mostly"
    residuals = SMOLLM.num_hidden_layers * SMOLLM.residual_bytes_per_token()
    assert residuals > SMOLLM.kv_bytes_per_token()


@pytest.mark.parametrize("name", [name for name in SHAPES if name.startswith("gemma-3")])
def test_of_gemmas_layers_every_sixth_can_forget_nothing_and_the_others_all_but_a_window(name):
    config = shape(name)
    layers = config.num_hidden_layers
    assert config.reach(0, layers) is None
    for layer in range(layers):
        own = config.reach(layer, layer + 1)
        assert own == (None if layer % 6 == 5 else (config.sliding_window or 0) - 1)


def test_the_bound_of_the_rounding_of_t9_holds_up_to_2_200_keys_and_not_much_further():
    def higham(keys: int) -> float:
        terms = (keys + 2) * 2.0**-53
        return 4 * terms / (1 - terms)

    assert higham(2200) <= 1e-12 < higham(2300)
    told = " ".join((t09_bounded_loss.attention_loss.__doc__ or "").split())
    assert "4 gamma_{S+2} <= 1e-12 for up to 2,200 keys" in told


@pytest.mark.parametrize("arithmetic", ["exact", "float32"])
def test_an_output_is_rounded_by_no_more_than_t9_allows(arithmetic):
    shares = []
    for seed in range(40):
        case = dataclasses.replace(random_case(seed, scale=1.0), arithmetic=arithmetic)
        name = "blocks.0.attn.hook_"
        scores = np.asarray(case.activations[name + "attn_scores"], np.longdouble)[:, -1]
        values, z = (np.asarray(case.activations[name + kind], np.float64) for kind in "vz")
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        for head, row in enumerate(weights):
            v = values[:, head // (len(weights) // values.shape[1])]
            moved = float(np.linalg.norm(np.asarray(z[-1, head] - row @ v, np.float64)))
            unit = (2 * len(v) + v.shape[1] ** 0.5 + 8) * 2.0**-24 * t09_bounded_loss.longest(v)
            shares.append(moved / unit)
    assert max(shares) <= 1
    assert max(shares) > 0.01, "or nothing is rounded"


# --- theorems


@pytest.mark.parametrize("seed", range(6))
def test_patched_up_to_a_layer_keys_values_and_all_later_logits_are_the_donors(seed):
    config = minikv.tiny_config(num_hidden_layers=3)
    model = minikv.random_model(config, seed, "exact")
    rng = np.random.default_rng(seed)
    donor, other, later = (rng.integers(0, config.vocab_size, 6).tolist() for _ in range(3))
    streams = model.run_with_cache(donor)[1]
    expected = model.new_cache()
    model.forward([donor], [expected])
    for upto in range(3):
        names = {f"blocks.{layer}.hook_resid_pre" for layer in range(upto + 1)}
        cache = model.new_cache()

        def patch(name, value, names=names):
            return streams[name] if name in names else value

        model.forward([other], [cache], "none", patch)
        held, wanted = cache.state()[0], expected.state()[0]
        kinds = [name for name in wanted if name.startswith(("k.", "v."))]
        assert len(kinds) == 6
        for name in kinds:
            assert_same_bits(held[name], wanted[name])
        beside = expected.fork()
        for token in later:
            got, logits = (model.forward([[token]], [memory]) for memory in (cache, beside))
            assert_same_bits(got, logits)


def test_two_texts_that_differ_in_their_first_token_have_other_keys_in_layer_1():
    differing = 0
    for seed in range(30):
        case = random_case(seed, scale=1.0)
        if len(case.ids) > 1 and case.config.num_hidden_layers > 1 and not case.config.slides:
            first = (case.ids[0] + 1) % case.config.vocab_size
            k, _ = kv_rows(case, case.ids, 1)
            other, _ = kv_rows(case, (first, *case.ids[1:]), 1)
            differing += differ(k[-1], other[-1])
    assert differing > 3


def test_the_control_of_t2_patches_the_middle(monkeypatch):
    asked = []
    monkeypatch.setattr(
        t02_markov, "last_position_patch", lambda _, layer: asked.append(layer) or 0
    )
    for layers in (1, 2, 3, 4):
        config = minikv.tiny_config(num_hidden_layers=layers)
        t02_markov.control(dataclasses.replace(random_case(0), source=config))
    assert asked == [0, 1, 1, 2]


@pytest.mark.parametrize("id", THEOREMS)
def test_checks_run_exact_and_the_controls_of_sums_float32(id, monkeypatch):
    asked = set()
    made = minikv.verify.cases.model_of

    def noting(source, seed, scale, arithmetic, backend):
        asked.add(arithmetic)
        return made(source, seed, scale, arithmetic, backend)

    case = next(case for case in map(random_case, range(99)) if 2 < len(case.ids) < 6)
    monkeypatch.setattr("minikv.verify.cases.model_of", noting)
    THEOREMS[id].check(dataclasses.replace(case))
    assert asked == {"exact"}
    asked.clear()
    THEOREMS[id].control(dataclasses.replace(case))
    assert ("float32" in asked) == (id in FLOAT32_CONTROLS)


def test_what_is_unmasked_leaves_layers_with_a_window_alone():
    model = minikv.random_model(SLIDES, 0, "exact")
    memory = Unmasked(model.new_cache())
    positions = np.arange(3)
    moved = []
    for layer in model.layers:
        stream = np.ones((3, SLIDES.hidden_size), np.float32)
        k, v = minikv.kv_from_residual(stream, positions, layer)
        moved.append(not np.asarray(memory.update(layer, positions, stream, k, v)[0]).any())
    assert moved == [False, True, False, True]


def test_a_product_split_over_ranks_takes_three_reductions():
    def work(comm: Comm) -> int:
        arithmetic = split_sums(NumpyExact(64), comm)
        part = arithmetic.columns(np.ones((2, 3), np.float32), "w", 6)
        before = comm.calls
        arithmetic.linear(np.ones((4, 3), np.float32), part)
        return comm.calls - before

    assert run_threads(2, work) == [3, 3]


def test_a_sum_that_one_rank_doubts_another_does_not():
    """And `total` is a reduction, where sums lie on ranks."""
    asked = []

    class Spy(NumpyExact):
        def total(self, size):
            asked.append(size.shape[1])
            return super().total(size)

    spy = Spy(64)
    below = 1 / (1 + 2.0**-9)  # times 1 + 2**-9 a power of two
    for part in ([[below, 0.0, 0.0]], [[0.3, 0.4]]):
        size = np.array(part)
        spy.grid(size, size.sum(axis=-1, keepdims=True), 32)
    assert asked == [3]


def test_of_attentions_output_and_the_mlps_a_rank_has_terms_and_of_other_products_rows():
    share = even_shares(minikv.tiny_config(), 2)[1]
    block = "model.layers.0."
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        rows, columns = share.part(f"{block}{name}.weight")
        assert rows == slice(None)
        assert columns.start > 0
    for name in ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj"):
        (rows,) = share.part(f"{block}{name}.weight")
        assert rows.start > 0


# --- float32 whose rows depend on their company


def test_backwards_adds_a_lone_row_as_float32_and_several_from_the_last_term():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 50)).astype(np.float32)
    weight = rng.standard_normal((4, 50)).astype(np.float32)
    assert_same_bits(BACKWARDS.linear(x[:1], weight), Float32().linear(x[:1], weight))
    turned = Float32().linear(x[:, ::-1], weight[:, ::-1])
    assert_same_bits(BACKWARDS.linear(x, weight), turned)


# --- cases


def test_the_calls_of_a_case_add_up_to_its_length():
    for seed in range(100):
        case = random_case(seed)
        assert sum(case.chunks) == len(case.ids) == len(case.other)


def test_a_case_gives_every_theorem_the_same_draws():
    case = random_case(3)
    assert case.rng.random() == case.rng.random()
    assert dataclasses.replace(case, seed=case.seed + 1).rng.random() != case.rng.random()


def test_texts_of_a_fetched_model_are_each_kind_against_the_next(tiny):
    cases = real_cases(str(tiny))
    assert len(cases) == len(TEXTS) == 4
    for case, following in zip(cases, [*cases[1:], cases[0]], strict=True):
        assert len(case.ids) == len(case.other) == sum(case.chunks)
        shared = min(len(case.other), len(following.ids))
        assert case.other[:shared] == following.ids[:shared]
    assert {len(case.ids) for case in real_cases(str(tiny), tokens=9)} == {9}
    lengths = {len(case.ids) for case in real_cases(str(tiny), tokens=500)}
    assert len(lengths) > 1, "whole texts are of different lengths"
    assert all(len(case.ids) == len(case.other) for case in real_cases(str(tiny), tokens=500))


def test_a_long_text_is_longer_than_the_window_and_there_is_none_without_one(tiny, tmp_path):
    assert long_cases(str(tiny)) == []
    config = dataclasses.replace(
        make_fixtures.CONFIG,
        model_type="qwen3",
        sliding_window=4,
        layer_types=(SLIDING,) * make_fixtures.CONFIG.num_hidden_layers,
    )
    files = make_fixtures.tokenizer_files()
    save_folder(tmp_path / "windows", config, minikv.random_tensors(config, 3), files)
    for more in (5, 60):
        (case,) = long_cases(str(tmp_path / "windows"), more)
        assert len(case.ids) == len(case.other) == 4 + more
        assert case.ids != case.other


def test_a_schedule_decides_by_step_layer_position_and_what_went_by():
    places = range(40)
    told = [Schedule(12345)(1, 1, place) for place in places]
    assert set(told) == {"kv", "residual", "both"}
    assert told == [Schedule(12345)(1, 1, place) for place in places]
    others = [
        [Schedule(12345)(2, 1, place) for place in places],
        [Schedule(12345)(1, 2, place) for place in places],
        [Schedule(12345, 77)(1, 1, place) for place in places],
        [Schedule(54321)(1, 1, place) for place in places],
    ]
    assert told not in others


def test_t9_has_a_cache_of_each_eviction_policy_that_keeps_positions():
    case = next(case for case in map(random_case, range(99)) if len(case.ids) > 8)
    caches = list(t09_bounded_loss.evicting(case, 4))
    evicting = {name for name, policy in POLICIES.items() if issubclass(policy, Evicting)}
    assert {cache.policy for cache in caches} == evicting
    assert len(caches) == len(evicting)
    for cache in caches:
        attended, z = t09_bounded_loss.last_at_layer_0(case, cache)
        assert attended.shape[1] == case.config.num_key_value_heads
        assert attended.max() == len(case.ids) - 1
        assert z.shape == (case.config.num_attention_heads, case.config.head_dim)


def test_the_plot_of_t9_drops_each_key_from_each_head_and_that_of_t2_leaves_zeros_out():
    ids = tuple(range(9))
    config = minikv.tiny_config(num_hidden_layers=3)
    case = Case(config, ids, ids[::-1], (9,))
    asked = len(case.ids) * case.config.num_attention_heads
    assert asked / 2 < len(t09_bounded_loss.losses(case)) <= asked
    still = dataclasses.replace(case, scale=0.0)
    assert t02_markov.losses(still) == []
    layers = [layer for layer, _ in t02_markov.losses(case)]
    assert layers == sorted({*layers}) != []


def test_t12_runs_both_texts_in_one_batch_through_a_full_cache_and_kv_direct():
    case = random_case(3)
    asked = []

    class Noting:
        weights = case.model.weights

        def new_cache(self, policy, **options):
            asked.append((policy, options))
            return policy

        def forward(self, new, caches, logits):
            assert len(new) == 2
            assert caches == ["full", "residual"]
            assert logits == "all"
            return np.zeros(1)

    t12_split.followed(case, Noting())
    assert asked == [("full", {}), ("residual", {"budget": 1})]


def test_the_dots_of_a_plot_lie_in_a_field_of_400_by_220_between_whole_numbers():
    plot = Plot(caption="", across="a", up="b", points=lambda _: [(0.5, -1.5), (3.0, 2.25)])
    drawn = _svg(plot, random_case(0))
    dots = [(float(x), float(y)) for x, y in re.findall(r'cx="(\S+)" cy="(\S+)"', drawn)]
    assert dots == [(126.7, 218.0), (460.0, 53.0)]
    assert re.findall(r">(-?\d+)</text>", drawn) == ["0", "3", "-2", "3"]


# --- a shape, block by block


def test_the_mlp_of_a_block_has_a_single_feature():
    layer = Block(SLIDES, 0).layer
    assert layer.gate_proj.values.shape == layer.up_proj.values.shape == (1, SLIDES.hidden_size)
    assert layer.down_proj.values.shape == (SLIDES.hidden_size, 1)


def test_one_block_is_in_memory_at_a_time(monkeypatch):
    alive = []
    made = blocks.build

    def noting(*given):
        assert not any(one() for one in alive)
        weights = made(*given)
        alive.append(weakref.ref(weights.layers[0]))
        return weights

    monkeypatch.setattr(blocks, "build", noting)
    prove_shape(SLIDES)
    assert len(alive) > SLIDES.num_hidden_layers


def test_rows_of_a_block_are_taken_in_one_call_permuted_in_three_parts_and_alone(monkeypatch):
    seen = []
    monkeypatch.setattr(blocks, "check_rows", lambda *given: seen.append(given))
    for seed in (0, 0, 1):
        check_block(Block(SLIDES, 0, seed))
    whole, shuffled, *parts, alone = seen[0][5]
    rows = len(whole)
    assert whole.tolist() == sorted(shuffled.tolist()) == list(range(rows))
    assert shuffled.tolist() != whole.tolist()
    assert len(parts) == 3
    assert np.concatenate(parts).tolist() == shuffled.tolist()
    assert len(alone) == 1
    streams = [given[2].tobytes() for given in seen]
    assert streams[0] == streams[1] != streams[2]


# --- the certificate


def test_plans_are_one_text_and_two_short_and_longer_with_hooks_and_without():
    full = minikv.tiny_config(num_hidden_layers=7)
    sliding = dataclasses.replace(SLIDES, num_hidden_layers=7, layer_types=(SLIDING,) * 7)
    assert [plan.config for plan in plans(full)] == [full] * 4
    windows = [plan.config.sliding_window for plan in plans(sliding)]
    assert windows == [9, 9, 2, 2, 2, 2]
    for plan in plans(sliding)[:2]:
        assert plan.labelled == (0, 3, 6)
    for found in (plans(full), plans(sliding)[2:]):
        one, two, longer, again = found
        assert len(one.texts) == len(longer.texts) == len(again.texts) == 1
        assert len(two.texts) == 2
        assert one.labelled == tuple(range(7))
        assert two.labelled == longer.labelled == (0, 3, 6)
        assert [plan.hooks for plan in found] == [True, True, False, True]
        assert longer.tokens > max(one.tokens, *map(sum, two.texts))
        assert longer.tokens == 12


def test_texts_that_are_given_are_labelled_at_every_layer_and_by_default_all_plans_run(monkeypatch):
    ran = []

    def noting(plan, smuggle):
        ran.append(plan)
        return iter(())

    monkeypatch.setattr(certificate, "rows", noting)
    certify(SLIDES, [(2, 1)])
    assert [(plan.texts, plan.labelled) for plan in ran] == [([(2, 1)], (0, 1, 2, 3))]
    ran.clear()
    certify(SLIDES)
    assert ran == plans(SLIDES)


@pytest.mark.parametrize("texts", [[], [(0,)], [(MOST_TOKENS, 1)]])
def test_no_tokens_or_more_than_fit_into_a_label_are_refused(texts):
    with pytest.raises(InputError, match=f"expected 1 to {MOST_TOKENS}"):
        certify(minikv.tiny_config(), texts)


def test_a_label_holds_as_many_tokens_as_are_allowed():
    assert certify(minikv.tiny_config(num_hidden_layers=1), [(MOST_TOKENS,)]).failures == ()


@pytest.mark.parametrize(
    "ask",
    [
        bool,
        str,
        repr,
        hash,
        lambda kind: kind == "float32",
        lambda kind: kind != "float32",
        lambda kind: kind < 3,
        lambda kind: "f" in kind,
        lambda kind: kind.itemsize,
        lambda kind: f"{kind}",
    ],
)
def test_a_dtype_among_labels_is_never_compared_printed_or_looked_into(ask):
    with pytest.raises(UnknownOperation, match="control flow depends on a dtype"):
        ask(Labels.dtype)


def test_labels_have_64_bits_and_what_is_added_in_place_every_view_sees():
    labels = Labels(np.array([1, 2], np.uint64))
    view = labels[:1]
    labels += Labels(np.array([1 << 63, 4], np.uint64))
    assert view.bits.tolist() == [1 | 1 << 63]
    assert labels.bits.tolist() == [1 | 1 << 63, 6]


def test_each_of_the_first_tokens_has_a_label_of_its_own():
    model = labelled_model(minikv.tiny_config(), 5)
    rows = model.weights.embed_tokens.bits
    assert [set(row.tolist()) for row in rows[:5]] == [{1 << (5 + token)} for token in range(5)]
    assert not rows[5:].any()
