"""K and V behind something slower than memory: how fast they are read, against making them."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..model import Model
from ..progress import Progress, silent
from .crossover import Rows
from .timing import samples

MEMORY = "memory"
SCATTERED = (64, 8, 1)  # rows of K and V that lie together in a file
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Stored:
    """K and V of all layers in a file, ``(L, N, 2 G d)``, and room to read them into.

    Attributes
    ----------
    path : Path
    rows : numpy.ndarray
        What the file holds.
    room : numpy.ndarray
        Of the same shape.
    """

    path: Path
    rows: np.ndarray
    room: np.ndarray

    @classmethod
    def written(cls, folder: str | Path, rows: np.ndarray) -> Stored:
        """Write the file, down to its disk."""
        path = Path(folder) / "kv"
        with open(path, "wb") as file:
            file.write(rows.tobytes())
            file.flush()
            os.fsync(file.fileno())
        return cls(path, rows, np.zeros_like(rows))

    def copy(self) -> None:
        """From memory."""
        np.copyto(self.room, self.rows)

    def read(self) -> None:
        """In one read."""
        with open(self.path, "rb", buffering=0) as file:
            self._fill(file.fileno(), self.room.data.cast("B"), 0)

    def read_mapped(self) -> None:
        """By copying out of a mapping of the file, made for it."""
        np.copyto(self.room, np.memmap(self.path, self.rows.dtype, "r", shape=self.rows.shape))

    def read_scattered(self, together: int) -> None:
        """A read for so many rows (of a layer, a token each), in an order that nothing guesses."""
        into = self.room.reshape(-1, self.rows.shape[-1])
        starts = np.random.default_rng(0).permutation(np.arange(0, len(into), together))
        with open(self.path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            for start in starts.tolist():
                piece = into[start : start + together]
                self._fill(file.fileno(), piece.data.cast("B"), start * into[0].nbytes)

    def forget(self) -> bool:
        """Have the system drop the file from its page cache; whether it did."""
        with open(self.path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            with suppress(BlockingIOError):  # which says that the first bytes are not in memory
                os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
                return False
        return True

    @staticmethod
    def _fill(file: int, into: memoryview, start: int) -> None:
        done = 0
        while done < len(into):
            done += os.preadv(file, [into[done:]], start + done)


def tiers(
    model: Model,
    count: int = 500,
    repeats: int = 5,
    folder: str | Path | None = None,
    progress: Progress = silent,
) -> list[Row]:
    """Read `count` rows of K and V of all layers from each tier that is here, or make them.

    In wall-clock time, since a disk is waited for. Where the system cannot drop a file from
    memory (it is not Linux, or the folder is memory itself), what would be read past the page cache
    is left out.

    Parameters
    ----------
    model : Model
    count : int
        Tokens.
    repeats : int
        Tiers and projection take turns; medians.
    folder : str or Path, optional
        On the disk that is to be measured; the system's temporary folder by default.

    Returns
    -------
    list of dict
        ``tier``; ``bytes``; ``seconds``, ``lowest``, ``highest``: to read; ``bandwidth``: bytes a
        second; ``project_seconds``: to make the same rows; ``ratio``: the second / the first.
    """
    layers = [Rows(layer, count) for layer in model.layers]
    rows = np.stack([_side_by_side(layer) for layer in layers])

    def project() -> None:
        for layer in layers:
            layer.projected(count)

    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        stored = Stored.written(scratch, rows)
        calls: dict[str, Callable[[], object]] = {
            "project": project,
            MEMORY: stored.copy,
            "file, in the page cache": stored.read,
            "mapped file, in the page cache": stored.read_mapped,
        }
        stored.read()
        taken = samples(calls, repeats)
        taken |= _past_the_page_cache(stored, repeats, progress)
    made = median(taken.pop("project"))
    return [
        {
            "tier": tier,
            "bytes": rows.nbytes,
            "seconds": median(times),
            "lowest": min(times),
            "highest": max(times),
            "bandwidth": rows.nbytes / median(times),
            "project_seconds": made,
            "ratio": made / median(times),
        }
        for tier, times in taken.items()
    ]


def _side_by_side(layer: Rows) -> np.ndarray:
    """K and V of a layer's rows, ``(N, 2 G d)``."""
    return np.concatenate([array.reshape(len(array), -1) for array in layer.cached], axis=1)


def _past_the_page_cache(
    stored: Stored, repeats: int, progress: Progress
) -> dict[str, list[float]]:
    """Times of reads before each of which the file was dropped from memory."""
    if not hasattr(os, "posix_fadvise") or not hasattr(os, "RWF_NOWAIT"):
        return {}
    reads: dict[str, Callable[[], object]] = {
        "file, past the page cache": stored.read,
        "mapped file, past the page cache": stored.read_mapped,
    }
    for together in SCATTERED:
        rows = "a row" if together == 1 else f"{together} rows"
        name = f"file, scattered, {rows} a read, past the page cache"
        reads[name] = partial(stored.read_scattered, together)
    taken: dict[str, list[float]] = {name: [] for name in reads}
    for turn in range(repeats):
        for name, read in reads.items():
            if not stored.forget():
                return {}
            start = time.perf_counter()
            read()
            taken[name].append(time.perf_counter() - start)
        progress("tiers", turn + 1, repeats)
    return taken
