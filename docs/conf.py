"""The site: the course, the theorems, how-to pages, and the reference from docstrings.

Built by ``python docs/build.py``, which lays the sources out; nothing is fetched. Formulas become
MathML, which browsers draw without a script.
"""

import latex2mathml.converter
from docutils import nodes

import minikv

project, author, copyright = "minikv", "the minikv authors", "2026, the minikv authors, Apache-2.0"
version = release = minikv.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme, html_title = "furo", "minikv"
html_math_renderer = "mathml"
html_static_path, html_css_files = ["_static"], ["site.css"]
exclude_patterns = ["_build", "benchmarks/*.md"]  # those are included in a page
nb_execution_mode = "off"  # outputs are those that notebooks/build.py kept
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
smartquotes = False  # it makes one dash of two, also in commands
default_role = "code"  # `name` in a docstring


def mathml(self, node: nodes.Element) -> None:
    """Write a formula as MathML; one that cannot be converted fails the build."""
    block = isinstance(node, nodes.math_block)
    html = latex2mathml.converter.convert(node.astext(), display="block" if block else "inline")
    self.body.append(f'<div class="formula">{html}</div>' if block else html)
    raise nodes.SkipNode


def setup(app) -> None:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
