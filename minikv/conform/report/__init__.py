"""What a run found, for people and programs: JSON, JUnit, HTML, a text for an issue."""

from .html import as_html
from .issue import as_issue
from .json import as_figures
from .junit import as_junit

__all__ = ["as_figures", "as_html", "as_issue", "as_junit"]
