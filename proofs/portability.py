"""One fingerprint everywhere: what a machine can vary, against theorems T6 and T7.

Runs the whole forward pass under every BLAS kernel that the CPU can run, one and two threads, SIMD
levels, NumPy versions, array libraries, chunkings, batches and caches, and prints the fingerprint
(`minikv.fingerprint`) that the float32 and the exact arithmetic give in each. Exact must have one
value. Float32 must have several: that is the negative control, without which the one value would
say nothing.

Kernel, threads, SIMD and interpreter are settled when a process starts, so each such row has a
process of its own, and that the kernel and the SIMD level really changed is read back in it. What
cannot be run here is a row too, with the reason.

    python proofs/portability.py --quick
    python proofs/portability.py --python old-numpy/bin/python --python jax/bin/python
    python proofs/portability.py --golden                # the models whose digits are known
    python proofs/portability.py --emulated arm64 s390x  # them, on other instruction sets, by QEMU
    python proofs/portability.py --compiled              # them, by exact.c, compiled in many ways
    python proofs/portability.py --browser               # them, in Chromium, as WebAssembly

The last four compare with the golden values too, and `--write` puts their rows into the table of
docs/machines.md. Exit code 0 if everything that ran agrees, 1 if not, 2 for input that cannot be
used.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
TESTS = (ROOT / "tests", ROOT / "tests" / "site")
for folder in (ROOT, ROOT / "proofs", ROOT / "proofs" / "independent", *TESTS):
    if str(folder) not in sys.path:  # another interpreter need not have minikv installed
        sys.path.insert(0, str(folder))

import browsed
import emulated
import golden
import machines
import numpy as np
from golden_models import CONFIGS, random_case

import minikv
from minikv.arithmetic import Arithmetic, exact, get_arithmetic
from minikv.commands.output import print_json, print_table
from minikv.environment import environment
from minikv.errors import ArithmeticRangeError, InputError, MinikvError
from minikv.fingerprint import fingerprint, hash_logits, split
from minikv.model import Model
from minikv.tokenizer import Tokenizer
from minikv.weights import load_tensors, resolve
from minikv.weights.fetch import DEFAULT, is_fetched

TEXT = (
    "A cache keeps what was computed once, so that nobody has to compute it again. Whether the "
    "second computation would have given the same bits is seldom asked. Here it is: the same text "
    "is read in other pieces, on other kernels and by other libraries, and every logit of every "
    "position has to come out the same. Where it does not, some sum was rounded on the way."
)
TIMEOUT = 1800  # seconds for one process
SETTINGS = ("OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

# OPENBLAS_CORETYPE, and NumPy's names, before 2.4 and since, for the instructions that it uses.
X86_KERNELS = {
    "Prescott": ("SSE3", "X86_V2"),
    "Core2": ("SSSE3", "X86_V2"),
    "Nehalem": ("SSE42", "X86_V2"),
    "Barcelona": ("SSE3", "X86_V2"),
    "Sandybridge": ("AVX", "X86_V3"),
    "Haswell": ("AVX2", "X86_V3"),
    "Zen": ("AVX2", "X86_V3"),
    "SkylakeX": ("AVX512_SKX", "X86_V4"),
    "SapphireRapids": ("AVX512_SPR",),
}
ARM_KERNELS = {"ARMV8": ("ASIMD",), "NEOVERSEN1": ("ASIMD",), "NEOVERSEV1": ("SVE",)}
QUICK_KERNELS = ("Prescott", "Haswell", "SkylakeX", "ARMV8", "NEOVERSEN1")
NAMESPACES = {
    "array_api_strict": "array_api_strict",
    "torch": "array_api_compat.torch",
    "jax": "jax.numpy",
    "numba": "numpy",
}
RANDOM = {  # configurations of random weights, by the name that --model takes
    "random-small": minikv.ModelConfig(
        vocab_size=512,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=256,
    ),
    "random-smollm": minikv.ModelConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=4,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
    ),
}


@dataclass(frozen=True)
class Row:
    """One environment: what each arithmetic gave there, or why it did not run.

    `status` is "ran", "same" (the kernel of a row above), "unavailable", "failed", or "refused"
    where `Exact` refuses to run and was made to. `other` names the golden models whose exact
    fingerprint is another one.
    """

    varied: str
    environment: str
    status: str = "ran"
    kernel: str = ""
    threads: int = 0
    simd: Sequence[str] = ()
    note: str = ""
    float32: str = ""
    exact: str = ""
    other: Sequence[str] = ()
    operations: Mapping[str, str] = field(default_factory=dict)


TOLD = [name for name in Row.__dataclass_fields__ if name != "operations"]


# How the text is fed: functions of a model and the text, to the fingerprint of the text.


def in_chunks(length: int, policy: str = "full", **parameters: Any) -> Callable[..., str]:
    """So many tokens a call, through a cache."""

    def feed(model: Model, ids: Sequence[int]) -> str:
        cache = model.new_cache(policy, **parameters)
        parts = split(ids, length)
        return hash_logits(*(model.forward([p], [cache], logits="all") for p in parts))

    return feed


def in_a_batch(place: int) -> Callable[..., str]:
    """As number `place` of a ragged batch, among parts of the text."""

    def feed(model: Model, ids: Sequence[int]) -> str:
        others = [ids[: 1 + len(ids) // 3], ids[::-1], ids[:1], ids[len(ids) // 2 :]]
        batch = [*others[:place], ids, *others[place:]]
        start = sum(map(len, batch[:place]))
        logits = np.asarray(model.forward(batch, logits="all"))
        return hash_logits(logits[start : start + len(ids)])

    return feed


def ways(layers: int) -> dict[str, Callable[..., str]]:
    """Chunkings, batches and caches; what --quick tries comes first."""
    return {
        "chunks of 1": in_chunks(1),
        "chunks of 7": in_chunks(7),
        "one chunk, with a cache": in_chunks(2**20),
        "ragged batch of 5, as the first": in_a_batch(0),
        "ragged batch of 5, as the third": in_a_batch(2),
        "chunks of 7, no cache": in_chunks(7, "none"),
        "chunks of 7, residuals of layer 0": in_chunks(7, "residual", budget=8),
        "chunks of 7, residuals of all layers": in_chunks(
            7, "residual", budget=0, checkpoints="every"
        ),
        "chunks of 2": in_chunks(2),
        "chunks of 3": in_chunks(3),
        "chunks of 64": in_chunks(64),
        "ragged batch of 5, as the last": in_a_batch(4),
        "chunks of 7, token ids": in_chunks(7, "residual", budget=8, checkpoints="tokens"),
        "chunks of 64, residuals of two layers": in_chunks(
            64, "residual", budget=3, checkpoints={0, layers // 2}
        ),
    }


# The process of a row: reads what to do as JSON, measures, prints JSON.


def source(model: str) -> tuple[minikv.ModelConfig, dict[str, np.ndarray]]:
    """Configuration and tensors of a key of `RANDOM`, a fetched model or a folder."""
    if model in RANDOM:
        return RANDOM[model], minikv.random_tensors(RANDOM[model], seed=7)
    folder = resolve(model)
    config = minikv.ModelConfig.from_file(folder / "config.json")
    return config, load_tensors(folder, config)


@dataclass(frozen=True)
class Subject:
    """A model and a text whose fingerprint is taken."""

    name: str
    config: minikv.ModelConfig
    tensors: Mapping[str, np.ndarray]
    ids: Sequence[int]


def subjects(model: str, ids: Sequence[int]) -> list[Subject]:
    """The golden models with their texts, or one model with this text."""
    if model == golden.NAME:
        return [Subject(f"random: {name}", *random_case(name)) for name in CONFIGS]
    return [Subject(model, *source(model), ids)]


def unchecked() -> AbstractContextManager[Any]:
    """Where exact does not ask whether the processor is IEEE's."""
    return patch.object(exact, "expect_ieee_float64")


def sums(name: str, subject: Subject, xp: ModuleType) -> tuple[Arithmetic, str]:
    """An arithmetic for a model, and why it refuses this processor; then it is made to run."""
    context = subject.config.max_position_embeddings
    try:
        return get_arithmetic(name, context=context, xp=xp), ""
    except ArithmeticRangeError as error:
        refused = str(error)
    with unchecked():
        return get_arithmetic(name, context=context, xp=xp), refused


def prints(job: dict[str, Any], xp: ModuleType, backend: str) -> dict[str, Any]:
    """ "prints" by way and arithmetic, "other" by way, and what was "refused" and "told"."""
    found: dict[str, dict[str, str]] = {way: {} for way in job["ways"]}
    other: dict[str, list[str]] = {}
    refused = ""
    for arithmetic in ("float32", "exact"):
        digests: dict[str, dict[str, str]] = {way: {} for way in job["ways"]}
        for subject in subjects(job["model"], job["ids"]):
            sum_by: str | Arithmetic = arithmetic
            if backend == "numpy":
                sum_by, said = sums(arithmetic, subject, xp)
                refused = refused or said
            model = Model(minikv.build(subject.config, subject.tensors, sum_by, backend))
            for way in job["ways"]:
                feed = ways(subject.config.num_hidden_layers)[way] if way else fingerprint
                digests[way][subject.name] = feed(model, subject.ids)
            del model  # before the next one takes as much memory
        for way, of_models in digests.items():
            [*values] = of_models.values()
            found[way][arithmetic] = values[0] if len(values) == 1 else golden.together(of_models)
            if job["model"] == golden.NAME:
                other[way] = golden.differing(of_models)
    return {"prints": found, "other": other, "refused": refused}


def worker(job: dict[str, Any]) -> dict[str, Any]:
    """Fingerprints of a text, in this process.

    `job` has "model", "ids", "namespace", "ways" (keys of `ways`, or "" for one call without a
    cache), "skip", the kernels that need no second look, and "operations", whether exact's are
    asked for. The answer has "environment", and, unless skipped, what `prints` says, what was
    "told" in warnings, and what "operations" answer; or "missing": why the library cannot be used.
    """
    name, xp = job["namespace"], np
    if name != "numpy":
        try:
            library = importlib.import_module(name)
            if name == "jax":
                library.config.update("jax_enable_x64", True)
            xp = importlib.import_module(NAMESPACES[name])
        except ImportError as error:
            return {"missing": str(error)}
    answer: dict[str, Any] = {"environment": environment()}
    if name != "numpy":
        answer["environment"]["library"] = f"{name} {library.__version__}"
    if name in ("torch", "jax", "numba"):
        answer["environment"]["kernel"] = "its own"
    if answer["environment"]["kernel"] in job["skip"]:
        return answer
    backend = "numba" if name == "numba" else "numpy"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        answer |= prints(job, xp, backend)
        if job["operations"]:
            with unchecked() if answer["refused"] else nullcontext():
                answer["operations"] = golden.operations()
    answer["told"] = sorted({str(warning.message) for warning in caught})
    return answer


@dataclass(frozen=True)
class Task:
    """A model and a text, measured in one process after the other."""

    model: str
    ids: list[int]

    def rows(
        self,
        varied: str,
        names: dict[str, str],
        python: Sequence[str] = (sys.executable,),
        namespace: str = "numpy",
        skip: Sequence[str] = (),
        threads: int = 1,
        operations: bool = False,
        **variables: str,
    ) -> list[Row]:
        """Run `worker` with these environment variables; a row for each way in `names`."""
        first, *more = names.values()
        others = f" and {len(more)} more" if more else ""
        print(f"{varied}: {first}{others} ...", file=sys.stderr, flush=True)
        job = {
            "model": self.model,
            "ids": self.ids,
            "namespace": namespace,
            "ways": list(names),
            "skip": list(skip),
            "operations": operations,
        }
        settings = {key: value for key, value in os.environ.items() if key not in SETTINGS}
        settings |= dict.fromkeys(THREADS, str(threads)) | {"JAX_PLATFORMS": "cpu"} | variables
        answer = _answer(python, json.dumps(job), settings)
        for status, key in (("failed", "failed"), ("unavailable", "missing")):
            if key in answer:
                return [Row(varied, name, status, note=answer[key]) for name in names.values()]
        where = answer["environment"]
        common = {key: where[key] for key in ("kernel", "threads", "simd")}
        if "prints" not in answer:
            return [Row(varied, name, "same", **common) for name in names.values()]
        note = f"{where['library']}, " if "library" in where else ""
        note += f"Python {where['python']}, NumPy {where['numpy']}"
        if where["threads"] != threads:
            note += f"; {threads} threads asked for"
        common["note"] = "; ".join([note, *answer["told"]])
        if answer["refused"]:
            common["note"] += f"; refused, and made to run: {answer['refused']}"
            common["status"] = "refused"
        return [
            Row(
                varied,
                name,
                **common,
                **answer["prints"][way],
                other=answer["other"].get(way, ()),
                operations=answer.get("operations", {}),
            )
            for way, name in names.items()
        ]

    def row(self, varied: str, name: str, **how: Any) -> Row:
        """A process for the text in one call."""
        return self.rows(varied, {"": name}, **how)[0]


def _answer(python: Sequence[str], job: str, settings: dict[str, str]) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [*python, str(Path(__file__).resolve()), "--worker"],
            input=job,
            env=settings,
            text=True,
            capture_output=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer after {TIMEOUT} s"}
    except OSError as error:
        return {"failed": f"{python[0]}: {error.strerror}"}
    if done.returncode < 0:
        return {"failed": f"killed by signal {-done.returncode}"}
    if done.returncode or not done.stdout.strip():
        return {"failed": (done.stderr.splitlines() or [f"exit code {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


# What to vary.


def measure(task: Task, pythons: Sequence[str], quick: bool) -> Iterator[Row]:
    """All rows."""
    fed = list(ways(1))[: 8 if quick else None]
    base, *rest = task.rows("feeding", {"": "one call", **{way: way for way in fed}})
    yield from (base, *rest)
    if base.status != "ran":
        return
    yield task.row("BLAS kernel", "own choice, 2 threads", threads=2)
    yield from kernels(task, base, quick)
    yield from simd_levels(task, base, sys.executable, "")
    usable = [sys.executable]
    for python in pythons:
        row = task.row("NumPy", python, python=[python])
        if row.status == "ran":
            usable.append(python)
            row = replace(row, environment=row.note)  # where it lies says nothing elsewhere
        yield row
        if row.status == "ran":
            yield from simd_levels(task, row, python, f" of {row.note}")
    for library in NAMESPACES:
        yield from array_library(task, library, usable, quick)


def array_library(task: Task, library: str, pythons: Sequence[str], quick: bool) -> Iterator[Row]:
    """The whole forward pass in another library, in each interpreter that has it."""
    varied, missing = "array library", []
    if quick and library != "array_api_strict":
        yield Row(varied, library, "unavailable", note="left out by --quick")
        return
    for python in pythons:
        row = task.row(varied, library, python=[python], namespace=library)
        if row.status == "unavailable":
            missing.append(row)
            continue
        yield row
        if library == "torch" and row.status == "ran":
            how = {"python": [python], "namespace": library}
            yield task.row(varied, "torch, 2 threads", threads=2, **how)
            yield task.row(varied, "torch, MKL_CBWR=COMPATIBLE", MKL_CBWR="COMPATIBLE", **how)
    if len(missing) == len(pythons):
        yield missing[0]


def kernels(task: Task, base: Row, quick: bool) -> Iterator[Row]:
    """Every kernel that OpenBLAS has for this CPU, with one thread and with two."""
    varied, where = "BLAS kernel", environment()
    if "openblas" not in where["blas"].lower() or base.kernel.startswith("unknown"):
        reason = f"the BLAS is {where['blas']}, kernel {base.kernel}"
        yield Row(varied, "OpenBLAS kernels", "unavailable", note=reason)
        return
    known = ARM_KERNELS if where["platform"].endswith(("aarch64", "arm64")) else X86_KERNELS
    seen = {base.kernel: "own choice"}
    for kernel, needs in known.items():
        if quick and kernel not in QUICK_KERNELS:
            continue
        if not set(needs) & set(base.simd):
            reason = f"NumPy finds no {needs[0]} in this CPU"
            yield Row(varied, kernel, "unavailable", note=reason)
            continue
        row = task.row(varied, f"{kernel}, 1 thread", skip=list(seen), OPENBLAS_CORETYPE=kernel)
        if row.status == "same":
            row = replace(row, environment=kernel, note=f"is the kernel of: {seen[row.kernel]}")
        yield row
        if row.status == "ran":
            seen[row.kernel] = kernel
            if not quick:
                yield task.row(varied, f"{kernel}, 2 threads", threads=2, OPENBLAS_CORETYPE=kernel)


def simd_levels(task: Task, base: Row, python: str, of: str) -> Iterator[Row]:
    """NumPy without AVX-512, and without all that it does not need."""
    dispatched = _dispatched(python)
    wide = [name for name in dispatched if name.startswith(("AVX512", "X86_V4"))]
    for name, off in (("no AVX-512", wide), ("baseline alone", dispatched)):
        if not off:
            yield Row("SIMD", name + of, "unavailable", note="NumPy finds none to switch off")
            continue
        row = task.row("SIMD", name + of, python=[python], NPY_DISABLE_CPU_FEATURES=" ".join(off))
        if still := set(off) & set(row.simd):
            row = replace(row, status="failed", note=f"still on: {' '.join(sorted(still))}")
        yield row


def differing(row: Row, base: Row) -> Row:
    """The row, whose note says which operations answer otherwise than this machine's."""
    changed = [name for name, known in base.operations.items() if row.operations[name] != known]
    if not changed:
        return row
    return replace(row, note=f"{row.note}; these differ: {', '.join(changed)}")


@dataclass(frozen=True)
class Emulation:
    """What is emulated: fetched packages stay in `kept`, if given; so many at a time."""

    architectures: Sequence[str]
    kept: Path | None = None
    jobs: int = 1


def emulated_rows(task: Task, base: Row, emulation: Emulation) -> Iterator[Row]:
    """The golden models on other instruction sets."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(emulation.jobs) as pool:
        parent = emulation.kept or Path(folder)

        def rows(name: str) -> list[Row]:
            return list(_emulated(task, base, name, parent / name))

        for found in pool.map(rows, emulation.architectures):
            yield from found


def _emulated(task: Task, base: Row, name: str, root: Path) -> Iterator[Row]:
    varied = "emulated instruction set"
    emulator = emulated.emulator_version(name)
    print(f"{varied}: fetching {name} ...", file=sys.stderr, flush=True)
    try:
        packages = emulated.fetched(name, root)
    except InputError as error:
        yield Row(varied, name, "failed", note=str(error))
        return
    commands = {f"{name} on {emulator}": emulated.emulated_python(name, root)}
    native = emulated.native_python(name, root)
    if native:
        commands[f"{name} on this processor"] = native
    for environment_name, python in commands.items():
        how = {"python": python, "operations": True, **emulated.variables(root)}
        kind = "instruction set" if python == native else varied
        row = task.row(kind, environment_name, **how)
        if row.operations:
            row = replace(row, kernel="", note=f"{packages}, {row.note}")
            row = differing(row, base)
        yield row


def compiled_rows() -> Iterator[Row]:
    """The golden models by exact.c, from each compiler with each set of flags."""
    import compiled  # and all that it needs, which no process of another row does

    with tempfile.TemporaryDirectory() as folder:
        for program in compiled.programs(Path(folder)):
            print(f"exact.c: {program.name} ...", file=sys.stderr, flush=True)
            if program.missing:
                yield Row("exact.c", program.name, "unavailable", note=program.missing)
                continue
            if program.failed:
                yield Row("exact.c", program.name, "failed", note=program.failed)
                continue
            digests = compiled.golden_prints(program.command)
            right, asked = compiled.counted(program.command)
            yield Row(
                "exact.c",
                program.name,
                note=f"{program.version}, {right} of {asked} known answers",
                exact=golden.together(digests),
                other=golden.differing(digests),
            )


def browsed_row() -> Row:
    """The golden models by the site's page, in a browser."""
    varied = "browser"
    if browsed.missing():
        return Row(varied, "Chromium", "unavailable", note=browsed.missing())
    name = f"{browsed.browser_version()}, WebAssembly"
    print(f"{varied}: {name} ...", file=sys.stderr, flush=True)
    page = browsed.shown()
    if page["state"] != "good":
        return Row(varied, name, "failed", note=page["status"])
    exact, float32 = browsed.digits(page)
    return Row(
        varied,
        name,
        note=browsed.environment(page),
        float32=golden.together(float32),
        exact=golden.together(exact),
        other=golden.differing(exact),
    )


def _dispatched(python: str) -> list[str]:
    """What NumPy found beyond its baseline; the only names that it lets one switch off."""
    code = (
        "import json, numpy; found = numpy.show_config(mode='dicts')['SIMD Extensions']; "
        "print(json.dumps(found.get('found', [])))"
    )
    return json.loads(subprocess.run([python, "-c", code], text=True, capture_output=True).stdout)


def faults(rows: Sequence[Row]) -> list[str]:
    """Why the rows do not show what they should; empty if they do."""
    exact = {row.exact for row in rows if row.status == "ran"}
    float32 = {row.float32 for row in rows if row.status == "ran" and row.float32}
    found = [
        f"{row.varied}, {row.environment}: {row.note}" for row in rows if row.status == "failed"
    ]
    found += [
        f"{row.varied}, {row.environment}: not the golden fingerprint of {', '.join(row.other)}"
        for row in rows
        if row.status == "ran" and row.other
    ]
    if len(exact) != 1:
        found.append(f"exact has {len(exact)} values, expected one")
    if len(float32) < 2:
        found.append(
            "float32 has no second value, so that exact's one value shows nothing: "
            "the negative control failed"
        )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description="Fingerprints of float32 and exact in every environment that can be had here."
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="a small random model, fewer rows")
    add(
        "--model",
        metavar="NAME",
        help="a fetched model or a folder; by default "
        f"{DEFAULT} if fetched, else random weights of its shape with 4 layers",
    )
    add("--ids", nargs="+", type=int, metavar="ID", help="token ids of the text")
    add(
        "--python",
        action="append",
        default=[],
        metavar="PATH",
        help="another interpreter, for its NumPy and its array libraries",
    )
    add(
        "--golden",
        action="store_true",
        help="the golden models, each with its text, in the place of one model",
    )
    add(
        "--emulated",
        nargs="*",
        metavar="ARCH",
        help="the golden models on other instruction sets, emulated by QEMU, with Debian's NumPy; "
        f"some of {', '.join(emulated.PROCESSORS)} (default: all)",
    )
    add("--compiled", action="store_true", help="the golden models by exact.c, compiled here")
    add("--browser", action="store_true", help="the golden models in Chromium, as WebAssembly")
    add(
        "--keep",
        type=Path,
        metavar="DIR",
        help="where fetched packages stay for the next time (default: they are deleted)",
    )
    add(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="instruction sets that are emulated at a time (default: 1)",
    )
    add("--write", action="store_true", help="put the rows into the table of docs/machines.md")
    add("--json", action="store_true", help="print JSON")
    add("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker:
        print(json.dumps(worker(json.load(sys.stdin))))
        return 0
    try:
        emulation = Emulation(_architectures(args), args.keep, args.jobs)
        model, ids = _subject(args)
    except MinikvError as error:
        print(f"portability: error: {error}", file=sys.stderr)
        return 2
    task = Task(model, ids)
    if emulation.architectures or args.compiled or args.browser:
        rows = list(_others(task, emulation, args))
    else:
        rows = list(measure(task, args.python, args.quick))
    wrong = faults(rows)
    told = [{key: value for key, value in asdict(row).items() if key in TOLD} for row in rows]
    if args.json:
        print_json(
            {
                "model": model,
                "ids": ids,
                "environment": environment(),
                "rows": told,
                "faults": wrong,
            }
        )
    else:
        report(model, ids, rows, wrong)
    if args.write and not wrong:
        machines.write(told)
    return 1 if wrong else 0


def _architectures(args: argparse.Namespace) -> list[str]:
    """What is to be emulated; options that contradict each other are refused."""
    apart = args.emulated is not None or args.compiled or args.browser
    if apart and (args.model or args.ids or args.quick or args.python):
        raise InputError(
            "--emulated, --compiled and --browser run the golden models and their texts: give them "
            "without --model, --ids, --quick and --python"
        )
    if args.golden and (args.model or args.ids):
        raise InputError("--golden has models and texts of its own: without --model and --ids")
    if args.jobs < 1:
        raise InputError(f"--jobs {args.jobs}: expected 1 or more")
    if args.write and not (apart or args.golden):
        raise InputError(
            "--write is for golden values: with --golden, --emulated, --compiled or --browser"
        )
    if args.emulated is None:
        return []
    names = emulated.chosen(args.emulated)
    emulated.expect_tools(names)
    return names


def _subject(args: argparse.Namespace) -> tuple[str, list[int]]:
    """The model and the text; golden models have texts of their own."""
    if args.golden or args.compiled or args.browser or args.emulated is not None:
        return golden.NAME, []
    model = args.model or (
        "random-small" if args.quick else DEFAULT if is_fetched(DEFAULT) else "random-smollm"
    )
    ids = args.ids
    if ids is None and model in RANDOM:
        ids = [i * i * 31 % RANDOM[model].vocab_size for i in range(70)]
    elif ids is None:
        ids = Tokenizer.from_folder(resolve(model)).encode(TEXT)
    config, _ = source(model)
    minikv.decoder.check_ids(ids, config)
    return model, ids


def _others(task: Task, emulation: Emulation, args: argparse.Namespace) -> Iterator[Row]:
    """This machine, fed in two ways for float32's sake, and what else is asked for."""
    fed = {"": "one call", "chunks of 7": "chunks of 7"}
    base, *rest = task.rows("feeding", fed, operations=True)
    yield from (base, *rest)
    if base.status != "ran":
        return
    yield from emulated_rows(task, base, emulation)
    if args.compiled:
        yield from compiled_rows()
    if args.browser:
        yield browsed_row()


def report(model: str, ids: Sequence[int], rows: Sequence[Row], wrong: Sequence[str]) -> None:
    """The table, and what it says."""
    where = environment()
    read = f"{len(ids)} tokens"
    if model == golden.NAME:
        read = f"{len(CONFIGS)} models, each with its text"
    print(
        f"{model}, {read}; {where['cpu']}, {where['platform']}, "
        f"NumPy {where['numpy']}, {where['blas']}\n"
    )
    print_table(
        ["varied", "environment", "kernel", "threads", "float32", "exact", "note"],
        (
            [
                row.varied,
                row.environment,
                row.kernel or "-",
                str(row.threads or "-"),
                *(
                    (row.float32[:12] or "-", row.exact[:12])
                    if row.exact
                    else (f"({row.status})", "")
                ),
                row.note,
            ]
            for row in rows
        ),
    )
    ran = [row for row in rows if row.status == "ran"]
    values = len({row.float32 for row in ran if row.float32}), len({row.exact for row in ran})
    print(f"\n{len(ran)} environments ran: float32 has {values[0]} values, exact has {values[1]}")
    for fault in wrong:
        print(f"FAULT: {fault}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
