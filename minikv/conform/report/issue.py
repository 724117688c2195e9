"""A bug as a text to paste into an issue."""

from __future__ import annotations

from ..axes import AXES
from ..outcome import Report
from ..verdict import Verdict


def as_issue(report: Report, bug: Verdict) -> str:
    """What was expected, what was seen, how to see it, and on what; Markdown."""
    lines = [f"{report.target}: {bug.axis} fails, and it is not rounding", ""]
    if bug.axis in AXES:
        lines += ["Expected:", f"> {AXES[bug.axis].meaning}", ""]
    lines += [f"Seen, in {report.dtype}:", f"> {bug.evidence}"]
    if bug.row is not None:
        lines.append(f"> first bad position: {bug.row}")
    if bug.where:
        lines.append(f"> first bad activation: {bug.where}")
    if bug.case is not None:
        calls = _calls(bug)
        lines += ["", "Smallest case:", "```python", *calls, "```"]
    else:
        lines += ["", "To see it again:", "```console", _again(report, bug), "```"]
    if bug.kind is not None:
        lines += ["", f"It looks like: {bug.kind}."]
    lines += ["", f"({versions(report)}; found by minikv conform)"]
    return "\n".join(lines)


def versions(report: Report) -> str:
    """What was run, with versions."""
    return ", ".join(f"{name} {value}" for name, value in report.environment.items())


def _again(report: Report, bug: Verdict) -> str:
    """The command that runs this axis, on the shortest texts that show the bug."""
    axes = f" --axes {bug.axis}" if bug.axis in AXES else ""
    length = "" if bug.length is None else f" --length {bug.length}"
    return f"minikv conform TARGET{axes}{length} --seed {report.seed}"


def _calls(bug: Verdict) -> list[str]:
    """The smallest case as calls of an adapter."""
    assert bug.case is not None
    lines = [f"expected = logits({list(bug.case.ids)})", "cache = new_cache()"]
    start = 0
    for count in bug.case.chunks:
        end = start + count
        new = list(bug.case.ids[start:end])
        lines.append(f"got = step({new}, cache)  # expected[{start}:{end}]")
        start = end
    return lines
