"""Build the Rocq proofs in this folder and check what they rest on.

::

    python proofs/rocq/check.py          # a table: theorem, file, what the file rests on
    python proofs/rocq/check.py --each   # what each theorem rests on, which takes twice as long
    python proofs/rocq/check.py --json

The files and their order are those of ``_CoqProject``. Nothing is left behind: the build runs in a
temporary folder. The compiler walks a whole proof, that of every lemma below it too, to say what it
rests on; so it is asked once for all theorems of a file, and for each one alone where that answer
has an axiom that is not accepted. Exit status 1 if a proof does not hold, is unfinished, or rests
on an axiom that is not in `ACCEPTED`; 2 if there is no compiler.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SECONDS = 600  # for one file; each takes under thirty, on a machine of its own

# What a proof may rest on: Coq's own axioms, in two groups, and no others.
# The real numbers; a proof that does not speak of reals (Markov.v, Residual.v) rests on none.
REALS = {
    # the reals as Dedekind cuts: one can decide whether a sequence of decisions is ever negative
    "ClassicalDedekindReals.sig_forall_dec",
    # the same construction: from "not not P" to a decision
    "ClassicalDedekindReals.sig_not_dec",
    # functions that agree everywhere are equal: two cuts with the same members are one real number
    "FunctionalExtensionality.functional_extensionality_dep",
    # P or not P: Flocq's lemmas on rounding argue by cases on real numbers
    "Classical_Prop.classic",
}
# Primitive floats. The type and the operations are the processor's, run by the kernel and named as
# axioms by it; all that names the decoder of Decoder.v rests on them.
OPERATIONS = {
    *("float", "abs", "opp", "sqrt", "add", "sub", "mul", "div", "eqb", "ltb", "leb"),
    # how FloatOps.Prim2SF takes a float apart and puts it together; the proofs do so with literals
    *("of_uint63", "normfr_mantissa", "frshiftexp", "ldshiftexp"),
    # the machine integers that these give and take
    *("PrimInt63.int", "PrimInt63.sub", "PrimInt63.land", "PrimInt63.lor"),
    *("PrimInt63.lsl", "PrimInt63.lsr", "PrimInt63.eqb"),
}
# FloatAxioms: each operation is IEEE 754's, as a computation on sign, mantissa and exponent gives
# it; and floats are, one to one, the valid ones of such triples.
SPECIFIED = {
    *("Prim2SF_valid", "SF2Prim_Prim2SF", "Prim2SF_SF2Prim"),
    *("abs_spec", "opp_spec", "add_spec", "sub_spec", "mul_spec", "div_spec", "sqrt_spec"),
    *("eqb_spec", "ltb_spec", "leb_spec"),
}
# Elementary.v alone, by way of coq-interval: machine integers, whose operations the kernel runs ...
INTEGERS = {
    f"PrimInt63.{name}"
    for name in (
        *("add", "addc", "addcarryc", "addmuldiv", "compare", "div", "diveucl", "diveucl_21"),
        *("head0", "leb", "ltb", "lxor", "mod", "mul", "mulc", "subc", "subcarryc", "tail0"),
    )
}
# ... and their specification (Uint63): each is arithmetic modulo 2^63.
INTEGERS_SPECIFIED = {
    f"Uint63.{name}"
    for name in (
        *("of_to_Z", "eqb_correct", "eqb_refl", "add_spec", "addc_def_spec"),
        *("addcarryc_def_spec", "addmuldiv_def_spec", "compare_def_spec", "div_spec"),
        *("diveucl_21_spec", "diveucl_def_spec", "head0_spec", "land_spec", "leb_spec", "lor_spec"),
        *("lsl_spec", "lsr_spec", "ltb_spec", "lxor_spec", "mod_spec", "mul_spec", "mulc_spec"),
        *("sub_spec", "subc_def_spec", "subcarryc_def_spec", "tail0_spec"),
    )
}
# Coq names the primitives with or without their module, as the file has it imported or not.
ACCEPTED = (
    REALS
    | OPERATIONS
    | {f"PrimFloat.{name}" for name in OPERATIONS}
    | SPECIFIED
    | INTEGERS
    | INTEGERS_SPECIFIED
)
# Words that assume instead of prove, or switch a check of the kernel off.
FORBIDDEN = re.compile(
    r"\b(Admitted|admit|give_up|Abort|Axioms?|Parameters?|Conjectures?|bypass_check"
    r"|Unset\s+(?:Guard|Positivity|Universe)\s+Checking)\b"
)
STATED = re.compile(r"\b(?:Theorem|Corollary|Example)\s+([\w']+)")
REQUIRED = re.compile(r"\bFrom\s+Minikv\s+Require\s+(?:(?:Import|Export)\s+)?([^.]+)\.")
PRINTED = re.compile(r"\bPrint\s+Assumptions\s+([\w']+)\s*\.")
INSTALL = (
    "no coqc or rocq on the PATH; install Rocq, Flocq and coq-interval "
    "(Debian: coq, libcoq-flocq, libcoq-interval)"
)


def compiler() -> list[str] | None:
    """The command that compiles a file, or None."""
    for command in (["coqc"], ["rocq", "compile"]):
        if shutil.which(command[0]):
            return command
    return None


def sources(folder: Path) -> list[str]:
    """Names of the files to build, in order."""
    return re.findall(r"^(\w+\.v)$", (folder / "_CoqProject").read_text(encoding="utf-8"), re.M)


def code(text: str) -> str:
    """The text without its (nested) comments and without the contents of its strings."""
    kept, depth = [], 0
    for token in re.findall(r'\(\*|\*\)|"[^"]*"|.', text, re.S):
        if token == "(*":
            depth += 1
        elif token == "*)":
            depth -= 1
        elif not depth:
            kept.append('""' if token[0] == '"' else token)
    return "".join(kept)


def listed(readme: str) -> list[tuple[str, str]]:
    """``(file, lemma)`` for each `` `File.lemma` `` in the second column of README's table."""
    rows = re.findall(r"^\| [AT]\d[^|]*\|([^|]*)\|", readme, re.M)
    return [
        (f"{file}.v", lemma)
        for row in rows
        for file, lemma in re.findall(r"`(\w+)\.([\w']+)`", row)
    ]


def assumptions(output: str) -> list[list[str]]:
    """What each ``Print Assumptions`` answered, in order: the names of axioms, none if closed.

    A line of any other kind counts as a name, so that it is not accepted.
    """
    answers: list[list[str]] = []
    for line in output.splitlines():
        if line == "Closed under the global context" or line == "Axioms:":
            answers.append([])
        elif line and not line[0].isspace():
            if not answers:
                answers.append([])
            answers[-1].append(line.split(" :")[0].strip())
    return answers


def asked_once(text: str) -> str:
    """A file whose theorems are asked all at once what they rest on: one pair of pairs of them."""
    names = PRINTED.findall(code(text))
    if not names:
        return text
    together = ", ".join(f"@{name}" for name in names)
    asked = f"Definition all_theorems_of_this_file := ({together}).\n"
    return PRINTED.sub("", text) + asked + "Print Assumptions all_theorems_of_this_file.\n"


def check(folder: Path, command: list[str], each: bool = False) -> tuple[list[dict], list[str]]:
    """Build and check the proofs in `folder`.

    Returns
    -------
    theorems : list of dict
        ``theorem``, ``file`` and ``assumptions`` of all that is printed: those of the file, or with
        `each` those of the theorem.
    problems : list of str
        Empty if everything holds.
    """
    names = sources(folder)
    texts = {name: code((folder / name).read_text(encoding="utf-8")) for name in names}
    printed = {name: PRINTED.findall(text) for name, text in texts.items()}
    needs = {
        name: [f"{other}.v" for line in REQUIRED.findall(text) for other in line.split()]
        for name, text in texts.items()
    }
    problems = []
    for at, name in enumerate(names):
        for other in needs[name]:
            if other not in names[:at]:
                problems.append(f"{name} requires {other}: put that before it in _CoqProject")
    for path in sorted(folder.glob("*.v")):
        if path.name not in names:
            problems.append(f"{path.name} is not in _CoqProject, so it is not checked; add it")
    for name, text in texts.items():
        for word in FORBIDDEN.findall(text):
            problems.append(f"{name} contains {word!r}; prove it instead")
        for theorem in STATED.findall(text):
            if theorem not in printed[name]:
                problems.append(f"{name} states {theorem} without `Print Assumptions {theorem}.`")
    for name, lemma in listed((folder / "README.md").read_text(encoding="utf-8")):
        if lemma not in printed.get(name, ()):
            problems.append(f"README lists {lemma}, but {name} has no `Print Assumptions {lemma}.`")
    if problems:
        return [], problems  # no need to build

    theorems: list[dict] = []
    for name, result in _build(folder, needs, command, each).items():
        if isinstance(result, str):
            problems.append(f"{name} does not compile: {result}")
            continue
        if len(result) != len(printed[name]):
            problems.append(
                f"{name} has {len(printed[name])} `Print Assumptions`, "
                f"{command[0]} answered {len(result)} of them"
            )
            continue
        for theorem, axioms in zip(printed[name], result, strict=True):
            theorems.append({"theorem": theorem, "file": name, "assumptions": axioms})
            for axiom in axioms:
                if axiom not in ACCEPTED:
                    problems.append(f"{name}: {theorem} rests on {axiom}")
    return theorems, problems


def _build(
    folder: Path, needs: dict[str, list[str]], command: list[str], each: bool
) -> dict[str, list[list[str]] | str]:
    """Compile copies of the files, two at a time, each after those it needs.

    What each theorem of a file rests on, in order; a str is an error.
    """
    built: dict[str, Future] = {}
    with tempfile.TemporaryDirectory(prefix="rocq-") as scratch, ThreadPoolExecutor(2) as pool:

        def compile_one(name: str) -> list[list[str]] | str:
            for other in needs[name]:
                if isinstance(built[other].result(), str):
                    return f"{other}, which it requires, does not"
            text = (folder / name).read_text(encoding="utf-8")
            if not each:
                found = _answers(Path(scratch), name, asked_once(text), command)
                if isinstance(found, list) and len(found) <= 1 and set(*found) <= ACCEPTED:
                    return found * len(PRINTED.findall(code(text)))
            return _answers(Path(scratch), name, text, command)

        for name in needs:
            built[name] = pool.submit(compile_one, name)
        return {name: future.result() for name, future in built.items()}


def _answers(scratch: Path, name: str, text: str, command: list[str]) -> list[list[str]] | str:
    """Compile a file of this text, and read what the compiler answers; a str is an error."""
    (scratch / name).write_text(text, encoding="utf-8")
    try:
        done = subprocess.run(
            [*command, "-q", "-Q", ".", "Minikv", name],
            cwd=scratch,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"still running after {SECONDS} s"
    if done.returncode:
        return done.stderr.strip() or done.stdout.strip()
    return assumptions(done.stdout)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the result as JSON alone")
    parser.add_argument(
        "--each", action="store_true", help="ask of each theorem alone what it rests on"
    )
    options = parser.parse_args(arguments)
    command = compiler()
    if command is None:
        print(INSTALL, file=sys.stderr)
        return 2
    version = subprocess.run([command[0], "--version"], capture_output=True, text=True).stdout
    version = version.split("\n")[0].strip()
    start = time.perf_counter()
    theorems, problems = check(FOLDER, command, options.each)
    seconds = round(time.perf_counter() - start, 1)
    if options.json:
        result = {
            "ok": not problems,
            "compiler": version,
            "seconds": seconds,
            "theorems": theorems,
            "problems": problems,
        }
        print(json.dumps(result, indent=2))
    else:
        width = max([len(entry["theorem"]) for entry in theorems], default=0)
        for entry in theorems:
            rests_on = ", ".join(axiom.split(".")[-1] for axiom in entry["assumptions"])
            print(f"{entry['theorem']:{width}}  {entry['file']:12}  {rests_on or 'no axioms'}")
        for problem in problems:
            print(f"FAILED  {problem}", file=sys.stderr)
        if not problems:
            print(f"{len(theorems)} theorems hold ({version}, {seconds} s)")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
