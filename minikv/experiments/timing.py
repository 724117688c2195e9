"""Times of calls, and what they were taken on."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from statistics import median
from typing import TypeVar

from ..environment import environment
from ..progress import Progress, silent

Name = TypeVar("Name", bound=Hashable)


def seconds(
    calls: Mapping[Name, Callable[[], object]], repeats: int, progress: Progress = silent
) -> dict[Name, float]:
    """Median time of each call; the calls take turns, so that a slow moment hits all alike."""
    times: dict[Name, list[float]] = {name: [] for name in calls}
    done = 0
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
            done += 1
            progress("timing", done, repeats * len(calls))
    return {name: median(taken) for name, taken in times.items()}


def machine() -> str:
    """What timings were taken on, in one line."""
    on = environment()
    return (
        f"{on['cpu']}, BLAS threads: {on['threads']} ({on['blas']} {on['kernel']}), "
        f"NumPy {on['numpy']}, Python {on['python']}"
    )
