"""What the cache protocol costs: decoding with `Full` beside a hand-written loop without it.

    python -m benchmarks.protocol             # needs  minikv fetch smollm2-135m-instruct
    python -m benchmarks.protocol --random    # random weights of the same shape, nothing fetched

The loop below knows no caches, batches or hooks: two arrays a block, filled row by row, and the
same functions for the mathematics, so that its logits are those of minikv in every bit (checked).
The two take turns, step by step, and swap who goes first; printed is the median, over the steps, of
the ratio of their times, with its quartiles. Target: at most 1.05.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

import minikv
from minikv.arithmetic import Matrix, Sight
from minikv.experiments import machine

SMOLLM2_135M = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "max_position_embeddings": 8192,
}
TARGET = 1.05


def by_hand(model: minikv.Model, capacity: int) -> Callable[[int, int], np.ndarray]:
    """A function from a token and its position to logits ``(V,)``, with a memory of its own."""
    weights = model.weights
    arithmetic = model.arithmetic
    config = model.config
    shape = (config.num_key_value_heads, capacity, config.head_dim)  # head by head, as in `Full`

    def rows() -> np.ndarray:
        return np.empty(shape, dtype=arithmetic.dtype).swapaxes(0, 1)  # (capacity, G, d)

    keys = [rows() for _ in model.layers]
    values = [rows() for _ in model.layers]

    def norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return arithmetic.rms_norm(x, weight, config.rms_norm_eps)

    def heads(x: np.ndarray, matrix: Matrix) -> np.ndarray:
        return arithmetic.linear(x, matrix).reshape(1, -1, config.head_dim)

    def step(token: int, position: int) -> np.ndarray:
        seen = slice(position + 1)
        sight = Sight(np.array([position]), np.arange(position + 1), window=None)
        x = weights.arithmetic.lookup(weights.embed_tokens, np.array([token]))
        for layer in model.layers:
            cos, sin = layer.rotary(np.array([position]))
            k = keys[layer.index]
            v = values[layer.index]
            y = norm(x, layer.input_layernorm)
            q = arithmetic.rope(heads(y, layer.q_proj), cos, sin)
            k[position] = arithmetic.settle(arithmetic.rope(heads(y, layer.k_proj), cos, sin))[0]
            v[position] = arithmetic.settle(heads(y, layer.v_proj))[0]
            z = arithmetic.attention(q, k[seen], v[seen], sight, config.attention_scale)
            x = x + arithmetic.linear(z.reshape(1, -1), layer.o_proj)
            y = norm(x, layer.pre_mlp_layernorm)
            gate = arithmetic.linear(y, layer.gate_proj)
            up = arithmetic.linear(y, layer.up_proj)
            x = x + arithmetic.linear(arithmetic.gated(gate, up, "silu"), layer.down_proj)
        return arithmetic.linear(norm(x, weights.norm), weights.lm_head)[0]

    return step


def ratios(model: minikv.Model, steps: int, clock: Callable[[], float]) -> list[float]:
    """Time of a step with `Full` over that of the same step by hand, step by step."""
    cache = model.new_cache()
    contenders = {
        "full": lambda token, position: model.forward([[token]], [cache])[0],
        "by hand": by_hand(model, steps + 1),
    }
    order = list(contenders)
    found = []
    token = 1
    for position in range(steps + 1):
        took = {}
        logits = {}
        for name in order:
            start = clock()
            logits[name] = contenders[name](token, position)
            took[name] = clock() - start
        if logits["full"].tobytes() != logits["by hand"].tobytes():
            sys.exit(f"the loop's logits differ from minikv's at position {position}")
        token = int(logits["full"].argmax())
        found.append(took["full"] / took["by hand"])
        order.reverse()
    return found[1:]  # the first step warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--random", action="store_true", help="random weights of the same shape")
    parser.add_argument("--arithmetic", default="float32")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--cpu", action="store_true", help="processor time, for a busy machine")
    args = parser.parse_args()
    if args.random:
        model = minikv.random_model(minikv.ModelConfig(**SMOLLM2_135M), arithmetic=args.arithmetic)
    else:
        model = minikv.load(args.model, args.arithmetic)
    found = ratios(model, args.steps, time.process_time if args.cpu else time.perf_counter)
    low, middle, high = statistics.quantiles(found, n=4)
    kind = "processor" if args.cpu else "wall"
    sign = "<=" if middle <= TARGET else ">"
    print(f"Full / by hand: {middle:.3f} {sign} {TARGET} (quartiles {low:.3f} to {high:.3f})")
    print(f"{kind} time of {args.steps} steps; logits equal in every bit; {args.arithmetic}")
    print(machine())


if __name__ == "__main__":
    main()
