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
from minikv.experiments import machine
from minikv.layers import attention, gated, rms_norm, rope

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
    weights, config, arithmetic = model.weights, model.config, model.arithmetic
    row = (1, config.num_key_value_heads, config.head_dim)
    heads, eps = (1, config.num_attention_heads, config.head_dim), config.rms_norm_eps
    keys = np.empty((len(model.layers), row[1], capacity, row[2]), dtype=arithmetic.dtype)
    values = np.empty_like(keys)

    def step(token: int, at: int) -> np.ndarray:
        position, positions = np.array([at]), np.arange(at + 1)
        x = weights.embed_tokens[[token]]
        for index, layer in enumerate(model.layers):
            y = rms_norm(x, layer.input_layernorm, eps, arithmetic)
            turn = layer.rotary(position)
            qkv, width = arithmetic.linear(y, layer.qkv_proj), config.attention_width
            k, v = np.split(qkv[:, width:], 2, axis=1)
            q = rope(qkv[:, :width].reshape(heads), turn, arithmetic)
            k, v = rope(k.reshape(row), turn, arithmetic), v.reshape(row)
            keys[index, :, at] = arithmetic.settle(k)[0]
            values[index, :, at] = arithmetic.settle(v)[0]
            stored = (slice(None), slice(at + 1))
            z = attention(
                q,
                keys[index][stored].swapaxes(0, 1),
                values[index][stored].swapaxes(0, 1),
                position,
                positions,
                arithmetic,
                config.attention_scale,
            )
            x = x + arithmetic.linear(z.reshape(1, -1), layer.o_proj)
            y = rms_norm(x, layer.pre_mlp_layernorm, eps, arithmetic)
            gate, up = np.split(arithmetic.linear(y, layer.gate_up_proj), 2, axis=1)
            x = x + arithmetic.linear(gated(gate, up, "silu", arithmetic), layer.down_proj)
        return arithmetic.linear(rms_norm(x, weights.norm, eps, arithmetic), weights.lm_head)[0]

    return step


def ratios(model: minikv.Model, steps: int, clock: Callable[[], float]) -> list[float]:
    """Time of a step with `Full` over that of the same step by hand, step by step."""
    loop, cache = by_hand(model, steps + 1), model.new_cache()
    contenders = [
        lambda token, at: model.forward([[token]], [cache])[0],
        loop,
    ]
    found, token = [], 1
    for at in range(steps + 1):
        took, logits = [0.0, 0.0], [None, None]
        for which in (0, 1) if at % 2 else (1, 0):
            start = clock()
            logits[which] = contenders[which](token, at)
            took[which] = clock() - start
        if logits[0].tobytes() != logits[1].tobytes():
            sys.exit(f"the loop's logits differ from minikv's at position {at}")
        token = int(logits[0].argmax())
        found.append(took[0] / took[1])
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
    kind, sign = "processor" if args.cpu else "wall", "<=" if middle <= TARGET else ">"
    print(f"Full / by hand: {middle:.3f} {sign} {TARGET} (quartiles {low:.3f} to {high:.3f})")
    print(f"{kind} time of {args.steps} steps; logits equal in every bit; {args.arithmetic}")
    print(machine())


if __name__ == "__main__":
    main()
