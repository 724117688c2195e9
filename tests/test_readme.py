"""README.md says what is so: its files exist, its code runs, its commands print what it shows."""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path

import pytest

from minikv.commands import find_commands
from minikv.commands.main import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_layout_lists_every_file_of_the_library_and_nothing_else():
    layout = README.split("## Layout", 1)[1].split("```")[1]
    listed = [line.split()[0] for line in layout.strip().splitlines()]
    assert len(set(listed)) == len(listed)
    assert [name for name in listed if not (ROOT / name).exists()] == [], "listed, but not there"
    library = {
        path.relative_to(ROOT).as_posix().replace("__init__.py", "")
        for path in (ROOT / "minikv").rglob("*.py")
    }
    library -= {f"minikv/commands/{name}.py" for name in find_commands()}  # in one line together
    theorems = {name for name in library if name.startswith("minikv/verify/theorems/t")}
    missing = sorted(library - set(listed) - theorems)  # a theorem is listed in proofs/README.md
    assert missing == [], "add a line for each to the section Layout of README.md"


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
