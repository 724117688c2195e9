"""portability.py on other instruction sets, without network and QEMU: with stand-ins for both."""

from __future__ import annotations

import os
import sys

import emulated
import golden
import portability
import pytest
from portability import Emulation, Task, emulated_rows, faults

from minikv.errors import InputError


def lines(text: str) -> int:
    return text.count("\n")


# What cannot be run is said in one line.


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--emulated", "vax"], "--emulated vax: expected some of arm64, armhf, i386, ppc64el"),
        (["--emulated", "arm64", "--quick"], "without --model, --ids, --quick and --python"),
        (["--compiled", "--model", "random-small"], "without --model"),
        (["--emulated", "arm64", "--jobs", "0"], "--jobs 0: expected 1 or more"),
        (["--golden", "--ids", "3"], "--golden has models and texts of its own"),
        (["--quick", "--write"], "--write is for golden values"),
    ],
)
def test_wrong_options_are_one_line(argv, said, capsys):
    assert portability.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert lines(err) == 1


@pytest.mark.parametrize("present", [[], ["mmdebstrap"], ["qemu-s390x-static"]])
def test_a_missing_program_is_one_line_that_says_how_to_install_it(present, monkeypatch, capsys):
    monkeypatch.setattr(emulated.shutil, "which", lambda name: name if name in present else None)
    assert portability.main(["--emulated", "s390x"]) == 2
    err = capsys.readouterr().err
    for program in {"mmdebstrap", "qemu-s390x-static"} - {*present}:
        assert program in err.split("not on the PATH")[0]
    assert "apt-get install mmdebstrap qemu-user-static" in err
    assert lines(err) == 1


def test_all_architectures_are_meant_by_none_and_none_twice():
    assert emulated.chosen([]) == ["arm64", "armhf", "i386", "ppc64el", "riscv64", "s390x"]
    assert emulated.chosen(["s390x", "arm64", "s390x"]) == ["s390x", "arm64"]


# Fetching, with stand-ins for apt and mmdebstrap.


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A function that puts a shell script first on the PATH, by its name."""
    if os.name == "nt":
        pytest.skip("stand-ins are shell scripts")
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(name: str, body: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        (folder / name).chmod(0o755)

    return put


def test_the_mirror_is_the_first_that_apt_names(programs):
    programs("apt-get", "printf 'http://near/debian/\\nhttp://far/debian/\\n'")
    assert emulated.mirror() == "http://near/debian/"


def test_a_machine_whose_apt_knows_no_debian_is_told_so(programs):
    programs("apt-get", "exit 0")
    with pytest.raises(InputError, match="name no mirror of Debian"):
        emulated.mirror()


def test_settings_of_apt_are_passed_on_where_there_are_any(programs):
    said = 'Acquire::Check-Valid-Until "false";\\nAcquire::http::Proxy "";\\n'
    programs("apt-config", f"printf '{said}'")
    assert emulated.apt_options() == ['--aptopt=Acquire::Check-Valid-Until "false";']


FORKY_ALONE = """
for word; do case $word in trixie|forky) suite=$word;; */root) root=$word;; esac; done
echo "$suite" >> "$(dirname "$root")/asked"
if [ "$suite" != forky ]; then mkdir -p "$root"; echo 'E: 404  Not Found' >&2; exit 1; fi
mkdir -p "$root/usr/lib"
"""


def test_the_next_suite_is_taken_where_one_is_not_whole_and_packages_are_fetched_once(
    programs, tmp_path
):
    programs("apt-get", "echo http://near/debian/")
    programs("mmdebstrap", FORKY_ALONE)
    for _ in range(2):
        assert emulated.fetched("s390x", tmp_path / "root") == "Debian forky"
    assert (tmp_path / "asked").read_text().split() == ["trixie", "forky"]
    assert os.readlink(tmp_path / "root" / "lib") == "usr/lib"
    assert not (tmp_path / "root" / "lib64").is_symlink()


def test_packages_are_extracted_without_a_chroot_or_a_script_and_python_is_qemus(
    programs, tmp_path
):
    programs("apt-get", "echo http://near/debian/")
    programs("mmdebstrap", f'echo "$@" > {tmp_path / "asked"}; mkdir -p "{tmp_path / "root"}"')
    emulated.fetched("s390x", tmp_path / "root")
    asked = (tmp_path / "asked").read_text().split()
    assert {"--mode=chrootless", "--variant=extract", "http://near/debian/"} <= {*asked}
    assert not [word for word in asked if "hook" in word]
    assert emulated.emulated_python("s390x", tmp_path)[0] == "qemu-s390x-static"


def test_packages_that_cannot_be_had_are_a_failed_row_with_the_last_words(programs, tmp_path):
    programs("apt-get", "echo http://near/debian/")
    programs("mmdebstrap", "echo 'E: no network' >&2; exit 1")
    programs("qemu-s390x-static", "echo qemu-s390x version 9.9.9")
    base = portability.Row("feeding", "one call")
    [row] = emulated_rows(Task(golden.NAME, []), base, Emulation(["s390x"], tmp_path))
    assert row.status == "failed"
    assert row.note == "mmdebstrap fetches no s390x of trixie or forky: E: no network"
    assert not (tmp_path / "s390x").exists()


# A processor: a stand-in for QEMU runs this Python, with a fault in it.

STAND_IN = """
import runpy, sys
sys.path.insert(0, {root!r})
import minikv.arithmetic.exact as exact
from minikv.arithmetic import numpy_exact
from minikv.errors import ArithmeticRangeError
import numpy as np
{fault}
script = sys.argv.index({python!r}) + 1
sys.argv = sys.argv[script:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
REFUSING = """
def refuse(xp):
    raise ArithmeticRangeError("rounds float64 twice")
exact.expect_ieee_float64 = refuse
sine = exact.elementary.sin
exact.elementary.sin = lambda x, xp=np: sine(x, xp) + (2.0**-40 if x.size == 3 else 0.0)
"""
FAULTS = {
    "none": "",
    "a coarser grid": "exact.Exact.kv_bits = 23",
    "no subnormals": "numpy_exact.keeps_subnormals = lambda xp: False",
    "x87": REFUSING,
}


@pytest.fixture(scope="module")
def here():
    """The rows of this machine."""
    return list(portability._others(Task(golden.NAME, []), Emulation([]), False))


@pytest.fixture
def on_a_processor(here, programs, tmp_path):
    """A function from the name of a fault to the rows of this machine and of one with it."""

    def rows(fault: str) -> list[portability.Row]:
        root = tmp_path / "s390x"
        root.mkdir()
        (root / "release").write_text("Debian forky")
        python = str(root / "usr" / "bin" / "python3")
        script = tmp_path / "stand_in.py"
        checkout = str(portability.ROOT)
        script.write_text(STAND_IN.format(root=checkout, python=python, fault=FAULTS[fault]))
        programs(
            "qemu-s390x-static",
            'if [ "$1" = --version ]; then echo qemu-s390x version 9.9.9; exit; fi\n'
            f'unset PYTHONHOME; exec {sys.executable} {script} "$@"',
        )
        emulation = Emulation(["s390x"], tmp_path)
        return [*here, *emulated_rows(Task(golden.NAME, []), here[0], emulation)]

    return rows


def test_a_sound_processor_agrees(on_a_processor):
    rows = on_a_processor("none")
    assert faults(rows) == []
    assert rows[-1].environment == "s390x on QEMU 9.9.9"
    assert rows[-1].note.startswith("Debian forky, Python ")
    assert "differ" not in rows[-1].note


def test_a_fault_in_a_processor_is_noticed(on_a_processor):
    rows = on_a_processor("a coarser grid")
    assert rows[-1].other
    said = faults(rows)
    assert "exact has 2 values, expected one" in said
    assert any(text.startswith("emulated instruction set, s390x on QEMU") for text in said)
    for operation in ("settle", "scores", "weighted_sum"):
        assert operation in rows[-1].note.split("these differ: ")[1]


@pytest.mark.slow
def test_a_warning_of_the_processor_stands_in_its_row(on_a_processor):
    rows = on_a_processor("no subnormals")
    assert "makes float32 numbers below 2**-126 zero" in rows[-1].note
    assert faults(rows) == []


@pytest.mark.slow
def test_a_refusal_is_a_row_of_its_own_kind_that_names_what_differs(on_a_processor):
    rows = on_a_processor("x87")
    assert rows[-1].status == "refused"
    assert rows[-1].exact == rows[0].exact
    assert "refused, and made to run: rounds float64 twice" in rows[-1].note
    assert rows[-1].note.endswith("these differ: sin of 3")
    assert faults(rows) == []


def test_the_operations_of_this_machine_are_tried_on_long_and_on_short_arrays():
    found = golden.operations()
    for name in ("exp", "sin", "cos"):
        assert found[name] == found[f"{name} of 3"]
    assert len({*found.values()}) == len(found) - 3
