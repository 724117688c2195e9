"""Links that open the chapters in hosted services, for wherever this clone came from.

python notebooks/links.py                          # print them, for MINIKV_REPOSITORY or `origin`
python notebooks/links.py --repository OWNER/NAME  # for another repository on GitHub
python notebooks/links.py --write                  # put them into README.md
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
BEGIN, END = "<!-- links: made by links.py -->\n", "<!-- end of links -->\n"
SERVICES = {
    "Binder": "https://mybinder.org/v2/gh/{repository}/{branch}?urlpath=lab/tree/notebooks/{name}",
    "Colab": "https://colab.research.google.com/github/{repository}/blob/{branch}/notebooks/{name}",
    "nbviewer": "https://nbviewer.org/github/{repository}/blob/{branch}/notebooks/{name}",
}


def repository(address: str) -> str | None:
    """``owner/name`` of an address on GitHub.

    Examples
    --------
    >>> repository("git@github.com:someone/minikv.git"), repository("https://github.com/a/b/")
    ('someone/minikv', 'a/b')
    """
    found = re.search(r"github\.com[:/]([\w.-]+/[\w.-]+?)(\.git)?/?$", address.strip())
    return found[1] if found else None


def found() -> str | None:
    """``owner/name`` of ``MINIKV_REPOSITORY``, as the site does; else of `origin`."""
    told = os.environ.get("MINIKV_REPOSITORY")
    if told:
        return repository(told)
    asked = ["git", "-C", str(HERE), "remote", "get-url", "origin"]
    return repository(subprocess.run(asked, capture_output=True, text=True).stdout)


def table(where: str, branch: str = "main") -> str:
    """One row a chapter, one link a service."""
    lines = ["| chapter | " + " | ".join(SERVICES) + " |", "|---" * (len(SERVICES) + 1) + "|"]
    for path in sorted(HERE.glob("[0-9][0-9]_*.ipynb")):
        links = (
            f"[open]({url.format(repository=where, branch=branch, name=path.name)})"
            for url in SERVICES.values()
        )
        lines.append(f"| {path.stem} | " + " | ".join(links) + " |")
    return "\n".join(lines) + "\n"


def updated(readme: str, links: str) -> str:
    """README.md with these links between its marks."""
    before, _, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"README.md has no lines {BEGIN.strip()} and {END.strip()}")
    return before + BEGIN + links + END + after


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repository", metavar="OWNER/NAME", help="on GitHub; default: `origin`")
    parser.add_argument("--branch", default="main", help="default: main")
    parser.add_argument("--write", action="store_true", help="put the links into README.md")
    options = parser.parse_args()
    where = options.repository or found()
    if not where:
        raise SystemExit(
            "neither MINIKV_REPOSITORY nor `origin` is on GitHub: give --repository OWNER/NAME"
        )
    links, readme = table(where, options.branch), HERE / "README.md"
    if options.write:
        text = updated(readme.read_text(encoding="utf-8"), links)
        readme.write_text(text, encoding="utf-8")
    else:
        print(links, end="")


if __name__ == "__main__":
    main()
