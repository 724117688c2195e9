"""Run claims, and keep what came of them: one JSON file a claim."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from ..arithmetic import Arithmetic
from ..errors import InputError
from ..experiments import machine
from ..experiments.timing import load_average
from ..model import Model
from ..progress import Progress, silent
from ..verify.cases import model_of
from ..weights import resolve
from .claim import Claim, Figures, Finding, Loader, Setting, Verdict
from .fastest import fastest


@dataclass(frozen=True)
class Result:
    """A finding, and how it was come by.

    Parameters
    ----------
    id : str
        Of the claim.
    finding : Finding
    quick : bool
        Whether it is of a short run.
    models : tuple of str
        What it ran on.
    seconds, processor : float
        Of wall clock, and of the processor for this process; None where a file has no such figure.
    load : tuple of float
        How many programs wanted to run, on average over a minute (the system's load average), when
        it began and when it ended; none where the system does not say.
    cores : int
        Of the machine; None as above.
    machine, date : str
        Where and when.
    exact : mapping
        Of a short run, the figures that no machine changes (`Claim.exact`).
    """

    id: str
    finding: Finding
    quick: bool
    models: tuple[str, ...]
    seconds: float
    processor: float | None
    load: tuple[float, ...]
    cores: int | None
    machine: str
    date: str
    exact: Figures

    def to_json(self) -> dict[str, Any]:
        """As the file of the claim holds it."""
        finding = self.finding
        return {
            "id": self.id,
            "verdict": str(finding.verdict),
            "reason": finding.reason,
            "columns": finding.columns,
            "rows": finding.rows,
            "models": self.models,
            "quick": self.quick,
            "seconds": round(self.seconds, 1),
            "processor": self.processor and round(self.processor, 1),
            "load": [round(each, 2) for each in self.load],
            "cores": self.cores,
            "machine": self.machine,
            "date": self.date,
            "figures": finding.figures,
            "exact": self.exact,
        }

    @classmethod
    def from_json(cls, held: Figures) -> Result:
        """The same, read again."""
        finding = Finding(
            Verdict(held["verdict"]),
            held["reason"],
            tuple(held["columns"]),
            tuple(tuple(row) for row in held["rows"]),
            held["figures"],
        )
        return cls(
            held["id"],
            finding,
            held["quick"],
            tuple(held["models"]),
            held["seconds"],
            held.get("processor"),
            tuple(held.get("load", ())),
            held.get("cores"),
            held["machine"],
            held["date"],
            held["exact"],
        )


@dataclass(frozen=True)
class Section:
    """A claim on its own models, or on one that was asked for in their place.

    Parameters
    ----------
    claim : Claim
    on : str
        The model in place of the claim's own; empty if it ran on those, or needs none.
    result : Result or None
    missing : str
        Why it was not run; empty if it was.
    """

    claim: Claim
    on: str
    result: Result | None
    missing: str = ""

    @property
    def verdict(self) -> str:
        """What became of the claim, in a few words."""
        return self.missing if self.result is None else str(self.result.finding.verdict)


def loaded(name: str, arithmetic: str | Arithmetic = "float32", /) -> Model:
    """A model by name, the same one that the theorems' cases have; the last few are kept."""
    return model_of(name, 0, 1.0, arithmetic, fastest(arithmetic))


def examine(
    claim: Claim,
    quick: bool,
    names: Sequence[str] = (),
    progress: Progress = silent,
    model: Loader = loaded,
) -> Result:
    """Run one claim.

    Parameters
    ----------
    claim : Claim
    quick : bool
    names : sequence of str
        Models to run on in place of the claim's own.
    progress : Progress
    model : Loader

    Raises
    ------
    FetchError
        If weights that it needs are not there.
    """
    names = tuple(names if claim.models and names else claim.models)
    for name in names:
        resolve(name)
    load = load_average()
    began = time.perf_counter()
    spent_before = time.process_time()
    finding = claim.run(Setting(quick, names, model, progress))
    seconds = time.perf_counter() - began
    processor = time.process_time() - spent_before
    load += load_average()
    finding = checked(claim, finding)
    short = finding
    if claim.exact and not quick:
        short = checked(claim, claim.run(Setting(True, names, model, progress)))
    exact = {key: short.figures[key] for key in claim.exact}
    today = date.today().isoformat()
    return Result(
        claim.id,
        finding,
        quick,
        names,
        seconds,
        processor,
        load,
        os.cpu_count(),
        described(),
        today,
        exact,
    )


def described() -> str:
    """What a run was made on, with the compiler of its kernels where it has loaded one."""
    compiler = sys.modules.get("numba")
    version = getattr(compiler, "__version__", None)
    return f"{machine()}, Numba {version}" if version else machine()


def checked(claim: Claim, finding: Finding) -> Finding:
    """The finding with its figures as JSON gives them back, and rows as wide as their head."""
    for row in finding.rows:
        if len(row) != len(finding.columns):
            raise ValueError(f"{claim.id}: {len(row)} cells below {len(finding.columns)} columns")
    figures = json.loads(json.dumps(finding.figures, allow_nan=False))
    missing = [key for key in claim.exact if key not in figures]
    if missing:
        raise ValueError(f"{claim.id}: no figures {missing}, which it says are exact")
    return Finding(finding.verdict, finding.reason, finding.columns, finding.rows, figures)


def keep(result: Result, folder: str | Path) -> Path:
    """Write the file of a claim: a row, and a figure, a line, so that a difference can be read."""
    path = Path(folder) / f"{result.id}.json"
    path.write_text(f"{_lines(result.to_json())}\n", encoding="utf-8")
    return path


def _lines(value: object, depth: int = 0) -> str:
    """JSON, with a line for each part of the outer two levels."""
    inner = " " * (depth + 1)
    if depth < 2 and isinstance(value, dict) and value:
        parts = [f"{json.dumps(key)}: {_lines(part, depth + 1)}" for key, part in value.items()]
        return "{\n" + ",\n".join(inner + part for part in parts) + f"\n{' ' * depth}}}"
    if depth < 3 and isinstance(value, (list, tuple)) and any(map(_is_long, value)):
        parts = [_lines(part, depth + 1) for part in value]
        return "[\n" + ",\n".join(inner + part for part in parts) + f"\n{' ' * depth}]"
    return json.dumps(value, allow_nan=False)


def _is_long(value: object) -> bool:
    """Whether it is worth a line."""
    return isinstance(value, (dict, list, tuple))


def kept(folder: str | Path) -> dict[str, Result]:
    """The results in a folder, by id.

    Raises
    ------
    InputError
        If a file there is not one that `keep` wrote.
    """
    results = {}
    for path in sorted(Path(folder).glob("*.json")):
        try:
            result = Result.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} holds no result of minikv paper: {error}") from None
        results[result.id] = result
    return results
