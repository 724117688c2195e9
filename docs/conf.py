"""The site: the course, the theorems, how-to pages, and the reference from docstrings.

Built by ``python docs/build.py``, which lays the sources out; nothing is fetched. Formulas become
MathML, which browsers draw without a script.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import minikv
from minikv import arrays

project, author, copyright = "minikv", "the minikv authors", "2026, the minikv authors, Apache-2.0"
version = release = minikv.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "extension",
]
html_theme = "furo"
html_title = f"minikv {version}"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css", "proof.css"]
html_favicon = "_static/icon.svg"
html_copy_source = False
html_domain_indices = False  # the reference lists the modules, by topic
html_theme_options = {"top_of_page_buttons": []}  # the foot of a page names its source
templates_path = ["_templates"]
exclude_patterns = ["_build", "benchmarks/*.md", "extras.md"]  # those are included in a page
nb_execution_mode = "off"  # outputs are those that notebooks/build.py kept
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
myst_html_meta = {
    "description": "minikv: a small language model in plain NumPy, whose KV cache is redundant, "
    "bit for bit: proved, tested, and attacked",
}
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # an attribute's own entry has its type
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_type_aliases = {
    name: name for name in vars(arrays) if name[0].isupper() and name not in ("Any", "Callable")
}
autodoc_preserve_defaults = True
autosummary_generate = False  # tables of what is on the page
python_maximum_signature_line_length = 88
smartquotes = False  # it makes one dash of two, also in commands
default_role = "code"  # `name` in a docstring
