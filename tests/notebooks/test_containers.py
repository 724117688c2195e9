"""The container files install what Binder does, and fetch the same model. No Docker is asked."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
KNOWN = {"FROM", "RUN", "USER", "ENV", "WORKDIR", "COPY", "EXPOSE", "CMD"}


def dockerfile() -> list[tuple[str, str]]:
    """Instruction and argument, line by line."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [tuple(line.split(" ", 1)) for line in lines if line and line[0] != "#"]


def installs(command: str) -> str:
    """What stands after ``-e`` in a command of pip."""
    words = shlex.split(command)
    return words[words.index("-e") + 1]


def required_by_binder() -> str:
    """What Binder installs."""
    return installs((ROOT / ".binder" / "requirements.txt").read_text(encoding="utf-8"))


def fetched_by_binder() -> str:
    """The command with which Binder fetches."""
    return (ROOT / ".binder" / "postBuild").read_text(encoding="utf-8").splitlines()[-1]


def test_the_dockerfile_installs_and_fetches_as_binder_does_and_not_as_root():
    steps = dockerfile()
    assert {kind for kind, _ in steps} <= KNOWN
    assert steps[0][0] == "FROM"
    assert steps[-1][0] == "CMD"
    assert json.loads(steps[-1][1])[:2] == ["jupyter", "lab"]
    (command,) = [argument for kind, argument in steps if kind == "RUN" and "pip" in argument]
    install, fetch = command.split(" && ")
    assert installs(install) == required_by_binder()
    assert fetch == fetched_by_binder()
    kinds = [kind for kind, _ in steps]
    assert kinds.index("USER") < kinds.index("COPY")


def test_the_devcontainer_does_the_same():
    given = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    install, fetch = given["postCreateCommand"].split(" && ")
    assert installs(install) == required_by_binder()
    assert fetch == fetched_by_binder()


def test_both_have_a_python_that_the_project_supports():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    least = tuple(map(int, re.findall(r"\d+", project["requires-python"])))
    image = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())["image"]
    for name in (dockerfile()[0][1], image):
        found = re.search(r"python:(\d+)\.(\d+)", name)
        assert found
        assert tuple(map(int, found.groups())) >= least
