"""Time and memory against the length of the text: what grows, and how fast.

Reading a cache is linear in its length, and a prompt of n tokens has n²/2 pairs to attend to. So
the time of a decoded token, the time of a prompt for each of its tokens, and memory may all grow
linearly, with exponent 1 in the length, and none of them faster.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import peers
from .contenders import ROOM

CONTENDERS = ("float32/numpy", "float32/numba", "exact/numba", "transformers")
LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
LONG = 4096  # from here on one round, without a warm-up: the shorter texts were one
QUICK = (16, 64, 256)
LARGEST = 1.2  # exponent: 1, and room for noise; one power of the length more would show as 2
FITTED = 4  # the exponent is that of lengths from a fourth of the longest on
MEASURES = {
    "decode": ("a decoded token", "ms"),
    "prefill": ("a prompt, for each of its tokens", "ms"),
    "memory": ("memory above that of the shortest text", "MB"),
}


def measure(bench: peers.Bench, lengths: Sequence[int], rounds: int) -> dict[str, Any]:
    """Everything that ``--scaling`` measures."""
    config = json.loads((Path(bench.folder) / "config.json").read_text(encoding="utf-8"))
    lengths = fitting(lengths, config["max_position_embeddings"])
    paths = bench.paths(CONTENDERS)
    tasks = [f"{kind} {n}" for kind in ("decode", "prefill") for n in lengths]
    once = [task for task in tasks if int(task.split()[1]) >= LONG]
    seconds = bench.seconds(paths, dict.fromkeys(paths, tasks), rounds, once)
    fresh = bench.fresh({name: paths[name] for name in seconds}, lengths, 1)
    found = curves(seconds, fresh, lengths)
    counted = f"{rounds} after a warm-up, {peers.TURN_TOKENS} tokens a turn"
    if once:
        counted += f"; one from {LONG:,} tokens on"
    machine = bench.machine(rounds=counted)
    return {
        "seconds": seconds,
        "fresh": fresh,
        "machine": machine,
        "missing": bench.missing,
        "curves": found,
        "slopes": slopes(found),
    }


def fitting(lengths: Sequence[int], context: int) -> list[int]:
    """The lengths that fit into a context, the first that does not cut to what does.

    Examples
    --------
    >>> fitting((16, 512, 2048, 4096), context=1024)
    [16, 512, 960]
    """
    fitted = {min(length, context - ROOM) for length in lengths}
    return sorted(length for length in fitted if length > 0)


def curves(
    seconds: Mapping[str, Any], fresh: Mapping[str, Any], lengths: Sequence[int]
) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """By measure and contender: length and value, in the units of `MEASURES`."""
    out: dict[str, dict[str, list[tuple[int, float]]]] = {measure: {} for measure in MEASURES}
    for name, took in seconds.items():
        for kind in ("decode", "prefill"):
            out[kind][name] = [
                (n, 1e3 * statistics.median(took[f"{kind} {n}"]) / (n if kind == "prefill" else 1))
                for n in lengths
            ]
        found = [fresh[name][str(n)] for n in lengths]  # loading may need more than any text
        least, *used = (min(f.get("running", f["peak"])) for f in found)
        out["memory"][name] = [
            (n, (peak - least) / 1e6)
            for n, peak in zip(lengths[1:], used, strict=True)
            if peak > least
        ]
    return out


def slopes(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The exponent of each curve at its long end, and whether it is at most linear."""
    table = []
    for measure, by_name in found.items():
        for name, points in by_name.items():
            longest = max((n for n, _ in points), default=0)
            slope = exponent([point for point in points if point[0] * FITTED >= longest])
            verdict = "linear or less" if slope <= LARGEST else "above linear"
            verdict = "too little to fit" if math.isnan(slope) else verdict
            table.append(
                {"measure": measure, "contender": name, "slope": slope, "verdict": verdict}
            )
    return table


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """Least-squares slope in the logarithms: b of a * length**b.

    Examples
    --------
    >>> round(exponent([(1, 5), (2, 20), (4, 80)]), 3)
    2.0
    """
    if len(points) < 2:
        return math.nan
    x, y = ([math.log(point[i]) for point in points] for i in (0, 1))
    return statistics.linear_regression(x, y).slope
