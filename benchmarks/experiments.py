"""The paper's experiments, as one page: run the commands, keep their tables and plots.

    python -m benchmarks.experiments            # all six, about half an hour on two cores
    python -m benchmarks.experiments latency    # this one anew

Each table goes to ``docs/experiments/NAME.txt`` and each plot to ``NAME.png`` beside it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs" / "experiments"
COMMANDS = {
    "shape": ["memory", "--shape", "gemma-3-4b"],
    "latency": ["latency"],
    "frontier": ["frontier"],
    "memory": ["memory"],
    "compare": ["compare"],
    "compare-gemma-3-270m": ["compare", "--model", "gemma-3-270m", "--quick"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(COMMANDS)}; all by default")
    names = parser.parse_args().names or list(COMMANDS)
    if unknown := set(names) - set(COMMANDS):
        parser.error(f"{', '.join(unknown)}: unknown; choose from {', '.join(COMMANDS)}")
    FOLDER.mkdir(exist_ok=True)
    for name in names:
        command = ["minikv", *COMMANDS[name]]
        print(" ".join(command), flush=True)
        plot = ["--plot", str(FOLDER / f"{name}.png")]
        done = subprocess.run(
            [sys.executable, "-m", *command, *plot], stdout=subprocess.PIPE, text=True, check=True
        )
        text = f"$ {' '.join(command)}\n{done.stdout}"
        (FOLDER / f"{name}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
