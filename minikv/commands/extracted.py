"""``--extracted``: the decoder that was proved in Rocq, compiled and run beside the Python."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from ..errors import InputError
from ..progress import status

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPT = CHECKOUT / "proofs" / "extracted" / "run.py"
COUNTED = re.compile(r"^([\d,]+) numbers compared, ([\d,]+) differ in a bit$", re.MULTILINE)


def run_extracted(*arguments: object) -> tuple[str, int]:
    """Run ``proofs/extracted/run.py``.

    Returns
    -------
    report : str
        What it printed.
    differ : int
        How many numbers differ in a bit from the Python's.

    Raises
    ------
    InputError
        If minikv is installed without its proofs, a compiler is missing, or nothing was compared.
    """
    if not SCRIPT.is_file():
        raise InputError(
            f"--extracted runs {SCRIPT}, which is not there: use it in a checkout of the repository"
        )
    paths = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    with status("running the decoder that Rocq extracted"):
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    counted = COUNTED.search(done.stdout)
    if counted is None:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise InputError(f"--extracted: {said[-1]}")
    return done.stdout, int(counted[2].replace(",", ""))
