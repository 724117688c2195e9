"""The benchmarks measure what they say: the same model, ratios within rounds, honest verdicts."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path

import numpy as np
import pytest
from gguf_writer import permuted

import minikv
from benchmarks import __main__ as command
from benchmarks import contenders, gguf_files, peers, policies, protocol, report, scaling, versions
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
    bench.seconds(dict.fromkeys(names, str(folder)), ["decode 4"], rounds=2)
    assert [name for name, _ in order] == 3 * names
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
