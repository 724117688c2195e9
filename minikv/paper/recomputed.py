"""Keys and values that a cache holds beside those that are made again from the stream."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..arithmetic import Arithmetic, Float32, Matrix
from ..arithmetic.rounded import Bfloat16, Float16, Rounded
from ..arrays import Array, HeadOutputs, Inputs, Keys, Outputs, Pattern, Queries, Scores, to_numpy
from ..model import Model
from ..projection import kv_from_residual

_FLOAT32 = Float32()


@dataclass(frozen=True)
class Filled:
    """What a text left in a full cache, layer by layer, and the stream that each layer read.

    Parameters
    ----------
    streams : list of (T, D)
    keys, values : list of (T, G, d)
    """

    streams: list[np.ndarray]
    keys: list[np.ndarray]
    values: list[np.ndarray]


@dataclass(frozen=True)
class Difference:
    """How far keys and values are from others, over all layers.

    Parameters
    ----------
    k, v : float
        The largest distance of two numbers; None where one is not finite.
    k_layers, v_layers : int
        In how many layers any number has other bits.
    numbers : int
        How many have, of K and V together.
    """

    k: float | None
    v: float | None
    k_layers: int
    v_layers: int
    numbers: int

    def to_json(self) -> dict[str, float | int | None]:
        """As figures."""
        return asdict(self)


def filled(model: Model, ids: Sequence[int], counts: Iterable[int]) -> Filled:
    """Run a text in calls of so many tokens each, and keep what it left."""
    cache = model.new_cache("full")
    read: list[list[np.ndarray]] = [[] for _ in model.layers]
    names = {f"blocks.{layer.index}.hook_resid_pre": layer.index for layer in model.layers}

    def keep(name: str, value: Array) -> Array:
        if name in names:
            read[names[name]].append(np.array(to_numpy(value)))
        return value

    start = 0
    for count in counts:
        model.forward([ids[start : start + count]], [cache], "none", keep)
        start += count
    held = cache.state()[0]
    indices = range(len(model.layers))
    return Filled(
        [np.concatenate(parts) for parts in read],
        [held[f"k.{index}"] for index in indices],
        [held[f"v.{index}"] for index in indices],
    )


def first(held: Filled, tokens: int) -> Filled:
    """What the first tokens left."""
    parts = (held.streams, held.keys, held.values)
    return Filled(*([rows[:tokens] for rows in part] for part in parts))


def projected(model: Model, streams: Sequence[np.ndarray]) -> Filled:
    """Keys and values of every layer from the rows that it read, all in one call a layer."""
    keys = []
    values = []
    for layer, stream in zip(model.layers, streams, strict=True):
        k, v = kv_from_residual(stream, np.arange(len(stream)), layer)
        keys.append(to_numpy(k))
        values.append(to_numpy(v))
    return Filled([*streams], keys, values)


def digest(held: Filled) -> str:
    """SHA-256 of all keys and values, layer by layer."""
    made = hashlib.sha256()
    for array in (*held.keys, *held.values):
        made.update(np.ascontiguousarray(array).tobytes())
    return made.hexdigest()


def difference(one: Filled, other: Filled) -> Difference:
    """How far two are apart."""
    k_far, k_layers, k_numbers = _apart(one.keys, other.keys)
    v_far, v_layers, v_numbers = _apart(one.values, other.values)
    return Difference(k_far, v_far, k_layers, v_layers, k_numbers + v_numbers)


def _apart(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]
) -> tuple[float | None, int, int]:
    """The largest distance, the layers in which bits differ, and how many numbers do."""
    largest: float | None = 0.0
    layers = 0
    numbers = 0
    for a, b in zip(
        map(np.ascontiguousarray, ours), map(np.ascontiguousarray, theirs), strict=True
    ):
        bits = np.dtype(f"u{a.dtype.itemsize}")
        other = int((a.view(bits) != b.view(bits)).sum())
        layers += other > 0
        numbers += other
        if largest is None or not (np.isfinite(a).all() and np.isfinite(b).all()):
            largest = None
            continue
        far = np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0.0)
        largest = max(largest, float(far))
    return largest, layers, numbers


class Accumulated(Rounded):
    """Products as a matrix unit has them: added in float32, by BLAS, and rounded once at the end.

    For the rest, each operation is rounded as in `Rounded`.
    """

    def linear(self, x: Inputs, weight: Matrix) -> Outputs:
        return self.numbers.of(_FLOAT32.linear(np.asarray(x), np.asarray(weight)))

    def scores(self, q: Queries, k: Keys, scale: float) -> Scores:
        queries = np.asarray(self.numbers.of(q))
        keys = np.asarray(self.numbers.of(k))
        return self.numbers.of(_FLOAT32.scores(queries, keys, scale))

    def weighted_sum(self, pattern: Pattern, v: Array) -> HeadOutputs:
        return self.numbers.of(_FLOAT32.weighted_sum(np.asarray(pattern), np.asarray(v)))


class AccumulatedBfloat16(Accumulated):
    """bfloat16 with float32 accumulators."""

    name = "bfloat16, float32 accumulators"
    numbers = Bfloat16.numbers


class AccumulatedFloat16(Accumulated):
    """float16 with float32 accumulators."""

    name = "float16, float32 accumulators"
    numbers = Float16.numbers


ARITHMETICS: dict[str, str | Arithmetic] = {
    "exact": "exact",
    "float32": "float32",
    "float64": "float64",
    "bfloat16": "bfloat16",
    "float16": "float16",
    AccumulatedBfloat16.name: AccumulatedBfloat16(),
    AccumulatedFloat16.name: AccumulatedFloat16(),
}
"""What table 2 is run in: names that `minikv.load` takes, and two of our own."""
FIXED_ORDER = ("exact", "bfloat16", "float16")
"""Those in which the order of a sum does not depend on how many rows share the call."""
