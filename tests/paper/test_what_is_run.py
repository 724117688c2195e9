"""What the page says is run is what the claims run: stand-ins write down what they are asked."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits, same_bits
from experiments.toys import tiny

import minikv
from minikv.config import FAMILIES, FULL, SLIDING
from minikv.decoder import forward
from minikv.experiments import memory, read_passages, read_prompts, score
from minikv.experiments.low_rank import Truncated
from minikv.experiments.ranks import READINGS, ROTATED
from minikv.experiments.score import SAMPLE, read_questions
from minikv.experiments.texts import read_conversation
from minikv.experiments.together import fill
from minikv.paper import proved
from minikv.paper.claim import Setting, Verdict
from minikv.paper.claims import (
    CLAIMS,
    algorithm_1,
    equation_22,
    experiment_20_turns,
    figure_4,
    figure_6,
    figure_7,
    figure_7_tiers,
    figure_8,
    figure_9,
    proposition_3_2,
    section_3_2,
    table_2,
    table_2_shapes,
    table_3,
    table_4_hellaswag,
    table_4_perplexity,
)
from minikv.paper.recomputed import ARITHMETICS, AccumulatedBfloat16, AccumulatedFloat16
from minikv.paper.run import kept
from minikv.shapes import shape
from minikv.verify import blocks, random_case

RESULTS = Path(__file__).parents[2] / "docs" / "paper" / "results"


class Asked(list[tuple[Any, ...]]):
    """What was asked for, call by call; gives what `answer` makes of it."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        super().__init__()
        self.answer = answer

    def __call__(self, *given: Any, **named: Any) -> Any:
        self.append((*given, *named.values()))
        return self.answer(*given, **named)


def setting(quick: bool = False, model: Callable[..., Any] | None = None, *names: str) -> Setting:
    return Setting(quick, names or ("toy",), model or (lambda name, how="float32": None))


@pytest.fixture
def toy(tiny):
    """The toy model, in whatever arithmetic, by whatever name."""
    return lambda name, arithmetic="float32": minikv.load(tiny, arithmetic)


def test_claims_run_on_smollm2_and_where_they_say_so_on_gemma():
    """As their results were, too."""
    gemma = {"section-3.2": ("gemma-3-270m",)}
    both = ("smollm2-135m-instruct", "gemma-3-270m")
    gemma |= dict.fromkeys(("table-2", "table-3", "figure-5"), both)
    none = ("equation-28", "table-1", "table-2-shapes")
    for id, claim in CLAIMS.items():
        expected = () if id in none else gemma.get(id, both[:1])
        assert (id, claim.models) == (id, expected) == (id, kept(RESULTS)[id].models)


# Theorems


@pytest.fixture
def asked_to_prove(monkeypatch) -> Asked:
    """Texts with real weights are random cases here, and every theorem holds."""
    result = SimpleNamespace(verdict="holds", failure="", control="it shows")
    asked = Asked(lambda claim, cases, controls: result)
    monkeypatch.setattr(proved, "prove", asked)
    monkeypatch.setattr(proved, "CONTROLS", 1)
    texts = [random_case(step) for step in range(4)]
    monkeypatch.setattr(proved, "real_cases", lambda name: texts)
    monkeypatch.setattr(proposition_3_2, "real_cases", lambda name: texts)
    return asked


@pytest.mark.parametrize(
    ("id", "theorems"),
    [
        ("definition-3.1", ["T2"]),
        ("proposition-3.1", ["T2", "T5", "D"]),
        ("proposition-3.2", ["T1", "T6", "T7"]),
    ],
)
def test_theorems_are_run_on_random_models_of_every_family_and_on_texts(
    id, theorems, asked_to_prove, monkeypatch
):
    monkeypatch.setattr(proposition_3_2, "refuted", lambda id, cases, arithmetic: "")
    CLAIMS[id].run(setting())
    assert [claim.id for claim, _, _ in asked_to_prove] == 2 * theorems
    for claim, cases, _ in asked_to_prove[: len(theorems)]:
        assert {case.config.model_type for case in cases} == {*FAMILIES}, claim.id
    assert {case.arithmetic for _, cases, _ in asked_to_prove for case in cases} == {"exact"}
    counts = [len(cases) for _, cases, _ in asked_to_prove]
    asked_to_prove.clear()
    CLAIMS[id].run(setting(quick=True))
    short = [len(cases) for _, cases, _ in asked_to_prove]
    assert sum(short) < sum(counts)
    assert all(one <= other for one, other in zip(short, counts, strict=False))


def test_t1_is_asked_in_four_other_arithmetics(asked_to_prove, monkeypatch):
    asked = Asked(lambda id, cases, arithmetic: "")
    monkeypatch.setattr(proposition_3_2, "refuted", asked)
    CLAIMS["proposition-3.2"].run(setting())
    assert {id for id, _, _ in asked} == {"T1"}
    others = dict.fromkeys(arithmetic for _, _, arithmetic in asked)
    assert [*others] == ["bfloat16", "float16", "float32", "float64"]


# Section 3.3


def test_equation_22_takes_every_head_at_each_rank_on_24_rows_and_two_singular_vectors(monkeypatch):
    model = tiny("float64", num_hidden_layers=7, hidden_size=66, head_dim=66, num_attention_heads=2)
    asked = Asked(lambda *given: equation_22.Truncation(0.5, 1.5, 0.0))
    loaded: list[str] = []

    def load(name, arithmetic="float32"):
        loaded.append(arithmetic)
        return model

    monkeypatch.setattr(equation_22, "truncation", asked)
    for quick, layers in ((False, range(7)), (True, (0, 6))):
        asked.clear()
        CLAIMS["equation-22"].run(setting(quick, load))
        expected = {(layer, head) for layer in layers for head in range(2)}
        for rank in (1, 8, 15, 32, 48, 62):
            given = [each for each in asked if each[3] == rank]
            assert {(head.layer.index, head.index) for head, _, _, _ in given} == expected
            for side in (1, 2):
                assert [len(each[side]) for each in given] == [24, 1] * len(expected)
        assert len(asked) == 6 * 2 * len(expected)
    assert loaded == ["exact", "float32"] * 2  # the streams, and the matrices
    head, left, right, rank = asked[-1]
    assert head.query.dtype == np.float64
    assert same_bits(left[0], head.factors.left[:, rank])
    assert same_bits(right[0], head.factors.right[:, rank])


def test_equation_22_reads_the_stream_after_its_norm_and_scores_before_they_are_turned():
    """A head's rows times the stream that is read are queries and keys before the rotation."""
    model = tiny("float64")
    ids = list(range(equation_22.TOKENS))
    streams = equation_22.read_streams(model)
    activations = model.run_with_cache(ids)[1]
    for head in equation_22.heads(model):
        number = head.layer.index
        query = activations[f"blocks.{number}.attn.hook_q"]
        turned = activations[f"blocks.{number}.attn.hook_rot_q"]
        made = streams[number] @ head.query.T
        terms = np.abs(streams[number]) @ np.abs(head.query).T
        bound = 2 * (model.config.hidden_size + 1) * 2.0**-53 * terms
        assert (np.abs(made - query[:, head.index]) <= bound).all()
        assert (np.abs(made - turned[:, head.index]) > bound).any()


# Memory


def test_equation_28_is_counted_at_gemmas_shape():
    config = shape("gemma-3-4b")
    numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    told = kept(RESULTS)["equation-28"].finding.figures["bytes"]
    assert [row["budget"] for row in told] == [0, 128, 512]
    for row in told:
        residuals = (1024 - row["budget"]) * config.hidden_size * 2
        assert row["full"] == 1024 * numbers * 2
        assert row["one"] == row["budget"] * numbers * 2 + residuals
        assert row["every"] == row["budget"] * numbers * 2 + config.num_hidden_layers * residuals
        assert row["every"] > row["full"] > row["one"]


def test_algorithm_1_runs_on_32_tokens_and_4_with_a_budget_of_8(toy, monkeypatch):
    decoded = Asked(algorithm_1.decode)
    measured = Asked(algorithm_1.measured)
    monkeypatch.setattr(algorithm_1, "decode", decoded)
    monkeypatch.setattr(algorithm_1, "measured", measured)
    CLAIMS["algorithm-1"].run(setting(model=toy))
    assert [given for _, _, given in measured] == ["every", "embedding"]
    for model, ids, cache, tokens in decoded:
        assert (model.arithmetic.name, len(ids), tokens) == ("exact", 32, 4)
        assert cache.policy == "full" or cache.budget == 8
    assert [cache.policy for _, _, cache, _ in decoded] == ["full", "residual"] * 2


def test_the_conversation_has_20_turns_of_30_tokens_and_three_caches(monkeypatch):
    model = tiny("float32", num_hidden_layers=12)
    turns = [([1, 2, 3], [4, 5])] * 20
    held = Asked(lambda *given: turns)

    def row(name: str, turn: int) -> dict[str, Any]:
        return {
            "setting": name,
            "turn": turn,
            "tokens": 5 * turn,
            "bytes": 1,
            "allocated": 1,
            "seconds_per_token": 1.0,
        }

    watched = Asked(
        lambda model, turns, settings, progress: [
            row(name, turn + 1) for name in settings for turn in range(len(turns))
        ]
    )
    monkeypatch.setattr(experiment_20_turns, "converse", held)
    monkeypatch.setattr(experiment_20_turns, "memory", watched)
    CLAIMS["experiment-20-turns"].run(setting(model=lambda name: model))
    (_, questions, reply, _, system) = held[0]
    assert questions == read_conversation("conversation-france")
    assert len(questions) == 20
    assert {name for name in ("France", "Eiffel Tower") if name in " ".join(questions)} == {
        "France",
        "Eiffel Tower",
    }
    assert (reply, system) == (30, "You are a concise assistant.")
    (_, by_turn, full, _), (_, at_end, direct, _) = watched
    assert (by_turn, full) == (turns, ("full",))
    assert at_end == [experiment_20_turns.joined(turns)]
    budget = int(direct[0].removeprefix("residual:embedding@"))
    assert direct[1] == "residual:embedding@0"
    each = model.config.kv_bytes_per_token("float32")
    one = model.config.residual_bytes_per_token("float32")
    share = 42 / 103 * 100 * each  # of 100 tokens
    assert budget * each + (100 - budget) * one <= share
    assert (budget + 1) * each + (100 - budget - 1) * one > share


def test_the_last_three_tokens_of_a_turn_are_decoded_alone_and_timed(monkeypatch):
    calls = Asked(forward)
    monkeypatch.setattr(memory, "forward", calls)
    ticks = iter([0.0, 9.0, 10.0, 11.0, 20.0, 22.0, 30.0, 35.0])
    monkeypatch.setattr(memory.time, "perf_counter", lambda: next(ticks))
    (row,) = memory.memory(tiny("float32"), [([1, 2], [3, 4, 5, 6])], ("full",))
    assert [len(ids[0]) for _, ids, _ in calls] == [3, 1, 1, 1]
    assert row["seconds_per_token"] == 2.0  # of 1, 2 and 5


def test_table_1_counts_from_the_configurations():
    told = {row["model"]: row for row in kept(RESULTS)["table-1"].finding.figures["models"]}
    assert len(told) == 6
    for name, row in told.items():
        config = shape(name)
        numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
        assert row["kv"] == 2 * numbers
        assert row["residual"] == 2 * config.hidden_size
        assert row["every_layer"] == config.num_hidden_layers * row["residual"]
    saving = [name for name, row in told.items() if row["every_layer"] < row["kv"]]
    assert saving == ["qwen3-0.6b"]
    assert all(row["every_layer"] != row["kv"] for row in told.values())


# Tables 2 and 3


def test_section_3_2_runs_bits_blocks_and_mistakes_at_three_lengths(monkeypatch):
    config = minikv.tiny_config(
        num_hidden_layers=3,
        model_type="gemma3_text",
        layer_types=(SLIDING, SLIDING, FULL),
        sliding_window=6,
        rope_local_base_freq=50.0,
    )
    arithmetics = []

    def model(name: str, arithmetic: str = "float32") -> minikv.Model:
        arithmetics.append(arithmetic)
        return minikv.random_model(config, 0, arithmetic)

    def text(model: minikv.Model, tokens: int = 4) -> list[int]:
        return [token % 97 for token in range(tokens)]

    checked = Asked(lambda block: None)
    bits = Asked(section_3_2._bits)
    monkeypatch.setattr(section_3_2, "highway", text)
    monkeypatch.setattr(section_3_2, "long_text", text)
    monkeypatch.setattr(section_3_2, "check_block", checked)
    monkeypatch.setattr(section_3_2, "_bits", bits)
    monkeypatch.setattr(section_3_2, "WITHIN", 6)
    figures = CLAIMS["section-3.2"].run(setting(model=model)).figures
    assert arithmetics == ["exact", "float32"]
    assert [counts for _, _, counts in bits] == [[1] * 4, [14, *[1] * 8]]
    assert {(block.config, block.arithmetic) for (block,) in checked} == {
        (shape("gemma-3-4b"), "exact")
    }
    assert [block.index for (block,) in checked] == [*range(34)]
    lengths = [[held["tokens"] for held in row["lengths"]] for row in figures["mistakes"]]
    assert lengths == [[4, 6, 22]] * 5  # none, and four mistakes
    config = shape("gemma-3-270m")
    assert config.layer_types.count(SLIDING) == 15
    assert (config.num_hidden_layers, config.sliding_window) == (18, 512)
    told = kept(RESULTS)["section-3.2"].finding.figures
    assert [held["tokens"] for held in told["mistakes"][0]["lengths"]] == [24, 256, 528]
    assert section_3_2.SCORED == 64


def test_only_the_last_tokens_of_a_text_are_scored(monkeypatch):
    model = tiny("float32", model_type="gemma3_text", sliding_window=5, layer_types=(SLIDING, FULL))
    scored = Asked(section_3_2.log_likelihoods)
    monkeypatch.setattr(section_3_2, "log_likelihoods", scored)
    monkeypatch.setattr(section_3_2, "long_text", lambda model, tokens: [*range(tokens)])
    monkeypatch.setattr(section_3_2, "SCORED", 4)
    assert len(list(section_3_2._effects(model, 9))) == 5
    assert [ids for _, ids in scored] == [[6, 7, 8]] * 5  # given the tokens before them


@pytest.mark.parametrize(
    ("quick", "arithmetics", "lengths", "names"),
    [
        (False, [*ARITHMETICS], (16, 32, 64, 128, 256), ["one", "two"]),
        (True, ["exact", "float32"], (16,), ["one"]),
    ],
)
def test_table_2_runs_in_these_arithmetics_at_these_lengths(
    quick, arithmetics, lengths, names, monkeypatch
):
    asked = Asked(lambda compared, lengths: [])
    monkeypatch.setattr(table_2, "rows_of", asked)
    monkeypatch.setattr(table_2, "told", lambda figures: (Verdict.DIFFERS, ""))
    CLAIMS["table-2"].run(setting(quick, lambda name, how: how, "one", "two"))
    found = [(compared.name, compared.arithmetic, given) for compared, given in asked]
    assert found == [(name, how, lengths) for name in names for how in arithmetics]
    assert [compared.model for compared, _ in asked[: len(arithmetics)]] == [
        ARITHMETICS[how] for how in arithmetics
    ]


def test_the_arithmetics_of_table_2_are_seven():
    assert [*ARITHMETICS.values()][:5] == ["exact", "float32", "float64", "bfloat16", "float16"]
    assert [type(how) for how in [*ARITHMETICS.values()][5:]] == [
        AccumulatedBfloat16,
        AccumulatedFloat16,
    ]
    told = {row["arithmetic"] for row in kept(RESULTS)["table-2"].finding.figures["rows"]}
    assert told == {*ARITHMETICS}


def test_a_prompt_of_table_2_has_its_24_tokens_t1_and_the_story_has_not(toy, monkeypatch):
    monkeypatch.setattr(table_2, "t1", lambda compared, ids: f"of {len(ids)}")
    compared = table_2.Compared("toy", "exact", toy("toy", "exact"))
    prompt, *story = table_2.rows_of(compared, (3, 5))
    assert (prompt["text"], prompt["tokens"], prompt["T1"]) == ("highway", 24, "of 24")
    assert [(row["text"], row["tokens"], row["T1"]) for row in story] == [
        ("story", 3, ""),
        ("story", 5, ""),
    ]


def test_t1_at_a_shape_takes_48_rows_in_every_company(monkeypatch):
    asked = Asked(lambda where, layer, stream, positions, made, choices: None)
    monkeypatch.setattr(blocks, "check_rows", asked)
    config = tiny(model_type="gemma3_text", sliding_window=40, layer_types=(SLIDING, FULL)).config
    config = replace(config, max_position_embeddings=4096)
    for index, furthest in ((0, 80), (1, 2048)):
        asked.clear()
        blocks.check_block(blocks.Block(config, index))
        ((_, layer, stream, positions, _, choices),) = asked
        assert len(stream) == 48
        assert np.ptp(positions) < furthest
        assert np.ptp(positions) > furthest // 2
        whole, permuted, *parts, alone = choices
        assert whole.tolist() == [*range(48)] == sorted(permuted)
        assert permuted.tolist() != whole.tolist()
        assert len(parts) == 3
        assert sorted(np.concatenate(parts)) == [*range(48)]
        assert len(alone) == 1
        assert layer.config.num_hidden_layers == 1  # one block in memory at a time


def test_the_six_shapes_are_run_whole(monkeypatch):
    asked = Asked(lambda block: None)
    monkeypatch.setattr(table_2_shapes, "check_block", asked)
    CLAIMS["table-2-shapes"].run(setting())
    found = {(block.config, block.index, block.arithmetic) for (block,) in asked}
    configs = {name: shape(name) for name in section_names()}
    assert found == {
        (config, index, how)
        for config in configs.values()
        for index in range(config.num_hidden_layers)
        for how in ("exact", "float32")
    }
    assert len(asked) == 2 * 172


def section_names() -> tuple[str, ...]:
    """The paper's six models, as table 1 prints them."""
    return tuple(row["model"] for row in kept(RESULTS)["table-1"].finding.figures["models"])


def test_table_3_decodes_30_tokens_of_the_papers_prompt(toy, monkeypatch):
    same = {"equal": 30, "tokens": 30, "other_logits": 0, "farthest": 0.0}
    compared = Asked(lambda model, ids, tokens: same)
    times = {"seconds": {"full": [1.0], "none": [2.0]}, "ratios": [2.0], "ratio": 2.0}
    timed = Asked(lambda model, ids, tokens, repeats: times)
    monkeypatch.setattr(table_3, "compared", compared)
    monkeypatch.setattr(table_3, "timed", timed)
    CLAIMS["table-3"].run(setting(model=toy))
    prompt = toy("toy").tokenizer.encode("Explain why the sky is blue in simple terms.")
    found = [(model.arithmetic.name, ids, tokens) for model, ids, tokens in compared]
    assert found == [("exact", prompt, 30), ("float32", prompt, 30)]
    ((model, _, tokens, repeats),) = timed
    assert (model.arithmetic.name, tokens, repeats) == ("float32", 30, 3)


def test_table_3_takes_processor_time_and_goes_past_end_tokens(monkeypatch):
    asked = Asked(lambda calls, repeats, clock: {"full": [1.0] * repeats, "none": [3.0] * repeats})
    monkeypatch.setattr(table_3, "samples", asked)
    model = tiny("float32")
    assert table_3.timed(model, [1, 2], 3, 2)["ratio"] == 3.0
    assert asked[0][1:] == (2, table_3.time.process_time)
    said = table_3.compared(model, [1, 2], 6)["ids"]
    ending = tiny("float32", eos_token_id=(said[1],))
    assert table_3.compared(ending, [1, 2], 6)["ids"] == said


def test_without_a_cache_each_step_reads_all_tokens_again(monkeypatch):
    calls = Asked(lambda *given, **named: np.zeros((1, 97), np.float32))
    model = tiny("float32")
    monkeypatch.setattr("minikv.decoder.block", counting := Asked(minikv.decoder.block))
    table_3._decode_with(model, [1, 2, 3], "none", 4)
    rows = [given[1].shape[0] for given in counting]
    assert rows == [count for count in (3, 4, 5, 6) for _ in model.layers]
    counting.clear()
    table_3._decode_with(model, [1, 2, 3], "full", 4)
    assert [given[1].shape[0] for given in counting] == [
        count for count in (3, 1, 1, 1) for _ in model.layers
    ]
    assert not calls


# Table 4


def test_hellaswag_is_scored_on_ten_questions_of_our_own_by_characters(toy, monkeypatch):
    questions = read_questions(str(SAMPLE))
    assert len(questions) == 10
    assert inspect.signature(score.accuracy).parameters["length"].default == "characters"
    asked = Asked(table_4_hellaswag.score)
    by = Asked(table_4_hellaswag.accuracy)
    monkeypatch.setattr(table_4_hellaswag, "score", asked)
    monkeypatch.setattr(table_4_hellaswag, "accuracy", by)
    monkeypatch.setattr(table_4_hellaswag, "read_questions", lambda path: questions[:1])
    CLAIMS["table-4-hellaswag"].run(setting(model=toy))
    assert {question for _, question, _ in asked} == {questions[0]}
    assert {model.arithmetic.name for model, _, _ in asked} == {"exact"}
    caches = [make() for _, _, make in asked]
    assert [getattr(cache, "budget", None) for cache in caches] == [None, None, 8, 64, 8]
    assert [given[1:] for given in by] == [(), ("tokens",)] * 5


def test_the_context_goes_in_at_once_and_each_ending_behind_a_copy(toy, monkeypatch):
    calls = Asked(score.forward)
    monkeypatch.setattr(score, "forward", calls)
    model = toy("toy", "exact")
    question = read_questions(str(SAMPLE))[0]
    context, endings = score.encoded(model, question)
    score.score(model, question, model.new_cache)
    (_, first, (cache,)), (_, then, copies, _) = calls
    assert (first, then) == ([context], endings)
    assert cache.seen == len(context)
    assert [copy.seen for copy in copies] == [len(context) + len(ending) for ending in endings]


def test_perplexity_is_of_the_first_512_tokens_of_five_passages(toy, monkeypatch):
    texts = Asked(lambda *given: dict.fromkeys((128, 64, 32), 2.0))
    same = Asked(
        lambda model, ids, setting: {
            "rows": len(ids),
            "none": True,
            **dict.fromkeys(("full", *table_4_perplexity.KV_DIRECT), True),
        }
    )
    monkeypatch.setattr(table_4_perplexity, "same_bits", same)
    monkeypatch.setattr(table_4_perplexity, "dropped", texts)
    monkeypatch.setattr(table_4_perplexity, "cut", texts)
    monkeypatch.setattr(table_4_perplexity, "anew", lambda *given: (1.0, texts(*given)))
    monkeypatch.setattr(table_4_perplexity, "at_once", lambda model, ids: np.zeros(len(ids)))
    CLAIMS["table-4-perplexity"].run(setting(model=toy))
    encode = toy("toy").tokenizer.encode
    expected = [encode(passage)[:512] for passage in read_passages().values()]
    assert len(expected) == 5
    assert [given[1] for given in texts] == [expected] * 3
    assert {given[0].arithmetic.name for given in texts} == {"float32"}
    ((model, ids, _),) = same
    assert (model.arithmetic.name, ids) == ("exact", expected[0][:96])


def test_windows_are_read_in_three_ways(monkeypatch):
    model = tiny("float32")
    ids = [token % 97 for token in range(200)]
    read = Asked(lambda model, ids: np.zeros(max(1, len(ids) - 1)))
    stepped = Asked(lambda model, jobs, progress: [np.zeros(3) for _ in jobs])
    monkeypatch.setattr(table_4_perplexity, "at_once", read)
    monkeypatch.setattr(table_4_perplexity, "step_by_step", stepped)
    table_4_perplexity.dropped(model, [ids], setting())
    ((_, jobs, _),) = stepped
    assert [(cache.policy, cache.budget) for _, cache in jobs] == [
        ("window", 128),
        ("window", 64),
        ("window", 32),
    ]
    table_4_perplexity.cut(model, [ids])
    assert [len(piece) for _, piece in read] == [128, *[64] * 3, *[32] * 6]
    read.clear()
    table_4_perplexity.anew(model, [ids], setting())
    whole, *windows = (given for _, given in read)
    assert whole == ids
    places = (128, 160, 192)  # one token in 32
    assert windows == [
        ids[place - window : place + 1] for window in (128, 64, 32) for place in places
    ]


# Figures


def row_of(policy: str, budget: int, prompt: str) -> dict[str, Any]:
    """A row of `compare`."""
    given = {"policy": policy, "budget": budget, "prompt": prompt, "match": 0.5}
    same = dict.fromkeys(("kl_mean", "kl_free", "kl_parted"), 1.0)
    return given | same | {"bits_equal": True}


def compares(model, prompts, budgets, tokens, policies, progress=None) -> list[dict[str, Any]]:
    """In place of `compare`."""
    return [
        row_of(policy, budget, name)
        for name in prompts
        for policy in policies
        for budget in budgets
    ]


def passages(model: minikv.Model, tokens: int) -> list[list[int]]:
    """The beginnings of our five passages."""
    return [model.tokenizer.encode(text)[:tokens] for text in read_passages().values()]


def test_figure_4_continues_five_passages_of_462_tokens_by_50(toy, monkeypatch):
    asked = Asked(compares)
    exact = Asked(lambda model, ids, tokens: {"residual:every": True})
    monkeypatch.setattr(figure_4, "compare", asked)
    monkeypatch.setattr(figure_4, "lossless", exact)
    CLAIMS["figure-4"].run(setting(model=toy))
    expected = passages(toy("toy"), 462)
    for (model, prompts, budgets, tokens, makers, _), faulty in zip(
        asked, (False, True), strict=True
    ):
        assert model.arithmetic.name == "float32"
        assert [*prompts.values()] == expected
        assert tokens == 50
        assert [*makers] == ["h2o", "streaming_llm", "snapkv", "tova", "window"]
        assert [*budgets] == ([32, 128, 384] if faulty else [32, 64, 128, 256, 384])
        for make in makers.values():
            assert isinstance(make(model.weights, 8), figure_4.AtKeptRows) == faulty
    assert exact[0][0].arithmetic.name == "exact"


def test_figure_5_reads_the_formula_and_what_may_have_been_meant(monkeypatch):
    powers = [(reading.power, reading.normed, reading.stored) for reading in READINGS]
    assert powers[0] == (2, "", False)
    assert powers[1:] == [
        (2, "qk", False),
        (4, "", False),
        (4, "qk", False),
        (2, "", True),
        (2, "q", True),
    ]
    assert [reading.offset for reading in ROTATED] == [1, 16, 256]
    model = tiny("float32")
    found = CLAIMS["figure-5"].run(setting(model=lambda name: model)).figures["models"]["toy"]
    assert [*found["ranks"]] == [reading.text for reading in (*READINGS, *ROTATED)]
    config = model.config
    for layers in found["ranks"].values():
        assert [len(ranks) for ranks in layers] == [
            config.num_attention_heads
        ] * config.num_hidden_layers


@pytest.mark.parametrize("quick", [False, True])
def test_figure_6_truncates_five_texts_of_96_tokens_and_20_new_ones(quick, toy, monkeypatch):
    wide = minikv.tiny_config(head_dim=40, vocab_size=320)
    models = {
        how: replace(minikv.random_model(wide, 0, how), tokenizer=toy("toy").tokenizer)
        for how in ("float32", "bfloat16")
    }
    asked = Asked(compares)
    monkeypatch.setattr(figure_6, "compare", asked)
    monkeypatch.setattr(
        figure_6,
        "_together",
        lambda rows: [{**row, "worst_match": 0.5} for row in rows if row["prompt"] == "story"],
    )
    CLAIMS["figure-6"].run(setting(quick, lambda name, how="float32": models[how]))
    texts = [toy("toy").tokenizer.encode(text) for text in read_prompts().values()]
    cut, whole, *rounded = asked
    count = 2 if quick else 5
    for model, prompts, _, tokens, _, _ in (cut, whole):
        assert [*prompts.values()] == [ids[:96] for ids in texts[:count]]
        assert (model.arithmetic.name, tokens) == ("float32", 20)
    assert [*cut[4]] == ["directions of the text", "directions of the weights"]
    bases = [make(cut[0].weights, 4) for make in cut[4].values()]
    assert [(cache.basis, cache.rounded) for cache in bases] == [
        ("text", False),
        ("weights", False),
    ]
    assert cut[2] == ([40, 32] if quick else [40, 32, 14, 8, 4])
    assert whole[2] == [40]
    (make,) = whole[4].values()
    assert make(whole[0].weights, 40).rounded
    assert len(rounded) == (0 if quick else 1)
    for model, prompts, ranks, tokens, _, _ in rounded:
        assert model.arithmetic.name == "bfloat16"
        assert [*prompts.values()] == [ids[:24] for ids in texts[:2]]
        assert (ranks, tokens) == ([40], 6)


@pytest.mark.parametrize("basis", ["text", "weights"])
def test_a_prompt_is_read_with_all_directions_and_cached_with_few(basis):
    model = tiny("float32")
    ids = [*range(3, 12)]
    full, cut = model.new_cache(), Truncated(model.weights, 2, basis)
    read = fill(model.weights, [full, cut], ids)  # as `compare` does
    assert_same_bits(read, forward(model.weights, [ids], [model.new_cache()])[0])
    for name, rows in cut.state()[0].items():
        assert not same_bits(rows, full.state()[0][name])
    then = [forward(model.weights, [[5]], [cache]) for cache in (full, cut)]
    assert not same_bits(*then)


@pytest.mark.parametrize(
    ("quick", "counts", "repeats", "layers"),
    [(False, [1, 10, 50, 100, 500], 5, None), (True, [1, 50, 100, 500], 3, 1)],
)
def test_figure_7_times_real_weights_and_the_six_shapes(
    quick, counts, repeats, layers, monkeypatch
):
    row = {"ratio": 2.0, "lowest": 2.0, "highest": 2.0}
    row |= {f"{name}_seconds": 1.0 for name in ("copy", "project", "one_by_one")}
    timed = Asked(lambda model, counts, repeats: [row | {"rows": count} for count in counts])
    replayed = Asked(lambda model, rows: 8.0)
    made = Asked(lambda config, layers: SimpleNamespace(layers=[0] * layers))
    block = Asked(lambda config: config)
    for timer in (figure_7.crossover.compare, figure_7.crossover.replay_seconds):
        assert inspect.signature(timer).parameters["clock"].default is time.process_time
    roofline = figure_7.Roofline(2e10, 8e10, 4)
    monkeypatch.setattr(figure_7.crossover, "measured", lambda: roofline)
    monkeypatch.setattr(figure_7.crossover, "compare", timed)
    monkeypatch.setattr(figure_7.crossover, "replay_seconds", replayed)
    monkeypatch.setattr(figure_7.crossover, "random_rows", made)
    monkeypatch.setattr(figure_7.crossover, "random_block", block)
    own = tiny("float32")
    CLAIMS["figure-7"].run(setting(quick, lambda name: own))
    assert [(list(given), often) for _, given, often in timed] == [(counts, repeats)] * 7
    assert timed[0][0] is own
    configs = [shape(name) for name in section_names()]
    assert made == [(config, layers or config.num_hidden_layers) for config in configs]
    assert {rows for _, rows in replayed} == {100}
    assert replayed[0][0] is own
    assert block == ([] if quick else [(config,) for config in configs])


def test_the_tiers_are_timed_by_the_wall_clock_with_500_rows(monkeypatch):
    own = tiny("float32")
    tier = {"tier": "memory", "bandwidth": 1e9, "ratio": 2.0, "seconds": 1.0}
    tier |= {"lowest": 1.0, "highest": 1.0, "project_seconds": 2.0}
    timed = Asked(lambda model, count, repeats, progress: [tier])
    replayed = Asked(lambda model, count, clock: 8.0)
    measured = Asked(lambda clock: figure_7.Roofline(2e10, 8e10, 4))
    monkeypatch.setattr(figure_7_tiers, "tiers", timed)
    monkeypatch.setattr(figure_7_tiers.crossover, "replay_seconds", replayed)
    monkeypatch.setattr(figure_7_tiers.crossover, "measured", measured)
    for quick, count, repeats in ((False, 500, 5), (True, 100, 3)):
        CLAIMS["figure-7-tiers"].run(setting(quick, lambda name: own))
        assert timed[-1][:3] == (own, count, repeats)
        assert replayed[-1] == (own, count, figure_7_tiers.time.perf_counter)
    assert measured[0] == (figure_7_tiers.time.perf_counter,)


def test_figure_8_patches_questions_in_the_template_and_bare(toy, monkeypatch):
    donor, recipient = "What is one?", "What is two?"  # of one length, byte by byte
    monkeypatch.setattr(figure_8, "DONOR", donor)
    monkeypatch.setattr(figure_8, "RECIPIENT", recipient)
    monkeypatch.setattr(figure_8, "asked", lambda model, question: [7, *question.encode()[-4:]])
    pairs = []
    generated = Asked(lambda ids, tokens, cache=None: [9] * tokens)

    class Noted(figure_8.Exchange):
        def __init__(self, model, donor, recipient) -> None:
            pairs.append((model.arithmetic.name, donor, recipient))
            super().__init__(model, donor, recipient)

    monkeypatch.setattr(figure_8, "Exchange", Noted)
    monkeypatch.setattr(minikv.Model, "generate", lambda self, *given: generated(*given))
    figures = CLAIMS["figure-8"].run(setting(model=toy)).figures
    encode = toy("toy").tokenizer.encode
    spoken = (figure_8.asked(None, donor), figure_8.asked(None, recipient))
    assert pairs == [("exact", *spoken), ("exact", encode(donor), encode(recipient))]
    assert {tokens for _, tokens, *_ in generated} <= {15, 16}  # the first comes from the patch
    assert len(figures["layers"]) == 3
    rows = [str(row) for row in range(len(encode(donor)))]
    assert [*figures["heat"]["cells"]] == [*rows, "all"]


def test_a_question_is_asked_in_the_chat_template():
    text = Asked(lambda messages, answer: json.dumps(messages))
    encode = Asked(lambda text, add_special: [1])
    tokenizer = SimpleNamespace(apply_chat_template=text, encode=encode)
    assert figure_8.asked(SimpleNamespace(tokenizer=tokenizer), "Why?") == [1]
    assert text == [([{"role": "user", "content": "Why?"}], True)]


def test_figure_9_continues_two_passages_of_192_tokens_and_one_of_32_by_250(toy, monkeypatch):
    asked = Asked(compares)
    monkeypatch.setattr(figure_9, "compare", asked)
    figures = CLAIMS["figure-9"].run(setting(model=toy)).figures
    (model, long, budgets, tokens, policies, _), (_, short, *_) = asked
    assert model.arithmetic.name == "float32"
    assert [*long.values()] == passages(model, 192)[:2]
    assert [*short.values()] == passages(model, 32)[:1]
    assert ([*budgets], tokens, policies) == ([8, 16, 32, 64, 128, 256], 250, ["window"])
    for name, length in (("long", 192), ("short", 32)):
        for entry in figures[name]:
            assert entry["certain"] == figure_9.certain(length, entry["budget"], 250)
