"""The experiments: that their figures mean what their docstrings say."""

from __future__ import annotations

import itertools
import json
import math
import re
import statistics
from pathlib import Path

import numpy as np
import pytest

import minikv
from minikv import experiments
from minikv.caches import POLICIES
from minikv.cli import main
from minikv.config import FULL, SLIDING
from minikv.errors import InputError
from minikv.experiments import compare, latency, memory
from minikv.experiments.frontier import frontier
from minikv.build import random_tensors
from minikv.weights import save_folder

TINY = Path(__file__).parent / "fixtures" / "tiny"
EVICTING = ("window", "streaming_llm", "h2o", "snapkv", "tova")
CHECKPOINTS = ("every", "2", "3", "0+2", "embedding", "tokens")


# Each family with what sets it apart; windows shorter than the texts.
FAMILIES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {"sliding_window": 5, "layer_types": (SLIDING,) * 3},
    "gemma3_text": {
        "sliding_window": 5,
        "layer_types": (SLIDING, SLIDING, FULL),
        "rope_local_base_freq": 100.0,
    },
}


def tiny(arithmetic: str = "exact", seed: int = 0, **changes) -> minikv.Model:
    return minikv.random_model(minikv.tiny_config(**changes), seed=seed, arithmetic=arithmetic)


def texts(count: int, length: int, seed: int = 0) -> dict[str, list[int]]:
    rng = np.random.default_rng(seed)
    return {f"text {n}": rng.integers(0, 97, length + n).tolist() for n in range(count)}


# --- what the experiments share -------------------------------------------------------------------


def test_one_pass_fills_every_cache_as_a_pass_of_its_own_does():
    model, ids = tiny(), texts(1, 30)["text 0"]
    names = [*EVICTING, "full", "none", *(f"residual:{kept}" for kept in ("every", "embedding"))]
    together = [experiments.policy_cache(name, model.weights, 8) for name in names]
    logits = experiments.fill(model.weights, together, ids)
    for name, cache in zip(names, together, strict=True):
        alone = experiments.policy_cache(name, model.weights, 8)
        assert logits.tobytes() == model.forward([ids], [alone])[0].tobytes()
        tensors, metadata = cache.state()
        expected, expected_metadata = alone.state()
        assert metadata == expected_metadata
        assert {key: array.tobytes() for key, array in tensors.items()} == {
            key: array.tobytes() for key, array in expected.items()
        }, name


def test_only_empty_caches_share_a_pass():
    model = tiny()
    cache = model.new_cache()
    model.forward([[1, 2]], [cache])
    with pytest.raises(InputError, match="empty"):
        experiments.fill(model.weights, [model.new_cache(), cache], [3])


@pytest.mark.parametrize(
    ("name", "policy", "parameters"),
    [
        ("full", "full", {}),
        ("none@5", "none", {}),
        ("window", "window", {"budget": 8}),
        ("window@5", "window", {"budget": 5}),
        ("residual", "residual", {"budget": 8, "checkpoints": [0]}),
        ("residual:every", "residual", {"budget": 8, "checkpoints": [0, 1]}),
        ("residual:tokens", "residual", {"budget": 8, "checkpoints": "tokens"}),
        ("residual:2@3", "residual", {"budget": 3, "checkpoints": [0]}),
        ("residual:0+1", "residual", {"budget": 8, "checkpoints": [0, 1]}),
    ],
)
def test_a_policy_is_named_with_its_checkpoints_and_budget(name, policy, parameters):
    cache = experiments.policy_cache(name, tiny().weights, 8)
    assert cache.policy == policy
    assert cache.parameters.items() >= parameters.items()


@pytest.mark.parametrize("name", ["window:2", "residual@x", "lru", "residual:some", "residual:0+x"])
def test_a_policy_that_is_misnamed_is_refused(name):
    with pytest.raises(minikv.MinikvError):
        experiments.policy_cache(name, tiny().weights, 8)


def test_the_committed_texts_are_eight_kinds_and_the_conversation_has_20_turns():
    prompts = experiments.read_prompts()
    assert len(prompts) == 8
    assert len(experiments.read_conversation()) == memory.PAPER_TURNS == 20
    data = Path(minikv.__file__).parent / "data"
    assert sum(file.stat().st_size for file in data.glob("*.txt")) < 200_000


@pytest.mark.weights
def test_every_committed_text_has_at_least_256_tokens(smollm2):
    model = minikv.load(smollm2)
    prompts = experiments.read_prompts()
    lengths = {name: len(model.tokenizer.encode(text)) for name, text in prompts.items()}
    assert min(lengths.values()) >= 256, lengths


@pytest.mark.parametrize("content", [b"", b"no name\n", b"text\n=== a\nb\n", b"\xff\n"])
def test_a_file_that_holds_no_prompts_is_refused(tmp_path, content):
    (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"p\.txt"):
        experiments.read_prompts(tmp_path / "p.txt")


# --- compare --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_residual_matches_the_full_cache_in_every_bit_at_every_budget_and_no_baseline_does(seed):
    model = tiny(seed=seed, num_hidden_layers=4)
    policies = [*(f"residual:{kept}" for kept in CHECKPOINTS), *EVICTING]
    for row in compare.compare(model, texts(1, 20, seed), [1, 2, 5, 13], 10, policies[:6]):
        assert row["match"] == 1.0, row
        assert row["kl_mean"] == row["kl_max"] == 0.0, row
        assert row["bits_equal"], row
        assert row["first_divergence"] is None, row
    for row in compare.compare(model, texts(1, 20, seed), [5, 13], 10, policies[6:]):
        assert row["kl_max"] > 0.0, row  # the zeros above are not vacuous
        assert not row["bits_equal"], row


def test_every_policy_equals_the_full_cache_where_the_budget_covers_the_text():
    model = tiny()
    policies = [name for name in POLICIES if name != "full"]
    for row in compare.compare(model, texts(1, 20), [20 + 12], 12, policies):
        assert row["bits_equal"], row
        assert row["kl_max"] == 0.0, row
        assert row["match"] == 1.0, row
        assert row["bytes"] == row["full_bytes"] or row["policy"] in ("none", "residual")


@pytest.mark.parametrize("policy", EVICTING)
def test_compare_says_what_separate_runs_say(policy):
    """The batch, the shared prefill and the fork at the first difference change no figure."""
    model, prompts = tiny(seed=3), texts(2, 24)
    rows = compare.compare(model, prompts, [6], 10, [policy])
    for row, ids in zip(rows, prompts.values(), strict=True):
        full = list(model.generate(ids, 11, "full", stop=()))
        cache = experiments.policy_cache(policy, model.weights, 6)
        own = list(model.generate(ids, 11, cache, stop=()))
        same = [a == b for a, b in zip(full, own, strict=True)]
        assert same[0]  # from the pass over the prompt: not counted
        assert row["match"] == np.mean(same[1:])
        assert row["first_divergence"] == (None if all(same) else same.index(False))
        reference, cache = model.new_cache(), experiments.policy_cache(policy, model.weights, 6)
        model.forward([ids, ids], [reference, cache])
        kl = []
        for token in full[:-1]:
            logits = model.forward([[token], [token]], [reference, cache])
            kl.append(float(minikv.kl_divergence(logits[0], logits[1])))
        assert row["kl_mean"] == statistics.fmean(kl)
        assert row["kl_max"] == max(kl) > 0
        assert (row["bytes"], row["full_bytes"]) == (cache.nbytes, reference.nbytes)


def test_the_summary_takes_means_over_prompts_and_keeps_the_worst():
    base = {"policy": "p", "budget": 4, "bits_equal": True, "bytes": 10, "full_bytes": 20}
    good = base | {"match": 1.0, "kl_mean": 0.0, "kl_max": 0.0, "first_divergence": None}
    bad = base | {"match": 0.5, "kl_mean": 1.0, "kl_max": 3.0, "first_divergence": 7}
    (row,) = compare.summary([good, bad | {"bits_equal": False}])
    assert (row["match"], row["worst_match"]) == (0.75, 0.5)
    assert (row["kl_mean"], row["kl_max"]) == (0.5, 3.0)
    assert (row["first_divergence"], row["bits_equal"], row["bytes"]) == (7, False, 10)


@pytest.mark.weights
@pytest.mark.slow
def test_residual_keeps_every_bit_of_a_real_model_and_the_baselines_do_not(smollm2):
    model = minikv.load(smollm2, "exact")
    ids = model.tokenizer.encode(experiments.read_prompts()["letter"])[:96]
    residuals = [f"residual:{kept}" for kept in ("every", "7", "embedding", "tokens")]
    for row in compare.compare(model, {"letter": ids}, [1, 32], 3, [*residuals, *EVICTING[:1]]):
        lossless = row["policy"] in residuals
        assert row["bits_equal"] == lossless, row
        assert (row["kl_max"] == 0.0) == lossless, row
        assert row["match"] == 1.0 or not lossless, row


# --- memory ---------------------------------------------------------------------------------------

# Wide and long enough that arrays outweigh the interpreter's own objects, which tracemalloc counts.
ROOMY = {
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "head_dim": 16,
    "max_position_embeddings": 1024,
}


KEPT = ("every", "2", "5", "embedding")


def watch(turns: int, kept: tuple[str, ...], **family) -> list[dict]:
    """Memory of turns of 80 tokens."""
    rng = np.random.default_rng(0)
    said = [(rng.integers(0, 97, 64).tolist(), rng.integers(0, 97, 16).tolist())] * turns
    settings = ["full", *(f"residual:{checkpoints}@64" for checkpoints in kept)]
    return memory.memory(tiny("float32", **ROOMY | family), said, settings)


@pytest.fixture(scope="module")
def watched() -> list[dict]:
    return watch(10, KEPT)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_peak_of_every_family_is_within_5_percent_of_its_formula(family):
    types = FAMILIES[family].get("layer_types", ()) * 2
    window = 100 if types else None
    for row in watch(6, ("2",), model_type=family, layer_types=types, sliding_window=window):
        if row["turn"] >= 4:
            assert abs(row["peak"] / row["peak_formula"] - 1) < 0.05, row


def test_the_peak_is_within_5_percent_of_its_formula(watched):
    for row in watched:
        if row["turn"] >= 4:  # before, a cache is small beside the interpreter's own objects
            assert abs(row["peak"] / row["peak_formula"] - 1) < 0.05, row


def test_residual_grows_by_its_checkpoints_alone_and_full_by_keys_and_values(watched):
    config = minikv.tiny_config(**ROOMY)
    kept = {"every": 6, "2": 3, "5": 2, "embedding": 1}
    for setting in {row["setting"] for row in watched}:
        rows = [row for row in watched if row["setting"] == setting and row["turn"] >= 2]
        each = config.kv_bytes_per_token()
        if setting != "full":
            checkpoint = kept[setting.removeprefix("residual:").removesuffix("@64")]
            each = checkpoint * config.residual_bytes_per_token()
            # what is allocated, less checkpoints in chunks of 256 tokens, does not grow
            flat = [r["allocated"] - math.ceil(r["tokens"] / 256) * 256 * each for r in rows]
            assert max(flat) - min(flat) < 0.02 * rows[-1]["allocated"] + 10_000, setting
        for before, after in itertools.pairwise(rows):
            assert after["bytes"] - before["bytes"] == 80 * each, setting


def test_accounting_reproduces_the_papers_bytes_at_gemma_3_4b():
    kv, one = memory.shape_bytes("gemma-3-4b", "K/V"), memory.shape_bytes("gemma-3-4b", "embedding")
    assert (kv, one) == (136 * 1024, 5 * 1024)  # the paper's 136 KB and 5 KB
    assert memory.shape_bytes("gemma-3-4b", "every") == 34 * one
    assert memory.shape_bytes("gemma-3-4b", "tokens") == 4
    for megabyte in (10**6, 2**20):
        paper = memory.paper_budget(megabyte)
        assert abs(paper["tokens"] * kv - 103 * megabyte) <= kv / 2
        held = paper["budget"] * kv + paper["tokens"] * one
        assert held <= 42 * megabyte < held + kv
    rows, _ = memory.accounting("gemma-3-4b", [paper["budget"]])
    assert rows[-2]["bytes"] == paper["tokens"] * kv
    assert rows[-1]["bytes"] == held


def test_accounting_counts_as_a_cache_and_a_configuration_do():
    config = minikv.ModelConfig(49152, 576, 1536, 30, 9, 3, 64)
    kv, one = (memory.shape_bytes("smollm-135m", kept) for kept in ("K/V", "embedding"))
    assert kv == config.kv_bytes_per_token("bfloat16")
    assert one == config.residual_bytes_per_token("bfloat16")
    model = tiny("float32")
    kv = memory.shape_bytes(model.config, "K/V")
    for kept in ("every", 2, "embedding"):
        cache = model.new_cache("residual", budget=5, checkpoints=kept)
        model.forward([list(range(9))], [cache])
        assert cache.nbytes == 2 * (5 * kv + 9 * memory.shape_bytes(model.config, kept))  # float32


# --- frontier and latency -------------------------------------------------------------------------


def test_the_frontier_counts_bytes_exactly_and_marks_the_papers_points():
    model = tiny("float32", num_hidden_layers=7)
    rows = {row["checkpoints"]: row for row in frontier(model, evicted=16, repeats=1)}
    residual, kv = 24 * 4, 7 * 2 * 2 * 6 * 4
    expected = {
        "K/V": kv,
        "every": 7 * residual,
        "2": 4 * residual,
        "3": 3 * residual,
        "5": 2 * residual,
        "embedding": residual,
        "tokens": 4,
    }
    assert {name: row["bytes"] for name, row in rows.items()} == expected
    assert rows["K/V"]["recompute_seconds"] == 0.0
    assert all(row["step_seconds"] > 0 for row in rows.values())
    marked = {row["paper"]: row["gemma_bytes"] for row in rows.values() if row["paper"]}
    assert sorted(marked.values()) == [5 * 1024, 136 * 1024]


def test_latency_runs_each_pair_that_fits_and_refuses_none_at_all():
    model = tiny("float32")
    rows = latency.latency(model, [1, 2], [4, 8], repeats=1, most_tokens=8)
    assert [(row["batch"], row["length"]) for row in rows] == [(1, 4), (1, 8), (2, 4)]
    assert all(row["ratio"] > 0 for row in rows)
    with pytest.raises(InputError, match="tokens"):
        latency.latency(model, [3], [4], most_tokens=8)


def test_latency_reads_no_more_of_a_sliding_block_than_its_window(monkeypatch):
    model = tiny(
        "float32", num_hidden_layers=3, model_type="gemma3_text", **FAMILIES["gemma3_text"]
    )
    seen = []

    def watched(q, k, v, query_positions, key_positions, *rest):
        seen.append((int(key_positions[0]), len(k), len(v)))
        return minikv.layers.attention(q, k, v, query_positions, key_positions, *rest)

    monkeypatch.setattr(latency, "attention", watched)
    latency.latency(model, [1], [8], repeats=1)
    assert seen[:3] == [(3, 5, 5), (3, 5, 5), (0, 8, 8)]
    figures = latency.intensity(model.config, 1, 8, 4)
    one_window = latency.intensity(model.config, 1, 5, 4)
    assert figures["read_intensity"] == one_window["read_intensity"]  # a ratio: per token
    assert figures["recompute_intensity"] == round((4 * 24 + 2 * 24 * 24) * 6 / (30 * 24 * 4), 2)


@pytest.mark.parametrize(("kv_heads", "says"), [(2, "could not win"), (8, "could win at most 4")])
def test_the_verdict_reads_the_sign_off_the_rows_and_the_bound_off_the_shape(kv_heads, says):
    config = minikv.tiny_config(num_attention_heads=8, num_key_value_heads=kv_heads)
    slow = {"batch": 1, "length": 4, "ratio": 3.0}
    fast = {"batch": 1, "length": 8, "ratio": 0.5}
    assert "slower everywhere here: 3.0 to 3.0" in latency.verdict(config, [slow])
    assert "faster at batch 1, length 8." in latency.verdict(config, [slow, fast])
    assert says in latency.verdict(config, [slow])


# --- the commands ---------------------------------------------------------------------------------

RUNS = {
    "compare": ["--budgets", "4,8", "--new-tokens", "3", "--policies", "residual:every,window,h2o"],
    "memory": ["--turns", "2", "--reply-tokens", "4", "--settings", "full,residual:tokens@8"],
    "frontier": ["--evicted", "8", "--repeats", "1"],
    "latency": ["--batches", "1,2", "--lengths", "4,8", "--repeats", "1"],
}


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("=== a\nThe cat sat.\n=== b\nOn the mat.\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("command", RUNS)
def test_a_command_prints_a_table_json_and_a_plot(command, tiny, prompts, tmp_path, capsys):
    argv = [command, "--model", str(tiny), *RUNS[command]]
    if command == "compare":
        argv += ["--prompts", str(prompts)]
    assert main(argv) == 0
    table = capsys.readouterr().out
    assert "NumPy" in table  # the machine
    pytest.importorskip("matplotlib", reason="plots need the extra `plots`")
    plot = tmp_path / "plot.png"
    assert main([*argv, "--json", "--plot", str(plot)]) == 0
    printed = capsys.readouterr()
    rows = json.loads(printed.out)["rows"]
    assert set(rows[0]) <= set(table.split())  # the table's columns are the rows' keys
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert printed.err == f"wrote {plot}\n"


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory) -> Path:
    """A random model of each family, with the committed toy's tokenizer."""
    given = json.loads((TINY / "config.json").read_text(encoding="utf-8"))
    config = minikv.tiny_config(
        vocab_size=given["vocab_size"],
        num_hidden_layers=3,
        model_type=request.param,
        max_position_embeddings=512,
        **FAMILIES[request.param],
    )
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    files = {
        name: (TINY / name).read_text(encoding="utf-8") for name in names if (TINY / name).exists()
    }
    path = tmp_path_factory.mktemp("family") / request.param
    return save_folder(path, config, random_tensors(config, 0), files)


@pytest.mark.parametrize("command", RUNS)
def test_a_command_runs_on_every_family(command, folder, prompts, capsys):
    argv = [command, "--model", str(folder), *RUNS[command], "--json"]
    assert main(argv + ["--prompts", str(prompts)] * (command == "compare")) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) >= 2
    if command == "compare":  # exact, so that windows lose nothing that residuals bring back
        assert all(row["bits_equal"] for row in rows if row["policy"].startswith("residual"))


def test_inspect_shows_what_the_family_does_and_what_windows_bound(folder, capsys):
    assert main(["inspect", str(folder)]) == 0
    out = capsys.readouterr().out
    config = minikv.ModelConfig.from_file(folder / "config.json")
    for name, value in vars(config.family).items():
        assert re.search(rf"^{name} +{value}$", out, re.MULTILINE), name
    assert ("of sliding layers" in out) == bool(config.layer_types)
    assert main(["inspect", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["family"] == vars(config.family)
    assert told["parameters"] == sum(tensor["parameters"] for tensor in told["tensors"])


@pytest.mark.parametrize("name", memory.SHAPES)
def test_shapes_need_no_model(name, capsys):
    assert main(["memory", "--shape", name, "--model", "nowhere"]) == 0
    out = capsys.readouterr().out
    assert f"{memory.shape_bytes(name, 'K/V'):,} bytes" in out
    assert ("need" in out) == name.startswith("gemma")  # what sliding layers need


@pytest.mark.parametrize(
    "argv",
    [
        ["compare", "--budgets", "0"],
        ["compare", "--budgets", "4,x"],
        ["compare", "--policies", "lru"],
        ["compare", "--policies", "streaming_llm", "--budgets", "4"],
        ["compare", "--prompts", "missing.txt"],
        ["compare", "--plot", "picture.txt"],
        ["memory", "--shape", "gpt-5"],
        ["memory", "--turns", "21"],
        ["memory", "--budgets", "8"],
        ["memory", "--shape", "gemma-3-4b", "--settings", "full"],
        ["memory", "--settings", "window@-1"],
        ["frontier", "--evicted", "100000"],
        ["latency", "--plot", "no/such/folder.png"],
        ["latency", "--batches", "9000"],
    ],
)
def test_wrong_input_is_refused_in_one_line(argv, tiny, capsys):
    if "--plot" in argv:
        pytest.importorskip("matplotlib", reason="plots need the extra `plots`")
    assert main([*argv, "--model", str(tiny)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("minikv: error: ")
    assert err.count("\n") == 1
