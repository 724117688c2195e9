"""Times of calls, and what they were taken on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Mapping
from statistics import median
from typing import TypeVar

from ..environment import environment
from ..progress import Progress, silent

Name = TypeVar("Name", bound=Hashable)
Clock = Callable[[], float]
"""A number of seconds that grows."""


def samples(
    calls: Mapping[Name, Callable[[], object]],
    repeats: int,
    progress: Progress = silent,
    clock: Clock = time.perf_counter,
) -> dict[Name, list[float]]:
    """Times of each call; the calls take turns, so that a slow moment hits all alike.

    `clock` is wall time by default. `time.process_time` counts what the processor did for this
    process: other processes then count less, and a wait for a disk not at all.
    """
    times: dict[Name, list[float]] = {name: [] for name in calls}
    done = 0
    for _ in range(repeats):
        for name, call in calls.items():
            start = clock()
            call()
            times[name].append(clock() - start)
            done += 1
            progress("timing", done, repeats * len(calls))
    return times


def seconds(
    calls: Mapping[Name, Callable[[], object]],
    repeats: int,
    progress: Progress = silent,
    clock: Clock = time.perf_counter,
) -> dict[Name, float]:
    """The median of each call's `samples`."""
    taken = samples(calls, repeats, progress, clock)
    return {name: median(times) for name, times in taken.items()}


def load_average() -> tuple[float, ...]:
    """How many programs wanted to run, on average over a minute; nothing where it is not known."""
    try:
        return (os.getloadavg()[0],)
    except (AttributeError, OSError):  # Windows
        return ()


def machine() -> str:
    """What timings were taken on, in one line."""
    on = environment()
    return (
        f"{on['cpu']}, BLAS threads: {on['threads']} ({on['blas']} {on['kernel']}), "
        f"NumPy {on['numpy']}, Python {on['python']}"
    )
