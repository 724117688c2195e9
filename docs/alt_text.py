"""Alternative text for the plots of the chapters: what the plot's own code writes on it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

AXES = {"set_xlabel": "across", "set_ylabel": "up"}


def wording(node: ast.expr) -> str:
    """The text of a string, or of an f-string with dots where a value goes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(wording(part) or "..." for part in node.values)
    return ""


def written(source: str) -> Iterator[tuple[str, str]]:
    """Function and text of each title and axis label that a cell sets."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if name in ("set_xlabel", "set_ylabel", "set_title", "suptitle") and node.args:
            yield name, wording(node.args[0])
        for keyword in node.keywords:
            if keyword.arg in ("xlabel", "ylabel", "title"):
                yield f"set_{keyword.arg}", wording(keyword.value)


def alternative(source: str, heading: str) -> str:
    """What a plot shows, from the code that draws it and the heading that it stands under.

    Examples
    --------
    >>> alternative('axes.set_xlabel("turn")\\naxes.set_ylabel("MB")', "What a cache holds")
    'Plot: What a cache holds. Across: turn. Up: MB.'
    """
    said = [f"Plot: {heading}."]
    for name, words in written(source):
        words = " ".join(words.replace("$", "").split())
        part = f"{AXES.get(name, '').capitalize()}: {words}.".removeprefix(": ")
        if words.strip(". ") and part not in said:
            said.append(part)
    return " ".join(said)


def describe(cells: list[dict]) -> None:
    """Give each plot of a notebook its alternative text, unless its cell has one."""
    heading = ""
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            heads = re.findall(r"^#+ (.+)$", source, re.MULTILINE)
            heading = heads[-1].replace("`", "").replace("$", "") if heads else heading
        elif any("image/png" in output.get("data", {}) for output in cell["outputs"]):
            mystnb = cell["metadata"].setdefault("mystnb", {})
            mystnb.setdefault("image", {}).setdefault("alt", alternative(source, heading))
