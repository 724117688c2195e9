"""Marks for the projects: each criterion of a rubric that can be run, run on an answer.

    python notebooks/projects.py policy answer.py     # what an answer earns, and why not more
    python notebooks/projects.py --write              # rubrics and samples' marks into README.md

The projects are policy, conform, counterexample and table; `lecturer/projects/README.md` says what
each asks for. An answer is a Python file, and is run *without walls*: read it before. What the
rubric calls *by eye* is for a person to judge, and is not counted here.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import minikv
from minikv.conform import Word, conform
from minikv.shapes import SHAPES, per_token, shape
from minikv.verify import THEOREMS, Case
from minikv.verify.bits import same_bits

HERE = Path(__file__).parent
FOLDER = HERE / "lecturer" / "projects"
sys.path.append(str(HERE.parent / "proofs"))  # the counter-examples' tools

GRADES = ("good", "middling", "weak")
BEGIN, END = "<!-- {}: made by projects.py -->", "<!-- end of {} -->"


@dataclass(frozen=True)
class Criterion:
    """A line of a rubric.

    Attributes
    ----------
    points : int
    text : str
        What is asked for.
    unmet : callable, optional
        What an answer lacks, in words, or nothing if it lacks nothing; none where only a person
        can tell.
    """

    points: int
    text: str
    unmet: Callable[[ModuleType], str] | None = None


class Missing(Exception):
    """An answer does not define what is asked for."""


def part(answer: ModuleType, name: str) -> Any:
    """What an answer defines, or `Missing`."""
    if not hasattr(answer, name):
        raise Missing(f"there is no `{name}`")
    return getattr(answer, name)


# A policy


def drawn(seed: int) -> tuple[minikv.Model, list[int], tuple[int, ...]]:
    """A small model, a text without repetition, and the calls in which it is fed."""
    rng = np.random.default_rng(seed)
    config = minikv.tiny_config(num_hidden_layers=2)
    ids = rng.permutation(config.vocab_size)[:12].tolist()
    return minikv.random_model(config, seed, "exact"), ids, (5, 1, 1, 3, 1, 1)


def watched(answer: ModuleType, rule: Callable[..., list[int]], seed: int) -> Iterator[str]:
    """Where a policy and a rule on lists keep different tokens, on one text."""
    model, ids, calls = drawn(seed)
    seen: list[str] = []

    class Watched(part(answer, "Policy")):  # type: ignore[misc]  # the class is the answer's
        policy = "watched"

        def evict(self, layer: Any) -> None:
            rows = self.rows[layer.index]
            given = [
                (rows.keys[:, head].tolist(), rows.values[:, head].tolist(), column.tolist())
                for head, column in enumerate(rows.positions.T)
            ]
            super().evict(layer)
            for (keys, values, positions), column in zip(given, rows.positions.T, strict=True):
                wanted = rule(keys, values, positions, self.budget)
                if column.tolist() != wanted:
                    seen.append(f"of {positions} it keeps {column.tolist()}, expected {wanted}")

    cache, start = Watched(model.weights, budget=4), 0
    for count in calls:
        model.forward([ids[start : start + count]], [cache], "none")
        start += count
    yield from seen


def beyond_budget(answer: ModuleType) -> str:
    model, ids, calls = drawn(0)
    cache, start = part(answer, "Policy")(model.weights, budget=4), 0
    for count in calls:
        model.forward([ids[start : start + count]], [cache], "none")
        start += count
        held = max(len(rows) for rows in cache.rows)
        if held > 4:
            return f"it holds {held} tokens with a budget of 4"
    return ""


def lossy(answer: ModuleType) -> str:
    for seed in range(3):
        model, ids, _ = drawn(seed)
        cache = part(answer, "Policy")(model.weights, budget=len(ids) + 1)
        rows = [np.asarray(model.forward([[token]], [cache]))[0] for token in ids]
        if not same_bits(np.array(rows), model.logits(ids)):
            return "with a budget above the length of the text its logits have other bits"
    return ""


def unlike_oracle(answer: ModuleType) -> str:
    for seed in range(10):
        for found in watched(answer, part(answer, "oracle"), seed):
            return found
    return ""


def no_wrong_oracle(answer: ModuleType) -> str:
    rule = part(answer, "wrong_oracle")
    if any(found for seed in range(10) for found in watched(answer, rule, seed)):
        return ""
    return "the wrong oracle passes the test of the right one"


def few_vectors(answer: ModuleType) -> str:
    vectors, oracle = part(answer, "VECTORS"), part(answer, "oracle")
    if len(vectors) < 3:
        return f"{len(vectors)} vectors, expected three at least"
    for *given, kept in vectors:
        if oracle(*given) != kept:
            return f"the vector says {kept}, the oracle keeps {oracle(*given)}"
    return ""


# A decoder before conform


def verdicts(answer: ModuleType) -> dict[str, Any]:
    """What conform says of the answer's decoder, by axis; asked once."""
    if not hasattr(answer, "verdicts_of_it"):
        report = conform(part(answer, "decoder")(), effort="quick")
        vars(answer)["verdicts_of_it"] = {each.axis: each for each in report.verdicts}
    told: dict[str, Any] = answer.verdicts_of_it
    return told


def does_not_conform(answer: ModuleType) -> str:
    for axis, verdict in verdicts(answer).items():
        if verdict.word is Word.BUG:
            return f"{axis} is a bug"
    return ""


def undecided(answer: ModuleType) -> str:
    wide = getattr(part(answer, "decoder")(), "wide", None)
    if not callable(wide):  # what is then undecided differs from machine to machine
        return "it has no `wide`"
    for axis, verdict in verdicts(answer).items():
        if verdict.word is Word.UNDECIDED:
            return f"{axis} is undecided"
    return ""


def untested(*axes: str) -> Callable[[ModuleType], str]:
    """Which of some axes say nothing of the answer."""

    def unmet(answer: ModuleType) -> str:
        silent = [axis for axis in axes if verdicts(answer)[axis].word is Word.NOT_TESTED]
        return f"not tested: {', '.join(silent)}" if silent else ""

    return unmet


def fault_unseen(answer: ModuleType) -> str:
    axis, made = part(answer, "FAULT_AXIS"), part(answer, "faulty")()
    verdict = conform(made, axes=[axis], effort="quick")[axis]
    if verdict.word is not Word.BUG or verdict.case is None:
        return f"conform says of {axis}: {verdict.word}"
    tokens = len(verdict.case.ids)
    return "" if tokens <= 4 else f"its smallest case has {tokens} tokens, expected 4 at most"


# A counter-example

CHAPTERS_CASE = Case(
    minikv.tiny_config(num_hidden_layers=6),
    ids=(3, 1, 4, 1, 5, 9, 2, 6),
    other=(2, 7, 1, 8, 2, 8, 1, 8),
    chunks=(4, 1, 1, 2),
)


def random_cases() -> Iterator[Case]:
    """Five, of three blocks and five tokens."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        ids, other = (tuple(int(t) for t in rng.integers(0, 97, 5)) for _ in range(2))
        yield Case(minikv.tiny_config(num_hidden_layers=3), ids, other, (2, 1, 2), seed=seed)


def not_refuted(answer: ModuleType) -> str:
    if part(answer, "refuted")(CHAPTERS_CASE):
        return ""
    return f"{part(answer, 'THEOREM')} holds for it on the case of chapter 7"


def fails_unchanged(answer: ModuleType) -> str:
    theorem = THEOREMS[part(answer, "THEOREM")]
    theorem.check(part(answer, "SMALLEST"))  # raises Refuted, which is no fault of the answer
    return ""


def not_smallest(answer: ModuleType) -> str:
    case = part(answer, "SMALLEST")
    blocks = case.source.num_hidden_layers
    if len(case.ids) > 2 or blocks > 2:
        return f"{len(case.ids)} tokens and {blocks} blocks, expected two of each at most"
    return "" if part(answer, "refuted")(case) else "the smallest case does not refute it"


def not_cured(answer: ModuleType) -> str:
    for case in random_cases():
        if not part(answer, "cured")(case):
            return f"with its cure the claim still fails on {case.ids} and {case.other}"
    return ""


# A table


def miscounted(answer: ModuleType) -> str:
    for name in SHAPES:
        config = shape(name)
        told = per_token(config)
        wanted = {
            "full": told["full_kv"]["bfloat16"],
            "embedding": told["one_residual"]["bfloat16"],
            "every": told["residual_per_layer"]["bfloat16"],
        }
        found = part(answer, "counted")(config, 2)
        if found != wanted:
            return f"{name}: {found}, expected {wanted}"
    return ""


def few_rows(answer: ModuleType) -> str:
    table = part(answer, "TABLE")
    if len(table) < 4:
        return f"{len(table)} shapes, expected four at least"
    for name, row in table.items():
        if row != part(answer, "counted")(shape(name), 2):
            return f"the row of {name} is not what `counted` says"
    return ""


def small_models() -> Iterator[minikv.Model]:
    """Shared and unshared keys, in float32."""
    for groups in (1, 4):
        config = minikv.tiny_config(num_attention_heads=4, num_key_value_heads=groups)
        yield minikv.random_model(config, 0)


def not_measured(answer: ModuleType) -> str:
    for model in small_models():
        counted = part(answer, "counted")(model.config, 4)
        measured = part(answer, "measured")(model)
        if measured != counted:
            return f"measured {measured}, counted {counted}"
    return ""


def no_wrong(answer: ModuleType) -> str:
    wrong = part(answer, "wrong")
    differ = [wrong(model.config, 4) != part(answer, "measured")(model) for model in small_models()]
    return "" if any(differ) else "the measurement does not refute the wrong formula"


RUBRICS = {
    "policy": (
        Criterion(2, "At most `budget` tokens stay in each layer, after each call", beyond_budget),
        Criterion(2, "A budget above the text's length gives the full cache's bits", lossy),
        Criterion(3, "`oracle`, lists alone, keeps the same tokens, on ten texts", unlike_oracle),
        Criterion(2, "`wrong_oracle` is refuted by that same test", no_wrong_oracle),
        Criterion(1, "Three `VECTORS` by hand, which the oracle answers", few_vectors),
        Criterion(2, "The docstring: rule, source, departures, a text on which it must lose"),
    ),
    "conform": (
        Criterion(3, "No axis of `conform` is a bug", does_not_conform),
        Criterion(2, "`wide`: rounding is told from a bug, nothing is undecided", undecided),
        Criterion(2, "The cache is asked: `cached`, `truncate`", untested("cached", "truncate")),
        Criterion(1, "More than one cache is asked: `fork`", untested("fork")),
        Criterion(2, "`faulty` has a planted fault, and `FAULT_AXIS` sees it", fault_unseen),
        Criterion(2, "The report says of each rounding why two ways add in another order"),
    ),
    "counterexample": (
        Criterion(3, "`refuted` on the case of chapter 7", not_refuted),
        Criterion(1, "The unchanged decoder passes `THEOREM` on `SMALLEST`", fails_unchanged),
        Criterion(2, "`SMALLEST` refutes with two tokens and two blocks at most", not_smallest),
        Criterion(3, "`cured` on five random cases: what is carried is enough", not_cured),
        Criterion(3, "Who builds it, what is carried, and why less would not do"),
    ),
    "table": (
        Criterion(3, "`counted` is right for every shape of the library", miscounted),
        Criterion(1, "`TABLE` has four shapes, and says what `counted` says", few_rows),
        Criterion(3, "`measured`: caches hold that, with shared keys and without", not_measured),
        Criterion(2, "`wrong`, a likely mistake, is refuted by the measurement", no_wrong),
        Criterion(3, "What is not counted: allocation, peak, windows, time"),
    ),
}


@dataclass(frozen=True)
class Mark:
    """What an answer earns by one criterion, and what it lacks."""

    criterion: Criterion
    lacks: str

    @property
    def points(self) -> int:
        return 0 if self.lacks else self.criterion.points


def load(path: Path) -> ModuleType:
    """An answer, run as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"answer_{path.parent.name}_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"{path}: no such answer, expected a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def marks(project: str, answer: ModuleType) -> list[Mark]:
    """A mark for each criterion that can be run."""
    found = []
    for criterion in RUBRICS[project]:
        if criterion.unmet is None:
            continue
        try:
            lacks = criterion.unmet(answer)
        except Missing as error:
            lacks = str(error)
        except Exception as error:  # a crash of the answer is a mark, not a stop
            lacks = (
                str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            )
        found.append(Mark(criterion, lacks))
    return found


def rubric(project: str) -> str:
    """The rubric, and what each sample earns, as a table in Markdown; below it what they lack."""
    asked = RUBRICS[project]
    samples = {grade: marks(project, load(FOLDER / project / f"{grade}.py")) for grade in GRADES}
    lines = [f"| points | asked for | {' | '.join(GRADES)} |", "|---" * (2 + len(GRADES)) + "|"]
    earned = {
        (mark.criterion, grade): str(mark.points) for grade in GRADES for mark in samples[grade]
    }
    for criterion in asked:
        cells = [earned.get((criterion, grade), "by eye") for grade in GRADES]
        lines.append(f"| {criterion.points} | {criterion.text} | {' | '.join(cells)} |")
    totals = [str(sum(mark.points for mark in samples[grade])) for grade in GRADES]
    whole = sum(criterion.points for criterion in asked)
    lines += [f"| {whole} | in all | {' | '.join(totals)} |", ""]
    for grade in GRADES:
        lines += [
            f"* *{grade}*, less {mark.criterion.points}: {mark.lacks}"
            for mark in samples[grade]
            if mark.lacks
        ]
    return "\n".join(lines) + "\n"


def written(readme: str) -> str:
    """README.md with the rubrics as they are now."""
    for project in RUBRICS:
        begin, end = BEGIN.format(project), END.format(project)
        before, _, rest = readme.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise SystemExit(f"README.md has no lines {begin} and {end}")
        readme = f"{before}{begin}\n\n{rubric(project)}\n{end}{after}"
    return readme


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("project", nargs="?", choices=RUBRICS, help="which rubric")
    parser.add_argument("answer", nargs="?", type=Path, help="a Python file; it is run")
    parser.add_argument("--write", action="store_true", help="rubrics and marks into README.md")
    options = parser.parse_args()
    if options.write:
        readme = FOLDER / "README.md"
        readme.write_text(written(readme.read_text(encoding="utf-8")), encoding="utf-8")
        return
    if options.project is None or options.answer is None:
        parser.error("say a project and an answer, or --write")
    found = marks(options.project, load(options.answer))
    for mark in found:
        told = f": {mark.lacks}" if mark.lacks else ""
        print(f"{mark.points} of {mark.criterion.points}  {mark.criterion.text}{told}")
    for criterion in RUBRICS[options.project]:
        if criterion.unmet is None:
            print(f"? of {criterion.points}  {criterion.text} (by eye)")
    print(f"{sum(mark.points for mark in found)} of {sum(m.criterion.points for m in found)}")


if __name__ == "__main__":
    main()
