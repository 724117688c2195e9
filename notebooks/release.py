"""The course as students get it: a clean tree without solutions, without outputs.

    python notebooks/release.py --students DIR
    python notebooks/release.py --students DIR --grader nbgrader   # assignments, for a lecturer
    python notebooks/release.py --students DIR --grader otter      # the same, for Otter-Grader

In DIR are the chapters, the checks, the pictures, the glossary, and what chapters read. Where a
chapter has a folded solution, the students' has a line that reads on with what the library has for
it; hints are not folded but asked for, so that `minikv course status` can count them. What a check
knows of a right answer are properties, and the library, which every student can read anyway.

For nbgrader each chapter becomes an assignment ``source/NN/NN_name.ipynb``, with its solutions in
marked regions, which ``nbgrader generate_assignment`` takes out, points for the stars, and the
check once more as a hidden test. Beside the assignments, in ``source/proofs`` and ``source/docs``,
is what they read. For Otter-Grader the form is its own: in ``DIR/NN/NN_name.ipynb`` each task
stands between raw cells that say so, and ``otter assign --no-pdfs NN_name.ipynb dist``, run in
``DIR/NN``, makes of it what students get and what grades. Its tests ask the checks that came with
the assignment, whatever a notebook calls by their name.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import shutil
from pathlib import Path
from typing import Any

import build
import nbformat
import solved
from exercises.hints import hints
from exercises.paper import SHOWN

from minikv.course.catalogue import Task, tasks, tasks_in

HERE = Path(__file__).parent
ROOT = HERE.parent
HINT = re.compile(r"\n*<details><summary>Hint</summary>.*?</details>", re.DOTALL)
SOLUTIONS = re.compile(
    r"<details><summary>Solutions</summary>.*?</details>|Solutions are in\s*\[`solutions/[^)]*\)"
    r"; try first\.",
    re.DOTALL,
)
SOLVED = re.compile(r"^@unless_solved\((\w+)\)", re.MULTILINE)
JUNK = shutil.ignore_patterns("__pycache__", "*.pyc", "*.vo*", "*.glob", "*.aux", "test_*.py")
LINK = re.compile(r"\[([^\]]+)\]\(((?!https?:|#)[^)#\s]+)(#[^)\s]*)?\)")


def released(source: Path) -> Any:
    """The notebook of a chapter for students."""
    notebook = build.read(source)
    del notebook.metadata["code_sha256"]
    asked: dict[int, list[Task]] = {}
    for task in tasks_in(source.name[:2], kinds(notebook)):
        asked.setdefault(task.cell, []).append(task)
    kept = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            cell.source = for_students(cell.source, asked.get(number + 1, []))
        elif "solution" in cell.metadata.get("tags", []):
            name = name_of(cell.source)
            cell.source = f"{name} = instead({name})"
            cell.metadata = {}
        else:
            cell.source = cell.source.replace("unless_solved", "instead")
        if cell.source.strip():
            kept.append(cell)
    first = next(cell for cell in kept if cell.cell_type == "code")
    first.source = "from exercises.hints import hint\n" + first.source
    notebook.cells = kept
    return notebook


def name_of(source: str) -> str:
    """What a folded solution defines."""
    found = SOLVED.search(source)
    if not found:
        raise SystemExit(f"a cell with the tag `solution` has no @unless_solved(name):\n{source}")
    return found[1]


def for_students(text: str, asked: list[Task]) -> str:
    """A cell of text without solutions, its hints to be asked for."""
    text = SOLUTIONS.sub("", text)
    names = [f"{task.chapter}.{task.name}" for task in asked if task.hint]
    folded = HINT.findall(text)
    if len(folded) != len(names):
        raise SystemExit(f"{len(folded)} hints for {names}, expected one each:\n{text}")
    for name in names:
        text = HINT.sub(f'\n\nStuck? Run `hint("{name}")` in a cell of its own.', text, count=1)
    return text.rstrip()


def without_links(text: str, folder: Path) -> str:
    """Markdown whose links to files that students do not have are plain text."""

    def kept(link: re.Match[str]) -> str:
        return link[0] if (folder / link[2]).exists() else link[1]

    return LINK.sub(kept, text)


def students(target: Path) -> None:
    """Write the tree."""
    expect_empty(target)
    course = target / "notebooks"
    shutil.copytree(HERE / "exercises", course / "exercises", ignore=JUNK)
    shutil.copytree(ROOT / "proofs", target / "proofs", ignore=JUNK)
    shutil.copy(ROOT / "LICENSE", target)
    shutil.copytree(HERE / "pictures", course / "pictures", ignore=JUNK)
    read_besides(target)
    known = json.dumps(hints(), indent=1, ensure_ascii=False)
    (course / "exercises" / "hints.json").write_text(known + "\n", encoding="utf-8")
    notebooks = {f"{source.stem}.ipynb": released(source) for source in build.sources([])}
    for name in notebooks:
        (course / name).touch()  # so that links between chapters lead somewhere
    for name, notebook in notebooks.items():
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = without_links(cell.source, course)
        nbformat.write(notebook, course / name)
    (course / "README.md").write_text(readme(course), encoding="utf-8")


def read_besides(target: Path) -> None:
    """Write what chapters show or name of ``docs``: words, papers, two results."""
    results = target / "docs" / "paper" / "results"
    results.mkdir(parents=True)
    for name in SHOWN:
        shutil.copy(ROOT / "docs" / "paper" / "results" / f"{name}.json", results)
    for name in ("glossary.md", "papers.md"):
        text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        (target / "docs" / name).write_text(without_links(text, results), encoding="utf-8")


def nbgrader(target: Path) -> None:
    """Write the chapters as assignments, in the form that nbgrader calls source."""
    expect_empty(target)
    shutil.copytree(ROOT / "proofs", target / "source" / "proofs", ignore=JUNK)
    read_besides(target / "source")
    for source in build.sources([]):
        folder = target / "source" / source.name[:2]
        prepare(folder)
        nbformat.write(assignment(source), folder / f"{source.stem}.ipynb")


def expect_empty(target: Path) -> None:
    """Write into no folder that holds something."""
    if target.exists() and any(target.iterdir()):
        raise SystemExit(f"{target} is not empty: name a folder that is, or that is not there yet")


def prepare(folder: Path) -> None:
    """Lay pictures, checks and hints into the folder of an assignment."""
    shutil.copytree(HERE / "pictures", folder / "pictures", ignore=JUNK)
    shutil.copytree(HERE / "exercises", folder / "exercises", ignore=JUNK)
    (folder / "exercises" / "hints.json").write_text(json.dumps(hints()), encoding="utf-8")


def otter(target: Path) -> None:
    """Write the chapters as assignments, in the form that ``otter assign`` reads."""
    expect_empty(target)
    shutil.copytree(ROOT / "proofs", target / "proofs", ignore=JUNK)
    read_besides(target)
    for source in build.sources([]):
        folder = target / source.name[:2]
        prepare(folder)
        nbformat.write(otter_assignment(source), folder / f"{source.stem}.ipynb")


def otter_assignment(source: Path) -> Any:
    """A chapter with each task between raw cells: what is asked, its solution, its hidden test."""
    notebook = released(source)
    asked = {task.cell: task for task in tasks_in(source.name[:2], kinds(notebook))}
    cells = [nbformat.v4.new_raw_cell(OTTER_CONFIG)]
    for number, cell in enumerate(notebook.cells):
        if number not in asked:
            cells.append(cell)
            continue
        task = asked[number]
        call = cell.source.rstrip().rpartition("\n")[2].removeprefix("_ = ")
        solution = with_region(solved.answer(task, "_ = " + call)).replace("### ", "# ")
        cell.source = solution
        cell.metadata = {}
        head = f"# BEGIN QUESTION\nname: {task.name}\npoints: {task.stars}"
        cells += [
            nbformat.v4.new_raw_cell(head),
            nbformat.v4.new_raw_cell("# BEGIN SOLUTION"),
            cell,
            nbformat.v4.new_raw_cell("# END SOLUTION"),
            nbformat.v4.new_raw_cell("# BEGIN TESTS"),
            nbformat.v4.new_code_cell(otter_test(task, call)),
            nbformat.v4.new_raw_cell("# END TESTS"),
            nbformat.v4.new_raw_cell("# END QUESTION"),
        ]
    notebook.cells = cells
    return notebook


def otter_test(task: Task, call: str) -> str:
    """A hidden test that asks the check of the assignment about what the notebook has defined."""
    module = task.check.partition(".")[0]
    (parsed,) = ast.parse(call).body
    names = {node.id for node in ast.walk(parsed) if isinstance(node, ast.Name)} - {module}
    given = "".join(f'    {name} = env["{name}"]\n' for name in sorted(names))
    return (
        f"# HIDDEN\ndef test_{task.name}(env):\n"
        f"    from exercises import {module}\n\n{given}    assert {call}"
    )


OTTER_CONFIG = """\
# ASSIGNMENT CONFIG
init_cell: false
export_cell: false
check_all_cell: false
tests:
    ok_format: false
files:
    - exercises
    - pictures"""


def assignment(source: Path) -> Any:
    """A chapter with a cell to solve and a cell that grades for each task."""
    notebook = released(source)
    asked = {task.cell: task for task in tasks_in(source.name[:2], kinds(notebook))}
    cells = []
    for number, cell in enumerate(notebook.cells):
        cells.append(cell)
        if number not in asked:
            continue
        task = asked[number]
        call = cell.source.rstrip().rpartition("\n")[2].removeprefix("_ = ")
        name = f"{task.chapter}-{task.name}"
        cell.source = with_region(solved.answer(task, "_ = " + call))
        cell.metadata["nbgrader"] = GRADING | {"grade_id": name, "solution": True}
        hidden = f"### BEGIN HIDDEN TESTS\nassert {call}\n### END HIDDEN TESTS"
        test = nbformat.v4.new_code_cell(hidden)
        points = {"points": task.stars, "grade": True, "locked": True}
        test.metadata["nbgrader"] = GRADING | {"grade_id": f"{name}-test"} | points
        cells.append(test)
    notebook.cells = cells
    return notebook


def kinds(notebook: Any) -> list[tuple[str, str]]:
    """Kind and text of each cell."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def with_region(source: str) -> str:
    """A solved cell with marks around what is to be written: bodies of functions, or all of it."""
    lines = source.rstrip().split("\n")
    call = lines.pop()
    tree = ast.parse("\n".join(lines))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    if not functions:
        return "\n".join(["### BEGIN SOLUTION", *lines, "### END SOLUTION", "", call])
    for node in reversed(functions):
        first, last = node.body[0].lineno - 1, node.end_lineno or len(lines)
        lines.insert(last, "    ### END SOLUTION")
        lines.insert(first, "    ### BEGIN SOLUTION")
    return "\n".join([*lines, call])


GRADING = {"grade": False, "locked": False, "schema_version": 3, "solution": False, "task": False}


def readme(course: Path) -> str:
    """How to begin, and the syllabus of the course's own page."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    syllabus = text[text.index("## Syllabus") : text.index("## Two weeks")]
    syllabus = without_links(syllabus, course).replace("./run fetch", "minikv fetch")
    return BEGIN + syllabus.rstrip() + "\n"


BEGIN = """\
# The course

Open the chapters in JupyterLab, or in an editor that runs notebooks, one after the other. In each
cell that has a stub you write a function; the check below it says in words what is wrong. Stars are
difficulty, one to three.

Once, in a virtual environment of Python 3.11 or newer, install minikv as your lecturer says (from a
checkout: `pip install "CHECKOUT[chat,fetch,notebooks]" jupyterlab`). Then, here:

    minikv doctor            # is everything here?
    minikv fetch             # the weights, once (540 MB)
    jupyter lab              # in this folder

`hint("01.share")` in a cell prints the hint of a task. `minikv course status`, in this folder, says
what is solved, what is open and which hints you asked for; that is kept in `.minikv-progress.json`,
beside the chapters, and nowhere else. Hand in the notebooks, as they are.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--students", type=Path, metavar="DIR", required=True)
    graders = ["nbgrader", "otter"]
    parser.add_argument("--grader", choices=graders, help="assignments instead, solutions in")
    options = parser.parse_args()
    if options.grader == "nbgrader":
        nbgrader(options.students)
        print(f"{options.students}/source: assignments; next  nbgrader generate_assignment NN")
        return
    if options.grader == "otter":
        otter(options.students)
        print(
            f"{options.students}: assignments; next, in NN,  otter assign --no-pdfs NN_*.ipynb dist"
        )
        return
    students(options.students)
    counts = [len(tasks(path)) for path in sorted((options.students / "notebooks").glob("*.ipynb"))]
    print(f"{options.students}: {len(counts)} chapters with {sum(counts)} tasks, no solutions")


if __name__ == "__main__":
    main()
