"""README.md says what is so: its files exist, its code runs, its commands print what it shows."""

from __future__ import annotations

import doctest
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from minikv.cli import main
from minikv.shapes import shape

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def layout() -> list[str]:
    """The folders that the table of the section Layout names, in its order."""
    table = README.split("## Layout", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| \[`(.+?)/`\]\((.+?)\) \|", table, re.MULTILINE)
    assert all(shown == linked for shown, linked in rows)
    return [shown for shown, _ in rows]


def test_layout_lists_every_folder_of_the_library_and_nothing_that_is_not_there():
    listed = layout()
    assert len(set(listed)) == len(listed) > 10
    assert [name for name in listed if not (ROOT / name).is_dir()] == [], "listed, but not there"
    library = ROOT / "minikv"
    folders = [library, *(path for path in library.iterdir() if any(path.glob("*.py")))]
    missing = {folder.relative_to(ROOT).as_posix() for folder in folders} - set(listed)
    assert missing == set(), "add a line for each to the section Layout of README.md"


# What users do not call from Python.
UNLISTED = {
    "__init__",
    "__main__",
    "cli",
    "colour",
    "commands",
    "course",
    "experiments",
    "numbers",
    "paper",
    "progress",
}


def missing_from(reference: str) -> set[str]:
    """Modules and packages, right below minikv, that a reference has no section of."""
    listed = set(re.findall(r"automodule:: minikv\.(\w+)", reference))
    library = ROOT / "minikv"
    modules = {path.stem for path in library.glob("*.py")}
    packages = {path.parent.name for path in library.glob("*/__init__.py")}
    return (modules | packages) - UNLISTED - listed


def test_the_reference_has_a_section_of_every_part_that_users_call():
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    missing = missing_from(reference)
    assert missing == set(), "add a section for each to docs/reference.md, or to UNLISTED"
    assert "decoder" in missing_from(reference.replace("automodule:: minikv.decoder", ""))


@pytest.mark.weights
def test_code_blocks_print_what_readme_shows():
    code = "\n".join(blocks("python"))
    test = doctest.DocTestParser().get_doctest(code, {}, "README.md", "README.md", 0)
    assert len(test.examples) >= 7
    report: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=report.append)
    assert not report, "".join(report)


@pytest.mark.weights
@pytest.mark.parametrize("arithmetic", ["float32", "exact"])
def test_first_command_prints_the_text_that_readme_shows(arithmetic, capsys):
    shown = next(block for block in blocks("console") if block.startswith("$ ./run generate"))
    command, *lines = shown.splitlines()
    text = "\n".join(line for line in lines if not line.startswith(("[", "setting", "fetching")))
    argv = shlex.split(command)[2:]
    assert main([*argv, "--arithmetic", arithmetic]) == 0
    assert capsys.readouterr().out == text + "\n"


@pytest.mark.weights
def test_the_demonstration_is_what_the_command_prints(capsys):
    """In exact arithmetic, which has the same bits on every machine."""
    assert main(["demo"]) == 0
    exact = capsys.readouterr().out.partition("--- float32")[0]
    assert f"$ ./run demo\n{exact}" in README


def test_the_citation_names_the_software_and_the_paper():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    software, paper = citation.split("references:")
    assert 'title: "minikv:' in software
    assert 'title: "The Residual Stream Is All You Need:' in paper
    assert '"arXiv:2603.19664"' in paper


def test_what_is_needed_is_what_the_package_asks_and_the_first_model_takes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    weights = 4 * shape("smollm2-135m").num_parameters  # bytes; the rest is a small tokenizer
    megabytes = round(weights / 1e7) * 10
    said = f"You need Python {project['requires-python'][2:]} or newer, and {megabytes} MB of disk"
    assert said in (ROOT / "docs" / "install.md").read_text(encoding="utf-8")


def test_contributing_has_a_section_on_a_theorem_and_one_on_a_notebook():
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    sections = re.findall(r"(?m)^## (.*)\n\n(?!## )", contributing)
    assert {"A theorem, or a counter-example", "A notebook"} <= set(sections)
