"""Machines that were measured, one JSON file each: what a copy and a product take on them."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from ..errors import InputError
from .crossover import Roofline, measured
from .timing import load_average, machine

FOLDER = "machines"
"""Of the folder that results are kept in."""
RUNS = 3


@dataclass(frozen=True)
class Machine:
    """What a machine does in a second, in float32, by wall clock.

    Parameters
    ----------
    name : str
        Chosen by whoever measured it; the file is named by it.
    traffic, rate : float
        As `Roofline` has them: bytes that a copy reads and writes, operations of a product. Each is
        the middle one of `RUNS` medians.
    lowest, highest : tuple of float
        Traffic and rate of the slowest and the fastest of these.
    itemsize : int
        Bytes of a number.
    described, date : str
        What it is (`machine`), and when it was measured.
    load : tuple of float
        Load average before and after; none where the system does not say.
    """

    name: str
    traffic: float
    rate: float
    lowest: tuple[float, float]
    highest: tuple[float, float]
    itemsize: int
    described: str
    date: str
    load: tuple[float, ...]

    @property
    def roofline(self) -> Roofline:
        """For predictions."""
        return Roofline(self.traffic, self.rate, self.itemsize)


def checked_name(name: str) -> str:
    """The name, if it can name a file on any system.

    Raises
    ------
    InputError
        If it has more in it than small letters, digits, dots and hyphens.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,60}", name):
        raise InputError(
            f"machine {name!r:.80}: expected a name of small letters, digits, dots and hyphens, "
            "such as epyc-2-cores"
        )
    return name


def measure(name: str) -> Machine:
    """This machine, under a name; it takes some seconds."""
    load = load_average()
    found = [measured(clock=time.perf_counter) for _ in range(RUNS)]
    traffic = sorted(each.traffic for each in found)
    rate = sorted(each.rate for each in found)
    return Machine(
        checked_name(name),
        traffic[RUNS // 2],
        rate[RUNS // 2],
        (traffic[0], rate[0]),
        (traffic[-1], rate[-1]),
        found[0].itemsize,
        machine(),
        date.today().isoformat(),
        load + load_average(),
    )


def write(folder: str | Path, told: Machine) -> Path:
    """Keep it in a folder of results; returns the file."""
    path = Path(folder) / FOLDER / f"{told.name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{json.dumps(asdict(told), indent=1)}\n", encoding="utf-8")
    return path


def read(folder: str | Path) -> list[Machine]:
    """Those that are kept in a folder of results, by name.

    Raises
    ------
    InputError
        If a file there is not one that `write` wrote.
    """
    return [_read(path) for path in sorted((Path(folder) / FOLDER).glob("*.json"))]


def _read(path: Path) -> Machine:
    try:
        held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        told = Machine(**{key: _frozen(value) for key, value in held.items()})
        right = told.traffic > 0 and told.rate > 0 and told.name == path.stem
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} holds no machine of minikv paper --machine: {error}") from None
    if not right:
        raise InputError(
            f"{path}: expected bytes and operations a second above 0, and the file's own name"
        )
    return told


def _frozen(value: Any) -> Any:
    """A list of JSON as the tuple that it was."""
    return tuple(value) if isinstance(value, list) else value
