"""What the page *Proof in your browser* runs: fingerprints and theorems, each event a line of JSON.

It needs NumPy and the standard library. It lies in a zip file beside the package, the golden
models, their text and the weights of the toy model (`docs/proof_page.py` packs them), and is given
one argument, JSON: ``{"cases": 8, "fault": ""}``.

Events are ``{"kind": ...}``: ``environment``; ``fingerprint`` and ``claim``, a result each;
``progress``, a share of the whole; ``done``; and ``error``, which ends it.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from minikv.verify import Case

ARCHIVE = sys.path[0]  # the zip file that this lies in
PACKAGE = "minikv"
OF_THREADS = ("T12",)  # ranks are threads, and take turns where there are none
MOST_TURNS = 6  # layers times calls
OFTEN = 0.2  # seconds between two words of progress


def tell(kind: str, **facts: Any) -> None:
    """Print an event."""
    print(json.dumps({"kind": kind, **facts}), flush=True)


class Progress:
    """Tells the page how much of the whole is done, a few times a second.

    Parameters
    ----------
    steps : int
        How many steps the whole has.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.last = 0.0

    def at(self, step: int, share: float, label: str) -> None:
        """Say that a share of step number `step` is done."""
        now = time.monotonic()
        if now - self.last < OFTEN and share:
            return
        self.last = now
        tell("progress", share=(step + share) / self.steps, label=label)


class Planted(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module of the package with a fault in it.

    Parameters
    ----------
    fault : dict
        An entry of ``proofs/mutants.toml``: in `file`, the text `old` becomes `new`.
    """

    def __init__(self, fault: dict[str, str]) -> None:
        self.path = f"{PACKAGE}/{fault['file']}"
        self.name = self.path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        source = read(self.path).decode()
        if source.count(fault["old"]) != 1:
            raise ValueError(f"{self.path} has the text {fault['old']!r} not once")
        self.source = source.replace(fault["old"], fault["new"])

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != self.name:
            return None
        package = self.path.endswith("__init__.py")
        return importlib.util.spec_from_loader(name, self, is_package=package)

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.source, self.path, "exec"), module.__dict__)


def read(name: str) -> bytes:
    """A file of the archive."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        return archive.read(name)


def toy() -> tuple[Any, dict[str, np.ndarray]]:
    """Configuration and weights of the toy model."""
    import numpy as np

    from minikv.config import ModelConfig

    with np.load(io.BytesIO(read("tiny.npz"))) as stored:
        return ModelConfig.from_dict(json.loads(read("tiny.json"))), dict(stored)


def models() -> Iterator[tuple[str, Any, dict[str, np.ndarray], list[int], str]]:
    """Name, configuration, weights and text of the golden models, and the digits of the weights.

    The fingerprints that the page compares with are not here: this program does not know them.
    """
    from golden_models import CONFIGS, random_case

    known = json.loads(read("texts.json"))
    yield "tiny", *toy(), known["tiny"]["ids"], known["tiny"]["weights"]
    for which in CONFIGS:
        name = f"random: {which}"
        yield name, *random_case(which), known[name]["weights"]


def fingerprints(progress: Progress) -> None:
    """The digits of each model, in exact arithmetic and in float32."""
    import minikv
    from minikv.fingerprint import fingerprint
    from minikv.model import Model
    from minikv.weights import weights_hash

    for step, (name, config, tensors, ids, weights) in enumerate(models()):
        progress.at(step, 0.0, name)
        began = time.perf_counter()
        digits = {}
        for arithmetic in ("exact", "float32"):
            model = Model(minikv.build(config, tensors, arithmetic))
            digits[arithmetic] = fingerprint(model, ids)
        tell(
            "fingerprint",
            name=name,
            **digits,
            same_weights=weights_hash(tensors) == weights,
            seconds=time.perf_counter() - began,
        )


def watched(cases: Sequence[Case], progress: Progress, step: int, label: str) -> Iterator[Case]:
    """The cases, each of which says how far it is."""
    for number, case in enumerate(cases):

        def told(_: str, done: float, total: float = 1.0, before: int = number) -> None:
            progress.at(step, (before + done / total) / len(cases), label)

        told("", 0.0)
        yield replace(case, progress=told)


def few_reductions(case: Case) -> bool:
    """Whether ranks that take turns get through a case soon: time grows with reductions squared."""
    return case.source.num_hidden_layers * len(case.chunks) <= MOST_TURNS


def theorems(count: int, progress: Progress, first: int) -> str:
    """Check every claim on `count` random models; the answer is the conclusion."""
    from minikv.commands.prove import random_material
    from minikv.parallel.threads import has_threads
    from minikv.verify import CLAIMS
    from minikv.verify.run import conclusion, prove

    material = random_material(count, seed=0)
    results = []
    turns = not has_threads()
    for number, claim in enumerate(CLAIMS.values()):
        cases, controls = material.of(claim)
        if turns and claim.id in OF_THREADS:
            cases, controls = (list(filter(few_reductions, group)) for group in (cases, controls))
        step = first + number
        result = prove(claim, watched(cases, progress, step, claim.id), controls)
        results.append(result)
        tell("claim", **asdict(result))
    return conclusion(results, material.said)


def run(options: dict[str, Any]) -> None:
    """Both parts, and what they ran on."""
    if options["fault"]:
        faults = tomllib.loads(read("faults.toml").decode())
        sys.meta_path.insert(0, Planted(faults[options["fault"]]))
    from golden_models import CONFIGS

    from minikv.environment import environment
    from minikv.verify import CLAIMS

    tell("environment", **environment())
    golden = 1 + len(CONFIGS)
    progress = Progress(golden + len(CLAIMS))
    fingerprints(progress)
    said = theorems(options["cases"], progress, golden)
    tell("done", conclusion=said)


def main(argument: str) -> None:
    """Run what the page asks for; whatever goes wrong is told in one line."""
    try:
        run(json.loads(argument))
    except BaseException as error:
        said = str(error).strip().splitlines() or ["no message"]
        tell("error", text=f"{type(error).__name__}: {said[-1]}")
