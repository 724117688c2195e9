"""The benchmarks measure what they say: the same model, ratios within rounds, honest verdicts."""

from __future__ import annotations

import doctest
import json
import math
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from gguf_writer import permuted

import minikv
from benchmarks import __main__ as command
from benchmarks import (
    contenders,
    gguf_files,
    goals,
    peers,
    policies,
    protocol,
    report,
    roofline,
    scaling,
    versions,
)
from benchmarks.goals import Goal
from benchmarks.roofline import Counts, Rates
from minikv.weights import load_tensors, save_folder
from minikv.weights.gguf import undo_permutation

CONFIG = minikv.tiny_config(max_position_embeddings=512, tie_word_embeddings=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny"
    return save_folder(path, CONFIG, minikv.random_tensors(CONFIG, seed=0, scale=3.0))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def gguf_file(folder, tmp_path) -> Path:
    pytest.importorskip("gguf", reason="needs the extra `fetch`")
    gguf_files.float32(folder, tmp_path / "f32.gguf")
    return tmp_path / "f32.gguf"


@pytest.mark.parametrize(("heads", "half"), [(1, 1), (3, 2), (9, 32)])
def test_permuting_rows_for_llama_cpp_is_undone_by_the_converter(heads, half):
    rows = np.arange(heads * 2 * half * 5).reshape(-1, 5)
    moved = permuted(rows, heads)
    assert np.array_equal(undo_permutation(moved, heads), rows)
    assert np.array_equal(moved, rows) == (half == 1)


def test_the_float32_file_holds_the_weights_bits(folder, gguf_file):
    import gguf

    tensors = load_tensors(folder, CONFIG)
    stored = {t.name: t.data for t in gguf.GGUFReader(gguf_file).tensors}
    assert len(stored) == len(tensors)
    q = undo_permutation(stored["blk.1.attn_q.weight"], CONFIG.num_attention_heads)
    k = undo_permutation(stored["blk.1.attn_k.weight"], CONFIG.num_key_value_heads)
    for name, values in (
        ("self_attn.q_proj", q),
        ("self_attn.k_proj", k),
        ("mlp.down_proj", stored["blk.1.ffn_down.weight"]),
        ("input_layernorm", stored["blk.1.attn_norm.weight"]),
    ):
        expected = tensors[f"model.layers.1.{name}.weight"]
        assert np.array_equal(values.view(np.uint32), expected.view(np.uint32)), name


def test_the_file_of_16_bits_holds_the_matrices_rounded_to_bfloat16(folder, tmp_path):
    gguf = pytest.importorskip("gguf", reason="needs the extra `fetch`")
    gguf_files.bfloat16(folder, tmp_path / "bf16.gguf")
    stored = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "bf16.gguf").tensors}
    down = load_tensors(folder, CONFIG)["model.layers.1.mlp.down_proj.weight"]
    bits = down.view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16  # to nearest, ties to even
    found = stored["blk.1.ffn_down.weight"].view(np.uint16)
    assert np.array_equal(found, rounded)
    assert not np.array_equal(found, bits >> 16)


def tokens_of(name: str, path: Path) -> list[int]:
    return contenders.greedy(contenders.make(name, str(path)), length=20, tokens=12)


@pytest.mark.parametrize("name", ["exact/numpy", "exact/numba"])
def test_minikv_contenders_write_the_same_tokens(folder, name):
    if name.endswith("numba"):
        pytest.importorskip("numba", reason="needs the extra `numba`")
    expected = tokens_of("float32/numpy", folder)
    assert tokens_of(name, folder) == expected
    assert len(set(expected)) > 3


def test_weights_cut_to_bfloat16_are_the_upper_halves(folder, tmp_path):
    contenders.bfloat16_folder(str(folder), str(tmp_path / "cut"))
    whole, cut = (load_tensors(path, CONFIG) for path in (folder, tmp_path / "cut"))
    for name, tensor in whole.items():
        upper = tensor.view(np.uint32) & np.uint32(0xFFFF0000)
        assert np.array_equal(cut[name].view(np.uint32), upper), name
    assert contenders.make("exact/numpy bfloat16", str(tmp_path / "cut")).vocab == CONFIG.vocab_size


@pytest.mark.peers
def test_transformers_writes_the_same_tokens(folder):
    pytest.importorskip("transformers", reason="needs the extra `peers`")
    assert tokens_of("transformers", folder) == tokens_of("float32/numpy", folder)


def test_llama_cpp_writes_the_same_tokens_from_the_float32_file(folder, gguf_file):
    pytest.importorskip("llama_cpp", reason="needs the extra `benchmarks`")
    assert tokens_of("llama.cpp float32", gguf_file) == tokens_of("float32/numpy", folder)


@pytest.mark.parametrize("name", ["float32/numpy", "transformers", "llama.cpp float32"])
def test_a_turn_starts_where_the_prompt_ended(folder, gguf_file, name):
    modules = {"transformers": "transformers", "llama.cpp float32": "llama_cpp"}
    if name in modules:
        pytest.importorskip(modules[name], reason="needs the extra `benchmarks`")
    path = gguf_file if name.startswith("llama") else folder
    contender = contenders.make(name, str(path))
    state, first = contender.start(contenders.prompt(20, contender.vocab))

    def continued() -> list[int]:
        out = [first]
        for _ in range(6):
            out.append(contender.step(state, out[-1]))
        return out

    text = continued()
    assert continued() != text, "the control: without going back the text goes on"
    for _ in range(2):
        contender.crop(state, 20)
        assert continued() == text


def result(slow: float = 1.0) -> dict:
    """A run in which the second round was ten times slower for everybody."""
    seconds = {"float32/numpy": 1.0, "exact/numba": 0.5 * slow, "transformers": 0.6, "bare": 0.9}
    at_16 = {
        "peak": [110],
        "running": [86],
        "load": [3.1],
        "first token": [1.0],
        "weights": [90],
        "cache": [10],
    }
    peak = {"imports": {"peak": [10]}, "16": at_16}
    out = {
        "seconds": {
            name: {"decode 16": [s, 10 * s, s], "prefill 512": [s, 10 * s, s]}
            for name, s in seconds.items()
        },
        "fresh": dict.fromkeys(("float32/numpy", "exact/numba"), peak),
        "greedy": {name: [1, 2] for name in seconds},
        "missing": ["x: not here"],
        "starts": {"import minikv": [0.1, 0.2, 0.9], "minikv --help": [0.6]},
        "machine": {"a": "b"},
    }
    return {**out, "ratios": peers.ratios(out)}


def found(of: dict, measure: str, contender: str, against: str) -> dict:
    (row,) = [
        r
        for r in of["ratios"]
        if r["measure"] == measure
        and r["contender"] == contender
        and r["against"].startswith(against)
    ]
    return row


@pytest.mark.slow
def test_contenders_take_turns_each_in_a_process_of_its_own(folder, monkeypatch):
    order: list[tuple[str, int]] = []
    turn = peers.Worker.turn

    def noted(worker: peers.Worker, task: str, tokens: int) -> float:
        order.append((worker.name, worker.process.pid))
        return turn(worker, task, tokens)

    monkeypatch.setattr(peers.Worker, "turn", noted)
    names = ["float32/numpy", "bare"]
    bench = peers.Bench(str(folder), folder.parent, threads=1)
    plan = {"float32/numpy": ["decode 4"], "bare": ["decode 4", "prefill 4"]}
    paths = dict.fromkeys(names, str(folder))
    found = bench.seconds(paths, plan, rounds=2, once=["prefill 4"])
    assert [name for name, _ in order] == [*names, *names, "bare", *names]
    counted = {name: {task: len(took) for task, took in of.items()} for name, of in found.items()}
    assert counted["float32/numpy"] == {"decode 4": 2}
    assert counted["bare"] == {"decode 4": 2, "prefill 4": 1}
    assert len({*order}) == len({pid for _, pid in order} - {os.getpid()}) == 2


def test_ratios_are_taken_within_a_round():
    row = found(result(), "decode at 16", "exact/numba", "transformers")
    assert row["low"] == row["ratio"] == row["high"] == 0.5 / 0.6


@pytest.mark.parametrize(("slow", "verdict"), [(1.0, "met"), (1.3, "MISSED")])
def test_a_verdict_follows_its_target(slow, verdict):
    row = found(result(slow), "decode at 16", "exact/numba", "transformers")
    assert (row["target"], row["verdict"]) == (1.0, verdict)


def test_memory_is_what_importing_does_not_need_and_limits_are_medians():
    of = result()
    assert found(of, "peak, 16 tokens", "exact/numba", "float32 weights 0")["ratio"] == 100 / 90
    assert found(of, "peak, 16 tokens, load aside", "exact/numba", "float32")["ratio"] == 76 / 90
    assert found(of, "peak, 16 tokens", "float32/numpy", "float32 weights and")["verdict"] == "met"
    assert found(of, "load", "float32/numpy", "3 s")["verdict"] == "MISSED"
    assert found(of, "import minikv", "", "0.3 s")["verdict"] == "met"
    assert found(of, "minikv --help", "", "0.5 s")["verdict"] == "MISSED"


def test_the_report_names_what_was_missed_and_what_was_not_there():
    text = report.render_peers(result(1.3))
    verdicts = [r["verdict"] for r in result(1.3)["ratios"] if r["verdict"]]
    assert f"{verdicts.count('met')} of {len(verdicts)} targets met" in text
    assert text.count("MISSED") == verdicts.count("MISSED") > 0
    assert "not measured: x: not here" in text


def test_an_exponent_above_one_is_reported():
    seconds = {
        name: {
            f"{kind} {n}": [n**power * 1e-6]
            for n in (16, 64, 256)
            for kind, power in (("decode", 1), ("prefill", prefill))
        }
        for name, prefill in (("float32/numpy", 2), ("exact/numba", 3))
    }
    fresh = {
        name: {str(n): {"peak": [10**8 + (n - 16) ** 2]} for n in (16, 64, 256)} for name in seconds
    }
    rows = scaling.slopes(scaling.curves(seconds, fresh, (16, 64, 256)))
    got = {(r["measure"], r["contender"]): (round(r["slope"], 1), r["verdict"]) for r in rows}
    assert got["decode", "float32/numpy"] == (1.0, "linear or less")
    assert got["prefill", "float32/numpy"] == (1.0, "linear or less")
    assert got["prefill", "exact/numba"] == (2.0, "above linear")
    assert got["memory", "float32/numpy"][1] == "above linear"
    assert math.isnan(scaling.exponent([(1, 1)]))


class Fake(peers.Worker):
    """A worker that uses `own` ticks of the processor for a turn of a tenth of a second."""

    def __init__(self, own: int) -> None:
        self.own, self.used = own, 0

    def turn(self, task: str, tokens: int) -> float:
        self.used += self.own
        return 0.1

    def ticks(self) -> int:
        return self.used


@pytest.mark.parametrize(("others", "disturbed"), [(0, 0), (40, 1)])
def test_only_other_programs_disturb_a_turn(monkeypatch, others, disturbed):
    worker = Fake(own=20)
    monkeypatch.setattr(peers, "busy_ticks", lambda: worker.used + bool(worker.used) * others)
    quiet = peers.Quiet(patience=0)
    assert quiet.turn(worker, "decode 16", 8) == 0.1
    assert (quiet.disturbed, quiet.turns) == (disturbed, 1)


@pytest.mark.slow
def test_one_small_run_from_end_to_end(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "CONTENDERS", ("float32/numpy", "exact/numpy", "bare"))
    monkeypatch.setattr(peers, "QUICK", peers.Sizes((4,), (8,), (4,), rounds=2, fresh=1, starts=1))
    monkeypatch.setattr(report, "write", lambda *_: pytest.fail("--write was not given"))
    saved = tmp_path / "all.json"
    argv = ["--peers", "--quick", "--threads", "1", "--model", str(folder), "--output", str(saved)]
    assert command.main(argv) == 0
    run = json.loads(saved.read_text())["peers"]
    assert {len(seconds) for took in run["seconds"].values() for seconds in took.values()} == {2}
    assert run["greedy"]["float32/numpy"] == run["greedy"]["exact/numpy"]
    assert run["machine"]["threads"] == "1"
    assert run["machine"]["command"].startswith("python -m benchmarks --peers --quick --threads 1")
    assert run["fresh"]["float32/numpy"]["4"]["weights"] == [4 * CONFIG.num_parameters]


def test_plots_and_tables_are_written(tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra `plots`")
    run = result()
    report.write("peers", run, report.render_peers(run), tmp_path)
    assert (tmp_path / "RESULTS.png").read_bytes().startswith(b"\x89PNG")
    assert "![" in (tmp_path / "RESULTS.md").read_text()


def test_nothing_asked_for_is_an_error(capsys):
    with pytest.raises(SystemExit):
        command.main(["--quick"])
    assert "--peers" in capsys.readouterr().err


def test_sizes_of_the_quick_run_are_among_those_of_the_full_one():
    full = peers.Sizes()
    assert set(peers.QUICK.decode) <= set(full.decode)
    assert set(peers.QUICK.prefill) <= set(full.prefill)


@pytest.mark.parametrize("arithmetic", ["float32", "exact"])
def test_the_loop_by_hand_has_the_logits_of_the_full_cache_in_every_bit(arithmetic):
    model = minikv.random_model(CONFIG, 0, arithmetic)
    assert len(protocol.ratios(model, 5, time.perf_counter)) == 5


def test_a_policy_is_timed_at_its_budget_beside_the_full_cache_of_as_many_tokens(monkeypatch):
    model = minikv.random_model(CONFIG, 0)
    attended = []
    attention = type(model.arithmetic).attention

    def watched(self, q, k, *rest):
        attended.append(len(k))
        return attention(self, q, k, *rest)

    monkeypatch.setattr(type(model.arithmetic), "attention", watched)
    for policy in policies.POLICIES:
        attended.clear()
        assert len(policies.ratios(model, policy, 6, 5, time.perf_counter)) == 5
        steps = 2 * (policies.WARM_UP + 5)
        layers = CONFIG.num_hidden_layers
        assert attended == [6] * 2 * layers + [7] * steps * layers


def test_a_loop_with_other_logits_is_found_out(monkeypatch):
    model = minikv.random_model(CONFIG, 0)
    other = protocol.by_hand(minikv.random_model(CONFIG, 1), 9)
    monkeypatch.setattr(protocol, "by_hand", lambda *_: other)
    with pytest.raises(SystemExit, match="differ from minikv's at position 0"):
        protocol.ratios(model, 5, time.perf_counter)


TINY = str(Path(__file__).parent / "fixtures" / "tiny")


def test_a_version_is_timed_beside_an_older_one_on_the_same_file(capsys):
    options = ["--contenders", "float32/numpy", "--tasks", "decode 4", "--rounds", "2"]
    assert versions.main(["HEAD", "--model", TINY, *options]) == 0
    said = capsys.readouterr().out
    (row,) = [line for line in said.splitlines() if line.startswith("| float32/numpy | decode 4 |")]
    assert row.endswith("| same |")
    assert "turns disturbed" in said


def test_a_version_that_decodes_other_tokens_is_said():
    ratios = (0.9, 1.0, 1.2)
    assert versions.Measured("exact/numpy", "decode 16", ratios, False).row[-1] == "OTHER"
    assert versions.Measured("exact/numpy", "decode 16", ratios, True).row[-2:] == ("yes", "same")
    slower = tuple(2 * ratio for ratio in ratios)
    assert versions.Measured("exact/numpy", "decode 16", slower, True).row[-2] == "no"


def test_a_commit_that_git_does_not_know_is_refused():
    with pytest.raises(SystemExit, match=r"benchmarks\.versions: git: "):
        versions.main(["no-such-commit"])


class Timeless(peers.Bench):
    """A bench whose turns all take a second; it keeps what was to be taken once."""

    def paths(self, names):
        return {"float32/numpy": self.folder}

    def seconds(self, paths, plan, rounds, once=()):
        self.asked = plan["float32/numpy"]
        self.once = once
        return {"float32/numpy": {task: [1.0] for task in self.asked}}

    def fresh(self, paths, lengths, rounds):
        return {"float32/numpy": {str(n): {"peak": [10**8 + n]} for n in lengths}}


def test_texts_fill_the_context_and_long_ones_are_timed_once(folder, monkeypatch):
    assert scaling.LENGTHS[-1] == 8192 > scaling.LONG
    monkeypatch.setattr(scaling, "LONG", 256)
    bench = Timeless(str(folder), folder.parent)
    found = scaling.measure(bench, (16, 256, 512, 1024), rounds=3)
    longest = CONFIG.max_position_embeddings - contenders.ROOM
    assert [task for task in bench.asked if "prefill" in task] == [
        f"prefill {n}" for n in (16, 256, longest)
    ]
    assert set(bench.once) == {
        f"{kind} {n}" for kind in ("decode", "prefill") for n in (256, longest)
    }
    assert "one from 256 tokens on" in found["machine"]["rounds"]


@pytest.mark.parametrize("module", [goals, peers, scaling])
def test_examples_of_the_benchmarks_are_so(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


def test_a_turn_may_decode_with_a_policy_and_goes_back_if_nothing_was_evicted(folder):
    contender = contenders.make("float32/numpy", str(folder))
    texts: dict = {}
    for policy, seen in (("residual:embedding@1", 23), ("h2o@8", 26)):
        request = {"task": f"decode 20 {policy}", "tokens": 2}
        for _ in range(2):
            assert contenders.turn(contender, texts, request) > 0
        cache, _ = texts[request["task"]]
        assert cache.seen == seen  # a turn is one token that is not counted, and two
    assert cache.stored == 8
    assert peers.turn_tokens("decode 20 residual:embedding@1") == 1 < peers.turn_tokens("decode 20")


COUNTS = Counts(97, 32, 64, 3, 4, 2, 8)


def test_counts_are_those_of_the_model_and_its_cache(folder):
    counts = Counts.of(folder)
    tensors = load_tensors(folder, CONFIG)
    layers = [w.size for name, w in tensors.items() if ".layers." in name and w.ndim == 2]
    assert counts.num_hidden_layers * counts.block == sum(layers)
    assert counts.weights == sum(layers) + tensors["lm_head.weight"].size
    model = minikv.load(folder)
    cache = model.new_cache("h2o", budget=3)
    model.forward([[1, 2, 3]], [cache])
    assert counts.cache_bytes(3) == cache.nbytes
    assert counts.bytes("decode 0") == 4 * counts.weights
    assert counts.flops("decode 0") == 2 * counts.weights
    heads = counts.num_hidden_layers * counts.num_attention_heads
    seen = sum(query + 1 for query in range(7))
    assert counts.pairs(7) == heads * seen
    attention = counts.flops("prefill 7") - counts.products(7)
    assert attention == 2 * seen * heads * 2 * counts.head_dim
    assert counts.flops("decode 7") == 2 * counts.weights + 4 * 7 * heads * counts.head_dim


def rates(**changed) -> Rates:
    nothing = dict.fromkeys(("float32/numpy", "float32/numba", "exact/numpy"), 0.0)
    given = {
        "products": {"float32": 8.0, "exact": 2.0},
        "reading": 100.0,
        "exp": nothing,
        "passes": {"float32": 0.0, "exact": 0.0},
        "threads": 2,
    }
    return Rates(**given | changed)


def test_a_prompts_floor_is_its_products_and_what_its_elements_take():
    def floor(contender: str, **changed) -> float:
        return roofline.prefill_floor(COUNTS, rates(**changed), contender, 5, bare=10.0)

    products = 1 + COUNTS.attention(5) / COUNTS.products(5)
    assert floor("float32/numpy") == products
    assert floor("exact/numpy") == 4 * products
    exps = COUNTS.pairs(5) + 5 * 3 * 64
    taken = {"exp": {"float32/numpy": 1.0, "float32/numba": 1.0}}
    assert floor("float32/numpy", **taken) == products + exps / 10
    assert floor("float32/numba", **taken) == products + exps / 10 / 2
    passes = 3 * COUNTS.pairs(5) + 5 * 3 * (3 * 64 + 8 * 32 + 3 * (4 + 2) * 8)
    assert floor("float32/numpy", passes={"float32": 1.0}) == products + passes / 10
    more = 7 * COUNTS.pairs(5) + 5 * 3 * COUNTS.row_passes("exact")
    assert floor("exact/numpy", passes={"exact": 1.0}) == 4 * products + more / 10
    assert COUNTS.row_passes("exact") - COUNTS.row_passes("float32") == 2 * (32 + 32 + 32 + 64)


def test_a_tokens_floor_is_reading_the_weights_and_the_cache():
    needed = 4 * COUNTS.weights + 6 * COUNTS.cache_bytes(1)
    assert roofline.decode_floor(COUNTS, rates(), "decode 6", bare=2.0) == needed / 100 / 2


def test_rates_are_medians_over_what_a_turn_works(folder):
    bare = contenders.make("bare", str(folder))
    names = roofline.tasks(["float32/numpy", "exact/numpy"])
    seconds = {}
    for task in names:
        request = {"task": task, "tokens": 1}
        assert contenders.turn(bare, {}, request) > 0
        seconds[task] = [4.0, 2.0, 100.0]
    counts = Counts.of(folder)
    found = Rates.measured(seconds, counts, threads=1)
    assert found.reading == counts.weights
    assert found.products == dict.fromkeys(("float32", "exact"), roofline.ROWS * counts.block / 2)
    a_turn = roofline.BLOCK * roofline.BLOCKS
    assert found.exp == dict.fromkeys(("float32/numpy", "exact/numpy"), 4 / a_turn)
    assert found.passes == dict.fromkeys(("float32", "exact"), 4 / a_turn)
    assert len(found.table()) == 1 + len(names)


class Told(peers.Bench):
    """A bench that is told its times, two rounds of them, the second ten times slower."""

    def paths(self, names):
        return {name: self.folder for name in names if name != "exact/numba"}

    def seconds(self, paths, plan, rounds, once=()):
        times = {"float32/numpy": 3.0, "bare": 2.0}
        times["decode 4 residual:embedding@1"] = 5.0
        return {
            name: {
                task: [s, 10 * s] for task in plan[name] for s in (times.get(task, times[name]),)
            }
            for name in paths
        }

    def fresh(self, paths, lengths, rounds):
        at_16 = {"peak": [10**6], "processor": [2.0, 4.0], "first token": [1.0, 1.0]}
        imports = {"peak": [10**5], "processor": [1.0], "first token": [1.0]}
        return {name: {"16": at_16, "imports": imports} for name in paths}


def told_rows(folder, *wanted: Goal) -> list[goals.Row]:
    bench = Told(str(folder), folder.parent, threads=1, clock="cpu")
    return list(goals.Run(bench, wanted, rounds=2).rows())


def test_a_goal_is_met_or_missed_by_the_median_of_its_rounds(folder):
    met, missed, beyond, absent = told_rows(
        folder,
        Goal("float32/numpy", "prefill 4", one=1.5),
        Goal("float32/numpy", "prefill 4", one=1.4, two=9.0),
        Goal("float32/numpy", "prefill 4", one=1.0),
        Goal("exact/numba", "prefill 4", one=9.0),
    )
    assert met.ratios == missed.ratios == (1.5, 1.5)
    assert met.cells[2:7] == ["1.50", "1.50 to 1.50", f"{met.floor:.2f}", "1.50", "met"]
    assert met.floor > 1
    assert missed.cells[6] == "MISSED"
    assert beyond.cells[6] == "MISSED: the goal is below the floor"
    assert absent.cells[2:7] == ["not measured", "", "", "9.00", ""]


def test_replay_is_what_it_takes_beyond_the_full_cache(folder):
    replay, full, every = told_rows(
        folder,
        Goal("float32/numpy", "decode 4 residual:embedding@1", goals.PREFILL, one=1.0),
        Goal("float32/numpy", "decode 4 h2o@4", goals.FULL, one=1.0),
        Goal("float32/numpy", "decode 4 residual:every@1", goals.PRODUCTS, one=1.0),
    )
    assert replay.ratios == ((5 - 3) / 3,) * 2
    assert full.ratios == (1.0, 1.0)
    counts = Counts.of(folder)
    assert full.floor == every.floor == 1
    assert replay.floor == counts.replayed
    made = 4 * counts.num_hidden_layers * 2 * counts.key_width * counts.hidden_size
    share = made / (roofline.ROWS * counts.block)
    assert every.ratios == pytest.approx((3 / (2 * share + 3),) * 2, rel=1e-12)  # three roundings


def test_a_replay_multiplies_all_blocks_but_most_of_the_last():
    whole = COUNTS.num_hidden_layers * COUNTS.block
    spared = COUNTS.block - 2 * COUNTS.key_width * COUNTS.hidden_size
    assert COUNTS.replayed == (whole - spared) / whole


def test_a_weight_has_the_bytes_in_which_a_contender_holds_it():
    names = ("float32/numpy", "float32/numba", "exact/numba", "exact/numpy", contenders.HALVED)
    assert [goals.bytes_a_weight(name) for name in names] == [4, 4, 4, 8, 2]


def test_all_numbers_are_read_on_one_thread_and_on_two(monkeypatch):
    matrices = [np.zeros((3, 5), np.float32), np.zeros((4, 2), np.float32)]
    read = []
    monkeypatch.setattr(np, "max", lambda part: read.append(part.size))
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        read.clear()
        roofline.reading(matrices)()
        assert sum(read) == 15 + 8


def test_processor_time_is_that_of_one_thread(capsys):
    with pytest.raises(SystemExit):
        goals.main(["--threads", "2", "--clock", "cpu"])
    assert "use --threads 1" in capsys.readouterr().err


def test_weights_in_two_bytes_are_held_against_half_of_the_reading(folder):
    counts = Counts.of(folder)
    goal = Goal(contenders.HALVED, "decode 16", goals.READING, one=1.6)
    above, ((share, name, task),) = goals.fraction(goal, counts)
    assert above == [(1.0, contenders.HALVED, "decode 16")]
    assert (name, task) == ("bare", "rate reading")
    read = 2 * counts.weights + counts.cache_bytes(16)
    assert share * 4 * counts.weights == read


def test_a_first_token_and_a_peak_are_those_of_fresh_processes(folder, monkeypatch):
    monkeypatch.setattr(goals, "lacking", lambda _: "")
    first, peak = told_rows(
        folder,
        Goal("float32/numpy", "first 16", goals.TRANSFORMERS, two=0.1),
        Goal("float32/numpy", "peak 16", goals.NEEDED, one=1.1),
    )
    assert first.ratios == (1.0, 1.0)
    assert first.floor > 1 / 3  # imports take 1 s of 3
    counts = Counts.of(folder)
    needed = 4 * counts.weights + counts.cache_bytes(16 + contenders.AFTER_PROMPT)
    assert peak.ratios == (9e5 / needed,)


def test_a_run_on_one_thread_leaves_the_section_of_two_as_it_was():
    two = "## Two threads\n\nold two\n"
    page = goals.merged(goals.merged("", two), "## One thread\n\nold one")
    page = goals.merged(page, "## One thread\n\nnew")
    assert "old one" not in page
    assert page.startswith(goals.ABOUT.strip())
    assert page.endswith("## One thread\n\nnew\n\n" + two)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--rounds", "1"], "at least 2"),
        (["--write", "--only", "x"], "--only"),
        (["--only", "none such"], "none such"),
    ],
)
def test_a_run_of_goals_that_cannot_be_is_refused(argv, said, capsys):
    with pytest.raises(SystemExit):
        goals.main(argv)
    assert said in capsys.readouterr().err


def test_notes_name_each_goal_that_is_missed():
    table = goals.TABLE.read_text(encoding="utf-8")
    missed = re.findall(r"(?m)^\| (`[^`]*`) .*\| MISSED", table)
    notes = (goals.TABLE.parent / "NOTES.md").read_text(encoding="utf-8")
    told = notes.partition("### Goals that are missed, and why")[2]
    rows = [line.split("|")[1] for line in told.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall("`[^`]*`", row)]
    assert sorted(set(missed)) == sorted(named)


@pytest.mark.slow
def test_a_small_run_of_goals_from_end_to_end(folder, tmp_path, monkeypatch, capsys):
    small = (
        Goal("float32/numpy", "prefill 8", one=1.0),
        Goal("float32/numpy", "decode 8 residual:every@1", goals.PRODUCTS, one=1.0),
        Goal("float32/numpy", "peak 16", goals.NEEDED, one=1e9),
        Goal("float32/numpy", "decode 2048", one=1.0),
    )
    monkeypatch.setattr(goals, "GOALS", small)
    monkeypatch.setattr(goals, "TABLE", tmp_path / "GOALS.md")
    monkeypatch.setattr(goals, "FRESH", 2)
    assert goals.main(["--model", str(folder), "--quick", "--write"]) == 0
    page = (tmp_path / "GOALS.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() in page
    assert "* quick: " in page
    (peak,) = [line for line in page.splitlines() if line.startswith("| `float32/numpy peak 16`")]
    assert "| met" in peak
    assert "not measured" not in page
    assert "2048`" not in page
