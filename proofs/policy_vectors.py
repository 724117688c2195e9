"""What each eviction policy keeps of given keys, values and queries: vectors for other programs.

    python proofs/policy_vectors.py              # write them, into vectors_of_policies/
    python proofs/policy_vectors.py --check      # say whether they would be written anew

``inputs.json`` holds, by name, two layers of queries ``(tokens, H, d)``, keys and values
``(tokens, G, d)``, as attention reads them (turned by their positions in the text, pairs i and
i + d/2, base 10000), the calls in which tokens come, the scale of the scores, and a window or null.
Attention is softmax over what is stored and the call's own tokens, causal, in a window the newest;
query heads h and h + 1 share K/V head h // (H / G).

Each other file is a policy: its source, and vectors with the name of an input, the parameters, and,
after each call, the tokens that are kept, by layer and K/V head, and the position of the next token
(``next``). A budget of 0 is refused by all of them, which a vector says too.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import minikv
from minikv.arithmetic import Sight, Watch
from minikv.atlas import atlas_policies, entries
from minikv.caches import Evicting, evicting
from minikv.errors import CacheError

FOLDER = Path(__file__).parent / "vectors_of_policies"
LAYERS = 2
TOKENS = 10
CALLS = (7, 1, 1, 1)
WIDTH = 4
SHAPES = {"one head": (1, 2, None), "grouped": (2, 4, None), "window": (2, 4, 4)}
"""By name: K/V heads, query heads, window."""
BUDGETS = (0, 1, TOKENS // 2, TOKENS - 1, TOKENS + 3)


def inputs() -> dict[str, dict[str, Any]]:
    """Numbers of three digits after the point, drawn."""
    found = {}
    for seed, (name, (groups, heads, window)) in enumerate(SHAPES.items()):
        rng = np.random.default_rng([seed, 11])
        tensors = {
            part: np.round(rng.normal(size=(LAYERS, TOKENS, count, WIDTH)) * 1.5, 3).tolist()
            for part, count in (("q", heads), ("k", groups), ("v", groups))
        }
        found[name] = {"calls": CALLS, "window": window, "scale": WIDTH**-0.5, **tensors}
    return found


def policies() -> dict[str, type[Evicting]]:
    """The core's and the atlas's."""
    return {**evicting(), **atlas_policies()}


def settings(policy: type[Evicting], budget: int) -> list[dict[str, Any]]:
    """The policy's own examples, with this budget where they can have it."""
    return [{**example, "budget": budget} for example in policy.examples(max(1, budget))]


def weights_for(given: Mapping[str, Any], arithmetic: str) -> minikv.decoder.Weights:
    """A model of the input's shape, of which nothing is used but that."""
    config = minikv.tiny_config(
        num_hidden_layers=LAYERS,
        num_attention_heads=len(given["q"][0][0]),
        num_key_value_heads=len(given["k"][0][0]),
        head_dim=WIDTH,
    )
    return minikv.random_model(config, 0, arithmetic).weights


def played(
    policy: type[Evicting],
    parameters: Mapping[str, Any],
    given: Mapping[str, Any],
    arithmetic: str = "float64",
) -> list[dict[str, Any]]:
    """What is kept after each call, and the next token's position."""
    weights = weights_for(given, arithmetic)
    cache = policy(weights, **parameters)
    q, k, v = (np.array(given[part], dtype=arithmetic) for part in ("q", "k", "v"))
    found = []
    start = 0
    for count in given["calls"]:
        rows = slice(start, start + count)
        _, positions = cache.begin(np.zeros(count, dtype=int))
        for layer in weights.layers:
            stream = np.zeros((count, weights.config.hidden_size), dtype=arithmetic)
            of = layer.index
            attended, keys, values = cache.update(
                layer, positions, stream, k[of, rows], v[of, rows]
            )
            watch = Watch(observe=partial(cache.observe, layer) if cache.watches else None)
            sight = Sight(positions, attended, given["window"])
            layer.arithmetic.attention(q[of, rows], keys, values, sight, given["scale"], watch)
            cache.evict(layer)
        cache.advance(count)
        start += count
        kept = [stored.positions.T.tolist() for stored in cache.rows]
        found.append({"kept": kept, "next": int(cache.next_position)})
    return found


def vector(
    policy: type[Evicting], name: str, parameters: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """One vector, or how the parameters are refused."""
    told = {"input": name, "parameters": dict(parameters)}
    try:
        return {**told, "calls": played(policy, parameters, given)}
    except CacheError as error:
        return {**told, "refused": str(error)}


def source(name: str) -> str:
    """Where the rule is from."""
    found = entries().get(name)
    if found is not None:
        return f"arXiv {found.arxiv}"
    return re.search(r"arXiv \d{4}\.\d{5}", str(policies()[name].__doc__))[0]


def texts() -> Iterator[tuple[Path, str]]:
    """Each file's path and contents."""
    given = inputs()
    yield FOLDER / "inputs.json", json.dumps(given) + "\n"
    for name, policy in policies().items():
        vectors = [
            vector(policy, shape, parameters, numbers)
            for shape, numbers in given.items()
            for budget in BUDGETS
            for parameters in settings(policy, budget)
        ]
        lines = ",\n".join(json.dumps(entry) for entry in vectors)
        head = json.dumps({"policy": name, "source": source(name)})[:-1]
        yield FOLDER / f"{name}.json", f'{head}, "vectors": [\n{lines}\n]}}\n'


def main(arguments: list[str]) -> int:
    checking = arguments == ["--check"]
    changed = 0
    FOLDER.mkdir(exist_ok=True)
    for path, text in texts():
        same = path.exists() and path.read_text(encoding="utf-8") == text
        changed += not same
        if not checking:
            path.write_text(text, encoding="utf-8")
        print("same   " if same else "CHANGED", path.name, len(text), "bytes")
    return changed if checking else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
