"""The theorems of the atlas as a section of its page: statements, proofs, and where each is shown.

A name that is not where it is said to be is an error: a lemma, a check, a test, a fault.
"""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

from minikv.atlas.theorems import THEOREMS
from minikv.verify.cases import Case
from minikv.verify.theorem import Theorem

ROOT = Path(__file__).resolve().parents[1]
ROCQ = ROOT / "proofs" / "rocq"
TESTS = ROOT / "tests" / "atlas"
FAULTS = TESTS / "theorem_faults.toml"
CERTIFIED = ROOT / "docs" / "experiments" / "certified.json"
INTRODUCTION = """\
## Six theorems

What systems do to a cache, as theorems, written like T1 to T12 of the
[proofs](../proofs/README.md). They are about any decoder that is causal and whose blocks read the
stream alone, or about any attention, and proved so in [Rocq](../proofs/rocq/README.md); A3 to A5,
and A1 in bits, also of the decoder that is written there operation by operation. Each has a check,
which runs on random models and on SmolLM2, a control that must find a difference, and faults that
the check notices. `python -m pytest tests/atlas -k A1` runs the tests of one.
"""
HEAD = """\
| theorem | statement | Rocq | check | random models | SmolLM2 | control | faults |
|---|---|---|---|---|---|---|---|"""
PROPERTY = ("test_atlas_theorems.py", "test_a_theorem_of_the_atlas_holds")
CONTROL = ("test_atlas_theorems.py", "test_a_control_of_the_atlas_finds_a_difference")
KNOWN = ROOT / "minikv" / "atlas" / "known_bounds.py"
BOUNDED = ("test_known_bounds.py", "test_no_lead_moves_further_than_its_bound")
NEARLY = (
    "test_known_bounds.py",
    "test_a_lead_of_a_narrow_model_moves_by_nine_tenths_of_its_bound",
)
NOTICED = ("test_atlas_theorems.py", "test_a_theorem_of_the_atlas_notices_the_fault")
WEIGHTS = (
    "test_real_weights_atlas.py",
    "test_a_theorem_of_the_atlas_holds_on_real_weights",
)
WEIGHTS_CONTROL = (
    "test_real_weights_atlas.py",
    "test_a_control_of_the_atlas_makes_a_difference_on_real_weights",
)


def linked(text: str, path: Path, pattern: str) -> str:
    """A link to a file with a line in it that a pattern finds; `SystemExit` if none does."""
    if not path.is_file() or not re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE):
        raise SystemExit(f"{path.relative_to(ROOT)} has no {pattern!r}: docs/atlas_theorems.py")
    return f"[{text}](../{path.relative_to(ROOT).as_posix()})"


def by_test(where: tuple[str, str]) -> str:
    """A link to a test of the atlas."""
    file, name = where
    return linked(f"`{name}`", TESTS / file, rf"^def {name}\(")


def stated(file: str, theorem: str) -> str:
    """A link to a file of ``proofs/rocq`` that states a theorem."""
    pattern = rf"^\s*(Theorem|Corollary|Lemma|Example) {theorem}\b"
    return linked(f"`{file}.v`", ROCQ / f"{file}.v", pattern)


def by_file(names: Sequence[str]) -> str:
    """Rocq theorems ``File.name``, those of a file together, behind a link to it."""
    groups: dict[str, list[str]] = {}
    for name in names:
        file, _, theorem = name.partition(".")
        groups.setdefault(stated(file, theorem), []).append(f"`{theorem}`")
    return "; ".join(f"{link}: {', '.join(theorems)}" for link, theorems in groups.items())


def lemmas(theorem: Theorem[Case]) -> list[str]:
    """What README of ``proofs/rocq`` lists under it; `SystemExit` where its own is missing."""
    readme = (ROCQ / "README.md").read_text(encoding="utf-8")
    rows = re.findall(rf"^\| {theorem.id} \|([^|]*)\|", readme, re.MULTILINE)
    names = re.findall(r"`(\w+\.[\w']+)`", "".join(rows))
    for name in (theorem.abstract, *theorem.concrete):
        if name not in names:
            raise SystemExit(f"proofs/rocq/README.md does not list {name} under {theorem.id}")
    return names


def faults(theorem: Theorem[Case]) -> str:
    """How many faults its check notices, and the test that plants them."""
    found = tomllib.loads(FAULTS.read_text(encoding="utf-8"))
    count = sum(fault["theorem"] == theorem.id for fault in found.values())
    listed = linked(f"{count}", FAULTS, rf'^theorem = "{theorem.id}"')
    return f"{listed}: {by_test(NOTICED)}"


def row(theorem: Theorem[Case]) -> str:
    """A line of the table."""
    file = Path(inspect.getfile(theorem.check))
    cells = [
        f"[{theorem.id} {theorem.name}](#{theorem.id.lower()}-{theorem.name})",
        theorem.statement.replace("|", "\\|"),
        by_file(lemmas(theorem)),
        linked(file.name, file, r"^def check\("),
        by_test(PROPERTY),
        f"{by_test(WEIGHTS)}, {by_test(WEIGHTS_CONTROL)}",
        f"without {theorem.dropped}: {by_test(CONTROL)}",
        faults(theorem),
    ]
    return "| " + " | ".join(cells) + " |"


def told(theorem: Theorem[Case]) -> str:
    """A theorem in full."""
    hypotheses = "; ".join(theorem.hypotheses) or "none"
    said = f"*{theorem.statement}.* Hypotheses: {hypotheses}."
    scope = f" The check runs: {theorem.scope}." if theorem.scope else ""
    return f"### {theorem.id} {theorem.name}\n\n{said}{scope}\n\n{theorem.section}"


def oracle() -> str:
    """What A6 certifies with the bound of an oracle, from the committed figures."""
    figures = json.loads(CERTIFIED.read_text(encoding="utf-8"))
    lines = [
        f"How far the logits are off takes the exact run to know. {figures['model']}, "
        f"{figures['arithmetic']}, {figures['rows'][0]['tokens']} tokens of {figures['texts']} "
        f"texts, each after a prompt of {figures['prompt']}, with the true bound as an oracle "
        f"knows it; {figures['machine']}, {figures['date']}:",
        "",
        f"    {figures['command']}",
        "",
        "| cache | same token as the full cache | certified | pair by pair "
        "| off by, median | lead, median |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['cache']} | {row['same']:.0%} | {row['certified']:.0%} | {row['in pairs']:.0%} "
        f"| {row['off by']:.2g} | {row['lead']:.2g} |"
        for row in figures["rows"]
    ]
    lines += [
        "",
        "A bound that a run has without the exact one is no smaller, and so certifies no more.",
    ]
    return "\n".join(lines)


def known() -> str:
    """What bounds without the exact run certify through one block, from the committed figures."""
    figures = json.loads(CERTIFIED.read_text(encoding="utf-8"))
    rows = figures["last block"]
    module = linked("Two such bounds", KNOWN, r"^def by_intervals\(")
    lines = [
        f"{module} follow the move from what the lossy run holds to its logits, in norms and, "
        f"number by number, in intervals ({by_test(BOUNDED)}). Of a narrow model either can be "
        f"nearly reached ({by_test(NEARLY)}). They are about real numbers: what float32 rounds is "
        "not in them. Here the last block's keys and values alone are rounded. The command, the "
        f"model and the machine are those above, {rows[0]['tokens']:.0f} tokens. The lead over "
        "the second token, how far it moves, and what the bounds say of that are medians; a bound "
        "says nothing where it is what it would be whatever the cache holds:",
        "",
        "| bits | same token | lead | moves | norms: at most | say nothing "
        "| intervals: at most | say nothing | certified by the true move | by norms "
        "| by intervals |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['bits']:.0f} | {row['same']:.0%} | {row['lead']:.2g} | {row['moves']:.1g} "
        f"| {row['norms: moves']:.0f} | {row['norms: nothing']:.0%} "
        f"| {row['intervals: moves']:.0f} | {row['intervals: nothing']:.0%} "
        f"| {row['certified']:.0%} "
        f"| {row['norms: certified']:.0%} | {row['intervals: certified']:.0%} |"
        for row in rows
    ]
    lines += [
        "",
        f"At any of these bits norms certify {at_most(rows, 'norms')} of the tokens, and intervals "
        f"{at_most(rows, 'intervals')}.",
        "",
        "What does make a lossy cache's tokens the exact ones is A3: it drafts, and the full cache "
        "verifies.",
    ]
    return "\n".join(lines)


def at_most(rows: Sequence[dict[str, float]], name: str) -> str:
    """How many tokens a bound certifies at any number of bits, in words."""
    most = max(row[f"{name}: certified"] for row in rows)
    return f"at most {most:.0%}" if most else "none"


def section() -> str:
    """The section: a table, each theorem in full, and what the last one certifies."""
    table = "\n".join([HEAD, *map(row, THEOREMS.values())])
    theorems = map(told, THEOREMS.values())
    return "\n\n".join([INTRODUCTION.rstrip(), table, *theorems, oracle(), known()])
