"""Change one constant or operation of the concrete decoder at a time: does the comparison notice?

::

    python proofs/extracted/decoder_mutants.py             # all; about ten minutes
    python proofs/extracted/decoder_mutants.py --some 5    # every fifth
    python proofs/extracted/decoder_mutants.py --write     # all, recorded in mutants.md

Each change is made in ``proofs/rocq/Decoder.v``, extracted and compiled, and run on random models
of all families, some with zeros of both signs, subnormals and great numbers, and on arguments of
the elementary functions. Exit code 1 if one is noticed or not against what is said of it here.
"""

from __future__ import annotations

import argparse
import datetime
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import run
from decoder_cases import random_case

SEEDS = (0, 1, 2, 3, 4, 5, 7, 8, 9, 11, 14, 24)  # two models and more of each family
SPECIAL = (3, 5, 9, 12, 17, 14, 31, 43, 57)
DOUBTED = "GridOrder.grid_is_total: a machine may ask `total` as often as it likes"
SCALED = "a power of two scales without rounding, before a division or after"
ZERO = "exp takes a score of -0.0 as it takes +0.0"


@dataclass(frozen=True)
class Mutant:
    """One change; `equal` says why, where it cannot be noticed."""

    name: str
    old: str
    new: str
    equal: str = ""


MUTANTS = (
    Mutant("power_below, factor", "y * 0x1.0000000000001p52", "y * 0x1p52"),
    Mutant("power_below, last place", "q * 0x1.fffffffffffffp-1", "q * 0x1.ffffffffffffep-1"),
    Mutant("ROUND", "0x1.8p52", "0x1.8p51"),
    Mutant("narrow, last place", "power_below size * 0x1p-23", "power_below size * 0x1p-22"),
    Mutant("narrow, subnormals", "(if g <? 0x1p-149 then 0x1p-149 else g)", "g"),
    Mutant("narrow, overflow", "if 0x1p128 <=? y then", "if 0x1p129 <=? y then"),
    Mutant(
        "narrow, zeros", "if x =? 0 then x else\n  let size", "if x =? 0 then 0 else\n  let size"
    ),
    Mutant("narrow, sign", "if x <? 0 then - y else y.\n\n(** * Sums", "y.\n\n(** * Sums"),
    Mutant(
        "loops, order",
        "fold_left add xs 0.",
        "fold_left add (rev xs) 0.",
        "Machines.logits_same: no order of the additions shows",
    ),
    Mutant(
        "settle, grid",
        "power_below (top x) * 0x1p-23 in map",
        "power_below (top x) * 0x1p-22 in map",
    ),
    Mutant("weight, finer", "0x1p-20)) w", "0x1p-21)) w"),
    Mutant("weight, coarser", "0x1p-20)) w", "0x1p-19)) w"),
    Mutant("exp, lowest", "clip (-190976)", "clip (-190720)"),
    Mutant("exp, highest", "0x1.62e4395810625p+17", "0x1.62e4p+17"),
    Mutant("exp, steps", "(x * 256)", "(x * 255)"),
    Mutant("exp, row of the table", "- 127.5", "- 127"),
    Mutant("exp, f^4", "0x1.5555555555555p-37", "0x1.5554555555555p-37"),
    Mutant("exp, f^3", "0x1.55555aaaaaaaap-27", "0x1.55555aabaaaaap-27"),
    Mutant("exp, f^2", "+ 0x1p-17) * f in", "+ 0x1.0000000001p-17) * f in"),
    Mutant("exp, f", "0x1.ffffffffffeabp-9", "0x1.ffffffffffeacp-9"),
    Mutant(
        "exp, last addition", "* f * power + power.", "* f * power + power * 1.0000000000000002."
    ),
    Mutant("2/pi", "0x1.45f306dc9c883p-1", "0x1.45f307p-1"),
    Mutant("pi/2, part 1", "0x1.921fb544p+0", "0x1.921fb545p+0"),
    Mutant("pi/2, part 2", "0x1.0b4611a6p-34", "0x1.0b4611a7p-34"),
    Mutant("pi/2, part 3", "0x1.3198a2ep-69", "0x1.3198a2fp-69"),
    Mutant("pi/2, part 4", "0x1.b839a252049c1p-104", "0x1.b839a252049c1p-105"),
    Mutant("sin, r^17", "0x1.952c77030ad4ap-49", "0x1.152c77030ad4ap-49"),
    Mutant("sin, r^15", "-0x1.ae7f3e733b81fp-41", "-0x1.af7f3e733b81fp-41"),
    Mutant("sin, r^13", "0x1.6124613a86d09p-33", "0x1.6125613a86d09p-33"),
    Mutant("sin, r^11", "-0x1.ae64567f544e4p-26", "-0x1.ae64577f544e4p-26"),
    Mutant("sin, r^9", "0x1.71de3a556c734p-19", "0x1.71de3a566c734p-19"),
    Mutant("sin, r^7", "-0x1.a01a01a01a01ap-13", "-0x1.a01a01a01b01ap-13"),
    Mutant("sin, r^5", "0x1.1111111111111p-7", "0x1.1111111111211p-7"),
    Mutant("sin, r^3, last place", "-0x1.5555555555555p-3", "-0x1.5555555555556p-3"),
    Mutant("cos, r^18", "-0x1.6827863b97d97p-53", "-0x1.0827863b97d97p-50"),
    Mutant("cos, r^16", "0x1.ae7f3e733b81fp-45", "0x1.0e7f3e733b81fp-45"),
    Mutant("cos, r^14", "-0x1.93974a8c07c9dp-37", "-0x1.93a74a8c07c9dp-37"),
    Mutant("cos, r^12", "0x1.1eed8eff8d898p-29", "0x1.1eed9eff8d898p-29"),
    Mutant("cos, r^10", "-0x1.27e4fb7789f5cp-22", "-0x1.27e4fb8789f5cp-22"),
    Mutant("cos, r^8", "0x1.a01a01a01a01ap-16", "0x1.a01a01a01b01ap-16"),
    Mutant("cos, r^6", "-0x1.6c16c16c16c17p-10", "-0x1.6c16c16c16d17p-10"),
    Mutant("cos, r^4, last place", "0x1.5555555555555p-5", "0x1.5555555555556p-5"),
    Mutant("quarter turns", "n * 0.25 - 0.375", "n * 0.25 - 0.25"),
    Mutant("sin, sign", "if 2 <=? turn then", "if 3 <=? turn then"),
    Mutant("cos, sign", "(turn =? 1) || (turn =? 2) then", "(turn =? 1) || (turn =? 3) then"),
    Mutant("rope, angles", "narrow (of_nat p * f)", "of_nat p * f"),
    Mutant(
        "rope, direction",
        "map (fun a => - sin a) angles ++ map sin angles",
        "map sin angles ++ map (fun a => - sin a) angles",
    ),
    Mutant("gated, sigmoid", "(exp (exp_table c) (- y) + 1)", "(exp (exp_table c) (- y) + 2)"),
    Mutant("gelu, cubic term", "0x1.6e4e26d4801f7p-5", "0x1.6e4e36d4801f7p-5"),
    Mutant("gelu, factor", "0x1.9884533d43651p+0", "0x1.988454p+0"),
    Mutant("add_rows", "narrow (x + y)) x y.", "x + y) x y."),
    Mutant("total, without scale", "power_below (total size * scale)", "power_below (total size)"),
    Mutant("grid, doubting more", "0x1.fffffff0p-2", "0x1p-3", DOUBTED),
    Mutant("grid, factor", "else power) * 2.", "else power) * 1."),
    Mutant("bits32", "0x1.008p-32", "0x1.008p-31"),
    Mutant("bits32, margin", "0x1.008p-32", "0x1p-32"),
    Mutant("bits29", "0x1.008p-29", "0x1.008p-28"),
    Mutant("linear, sign of zero", "narrow (dot M x w) + 0", "narrow (dot M x w)"),
    Mutant("mean_square, grid", "0x1p-32 in\n    sum", "0x1p-31 in\n    sum"),
    Mutant("mean_square, mean", "/ of_nat (length x)", "/ of_nat (S (length x))"),
    Mutant("rms_norm, eps", "mean_square x + rms_norm_eps c", "mean_square x + 0 * rms_norm_eps c"),
    Mutant("rms_norm, weight", "x / scale * w", "x / scale"),
    Mutant(
        "attend, scale", "(1 / sqrt (query_pre_attn_scalar c))", "(1 / query_pre_attn_scalar c)"
    ),
    Mutant("attend, sign of zero", "dot M q k + 0", "dot M q k", ZERO),
    Mutant("attend, maximum", "let m := largest scores", "let m := hd 0 scores"),
    Mutant("attend, softmax's grid", "to_grid (pattern_grid c)", "to_grid (2 * pattern_grid c)"),
    Mutant("attend, order", "e / denominator * power", "e * power / denominator", SCALED),
    Mutant("attend, unscaled", "to_grid g p * (1 / power)", "to_grid g p"),
    Mutant(
        "attend, sign of zeros",
        "narrow (dot M pattern column) + 0",
        "narrow (dot M pattern column)",
        "`linear`, which comes next, rounds -0.0 to +0.0",
    ),
    Mutant("keys, norm", "(rms_norm (k_norm b) k)", "k"),
    Mutant("queries, norm", "(rms_norm (q_norm b) q)", "q"),
    Mutant("values, settled", "settle v)) ks vs", "v)) ks vs"),
    Mutant("values, bias", "project (v_proj b) (v_bias b)", "project (v_proj b) (k_bias b)"),
    Mutant("window", "length seen - w", "length seen - S w"),
    Mutant("groups", "nth j e", "nth 0 e"),
    Mutant(
        "norm after attention",
        "rms_norm (post_attention_layernorm b) (linear",
        "rms_norm None (linear",
    ),
    Mutant(
        "norm after the MLP",
        "rms_norm (post_feedforward_layernorm b) (linear",
        "rms_norm None (linear",
    ),
    Mutant("norm offset", "map (fun x => x + offset) w", "w"),
    Mutant("embedding scale", "narrow (x * scale)", "x * scale"),
)


def arguments() -> dict[str, np.ndarray]:
    """Of narrow, exp, sin and cos: random, at edges, and where a last place shows."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 50_000, dtype=np.uint32).view(np.float32)
    single = bits[np.isfinite(bits)].astype(np.float64)
    beside = np.nextafter(single.astype(np.float32), np.float32(0)).astype(np.float64)
    ties = (single + beside) / 2
    edges = [0.0, np.inf, 2.0**-149, 2.0**-150, 2.0**128 - 2.0**103, 2.0**128, 1e308, 5e-324]
    edges = np.array([*edges, *(-x for x in edges)])
    wide = rng.uniform(-(2.0**20), 2.0**20, 100_000)
    quarters = np.arange(-20_000, 20_000) * (np.pi / 2)
    near = rng.uniform(-np.pi / 4, np.pi / 4, 200_000)
    between = np.arange(-800 * 512, 720 * 512, 7) / 512
    exponents = [rng.uniform(-800, 720, 50_000), rng.normal(0, 3, 100_000), between, edges]
    angles = np.concatenate([wide, quarters, near, [0.0, -0.0]])
    return {
        "narrow": np.concatenate([single, ties, np.nextafter(ties, 0), edges]),
        "exp": np.concatenate(exponents),
        "sin": angles,
        "cos": angles,
    }


class Comparison:
    """Everything a mutant is compared on; dumps, and what Python computes, are made once."""

    def __init__(self, folder: Path) -> None:
        cases = [random_case(seed) for seed in SEEDS]
        cases += [random_case(seed, special=True) for seed in SPECIAL]
        self.runs = []
        for index, case in enumerate(cases):
            dumped = folder / f"{index}.dump"
            bits = case.model.arithmetic.denominator_bits
            run.dump(dumped, case.config, case.tensors, case.ids, bits)
            self.runs.append((dumped, self._prepared(case, run.modes(case)[1:3])))
        wanted = []
        for name, values in arguments().items():
            path = folder / name
            values.astype("<f8").tofile(path)
            wanted.append(f"{name}={path}")
        self.runs.append((self.runs[0][0], self._prepared(cases[0], wanted)))

    @staticmethod
    def _prepared(case: run.Case, modes: list[str]) -> dict[str, np.ndarray]:
        with np.errstate(all="ignore"):
            return {
                mode: np.concatenate(
                    [array.astype("<f8").reshape(-1) for _, array in run.expected(case, mode)]
                )
                for mode in modes
            }

    def differ(self, executable: Path, out: Path) -> tuple[int, int]:
        """How many numbers differ from Python's, and how many were compared, until some do."""
        compared = 0
        for dumped, wanted in self.runs:
            ours = np.concatenate(list(wanted.values()))
            command = [executable, dumped, out, *wanted]
            done = subprocess.run(command, capture_output=True, text=True)
            theirs = np.fromfile(out, dtype="<f8") if done.returncode == 0 else ours[:0]
            compared += ours.size
            if theirs.size != ours.size:
                return ours.size, compared
            unequal = int((theirs.view("<i8") != ours.view("<i8")).sum())
            if unequal:
                return unequal, compared
        return 0, compared


def mutated(mutant: Mutant) -> str:
    """Decoder.v with the change.

    Raises
    ------
    run.CannotRun
        If what is to change is not there exactly once.
    """
    text = (run.ROCQ / "Decoder.v").read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise run.CannotRun(
            f"{mutant.name}: Decoder.v has {mutant.old!r} {text.count(mutant.old)} times, "
            "expected once; change decoder_mutants.py with it"
        )
    return text.replace(mutant.old, mutant.new)


def outcomes(mutants: tuple[Mutant, ...]) -> Iterator[tuple[Mutant, int, int]]:
    """Each mutant, how many numbers differ, and how many were compared to see it."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        folder = Path(scratch)
        comparison = Comparison(folder)
        theories = folder / "theories"
        theories.mkdir()
        for path in run.THEORIES:
            shutil.copy(path, theories)
        run.compile_theories(theories, ["Lists.v", "Markov.v"])
        for mutant in (
            Mutant("none", "Open Scope float_scope", "Open Scope float_scope"),
            *mutants,
        ):
            (theories / "Decoder.v").write_text(mutated(mutant), encoding="utf-8")
            run.compile_theories(theories, [path.name for path in run.THEORIES[1:]])
            built = folder / "built"
            shutil.rmtree(built, ignore_errors=True)
            built.mkdir()
            yield mutant, *comparison.differ(run.build(built, theories), folder / "out")


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--some", type=int, default=1, metavar="N", help="every N-th mutant")
    parser.add_argument("--write", action="store_true", help="record all in mutants.md")
    args = parser.parse_args(arguments)
    if args.write and args.some != 1:
        parser.error("--write records all: leave out --some")
    rows = []
    wrong = 0
    noticed = 0
    for mutant, differ, compared in outcomes(MUTANTS[:: args.some]):
        if mutant.name == "none":
            if differ:
                print(f"unchanged, {differ:,} of {compared:,} numbers differ", file=sys.stderr)
                return 1
            print(f"unchanged: {compared:,} numbers compared, none differ", flush=True)
            rows.append(f"Unchanged, {compared:,} numbers are compared and none differs.\n")
            continue
        verdict = f"{differ:,} of {compared:,}" if differ else "equal"
        expected = bool(differ) == (not mutant.equal)
        wrong += not expected
        noticed += bool(differ)
        note = "" if expected else "  NOT AS EXPECTED"
        print(f"{mutant.name}: {verdict} {mutant.equal}{note}", flush=True)
        rows.append(f"| {mutant.name} | {verdict} | {mutant.equal} |")
    total = len(MUTANTS[:: args.some])
    print(f"{noticed} of {total} noticed, {total - noticed} equal, {wrong} not as expected")
    if args.write:
        head = (
            "# The concrete decoder, one change at a time\n\n"
            f"Made by `decoder_mutants.py --write` on {datetime.date.today()}. "
        )
        table = "\n| changed | numbers that differ | why none does |\n|---|---|---|\n"
        text = head + rows[0] + table + "\n".join(rows[1:])
        text += f"\n\n{noticed} of {total} noticed; the others are equal for the reasons given.\n"
        (run.HERE / "mutants.md").write_text(text, encoding="utf-8")
    return int(wrong > 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except run.CannotRun as error:
        print(error, file=sys.stderr)
        sys.exit(2)
