"""What a run found, as text, JSON, JUnit, a page, and a text for an issue."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from minikv.conform import Report, Verdict, Word, conform
from minikv.conform.report import as_figures, as_html, as_issue, as_junit
from minikv.conform.testing import conform_tests
from tests.conform.zoo import decoder


@pytest.fixture(scope="module")
def bad():
    return conform(decoder("llama-numpy", faults=("pos_plus1",)), axes=["cached", "window"])


def test_text_has_a_line_an_axis_and_the_details_of_a_bug(bad):
    text = str(bad)
    assert "cached               bug" in text
    assert "first bad position" in text
    assert "in chunks of 1+1" in text
    assert "looks like: a position off by one (reproduced in minikv)" in text
    assert "not tested, because the target has no reach: window" in text
    assert text.endswith("exit code 1")


def test_figures_are_json(bad):
    figures = json.loads(json.dumps(as_figures(bad), allow_nan=False))
    cached = next(one for one in figures["axes"] if one["axis"] == "cached")
    assert cached["verdict"] == "bug"
    assert cached["smallest_case"]["chunks"] == [1, 1]
    assert figures["exit_code"] == 1


def test_junit_has_a_failure_for_a_bug_and_skips_what_is_not_tested(bad):
    suite = ElementTree.fromstring(as_junit(bad))
    assert suite.get("failures") == "1"
    assert suite.get("skipped") == "1"
    cases = {case.get("name"): case for case in suite}
    assert "chunks" in cases["cached"].find("failure").get("message")
    assert "no reach" in cases["window"].find("skipped").get("message")
    assert cases["same-call"].find("failure") is None


def test_the_page_is_html_and_stands_alone(bad):
    seen = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            seen.append((tag, dict(attrs)))

    page = as_html(bad)
    Reader().feed(page)
    assert not [one for one in seen if {"src", "href"} & one[1].keys()]
    tested = [one for one in bad.verdicts if one.word is not Word.NOT_TESTED]
    assert page.count("<tr><td") == len(tested) == len(bad.verdicts) - 1
    assert "<li>the target has no reach: window" in page
    assert "To paste into an issue" in page
    assert "the smallest case" not in page
    assert "<script" not in page


def test_the_issue_text_can_be_run_as_it_stands(bad):
    text = as_issue(bad, bad["cached"])
    code = text.split("```python\n")[1].split("\n```")[0]
    made = decoder("llama-numpy", faults=("pos_plus1",))
    names = {"logits": made.logits, "step": made.step, "new_cache": made.new_cache}
    exec(code, names)
    assert abs(names["got"] - names["expected"][1:2]).max() > 1e-3
    assert "numpy" in text


def test_the_issue_text_of_another_axis_has_the_command_that_shows_it():
    report = conform(decoder("gpt-numpy", faults=("trunc_pos",)), axes=["truncate"], effort="quick")
    text = as_issue(report, report["truncate"])
    assert f"minikv conform TARGET --axes truncate --length {report['truncate'].length}" in text
    report = conform(decoder("gpt-numpy", faults=("pos_wrap",)), axes=["last-position"])
    assert "TARGET --axes last-position --seed 0" in as_issue(report, report["last-position"])


CALL = Verdict("same-call", Word.SAME)
SAME = Verdict("causality", Word.SAME)
BUG = Verdict("cached", Word.BUG)
UNDECIDED = Verdict("length", Word.UNDECIDED)
UNTESTED = Verdict("fork", Word.NOT_TESTED)


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ((CALL, SAME, UNTESTED), 0),
        ((CALL, BUG, UNDECIDED), 1),
        ((CALL, SAME, UNDECIDED), 2),
        ((CALL, UNTESTED), 2),
        ((CALL,), 0),
    ],
)
def test_the_exit_code_is_1_for_a_bug_and_2_for_what_stays_open(verdicts, code):
    assert Report("a target", "float32", "none", verdicts, 0.0, 0, {}).exit_code == code


@pytest.mark.parametrize(
    ("made", "axis", "settings", "words"),
    [
        ({"faults": ("pos_plus1",)}, "cached", {}, "smallest case ids"),
        ({}, "window", {}, "the target has no reach"),
        (
            {"dtype": "bfloat16", "faults": ("kv_int8",)},
            "cached",
            {"twin": "none"},
            "a fault below",
        ),
    ],
)
def test_a_test_of_an_axis_fails_for_a_bug_and_is_skipped_for_what_is_open(
    made, axis, settings, words
):
    test = conform_tests(
        lambda: decoder("llama-numpy", **made), [axis], effort="quick", length=24, **settings
    )
    with pytest.raises((pytest.fail.Exception, pytest.skip.Exception), match=words) as raised:
        test(axis)
    assert (raised.type is pytest.fail.Exception) == (made == {"faults": ("pos_plus1",)})
