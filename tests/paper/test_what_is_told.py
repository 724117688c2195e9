"""What the reasons say beside their figures: by counting, on small models, and on real weights."""

from __future__ import annotations

import math
import random
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from bits import same_bits
from experiments.toys import tiny

import minikv
from minikv.arithmetic import get_arithmetic
from minikv.config import FAMILIES
from minikv.experiments import read_passages
from minikv.experiments.accounting import PAPER_DIRECT, PAPER_FULL
from minikv.experiments.compare import compare
from minikv.experiments.crossover import Work
from minikv.experiments.low_rank import Truncated
from minikv.experiments.ranks import READINGS, ROTATED, effective_rank, heads, turned
from minikv.experiments.score import SAMPLE, read_questions
from minikv.paper.claims import (
    algorithm_1,
    figure_4,
    figure_8,
    figure_9,
    table_2,
    table_2_shapes,
)
from minikv.paper.recomputed import ARITHMETICS, FIXED_ORDER
from minikv.paper.run import kept, loaded
from minikv.shapes import shape
from minikv.tokenizer import Tokenizer
from minikv.verify.blocks import Block, check_block
from minikv.weights import resolve

NAME = "smollm2-135m-instruct"
RESULTS = kept(Path(__file__).parents[2] / "docs" / "paper" / "results")
SIX = [row["model"] for row in RESULTS["table-1"].finding.figures["models"]]
IDS = [token % 97 for token in range(3, 19)]


def figures(id: str) -> dict:
    return dict(RESULTS[id].finding.figures)


# The order of sums


def alone_differs(name: str) -> bool:
    """Whether numbers of a product have other bits if each of its rows is multiplied alone."""
    arithmetic = get_arithmetic(ARITHMETICS[name])
    rng = np.random.default_rng(0)
    outputs = 16384 if "float16" in name else 512  # of which few differ, rounded to 16 bits
    x = rng.standard_normal((16, 128), dtype=np.float32).astype(arithmetic.dtype)
    matrix = rng.standard_normal((outputs, 128), dtype=np.float32).astype(arithmetic.dtype)
    weight = arithmetic.weight(matrix, "w")
    together = arithmetic.linear(x, weight)
    alone = np.concatenate([arithmetic.linear(x[row : row + 1], weight) for row in range(16)])
    return not same_bits(np.asarray(together), np.asarray(alone))


def test_the_order_decides_and_not_the_precision():
    """Numbers of 8 and 11 bits keep every bit in a fixed order, and of 53 bits do not by BLAS."""
    differ = {name: alone_differs(name) for name in ARITHMETICS}
    assert differ == {name: name not in FIXED_ORDER for name in ARITHMETICS}


def test_the_three_readings_of_table_2_are_three():
    """The same calls have the same bits; other calls have others, in one way and in the other."""
    config = minikv.tiny_config(hidden_size=96, num_hidden_layers=3)
    model = minikv.random_model(config, 0, "float32")
    (row,) = table_2.Compared("toy", "float32", model).rows("story", IDS, [len(IDS)])
    assert row["same"]["numbers"] == 0
    assert row["projected"]["numbers"] > 0
    assert row["anew"]["k_layers"] == row["anew"]["v_layers"] == 3
    assert row["anew"] != row["projected"]


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_t1_is_refuted_where_the_order_depends_on_the_call(name):
    config = minikv.tiny_config(hidden_size=96, num_hidden_layers=3)
    told = table_2.t1(table_2.Compared(config, name, None), IDS)
    assert told.startswith("refuted: K of layer 0")
    refuted = {
        row["arithmetic"] for row in figures("table-2")["rows"] if row["T1"].startswith("refuted")
    }
    assert refuted == {*ARITHMETICS} - {*FIXED_ORDER}


def test_numbers_that_leave_a_format_are_said_to():
    model = minikv.random_model(minikv.tiny_config(), 0, ARITHMETICS["float16"], 1e6)
    row = table_2.Compared("large", "float16", model).rows("story", IDS, [4])[0]
    assert row["same"]["k"] is None
    row["anew"]["k"] = 0.0
    other = {**row, "arithmetic": "float32", "same": row["same"] | {"k": 0.0, "v": 0.0}}
    assert "Numbers leave the format (large in float16)" in table_2._reason([row, other])


def test_a_block_at_a_true_shape_obeys_t1_exactly_and_not_by_blas():
    for arithmetic, held in (("exact", 2), ("float32", 0)):
        assert table_2_shapes.obeyed("smollm2-135m", (0, 29), arithmetic) == held
    check_block(Block(shape("smollm2-135m"), 0, seed=1))  # whichever weights


def test_172_blocks_are_all_of_the_six_shapes():
    told = figures("table-2-shapes")["shapes"]
    assert [row["shape"] for row in told] == SIX
    assert [row["blocks"] for row in told] == [shape(name).num_hidden_layers for name in SIX]
    assert sum(row["blocks"] for row in told) == 172


# Memory and work


def test_algorithm_1_holds_and_replays_what_can_be_counted():
    """Of 35 tokens: 8 have K and V, and all a residual at each layer, or one."""
    config = shape("smollm2-135m")
    told = figures("algorithm-1")
    kv = config.kv_bytes_per_token("float32")
    one = config.residual_bytes_per_token("float32")
    every, embedding = (row["bytes"] for row in told["exact"])
    assert told["full"] == 35 * kv
    assert every == 8 * kv + 35 * config.num_hidden_layers * one
    assert embedding == 8 * kv + 35 * one
    work = Work.of(config)
    layers = config.num_hidden_layers
    assert told["work"]["projection"] == layers * work.hidden * work.kv
    assert told["work"]["replay"] == (layers - 1) * work.block + work.hidden * work.kv
    assert told["work"] == algorithm_1.multiply_adds(config)


def test_the_conversations_bytes_are_those_of_the_shapes():
    told = figures("experiment-20-turns")["counted"]["10^6"]
    config = shape("gemma-3-4b")
    kv = config.kv_bytes_per_token("bfloat16")
    one = config.residual_bytes_per_token("bfloat16")
    tokens = told["tokens"]
    assert round(tokens * kv / 1e6) == PAPER_FULL == 103
    assert told["tokens_a_turn"] == tokens / 20 == 37
    assert told["none_kept"] == tokens * one / 1e6
    assert told["per_layer_none_kept"] == 34 * tokens * one / 1e6 > PAPER_DIRECT == 42
    other = shape("deepseek-r1-distill-qwen-1.5b").kv_bytes_per_token("bfloat16")
    assert told["other_full"] == tokens * other / 1e6 < 150
    assert math.isclose(told["other_tokens"], 4.7 * 150e6 / other, rel_tol=2.0**-50)


def test_with_no_budget_a_new_token_takes_the_longest_and_with_a_share_of_it_less():
    told = figures("experiment-20-turns")
    last = [row for row in told["turns"] if row["turn"] == 20]
    seconds = {row["setting"]: row["seconds_per_token"] for row in last}
    full, share, none = seconds.values()
    assert full < share < none
    assert told["times_full"] == {name: each / full for name, each in seconds.items()}
    assert {row["tokens"] for row in last} == {told["tokens"]}


def test_no_length_of_the_paper_is_longer_than_gemmas_window():
    assert max(table_2.LENGTHS) == 256
    assert min(shape(name).sliding_window for name in ("gemma-3-270m", "gemma-3-4b")) > 256


def test_gemma_normalises_queries_and_keys_and_llama_does_not():
    assert FAMILIES["gemma3_text"].qk_norm
    assert not FAMILIES["llama"].qk_norm


# Figures


def test_the_papers_cells_of_figure_4_are_told_beside_ours():
    right = figures("figure-4")["right"]
    assert len(right) == 25
    cells = [value for entry in right for value in figure_4.printed(entry)]
    inside = [
        round(entry["least"]) <= value <= round(entry["most"])
        for entry in right
        for value in figure_4.printed(entry)
    ]
    assert (len(cells), sum(inside)) == (50, 34)
    largest = [e for e in right if e["budget"] == 384 and e["policy"] != "window"]
    theirs = [value for entry in largest for value in figure_4.printed(entry)]
    assert (min(theirs), max(theirs)) == (8, 28)


def test_the_rotated_score_has_another_matrix_at_each_distance():
    for head in heads(tiny("float64")):
        matrices = [
            turned(head.query, head.layer, reading.offset).T @ head.key for reading in ROTATED
        ]
        for number, matrix in enumerate(matrices):
            for other in (*matrices[:number], head.query.T @ head.key):
                assert not same_bits(matrix, other)
    ranks = figures("figure-5")["models"][NAME]["ranks"]
    means = {fmean(rank for layer in ranks[reading.text] for rank in layer) for reading in ROTATED}
    assert len(means) == 3


def test_sigma_4_is_the_square_of_squared_singular_values_and_a_stored_product_is_d_by_d():
    head = next(heads(tiny("float64")))
    sigma = READINGS[0].singular_values(head)
    assert READINGS[2].rank(head) == effective_rank(sigma**2)
    stored = head.query @ head.key.T
    assert stored.shape == (6, 6)
    assert (head.query.T @ head.key).shape == (24, 24)  # what makes a score of two rows
    assert np.allclose(READINGS[4].singular_values(head), np.linalg.svd(stored)[1], rtol=1e-12)


def test_figure_7_reads_and_writes_at_least_as_much_as_a_copy_but_for_qwen3():
    rows = figures("figure-7")["rows"]
    least = {name: Work.of(shape(name)).least_ratio for name in SIX}
    assert {row["name"]: row["least"] for row in rows} == {NAME: least["smollm2-135m"], **least}
    assert [name for name in SIX if least[name] < 1] == ["qwen3-0.6b"]
    assert min(least.values()) == 0.5 > 0.17
    for row in rows:
        work = Work.of(shape(row["name"].removesuffix("-instruct")))
        assert row["rate_for_one_by_one"] == work.flops(row["rows"]) / (
            0.17 * row["one_by_one_seconds"]
        )
        assert row["ratio"] == row["project_seconds"] / row["copy_seconds"]


def test_five_times_takes_so_many_operations_for_the_papers_shapes():
    """Two for each weight of a number of K or V, of which 200 10^9 are read in a second."""
    told = figures("figure-7-tiers")
    rates = [2 * shape(name).hidden_size * 400e9 / 2 * 5 / 1e12 for name in SIX]
    assert (
        f"{min(rates):,.0f} to {max(rates):,.0f} TFLOP/s"
        in RESULTS["figure-7-tiers"].finding.reason
    )
    work = Work.of(shape("smollm2-135m"))
    assert round(work.block / (work.hidden * work.kv)) == 16
    assert told["work"][NAME] == vars(work)
    limit = 4 * 500 * work.kv / (work.flops(500) / told["roofline"]["rate"])
    assert math.isclose(told["crossover"], limit, rel_tol=2.0**-50)
    for row in told["tiers"]:
        assert row["wins"] == (row["project_seconds"] < row["seconds"])
        assert row["expected_to_win"] == (row["bandwidth"] < told["crossover"])
    assert all(row["replay_ratio"] > 1 for row in told["tiers"])


def test_prompts_of_any_lengths_have_at_least_the_match_that_is_certain_of_their_mean():
    rng = random.Random(0)
    for _ in range(100):
        lengths = [rng.randrange(1, 400) for _ in range(5)]
        certain = fmean(figure_9.certain(length, 256, 250) for length in lengths)
        assert certain >= figure_9.certain(math.floor(fmean(lengths)) + 1, 256, 250) - 1e-9


# Real weights


@pytest.mark.weights
def test_our_questions_are_longer_than_8_tokens_and_no_longer_than_64():
    tokenizer = Tokenizer.from_folder(resolve(NAME))
    told = figures("table-4-hellaswag")
    questions = read_questions(str(SAMPLE))
    contexts = [len(tokenizer.encode(question.context)) for question in questions]
    longest = max(
        len(tokenizer.encode(f"{question.context} {ending}"))
        for question in questions
        for ending in question.endings
    )
    assert min(contexts) == told["shortest_context"] > 8
    assert longest == told["longest"] <= 64


@pytest.mark.weights
def test_a_bare_question_is_ended_at_once():
    model = loaded(NAME)
    for question in (figure_8.DONOR, figure_8.RECIPIENT):
        (first,) = np.argmax(model.logits(model.tokenizer.encode(question))[-1:], axis=-1)
        assert int(first) in model.config.eos_token_id


@pytest.mark.weights
def test_few_directions_and_a_short_window_lose_the_real_models_tokens():
    """And all directions, and a window that no text outgrows, lose none: the control."""
    model = loaded(NAME)
    text = model.tokenizer.encode(next(iter(read_passages().values())))
    makers = {"cut": lambda weights, rank: Truncated(weights, rank, "text")}
    whole, cut = compare(model, {"text": text[:48]}, [64, 4], 4, makers)
    assert whole["match"] == 1.0
    assert whole["kl_max"] < 1e-9
    assert cut["match"] < 1.0
    assert cut["kl_mean"] > 0.3
    wide, short = compare(model, {"text": text[:64]}, [128, 8], 4, ["window"])
    assert (wide["match"], wide["bits_equal"]) == (1.0, True)
    assert short["match"] < 1.0
