"""docs/conform.md: its code runs, and its tables are those that the commands make."""

from __future__ import annotations

import doctest
import re

from tests.conform import tables


def test_the_adapter_on_the_page_does_what_the_page_says():
    page = tables.PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(>>> .*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1
    parsed = doctest.DocTestParser().get_doctest(blocks[0], {}, "conform.md", "conform.md", 0)
    assert len(parsed.examples) >= 8
    report: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(parsed, out=report.append)
    assert not report, "".join(report)


def test_the_adapter_has_the_lines_that_its_heading_says():
    page = tables.PAGE.read_text(encoding="utf-8")
    said = int(re.search(r"## An adapter in (\d+) lines", page)[1])
    start = page.index(">>> class Averaging")
    lines = page[start : page.index(">>> report")].strip().splitlines()
    assert len(lines) <= said


def test_the_tables_on_the_page_are_those_that_the_command_writes():
    page = tables.PAGE.read_text(encoding="utf-8")
    advice = "run  python -m tests.conform.tables --write"
    assert tables.written(page) == page, advice
    assert page.count("<!-- end -->") == 3
