"""Floors: the least that a task takes on this machine, from counts of work and measured rates.

A roof is a rate that nothing passes: bytes read from memory in a second, flops of a matrix product
in a second. A floor is the work that no program can leave out, over its roofs. The counts come from
a model's configuration, the rates from the same run as the times that are held against the floors.
Nothing but the standard library is imported here: see `benchmarks.peers`.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROWS = 512  # of the products whose rates are measured
BLOCK = 2**14  # elements, which stay in the level-2 cache
BLOCKS = 32  # of them a turn
# In-cache passes a score beside its exponential: the maximum, the difference, the sum; exact moves
# both the weights and their sum to grids, two more passes each.
PASSES = {"float32": 3, "exact": 7}


@dataclass(frozen=True)
class Counts:
    """What a model has to compute and to read. A product and its addition are two flops."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int

    @classmethod
    def of(cls, folder: str | Path) -> Counts:
        """From a model's ``config.json``."""
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        dim = config["hidden_size"] // config["num_attention_heads"]
        given = {"head_dim": dim} | {k: v for k, v in config.items() if v is not None}
        return cls(**{name: given[name] for name in cls.__dataclass_fields__})

    @property
    def key_width(self) -> int:
        """Numbers in one token's keys, or values, of one block."""
        return self.num_key_value_heads * self.head_dim

    @property
    def query_width(self) -> int:
        return self.num_attention_heads * self.head_dim

    @property
    def block(self) -> int:
        """Weights of one block's matrices."""
        attention = 2 * self.query_width + 2 * self.key_width
        return self.hidden_size * (attention + 3 * self.intermediate_size)

    @property
    def weights(self) -> int:
        """Weights that a token is multiplied with: those of all blocks and of the head."""
        return self.num_hidden_layers * self.block + self.vocab_size * self.hidden_size

    @property
    def replayed(self) -> float:
        """The part of a prompt's blocks that a replay multiplies: of the last, keys and values."""
        last = 2 * self.key_width * self.hidden_size
        replay = (self.num_hidden_layers - 1) * self.block + last
        return replay / (self.num_hidden_layers * self.block)

    def cache_bytes(self, context: int) -> int:
        """K and V in float32."""
        return 8 * self.num_hidden_layers * self.key_width * context

    def pairs(self, rows: int) -> int:
        """Scores of a prompt, each query with the keys up to its own."""
        return self.num_hidden_layers * self.num_attention_heads * rows * (rows + 1) // 2

    def products(self, rows: int) -> int:
        """Flops of a prompt's products with the weights, logits of the last row alone."""
        blocks = rows * self.num_hidden_layers * self.block
        return 2 * (blocks + self.vocab_size * self.hidden_size)

    def attention(self, rows: int) -> int:
        """Flops of a prompt's scores and weighted sums."""
        return 4 * self.head_dim * self.pairs(rows)

    def row_passes(self, arithmetic: str) -> int:
        """In-cache passes over a row's numbers in one block, exponentials aside.

        Three for the gate, three for each of two norms, three for the rotation and two additions;
        exact moves the inputs of its four products to grids, in two passes each.
        """
        turned = self.query_width + self.key_width
        passes = 3 * self.intermediate_size + 8 * self.hidden_size + 3 * turned
        if arithmetic == "exact":
            inputs = 2 * self.hidden_size + self.query_width + self.intermediate_size
            passes += 2 * inputs
        return passes

    def flops(self, task: str) -> int:
        """Of ``"decode N"`` or ``"prefill N"``."""
        kind, size = task.split()[:2]
        if kind == "prefill":
            return self.products(int(size)) + self.attention(int(size))
        heads = self.num_hidden_layers * self.num_attention_heads
        return 2 * self.weights + 4 * self.head_dim * heads * int(size)

    def bytes(self, task: str, a_weight: int = 4) -> int:
        """What a task has to read at least: the weights once, and its keys and values once."""
        return a_weight * self.weights + self.cache_bytes(int(task.split()[1]))


@dataclass(frozen=True)
class Rates:
    """What this machine does: flops and bytes a second, and seconds for an element.

    Attributes
    ----------
    products : dict
        Flops a second of BLAS at a block's matrices, by arithmetic: float32's, exact's in float64.
    reading : float
        Bytes a second.
    exp, passes : dict
        Seconds for an element in the cache, on one thread, of an exponential by contender and of
        one pass of NumPy by arithmetic.
    threads : int
    """

    products: Mapping[str, float]
    reading: float
    exp: Mapping[str, float]
    passes: Mapping[str, float]
    threads: int

    @classmethod
    def measured(
        cls, seconds: Mapping[str, Sequence[float]], counts: Counts, threads: int
    ) -> Rates:
        """From the seconds of the tasks of `work`: medians."""

        def by_name(kind: str) -> dict[str, float]:
            prefix = f"rate {kind}:"
            found = {task: statistics.median(took) for task, took in seconds.items()}
            return {t.removeprefix(prefix): s for t, s in found.items() if t.startswith(prefix)}

        def an_element(kind: str) -> dict[str, float]:
            return {name: s / (BLOCK * BLOCKS) for name, s in by_name(kind).items()}

        flops = 2 * ROWS * counts.block
        return cls(
            products={name: flops / s for name, s in by_name("products").items()},
            reading=4 * counts.weights / statistics.median(seconds["rate reading"]),
            exp=an_element("exp"),
            passes=an_element("pass"),
            threads=threads,
        )

    def table(self) -> list[list[str]]:
        """Each rate in words."""
        bits = {"float32": "float32", "exact": "float64"}
        lines = [["rate", "measured"]]
        for name, rate in self.products.items():
            what = f"{bits[name]} products (BLAS, a block's matrices, {ROWS} rows)"
            lines.append([what, f"{rate / 1e9:.1f} Gflop/s"])
        lines.append(["reading memory", f"{self.reading / 1e9:.1f} GB/s"])
        for name, a_pass in self.passes.items():
            what = f"a pass in the cache, {bits[name]}, one thread"
            lines.append([what, f"{a_pass * 1e9:.2f} ns an element"])
        for name, an_exp in self.exp.items():
            what = f"an exponential of {name}, one thread"
            lines.append([what, f"{an_exp * 1e9:.2f} ns"])
        return lines


def tasks(contenders: Sequence[str]) -> list[str]:
    """What `bare` has to be asked for the rates that these contenders' floors need."""
    names = ["reading", *(f"{kind}:{a}" for kind in ("products", "pass") for a in PASSES)]
    return [f"rate {name}" for name in (*names, *(f"exp:{each}" for each in contenders))]


def prefill_floor(counts: Counts, rates: Rates, contender: str, rows: int, bare: float) -> float:
    """About the least that a prompt takes, in units of `bare`, which takes so many seconds.

    The products with the weights and attention's products at BLAS's rate; then one exponential a
    score and a number of the gate, and the passes that cannot be merged. Compiled kernels share
    exponentials and passes among threads, NumPy does not.
    """
    arithmetic, backend = contender.split("/")
    slower = rates.products["float32"] / rates.products[arithmetic]
    products = slower * (1 + counts.attention(rows) / counts.products(rows))
    rows_of_blocks = rows * counts.num_hidden_layers
    exps = counts.pairs(rows) + rows_of_blocks * counts.intermediate_size
    passes = PASSES[arithmetic] * counts.pairs(rows)
    passes += rows_of_blocks * counts.row_passes(arithmetic)
    elements = exps * rates.exp[contender] + passes * rates.passes[arithmetic]
    sharing = rates.threads if backend == "numba" else 1
    return products + elements / sharing / bare


def decode_floor(counts: Counts, rates: Rates, task: str, bare: float) -> float:
    """The least that a token takes, in units of `bare`: the weights and the cache, read once."""
    return counts.bytes(task) / rates.reading / bare


def work(what: str, matrices: Sequence[Any], block: Sequence[Any]) -> Callable[[], object]:
    """The call that is timed for one of the rates in `tasks`, in the process of `bare`.

    Parameters
    ----------
    what : str
        ``"reading"``, or a kind and a name: ``"exp:exact/numpy"``.
    matrices : sequence of ndarray
        All that a decoded token reads, float32.
    block : sequence of ndarray
        Those of one block.
    """
    import numpy as np

    kind, _, name = what.partition(":")
    if kind == "reading":
        return reading(matrices)
    dtype = {"float32": np.float32, "exact": np.float64}[name.split("/")[0]]
    if kind == "products":
        pairs = [
            (np.linspace(-1, 1, ROWS * w.shape[1], dtype=dtype).reshape(ROWS, -1), w.astype(dtype))
            for w in block
        ]
        return lambda: [x @ w.T for x, w in pairs]
    x = np.linspace(-20, 0, BLOCK, dtype=dtype)
    if kind == "pass":
        return lambda: [np.add(x, 1, out=x) for _ in range(BLOCKS)]
    exponential = exponential_of(name)
    return lambda: [exponential(x) for _ in range(BLOCKS)]


def exponential_of(contender: str) -> Callable[[Any], object]:
    """The exponential that a contender's softmax takes."""
    if contender == "exact/numba":  # where `Arithmetic.exp` is NumPy's, and kernels have their own
        from minikv.backends.numba_exact import EXP_TABLE, exp_in_place

        return lambda x: exp_in_place(x.copy(), EXP_TABLE)
    from minikv.backends import get_backend

    arithmetic, backend = contender.split("/")
    return get_backend(backend, arithmetic).exp


def reading(matrices: Sequence[Any]) -> Callable[[], object]:
    """A call that reads all numbers: the largest depends on each, so that none is left out."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from .contenders import threads

    shares = [
        [np.array_split(w.reshape(-1), threads())[number] for w in matrices]
        for number in range(threads())
    ]

    def read(parts: Sequence[Any]) -> None:
        for part in parts:
            np.max(part)

    if threads() == 1:
        return lambda: read(shares[0])
    pool = ThreadPoolExecutor(threads())  # NumPy's reductions let other threads run
    return lambda: list(pool.map(read, shares))
