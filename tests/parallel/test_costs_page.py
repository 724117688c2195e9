"""docs/parallel.md: its prose says of its tables what they hold, and what is computed now."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks import ranks
from minikv.parallel.cost import said_per_token
from minikv.shapes import shape

PAGE = Path(__file__).parents[2] / "docs" / "parallel.md"


def measured() -> list[list[str]]:
    """The rows of the page's two tables of what ranks cost, each by its words."""
    text = PAGE.read_text(encoding="utf-8").split("## What it costs")[1].split("--project")[0]
    return [line.split() for line in text.splitlines() if re.match(r"\s+[124]  yes", line)]


def test_more_ranks_are_slower_on_the_page_and_speak_as_often_as_the_cost_model_says():
    rows = measured()
    assert len(rows) == 6
    calls = said_per_token(shape("smollm2-135m"), 2).calls
    for one, two, four in (rows[:3], rows[3:]):
        assert float(one[-1]) < float(two[-1])
        assert float(one[-1]) < float(four[-1])
        assert int(two[2]) == int(four[2]) == calls == 183


def test_rank_0_sends_more_bytes_the_more_ranks_there_are():
    units = {"kB": 1e3, "MB": 1e6}
    for one, two, four in (measured()[:3], measured()[3:]):
        assert one[3:5] == ["0", "B"]
        assert float(two[3]) * units[two[4]] < float(four[3]) * units[four[4]]


def test_the_projection_on_the_page_is_what_the_command_prints(capsys):
    ranks.project()
    printed = capsys.readouterr().out.strip()
    assert printed in PAGE.read_text(encoding="utf-8")
    tables = re.findall(r"(?m)^ranks .*\n((?: +\d[\d. ]+(?:\n|\Z))+)", printed)
    assert len(tables) == 2
    for table in tables:
        (ranks_of_one, *one), *more = [
            [float(number) for number in line.split()] for line in table.strip().splitlines()
        ]
        assert ranks_of_one == 1
        assert more[0][0] == 2
        for _, *many in more:
            assert all(after < before for before, after in zip(one, many, strict=True))
