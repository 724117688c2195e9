"""Colour is on a terminal that has it, and nowhere else."""

from __future__ import annotations

import io
import sys

import pytest

from minikv.colour import JUDGEMENTS, has_colour, judged


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "settings", "coloured"),
    [
        (Screen(), {}, True),
        (Screen(), {"NO_COLOR": ""}, True),  # no-color.org: present and not empty
        (Screen(), {"NO_COLOR": "1"}, False),
        (Screen(), {"TERM": "dumb"}, False),
        (Screen(), {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        (io.StringIO(), {}, False),
        (io.StringIO(), {"FORCE_COLOR": "1"}, True),
        (io.StringIO(), {"FORCE_COLOR": "0"}, False),
    ],
)
def test_colour_is_where_a_terminal_has_it_and_nobody_forbids_it(
    monkeypatch, stream, settings, coloured
):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert has_colour(stream) == coloured
    monkeypatch.setattr(sys, "stdout", stream)
    assert (judged("holds ") == "holds ") == (not coloured)


def test_a_judgement_has_its_colour_and_other_words_have_none(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Screen())
    assert judged("holds  ") == "\033[32mholds  \033[0m"
    assert judged("FAILS") == "\033[31mFAILS\033[0m"
    assert judged("missing") == "\033[33mmissing\033[0m"
    assert judged("nothing") == "nothing"
    assert JUDGEMENTS["yes"] != JUDGEMENTS["no"]
