"""A model on one, two and four processes: what they say to each other, hold, and take.

::

    python -m benchmarks.ranks [--model NAME] [--backend B] [--ranks 1,2,4]
    python -m benchmarks.ranks --project

The second prints what `minikv.parallel.cost` makes of shapes that are not here: a model of latency
and bandwidth, no measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace

from minikv.commands.options import counts
from minikv.commands.output import print_table, readable
from minikv.experiments.timing import machine
from minikv.parallel.cost import NETWORKS, said_per_token, seconds_per_token
from minikv.parallel.sockets import Door
from minikv.shapes import shape
from minikv.weights.fetch import DEFAULT

PROMPT = "The lighthouse keeper wrote down every ship that passed."
NEW = 24  # tokens
SHAPES = {
    "gemma-3-4b": shape("gemma-3-4b"),
    "llama-3.1-70b": replace(  # arXiv 2407.21783, table 3
        shape("llama-3.2-3b"),
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=False,
        layer_types=(),
    ),
}
MEMORY = 10e9  # bytes of weights that a process reads in a second: two channels of DDR4 give that
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


def free_address() -> str:
    door = Door("127.0.0.1", 0)
    door.server.close()
    return door.address


def started(*argv: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "minikv", *argv],
        env=os.environ | ONE_THREAD,
        stdout=subprocess.PIPE,
        text=True,
    )


def measured(size: int, model: str, backend: str, new: int) -> list[dict]:
    """What each rank tells of a run."""
    argv = ["generate", PROMPT, "--model", model, "--arithmetic", "exact", "--backend", backend]
    argv += ["--max-new-tokens", str(new), "--json"]
    if size > 1:
        address = free_address()
        argv += ["--ranks", str(size), "--listen", address]
    processes = [started(*argv)]
    processes += [started("serve-rank", address, "--json") for _ in range(size - 1)]
    return [json.loads(process.communicate()[0]) for process in processes]


def rows(sizes: list[int], model: str, backend: str):
    """A line of the table for each number of ranks: a short run is taken from a long one."""
    expected = None
    for size in sizes:
        short = measured(size, model, backend, 1)
        long = measured(size, model, backend, 1 + NEW)
        expected = expected or long[0]["ids"]
        said = said_per_token_of(long[0], short[0])
        peaks = [rank["peak_memory_bytes"] for rank in long]
        yield (
            size,
            long[0]["ids"] == expected,
            said["calls"],
            readable(said["wire"]),
            readable(max(peaks)),
            readable(long[0]["cache_bytes"]),
            long[0]["seconds_per_token"],
        )


def said_per_token_of(long: dict, short: dict) -> dict[str, int]:
    """Calls and bytes of rank 0 for a token behind the prompt."""
    if "ranks" not in long:
        return {"calls": 0, "wire": 0}
    calls = (long["calls"] - short["calls"]) / NEW
    wire = (long["wire_bytes"] - short["wire_bytes"]) / NEW
    return {"calls": round(calls), "wire": round(wire)}


def measure(args: argparse.Namespace) -> None:
    print(f"{args.model}, exact, {args.backend}, one thread a rank, {NEW} tokens behind a prompt")
    print(f"{time.strftime('%d %B %Y')}\n{machine()}\n")
    header = ["ranks", "same tokens", "calls a token", "rank 0's bytes", "largest peak"]
    header += ["rank 0's cache", "s a token"]
    print_table(header, rows(args.ranks, args.model, args.backend))


def project() -> None:
    print(
        f"a model, no measurement: weights of 4 bytes read at {MEMORY / 1e9:.0f} GB/s by each "
        "rank,\nreductions up and down a tree, nothing overlaps; seconds a token\n"
    )
    for name, config in SHAPES.items():
        said = said_per_token(config, 8)
        print(
            f"{name}: {said.calls} calls a token, {readable(said.sums)} into sums by each rank, "
            f"{readable(said.gathered)} of logits and ids"
        )
        table = [
            [size, *(seconds_per_token(config, size, network, MEMORY) for network in NETWORKS)]
            for size in (1, 2, 4, 8, 16)
            if size <= config.num_attention_heads
        ]
        print_table(["ranks", *(network.name for network in NETWORKS)], table)
        print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--ranks", type=counts, default=[1, 2, 4])
    parser.add_argument("--project", action="store_true")
    args = parser.parse_args()
    if args.project:
        project()
    else:
        measure(args)


if __name__ == "__main__":
    main()
