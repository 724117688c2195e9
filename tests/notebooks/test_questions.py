"""The forty-two questions: numbers are computed, choices differ, and both forms hold them all."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "notebooks" / "lecturer"))

import questions

import minikv

ASKED = questions.questions()
NUMBERS = [question for question in ASKED if question.computed]


def test_there_are_forty_two_of_all_chapters():
    assert len(ASKED) == 42
    assert {question.chapter for question in ASKED} == set(range(12))
    assert len({question.text for question in ASKED}) == 42


@pytest.mark.parametrize("question", NUMBERS, ids=[each.text[:40] for each in NUMBERS])
def test_the_answer_is_what_python_computes(question):
    space = {"math": math, "np": np, "minikv": minikv}
    assert eval(question.computed, space) == pytest.approx(question.answer, rel=1e-12)


def test_every_other_question_has_three_wrong_choices():
    for question in ASKED:
        if not question.computed:
            assert len({question.answer, *question.wrong}) == 4


def test_moodle_gets_all_with_one_right_answer_each():
    root = ElementTree.fromstring(questions.moodle(ASKED).partition("\n")[2])
    found = [entry for entry in root if entry.get("type") != "category"]
    assert len(found) == 42
    for entry, question in zip(found, ASKED, strict=True):
        right = [each for each in entry.iter("answer") if each.get("fraction") == "100"]
        assert [each.findtext("text") for each in right] == [str(question.answer)]
        assert len(list(entry.iter("answer"))) == 1 + len(question.wrong)


def test_the_text_has_answers_after_all_questions():
    text = questions.plain(ASKED)
    before, _, after = text.partition("\nAnswers\n")
    assert all(f"{number:2}. " in before for number in range(1, 43))
    assert all(f"\n{number:2}. " in after for number in range(1, 43))


def test_a_wrong_number_would_be_found():
    wrong = questions.Question(1, "2 + 2?", 5, computed="2 + 2")
    with pytest.raises(AssertionError):
        test_the_answer_is_what_python_computes(wrong)
