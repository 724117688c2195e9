"""Slides of the chapters on the site, where what makes them is installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEEDS = ("jupytext", "nbclient", "sphinx_revealjs")
WITHOUT = (
    "docs/build.py: the slides are left out, for want of {missing}: "
    'pip install -e ".[notebooks,slides]"'
)
SECTION = """
## Slides

```{raw} html
<p><a href="slides/index.html">Slides of every chapter</a>, made from the notebooks: headings, key
sentences, pictures, code, outputs and plots. <kbd>S</kbd> opens the speaker's window.</p>
```
"""


def missing() -> list[str]:
    """The packages that slides want and that are not there."""
    return [name for name in NEEDS if importlib.util.find_spec(name) is None]


def build(folder: Path) -> None:
    """Write the slides into a folder of the site."""
    command = [sys.executable, str(ROOT / "notebooks" / "slides.py"), "--to", str(folder)]
    subprocess.run(command, check=True)
