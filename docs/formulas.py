"""Formulas as MathML, on the site and on slides."""

from __future__ import annotations

import re

import latex2mathml.converter

UNKNOWN = re.compile(r"\\(?:Big|[lr]Vert)(?![a-zA-Z])")  # which the converter shows as they are
KNOWN = {r"\lVert": r"\|", r"\rVert": r"\|"}


def mathml(text: str, block: bool) -> str:
    r"""A formula in TeX as MathML, on a line of its own or in one.

    Examples
    --------
    >>> "Vert" in mathml(r"\Big\lVert v \Big\rVert", block=False)
    False
    """
    text = UNKNOWN.sub(lambda found: KNOWN.get(found[0], ""), text).strip()
    return latex2mathml.converter.convert(text, display="block" if block else "inline")
