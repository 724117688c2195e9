"""Run the chapters and keep their outputs: ``NN_name.py`` -> ``NN_name.ipynb``.

    python notebooks/build.py            # all of them; needs the extra `notebooks` and the weights
    python notebooks/build.py 03 05      # some of them
    python notebooks/build.py --again 03 # also where no code has changed
    python notebooks/build.py --check    # run, write nothing, fail if an output is not the one kept

The sources are Python files in the percent format of jupytext; what to edit is always the source. A
chapter of which only the text has changed gets the new text, and keeps its outputs.
A cell whose output differs from run to run or from machine to machine (times, float32) has the tag
``varies``; of all others ``--check`` compares the text.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
WIDGET = "application/vnd.jupyter.widget-view+json"
VERSION = re.compile(r"\b(numpy|python) \d+(?:\.\d+)+")


def sources(numbers: list[str]) -> list[Path]:
    """The chapters with these numbers, or all."""
    found = sorted(HERE.glob("[0-9][0-9]_*.py"))
    known = {path.name[:2] for path in found}
    if unknown := set(numbers) - known:
        raise SystemExit(f"no chapter {', '.join(sorted(unknown))}; there are {sorted(known)}")
    return [path for path in found if not numbers or path.name[:2] in numbers]


def digest(source: Path, notebook: Any) -> str:
    """SHA-256 of what the outputs of a chapter are made from: its code and its exercises."""
    checks = HERE / "exercises"
    parts = (checks / "__init__.py", checks / f"e{source.name[:2]}.py")
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    found = [part.read_bytes() for part in parts if part.exists()]
    return hashlib.sha256(b"".join([*found, repr(code).encode()])).hexdigest()


def read(source: Path) -> Any:
    """The notebook of a source, without outputs; nothing in it depends on when it was read."""
    notebook = jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "code_sha256": digest(source, notebook),
    }
    return notebook


def run(source: Path) -> Any:
    """The notebook with its outputs; an error in a cell stops it."""
    notebook = read(source)
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(HERE)}},
    ).execute()
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            # without a kernel a widget is nothing but its name
            cell.outputs = [
                o
                for o in cell.outputs
                if o.get("name") != "stderr" and WIDGET not in o.get("data", {})
            ]
    return notebook


def with_outputs_of(notebook: Any, kept: Any) -> Any:
    """A notebook without outputs, with those of one whose code is the same."""
    ran = [cell for cell in kept.cells if cell.cell_type == "code"]
    new = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell, before in zip(new, ran, strict=True):
        cell.outputs, cell.execution_count = before.outputs, before.execution_count
    return notebook


def is_kept(source: Path) -> bool:
    """Whether the outputs that a chapter has were made by the code that it has."""
    target = source.with_suffix(".ipynb")
    if not target.exists():
        return False
    kept = nbformat.read(target, as_version=4)
    return kept.metadata.get("code_sha256") == read(source).metadata["code_sha256"]


def texts(notebook: Any) -> list[tuple[str, str]]:
    """The source and the printed text of each code cell whose output does not vary.

    Which Python and NumPy ran it, as a report for an issue says, does not count.
    """
    out = []
    for cell in notebook.cells:
        if cell.cell_type == "code" and "varies" not in cell.metadata.get("tags", []):
            parts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs]
            kept = [part for part in parts if not part.startswith("<Figure")]
            out.append((cell.source, VERSION.sub(r"\1", "".join(kept))))
    return out


def built(source: Path, check: bool, again: bool) -> tuple[bool, str]:
    """Build a chapter, or check it: whether its outputs are as they should be, and what to say."""
    target, start = source.with_suffix(".ipynb"), time.monotonic()
    if not (check or again) and is_kept(source):
        kept = nbformat.read(target, as_version=4)
        nbformat.write(with_outputs_of(read(source), kept), target)
        return True, f"{source.stem}: the text, with the outputs that it had"
    notebook = run(source)
    said = []
    if check:
        kept = texts(nbformat.read(target, as_version=4))
        for (code, now), (_, before) in zip(texts(notebook), kept, strict=True):
            if now != before:
                said.append(
                    f"{target.name}: this cell\n{code}\nprinted\n{now}\nand before\n{before}"
                )
    else:
        nbformat.write(notebook, target)
    return not said, "\n".join([*said, f"{source.stem}: {time.monotonic() - start:.0f} s"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("numbers", nargs="*", help="chapters, such as 03; all by default")
    parser.add_argument("--check", action="store_true", help="write nothing; compare the outputs")
    parser.add_argument("--again", action="store_true", help="also where no code has changed")
    parser.add_argument("--jobs", type=int, default=1, help="chapters at a time (default: 1)")
    options = parser.parse_args()
    os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # two that wait for each other are slower
    os.environ["MINIKV_PROGRESS"] = "off"  # what is open in a stub is nobody's progress
    build = partial(built, check=options.check, again=options.again)
    right = True
    with ProcessPoolExecutor(options.jobs) as pool:
        for good, said in pool.map(build, sources(options.numbers)):
            right = right and good
            print(said, flush=True)
    sys.exit(not right)


if __name__ == "__main__":
    main()
