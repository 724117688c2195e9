"""What conform finds in decoders with planted faults, and in clean ones: the counts.

    python -m tests.conform.evidence faults --dtype bfloat16 --seed 2
    python -m tests.conform.evidence weak
    python -m tests.conform.evidence clean --dtype float32 --count 1000
    python -m tests.conform.evidence real --dtype float16          # SmolLM2, faults planted in it
    python -m tests.conform.evidence real-clean --dtype bfloat16   # SmolLM2 as it is
    python -m tests.conform.evidence speed                         # how long --quick takes
    python -m tests.conform.evidence ... --keep     # in figures/counts.json, for docs/conform.md
    python -m tests.conform.evidence take --counts FILE   # what another copy of that file has

A fault counts as found if the run with the twin in float64 says so. Without a twin it may be
undecided, but it must not be called rounding where its effect is above what the line says it sees.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minikv.conform import Report, Word, conform
from minikv.conform.rule import SPREADS
from minikv.conform.run import TWIN
from minikv.weights import resolve
from tests.conform.faults import FAULTS, faults_of
from tests.conform.zoo import SHAPES, Decoder, decoder

FIGURES = Path(__file__).parent / "figures" / "counts.json"
HELD_OUT = {"layers": 3, "width": 64, "gain": 1.3, "vocab": 61}
WEAK = ("pos_plus1", "pos_reset", "rerotate", "base_cached", "gqa_tile_k", "gqa_tile")
WEAK += ("scale_cached", "mask_own_chunk", "drop_boundary", "overwrite", "own_row_hidden")
WEAK += ("trunc_pos", "stale_truncate", "pad_seen_cached", "merge_pos", "softmax_extra")
WEAK_WINDOWED = ("window_plus1", "pos_kept", "sink_lost")
OF_STATE = ("nondet", "stateful", "stale_global", "stop_stale")
NAMED = 90  # percent of faults whose kind must be right
GOOD = (Word.SAME, Word.ROUNDING, Word.TIE)

TWO_LAYERS = "tests/fixtures/tiny"
REAL = "smollm2-135m-instruct"
REAL_TOKENS = 12  # of a text
REAL_LAYERS = 16  # of 30: what the twelfth makes is massive
REAL_FAULTS = {
    "pos_reset": "cached",
    "pos_plus1": "cached",
    "mask_own_chunk": "cached",
    "own_row_hidden": "cached",
    "scale_cached": "cached",
    "gqa_tile_k": "cached",
    "kv_float16": "cached",
    "kv_int8": "cached",
    "narrow_values": "cached",
    "narrow_values_uncached": "cached",
    "chunk_open": "cached-causality",
    "future_uncached": "causality",
    "trunc_off1": "truncate",
    "fork_shared": "fork",
    "pad_seen": "left-padding",
    "merge_pos": "left-padding-cached",
    "prefix_off1": "warm-prefix",
    "value_residual": "projection",
}
"""Faults in real weights, and the axis that is to find each: all of them would take hours."""

REAL_AXES = (*dict.fromkeys(REAL_FAULTS.values()), "length")


@dataclass(frozen=True)
class Found:
    """One decoder with one fault, judged with and without the twin."""

    decoder: str
    fault: str
    dtype: str
    with_twin: bool
    by_exact: bool
    words: dict[str, str] = field(default_factory=dict)  # without the twin, by axis
    blind: list[str] = field(default_factory=list)  # called good, with an effect that it would see
    asked: bool = True  # for the kind
    kind: str = ""
    reproduced: bool = False

    @property
    def named(self) -> bool:
        """Whether the kind is right."""
        return self.kind == FAULTS[self.fault].kind

    @property
    def without_twin(self) -> str:
        """bug, undecided or nothing, without the twin."""
        if Word.BUG in self.words.values():
            return "bug"
        return "undecided" if Word.UNDECIDED in self.words.values() else "nothing"


def shape_of(name: str, seed: int) -> dict[str, Any]:
    """The shape of a decoder; from seed 2 on another than the one that clues were written on."""
    if seed < 2:
        return {}
    shape = dict(HELD_OUT)
    shape["groups"] = 4 if name.startswith("gpt") else 2
    if "window" in SHAPES[name]:
        shape["window"] = 13
    return shape


def judge(name: str, fault: str, dtype: str, seed: int, **changes: Any) -> Found:
    """Run a faulty decoder of the zoo with and without its twin."""

    def make() -> Decoder:
        return decoder(name, seed, dtype, faults=(fault,), **shape_of(name, seed), **changes)

    return found_in(make, fault, name, seed=seed)


def judge_real(fault: str, dtype: str) -> Found:
    """Run the decoder with real weights, and a fault, on the axis that is to find it."""
    from tests.conform.real import real_decoder

    def make() -> Decoder:
        return real_decoder(resolve(REAL), dtype, (fault,), REAL_LAYERS)

    settings = {"effort": "quick", "length": REAL_TOKENS, "axes": [REAL_FAULTS[fault]]}
    return found_in(make, fault, REAL, kinds=False, **settings)


def found_in(
    make: Callable[[], Decoder], fault: str, name: str, kinds: bool = True, **settings: Any
) -> Found:
    """What is found with and without the twin."""
    report = conform(make(), shrink=False, kinds=kinds, **settings)
    alone = conform(make(), twin="none", shrink=False, kinds=False, **settings)
    kind = next((bug.kind for bug in report.bugs if bug.kind), None)
    return Found(
        name,
        fault,
        report.dtype,
        bool(report.bugs),
        any("must not see" in bug.evidence for bug in report.bugs),
        {verdict.axis: verdict.word for verdict in alone.verdicts},
        blind_spots(fault, report, alone),
        kinds,
        kind.name if kind else "",
        bool(kind and kind.reproduced),
    )


def blind_spots(fault: str, report: Report, alone: Report) -> list[str]:
    """Axes called good without the twin, whose effect is above what they say they would see.

    Not of faults whose effect depends on which calls came before: those of two runs differ.
    """
    found: list[str] = []
    if fault in OF_STATE:
        return found
    for bug in report.bugs:
        verdict = next((one for one in alone.verdicts if one.axis == bug.axis), None)
        if verdict is None or verdict.word not in GOOD or not bug.effect:
            continue
        if bug.effect > max(verdict.sight, 0.0) * (1 + 1 / SPREADS):
            found.append(f"{bug.axis} {bug.effect:.1e} > {verdict.sight:.1e}")
    return found


def cases(dtype: str, only: str | None, once: bool) -> Iterator[tuple[str, str]]:
    """Every fault in every decoder that it applies to; or once, in these in turn."""
    names = [name for name in SHAPES if not only or name in only.split(",")]
    done: set[str] = set()
    for turn, fault in enumerate(FAULTS):
        order = names[turn % len(names) :] + names[: turn % len(names)]
        for name in order:
            if fault in faults_of(name, dtype) and not (once and fault in done):
                done.add(fault)
                yield name, fault


def faulty(dtype: str, seed: int, only: str | None, once: bool) -> Iterator[Found]:
    """What is found in each case."""
    for name, fault in cases(dtype, only, once):
        found = judge(name, fault, dtype, seed)
        print_one(found)
        yield found


def print_one(one: Found) -> None:
    """A line for whatever is not as it should be."""
    where = f"{one.decoder} {one.dtype} {one.fault}"
    if not one.with_twin:
        print(f"  MISSED     {where}", flush=True)
    elif one.asked and not one.named:
        expected = FAULTS[one.fault].kind
        print(f"  misnamed   {where}: {one.kind!r}, expected {expected!r}", flush=True)
    for blind in one.blind:
        print(f"  BLIND      {where}: {blind}", flush=True)


def figures_of(found: list[Found], title: str) -> dict[str, Any]:
    """The counts of a run."""
    kinds = {
        "kind right": sum(one.named for one in found),
        "percent of kinds right": round(100 * sum(one.named for one in found) / len(found), 1),
        "kind reproduced": sum(one.reproduced for one in found),
    }
    return {
        "run": title,
        "decoder x fault": len(found),
        "found with twin": sum(one.with_twin for one in found),
        "by exact relations": sum(one.by_exact for one in found),
        **(kinds if all(one.asked for one in found) else {}),
        **{
            f"without twin: {word}": sum(one.without_twin == word for one in found)
            for word in ("bug", "undecided", "nothing")
        },
        "called good above its sight": sum(bool(one.blind) for one in found),
    }


def clean_shape(seed: int) -> tuple[str, dict[str, Any]]:
    """A random shape of one of the decoders, in turn."""
    random = np.random.default_rng(10**6 + seed)
    name = list(SHAPES)[seed % len(SHAPES)]
    shape: dict[str, Any] = {
        "layers": int(random.integers(1, 5)),
        "width": int(random.choice([16, 32, 64])),
        "groups": int(random.choice([1, 2, 4])),
        "gain": float(random.uniform(0.5, 2.0)),
        "vocab": int(random.choice([17, 40, 100])),
    }
    if "window" in SHAPES[name]:
        shape["window"] = int(random.integers(2, 40))
    return name, shape


def clean(dtype: str, twin: str, first: int, count: int) -> dict[str, Any]:
    """Clean decoders: how many runs had a false alarm, and how many an undecided axis."""
    figures: dict[str, Any] = {"dtype": dtype, "twin": twin, "first": first, "models": count}
    figures |= {"false alarms": 0, "undecided": 0}
    for seed in range(first, first + count):
        name, shape = clean_shape(seed)
        made = decoder(name, seed, dtype, **shape)
        report = conform(made, seed=seed, twin=twin, length=40, effort="quick", shrink=False)
        figures["false alarms"] += bool(report.bugs)
        words = [verdict.word for verdict in report.verdicts]
        figures["undecided"] += Word.UNDECIDED in words
        for bug in report.bugs:
            print(f"  FALSE ALARM {name} {dtype} seed {seed} twin {twin}: {bug.axis}")
            print(f"    {bug.evidence}")
        for what, value in report.measured.items():
            figures[what] = max(figures.get(what, 0.0), float(value))
    return figures


def take(path: Path) -> None:
    """Take the runs of another file: new ones, and those over more models or cases."""
    known = json.loads(FIGURES.read_text(encoding="utf-8"))
    for key, run in json.loads(path.read_text(encoding="utf-8")).items():
        if size_of(run) > size_of(known.get(key, {})):
            known[key] = run
    FIGURES.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def size_of(run: dict[str, Any]) -> int:
    """How many models, cases or axes a run had."""
    return int(run.get("models", run.get("decoder x fault", run.get("axes", 0))))


def clean_real(dtype: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Real weights without a fault, in the zoo and in transformers, with a twin and without."""
    from minikv.conform.targets import find_target
    from tests.conform.real import real_decoder

    makers: dict[str, Callable[[], object]] = {
        "the zoo": lambda: real_decoder(resolve(REAL), dtype)
    }
    for attention in ("sdpa", "eager"):
        makers[f"transformers {attention}"] = lambda words=f"{dtype},{attention}": find_target(
            f"transformers:{REAL}", words
        )
    for name, make in makers.items():
        for twin in ("wide", "none"):
            report = conform(
                make(), REAL_AXES, twin=twin, effort="quick", length=REAL_TOKENS, shrink=False
            )
            title = f"{dtype}, {REAL} in {name}"
            yield f"clean {title} {twin}", figures_of_clean(report, title, twin)


def speed() -> Iterator[tuple[str, dict[str, Any]]]:
    """How long a quick run takes: of a model of two layers, and of a real one in transformers."""
    from minikv.conform.targets import find_target

    for target in (f"minikv:{TWO_LAYERS}", f"transformers:{REAL}"):
        begun = time.process_time()
        by_the_clock = time.monotonic()
        report = conform(find_target(target), effort="quick")
        tested = [one for one in report.verdicts if one.word is not Word.NOT_TESTED]
        yield (
            f"speed {target}",
            {
                "quick run": target,
                "axes": len(tested),
                "exit code": report.exit_code,
                "twin": report.twin,
                "processor time": round(time.process_time() - begun, 1),
                "by the clock": round(time.monotonic() - by_the_clock, 1),
            },
        )


def figures_of_clean(report: Report, title: str, twin: str) -> dict[str, Any]:
    """The counts of one clean target; a fault of its float64 path alone is no false alarm."""
    for bug in report.bugs:
        print(f"  ALARM {title} twin {twin}: {bug.axis}: {bug.evidence}", flush=True)
    words = [verdict.word for verdict in report.verdicts]
    return {
        "dtype": title,
        "twin": twin,
        "first": 0,
        "models": 1,
        "false alarms": int(any(bug.axis != TWIN for bug in report.bugs)),
        "undecided": int(Word.UNDECIDED in words),
        **{what: float(value) for what, value in report.measured.items()},
    }


def added(before: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Two runs over clean models that follow each other, as one."""
    if not before or before["first"] + before["models"] != more["first"]:
        return more
    both = dict(more) | {"first": before["first"]}
    for what in ("models", "false alarms", "undecided"):
        both[what] = before[what] + more[what]
    for what, value in before.items():
        if isinstance(value, float):
            both[what] = max(value, more.get(what, 0.0))
    return both


def kept(key: str, figures: dict[str, Any]) -> None:
    """Write figures into the file that the table is made from, with the day."""
    known = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    if "models" in figures:
        figures = added(known.get(key, {}), figures)
    known[key] = figures | {"date": str(datetime.date.today())}
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def real(dtype: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Faults in real weights: the counts so far, after each of them."""
    found = []
    title = f"{dtype}, the first {REAL_LAYERS} layers of {REAL}, each on its axis"
    for fault in REAL_FAULTS:
        if dtype not in FAULTS[fault].no_fault_in:
            found.append(judge_real(fault, dtype))
            print_one(found[-1])
            yield f"faults {title}", figures_of(found, title)


def weak() -> Iterator[dict[str, Any]]:
    """Faults under weak attention, whose effects are small."""
    for gain in (0.25, 0.5):
        for dtype in ("float32", "bfloat16", "float16"):
            pairs = [("llama-numpy", fault) for fault in WEAK]
            pairs += [("evict-numpy", fault) for fault in WEAK_WINDOWED]
            judged = [judge(name, fault, dtype, 1, gain=gain) for name, fault in pairs]
            for one in judged:
                print_one(one)
            yield figures_of(judged, f"weak attention, gain {gain}, {dtype}")


WHAT = ("faults", "weak", "clean", "real", "real-clean", "speed", "take")


def main(argv: list[str] | None = None) -> int:
    """Print the counts that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="decoders of the zoo, with commas between them")
    parser.add_argument("--once", action="store_true", help="each fault in one decoder")
    parser.add_argument("--twin", default="wide", choices=["wide", "noise", "none"])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--keep", action="store_true", help="in figures/counts.json")
    parser.add_argument("--counts", metavar="FILE", help="a counts.json of another copy")
    options = parser.parse_args(argv)
    if options.what == "take":
        take(Path(options.counts))
        return 0
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    begun = time.process_time()
    failed = False
    for key, figures in runs(options):
        print(json.dumps(figures), flush=True)
        failed = failed or is_bad(figures)
        if options.keep:
            kept(key, figures)
    print(f"{time.process_time() - begun:.0f} s of processor time")
    return int(failed)


def runs(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is asked for, with a name for each; clean models by the fifty."""
    if options.what == "faults":
        found = list(faulty(options.dtype, options.seed, options.only, options.once))
        title = f"{options.dtype}, seed {options.seed}"
        if options.once:
            title += ", each fault once"
        if options.only:
            title += f", {options.only}"
        yield f"faults {title}", figures_of(found, title)
    elif options.what == "weak":
        for figures in weak():
            yield f"faults {figures['run']}", figures
    elif options.what == "real":
        yield from real(options.dtype)
    elif options.what == "real-clean":
        yield from clean_real(options.dtype)
    elif options.what == "speed":
        yield from speed()
    else:
        for first in range(options.first, options.first + options.count, 50):
            count = min(50, options.first + options.count - first)
            key = f"clean {options.dtype} {options.twin}"
            yield key, clean(options.dtype, options.twin, first, count)


def is_bad(figures: dict[str, Any]) -> bool:
    """Whether a fault was missed or too few were named, or there was a false alarm, or such.

    Such are: one was called good above its sight, or a quick run of a clean model was not clean.
    """
    if "quick run" in figures:
        return bool(figures["exit code"])
    if "models" in figures:
        return figures["false alarms"] > 0
    missed = figures["found with twin"] < figures["decoder x fault"]
    misnamed = figures.get("percent of kinds right", NAMED) < NAMED
    return missed or misnamed or figures["called good above its sight"] > 0


if __name__ == "__main__":
    sys.exit(main())
