"""Which page of the site stands where: the parts of the reference, and pages that nobody listed."""

from __future__ import annotations

import re
from collections.abc import Iterable

TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^# (.+)$", re.MULTILINE)


def listed(index: str) -> set[str]:
    """The pages in a page's tables of contents.

    Examples
    --------
    >>> sorted(listed("```{toctree}\\n:hidden:\\n\\nhowto\\nTheorems <theorems>\\n```"))
    ['howto', 'theorems']
    """
    lines = "\n".join(TOCTREE.findall(index)).splitlines()
    entries = [line.strip() for line in lines if line.strip() and line[0] != ":"]
    return {re.sub(r"^.*<(.+)>$", r"\1", entry) for entry in entries}


def with_the_rest(index: str, pages: Iterable[str]) -> str:
    """The home page with one more table of contents, of the pages that it does not list.

    So a new page is on the site before anyone has chosen a place for it.

    Examples
    --------
    >>> "More" in with_the_rest("# Home", []), "More" in with_the_rest("# Home", ["new"])
    (False, True)
    """
    rest = sorted(set(pages) - listed(index))
    if not rest:
        return index
    return f"{index}\n```{{toctree}}\n:hidden:\n:caption: More\n\n" + "\n".join(rest) + "\n```\n"


def slug(heading: str) -> str:
    """A heading as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def parts(reference: str) -> dict[str, str]:
    """The pages of the reference: its first part under ``reference``, then one for each heading.

    The source is one file, so that a new module has one place to go to.

    Examples
    --------
    >>> list(parts("# Reference\\nfirst\\n# Caches\\n## Full\\n"))
    ['reference', 'reference-caches']
    """
    starts = [found.start() for found in HEADING.finditer(reference)]
    texts = [reference[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]
    pages = {}
    for text in texts:
        heading = HEADING.match(text)
        assert heading is not None
        name = f"reference-{slug(heading[1])}" if pages else "reference"
        pages[name] = text
    contents = "\n".join(name for name in pages if name != "reference")
    pages["reference"] += f"\n```{{toctree}}\n:caption: By topic\n:maxdepth: 2\n\n{contents}\n```\n"
    return pages
