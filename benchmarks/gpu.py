"""A GPU against the CPU, in one command: the same fingerprints, the W proofs on it, and timings.

    python -m benchmarks.gpu                   # needs  pip install "minikv[cupy]"  and the weights
    python -m benchmarks.gpu --backend torch   # the same on another library

First the golden texts, whole and in chunks through a cache, must have the CPU's fingerprint; then
every theorem is checked with all arrays on the device; then prefill and decoding are timed, the two
in turn. Exit code 1 if any bit differs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import replace
from typing import Any

import minikv
from minikv.arrays import to_numpy
from minikv.errors import MinikvError
from minikv.fingerprint import fingerprint
from minikv.verify import THEOREMS, Refuted
from minikv.verify.texts import real_cases


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--backend", default="cupy", help="default: %(default)s")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the timed prefill")
    args = parser.parse_args(argv)
    try:
        models = {name: minikv.load(args.model, "exact", name) for name in ("numpy", args.backend)}
    except MinikvError as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        return 2
    cases = [replace(case, backend=args.backend) for case in real_cases(args.model)]
    failures = check_fingerprints(models, cases, args.backend) + check_theorems(cases)
    config = models["numpy"].config
    prompt = [i * 7919 % config.vocab_size for i in range(args.prompt)]
    prompt = prompt[: config.max_position_embeddings - 16]
    for arithmetic in ("exact", "float32"):
        timed = {name: minikv.load(args.model, arithmetic, name) for name in models}
        took = {
            name: [measure(model, prompt) for _ in range(args.rounds + 1)][1:]
            for name, model in timed.items()
        }
        for which, what in enumerate((f"prefill of {len(prompt)}", "a decoded token")):
            ours, cpu = (
                statistics.median(t[which] for t in took[n]) for n in (args.backend, "numpy")
            )
            print(
                f"{arithmetic:8} {what:16} {args.backend} {ours * 1e3:9.2f} ms, "
                f"numpy {cpu * 1e3:9.2f} ms, ratio {ours / cpu:.3f}"
            )
    print(f"{failures} failures" if failures else "every logit has the CPU's bits")
    return int(failures > 0)


def check_fingerprints(models: dict[str, minikv.Model], cases: list[Any], backend: str) -> int:
    """How many texts and chunkings have another fingerprint on the backend than on NumPy."""
    failures = 0
    for number, case in enumerate(cases):
        expected = fingerprint(models["numpy"], case.ids)
        for chunks in (None, 1, 7):
            same = fingerprint(models[backend], case.ids, chunks) == expected
            print(
                f"fingerprint of text {number}, chunks {chunks or 'all in one'}: "
                f"{'same' if same else 'DIFFERENT'}"
            )
            failures += not same
    return failures


def check_theorems(cases: list[Any]) -> int:
    """How many theorems are refuted on the backend."""
    failures = 0
    for id, theorem in THEOREMS.items():
        said = "holds"
        try:
            for case in cases:
                if theorem.applies(case):
                    theorem.check(case)
        except Refuted as refuted:
            said, failures = f"REFUTED: {refuted}", failures + 1
        print(f"{id}: {said}")
    return failures


def measure(model: minikv.Model, prompt: list[int]) -> tuple[float, float]:
    """Seconds of a prefill, and of one of eight tokens; each ends with logits on the host."""
    cache = model.new_cache()
    start = time.perf_counter()
    token = int(to_numpy(model.forward([prompt], [cache]))[0].argmax())
    filled = time.perf_counter()
    for _ in range(8):
        token = int(to_numpy(model.forward([[token]], [cache]))[0].argmax())
    return filled - start, (time.perf_counter() - filled) / 8


if __name__ == "__main__":
    sys.exit(main())
