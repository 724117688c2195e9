"""Write the table of T1 to T11 into README.md, from the files that it links to.

::

    python proofs/make_table.py          # rewrites the table
    python proofs/make_table.py --check  # exit code 1 if it is stale

A column is filled only with what is found: a check, a Rocq theorem, a claim of the certificate, a
test, a counter-example, a mutant that the theorem kills.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from minikv.verify import THEOREMS, Theorem

PROOFS = Path(__file__).resolve().parent
README = PROOFS / "README.md"
BEGIN, END = "<!-- table: made by make_table.py -->\n", "<!-- end of table -->\n"
NO_CERTIFICATE = {  # why labels cannot say it
    "T3": "two runs are compared",
    "T4": "schedules read what is stored",
    "T6": "the certificate assumes it",
    "T7": "about values",
    "T9": "about values",
}


def link(text: str, path: str, pattern: str) -> str:
    """A link to the one line of a file, named from proofs/, that holds a pattern."""
    lines = (PROOFS / path).read_text(encoding="utf-8").splitlines()
    found = [number for number, line in enumerate(lines, 1) if re.search(pattern, line)]
    if not found:
        raise SystemExit(f"{path}: no line has {pattern!r}; change make_table.py with it")
    return f"[{text}]({path}#L{found[0]})"


def row(theorem: Theorem) -> str:
    """One line of the table."""
    columns = (statement, rocq, dataflow, properties, weights, control, mutants)
    return f"| {theorem.id} {theorem.name} | " + " | ".join(f(theorem) for f in columns) + " |"


def statement(theorem: Theorem) -> str:
    check = theorem.check.__name__
    anchor = f"[text](#{theorem.id.lower()}-{theorem.name.lower().replace(' ', '-')})"
    code = link("check", "../minikv/verify/theorems.py", rf"^def {check}\b")
    return f"{anchor}, {code}"


def rocq(theorem: Theorem) -> str:
    """The Rocq theorems that rocq/README.md lists for it."""
    text = (PROOFS / "rocq" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(rf"^\| {theorem.id} \|([^|]*)\|", text, re.MULTILINE)
    lemmas = [lemma for cell in listed for lemma in re.findall(r"`(\w+)\.([\w']+)`", cell)]
    stated = r"^\s*(Theorem|Corollary|Lemma|Example) {}\b"
    return (
        ", ".join(link(name, f"rocq/{file}.v", stated.format(name)) for file, name in lemmas)
        or "n/a: a hypothesis there"
    )


def dataflow(theorem: Theorem) -> str:
    """The claim in labels.py that names the theorem."""
    path = "../minikv/verify/labels.py"
    pattern = rf'claim\(.*f"{theorem.id}:'
    if re.search(pattern, (PROOFS / path).read_text(encoding="utf-8")):
        return link("certificate", path, pattern)
    return f"n/a: {NO_CERTIFICATE[theorem.id]}"


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
    """How many mutants it kills, where mutants.py --write has recorded that."""
    record = PROOFS / "mutants.md"
    if not record.exists():
        return "not recorded yet"
    rows = [line for line in record.read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    killed = sum(bool(re.search(rf"\b{theorem.id}\b", line.split("|")[3])) for line in rows)
    return f"[{killed} of {len(rows) - 1}](mutants.md)"


def table() -> str:
    """The table as it should be."""
    head = "| theorem | S | R | D | P | W | N | M |\n|---|---|---|---|---|---|---|---|\n"
    return "\n" + head + "\n".join(map(row, THEOREMS.values())) + "\n\n"


def updated(readme: str) -> str:
    """README.md with the table as it should be."""
    before, _, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"README.md has no lines {BEGIN.strip()} and {END.strip()}")
    return before + BEGIN + table() + END + after


def main() -> None:
    readme = README.read_text(encoding="utf-8")
    if "--check" in sys.argv[1:]:
        sys.exit(updated(readme) != readme and "proofs/README.md is stale: run make_table.py")
    README.write_text(updated(readme), encoding="utf-8")


if __name__ == "__main__":
    main()
