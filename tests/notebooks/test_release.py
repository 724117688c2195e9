"""The students' tree: no solution in it, checks that hold no answer, chapters that run."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("jupytext", reason="needs the extra `notebooks`")
pytest.importorskip("hypothesis", reason="needs the extra `notebooks`")

import build
import release
import solved
from solved import CALLED
from test_write import cells

from minikv.course import grading
from minikv.course.catalogue import tasks, tasks_in

HERE = build.HERE


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("students") / "course"
    release.students(folder)
    return folder


def texts(tree: Path) -> dict[str, str]:
    """Every file that a student can read, code without its spaces."""
    return {
        str(path.relative_to(tree)): squeezed(text_of(path))
        for path in tree.rglob("*")
        if path.is_file()
    }


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)


def text_of(path: Path) -> str:
    """What a file says; of a notebook, what its cells say."""
    text = path.read_text(encoding="utf-8", errors="ignore")
    if path.suffix != ".ipynb":
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])


def bodies() -> list[str]:
    """The bodies of all solutions, of the exercises and of the folded cells."""
    sources = [path.read_text(encoding="utf-8") for path in sorted(HERE.glob("solutions/s*.py"))]
    for source in build.sources([]):
        for cell in cells(source.name[:2]):
            if "solution" in cell.metadata.get("tags", []):
                sources.append(cell.source)
    found = []
    for source in sources:
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef):
                body = node.body[isinstance(node.body[0], ast.Expr) :]
                found.append("".join(ast.get_source_segment(source, each) or "" for each in body))
    return [body for body in map(squeezed, found) if len(body) > 30]


def test_no_solution_is_in_the_tree(tree):
    known = bodies()
    assert len(known) > 50
    for name, text in texts(tree).items():
        assert not [body for body in known if body in text], name


def test_the_search_finds_a_solution_that_is_left_in(tree):
    left = (HERE / "solutions" / "s01.py").read_text(encoding="utf-8")
    assert any(body in squeezed(left) for body in bodies())


def test_there_is_nothing_but_what_students_need(tree):
    names = {path.name for path in (tree / "notebooks").iterdir()}
    chapters = {f"{source.stem}.ipynb" for source in build.sources([])}
    assert names - {"pictures"} == chapters | {"README.md", "exercises"}
    assert not list(tree.rglob("__pycache__"))


def test_every_task_is_there_with_a_hint_to_ask_for_and_nothing_has_run(tree):
    known = json.loads((tree / "notebooks/exercises/hints.json").read_text(encoding="utf-8"))
    for source in build.sources([]):
        path = tree / "notebooks" / f"{source.stem}.ipynb"
        notebook = json.loads(path.read_text(encoding="utf-8"))
        given = [(c.cell_type, c.source) for c in build.read(source).cells]
        asked = tasks(path)
        names = [task.check for task in tasks_in(source.name[:2], given)]
        assert [task.check for task in asked] == names
        text = "".join("".join(cell["source"]) for cell in notebook["cells"])
        for task in asked:
            assert f'hint("{task.chapter}.{task.name}")' in text
            assert known[f"{task.chapter}.{task.name}"]
        assert "solutions/" not in text
        assert "unless_solved" not in text
        assert not any(cell.get("outputs") for cell in notebook["cells"])


def width(function) -> int:
    return len(inspect.signature(function).parameters)


@pytest.mark.slow
def test_no_function_of_the_checks_is_itself_an_answer(capsys):
    tried, answers = 0, []
    for source in sorted(HERE.glob("solutions/s*.py")):
        number = source.stem[1:]
        checks = importlib.import_module(f"exercises.e{number}")
        solutions = importlib.import_module(f"solutions.s{number}")
        own = [
            given
            for name, given in vars(checks).items()
            if inspect.isfunction(given)
            and given.__module__ == checks.__name__
            and not name.startswith("check_")
        ]
        for task in tasks(next(HERE.glob(f"{number}_*.ipynb"))):
            solution = vars(solutions).get(CALLED.get(task.name, task.name))
            if not inspect.isfunction(solution):
                continue
            for candidate in own:
                if width(candidate) == width(solution):
                    tried += 1
                    if vars(checks)[f"check_{task.name}"](candidate):
                        answers.append(f"{candidate.__name__} for {task.check}")
                    capsys.readouterr()
    assert tried > 15
    assert answers == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the walls around graded code are Linux's")
@pytest.mark.parametrize("number", ["03", "11"])
def test_who_has_solved_everything_gets_all_points(tree, tmp_path, number):
    (chapter,) = (tree / "notebooks").glob(f"{number}_*.ipynb")
    asked = solved.handed_in(chapter, tmp_path / chapter.name)
    marks = grading.grade("ada", tmp_path / chapter.name, chapter)
    assert [mark.message for mark in marks if not mark.passed] == []
    assert sum(mark.points for mark in marks) == sum(task.stars for task in asked)


@pytest.mark.slow
def test_chapter_1_of_the_tree_runs_with_nothing_written_and_no_weights(tree, monkeypatch):
    monkeypatch.setenv("MINIKV_HOME", str(tree))
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setattr(sys.modules["exercises.e01"], "is_fetched", lambda name: False)
    text = (tree / "notebooks" / "01_decoder.ipynb").read_text(encoding="utf-8")
    space: dict = {"__name__": "__main__"}
    for cell in json.loads(text)["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), space)
    assert space["same"].all()  # the library's own functions, on a random model


def test_assignments_have_regions_points_and_hidden_tests(tree):
    source = build.sources(["01"])[0]
    cells = release.assignment(source).cells
    asked = tasks(tree / "notebooks" / f"{source.stem}.ipynb")
    graded = [cell for cell in cells if cell.metadata.get("nbgrader", {}).get("grade")]
    assert [cell.metadata["nbgrader"]["points"] for cell in graded] == [t.stars for t in asked]
    assert all(cell.source.startswith("### BEGIN HIDDEN TESTS\nassert e01.") for cell in graded)
    to_solve = [cell for cell in cells if cell.metadata.get("nbgrader", {}).get("solution")]
    assert len(to_solve) == len(asked)
    region = re.compile(r"### BEGIN SOLUTION.*?### END SOLUTION", re.DOTALL)
    left = squeezed("".join(region.sub("", cell.source) for cell in cells))
    assert not [body for body in bodies() if body in left]
    assert any(body in squeezed(cell.source) for body in bodies() for cell in to_solve)
    for cell in to_solve:
        ast.parse(region.sub("raise NotImplementedError", cell.source))


@pytest.mark.slow
def test_assignments_find_the_pictures_and_the_proofs_that_they_name(tmp_path):
    release.nbgrader(tmp_path / "class")
    named = 0
    for path in sorted((tmp_path / "class" / "source").glob("[0-9]*/*.ipynb")):
        for place in re.findall(
            r"pictures/\w+\.svg|\.\./proofs[\w/.]*\w|\.\./docs/glossary\.md", text_of(path)
        ):
            assert (path.parent / place).exists(), f"{path.name}: {place}"
            named += 1
    assert named > 10
    for name in release.SHOWN:
        assert (tmp_path / "class/source/docs/paper/results" / f"{name}.json").exists()
    assert not list(tmp_path.rglob("__pycache__"))
    assert not list((tmp_path / "class" / "source" / "proofs").rglob("test_*.py"))


def test_students_who_have_no_checkout_are_told_no_script_of_it(tree):
    text = (tree / "notebooks" / "README.md").read_text(encoding="utf-8")
    assert "as `minikv fetch` gets it" in text
    assert "./run" not in text


def test_a_folder_that_is_not_empty_is_refused(tree):
    with pytest.raises(SystemExit, match="is not empty"):
        release.students(tree)
