"""What a lecturer needs: slides, the cheat sheet, questions, notes on each chapter, projects."""

import sys
from pathlib import Path

# The site's words for plots, docs/alt_text.py; last, for docs/ has a build.py of its own.
sys.path.append(str(Path(__file__).parents[2] / "docs"))
