"""``minikv conform``: exit codes, files, and words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from minikv.conform import axes

ZOO = """
from tests.conform.zoo import decoder


def clean():
    return decoder("gpt-numpy")


class Clean:
    def __new__(cls):
        return clean()


class Faulty:
    def __new__(cls):
        return decoder("gpt-numpy", faults=("pos_reset",))


class Doubtful:
    def __new__(cls):
        return decoder("gpt-numpy", dtype="bfloat16", faults=("kv_int8",))
"""
AXES = ("--quick", "--axes", "causality,cached")


@pytest.fixture
def zoo(tmp_path) -> Path:
    path = tmp_path / "zoo_targets.py"
    path.write_text(ZOO)
    return path


def test_exit_code_0_for_a_clean_decoder(run, zoo):
    code, out, _ = run("conform", f"{zoo}:Clean", *AXES)
    assert code == 0
    assert "exit code 0" in out


def test_exit_code_1_and_files_for_a_bug(run, zoo, tmp_path):
    junit, page = tmp_path / "junit.xml", tmp_path / "page.html"
    files = ("--junit", str(junit), "--html", str(page), "--issue")
    code, out, _ = run("conform", f"{zoo}:Faulty", *AXES, *files)
    assert code == 1
    assert "positions restart in the chunk" in out
    assert "cached fails, and it is not rounding" in out
    assert ElementTree.parse(junit).getroot().get("failures") == "1"
    assert "positions restart" in page.read_text()


def test_exit_code_2_for_what_is_undecided(run, zoo):
    code, out, _ = run("conform", f"{zoo}:Doubtful", *AXES, "--twin", "none", "--json")
    assert code == 2
    assert json.loads(out)["exit_code"] == 2


def test_exit_code_2_where_nothing_that_was_asked_for_can_be_tested(run, zoo):
    code, out, _ = run("conform", f"{zoo}:Clean", "--quick", "--axes", "window")
    assert code == 2
    assert "the target has no reach: window" in out
    assert run("conform", f"{zoo}:Clean", "--quick", "--axes", "window,causality")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no TARGET given"),
        (("minikv:nothing-here",), "nothing-here"),
        (("{zoo}:Clean", "--axes", "cash"), "the axis 'cash' is unknown"),
        (("{zoo}:Clean", "--length", "1"), "expected 2 or more"),
        (("{zoo}:Clean", "--html", "/no/such/folder/x.html"), "its folder does not exist"),
    ],
)
def test_what_cannot_be_tested_is_said_in_one_line_with_exit_code_2(run, zoo, arguments, words):
    code, out, err = run("conform", *(one.format(zoo=zoo) for one in arguments))
    assert code == 2
    assert out == ""
    assert words in err
    assert err.count("\n") == 1


def test_list_says_what_each_axis_means(run):
    code, out, _ = run("conform", "--list")
    assert code == 0
    told = " ".join(f"{axis.name}: {axis.meaning}" for axis in axes.AXES.values())
    assert out.split() == told.split()


def test_no_other_command_imports_it():
    program = (
        "import sys, minikv.cli as m; m.make_parser();"
        "print([n for n in sys.modules if n.startswith('minikv.conform')])"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"
