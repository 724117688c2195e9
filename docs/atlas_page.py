"""Write docs/atlas.md from the entries of the atlas: ``python docs/atlas_page.py``."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from minikv.atlas import Entry, Kind, Verdict, entries

FILE = Path(__file__).parent / "atlas.md"
DRAFTS = Path(__file__).parent / "experiments" / "drafts.json"
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
the rule, the departures that are known, and what its authors claim; of most papers the abstract was
read, and `minikv atlas NAME` says what. What each policy keeps of
given keys, values and queries is in [vectors](../proofs/policy_vectors.py), for other programs to
compare with.

```{{raw}} html
<div id="atlas-filter"></div>
<script src="_static/atlas.js"></script>
```

:::{{container}} atlas
"""
VERDICTS = {
    Verdict.EXACT: "the full cache's bits stay, under the condition that is given",
    Verdict.BOUNDED: "each stored number, or one output, changes by no more than a bound that is "
    "checked; the logits have none",
    Verdict.LOSSY: "they change, and nothing that is checked bounds the logits",
    Verdict.REFUTES: "a hypothesis of the theorems does not hold, and another state is needed",
    Verdict.NOT_BUILT: "hardware, training, or no system: nothing here runs it",
}


def links(entry: Entry) -> str:
    """Where an entry is written, proved, refuted and tested."""
    found = [f"[{Path(entry.file).name}](../{entry.file})"]
    found += [f"[{theorem}](../proofs/README.md)" for theorem in entry.theorems]
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


def page() -> str:
    """The page as Markdown."""
    found = entries().values()
    built = sum(entry.built for entry in found)
    lines = [INTRODUCTION.format(built=built, all=len(found))]
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
    if DRAFTS.exists():
        lines += drafts()
    kinds = Counter(entry.kind for entry in found)
    lines += ["", "## Kinds", "", "| kind | systems |", "|---|---|"]
    lines += [f"| {kind} | {kinds[kind]} |" for kind in Kind if kinds[kind]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")
    print(f"wrote {FILE}", file=sys.stderr)
