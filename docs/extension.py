"""What the site needs of Sphinx beside its settings (`conf.py`)."""

from __future__ import annotations

import inspect
import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import formulas
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.inspect import TypeAliasForwardRef

ROOT = next(
    folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").exists()
)
ARXIV = re.compile(r"arXiv[: ]\s*(\d{4}\.\d{5})")


def mathml(self: Any, node: nodes.Element) -> None:
    """Write a formula as MathML; one that cannot be converted fails the build."""
    block = isinstance(node, nodes.math_block)
    html = formulas.mathml(node.astext(), block)
    self.body.append(f'<div class="formula">{html}</div>' if block else html)
    raise nodes.SkipNode


def linked(words: str) -> Iterator[nodes.Node]:
    """A text in which each paper on arXiv is a link.

    Examples
    --------
    >>> [type(node).__name__ for node in linked("Xiao et al., arXiv 2309.17453, say")]
    ['Text', 'reference', 'Text']
    """
    end = 0
    for found in ARXIV.finditer(words):
        if found.start() > end:
            yield nodes.Text(words[end : found.start()])
        address = f"https://arxiv.org/abs/{found[1]}"
        yield nodes.reference(found[0], found[0], refuri=address, internal=False)
        end = found.end()
    if end < len(words):
        yield nodes.Text(words[end:])


class PapersAsLinks(SphinxTransform):
    """Every paper that a page, a chapter or a docstring names by its arXiv number is a link."""

    default_priority = 780

    def apply(self, **_: Any) -> None:
        for node in list(self.document.findall(nodes.Text)):
            if not ARXIV.search(node.astext()) or _inside(node, UNTOUCHED):
                continue
            node.parent.replace(node, list(linked(node.astext())))


UNTOUCHED = (nodes.reference, nodes.literal, nodes.literal_block, nodes.title, nodes.raw)


def _inside(node: nodes.Node, kinds: tuple[type, ...]) -> bool:
    parent = node.parent
    while parent is not None:
        if isinstance(parent, kinds):
            return True
        parent = parent.parent
    return False


def module_summary(
    app: Sphinx, what: str, name: str, module: Any, options: Any, lines: list[str]
) -> None:
    """Put a table of what a module offers behind its docstring."""
    members = getattr(options, "members", None)
    if what != "module" or not members:
        return
    asked = list(members) if isinstance(members, list | tuple | set) else None
    shown = [
        member
        for member, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
        and member[0] != "_"
        and value.__doc__
        and (asked is None or member in asked)
    ]
    if len(shown) > 1:
        lines += ["", ".. autosummary::", "   :nosignatures:", ""]
        lines += [f"   {member}" for member in shown]
        lines.append("")


def fields_too(
    app: Sphinx, what: str, name: str, value: Any, skip: bool, options: Any
) -> bool | None:
    """Show the fields of a class that have no text of their own, with their types."""
    if what == "class" and skip and name[0] != "_" and not callable(value):
        return False
    return None


def repository() -> str | None:
    """Where the source is: as ``MINIKV_REPOSITORY`` says, or the project's metadata; else None.

    Every page then has a link to its own source there, to read or to edit.
    """
    told = os.environ.get("MINIKV_REPOSITORY")
    if told:
        return told.rstrip("/")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    urls = {name.lower(): address for name, address in project.get("urls", {}).items()}
    for name in ("repository", "source"):
        if name in urls:
            return urls[name].rstrip("/")
    return None


def page_source(app: Sphinx, page: str, template: str, context: dict[str, Any], _: Any) -> None:
    """Tell the template which file a page is made from, and where it can be edited."""
    origins = json.loads((Path(app.srcdir) / "origins.json").read_text(encoding="utf-8"))
    origin = origins.get(page)
    context["origin"] = origin
    address = repository()
    if origin and address:
        branch = os.environ.get("MINIKV_BRANCH", "main")
        context["origin_address"] = f"{address}/edit/{branch}/{origin}"


def alias_by_name(alias: TypeAliasForwardRef) -> str:
    """An alias within a type, as ``Array | None``, by its name; not as Sphinx's own class."""
    return alias.name


def setup(app: Sphinx) -> dict[str, Any]:
    """Register all of it."""
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
    app.add_transform(PapersAsLinks)
    app.connect("autodoc-process-docstring", module_summary)
    app.connect("autodoc-skip-member", fields_too)
    TypeAliasForwardRef.__repr__ = alias_by_name
    app.connect("html-page-context", page_source)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
