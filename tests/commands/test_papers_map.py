"""A reader's machine, measured by a command, stands on the map of figure 7."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from minikv.errors import InputError
from minikv.experiments import crossover, machines
from minikv.experiments.machines import Machine
from minikv.experiments.plots import new_figure
from minikv.paper.claims.figure_7_tiers import CLAIM, with_machines
from minikv.paper.run import kept

RESULTS = Path(__file__).parents[2] / "docs" / "paper" / "results"
FAST = Machine("fast", 800e9, 4e12, (700e9, 3e12), (900e9, 5e12), 4, "a CPU", "2026-01-02", ())


@pytest.fixture
def small(monkeypatch):
    """A copy and a product that take no time."""
    monkeypatch.setattr(crossover, "COPIED", 2**16)
    monkeypatch.setattr(crossover, "PRODUCT", (8, 16, 16))


def test_a_machine_is_measured_kept_and_read_again(small, run, tmp_path):
    code, out, _ = run("paper", "--machine", "mine-2", "--keep", tmp_path)
    assert code == 0
    assert "GFLOP/s" in out
    (told,) = machines.read(tmp_path)
    assert told.name == "mine-2"
    assert told.lowest[0] <= told.traffic <= told.highest[0]
    assert told.lowest[1] <= told.rate <= told.highest[1]
    held = json.loads((tmp_path / "machines" / "mine-2.json").read_text(encoding="utf-8"))
    printed = json.loads(run("paper", "--machine", "mine-2", "--keep", tmp_path, "--json")[1])
    assert printed.keys() == held.keys() | {"file"}


def test_a_machine_has_a_row_a_sentence_and_a_point_on_the_map():
    finding = kept(RESULTS)[CLAIM.id].finding
    assert with_machines(finding, []) is finding
    shown = with_machines(finding, [FAST])
    row = dict(zip(shown.columns, shown.rows[-1], strict=True))
    assert row["K and V lie in"] == "memory of fast (4000 GFLOP/s)"
    assert row["MB/s"] == 400_000
    work = crossover.Work(**finding.figures["work"][finding.figures["own"]])
    roofline = FAST.roofline
    count = finding.figures["rows"]
    read = roofline.itemsize * count * work.kv / (FAST.traffic / 2)
    assert row["roofline"] == pytest.approx(roofline.project_seconds(work, count) / read, rel=1e-12)
    assert "fast " in shown.reason
    pytest.importorskip("matplotlib", reason="plots need the extra `plots`")
    figure = new_figure()
    CLAIM.plot(figure, shown.figures)
    (axes,) = figure.axes
    points = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert points["fast: its memory"] == [[100_000, 4000]]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"name": "one"}', json.dumps({"name": "one", "more": 1})]
)
def test_what_is_no_machine_is_refused_in_a_line(tmp_path, text):
    path = machines.write(tmp_path, replace(FAST, name="one"))
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"one\.json holds no machine of minikv paper --machine"):
        machines.read(tmp_path)


def test_a_machine_that_does_nothing_or_has_anothers_name_is_refused(tmp_path):
    path = machines.write(tmp_path, replace(FAST, rate=0.0))
    with pytest.raises(InputError, match="above 0, and the file's own name"):
        machines.read(tmp_path)
    machines.write(tmp_path, FAST)
    path.rename(path.with_name("other.json"))
    with pytest.raises(InputError, match="the file's own name"):
        machines.read(tmp_path)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--machine", "mine"], "expected --keep FOLDER"),
        (["--machine", "My PC", "--keep", "."], "small letters, digits, dots and hyphens"),
        (["--machine", "mine", "--keep", "no-such-folder"], "expected a folder that exists"),
        (["--machine", "mine", "--keep", ".", "--quick"], "leave out --quick"),
        (["--machine", "mine", "--table", "1"], "not allowed with"),
    ],
)
def test_wrong_requests_for_a_machine_are_refused_in_a_line(argv, told, refused):
    assert told in refused("paper", *argv)
