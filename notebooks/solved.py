"""The chapters with their tasks solved: of the folded solutions and those in ``solutions/``."""

from __future__ import annotations

import ast
import importlib
import json
import re
from pathlib import Path

import build

from minikv.course.catalogue import Task, tasks

CALLED = {
    "window": "window_keeps",
    "sinks": "sinks_keep",
    "heavy": "heavy_keep",
    "bound": "loss_and_bound",
    "tight": "worst_case",
    "ring": "Ring",
}
"""Solutions that have another name than their check."""


def definitions(path: Path) -> tuple[str, dict[str, str]]:
    """The imports of a file of solutions, and the source of each thing that it defines."""
    text = path.read_text(encoding="utf-8")
    imports, found = [], {}
    for node in ast.parse(text).body:
        source = ast.get_source_segment(text, node) or ""
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            imports.append(source)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = source
        elif isinstance(node, ast.Assign):
            found[ast.unparse(node.targets[0])] = source
    return "\n".join(each for each in imports if "__future__" not in each), found


def folded(number: str) -> dict[str, str]:
    """The folded solutions of a chapter, by the name of what they define."""
    (source,) = build.sources([number])
    found = {}
    for cell in build.read(source).cells:
        if "solution" in cell.metadata.get("tags", []):
            name = re.findall(r"@unless_solved\((\w+)\)", cell.source)[0]
            found[name] = cell.source.partition("\n")[2]
    return found


def answer(task: Task, call: str) -> str:
    """The cell in which a student has solved a task."""
    number = task.chapter
    imports, own = definitions(build.HERE / "solutions" / f"s{number}.py")
    name = CALLED.get(task.name, task.name)
    if task.name in folded(number):
        return f"{folded(number)[task.name]}\n\n\n{call}"
    if task.name == "two_texts":
        return f"{imports}\n{own['two_texts']}\ntext_a, text_b = two_texts\n{call}"
    if task.name == "machine":
        solutions = importlib.import_module(f"solutions.s{number}")
        return f"digits = {solutions.machine!r}\n{call}"
    return f"{imports}\n\n\n{own[name]}\n\n\n{call}"


def handed_in(chapter: Path, target: Path) -> list[Task]:
    """Write a chapter as a student hands it in who has solved everything; returns the tasks."""
    notebook = json.loads(chapter.read_text(encoding="utf-8"))
    asked = tasks(chapter)
    for task in asked:
        cell = notebook["cells"][task.cell]
        call = "".join(cell["source"]).rstrip().rpartition("\n")[2]
        cell["source"] = answer(task, call)
    target.write_text(json.dumps(notebook), encoding="utf-8")
    return asked
