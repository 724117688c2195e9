"""Write docs/atlas.md from the entries of the atlas: ``python docs/atlas_page.py``."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import atlas_theorems

from minikv.atlas import Entry, Exactness, Kind, entries
from minikv.atlas.quantising import GROUP

FILE = Path(__file__).parent / "atlas.md"
DRAFTS = Path(__file__).parent / "experiments" / "drafts.json"
COUNTEREXAMPLES = Path(__file__).parents[1] / "proofs" / "counterexamples" / "README.md"
FEW_BITS = Path(__file__).parent / "experiments" / "few_bits.json"
INTRODUCTION = """\
# The atlas

<!-- Written by docs/atlas_page.py from the entries in minikv/atlas. -->

Sixty-five entries, three of them studies and the others ways of treating a decoder's cache: what
the state is in each, what stays exact, what is bounded, what is lost, and which theorem or
counter-example says so. {built} of the {all} run here; the policies also by the protocol of the
[paper](paper.md)'s comparison. Nothing is trained, by no other library than NumPy: where a system
learns something, its rule runs with what it is given. What is not built has its reason.

`minikv atlas` lists them, and `minikv atlas NAME` runs the smallest demonstration of one. A policy
of the atlas goes wherever policies go: `minikv compare --policies atlas:cake,h2o`. Each file says
the rule, the departures that are known, and what its authors claim; of {code} of those that run the
authors' code was read, or what they say of it, of the others the abstract, and `minikv atlas NAME`
says what. What each policy keeps of given keys, values and queries is in
[vectors](../proofs/policy_vectors.py), for other programs to compare with.

```{{raw}} html
<div id="atlas-filter"></div>
<script src="_static/atlas.js"></script>
```

:::{{container}} atlas
"""
VERDICTS = {
    Exactness.EXACT: "the full cache's bits stay, under the condition that is given",
    Exactness.BOUNDED: "each stored number, or one output, changes by no more than a bound that is "
    "checked; the logits have none",
    Exactness.LOSSY: "they change, and nothing that is checked bounds the logits",
    Exactness.REFUTES: "a hypothesis of the theorems does not hold, and another state is needed",
    Exactness.NOT_BUILT: "hardware, training, or no system: nothing here runs it",
}


def links(entry: Entry) -> str:
    """Where an entry is written, proved, refuted and tested."""
    found = [f"[{Path(entry.file).name}](../{entry.file})"]
    for theorem in entry.theorems:
        ours = theorem in atlas_theorems.THEOREMS
        found.append(f"[{theorem}]({'#six-theorems' if ours else '../proofs/README.md'})")
    found += [f"[{name}](../proofs/counterexamples/{name}.py)" for name in entry.counterexamples]
    if entry.built:
        found.append(f"[{Path(entry.test).name}](../{entry.test})")
    return ", ".join(found)


def row(entry: Entry) -> str:
    """A line of the table."""
    name = f"**{entry.title}** `{entry.name}`" if entry.built else f"**{entry.title}**"
    number = f" arXiv {entry.arxiv}" if entry.arxiv else ""
    why = entry.reason
    if entry.cure:
        words = entry.cure.removeprefix("none: ")
        why += f" Cure: {words}." if words == entry.cure else f" No cure: {words}."
    cells = [name + number, str(entry.kind), str(entry.verdict), entry.state, why, links(entry)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def drafts() -> list[str]:
    """What drafts by lossy caches saved, from the committed figures."""
    told = json.loads(DRAFTS.read_text(encoding="utf-8"))
    lines = [
        "",
        "## A lossy cache as the draft of an exact verifier",
        "",
        "`minikv generate --draft POLICY --budget N` guesses with a cache that loses tokens and",
        "verifies with the full one: under exact arithmetic tokens, logits and cache are those of",
        f"one by one. With {told['model']}, {told['arithmetic']}, the last {told['tokens']} tokens",
        f"of {told['rows'][0]['texts']} texts, {told['new_tokens']} new ones each, {told['ahead']}",
        f"guesses a round; {told['machine']}, {told['date']}:",
        "",
        f"    {told['command']}",
        "",
        "| draft | budget | guesses accepted | calls of the verifier | fewer than one by one "
        "| calls of the draft | same tokens |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in told["rows"]:
        same = "yes" if row["same_tokens"] else "no"
        lines.append(
            f"| `{row['policy']}` | {row['budget']} | {row['accepted']:.0%} | {row['calls']} "
            f"| {row['saved']} | {row['draft_calls']} | {same} |"
        )
    return lines


def few_bits() -> list[str]:
    """What caches of few bits lose and recomputation does not, from the committed figures."""
    told = json.loads(FEW_BITS.read_text(encoding="utf-8"))
    rows = told["rows"]
    lines = [
        "",
        "## Few bits, beside recomputation",
        "",
        "Caches that round keys and values, and two that keep none of them: `residual:every@0` has",
        "a residual a layer and `none` the token ids, and both make keys and values again, which",
        f"loses no bit. {told['model']}, {told['arithmetic']} arithmetic, the last",
        f"{told['tokens']} tokens of {rows[0]['texts']} texts, {told['new_tokens']} new ones each,",
        f"on the full cache's text; the full cache holds {rows[0]['full_bytes']:,} bytes a token.",
        f"{told['machine']}, {told['date']}:",
        "",
        f"    {told['command']}",
        "",
        "| cache | bytes a token | same bits | largest move of a logit | D_KL, mean "
        "| first other token | texts with one | a head moves | bound / move |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        bits = "yes" if row["bits_equal"] else "no"
        name = row["cache"] if row["heads"] else f"`{row['cache']}`"
        first = row["first_divergence"] or "-"
        heads = " - | - |"
        if row["heads"]:
            heads = f" {row['moved']:.1%} | {row['slack']:.0f} |"
        lines.append(
            f"| {name} | {row['bytes']:,} | {bits} | {row['logit_moved']:.3g} "
            f"| {row['kl_mean']:.2g} | {first} | {row['parted']} |{heads}"
        )
    heads, within = (sum(row[key] or 0 for row in rows) for key in ("heads", "within"))
    short = [row["cache"] for row in rows if row["heads"] and row["moved"] * row["slack"] < 1]
    lines += [
        "",
        "The prompt is read whole, before anything is rounded. Bytes are packed ones: the bits of",
        "the numbers, and two float32 for what is rounded together; here the rows lie in float32.",
        "A head's move is beside the length of its output,",
        "for the last token of a text, at all layers, each by itself; its bound is that of",
        "[A2](#a2-distortion), 2 tanh(delta / 2) max|v| + eta. Both are medians. It held for",
        f"{within:,} of {heads:,} heads; by these medians it is shorter than the output, and",
        f"says something, for: {'; '.join(short) or 'none of them'}. VidKV keeps tokens whole",
        f"until {GROUP} of them make a group.",
    ]
    return lines


def counterexamples(found: Iterable[Entry]) -> list[str]:
    """Each counter-example, what it refutes, and the systems that do what it does."""
    systems: dict[str, list[str]] = {}
    for entry in found:
        for name in entry.counterexamples:
            systems.setdefault(name, []).append(entry.title)
    lines = [
        "",
        "## Counter-examples",
        "",
        "What refutes a theorem on a smallest case, with the cure, and which systems do that.",
        "",
        "| counter-example | what it changes | refutes | cure | systems |",
        "|---|---|---|---|---|",
    ]
    told = COUNTEREXAMPLES.read_text(encoding="utf-8")
    for name, rest in re.findall(r"^\| `(\w+)\.py` \|(.*)\|$", told, flags=re.MULTILINE):
        doing = ", ".join(systems.get(name, ["none of these"]))
        lines.append(f"| [{name}](../proofs/counterexamples/{name}.py) |{rest}| {doing} |")
    return lines


def page() -> str:
    """The page as Markdown."""
    found = entries().values()
    built = sum(entry.built for entry in found)
    code = sum(entry.built and "authors'" in entry.read for entry in found)
    lines = [INTRODUCTION.format(built=built, all=len(found), code=code)]
    lines += ["| system | kind | verdict | state | why | where |", "|---|---|---|---|---|---|"]
    lines += [row(entry) for entry in found]
    lines += [
        ":::",
        "",
        "## Verdicts",
        "",
        "| verdict | systems | what it means |",
        "|---|---|---|",
    ]
    counts = Counter(entry.verdict for entry in found)
    lines += [f"| {name} | {counts[name]} | {words} |" for name, words in VERDICTS.items()]
    lines += ["", atlas_theorems.section()]
    lines += counterexamples(found)
    lines += few_bits()
    lines += drafts()
    kinds = Counter(entry.kind for entry in found)
    lines += ["", "## Kinds", "", "| kind | systems |", "|---|---|"]
    lines += [f"| {kind} | {kinds[kind]} |" for kind in Kind if kinds[kind]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")
    print(f"wrote {FILE}", file=sys.stderr)
