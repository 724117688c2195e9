"""docs/roofline.md: its table and its words are what benchmarks/GOALS.md measured."""

from __future__ import annotations

import doctest

import pytest
import roofline_page

from benchmarks import goals
from benchmarks.roofline import Counts
from minikv.shapes import shape

PAGE = roofline_page.PAGE.read_text(encoding="utf-8")
KEPT = roofline_page.GOALS.read_text(encoding="utf-8")
SMOLLM = shape("smollm2-135m")
COUNTS = Counts(**{name: getattr(SMOLLM, name) for name in Counts.__dataclass_fields__})
MADE = """\
# Goals

## One thread

* processor: a chip, 2 usable cores
* BLAS: a library (some kernels, 1 threads)
* date: 1 May
* clock: cpu
* rounds: 5
* turns disturbed by other programs: 0 of 9

| work | in units of | now | quartiles | floor | goal | verdict | time | flops | bytes |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| `float32/numpy prefill 512` | bare | 1.50 | 1 to 2 | 1.00 | 1.20 | MISSED | 50 ms | 2 G | 10 MB |
| `exact/numba decode 16` | bare | 0.80 | 1 to 2 | 0.40 | 0.90 | met | 50 ms | 0.2 G | 400 MB |
| `exact/numba first 16` | x | not measured |  |  | 0.30 |  |  |  |  |

| rate | measured |
| --- | --- |
| float32 products (BLAS) | 90 Gflop/s |
| float64 products (BLAS) | 45 Gflop/s |
| reading memory | 10 GB/s |
"""


def test_examples_are_so():
    found = doctest.testmod(roofline_page)
    assert found.attempted > 0
    assert found.failed == 0


def test_the_page_has_what_the_goals_say():
    assert roofline_page.written(PAGE, KEPT) == PAGE, "run  python docs/roofline_page.py --write"
    assert roofline_page.written(PAGE, MADE) != PAGE


def test_points_lie_where_flops_bytes_and_times_put_them():
    (section,) = roofline_page.sections(MADE)
    assert list(section.points) == [
        ("float32/numpy", "prefill 512", 200.0, 40e9),
        ("exact/numba", "decode 16", 0.5, 4e9),
    ]
    assert section.roof("reading") == 10e9
    assert "Decoding: 0.5 to 0.5 flops a byte, 4 to 4 Gflop/s." in roofline_page.words([section])


def test_what_is_furthest_above_its_floor_comes_first():
    (section,) = roofline_page.sections(MADE)
    rows = roofline_page.remaining(section)[4:-1]
    assert rows == ["| `exact/numba decode 16` | 2.00 |", "| `float32/numpy prefill 512` | 1.50 |"]


def test_a_quick_run_is_said_to_be_none():
    quick = MADE.replace("* clock", "* quick: no result\n* clock")
    assert "A quick run" not in roofline_page.block(MADE)
    assert "1 May; processor time; rounds: 5; turns" in roofline_page.block(MADE)
    assert "A quick run" in roofline_page.block(quick)


def test_goals_without_a_run_are_refused():
    with pytest.raises(SystemExit, match=r"benchmarks\.goals --write"):
        roofline_page.block("# Goals\n")


@pytest.mark.slow
def test_the_plot_is_drawn_with_both_runs(tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra `plots`")
    two = MADE[MADE.index("## One") :].replace("One thread", "Two threads")
    roofline_page.draw(roofline_page.sections(MADE + "\n" + two), tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")


def test_a_token_does_half_a_flop_a_byte_and_a_prompt_half_as_many_as_it_has_tokens():
    token = COUNTS.flops("decode 0") / COUNTS.bytes("decode 0")
    assert token == 1 / 2
    assert COUNTS.flops("decode 0") / COUNTS.bytes("decode 0", a_weight=2) == 1
    blocks = 2 * 512 * COUNTS.num_hidden_layers * COUNTS.block
    assert blocks / (4 * COUNTS.num_hidden_layers * COUNTS.block) == 512 / 2


def test_what_the_page_says_of_work_is_what_the_goals_are_about():
    kinds = {goal.task.split()[0] for goal in goals.GOALS}
    assert kinds == {"prefill", "decode", "first", "peak"}
    told = PAGE.split("## What a floor is made of")[1].split("<!--")[0]
    words = ("decode", "prefill", "first token", "KV-Direct", "H2O, TOVA", "memory")
    assert all(f"| {word}" in told for word in words)
