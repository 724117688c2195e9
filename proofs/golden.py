"""What a machine has to give: the golden fingerprints, and exact's operations, with NumPy alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from minikv.arithmetic import Exact, elementary

FILE = Path(__file__).parents[1] / "tests" / "golden" / "fingerprints.json"
NAME = "golden"  # of all golden models that need no fetched weights, where a model is asked for
DRAWN = 9_000  # numbers that an operation is tried on
SHORT = 3  # numbers that no SIMD loop takes


def known() -> dict[str, str]:
    """The golden fingerprint of each random model, by its name."""
    told = json.loads(FILE.read_text(encoding="utf-8"))
    return {
        name: value["fingerprint"] for name, value in told.items() if name.startswith("random: ")
    }


def together(digests: Mapping[str, str]) -> str:
    """One fingerprint of several models: SHA-256 of theirs, in the order of their names."""
    return hashlib.sha256("".join(digests[name] for name in sorted(digests)).encode()).hexdigest()


def differing(digests: Mapping[str, str]) -> list[str]:
    """The models whose fingerprint is not the golden one."""
    return [name for name, digest in known().items() if digests.get(name) != digest]


def digest(parts: Iterable[np.ndarray]) -> str:
    """The first 16 digits of SHA-256 of numbers, as little-endian bytes."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(np.ascontiguousarray(part).astype(part.dtype.newbyteorder("<")).data)
    return whole.hexdigest()[:16]


def drawn() -> np.ndarray:
    """Numbers from 0 to 1, of 53 bits each, from raw bits of PCG64."""
    raw = np.random.PCG64(3).random_raw(DRAWN) >> np.uint64(11)
    return raw.astype(np.float64) * 2.0**-53


def operations() -> dict[str, str]:
    """A digest of what each of exact's operations answers, on long arrays and on short ones.

    Processors that round twice or drop subnormal numbers do so in short arrays alone, or in long
    ones alone, since NumPy takes long ones in SIMD registers.
    """
    unit = drawn()
    exact = Exact(4096)
    rows = (unit.reshape(-1, SHORT) - 0.5).astype(np.float32)
    keys = exact.settle(rows[:400].reshape(100, 4, SHORT))
    scores = exact.scores(keys, keys, 0.5)
    weight = exact.weight(rows[:7], "w")
    tiny = (unit * 2.0**-127).astype(np.float32)
    found = {
        "linear": digest([exact.linear(rows, weight)]),
        "mean_square": digest([exact.mean_square(rows)]),
        "settle": digest([keys]),
        "scores": digest([scores]),
        "softmax": digest([exact.softmax(scores * 16)]),
        "weighted_sum": digest([exact.weighted_sum(exact.softmax(scores), keys)]),
        "quotients": digest([unit[1:] / unit[:-1]]),
        "quotients of 3": digest(in_short_pieces(lambda x: x / (x[::-1] + 0.5), unit)),
        "subnormal float32 sums": digest([tiny + tiny[::-1].copy()]),
        "subnormal float32 products": digest([tiny * np.float32(1)]),
        "the largest subnormal float32": digest([tiny.max(keepdims=True)]),
    }
    x = unit * 32.0 - 24.0
    for name, function in (
        ("exp", elementary.exp),
        ("sin", elementary.sin),
        ("cos", elementary.cos),
    ):
        found[name] = digest([function(x)])
        found[f"{name} of {SHORT}"] = digest(in_short_pieces(function, x))
    return found


def in_short_pieces(
    function: Callable[[np.ndarray], np.ndarray], x: np.ndarray
) -> Iterable[np.ndarray]:
    """A function's answers to three numbers at a time."""
    return (function(x[start : start + SHORT]) for start in range(0, len(x), SHORT))
