"""Tables and JSON, as commands print them."""

from __future__ import annotations

import json

import pytest

from minikv.commands.output import print_json, print_table


def test_a_table_aligns_words_left_and_numbers_right(capsys):
    print_table(["name", "of", "count"], [["a", True, 1234567], ["long", None, 8]])
    assert capsys.readouterr().out == (
        "name  of       count\na     yes  1,234,567\nlong  -            8\n"
    )


@pytest.mark.parametrize("one_line", [False, True])
def test_json_reads_back(one_line, capsys):
    value = {"text": 'a "b"\n', "ids": [1, 2], "none": None, "share": 0.1}
    print_json(value, one_line)
    out = capsys.readouterr().out
    assert json.loads(out) == value
    assert out.count("\n") == (1 if one_line else len(value) + 2)
