"""How many tokens of lossy caches A6 certifies, with an oracle's bound: SmolLM2, float32.

    python proofs/certified.py           # a table, on standard output
    python proofs/certified.py --write   # and docs/experiments/certified.json

Each text is cut to a prompt and some tokens that follow, which are fed one by one whatever a cache
would have said. After each, the lossy cache's logits are compared with the full cache's: whether
they name the same token, by how much that leads, how far the logits are off, and whether the
theorem certifies it. The bound is the true one, which takes the full cache to know: with any bound
that can be had without it, no more are certified.

What two such bounds certify (`minikv.atlas.known_bounds`) is a second table. There the last block's
keys and values alone are rounded, and each text is one call. Takes minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

import minikv
from minikv.arrays import to_numpy
from minikv.atlas.known_bounds import (
    Behind,
    Token,
    by_intervals,
    by_norms,
    knowing_nothing,
    lossy_run,
)
from minikv.atlas.margins import certified, certified_in_pairs, leads, off_by, off_in_pairs
from minikv.atlas.systems.kv_tuner import equal
from minikv.commands.output import print_table
from minikv.experiments.policies import policy_cache
from minikv.experiments.texts import read_prompts
from minikv.experiments.timing import machine
from minikv.memory import Memory
from minikv.model import Model
from minikv.progress import show

FILE = Path(__file__).resolve().parents[1] / "docs" / "experiments" / "certified.json"
MODEL = "smollm2-135m-instruct"
PROMPT = 96  # tokens of a text, in one call
FOLLOWING = 16  # tokens fed one by one
POLICIES = ("window", "streaming_llm", "h2o", "tova")
BUDGET = 64
BITS = (8, 6, 4, 3)
LAST_BITS = (15, 12, 8, 6, 4)  # of the last block alone; with 16 the cache is the full one
LAST_TOKENS = 8  # of each text, behind its prompt
Row = dict[str, object]


def evicting(policy: str, model: Model) -> Memory:
    """An empty cache of a policy."""
    return policy_cache(policy, model.weights, BUDGET)


def rounded(bits: int, model: Model) -> Memory:
    """An empty cache whose keys and values have so many bits."""
    return equal(model, (bits, bits))


def caches() -> dict[str, Callable[[Model], Memory]]:
    """The lossy caches by name."""
    made: dict[str, Callable[[Model], Memory]] = {}
    for policy in POLICIES:
        made[f"{policy}, {BUDGET} tokens"] = partial(evicting, policy)
    for bits in BITS:
        made[f"K and V of {bits} bits"] = partial(rounded, bits)
    return made


def followed(model: Model, memory: Memory, ids: Sequence[int], prompt: int) -> np.ndarray:
    """Logits after each token behind the prompt, ``(T - prompt, V)``."""
    model.forward([ids[:prompt]], [memory], "none")
    return np.stack([to_numpy(model.forward([[token]], [memory]))[0] for token in ids[prompt:]])


def compared(lossy: np.ndarray, exact: np.ndarray) -> list[Row]:
    """What became of each token, ``(T, V)`` twice."""
    return [
        {
            "same": bool(row.argmax() == wanted.argmax()),
            "certified": certified(row, off_by(row, wanted)),
            "in pairs": certified_in_pairs(row, off_in_pairs(row, wanted)),
            "off by": off_by(row, wanted),
            "lead": float(leads(row).min()),
        }
        for row, wanted in zip(lossy, exact, strict=True)
    ]


def summary(name: str, rows: Sequence[Row]) -> Row:
    """Shares and medians of all tokens of a cache."""
    shares = {
        key: float(np.mean([bool(row[key]) for row in rows]))
        for key in ("same", "certified", "in pairs")
    }
    medians = {
        key: float(np.median([float(str(row[key])) for row in rows])) for key in ("off by", "lead")
    }
    return {"cache": name, "tokens": len(rows), **shares, **medians}


def measured(model: Model, texts: Mapping[str, Sequence[int]], prompt: int) -> list[Row]:
    """A row for each cache, of all texts."""
    made = caches()
    found: dict[str, list[Row]] = {name: [] for name in made}
    done = 0
    for ids in texts.values():
        exact = followed(model, model.new_cache("full"), ids, prompt)
        for name, make in made.items():
            found[name] += compared(followed(model, make(model), ids, prompt), exact)
            done += 1
            show("certified", done, len(texts) * len(made))
    return [summary(name, rows) for name, rows in found.items()]


def known(weights: Behind, token: Token, exact: np.ndarray) -> Row:
    """What is known of one token without the exact logits, ``(V,)``, and what is true."""
    second = int(leads(token.logits).argmin())
    moves = off_in_pairs(token.logits, exact)
    row: Row = {
        "same": bool(token.logits.argmax() == exact.argmax()),
        "lead": float(leads(token.logits)[second]),
        "moves": float(moves[second]),
        "certified": certified_in_pairs(token.logits, moves),
    }
    for name, bound in (("norms", by_norms), ("intervals", by_intervals)):
        most = bound(weights, token)
        row[f"{name}: moves"] = float(most[second])
        row[f"{name}: certified"] = certified_in_pairs(token.logits, most)
        ceiling = bound(weights, knowing_nothing(token))
        row[f"{name}: nothing"] = bool(most[second] == ceiling[second])
        row[f"{name}: exceeded"] = bool((moves > most).any())
    return row


def known_of_last_block(
    model: Model, texts: Mapping[str, Sequence[int]], prompt: int
) -> list[dict[str, float]]:
    """A row for each number of bits of the last block: shares of all tokens, and medians."""
    weights = Behind.of(model)
    found: dict[int, list[Row]] = {bits: [] for bits in LAST_BITS}
    for done, ids in enumerate(texts.values(), start=1):
        exact = to_numpy(model.logits(ids))[prompt:]
        for bits, rows in found.items():
            tokens = lossy_run(model, ids, bits)[prompt:]
            rows += [known(weights, *each) for each in zip(tokens, exact, strict=True)]
        show("known bounds", done, len(texts))
    return [summed(bits, rows) for bits, rows in found.items()]


def summed(bits: int, rows: Sequence[Row]) -> dict[str, float]:
    """Shares of what is true or false, and medians of numbers."""
    columns: dict[str, float] = {"bits": bits, "tokens": len(rows)}
    for key, first in rows[0].items():
        column = np.array([row[key] for row in rows])
        middle = np.mean if isinstance(first, bool) else np.median
        columns[key] = float(middle(column))
    return columns


def shown(cell: object) -> str:
    """A cell of the table."""
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {FILE.name}")
    options = parser.parse_args()
    model = minikv.load(MODEL)
    assert model.tokenizer is not None
    texts = {
        name: model.tokenizer.encode(text)[: PROMPT + FOLLOWING]
        for name, text in read_prompts().items()
    }
    rows = measured(model, texts, PROMPT)
    print_table(list(rows[0]), [list(map(shown, row.values())) for row in rows])
    short = {name: ids[: PROMPT + LAST_TOKENS] for name, ids in texts.items()}
    last = known_of_last_block(model, short, PROMPT)
    print_table(list(last[0]), [list(map(shown, row.values())) for row in last])
    if options.write:
        figures = {
            "command": " ".join(["python", *sys.argv]),
            "date": time.strftime("%Y-%m-%d"),
            "model": MODEL,
            "machine": machine(),
            "arithmetic": "float32",
            "texts": len(texts),
            "prompt": PROMPT,
            "rows": rows,
            "last block": last,
        }
        FILE.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
