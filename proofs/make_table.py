"""Write the lecture and the table of the theorems into README.md, from the files of the theorems.

::

    python proofs/make_table.py          # rewrites both
    python proofs/make_table.py --check  # exit code 1 if one is stale

The sections are the docstrings of ``minikv/verify/theorems``. A column of the table is filled only
with what is found: a check, a Rocq theorem, a run of what Rocq
extracted, a claim about labels, a test, a counter-example, a
mutant that the theorem kills.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

from minikv.verify import THEOREMS, Theorem

PROOFS = Path(__file__).resolve().parent
README = PROOFS / "README.md"
CONCRETE = ("Concrete", "Caches", "Machines")  # the Rocq files about the decoder that is extracted


def marks(part: str) -> tuple[str, str]:
    """The lines between which a part of README.md is made."""
    return f"<!-- {part}: made by make_table.py -->\n", f"<!-- end of {part} -->\n"


def link(text: str, path: str, pattern: str) -> str:
    """A link to the one line of a file, named from proofs/, that holds a pattern."""
    lines = (PROOFS / path).read_text(encoding="utf-8").splitlines()
    found = [number for number, line in enumerate(lines, 1) if re.search(pattern, line)]
    if not found:
        raise SystemExit(f"{path}: no line has {pattern!r}; change make_table.py with it")
    return f"[{text}]({path}#L{found[0]})"


def row(theorem: Theorem) -> str:
    """One line of the table."""
    columns = (statement, rocq, extracted, dataflow, properties, weights, control, mutants)
    return f"| {theorem.id} {theorem.name} | " + " | ".join(f(theorem) for f in columns) + " |"


def anchor(theorem: Theorem) -> str:
    """Where GitHub puts the heading of its section."""
    return f"{theorem.id.lower()}-{theorem.name.lower().replace(' ', '-')}"


def source(theorem: Theorem) -> str:
    """Its file, named from proofs/."""
    path = Path(inspect.getfile(theorem.check)).resolve()
    return f"../{path.relative_to(PROOFS.parent).as_posix()}"


def statement(theorem: Theorem) -> str:
    """Its section and its check."""
    return f"[text](#{anchor(theorem)}), {link('check', source(theorem), r'^def check')}"


def rocq(theorem: Theorem) -> str:
    """The Rocq theorems that rocq/README.md lists for it, but for those of the concrete decoder."""
    text = (PROOFS / "rocq" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(rf"^\| {theorem.id} \|([^|]*)\|", text, re.MULTILINE)
    lemmas = [lemma for cell in listed for lemma in re.findall(r"`(\w+)\.([\w']+)`", cell)]
    concrete = {name for other in THEOREMS.values() for name in other.concrete}
    links = [
        stated(file, name)
        for file, name in lemmas
        if f"{file}.{name}" not in concrete and file not in CONCRETE
    ]
    return ", ".join(links) or "n/a: a hypothesis there"


def stated(file: str, name: str) -> str:
    """A link to where a Rocq theorem is stated."""
    return link(name, f"rocq/{file}.v", rf"^\s*(Theorem|Corollary|Lemma|Example) {name}\b")


def extracted(theorem: Theorem) -> str:
    """The theorems about the decoder that is extracted and run, and the run."""
    if not theorem.concrete:
        return "n/a: about any attention"
    run = link("run", "../tests/test_extracted.py", r"^def test_twenty_random_models")
    return ", ".join([run, *(stated(*name.split(".")) for name in theorem.concrete)])


def dataflow(theorem: Theorem) -> str:
    """Its claim about labels, or why there is none."""
    if theorem.flows:
        return link("certificate", source(theorem), r"\bflows=")
    return f"n/a: {theorem.unlabelled}"


def properties(theorem: Theorem) -> str:
    links = [link("models", "test_theorems.py", r"^def test_holds_bit_for_bit")]
    for path in sorted(PROOFS.glob(f"test_t{int(theorem.id[1:]):02}_*.py")):
        links.append(link(path.stem.split("_", 2)[2], path.name, r"^def test_"))
    return ", ".join(links)


def weights(theorem: Theorem) -> str:
    gemma = link("Gemma 3", "test_real_weights.py", r"^def test_holds_on_gemma")
    if theorem.windowed:
        return gemma
    smollm = link("SmolLM2", "test_real_weights.py", r"^def test_holds_on_real_weights")
    return f"{smollm}, {gemma}"


def control(theorem: Theorem) -> str:
    """What the control drops, and the counter-examples that name the theorem."""
    links = [link(f"without {theorem.dropped}", "test_theorems.py", r"^def test_fails_when")]
    for path in sorted((PROOFS / "counterexamples").glob("*.py")):
        pattern = rf'^THEOREM = "{theorem.id}"'
        if re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE):
            name = path.stem.replace("_", " ")
            links.append(link(name, f"counterexamples/{path.name}", pattern))
    return ", ".join(links)


def mutants(theorem: Theorem) -> str:
    """How many faults it refutes, as mutants.py recorded; how many weaker checks are noticed."""
    rows = (PROOFS / "mutants.md").read_text(encoding="utf-8").splitlines()
    faults = [line.split("|")[3] for line in rows if line.startswith("| ")][1:]
    killed = sum(bool(re.search(rf"\b{theorem.id}\b", killers)) for killers in faults)
    weaker = link(f"{len(theorem.weaker)} weaker checks", source(theorem), r"^    weaker=")
    return f"[{killed} of {len(faults)}](mutants.md), {weaker}"


def section(theorem: Theorem) -> str:
    """Its section of the lecture."""
    heading = f"### {theorem.id} {theorem.name}"
    hypotheses = "; ".join(theorem.hypotheses) or "none"
    said = f"*{theorem.statement}.* Hypotheses: {hypotheses}."
    return f"{heading}\n\n{said}\n\n{theorem.section}"


def lecture() -> str:
    """The sections, one after the other."""
    first, *_, last = THEOREMS
    count = f"There are {len(THEOREMS)}, {first} to {last}; each has a file in"
    where = "[minikv/verify/theorems](../minikv/verify/theorems/__init__.py)."
    return "\n\n".join([f"{count} {where}", *map(section, THEOREMS.values())])


def table() -> str:
    """A row for each theorem."""
    head = "| theorem | S | R | E | D | P | W | N | M |\n|---|---|---|---|---|---|---|---|---|\n"
    return head + "\n".join(map(row, THEOREMS.values()))


PARTS = {"lecture": lecture, "table": table}


def updated(readme: str) -> str:
    """README.md with both parts as they should be."""
    for part, made in PARTS.items():
        begin, end = marks(part)
        before, _, rest = readme.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise SystemExit(f"README.md has no lines {begin.strip()} and {end.strip()}")
        readme = f"{before}{begin}\n{made()}\n\n{end}{after}"
    return readme


def main() -> None:
    readme = README.read_text(encoding="utf-8")
    if "--check" in sys.argv[1:]:
        sys.exit(updated(readme) != readme and "proofs/README.md is stale: run make_table.py")
    README.write_text(updated(readme), encoding="utf-8")


if __name__ == "__main__":
    main()
