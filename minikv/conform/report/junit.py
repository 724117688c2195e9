"""A run as a JUnit file, which CI systems show: one test case an axis."""

from __future__ import annotations

from xml.etree import ElementTree

from ..outcome import Report
from ..verdict import Verdict, Word


def as_junit(report: Report) -> str:
    """A bug is a failure; what is undecided or not tested is skipped, with the reason."""
    words = [verdict.word for verdict in report.verdicts]
    skipped = words.count(Word.UNDECIDED) + words.count(Word.NOT_TESTED)
    suite = ElementTree.Element(
        "testsuite",
        name=f"minikv conform {report.target}",
        tests=str(len(words)),
        failures=str(words.count(Word.BUG)),
        skipped=str(skipped),
        errors="0",
        time=f"{report.seconds:.3f}",
    )
    for verdict in report.verdicts:
        _add(suite, verdict)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _add(suite: ElementTree.Element, verdict: Verdict) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname="conform", name=verdict.axis)
    told = "\n".join(part for part in verdict.details() if part)
    if verdict.word is Word.BUG:
        failure = ElementTree.SubElement(case, "failure", message=verdict.evidence)
        failure.text = told
    elif verdict.word in (Word.UNDECIDED, Word.NOT_TESTED):
        ElementTree.SubElement(case, "skipped", message=f"{verdict.word}: {verdict.evidence}")
    else:
        ElementTree.SubElement(case, "system-out").text = f"{verdict.word}: {told}"
