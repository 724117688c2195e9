"""Rubrics of the projects: sample answers earn, and lack, what their page says."""

from __future__ import annotations

import projects
import pytest

GRADES = {
    "policy": (10, 7, 4),
    "conform": (10, 5, 2),
    "counterexample": (9, 4, 0),
    "table": (9, 3, 0),
}
LACKS = {
    ("policy", "middling"): ["there is no `wrong_oracle`", "1 vectors"],
    ("policy", "weak"): ["expected [0, 1, 3, 4]", "`wrong_oracle`", "`VECTORS`"],
    ("conform", "middling"): ["it has no `wide`", "not tested: fork", "`FAULT_AXIS`"],
    ("conform", "weak"): ["cached is a bug", "`wide`", "not tested: fork", "`FAULT_AXIS`"],
    ("counterexample", "middling"): ["6 tokens and 4 blocks", "there is no `cured`"],
    ("counterexample", "weak"): ["T2 holds for it", "`SMALLEST`", "`SMALLEST`", "`cured`"],
    ("table", "middling"): ["2 shapes", "`measured`", "`wrong`"],
    ("table", "weak"): ["deepseek", "1 shapes", "`measured`", "`wrong`"],
}


@pytest.fixture(scope="module")
def marked() -> dict[tuple[str, str], list[projects.Mark]]:
    return {
        (project, grade): projects.marks(
            project, projects.load(projects.FOLDER / project / f"{grade}.py")
        )
        for project in projects.RUBRICS
        for grade in projects.GRADES
    }


@pytest.mark.parametrize("project", projects.RUBRICS)
def test_good_answers_earn_all_and_the_others_less(project, marked):
    earned = [sum(mark.points for mark in marked[project, grade]) for grade in projects.GRADES]
    assert tuple(earned) == GRADES[project]
    assert earned[0] == sum(mark.criterion.points for mark in marked[project, "good"])


@pytest.mark.parametrize(("project", "grade"), LACKS)
def test_what_an_answer_lacks_is_said(project, grade, marked):
    told = [mark.lacks for mark in marked[project, grade] if mark.lacks]
    assert len(told) == len(LACKS[project, grade])
    for words, said in zip(LACKS[project, grade], told, strict=True):
        assert words in said


def test_the_page_has_the_rubrics_and_marks_of_today(marked, monkeypatch):
    by_answer = iter(marked.values())
    monkeypatch.setattr(projects, "marks", lambda project, answer: next(by_answer))
    readme = (projects.FOLDER / "README.md").read_text(encoding="utf-8")
    assert readme == projects.written(readme), "run  python notebooks/projects.py --write"


FAULTS = {
    "keeps_too_much": ("policy", "class Policy(Policy):\n    def evict(self, layer): pass", 0),
    "forgets_early": (
        "policy",
        "class Policy(Policy):\n    def check(self): self.budget = min(self.budget, 4)",
        1,
    ),
    "a_right_wrong_oracle": ("policy", "wrong_oracle = oracle", 3),
    "a_wrong_vector": ("policy", "VECTORS = VECTORS[:2] + [([[1.0]], [], [0], 1, [])]", 4),
    "no_fault": ("conform", "faulty = decoder", 4),
    "no_cure": ("counterexample", "def cured(case): return not refuted(case)", 3),
    "unmeasured": ("table", "def measured(model): return counted(model.config, 2)", 2),
    "a_right_wrong_formula": ("table", "wrong = counted", 3),
    "crash": ("table", "def counted(config, itemsize): return 1 / 0", 0),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_criterion_notices_a_fault_in_the_good_answer(name, tmp_path, monkeypatch):
    project, change, at = FAULTS[name]
    good = (projects.FOLDER / project / "good.py").read_text(encoding="utf-8")
    answer = tmp_path / f"{name}.py"
    answer.write_text(f"{good}\n\n{change}\n", encoding="utf-8")
    monkeypatch.setitem(projects.RUBRICS, project, projects.RUBRICS[project][at : at + 1])
    [found] = projects.marks(project, projects.load(answer))
    assert found.lacks
    assert found.points == 0


def test_an_answer_that_is_not_there_is_said_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match="no such answer"):
        projects.load(tmp_path / "answer.py")
