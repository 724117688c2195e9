"""Forty-two questions with answers, of ``questions.toml``: as Moodle XML or as plain text.

python notebooks/lecturer/questions.py --moodle questions.xml
python notebooks/lecturer/questions.py --text questions.txt
"""

from __future__ import annotations

import argparse
import random
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

FILE = Path(__file__).with_name("questions.toml")


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes
    ----------
    chapter : int
    text : str
    answer : str, int or float
        A number where the question asks for one, otherwise the right choice.
    wrong : tuple of str
        The other choices.
    computed : str
        Python that gives the number.
    """

    chapter: int
    text: str
    answer: str | int | float
    wrong: tuple[str, ...] = ()
    computed: str = ""

    @property
    def choices(self) -> list[str]:
        """All choices, in an order that the text decides."""
        mixed = [str(self.answer), *self.wrong]
        random.Random(self.text).shuffle(mixed)
        return mixed


def questions() -> list[Question]:
    """All of them, in the order of the file."""
    given = tomllib.loads(FILE.read_text(encoding="utf-8"))["question"]
    return [Question(**each | {"wrong": tuple(each.get("wrong", ()))}) for each in given]


def moodle(asked: list[Question]) -> str:
    """The XML that Moodle imports: a category for each chapter."""
    quiz = ElementTree.Element("quiz")
    chapter = None
    for number, question in enumerate(asked, start=1):
        if question.chapter != chapter:
            chapter = question.chapter
            category = ElementTree.SubElement(quiz, "question", type="category")
            _text(category, "category", f"$course$/minikv/Chapter {chapter:02}")
        kind = "multichoice" if question.wrong else "numerical"
        entry = ElementTree.SubElement(quiz, "question", type=kind)
        _text(entry, "name", f"{number:02}")
        _text(entry, "questiontext", question.text).set("format", "plain_text")
        ElementTree.SubElement(entry, "defaultgrade").text = "1"
        if kind == "multichoice":
            ElementTree.SubElement(entry, "single").text = "true"
            ElementTree.SubElement(entry, "shuffleanswers").text = "true"
            for choice in question.choices:
                share = "100" if choice == question.answer else "0"
                _text(entry, "answer", choice).set("fraction", share)
        else:
            answer = _text(entry, "answer", f"{question.answer}")
            answer.set("fraction", "100")
            ElementTree.SubElement(answer, "tolerance").text = f"{tolerance(question)}"
    ElementTree.indent(quiz)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(quiz, "unicode") + "\n"


def tolerance(question: Question) -> float:
    """Half of a unit of the last digit that is asked for; none for whole numbers."""
    digits = str(question.answer).partition(".")[2]
    return 0.5 * 10.0 ** -len(digits) if digits else 0.0


def _text(parent: ElementTree.Element, tag: str, words: str) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, tag)
    ElementTree.SubElement(element, "text").text = words
    return element


def plain(asked: list[Question]) -> str:
    """Questions first, answers after them."""
    lines = []
    answers = []
    for number, question in enumerate(asked, start=1):
        head = f"{number:2}. (chapter {question.chapter}) "
        lines.append(textwrap.fill(head + question.text, 78, subsequent_indent="    "))
        answer = f"{question.answer}"
        for letter, choice in zip("abcd", question.choices if question.wrong else [], strict=False):
            lines.append(textwrap.fill(f"    {letter}) {choice}", 78, subsequent_indent=" " * 7))
            if choice == question.answer:
                answer = f"{letter}) {choice}"
        lines.append("")
        answers.append(textwrap.fill(f"{number:2}. {answer}", 78, subsequent_indent="    "))
    return "\n".join([*lines, "Answers", "", *answers]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--moodle", type=Path, metavar="FILE", help="write Moodle XML")
    parser.add_argument("--text", type=Path, metavar="FILE", help="write plain text")
    options = parser.parse_args()
    if options.moodle is None and options.text is None:
        parser.error("say --moodle FILE or --text FILE")
    if options.moodle is not None:
        options.moodle.write_text(moodle(questions()), encoding="utf-8")
    if options.text is not None:
        options.text.write_text(plain(questions()), encoding="utf-8")


if __name__ == "__main__":
    main()
